ruleset when=established
flow 1 udp4 c1 s1
flow 2 tcp6 c1 s1
mute u1
r ip neigh del 10.0.2.2 dev p1
r ip -6 neigh flush dev p1
unmute u1
