ruleset when=established
flow 1 tcp4 c1 s1
r ip xfrm policy add src 192.168.1.2/32 dst 10.9.9.9/32 dir fwd action block
