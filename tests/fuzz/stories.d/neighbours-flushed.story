ruleset when=established
flow 1 udp4 c1 s1
flow 2 tcp4 c2 s1
flow 3 tcp6 c1 s1
r ip neigh flush dev p1
r ip neigh flush dev p0
