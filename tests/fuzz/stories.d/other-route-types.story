ruleset when=established
flow 1 udp4 c1 s1
r ip -4 rule add from 192.168.1.2/32 prio 100 blackhole
r ip -4 rule del prio 100
r ip -4 route add unreachable 10.9.9.9 metric 1
