vlan 1 20 egress-qos-map 0:3 6:5
ruleset when=established
flow 1 udp4 c1 s1
rounds 10
