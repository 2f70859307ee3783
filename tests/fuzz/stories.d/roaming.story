bridge 0
ruleset when=established
flow 1 udp4 c1 s1
roam c1 3
