ruleset when=established
flow 1 udp4 c1 s1
r ip xfrm policy add src 192.168.1.2/32 dst 10.9.9.9/32 dir out tmpl src 10.0.2.1 dst 10.0.2.2 proto esp reqid 1 mode tunnel
