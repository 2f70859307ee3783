vlan 1 20
r ip link set p1 mtu 1300
ruleset when=established
flow 1 udp4 c1 s1
flow 2 udp6 c1 s1
send 1 to size=1350 df
send 1 to size=1350
send 2 to size=1350
