ruleset when=established
flow 1 udp4 c1 s1 tos=0x10
flow 2 tcp4 c1 s1
r ip -4 rule add tos 0x10 prio 100 lookup 100
r ip -4 rule del prio 100
