# Packets of one flow with another TOS have another route.
ruleset when=established
r ip -4 rule add tos 0x10 prio 100 lookup 100
flow 1 udp4 c1 s1
rounds 5
send 1 to tos=0x10
