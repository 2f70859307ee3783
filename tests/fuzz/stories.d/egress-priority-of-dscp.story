vlan 1 20 egress-qos-map 6:5
ruleset when=established
flow 1 udp4 c1 s1 tos=0x10
rounds 10
