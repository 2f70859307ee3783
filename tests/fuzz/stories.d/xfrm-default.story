ruleset when=established
flow 1 tcp6 c1 s1
r ip xfrm policy setdefault fwd block
r ip xfrm policy setdefault fwd accept
