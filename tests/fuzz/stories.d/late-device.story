ruleset when=established plus=late0
flow 1 udp4 c1 s1
r ip link add late0 type dummy
r ip link set late0 name late1
r ip link set late1 name late0
