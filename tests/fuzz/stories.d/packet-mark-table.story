# A mark that each packet gets and conntrack does not keep; its table's route changes.
r nft add table inet marks { chain pre { type filter hook prerouting priority mangle; ip daddr 10.9.9.9 meta mark set 0x7; ip6 daddr fd00:9::9 meta mark set 0x7; }; }
r ip -4 rule add fwmark 0x7 prio 100 lookup 103
r ip -6 rule add fwmark 0x7 prio 100 lookup 103
ruleset when=established
flow 1 udp4 c1 s1
flow 2 tcp6 c1 s1
rounds 10
r ip -4 route replace default via 10.0.3.2 table 103
r ip -6 route replace default via fd00:3::2 table 103
