ruleset when=established
flow 1 udp6 c1 s1
flow 2 tcp6 c1 s1
r sysctl net.ipv6.conf.all.forwarding=0
r sysctl net.ipv6.conf.all.forwarding=1
