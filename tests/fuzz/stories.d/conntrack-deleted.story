ruleset when=established
flow 1 udp4 c1 s1
flow 2 tcp6 c1 s1
r conntrack -D -f ipv4 -p udp --orig-port-dst 5001
r conntrack -F
