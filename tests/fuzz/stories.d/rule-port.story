ruleset when=established
flow 1 udp4 c1 s1
flow 2 udp4 c1 s1
r ip -4 rule add ipproto udp dport 5001 prio 100 lookup 100
