import datetime

print(vlan1, vlan1.nr, vlan2.socket_dir)
vlan1.set_loss(0.1)
vlan1.set_loss(0.1, machine=alpha)
vlan1.set_delay(0.05, jitter=0.01)
vlan1.set_delay(datetime.timedelta(seconds=2), machine="web-1")
vlan2.partition([alpha, "web-1"], [])
vlan2.partition(alpha, web_1)
vlan2.heal()
print(vlan2.stats())
