# Offloaded before the first answer.
ruleset when=any
flow 1 udp4 c1 s1 answers=no
rounds 10
answer 1 yes
pass 2500
