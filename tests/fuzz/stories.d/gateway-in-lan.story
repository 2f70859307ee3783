# Requests go by a mark to a gateway in the client's own LAN: answers must go to the client.
r nft add table inet marks { chain pre { type filter hook prerouting priority mangle; iifname p0 ip saddr 192.168.1.2 meta mark set 0x7 ct mark set meta mark; iifname p0 ip6 saddr fd00:1::2 meta mark set 0x7; }; }
r nft add table inet nat { chain post { type nat hook postrouting priority srcnat; oifname "p0" masquerade; }; }
r ip -4 rule add fwmark 0x7 prio 100 lookup 101
r ip -6 rule add fwmark 0x7 prio 100 lookup 101
ruleset when=established
flow 1 udp4 c1 s1
flow 2 tcp4 c1 s1
flow 3 udp6 c1 s1
rounds 20
