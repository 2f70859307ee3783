ruleset when=established
flow 1 udp4 c1 s1
r ip xfrm policy add src 10.9.9.9/32 dst 192.168.1.2/32 dir out tmpl src 192.168.1.1 dst 192.168.1.2 proto esp reqid 2 mode tunnel
