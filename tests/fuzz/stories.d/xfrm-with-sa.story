ruleset when=established
flow 1 udp4 c1 s1
r ip xfrm state add src 10.0.2.1 dst 10.0.2.2 proto esp spi 0x1000 reqid 1 mode tunnel aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128
r ip xfrm policy add src 192.168.1.2/32 dst 10.9.9.9/32 dir out tmpl src 10.0.2.1 dst 10.0.2.2 proto esp reqid 1 mode tunnel
r ip xfrm policy flush
