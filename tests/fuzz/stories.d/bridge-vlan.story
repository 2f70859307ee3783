bridge 0 vlan_filtering 1
ruleset when=established
flow 1 udp4 c1 s1
r bridge vlan add dev q0 vid 1 pvid
