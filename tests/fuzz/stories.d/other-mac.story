nic profile mlx5-ft
ruleset when=established
flow 1 udp4 c1 s1
send 1 to dmac=02:00:00:00:00:99
