#!/bin/sh
# Makes console.png: what QEMU's firmware, SeaBIOS and iPXE of Debian 12, shows
# when there is nothing to boot from, in the letters of a VGA text console.
set -eu
cd "$(dirname "$0")"
{
	sleep 6
	echo '{"execute": "qmp_capabilities"}'
	echo '{"execute": "screendump", "arguments": {"filename": "console.png", "format": "png"}}'
	echo '{"execute": "quit"}'
} | qemu-system-x86_64 -machine accel=tcg -m 64 -display none -qmp stdio
