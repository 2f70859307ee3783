r sysctl net.ipv4.fib_multipath_hash_policy=1
ruleset when=established
r ip -4 route replace 10.9.9.9 nexthop via 10.0.2.2 nexthop via 10.0.3.2
flow 1 udp4 c1 s1
flow 2 udp4 c1 s1
flow 3 tcp4 c1 s1
flow 4 tcp4 c2 s1
r ip -4 route replace 10.9.9.9 nexthop via 10.0.2.2 weight 5 nexthop via 10.0.3.2 weight 1
