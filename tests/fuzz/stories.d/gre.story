# Fragments, and packets with a low TTL, between others of an entry of GRE.
ruleset when=established strict
flow 1 gre4 c1 s1
rounds 5
send 1 to ttl=1
rounds 3
send 1 back ttl=1
rounds 3
send 1 to size=1000 frag=512
pass 1500
bare
