# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filesystems of the lab: ext4, XFS with reflinks and Btrfs on loop devices, and a place on one for each test.

Called by conftest.py; nothing here knows the collection. The images lie in a folder called restorepoint-lab-*, which
its run keeps locked: one that nobody locks was left by a run that was killed, and is cleared away by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

PREFIX = "restorepoint-lab-"
GIB = 1 << 30
_PATIENCE_SECONDS = 120
_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-b", "4096"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}


def run(*argv: object) -> str:
    """Run a program and return what it printed; fail with its own words."""
    done = subprocess.run([str(each) for each in argv], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, argv))}: {done.stderr.strip()}")
    return done.stdout


def mounts_below(folder: str | os.PathLike[str]) -> list[str]:
    """Return the mount points in a folder, the one that has to go first at the beginning."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            place = line.split(" ")[4].encode("latin-1", "replace").decode("unicode_escape")
            if place.startswith(f"{os.fspath(folder)}/"):
                found.append(place)
    return found[::-1]


def _unmount(folder: str | os.PathLike[str]) -> None:
    for place in mounts_below(folder):
        subprocess.run(["umount", place], capture_output=True, timeout=60, check=False)
    for place in mounts_below(folder):
        subprocess.run(["umount", "--lazy", place], capture_output=True, timeout=60, check=False)


def unmount(place: str | os.PathLike[str]) -> None:
    """Unmount a place that a program may still let go of: one that was killed while it could not end yet."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            run("umount", place)
            return
        except RuntimeError as error:
            if "busy" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _clear_away(folder: str) -> None:
    """Unmount and detach all that a run had, and remove its folder."""
    _unmount(folder)
    devices = json.loads(run("losetup", "--json", "--list") or '{"loopdevices": []}')["loopdevices"]
    for device in devices:
        if str(device["back-file"]).startswith(f"{folder}/"):
            subprocess.run(["losetup", "--detach", device["name"]], capture_output=True, timeout=60, check=False)
    if not mounts_below(folder):
        run("rm", "-rf", "--one-file-system", folder)


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Keep the other runs of this machine out: a lab that is being made is not to be taken for one that was left.

    Two mounts at the same time may also choose the same free loop device, and then one of them fails.
    """
    with open(os.path.join(tempfile.gettempdir(), f"{PREFIX[:-1]}.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def mount_image(image: str | os.PathLike[str], place: str | os.PathLike[str], *options: str) -> None:
    """Mount a file that holds a filesystem, by a loop device that goes with it."""
    with one_at_a_time():
        run("mount", "-o", ",".join(("loop", *options)), image, place)


def _clear_stale() -> None:
    for folder in glob.glob(os.path.join(tempfile.gettempdir(), f"{PREFIX}*")):
        with contextlib.suppress(FileNotFoundError), open(os.path.join(folder, "lock"), "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # that run is alive
            _clear_away(folder)


class Lab:
    """A folder with images and their mount points; use it as a context."""

    def __enter__(self) -> Lab:
        with one_at_a_time():
            _clear_stale()
            self.folder = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX))
            self.folder.chmod(0o755)
            self._lock = open(self.folder / "lock", "w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._disks: dict[str, pathlib.Path] = {}
        self._count = 0
        return self

    def __exit__(self, *_unused: object) -> None:
        # A run that begins meanwhile would find the folder without its lock, and clear it away as well.
        with one_at_a_time():
            _clear_away(str(self.folder))
        self._lock.close()

    def disk(self, fstype: str) -> pathlib.Path:
        """Return where the lab's own filesystem of that type is mounted; make it at the first call."""
        if fstype not in self._disks:
            self._disks[fstype] = self._mount(fstype, 3 * GIB)
        return self._disks[fstype]

    @contextlib.contextmanager
    def extra_disk(self, fstype: str, size: int = GIB // 2) -> Iterator[pathlib.Path]:
        """Give another filesystem, of ``size`` bytes (XFS wants 300 MiB, Btrfs 110 MiB), for a disk that is full."""
        mounted = self._mount(fstype, size)
        try:
            yield mounted
        finally:
            _unmount(mounted)
            unmount(mounted)
            mounted.with_suffix(".img").unlink()

    def _mount(self, fstype: str, size: int) -> pathlib.Path:
        self._count += 1
        mounted = self.folder / f"{fstype}-{self._count}"
        image = mounted.with_suffix(".img")
        with open(image, "wb") as file:
            file.truncate(size)
        run(*_MAKE[fstype], image)
        mounted.mkdir()
        mount_image(image, mounted)
        return mounted

    @contextlib.contextmanager
    def place(self, kind: str) -> Iterator[Place]:
        """Give a fresh folder on one of the filesystems, and clear it away."""
        self._count += 1
        folder = self.disk(kind.partition("-")[0]) / f"place-{self._count}"
        folder.mkdir(mode=0o755)
        try:
            yield Place(kind, folder)
        except BaseException:
            # What went wrong is what is told, not what followed from it.
            with contextlib.suppress(RuntimeError):
                _clear(folder)
            raise
        _clear(folder)


def _clear(folder: pathlib.Path) -> None:
    _unmount(folder)
    empty_subvolumes(folder)
    run("rm", "-rf", "--one-file-system", folder)


def empty_subvolumes(folder: pathlib.Path) -> None:
    """Delete every Btrfs subvolume in a folder, the innermost first; elsewhere than on Btrfs there is none."""
    if run("stat", "-f", "-c", "%T", folder).strip() != "btrfs":
        return
    found = run("find", folder, "-depth", "-mindepth", "1", "-type", "d", "-inum", "256", "-print0").split("\0")
    for path in filter(None, found):
        run("btrfs", "property", "set", "-ts", path, "ro", "false")
        run("btrfs", "subvolume", "delete", path)


@dataclass(frozen=True)
class Place:
    """A folder of one test. ``kind`` is ext4, xfs, btrfs, or btrfs-subvolume, where targets are subvolumes."""

    kind: str
    folder: pathlib.Path

    @property
    def fstype(self) -> str:
        """The filesystem's type."""
        return self.kind.partition("-")[0]

    @property
    def reflinks(self) -> bool:
        """Whether files can share blocks here."""
        return self.fstype in ("xfs", "btrfs")

    @property
    def by_subvolume(self) -> bool:
        """Whether targets are subvolumes."""
        return self.kind == "btrfs-subvolume"

    @property
    def store(self) -> pathlib.Path:
        """Where the store goes. It is not there yet."""
        return self.folder / "store"

    @property
    def target(self) -> pathlib.Path:
        """Where the target goes; ``make_target`` makes it."""
        return self.folder / "target"

    def make_target(self, name: str = "target") -> pathlib.Path:
        """Make an empty target: a subvolume where this place has such, or else a directory."""
        path = self.folder / name
        if self.by_subvolume:
            run("btrfs", "-q", "subvolume", "create", path)
        else:
            path.mkdir()
        path.chmod(0o755)
        return path
