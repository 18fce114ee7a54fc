#!@bash@/bin/bash
# Stage 2, a node's init: puts the node's configuration in place, brings its
# network up and starts the init system of its kind. Stage 1 has left the console
# open as file 3.
set -eu
export PATH=@busybox@/bin
toplevel=@toplevel@

mkdir -p /run /tmp /root /var/empty
mount -t tmpfs -o mode=0755 tmpfs /run
ln -s "$toplevel" /run/current-system
# -f: after a reboot the links of the first boot are there.
cp -Rf "$toplevel/etc/." /etc/
[ -s /etc/machine-id ] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
hostname "$(cat /etc/hostname)"

ip link set lo up
@network@
exec @init@ 2>&3 3>&-
