# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Returns a directory, or parts of it, to a snapshot: staged beside it, then exchanged in one step.

The content that was there is never overwritten. It changes places with the staged copy, and is then kept aside under a
name of its own, or removed once everything else is done. What is under way is written down in the store first (a
`pending` record with the identity of what was staged), so that a run that finds it later can tell on which side of the
exchange the one before it was killed: before it, the copy is removed and the target was never touched; after it, what
was left to be done is done. A staged copy is told from old content by looking into the staging folder, in which nobody
else changes anything: nothing there is removed that is not the copy, unless the old content is not to be kept. Called
by the backends; uses the doors and core.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from ... import linux
from ...core.errors import RestorePointError, StoreError
from . import layout, subvolume
from .making import new_file_owner
from .remove import DIRECTORY
from .store import FULL, Folder, discard, names_in, read_json, write_json

_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
#: What is under way, in a pending record.
RETURN, CLONE = "return", "clone"


@dataclass
class Swap:
    """One exchange: what is staged under ``staged``, against ``part`` of the target ("" is all of it).

    ``identity`` tells what was staged from everything else; it is empty until all of it is staged and synced.
    """

    part: str
    staged: str
    identity: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"part": self.part, "staged": self.staged, "identity": self.identity}


#: Lays out what is returned for one swap: in an open staging folder, owned by (uid, gid) where it has no owner.
Fill = Callable[[Swap, int, tuple[int, int]], None]


@dataclass
class Returning:
    """A return, or a clone, that is under way. What is in it is what its pending record says."""

    folder: Folder
    kind: str
    target: str
    identity: str
    staging: str
    beside: int  #: the inode of the directory that ``staging`` is made in
    aside: str | None  #: what the content that was there will be called, or None where it is not kept
    aside_path: str
    snapshot: str
    sequence: int
    newest: int
    once: str | None
    at: int
    swaps: list[Swap]
    checksum: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)  #: what only one backend needs
    report: dict[str, Any] = field(default_factory=dict)

    # -- the record ----------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write the pending record."""
        record = {
            key: getattr(self, key)
            for key in ("kind", "target", "identity", "staging", "beside", "aside", "aside_path", "snapshot",
                        "sequence", "newest", "once", "at", "checksum", "extra")
        }  # fmt: skip
        write_json(self.folder.fd, self._record, {**record, "swaps": [swap.as_json() for swap in self.swaps]})

    @classmethod
    def read(cls, folder: Folder, record: Mapping[str, Any]) -> Returning:
        """Return what a pending record says. Raises TypeError or KeyError for what is none."""
        values = {key: value for key, value in record.items() if key != "swaps"}
        return cls(folder=folder, swaps=[Swap(**each) for each in record["swaps"]], **values)

    @property
    def _record(self) -> str:
        return f"{layout.PENDING}{self.identity}.json"

    @property
    def manifest(self) -> str:
        """What the manifest of what is staged is called, where one is written."""
        return f"{layout.PENDING}{self.identity}.manifest"

    @property
    def attempt(self) -> str:
        """What is attempted, for an error's first words."""
        if self.kind == RETURN:
            return f"return {self.extra.get('shown', self.target)} to {self.snapshot!r}"
        return f"clone {self.snapshot!r} to {self.target}"

    # -- staging -------------------------------------------------------------------------------------------------------

    def stage(self, fill: Fill) -> None:
        """Let what is returned be laid out in the staging folder. `abandon` cleans up after an error.

        ``fill`` is called for each swap, with the open folder and the owner of what is made in it.
        """
        self.write()
        with self._unseen():
            os.mkdir(self.staging, 0o700)
        parent, name = os.path.split(self.staging)
        parent_fd = os.open(parent, DIRECTORY)
        try:
            owner = new_file_owner(parent_fd, name)
            staging = os.open(name, DIRECTORY, dir_fd=parent_fd)
        finally:
            os.close(parent_fd)
        try:
            for swap in self.swaps:
                fill(swap, staging, owner)
            linux.syncfs(staging)
            for swap in self.swaps:
                swap.identity = _identity(staging, swap.staged, os.path.join(self.staging, swap.staged)) or ""
        finally:
            os.close(staging)
        self.write()

    # -- the exchange --------------------------------------------------------------------------------------------------

    def swap(self) -> list[str]:
        """Let what was staged and what is there change places; keep the latter aside. Returns warnings.

        Raises OSError; then the target is as it was, or `abandon` says that it could not be made so.
        """
        warnings: list[str] = []
        try:
            for swap in self.swaps:
                warnings += self._exchange(swap)
            with self._unseen():
                self._move_aside(self.swaps)
        except BaseException:
            self.swap_back()
            raise
        return warnings

    def _is_exchanged(self, swap: Swap) -> bool:
        """Say on which side of the exchange this is. A live target may have been replaced since, our folder was not."""
        if not swap.identity:
            return False
        path = os.path.join(self.staging, swap.staged)
        staged = _identity_at(path, swap.identity)
        if staged is not None:
            return staged != swap.identity
        if self.aside is not None and os.path.lexists(self._path_aside(swap)):
            return True
        return _identity_at(os.path.join(self.target, swap.part) if swap.part else self.target, swap.identity) == (
            swap.identity
        )

    def _path_aside(self, swap: Swap) -> str:
        return os.path.join(self.aside_path, swap.part) if swap.part else self.aside_path

    def _exchange(self, swap: Swap) -> list[str]:
        directory = self._directory_of(swap.part)
        name = self._name_of(swap.part)
        staging = os.open(self.staging, DIRECTORY)
        try:
            times = os.fstat(directory)
            is_there, is_staged = _is_there(directory, name), _is_there(staging, swap.staged)
            warnings = []
            if is_there and is_staged:
                with _same_times((directory, name), (staging, swap.staged)):
                    warnings = self._change_places(staging, swap.staged, directory, name)
            elif is_staged:
                _rename_new(swap.staged, name, staging, directory)
            else:
                with _same_times((directory, name), (staging, swap.staged)):
                    os.rename(name, swap.staged, src_dir_fd=directory, dst_dir_fd=staging)
            if swap.part:
                # The directory around a part belongs to the content; its time must not tell of the exchange. Only its
                # owner may set it.
                with contextlib.suppress(PermissionError):
                    os.utime(directory, ns=(times.st_atime_ns, times.st_mtime_ns))
            os.fsync(directory)
            return warnings
        finally:
            os.close(staging)
            os.close(directory)

    def _change_places(self, staging: int, staged: str, directory: int, name: str) -> list[str]:
        try:
            linux.exchange(staged, name, one_dirfd=staging, other_dirfd=directory)
            return []
        except OSError as error:
            if error.errno not in _NO_EXCHANGE:
                raise
        # OpenZFS before 2.2 and NFS know no exchange: two renames, between which the name is missing.
        os.rename(name, f"{staged}.old", src_dir_fd=directory, dst_dir_fd=staging)
        try:
            os.rename(staged, name, src_dir_fd=staging, dst_dir_fd=directory)
        except OSError:
            os.rename(f"{staged}.old", name, src_dir_fd=staging, dst_dir_fd=directory)
            raise
        os.rename(f"{staged}.old", staged, src_dir_fd=staging, dst_dir_fd=staging)
        return [f"{self.target}: this filesystem cannot exchange two names, so the directory was missing for a moment"]

    def _directory_of(self, part: str) -> int:
        """Open the directory in which a part of the target lies, never through a link below the target."""
        if not part:
            return os.open(os.path.dirname(self.target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        target = os.open(self.target, DIRECTORY)
        try:
            return open_below(target, os.path.dirname(part))
        finally:
            os.close(target)

    def _name_of(self, part: str) -> str:
        return os.path.basename(part or self.target)

    def _move_aside(self, swaps: Sequence[Swap]) -> None:
        """Give what was there its name aside. Nothing of it is there where the target, or the part, was missing."""
        if self.aside is None:
            return
        if any(swap.part for swap in swaps) and not os.path.lexists(self.aside_path):
            # Around the parts there is a folder of ours, for nobody else's eyes.
            os.mkdir(self.aside_path, 0o700)
        for swap in swaps:
            old = os.path.join(self.staging, swap.staged)
            if not os.path.lexists(old):
                continue
            if swap.part:
                os.makedirs(os.path.dirname(self._path_aside(swap)), exist_ok=True)
            _rename_new(old, self._path_aside(swap))

    def swap_back(self) -> None:
        """Take back what was exchanged, as far as that went."""
        self._mend_two_renames()
        with self._unseen():
            self._move_back()
        for swap in reversed(self.swaps):
            if self._is_exchanged(swap):
                self._exchange(swap)

    def _move_back(self) -> None:
        if self.aside is None or not os.path.lexists(self.aside_path):
            return
        for swap in self.swaps:
            old = os.path.join(self.staging, swap.staged)
            if os.path.lexists(self._path_aside(swap)) and not os.path.lexists(old):
                _rename_new(self._path_aside(swap), old)
        if any(swap.part for swap in self.swaps):
            _remove_empty(self.aside_path)

    # -- the end -------------------------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """Remove what was staged, and the record. Raises RestorePointError where the exchange still stands."""
        if any(self._is_exchanged(swap) for swap in self.swaps):
            raise RestorePointError(
                self.attempt,
                f"the exchange could not be taken back; what was there is in {self.staging} or in {self.aside_path}",
                "look at both before anything else: the next run on this store completes the return",
            )
        self._remove_staging()
        for name in (self.manifest, self._record):
            _unlink(self.folder.fd, name)

    def finish(self) -> None:
        """Write down what was done, remove what is not kept, and then the record."""
        exchanged = [swap for swap in self.swaps if self._is_exchanged(swap)]
        with self._unseen():
            self._move_aside(exchanged)
        try:
            self._write_down(exchanged)
        except OSError as error:
            if error.errno not in FULL or self.aside is not None:
                raise
            self._remove_staging()  # what is not kept makes room for it
            self._write_down(exchanged)
        self._remove_staging()
        for name in (self.manifest, self._record):
            _unlink(self.folder.fd, name)

    def _write_down(self, exchanged: Sequence[Swap]) -> None:
        if self.kind == CLONE:
            record_clone(self.folder, self.target, self.snapshot)
            return
        if self.aside is not None and os.path.lexists(self.aside_path):
            self._record_aside(self.aside, [swap.part for swap in exchanged if swap.part])
        if len(exchanged) == len(self.swaps):
            if self.once is not None:
                remember_token(self.folder, self.once, self.at)
            self._record_return()

    def _record_aside(self, aside: str, parts: Sequence[str]) -> None:
        write_json(
            self.folder.fd,
            f".{aside}.json",
            {"name": aside, "path": self.aside_path, **identity_of(self.aside_path), "created": self.at,
             "beside": os.stat(os.path.dirname(self.aside_path)).st_ino, "parts": list(parts),
             "returned_to": self.snapshot},
        )  # fmt: skip

    def _record_return(self) -> None:
        """Keep the manifest of what was made: with it the next run knows these files without reading them."""
        returned = f"{layout.RETURNED}.json"
        if self.checksum is None:
            _unlink(self.folder.fd, returned)
            return
        if not _is_there(self.folder.fd, self.manifest):
            return  # a run that was killed has come so far
        write_json(
            self.folder.fd,
            returned,
            {"name": self.snapshot, "sequence": self.sequence, "newest": self.newest, "at": self.at,
             "manifest_sha256": self.checksum},
        )  # fmt: skip
        os.rename(self.manifest, f"{layout.RETURNED}.manifest", src_dir_fd=self.folder.fd, dst_dir_fd=self.folder.fd)

    def _remove_staging(self) -> None:
        parent, name = os.path.split(self.staging)
        try:
            parent_fd = os.open(parent, DIRECTORY)
        except FileNotFoundError:
            return
        try:
            if _is_there(parent_fd, name):
                with self._unseen():
                    remove_with_subvolumes(parent_fd, name, parent)
        finally:
            os.close(parent_fd)

    @contextlib.contextmanager
    def _unseen(self) -> Iterator[None]:
        """Where our folders have to lie inside the target: let its time not tell that they come and go."""
        inside = os.path.dirname(self.staging) == self.target
        with _same_times((None, self.target), (None, self.target)) if inside else contextlib.nullcontext():
            yield

    # -- after a kill --------------------------------------------------------------------------------------------------

    def recover(self) -> str:
        """Complete or give up what a killed run left; return what was done, in words."""
        parent = os.path.dirname(self.staging)
        if _inode(parent) != self.beside:
            return (f"a return of {self.target} was interrupted, and {parent} is not the directory it was then: mount "
                    f"what belongs there, or remove {self.folder.path}/{self._record}")  # fmt: skip
        self._mend_two_renames()
        if not any(self._is_exchanged(swap) for swap in self.swaps):
            self.abandon()
            return f"removed what an interrupted run had staged to {self.attempt}; {self.target} was not touched"
        self.finish()
        return f"completed what an interrupted run had begun: to {self.attempt}"

    def _mend_two_renames(self) -> None:
        """Where the exchange had to be made of two renames: put the old content back, or take it as exchanged."""
        for swap in self.swaps:
            staged = os.path.join(self.staging, swap.staged)
            if not os.path.lexists(f"{staged}.old"):
                continue
            if not os.path.lexists(staged):
                os.rename(f"{staged}.old", staged)
                continue
            directory = self._directory_of(swap.part)
            try:
                _rename_new(f"{staged}.old", self._name_of(swap.part), new_dir=directory)
            finally:
                os.close(directory)


def _identity(directory: int, name: str, path: str) -> str | None:
    """Return what tells a file from every other of its filesystem, also after a reboot; None where there is none.

    The roots of all Btrfs subvolumes have one inode number, and their device numbers last until the next mount.
    """
    try:
        st = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return subvolume.show(path).uuid if subvolume.is_subvolume(directory, name) else str(st.st_ino)


def _identity_at(path: str, like: str) -> str | None:
    """Return the identity of what lies at a path, as far as it takes to tell whether that is ``like``."""
    try:
        directory = os.open(os.path.dirname(path), DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        name = os.path.basename(path)
        if like.isdecimal() and subvolume.is_subvolume(directory, name):
            return "a subvolume"
        return _identity(directory, name, path)
    finally:
        os.close(directory)


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def _rename_new(old: str, new: str, old_dir: int | None = None, new_dir: int | None = None) -> None:
    """Rename, but raise FileExistsError where the new name is taken; also where the filesystem knows no such flag.

    A directory keeps its times. Names are relative to the open directories, if such are given.
    """
    here = linux.AT_FDCWD
    with _same_times((old_dir, old), (new_dir, new)):
        try:
            linux.rename_noreplace(
                old, new, old_dirfd=here if old_dir is None else old_dir, new_dirfd=here if new_dir is None else new_dir
            )
        except OSError as error:
            if error.errno not in _NO_EXCHANGE:
                raise
            if _is_there(new_dir, new):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from error
            os.rename(old, new, src_dir_fd=old_dir, dst_dir_fd=new_dir)


@contextlib.contextmanager
def _same_times(one: tuple[int | None, str], other: tuple[int | None, str]) -> Iterator[None]:
    """Let what lies under one name be moved to the other, or both change places, and keep their times.

    XFS stamps a directory that gets another one above it as modified. Only the owner may correct that.
    """
    before = [_times(*place) for place in (one, other)]
    yield
    for (directory, name), times in zip((other, one), before):
        if times is not None and _times(directory, name) != times:
            with contextlib.suppress(PermissionError):
                os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)


def _times(directory: int | None, name: str) -> tuple[int, int] | None:
    try:
        st = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return st.st_atime_ns, st.st_mtime_ns


def open_below(directory: int, path: str) -> int:
    """Open a directory below another, one name at a time, never through a link. The caller closes it."""
    fd = os.dup(directory)
    for name in path.split("/") if path else []:
        try:
            below = os.open(name, DIRECTORY, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


def remember_token(folder: Folder, token: str, at: int) -> None:
    """Write down that a `once` token was used up. The last thousand are kept."""
    tokens = known_tokens(folder)
    tokens[token] = at
    latest = sorted(tokens.items(), key=lambda item: item[1])[-1000:]
    write_json(folder.fd, layout.TOKENS, {"tokens": dict(latest)})


def known_tokens(folder: Folder) -> dict[str, int]:
    """Return the `once` tokens that were used up on a target, and when."""
    if not _is_there(folder.fd, layout.TOKENS):
        return {}
    return dict(read_json(folder.fd, layout.TOKENS)["tokens"])


def record_clone(folder: Folder, clone: str, name: str) -> None:
    """Write down what a clone was made from. Those that are gone are forgotten."""
    clones = {path: each for path, each in known_clones(folder).items() if os.path.isdir(path)}
    clones[clone] = {"name": name, **identity_of(clone)}
    write_json(folder.fd, layout.CLONES, {"clones": clones})


def known_clones(folder: Folder) -> dict[str, Any]:
    """Return ``{path: {name, inode, uuid}}`` of the clones that were made of a target."""
    try:
        return dict(read_json(folder.fd, layout.CLONES)["clones"])
    except (StoreError, KeyError):
        return {}


def aside_records(folder: Folder) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Return the records of content that was set aside, and what is wrong with those that cannot be read."""
    found: list[Mapping[str, Any]] = []
    faults = []
    for name in sorted(names_in(folder.fd)):
        if not (name.startswith(layout.ASIDE) and name.endswith(".json")):
            continue
        try:
            record = read_json(folder.fd, name)
            missing = {"name", "path", "inode", "beside", "created", "parts", "returned_to"} - record.keys()
            if missing:
                raise StoreError(f"read {name}", f"{sorted(missing)[0]} is missing", "restore that file")
            found.append(record)
        except StoreError as error:
            if _is_there(folder.fd, name):  # who only looks holds no lock, and it may have been removed since
                faults.append(f"content set aside is not listed, in {folder.path}: {error}")
    return found, faults


def pending_records(folder: Folder) -> list[Mapping[str, Any]]:
    """Return the records of what is under way in a folder, as far as they can be read."""
    found: list[Mapping[str, Any]] = []
    for name in names_in(folder.fd):
        if name.startswith(layout.PENDING) and name.endswith(".json"):
            with contextlib.suppress(StoreError):
                found.append(read_json(folder.fd, name))
    return found


def is_the_aside(record: Mapping[str, Any]) -> bool:
    """Say whether what lies at the place of an aside is what was set aside."""
    return is_identical(record["path"], record)


def identity_of(path: str) -> dict[str, Any]:
    """Return what tells a directory from one that takes its place. Raises OSError.

    The roots of all subvolumes have one inode number: they are told apart by their UUIDs.
    """
    identity: dict[str, Any] = {"inode": os.lstat(path).st_ino}
    if subvolume.is_root(path):
        identity["uuid"] = subvolume.show(path).uuid
    return identity


def is_identical(path: str, record: Mapping[str, Any]) -> bool:
    """Say whether what lies at a path is what `identity_of` was told of in a record."""
    try:
        found = identity_of(path)
    except OSError:
        return False
    return bool(found["inode"] == record["inode"]) and record.get("uuid") in (None, found.get("uuid"))


@dataclass
class Removing:
    """An aside that is being removed: renamed out of the way first, so that it is there whole or not at all.

    Where it is renamed to follows from its path. So its own record is enough for the next run to find it, and nothing
    has to be written first: removing must work on a full disk.
    """

    folder: Folder
    record: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Where the aside lies."""
        return str(self.record["path"])

    @property
    def staging(self) -> str:
        """Where it lies while it is removed."""
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        return os.path.join(os.path.dirname(self.path), f"{layout.STAGING}{digest}")

    def commit(self) -> None:
        """Rename it out of the way."""
        with self._unseen():
            _rename_new(self.path, self.staging)

    def undo(self) -> None:
        """Put it back."""
        if os.path.lexists(self.staging):
            with self._unseen():
                _rename_new(self.staging, self.path)

    def finish(self) -> None:
        """Remove it for good."""
        parent, name = os.path.split(self.staging)
        fd = os.open(parent, DIRECTORY)
        try:
            with self._unseen():
                remove_with_subvolumes(fd, name, parent)
        finally:
            os.close(fd)
        _unlink(self.folder.fd, f".{self.record['name']}.json")

    @contextlib.contextmanager
    def _unseen(self) -> Iterator[None]:
        """Where it lies inside the target: let the target's time not tell that it goes."""
        parent, name = os.path.split(self.path)
        with (
            _same_times((None, parent), (None, parent)) if name.startswith(layout.STAGING) else contextlib.nullcontext()
        ):
            yield

    def recover(self) -> str | None:
        """Complete what a killed run had begun; return what was done, in words, or None where it was nothing."""
        if _inode(os.path.dirname(self.path)) != self.record["beside"]:
            return None  # the filesystem may not be mounted
        begun = os.path.lexists(self.staging)
        if not begun and os.path.lexists(self.path):
            return None
        self.finish()
        return f"completed the removal of {self.path}" if begun else None


def recover(folder: Folder, kind: type[Returning] = Returning) -> list[str]:
    """Complete or give up what killed runs left under way in a folder; return what was done, in words.

    The store must be locked. What cannot be completed now stays for a later run, and does not hold up this one.
    """
    done: list[str] = []
    for name in sorted(names_in(folder.fd)):
        if name.startswith(layout.PENDING) and name.endswith(".json"):
            try:
                done.append(kind.read(folder, read_json(folder.fd, name)).recover())
            except (OSError, RestorePointError, KeyError, TypeError) as error:
                done.append(f"what an interrupted run noted in {folder.path}/{name} could not be completed: {error}")
    for record in aside_records(folder)[0]:
        try:
            said = Removing(folder, record).recover()
        except (OSError, RestorePointError) as error:
            said = f"the removal of {record['path']} was interrupted and could not be completed: {error}"
        done += [said] if said is not None else []
    return done


def remove_with_subvolumes(parent: int, name: str, path: str) -> None:
    """Remove a folder of ours; what stands at its top may be a subvolume."""
    if not subvolume.is_subvolume(parent, name):
        try:
            fd = os.open(name, DIRECTORY, dir_fd=parent)
        except (NotADirectoryError, OSError):
            discard(parent, name, path)
            return
        try:
            for each in os.listdir(fd):
                if subvolume.is_subvolume(fd, each):
                    discard(fd, each, os.path.join(path, name))
        finally:
            os.close(fd)
    discard(parent, name, path)


def _remove_empty(path: str) -> None:
    """Remove a directory and those in it, as long as they are empty."""
    for root, _unused, _unused in os.walk(path, topdown=False):
        try:
            os.rmdir(root)
        except OSError:
            return


def _is_there(directory: int | None, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _unlink(directory: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def failed(attempt: str, error: OSError, target: str, parts: Sequence[str]) -> RestorePointError:
    """Return the error of a return that failed, with the way out."""
    known = {
        errno.EBUSY: f"{target} is a mount point: return parts of it with paths, or unmount it first",
        errno.EXDEV: "the filesystem (an overlay?) cannot rename this directory: return parts of it with paths",
        errno.ENOSPC: "free space beside the target, or return parts of it with paths",
        errno.EDQUOT: "raise the disk quota there, or return parts of it with paths",
        errno.EROFS: "mount that filesystem writable first",
        errno.EACCES: "run as root, or as a user that may write beside the target",
        errno.EPERM: "run as root, or as a user that may write beside the target",
        errno.EEXIST: "something was put in its place meanwhile: look at it, and try again",
    }
    where = f" ({error.filename})" if error.filename else ""
    remedy = known.get(error.errno or 0, "the target is as it was; mend that and try again")
    return RestorePointError(attempt, f"{error.strerror}{where}", remedy)
