# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A folder of files that hold streams: each whole under its name, with its SHA-256 beside it, and an index of all.

    <path>/<dataset, its slashes as %2F>/index.json
    <path>/<dataset>/0001-<snapshot>.zfs.zst            a stream, compressed
    <path>/<dataset>/0001-<snapshot>.zfs.zst.sha256     as `sha256sum --check` reads it
    <path>/<dataset>/.part-...                          in the making

A file takes its name when all of it is on the disk, and counts when the index names it. Called by the agent.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import urllib.parse
from collections.abc import Sequence
from dataclasses import replace
from typing import Callable

from .. import whole_file
from ..core.errors import InvalidInput, StoreError
from ..core.offsite import Index, Part, Step, outdated, read_index, write_index
from . import streams

INDEX = "index.json"
_PART = ".part-"
_PACK: dict[str, tuple[str, list[str], list[str]]] = {
    "zstd": (".zst", ["zstd", "-q", "-c"], ["zstd", "-q", "-d", "-c"]),
    "lz4": (".lz4", ["lz4", "-q", "-c"], ["lz4", "-q", "-d", "-c"]),
    "gzip": (".gz", ["gzip", "-c"], ["gzip", "-d", "-c"]),
    "none": ("", [], ["cat"]),
}
_BLOCK = 1024 * 1024


class Folder:
    """What the folder ``path`` holds of one dataset."""

    def __init__(self, path: str, dataset: str) -> None:
        self.path = os.path.join(path, urllib.parse.quote(dataset, safe=""))
        self.dataset = dataset
        self._root = path

    def index(self) -> Index | None:
        """Return its index, None where nothing was exported yet. Raises InvalidInput, OSError."""
        place = os.path.join(self.path, INDEX)
        try:
            with open(place, encoding="utf-8", errors="replace") as stream:
                found = read_index(stream.read(), place)
        except FileNotFoundError:
            return None
        if found.dataset != self.dataset:
            raise InvalidInput(f"read the index {place}", f"it is of {found.dataset}", "look how it came there")
        return found

    def look(self, policy: str) -> Index | None:
        """Return its index, None where there is none yet, and where a policy may export to it.

        The folder that it lies in has to be there: a share that is not mounted must not pass for an empty one.
        Raises StoreError, InvalidInput, OSError.
        """
        if not os.path.isdir(self._root):
            raise StoreError(f"export to {self._root}", "there is no such folder", "make it, or mount what it lies on")
        index = self.index()
        if index is not None and index.policy != policy:
            attempt = f"export {self.dataset} to {self._root}"
            raise StoreError(attempt, f"{self.path} is of policy {index.policy}", "name another folder")
        return index

    def make(self) -> None:
        """Make it, and remove what a killed export has left in it. Raises OSError."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.path, 0o700)
        for name in os.listdir(self.path):
            if name.startswith(_PART):
                os.unlink(os.path.join(self.path, name))

    def write(
        self,
        index: Index,
        step: Step,
        send: Sequence[str],
        compression: str,
        created: int,
        raw: bool,
        bandwidth: int | None,
        told: Callable[[int], None] | None = None,
    ) -> Index:
        """Write one stream; return the index that names it. Raises ToolError, StoreError, and then nothing counts."""
        suffix, pack, _unused = _PACK[compression]
        number = 1 + max((int(each.file.partition("-")[0]) for each in index.parts), default=0)
        file = f"{number:04d}-{urllib.parse.quote(step.point.name, safe='')}.zfs{suffix}"
        attempt = f"export {self.dataset}@{step.point.name} to {self.path}"
        path, part = os.path.join(self.path, file), os.path.join(self.path, _PART + file)
        try:
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                remedy = "see to that; the next export begins this file anew"
                moved = streams.pump([send, *([pack] if pack else [])], fd, attempt, remedy, bandwidth, told)
                os.fsync(fd)
            finally:
                os.close(fd)
            beside = f"{moved.sha256}  {file}\n".encode()
            whole_file.put(f"{path}.sha256", beside, 0o600, f"{part}.sha256")
            os.replace(part, path)
            base = step.base.guid if step.base else None
            made = Part(
                file, step.point.name, step.point.guid, moved.sha256, moved.bytes, compression, created, base, raw
            )
            return self._put(replace(index, parts=(*index.parts, made)))
        except OSError as error:
            raise StoreError(attempt, str(error.strerror), "make room there, or look at that disk") from error
        finally:
            with contextlib.suppress(OSError):
                os.unlink(part)

    def _put(self, index: Index) -> Index:
        """Have the index on the disk, with the names of all that it names."""
        self._sync()
        place = os.path.join(self.path, INDEX)
        whole_file.put(place, write_index(index), 0o600, os.path.join(self.path, _PART + INDEX))
        self._sync()
        return index

    def _sync(self) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def thin_out(self, index: Index, keep: int) -> tuple[Index, int]:
        """Let go of all chains but the last ``keep``; return the index, and how many files went. Raises OSError."""
        gone = outdated(index.parts, keep)
        if not gone:
            return index, 0
        left = self._put(replace(index, parts=tuple(each for each in index.parts if each not in gone)))
        for part in gone:
            for name in (part.file, f"{part.file}.sha256"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.path, name))
        return left, len(gone)

    def prove(self, parts: Sequence[Part]) -> None:
        """Raise StoreError unless each file is there, with the length and SHA-256 that the index names."""
        for part in parts:
            path = os.path.join(self.path, part.file)
            attempt = f"read {path}"
            remedy = "nothing was received; import a restore point of another chain, or from another destination"
            try:
                size, digest = _digest(path)
            except OSError as error:
                raise StoreError(attempt, str(error.strerror), remedy) from error
            if size != part.bytes or digest != part.sha256:
                raise StoreError(attempt, "it is damaged: its SHA-256 is not the one in the index", remedy)

    def reading(self, part: Part) -> list[str]:
        """Return the command that prints the stream in a file. Raises InvalidInput."""
        if part.compression not in _PACK:
            raise InvalidInput(
                f"read {part.file}", f"{part.compression!r} is no compression", "use the version that wrote it"
            )
        return [*_PACK[part.compression][2], os.path.join(self.path, part.file)]


def _digest(path: str) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as stream:
        while chunk := stream.read(_BLOCK):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def datasets_in(path: str) -> list[str]:
    """Return the datasets that have a folder here. Raises StoreError."""
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise StoreError(f"look into {path}", str(error.strerror), "mount it, or correct the path") from error
    return [urllib.parse.unquote(each) for each in names if os.path.exists(os.path.join(path, each, INDEX))]
