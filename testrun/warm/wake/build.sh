#!/bin/sh
# Makes wake.x86_64, which is committed because who builds the driver need not
# have a C compiler, from wake.c: build.sh [OUTPUT].
set -eu
cd "$(dirname "$0")"
gcc -Os -Wall -Werror -nostdlib -nostartfiles -static -ffreestanding -fno-pic -no-pie -fno-stack-protector \
    -fno-asynchronous-unwind-tables -fcf-protection=none -fno-builtin \
    -Wl,--build-id=none,-z,noexecstack,-z,noseparate-code -s -o "${1:-wake.x86_64}" wake.c
objcopy --remove-section .comment "${1:-wake.x86_64}"
