"""Unpack the ELF kernel inside a bzImage (xz, as Debian compresses it)."""

import lzma
import sys

MAGIC = b"\xfd7zXZ\x00"

source, target = sys.argv[1:]
with open(source, "rb") as f:
    image = f.read()
kernel = lzma.LZMADecompressor().decompress(image[image.index(MAGIC) :])
if not kernel.startswith(b"\x7fELF"):
    sys.exit(f"{source}: the unpacked kernel is no ELF file")
with open(target, "wb") as f:
    f.write(kernel)
