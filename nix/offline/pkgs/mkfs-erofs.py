#!/usr/bin/python3
"""mkfs.erofs with two options that Debian 12's (1.5) lacks and nixpkgs' has:
--tar=f, files come as an archive on standard input, and -L, a volume label."""

import argparse
import os
import struct
import subprocess
import sys
import tempfile

# The superblock begins here; see erofs_super_block in Linux's fs/erofs/erofs_fs.h.
SUPERBLOCK = 1024
MAGIC = 0xE0F5E1E2
CHECKSUM, FEATURES, BLOCK_BITS, LABEL = 4, 8, 12, 64
FEATURE_CHECKSUM = 1
LABEL_SIZE = 16


def crc32c(data: bytes) -> int:
    """The CRC-32C of data, not inverted at the end."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


def set_label(path: str, label: bytes) -> None:
    with open(path, "r+b") as image:
        image.seek(SUPERBLOCK)
        block = bytearray(image.read(4096 - SUPERBLOCK))
        magic, _, features = struct.unpack_from("<III", block)
        if magic != MAGIC or block[BLOCK_BITS] != 12:
            sys.exit(f"mkfs.erofs: {path} does not look as this script expects")
        block[LABEL : LABEL + LABEL_SIZE] = label.ljust(LABEL_SIZE, b"\0")
        if features & FEATURE_CHECKSUM:
            # Over the rest of the first block, with nothing in the place of the sum.
            struct.pack_into("<I", block, CHECKSUM, 0)
            struct.pack_into("<I", block, CHECKSUM, crc32c(block))
        image.seek(SUPERBLOCK)
        image.write(block)


parser = argparse.ArgumentParser(prog="mkfs.erofs", allow_abbrev=False)
parser.add_argument("-L", default="")
parser.add_argument("-T", required=True)
parser.add_argument("-U", required=True)
parser.add_argument("--tar", choices=["f"], required=True)
parser.add_argument("image")
options, passed = parser.parse_known_args()
label = options.L.encode()
if len(label) > LABEL_SIZE:
    sys.exit(f"mkfs.erofs: a label has at most {LABEL_SIZE} bytes")

with tempfile.TemporaryDirectory() as directory:
    os.chmod(directory, 0o755)
    subprocess.run(["/usr/bin/tar", "--extract", "--directory", directory], check=True)
    subprocess.run(["/usr/bin/mkfs.erofs", "-T" + options.T, "-U" + options.U, *passed, options.image, directory], check=True)
set_label(options.image, label)
