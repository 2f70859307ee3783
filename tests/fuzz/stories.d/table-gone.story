# What conntrack knows of connections that have just begun when the table goes.
ruleset when=established
flow 1 tcp4 c1 s1
flow 2 tcp6 c1 s1
flow 3 udp4 c1 s1
bare
