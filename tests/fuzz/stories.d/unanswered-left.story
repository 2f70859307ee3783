# What conntrack knows of it when it leaves the flowtable.
ruleset when=any
flow 1 udp4 c1 s1 answers=no
rounds 10
bare
