bridge 0
ruleset when=established
flow 1 udp4 c1 s1
r bridge fdb replace 02:00:00:00:00:02 dev q3 master dynamic
