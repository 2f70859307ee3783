ruleset when=established
flow 1 tcp4 c1 s1
flow 2 tcp4 c1 s1
send 1 to fin pcp=3
send 2 to rst pcp=3
