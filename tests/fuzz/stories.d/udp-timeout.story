ruleset when=any counter
flow 2 udp4 c2 s2 tos=0x10
flow 3 udp6 c2 s2 tos=0x10
flow 1 tcp6 c1 s1 tos=0x10
r ip addr del 10.0.2.1/24 dev p1
r ip neigh replace 10.0.2.3 lladdr 02:00:00:01:dd:01 dev p1
