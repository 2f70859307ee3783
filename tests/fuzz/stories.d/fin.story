ruleset when=established
flow 1 tcp4 c1 s1
flow 2 tcp4 c1 s1
flow 3 tcp6 c1 s1
send 1 to fin
send 1 back fin
send 2 to rst
send 3 back fin
