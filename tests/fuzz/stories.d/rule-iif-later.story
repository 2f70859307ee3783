ruleset when=established
flow 1 udp6 c1 s1
r ip -6 rule add iif p1 prio 100 lookup 102
