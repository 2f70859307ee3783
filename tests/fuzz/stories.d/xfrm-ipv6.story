ruleset when=established
flow 1 udp6 c1 s1
r ip xfrm policy add src fd00:1::2/128 dst fd00:9::9/128 dir out tmpl src fd00:2::1 dst fd00:2::2 proto esp reqid 1 mode tunnel
