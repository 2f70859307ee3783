bridge 0
ruleset when=any strict
flow 1 gre4 c1 s1
flow 2 udp4 c1 s1
rounds 5
roam c1 3
pass 1200
roam c1 0
send 1 to size=1000 frag=512
pass 2200
