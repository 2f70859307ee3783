vlan 1 20
ruleset when=established
flow 1 udp4 c1 s1
r ip link set p1 type vlan egress-qos-map 0:4
