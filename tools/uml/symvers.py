# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Print the Module.symvers of a stripped user-mode Linux: what it exports to modules, read from its ELF file.

The kernel has to be built without CONFIG_MODVERSIONS: every checksum is 0. Called by build_modules.sh.
"""

from __future__ import annotations

import pathlib
import struct
import sys
from typing import NamedTuple

NO_DATA = 8


class Section(NamedTuple):
    """A section header of a 64-bit ELF file (elf(5))."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


def word(image: bytes, offset: int) -> str:
    """Return the NUL-terminated text at an offset."""
    return image[offset : image.index(b"\0", offset)].decode()


def main(path: str) -> None:
    """Print a line for each exported symbol."""
    image = pathlib.Path(path).read_bytes()
    (table,) = struct.unpack_from("<Q", image, 0x28)
    size, count, names = struct.unpack_from("<HHH", image, 0x3A)
    sections = [Section(*struct.unpack_from("<IIQQQQIIQQ", image, table + index * size)) for index in range(count)]
    by_name = {word(image, sections[names].offset + each.name): each for each in sections}

    def at(address: int) -> int:
        for each in sections:
            if each.kind != NO_DATA and each.address <= address < each.address + each.size:
                return each.offset + address - each.address
        raise SystemExit(f"Cannot read the symbols of {path}: address {address:#x} is in no section.")

    for name, kind in (("__ksymtab", "EXPORT_SYMBOL"), ("__ksymtab_gpl", "EXPORT_SYMBOL_GPL")):
        section = by_name[name]
        for offset in range(section.offset, section.offset + section.size, 24):
            _unused, symbol, space = struct.unpack_from("<QQQ", image, offset)
            if symbol:
                fields = (
                    "0x00000000",
                    word(image, at(symbol)),
                    "vmlinux",
                    kind,
                    word(image, at(space)) if space else "",
                )
                print("\t".join(fields))


if __name__ == "__main__":
    main(sys.argv[1])
