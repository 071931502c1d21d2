# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A tree with every kind of file there is, for the tests of this folder to copy. Knows nothing of the engine."""

from __future__ import annotations

import os
import pathlib
import socket
import stat
import struct
import subprocess

DAY_NS = 86_400 * 10**9
DEPTH = 700
NAMES = (
    b"tab\tand\nnewline\r",
    b"back\\slash\\n",
    b"\xff\xfe not UTF-8",
    "ümlaut 😀".encode(),
    b"l" * 255,
    b"\xe9" * 255,
    b" leading space",
    b"-rf",
    b"...",
    b".hidden",
    b"a",
    b"a\\tb",
    b"a\tb",
    b"\x01\x7f",
    b"line\xe2\x80\xa8separator",
    b"*?[]",
)


def capability() -> bytes:
    """Return a security.capability of revision 2 with cap_net_bind_service, effective and permitted."""
    return struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)


def fill(tree: pathlib.Path) -> None:
    """Fill an empty directory with what every user may make."""
    _names(tree / "names")
    _modes(tree / "modes")
    _contents(tree / "contents")
    _links(tree / "links")
    _specials(tree / "specials")
    _times(tree / "times")
    _user_attributes(tree / "attributes")
    _many(tree / "many")
    _deep(tree)
    locked = tree / "read-only"
    locked.mkdir()
    (locked / "file").write_text("in a directory that forbids writing")
    locked.chmod(0o555)


def fill_as_root(tree: pathlib.Path) -> None:
    """Add what only root may make."""
    _owners(tree / "owners")
    _attributes_of_root(tree / "attributes-of-root")
    devices = tree / "devices"
    devices.mkdir()
    os.mknod(devices / "char", stat.S_IFCHR | 0o640, os.makedev(1, 3))
    os.mknod(devices / "block", stat.S_IFBLK | 0o660, os.makedev(259, 200_000))
    os.mknod(devices / "whiteout", stat.S_IFCHR, 0)
    os.chown(devices / "block", 7, 8)
    for mode in (0o0, 0o111, 0o222):
        folder = tree / f"directory-{mode:03o}"
        (folder / "below").mkdir(parents=True)
        (folder / "below" / "file").write_text("x")
        (folder / "file").write_text("y")
        folder.chmod(mode)


def _names(folder: pathlib.Path) -> None:
    folder.mkdir()
    for name in NAMES:
        (folder / os.fsdecode(name)).write_bytes(b"called " + name)
        below = folder / os.fsdecode(b"d" + name[:254])
        below.mkdir()
        (below / os.fsdecode(name)).write_bytes(name)
    os.symlink(b"to\nnew\tline\\\xff", os.fsencode(folder / "link"))


def _modes(folder: pathlib.Path) -> None:
    folder.mkdir()
    for mode in (0o0400, 0o0444, 0o0600, 0o0640, 0o0666, 0o0755, 0o0777, 0o1644, 0o2755, 0o4711, 0o6755, 0o7777):
        (folder / f"{mode:04o}").write_text(f"{mode:o}")
        (folder / f"{mode:04o}").chmod(mode)
    for mode in (0o0500, 0o0700, 0o1777, 0o2770, 0o3775):
        (folder / f"d{mode:04o}").mkdir()
        (folder / f"d{mode:04o}" / "file").write_text("x")
        (folder / f"d{mode:04o}").chmod(mode)


def _contents(folder: pathlib.Path) -> None:
    folder.mkdir()
    (folder / "empty").touch()
    for size in (1, 4095, 4096, 65535, 65536, 65537, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 17):
        (folder / f"{size} bytes").write_bytes(os.urandom(size))
    sparse(folder / "32 MiB of nothing", 32 << 20)
    sparse(folder / "32 MiB", 32 << 20, (3 << 20) + 5, (6 << 20))
    sparse(folder / "holes at both ends", (2 << 20) + 100, 1 << 20)
    sparse(folder / "small with holes", 100_000, 40_000)
    sparse(folder / "small and empty", 5000)
    sparse(folder / "hole at the beginning", (1 << 18) + 4000, 1 << 18)
    sparse(folder / "data at the beginning", 1 << 21, 0)
    (folder / "zeros").write_bytes(bytes(200_000))
    with open(folder / "preallocated", "wb") as file:
        file.write(b"begins")
        os.posix_fallocate(file.fileno(), 0, 300_000)


def sparse(path: pathlib.Path, size: int, *data: int) -> None:
    """Make a file of ``size`` bytes that is a hole but for 3000 bytes at each of ``data``."""
    with open(path, "wb") as file:
        file.truncate(size)
        for at in data:
            os.pwrite(file.fileno(), os.urandom(3000), at)


def _links(folder: pathlib.Path) -> None:
    (folder / "z" / "deeper").mkdir(parents=True)
    (folder / "b").mkdir()
    (folder / "one").write_text("one file with five names")
    for name in ("two", "b/three", "z/deeper/four", os.fsdecode(b"five\n\xff")):
        os.link(folder / "one", folder / name)
    (folder / "z" / "first").write_bytes(os.urandom(200_000))
    os.link(folder / "z" / "first", folder / "b" / "second")
    (folder / "same").write_text("same")
    (folder / "same too").write_text("same")
    for name, target in {
        "dangling": "nowhere/at/all",
        "absolute": "/etc/passwd",
        "self": "self",
        "loop 1": "loop 2",
        "loop 2": "loop 1",
        "up": "../../../../..",
        "to a directory": "z",
        "long": "x" * 1000,
    }.items():
        os.symlink(target, folder / name)
    os.link(folder / "dangling", folder / "z" / "dangling too", follow_symlinks=False)


def _specials(folder: pathlib.Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "fifo", 0o620)
    os.link(folder / "fifo", folder / "fifo too")
    here = os.open(folder, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{here}/socket")  # its address may only be 108 bytes long
    os.close(here)


def _times(folder: pathlib.Path) -> None:
    folder.mkdir()
    times = {
        "1960": -3653 * DAY_NS + 123_456_789,
        "1970": 0,
        "before": -1,
        "ns": 10**18 + 1,
        "2100": 47482 * DAY_NS + 999,
    }
    for name, at in times.items():
        (folder / name).write_text(name)
        os.utime(folder / name, ns=(at, at))
        os.symlink(name, folder / f"link {name}")
        os.utime(folder / f"link {name}", ns=(at, at), follow_symlinks=False)
        (folder / f"directory {name}").mkdir()
        (folder / f"directory {name}" / "file").touch()
        os.utime(folder / f"directory {name}", ns=(at, at))
    os.utime(folder, ns=(5, 7))


def _user_attributes(folder: pathlib.Path) -> None:
    folder.mkdir()
    for name in ("file", "directory"):
        path = folder / name
        path.mkdir() if name == "directory" else path.write_text(name)
        os.setxattr(path, "user.binary", bytes(range(256)))
        os.setxattr(path, "user.empty", b"")
        os.setxattr(path, "user.ümlaut", b"x" * 1500)
        subprocess.run(["setfacl", "-m", "u:1001:rwx,g:1002:r,m::rw", path], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:1003:rwx,g::-,o::r", folder / "directory"], check=True)
    (folder / "directory" / "has inherited").write_text("x")
    (folder / "directory" / "below").mkdir()
    forbids_writing = folder / "forbids writing"
    forbids_writing.write_text("x")
    os.setxattr(forbids_writing, "user.x", b"y")
    forbids_writing.chmod(0o444)


def _attributes_of_root(folder: pathlib.Path) -> None:
    folder.mkdir()
    (folder / "file").write_text("x")
    (folder / "directory").mkdir()
    os.symlink("nowhere", folder / "link")
    os.mkfifo(folder / "fifo")
    for name in ("file", "directory", "link", "fifo"):
        os.setxattr(folder / name, "trusted.restorepoint", name.encode(), follow_symlinks=False)
        os.setxattr(folder / name, "security.restorepoint", name.encode(), follow_symlinks=False)
    for name, mode in (("capable", 0o755), ("capable-444", 0o444), ("capable-and-setuid", 0o4755)):
        (folder / name).write_bytes(os.urandom(100))
        os.chown(folder / name, 1000, 1000)
        (folder / name).chmod(mode)
        os.setxattr(folder / name, "security.capability", capability())
    (folder / "large").write_bytes(os.urandom(100_000))
    os.setxattr(folder / "large", "security.capability", capability())
    subprocess.run(["setfacl", "-m", "u:5:r", folder / "fifo"], check=True)


def _owners(folder: pathlib.Path) -> None:
    folder.mkdir()
    (folder / "unreadable").write_text("mode 0")
    (folder / "unreadable").chmod(0)
    for uid in (0, 1, 33, 1000, 65534, 2**31, 2**32 - 2):
        path = folder / f"{uid}"
        path.write_text(str(uid))
        os.chown(path, uid, uid ^ 1)
        path.chmod(0o6755)
        below = folder / f"directory of {uid}"
        below.mkdir()
        (below / "file").write_text("x")
        os.chown(below, uid, 7)
        below.chmod(0o2750)
        os.symlink("x", folder / f"link of {uid}")
        os.chown(folder / f"link of {uid}", uid, 9, follow_symlinks=False)
        os.mkfifo(folder / f"fifo of {uid}")
        os.chown(folder / f"fifo of {uid}", uid, 10)


def _many(folder: pathlib.Path) -> None:
    folder.mkdir()
    for number in range(1201):
        (folder / f"{number}").write_text(str(number))


def _deep(tree: pathlib.Path) -> None:
    """Make a chain of directories whose path is much longer than PATH_MAX, with files on the way and at its end."""
    fd = os.open(tree, os.O_RDONLY)
    for level in range(DEPTH):
        name = f"level {level:03d} of a chain of directories"
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
        if level % 100 == 99:
            for name in ("file", "read me too"):
                with open(os.open(name, os.O_WRONLY | os.O_CREAT, 0o640, dir_fd=fd), "w") as file:
                    file.write(f"at level {level}")
    os.symlink("nowhere", "link", dir_fd=fd)
    os.mkfifo("fifo", dir_fd=fd)
    os.setxattr(f"/proc/self/fd/{fd}/file", "user.deep", b"down")
    os.close(fd)
