#!@bash@/bin/bash
# Stage 2, a node's init: puts the node's configuration in place, brings its
# network up and starts the init system of its kind. Stage 1 has left the console
# open as file 3.
set -eu
export PATH=@busybox@/bin
toplevel=@toplevel@

mkdir -p /run /tmp /root /var/empty
chmod 1777 /tmp
mount -t tmpfs -o mode=0755 tmpfs /run
ln -s "$toplevel" /run/current-system
# -f: after a reboot the links of the first boot are there.
cp -Rf "$toplevel/etc/." /etc/
mkdir -p /lib
ln -sfn @kernelModules@/lib/modules /lib/modules
[ -s /etc/machine-id ] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
hostname "$(cat /etc/hostname)"

# As in nixpkgs' tests: root has an empty password.
if [ -e /etc/shadow ]; then sed -i 's/^root:[^:]*:/root::/' /etc/shadow; fi
# user NAME UID HOME PASSWORD LINGER
user() {
    if grep -q "^$1:" /etc/passwd; then return; fi
    local hash='!'
    if [ -n "$4" ]; then hash=$(mkpasswd -m sha256 -S vmprebuild "$4"); fi
    if [ -e /etc/shadow ]; then
        echo "$1:$hash:19000:0:99999:7:::" >>/etc/shadow
        hash=x
    fi
    echo "$1:$hash:$2:$2::$3:/bin/bash" >>/etc/passwd
    echo "$1:x:$2:" >>/etc/group
    mkdir -p "$3" /var/lib/systemd/linger
    chown "$2:$2" "$3"
    if [ -n "$5" ]; then touch "/var/lib/systemd/linger/$1"; fi
}
@users@
ip link set lo up
@network@
exec @init@ 2>&3 3>&-
