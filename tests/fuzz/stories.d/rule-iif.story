# Answers from the uplink go through a box.
ruleset when=any strict
r ip -4 rule add iif p1 prio 100 lookup 102
flow 1 udp4 c1 s1
rounds 20
