# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Returns a directory, or parts of it, to a snapshot: staged beside it, then exchanged in one step.

The content that was there is never overwritten. It changes places with the staged copy, and is then kept aside under a
name of its own, or removed once everything else is done. What is under way is written down in the store first (a
`pending` record with the inodes of what was staged), so that a run that finds it later can tell on which side of the
exchange the one before it was killed: before it, the copy is removed and the target was never touched; after it, what
was left to be done is done. Called by the backend; uses the doors and core.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Sequence

from ... import linux, mounts
from ...core.errors import RestorePointError
from . import layout, manifest, subvolume
from .creation import new_file_owner
from .files import FileCopier, Limiter
from .options import HostpathOptions
from .store import Folder, discard, read_json, write_json
from .tree import DIRECTORY, Basis, Give

_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
#: What stands in a pending record of each kind.
RETURN, REMOVE = "return", "remove"


@dataclass(frozen=True)
class Source:
    """What is returned to: a tree, and its manifest where there is one.

    ``sequence`` tells snapshots of one name apart; ``subvolume`` says that the tree is a Btrfs subvolume.
    """

    name: str
    path: str
    sequence: int = 0
    subvolume: bool = False
    basis: Callable[[], Basis | None] = lambda: None


@dataclass
class Swap:
    """One exchange: what is staged under ``staged``, against ``part`` of the target ("" is all of it)."""

    part: str
    staged: str
    inode: int = 0

    def as_json(self) -> dict[str, Any]:
        return {"part": self.part, "staged": self.staged, "inode": self.inode}


@dataclass
class Returning:
    """A return that is under way. What is in it is what its pending record says."""

    folder: Folder
    target: str
    identity: str
    staging: str
    aside: str | None  #: what the content that was there will be called, or None where it is not kept
    aside_path: str
    snapshot: str
    sequence: int
    newest: int
    once: str | None
    at: int
    swaps: list[Swap]
    checksum: str | None = None
    report: dict[str, Any] = field(default_factory=dict)

    # -- the record ----------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write the pending record."""
        record = {
            key: getattr(self, key)
            for key in ("target", "identity", "staging", "aside", "aside_path", "snapshot", "sequence", "newest", "once",
                        "at", "checksum")
        }  # fmt: skip
        swaps = [swap.as_json() for swap in self.swaps]
        write_json(self.folder.fd, f"{layout.PENDING}{self.identity}.json", {**record, "kind": RETURN, "swaps": swaps})

    @classmethod
    def read(cls, folder: Folder, record: Mapping[str, Any]) -> Returning:
        """Return what a pending record says."""
        values = {key: value for key, value in record.items() if key not in ("kind", "swaps")}
        return cls(folder=folder, swaps=[Swap(**each) for each in record["swaps"]], **values)

    @property
    def _manifest(self) -> str:
        return f"{layout.PENDING}{self.identity}.manifest"

    # -- staging -------------------------------------------------------------------------------------------------------

    def stage(self, source: Source, options: HostpathOptions) -> None:
        """Copy what is returned into the staging folder. Raises OSError or RestorePointError; `abandon` cleans up."""
        self.write()
        os.mkdir(self.staging, 0o700)
        parent, name = os.path.split(self.staging)
        parent_fd = os.open(parent, DIRECTORY)
        try:
            owner = new_file_owner(parent_fd, name)
            staging = os.open(name, DIRECTORY, dir_fd=parent_fd)
        finally:
            os.close(parent_fd)
        try:
            limit = options.bandwidth_limit
            files = FileCopier(owner, Limiter(limit) if limit else None)
            for swap in self.swaps:
                self._stage_one(swap, source, files, staging, options)
            linux.syncfs(staging)
            for swap in self.swaps:
                swap.inode = os.stat(swap.staged, dir_fd=staging, follow_symlinks=False).st_ino
        finally:
            os.close(staging)
        self.report["not_kept"] = files.losses.as_result()
        self.write()

    def _stage_one(
        self, swap: Swap, source: Source, files: FileCopier, staging: int, options: HostpathOptions
    ) -> None:
        if source.subvolume and not swap.part and _same_filesystem(source.path, self.staging):
            subvolume.snapshot(source.path, os.path.join(self.staging, swap.staged), read_only=False)
            self.report["strategy"] = "subvolume"
            return
        tree = os.open(source.path, DIRECTORY)
        try:
            parent = open_below(tree, os.path.dirname(swap.part))
        finally:
            os.close(tree)
        try:
            name = os.path.basename(swap.part) or "."
            st = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(st.st_mode):
                self._stage_file(parent, name, st, swap, files, staging)
                return
            stored = os.open(name, DIRECTORY, dir_fd=parent)
        finally:
            os.close(parent)
        try:
            self._stage_tree(stored, swap, source, files, staging, options)
        finally:
            os.close(stored)

    def _stage_file(
        self, parent: int, name: str, st: os.stat_result, swap: Swap, files: FileCopier, staging: int
    ) -> None:
        # Copied under its own name and renamed: what it is called does not matter to what it holds.
        files.where = lambda: swap.part
        copy = files.regular if stat.S_ISREG(st.st_mode) else None
        if copy is not None:
            copied = copy(parent, staging, name, st, live=False)
        else:
            copied = files.special(parent, staging, name, st)
        if copied.made is None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), swap.part)
        os.rename(name, swap.staged, src_dir_fd=staging, dst_dir_fd=staging)

    def _stage_tree(
        self, stored: int, swap: Swap, source: Source, files: FileCopier, staging: int, options: HostpathOptions
    ) -> None:
        os.mkdir(swap.staged, 0o700, dir_fd=staging)
        basis = source.basis() if not swap.part else None
        name = self._manifest if not swap.part else f"{layout.NEW}{self.identity}.{swap.staged}.manifest"
        writer = manifest.Writer(self.folder.fd, name)
        tell = options.progress
        give = Give(
            files,
            writer,
            progress=(lambda tally: tell(f"return {self.target}", {"files": tally.files})) if tell else None,
            blocks=basis.blocks if basis is not None else None,
        )
        dest = os.open(swap.staged, DIRECTORY, dir_fd=staging)
        try:
            tally = give.copy(stored, dest)
        finally:
            os.close(dest)
            checksum = writer.close()
            if basis is not None:
                basis.close()
        if swap.part:
            os.unlink(name, dir_fd=self.folder.fd)
        else:
            self.checksum = checksum
        self.report["files"] = self.report.get("files", 0) + tally.files
        self.report["copied_bytes"] = self.report.get("copied_bytes", 0) + tally.copied_bytes

    # -- the exchange --------------------------------------------------------------------------------------------------

    def swap(self) -> list[str]:
        """Let what was staged and what is there change places; keep the latter aside. Returns warnings."""
        warnings: list[str] = []
        done: list[Swap] = []
        try:
            for swap in self.swaps:
                warnings += self._exchange(swap)
                done.append(swap)
            self._move_aside()
        except BaseException:
            for swap in reversed(done):
                self._exchange(swap)
            raise
        return warnings

    def _exchange(self, swap: Swap) -> list[str]:
        directory = self._directory_of(swap.part)
        name = self._name_of(swap.part)
        staging = os.open(self.staging, DIRECTORY)
        try:
            times = os.fstat(directory)
            is_there, is_staged = _is_there(directory, name), _is_there(staging, swap.staged)
            warnings = []
            if is_there and is_staged:
                warnings = self._change_places(staging, swap.staged, directory, name)
            elif is_staged:
                linux.rename_noreplace(swap.staged, name, old_dirfd=staging, new_dirfd=directory)
            else:
                os.rename(name, swap.staged, src_dir_fd=directory, dst_dir_fd=staging)
            if swap.part:
                # The directory around a part belongs to the content; its time must not tell of the exchange.
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

    def _move_aside(self) -> None:
        """Give what was there its name aside. Nothing of it is there where the target, or the part, was missing."""
        if self.aside is None:
            return
        if any(swap.part for swap in self.swaps) and not os.path.lexists(self.aside_path):
            # Around the parts there is a folder of ours, for nobody else's eyes.
            os.mkdir(self.aside_path, 0o700)
        staging = os.open(self.staging, DIRECTORY)
        try:
            for swap in self.swaps:
                if not _is_there(staging, swap.staged):
                    continue
                if not swap.part:
                    linux.rename_noreplace(swap.staged, self.aside_path, old_dirfd=staging)
                else:
                    path = os.path.join(self.aside_path, swap.part)
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    linux.rename_noreplace(swap.staged, path, old_dirfd=staging)
        finally:
            os.close(staging)

    def swap_back(self) -> None:
        """Take the exchange back."""
        self._move_back()
        for swap in reversed(self.swaps):
            self._exchange(swap)

    def _move_back(self) -> None:
        if self.aside is None or not os.path.lexists(self.aside_path):
            return
        for swap in self.swaps:
            path = os.path.join(self.aside_path, swap.part) if swap.part else self.aside_path
            if os.path.lexists(path):
                os.rename(path, os.path.join(self.staging, swap.staged))
        if any(swap.part for swap in self.swaps):
            _remove_empty(self.aside_path)

    # -- the end -------------------------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """Remove what was staged, and the record."""
        self._remove_staging()
        for name in (self._manifest, f"{layout.PENDING}{self.identity}.json"):
            _unlink(self.folder.fd, name)

    def finish(self) -> None:
        """Write down what was done, remove what is not kept, and then the record."""
        if self.aside is not None and os.path.lexists(self.aside_path):
            self._record_aside()
        if self.once is not None:
            remember_token(self.folder, self.once, self.at)
        self._record_return()
        self._remove_staging()
        _unlink(self.folder.fd, f"{layout.PENDING}{self.identity}.json")

    def _record_aside(self) -> None:
        st = os.lstat(self.aside_path)
        parts = [swap.part for swap in self.swaps if swap.part]
        write_json(
            self.folder.fd,
            f".{self.aside}.json",
            {"name": self.aside, "path": self.aside_path, "inode": st.st_ino, "created": self.at, "parts": parts,
             "returned_to": self.snapshot},
        )  # fmt: skip

    def _record_return(self) -> None:
        """Keep the manifest of what was made: with it the next run knows these files without reading them."""
        returned = f"{layout.RETURNED}.json"
        _unlink(self.folder.fd, returned)
        if self.checksum is None or not _is_there(self.folder.fd, self._manifest):
            return
        os.rename(
            self._manifest, f"{layout.RETURNED}.manifest", src_dir_fd=self.folder.fd, dst_dir_fd=self.folder.fd
        )
        write_json(
            self.folder.fd,
            returned,
            {"name": self.snapshot, "sequence": self.sequence, "newest": self.newest, "at": self.at,
             "manifest_sha256": self.checksum},
        )  # fmt: skip

    def _remove_staging(self) -> None:
        parent, name = os.path.split(self.staging)
        try:
            parent_fd = os.open(parent, DIRECTORY)
        except FileNotFoundError:
            return
        try:
            if _is_there(parent_fd, name):
                _remove_with_subvolumes(parent_fd, name, parent)
        finally:
            os.close(parent_fd)

    # -- after a kill --------------------------------------------------------------------------------------------------

    def recover(self) -> str:
        """Complete or give up what a killed run left; return what was done, in words."""
        if not os.path.lexists(self.staging):
            # Killed before the staging folder was made, or after it was removed at the very end.
            if any(swap.inode and self._inode(swap) == swap.inode for swap in self.swaps):
                self.finish()
                return f"completed the return of {self.target} to {self.snapshot}"
            self.abandon()
            return f"gave up a return of {self.target} that had not begun"
        self._mend_two_renames()
        if not any(swap.inode and self._inode(swap) == swap.inode for swap in self.swaps):
            self.abandon()
            return f"removed the copy that a killed return of {self.target} had staged; the target was not touched"
        self._move_aside_after_kill()
        self.finish()
        return f"completed the return of {self.target} to {self.snapshot}"

    def _inode(self, swap: Swap) -> int:
        try:
            directory = self._directory_of(swap.part)
        except OSError:
            return 0
        try:
            return os.stat(self._name_of(swap.part), dir_fd=directory, follow_symlinks=False).st_ino
        except FileNotFoundError:
            return 0
        finally:
            os.close(directory)

    def _mend_two_renames(self) -> None:
        """Where the exchange had to be made of two renames: put the old content back, or take it as exchanged."""
        for swap in self.swaps:
            old = os.path.join(self.staging, f"{swap.staged}.old")
            if not os.path.lexists(old):
                continue
            if self._inode(swap) == swap.inode:
                os.rename(old, os.path.join(self.staging, swap.staged))
            else:
                directory = self._directory_of(swap.part)
                try:
                    os.rename(old, self._name_of(swap.part), dst_dir_fd=directory)
                finally:
                    os.close(directory)

    def _move_aside_after_kill(self) -> None:
        # A part that was not exchanged is still the staged copy, and goes with the staging folder.
        exchanged = [swap for swap in self.swaps if self._inode(swap) == swap.inode]
        self.swaps = exchanged
        self._move_aside()


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


@dataclass
class Removing:
    """An aside that is being removed: renamed out of the way first, so that it is there whole or not at all."""

    folder: Folder
    name: str
    path: str
    staging: str
    identity: str

    def commit(self) -> None:
        """Rename it out of the way."""
        record = {"kind": REMOVE, "name": self.name, "path": self.path, "staging": self.staging}
        write_json(self.folder.fd, f"{layout.PENDING}{self.identity}.json", {**record, "identity": self.identity})
        linux.rename_noreplace(self.path, self.staging)

    def undo(self) -> None:
        """Put it back."""
        linux.rename_noreplace(self.staging, self.path)
        _unlink(self.folder.fd, f"{layout.PENDING}{self.identity}.json")

    def finish(self) -> None:
        """Remove it for good."""
        parent, name = os.path.split(self.staging)
        fd = os.open(parent, DIRECTORY)
        try:
            _remove_with_subvolumes(fd, name, parent)
        finally:
            os.close(fd)
        _unlink(self.folder.fd, f".{self.name}.json")
        _unlink(self.folder.fd, f"{layout.PENDING}{self.identity}.json")


def recover(folder: Folder) -> list[str]:
    """Complete or give up what killed runs left under way in a folder. The store must be locked."""
    done = []
    for name in sorted(os.listdir(folder.fd)):
        if not (name.startswith(layout.PENDING) and name.endswith(".json")):
            continue
        record = read_json(folder.fd, name)
        if record.get("kind") == RETURN:
            done.append(Returning.read(folder, record).recover())
        else:
            removing = Removing(folder, *(record[key] for key in ("name", "path", "staging", "identity")))
            if os.path.lexists(removing.staging):
                removing.finish()
                done.append(f"completed the removal of {removing.path}")
            else:
                _unlink(folder.fd, name)
    return done


def _same_filesystem(one: str, other: str) -> bool:
    """Say whether two directories lie on one Btrfs filesystem, whose subvolumes have device numbers of their own."""
    table = mounts.read_mounts()
    return mounts.containing(table, one).device == mounts.containing(table, other).device


def _remove_with_subvolumes(parent: int, name: str, path: str) -> None:
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
    for root, _, _ in os.walk(path, topdown=False):
        try:
            os.rmdir(root)
        except OSError:
            return


def _is_there(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _unlink(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass


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
