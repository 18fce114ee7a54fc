#!@bash@/bin/bash
# The root shell that the test driver talks to: commands and answers on hvc0,
# stderr on the serial console.
export USER=root HOME=/root DISPLAY=:0.0
. /etc/profile
export PAGER=
cd /tmp
exec </dev/hvc0 >/dev/hvc0
while ! exec 2>/dev/ttyS0; do sleep 0.1; done
echo "connecting to host..." >&2
stty -F /dev/hvc0 raw -echo
# Nothing may be printed after this line: the driver's first command comes next.
echo "Spawning backdoor root shell..."
PS1="" exec @bash@/bin/bash --norc /dev/hvc0
