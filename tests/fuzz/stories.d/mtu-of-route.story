ruleset when=established
r ip -4 route replace 10.9.9.9 via 10.0.2.2 mtu 1300
r ip -6 route replace fd00:9::9 via fd00:2::2 mtu 1300
flow 1 udp4 c1 s1
flow 2 tcp6 c1 s1
# Without `flags offload`, an entry is looked at after a second.
pass 2200
send 1 to size=1350 df
send 1 to size=1350
send 2 to size=1250
