# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The folder in which snapshots lie: what is in it, and how that changes without ever being half done.

A change of a store is a batch of renames. They are written to a journal first, and the journal is the moment at which
they count: a run that is killed after it is completed by the next one, a run that is killed before it leaves only
hidden files, which the next one removes. Called by the backends that have one; uses the doors and core.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ... import linux
from ...core.errors import InvalidInput, RestorePointError, StoreError
from ...core.snapshot import Snapshot, parse_timestamp
from ...lock import FileLock
from . import layout
from .remove import DIRECTORY, remove_tree
from .subvolume import delete_subvolume, is_subvolume

_REQUIRED = {"name": str, "created": str, "sequence": int, "source": str}
#: What a full disk says. A change that only removes has to work there all the same.
FULL = (errno.ENOSPC, errno.EDQUOT)
#: How often, and after how many seconds, one looks again who reads without the lock and comes across half a change.
_LOOKS, _PAUSE = 3, 0.02


@dataclass(frozen=True)
class Rename:
    """One step of a batch, relative to the store."""

    old: str
    new: str


@dataclass
class Folder:
    """One target's folder in a store, open."""

    name: str
    fd: int
    path: str

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)


@dataclass
class Entry:
    """One snapshot in a store: its metadata as it stands in the file, or why that cannot be read."""

    name: str
    metadata: Mapping[str, Any]
    fault: str | None = None
    created: int = 0
    backend: str = ""

    def snapshot(self, target: str) -> Snapshot:
        """Return it as every backend describes snapshots."""
        data = self.metadata
        hidden = ("name", "created", "sequence", "owner", "policy", "description", "labels", "bytes", "format")
        extra = {key: value for key, value in data.items() if key not in hidden}
        if self.fault is not None:
            extra["fault"] = self.fault
        return Snapshot(
            backend=self.backend,
            target=target,
            name=self.name,
            created=self.created,
            sequence=int(data.get("sequence", 0)),
            owner=data.get("owner"),
            policy=data.get("policy"),
            description=data.get("description") or "",
            labels=data.get("labels") or {},
            referenced_bytes=data.get("bytes"),
            ready=self.fault is None,
            extra=extra,
        )


class Store:
    """A store at an absolute, canonical path. Making one touches nothing."""

    def __init__(self, path: str, backend: str) -> None:
        self.path = path
        self.backend = backend
        self._fd = -1
        self._mine = False
        #: A batch of renames was begun that could be neither completed nor taken back: only the next run may touch it.
        self.in_doubt = False
        #: What was read of each metadata file, with what tells a file that took its place.
        self._read: dict[tuple[str, str], tuple[tuple[int, int, int], Mapping[str, Any], int]] = {}

    # -- opening -------------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Say whether there is a store. Raises StoreError where something else is in its place."""
        try:
            st = os.lstat(self.path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._error(f"{error.strerror}", "name another folder") from error
        if not stat.S_ISDIR(st.st_mode):
            raise self._error("it is no directory", "name another folder")
        if st.st_uid not in (os.geteuid(), 0):
            raise self._error(f"it belongs to uid {st.st_uid}", "run as that user, or name a folder of your own")
        try:
            content = os.listdir(self.path)
        except OSError as error:
            raise self._error(f"{error.strerror}", "run as the user that it belongs to") from error
        if layout.MARKER in content:
            self._check_marker()
            return True
        # A run that was killed while it made the store, or that is about to make it, leaves only these.
        strangers = sorted(each for each in content if each != layout.LOCK and not _is_half_written(each))
        if strangers:
            raise self._error(f"it holds other files, such as {strangers[0]!r}", "name an empty or a new folder")
        return False

    def _check_marker(self) -> None:
        try:
            with open(os.path.join(self.path, layout.MARKER), encoding="utf-8") as stream:
                found = json.load(stream)
            version, backend = found["format"], found.get("backend", "hostpath")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._error(f"{layout.MARKER} in it cannot be read ({error})", "restore that file") from error
        if version != layout.FORMAT:
            raise self._error(
                f"it is of format {version}, and this version writes format {layout.FORMAT}",
                "use the version of restorepoint.core that made it, or name another folder",
            )
        if backend != self.backend:
            raise self._error(f"it is one of {backend} snapshots", f"name another folder for those of {self.backend}")

    def make_directory(self) -> None:
        """Make the directory of a new store; `make`, under its lock, makes it a store."""
        if not self.exists():
            try:
                os.makedirs(self.path, mode=0o700, exist_ok=True)
                os.chmod(self.path, 0o700)
            except OSError as error:
                raise self._error(f"{error.strerror}: {error.filename}", "name a folder that can be made") from error

    def make(self) -> None:
        """Make the directory a store where it is none. It must be locked: two first runs may come at once."""
        if not self.exists():
            try:
                self._write_marker()
            except OSError as error:
                raise self._error(str(error.strerror), "mend that, or name another folder") from error

    def _write_marker(self) -> None:
        fd = os.open(self.path, DIRECTORY)
        try:
            write_json(
                fd, layout.MARKER, {"format": layout.FORMAT, "tool": "restorepoint.core", "backend": self.backend}
            )
        finally:
            os.close(fd)

    def _error(self, reason: str, remedy: str) -> StoreError:
        return StoreError(f"use {self.path} as a store", reason, remedy)

    @property
    def fd(self) -> int:
        """The open store."""
        if self._fd < 0:
            self._fd = os.open(self.path, DIRECTORY)
        return self._fd

    def close(self) -> None:
        """Close it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def lock(self, timeout: float, purpose: str, shared: bool = False) -> FileLock:
        """Return the store's lock, to be entered. ``timeout`` is in seconds."""
        return FileLock(os.path.join(self.path, layout.LOCK), timeout, purpose, shared=shared)

    @contextlib.contextmanager
    def writing(self, timeout: float) -> Iterator[None]:
        """Hold the store for a run that changes it. ``timeout`` is in seconds. Raises LockTimeout."""
        with self.lock(timeout, f"use the store {self.path}"):
            self._mine = True
            try:
                yield
            finally:
                self._mine = False

    def loose_mode(self) -> str | None:
        """Return the store's mode in octal where others may read it, or None."""
        mode = stat.S_IMODE(os.stat(self.path).st_mode)
        return f"{mode:04o}" if mode & 0o077 else None

    # -- targets -------------------------------------------------------------------------------------------------------

    def folder(self, target: str, make: bool = False) -> Folder | None:
        """Open the folder of a target (an absolute path); None where there is none. Raises StoreError."""
        name = layout.folder_name(target)
        if make and not _is_there(self.fd, name):
            self._make_folder(name, target)
        try:
            fd = os.open(name, DIRECTORY, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        folder = Folder(name, fd, os.path.join(self.path, name))
        try:
            self._check_folder(folder, target)
        except BaseException:
            folder.close()
            raise
        return folder

    def _make_folder(self, name: str, target: str) -> None:
        # Made under a hidden name: a folder without its .target.json would be nobody's.
        hidden = f"{layout.NEW}{os.urandom(4).hex()}"
        os.mkdir(hidden, 0o700, dir_fd=self.fd)
        try:
            fd = os.open(hidden, DIRECTORY, dir_fd=self.fd)
            try:
                write_json(fd, layout.TARGET, {"format": layout.FORMAT, "path": target})
            finally:
                os.close(fd)
            os.rename(hidden, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except BaseException:
            remove_tree(self.fd, hidden)
            raise
        os.fsync(self.fd)

    def _check_folder(self, folder: Folder, target: str) -> None:
        found = read_json(folder.fd, layout.TARGET)
        if found.get("path") != target:
            raise StoreError(
                f"use {folder.path} for {target}",
                f"its {layout.TARGET} names {found.get('path')!r}",
                "restore that file, or name another store",
            )

    def targets(self, faults: list[str] | None = None) -> Iterator[str]:
        """Yield the directories that the store has snapshots of, sorted by the names of their folders.

        A folder that is nobody's is passed over and named in ``faults``; raises StoreError for it where that is None.
        """
        for name in self._folders():
            fd = os.open(name, DIRECTORY, dir_fd=self.fd)
            try:
                yield _target_of(fd, os.path.join(self.path, name))
            except StoreError as error:
                if faults is None:
                    raise
                faults.append(f"{os.path.join(self.path, name)} is passed over: {error.reason} ({layout.TARGET})")
            finally:
                os.close(fd)

    def _folders(self) -> list[str]:
        """Return the names of the folders in it. What people have put beside them is none of ours."""
        return sorted(name for name in names_in(self.fd) if not name.startswith(".") and _is_directory(self.fd, name))

    # -- snapshots -----------------------------------------------------------------------------------------------------

    def entries(self, folder: Folder) -> list[Entry]:
        """Return what a folder holds, oldest first. What is corrupt is there too, with its fault.

        Readers hold no lock. What is in the middle of a change is left out: it is not there yet, or not any more.
        """
        found: list[Entry] = []
        for _unused in range(1 if self._mine else _LOOKS):
            found = self._look(folder)
            if all(entry.fault is None for entry in found):
                return found
            time.sleep(0 if self._mine else _PAUSE)
        moving = self._moving(folder)
        return [entry for entry in found if entry.fault is None or entry.name not in moving]

    def _moving(self, folder: Folder) -> set[str]:
        """Return the names that a batch is about to change, or that a killed run has not changed to the end."""
        try:
            steps = read_json(self.fd, layout.JOURNAL)["renames"]
        except (StoreError, KeyError):
            return set()
        paths = [path.split("/", 1) for step in steps for path in step]
        return {_stem(path[-1]) for path in paths if path[0] == folder.name}

    def _look(self, folder: Folder) -> list[Entry]:
        names = set(names_in(folder.fd))
        found = []
        for name in names:
            if name.startswith("."):
                continue
            try:
                if name.endswith(".json"):
                    stem = name[: -len(".json")]
                    found.append(self._entry(folder, stem, stem in names))
                elif not name.endswith(layout.BESIDE) and f"{name}.json" not in names:
                    found.append(self._fault(folder, name, "it has no metadata beside it"))
            except FileNotFoundError:
                continue  # who only looks holds no lock, and another run has removed it since it was listed
        return sorted(found, key=lambda entry: (entry.created, int(entry.metadata.get("sequence", 0)), entry.name))

    def _entry(self, folder: Folder, name: str, has_tree: bool) -> Entry:
        try:
            metadata, created = self._metadata(folder, name)
        except (StoreError, ValueError) as error:
            reason = error.reason if isinstance(error, StoreError) else str(error)
            return self._fault(folder, f"{name}.json", f"its metadata is corrupt: {reason}", name)
        if not has_tree:
            return Entry(name, metadata, "its tree is missing", created, self.backend)
        if not _is_directory(folder.fd, name):
            return Entry(name, metadata, "its tree is no directory", created, self.backend)
        return Entry(name, metadata, None, created, self.backend)

    def _metadata(self, folder: Folder, name: str) -> tuple[Mapping[str, Any], int]:
        """Return the checked metadata of a snapshot and its time; each file is read once, unless it is replaced."""
        st = os.stat(f"{name}.json", dir_fd=folder.fd, follow_symlinks=False)
        key = (st.st_ino, st.st_mtime_ns, st.st_size)
        known = self._read.get((folder.name, name))
        if known is not None and known[0] == key:
            return known[1], known[2]
        metadata = read_json(folder.fd, f"{name}.json")
        _check_metadata(metadata, name)
        created = parse_timestamp(metadata["created"])
        self._read[(folder.name, name)] = (key, metadata, created)
        return metadata, created

    def _fault(self, folder: Folder, file: str, fault: str, name: str | None = None) -> Entry:
        st = os.stat(file, dir_fd=folder.fd, follow_symlinks=False)
        return Entry(name or file, {}, fault, int(st.st_mtime), self.backend)

    # -- changes -------------------------------------------------------------------------------------------------------

    def apply(self, renames: Sequence[Rename]) -> None:
        """Carry out a batch of renames, all or none, also across a kill or a power cut.

        Everything that is renamed must have been synced. Raises OSError; then nothing has changed, unless ``in_doubt``
        says that the disk let us neither go on nor back, and the next run has to.
        """
        self._check_free(renames)
        journal = {"format": layout.FORMAT, "renames": [[step.old, step.new] for step in renames]}
        try:
            try:
                write_json(self.fd, layout.JOURNAL, journal)
            except OSError as error:
                # A full disk has no room for the journal, and removing is the way to get some: then a kill between two
                # of these renames would leave a snapshot in pieces, which shows as such and can be removed again.
                if error.errno not in FULL or not all(_is_removal(step) for step in renames):
                    raise
            self._carry_out(renames)
        except BaseException:
            self._take_back(renames)
            raise

    def _check_free(self, renames: Sequence[Rename]) -> None:
        """Raise FileExistsError where a step would overwrite what nobody has moved away."""
        gone: set[str] = set()
        for step in renames:
            if step.new not in gone and _is_there(self.fd, step.new):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), step.new)
            gone.add(step.old)

    def _carry_out(self, renames: Sequence[Rename]) -> None:
        for step in renames:
            os.rename(step.old, step.new, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        for folder in {os.path.dirname(step.new) for step in renames}:
            fd = os.open(folder or ".", DIRECTORY, dir_fd=self.fd)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(layout.JOURNAL, dir_fd=self.fd)

    def _take_back(self, renames: Sequence[Rename]) -> None:
        """Undo what was carried out of a batch, and then the journal: in that order, as a kill may come here too."""
        self.in_doubt = True
        for step in renames[: self._carried_out(renames)][::-1]:
            os.rename(step.new, step.old, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(layout.JOURNAL, dir_fd=self.fd)
        self.in_doubt = False

    def _carried_out(self, steps: Sequence[Rename]) -> int:
        """Return how many steps of a batch were carried out; they go in order.

        A step was carried out if its new name is there and its old one is not; as one step's new name can be another's
        old one, they are looked at from the end.
        """
        count = len(steps)
        while count and not (_is_there(self.fd, steps[count - 1].new) and not _is_there(self.fd, steps[count - 1].old)):
            count -= 1
        return count

    def recover(self) -> list[str]:
        """Complete what counts and remove what does not, after a run that was killed. Returns what was done, in words.

        The store must be locked: what is hidden in it then belongs to nobody any more. Raises StoreError for a journal
        that cannot be completed; leftovers that cannot be removed are only told of.
        """
        done = []
        if _is_there(self.fd, layout.JOURNAL):
            done.append(self._roll_forward())
        for name in sorted(names_in(self.fd)):
            if name.startswith(layout.NEW):
                remove_tree(self.fd, name)
        for name in self._folders():
            try:
                done += self._sweep(name)
            except (OSError, RestorePointError) as error:
                done.append(f"leftovers of an interrupted run in {name} could not be removed: {error}")
        return done

    def _roll_forward(self) -> str:
        """Continue a batch at the first step that was not carried out."""
        try:
            steps = [Rename(old, new) for old, new in read_json(self.fd, layout.JOURNAL)["renames"]]
            self._carry_out(steps[self._carried_out(steps) :])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise self._error(
                f"the change that an interrupted run wrote down in {layout.JOURNAL} cannot be completed: {error}",
                "mend that; if nothing else helps, look at what it names, and move that file away",
            ) from error
        return f"completed a change that an interrupted run had begun ({len(steps)} renames)"

    def _sweep(self, name: str) -> list[str]:
        fd = os.open(name, DIRECTORY, dir_fd=self.fd)
        try:
            leftovers = [each for each in os.listdir(fd) if each.startswith((layout.NEW, layout.OLD))]
            for each in leftovers:
                discard(fd, each, os.path.join(self.path, name))
        finally:
            os.close(fd)
        return [f"removed {len(leftovers)} leftovers of an interrupted run from {name}"] if leftovers else []

    def sync(self) -> None:
        """Write everything in the store's filesystem to its disk."""
        linux.syncfs(self.fd)


def _is_half_written(name: str) -> bool:
    """Say whether a name is one under which `write_json` begins a file."""
    return name.startswith(layout.NEW) and name.endswith(".json")


def _is_removal(step: Rename) -> bool:
    return os.path.basename(step.new).startswith((layout.OLD, layout.NEW))


def _stem(name: str) -> str:
    """Return the name of the snapshot that a file in a folder belongs to."""
    return name[: -len(".json")] if name.endswith(".json") else name


def _target_of(folder: int, path: str) -> str:
    target = read_json(folder, layout.TARGET).get("path")
    if not isinstance(target, str):
        raise StoreError(f"use {path}", f"its {layout.TARGET} names no directory", "restore that file")
    return target


def _check_metadata(metadata: Mapping[str, Any], name: str) -> None:
    version = metadata.get("format")
    if version != layout.FORMAT:
        raise ValueError(f"it is of format {version}, and this version reads format {layout.FORMAT}")
    for key, kind in _REQUIRED.items():
        if not isinstance(metadata.get(key), kind):
            raise ValueError(f"{key} is missing or no {kind.__name__}")
    if metadata["name"] != name:
        raise ValueError(f"it is about {metadata['name']!r}")
    if not isinstance(metadata.get("labels") or {}, dict):
        raise ValueError("labels is no mapping")


def discard(directory: int, name: str, path: str) -> None:
    """Remove a tree or file of ours from an open directory; ``path`` is where that is, for the btrfs tool."""
    if is_subvolume(directory, name):
        delete_subvolume(os.path.join(path, name))
        return
    if name.endswith(layout.NESTED) and _is_there(directory, name):
        with contextlib.closing(Folder(name, os.open(name, DIRECTORY, dir_fd=directory), "")) as folder:
            for each in names_in(folder.fd):
                discard(folder.fd, each, os.path.join(path, name))
    remove_tree(directory, name)


def names_in(directory: int) -> list[str]:
    """Return the names in a directory that has been open for a while.

    Btrfs (since Linux 6.5) shows only what was there when it was opened, or last wound back.
    """
    os.lseek(directory, 0, os.SEEK_SET)
    return os.listdir(directory)


def _is_directory(directory: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def _is_there(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def write_json(directory: int, name: str, data: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all: under another name, synced, renamed, and the directory synced."""
    hidden = f"{layout.NEW}{os.urandom(4).hex()}.json"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(hidden, flags, 0o600, dir_fd=directory)
    try:
        with open(fd, "w", encoding="utf-8") as stream:
            json.dump(data, stream, indent=1, sort_keys=True)
            stream.write("\n")
            stream.flush()
            os.fsync(fd)
        os.rename(hidden, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(hidden, dir_fd=directory)
        raise
    os.fsync(directory)


def read_json(directory: int, name: str) -> dict[str, Any]:
    """Read a JSON file of the store, never through a link. Raises StoreError for what is none."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        with open(fd, encoding="utf-8") as stream:
            found = json.load(stream)
    except OSError as error:
        raise StoreError(f"read {name}", str(error.strerror), "restore that file") from error
    except ValueError as error:
        raise StoreError(f"read {name}", f"it is no JSON ({error})", "restore that file") from error
    if not isinstance(found, dict):
        raise StoreError(f"read {name}", "it is no JSON object", "restore that file")
    return found


def check_apart(target: str, store: str) -> None:
    """Raise InvalidInput where one of two canonical paths lies inside the other."""
    for inner, outer, word in ((store, target, "the store lies inside the target"),
                               (target, store, "the target lies inside the store")):  # fmt: skip
        if inner == outer or inner.startswith(outer.rstrip("/") + "/"):
            raise InvalidInput(
                f"keep snapshots of {target} in {store}",
                "they are the same directory" if inner == outer else word,
                "name a store beside it, or on another disk",
            )
