r nft add table inet restore { chain pre { type filter hook prerouting priority mangle; meta mark set ct mark; }; }
r ip -4 rule add fwmark 0x7 prio 90 lookup 100
ruleset when=established
flow 1 udp4 c1 s1
flow 2 tcp4 c1 s1
pass 2200
r conntrack -U -p udp --orig-port-dst 5001 --mark 0x7
r conntrack -U -p tcp --orig-port-dst 5002 --mark 0x7
r conntrack -U -p udp --orig-port-dst 5001 --mark 0
