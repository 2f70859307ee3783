ruleset when=established
r ip -4 rule add iif p0 prio 108 lookup 101
flow 3 udp4 c2 s1
r sysctl net.ipv4.conf.p1.forwarding=0
r ip xfrm state add src 10.0.2.1 dst 10.0.2.2 proto esp spi 0x1000 reqid 1 mode tunnel aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128
r ip xfrm policy add src 192.168.1.3/32 dst 10.9.9.9/32 dir out tmpl src 10.0.2.1 dst 10.0.2.2 proto esp reqid 1 mode tunnel
