r sysctl net.ipv4.conf.all.rp_filter=1
ruleset when=established
flow 1 udp4 c1 s1
r ip -4 route add 192.168.1.2/32 via 10.0.4.2
