bridge 0
ruleset when=established
flow 1 udp4 c1 s1
r bridge link set dev q0 state 4
