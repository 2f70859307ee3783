ruleset when=established
flow 1 udp4 c1 s1
r sysctl net.ipv4.conf.p1.forwarding=0
