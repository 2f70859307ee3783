# The address that a connection is translated to goes; another one takes its place.
r nft add table inet nat { chain post { type nat hook postrouting priority srcnat; oifname "p1" masquerade; }; }
r ip addr add 10.0.2.9/24 dev p1
ruleset when=established
flow 1 udp4 c1 s1
r ip addr del 10.0.2.1/24 dev p1
