ruleset when=established
flow 1 tcp4 c1 s1
flow 2 tcp4 c1 s1
send 1 to rst=100000
send 2 back rst=100000
rounds 5
bare
