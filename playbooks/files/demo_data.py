# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make, and damage, the directory of the demonstration: what a small web application might leave on a disk.

Standard library only; called by playbooks/demo.yml: ``demo_data.py make FOLDER`` and ``demo_data.py damage FOLDER``.
Each prints a line of JSON that says what it did. The content is the same each time; only times differ.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import shutil
import sys

PAGES = 2000
SECTIONS = 40
HOLE = 256 * 1024**2


def make(top: pathlib.Path) -> dict[str, object]:
    """Make it, and return what is in it."""
    source = random.Random(2026)
    for folder in ("conf/site.d", "data", "log", "media/by-date", "www"):
        (top / folder).mkdir(parents=True)
    (top / "conf/site.yml").write_text("port: 8080\nworkers: 4\ngreeting: Bonjour à tous\n", encoding="utf-8")
    (top / "conf/secret.key").write_bytes(source.randbytes(32))
    (top / "conf/secret.key").chmod(0o600)
    for number in range(20):
        (top / f"conf/site.d/{number:02}-part.conf").write_text(f"part = {number}\n")
    (top / "data/shop.db").write_bytes(b"SQLite format 3\0" + source.randbytes(6 * 1024**2))
    with open(top / "data/disk.img", "wb") as image:
        image.write(source.randbytes(65536))
        image.truncate(HOLE)
    for number in range(PAGES):
        page = top / f"www/section-{number % SECTIONS:02}/page-{number:04}.html"
        page.parent.mkdir(exist_ok=True)
        page.write_bytes(b"<!doctype html>\n" + source.randbytes(source.randrange(200, 3000)).hex().encode())
    (top / "log/access.log").write_text("".join(f"GET /page-{number}\n" for number in range(5000)))
    (top / "media/a photo of Zoë.jpg").write_bytes(source.randbytes(200_000))
    os.link(top / "media/a photo of Zoë.jpg", top / "media/by-date/2026-11-22.jpg")
    (top / "media/a name with\na line break").write_text("it happens\n")
    (top / "current").symlink_to("www/section-01")
    (top / "www/section-00").chmod(0o750)
    attributes = _mark(top / "data/shop.db")
    return {"files": sum(1 for path in top.rglob("*") if path.is_file()), "attributes": attributes}


def _mark(path: pathlib.Path) -> bool:
    """Give a file an extended attribute; say whether its filesystem has such."""
    try:
        os.setxattr(path, "user.origin", b"shop import of 2026")
    except OSError:
        return False
    return True


def damage(top: pathlib.Path) -> dict[str, object]:
    """Do what bad days do, and return it in words."""
    database = top / "data/shop.db"
    times = database.stat()
    with open(database, "r+b") as stream:
        stream.seek(3_000_000)
        byte = stream.read(1)[0]
        stream.seek(3_000_000)
        stream.write(bytes([byte ^ 1]))
    os.utime(database, ns=(times.st_atime_ns, times.st_mtime_ns))
    (top / "conf/site.yml").write_text("port: 80\nworkers: 400\n")
    (top / "conf/secret.key").chmod(0o644)
    shutil.rmtree(top / "www/section-07")
    (top / "www/section-08/you-were-here.html").write_text("<h1>hello</h1>\n")
    (top / "current").unlink()
    (top / "current").symlink_to("www/section-07")
    return {
        "done": [
            "one bit of the 6 MiB database flipped, its size and time left as they were",
            "conf/site.yml overwritten",
            "conf/secret.key made readable for everybody",
            f"www/section-07 deleted, with its {PAGES // SECTIONS} pages",
            "a page added that nobody asked for",
            "the link 'current' turned to what was deleted",
        ]
    }


if __name__ == "__main__":
    print(json.dumps({"make": make, "damage": damage}[sys.argv[1]](pathlib.Path(sys.argv[2]))))
