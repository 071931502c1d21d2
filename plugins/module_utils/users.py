# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who uses a directory tree: processes and bind mounts, from /proc. Standard library and core; called by backends.

After a directory was exchanged for another one, whoever had it open or mounted goes on writing into the old one. So
they are looked for before, in every mount namespace: an idle pod has no file open, but holds a bind mount.

Two processes can know one directory by two names, and two directories by one name. What /proc shows is therefore
traced to its place, (device, path inside the filesystem), by the mounts of the namespace it belongs to:

- Each namespace's mounts are read once, and the names under which the directory could be seen there worked out. Only
  what bears such a name is looked at more closely; for most processes that is nothing.
- The mount id of an open file or working directory then says for certain through which mount it was reached.

Not seen: files used by the kernel itself (loop devices, swap, exports), the layers of overlay mounts, namespaces kept
alive by an open file alone, threads with files or a working directory of their own, and what was unmounted lazily.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .mounts import Mount, containing, filesystem_path, inside, joined, parse

#: So many users are named; of the rest only the number is told.
NAMED_USERS = 20

#: The initial PID namespace has this number on every Linux (PROC_PID_INIT_INO in linux/proc_ns.h).
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"
_GONE = (errno.ENOENT, errno.ESRCH, errno.EINVAL)
_DENIED = "processes that the privileges of this run do not let it inspect"
_HIDDEN = "processes of other users, which procfs hides (hidepid)"
_OUTSIDE = "processes outside the PID namespace of this run"


@dataclass(frozen=True)
class User:
    """Somebody who uses the tree.

    ``kind`` is "open file", "working directory", "root", "mapped file" or "bind mount"; ``path`` is what is used,
    relative to the tree ("" for the tree itself); ``where`` is the name under which the user sees it; ``count`` is how
    many such files the process uses, of which ``path`` is the first.
    """

    pid: int
    command: str
    kind: str
    path: str
    where: str
    count: int = 1

    def __str__(self) -> str:
        who = f"pid {self.pid} ({self.command})"
        what = self.path or "it"
        if self.kind == "open file":
            return f"{who} has {what} open{self._others}"
        if self.kind == "mapped file":
            return f"{who} has {what} mapped into memory{self._others}"
        if self.kind == "working directory":
            return f"{who} works in {what}"
        if self.kind == "root":
            return f"{who} has {what} as its root directory"
        if self.pid:
            return f"a mount namespace of {who} has {what} mounted at {self.where}"
        return f"{what} is also mounted at {self.where}"

    @property
    def _others(self) -> str:
        if self.count == 1:
            return ""
        return f" and {self.count - 1} other file{'s' if self.count > 2 else ''}"


class Users(NamedTuple):
    """Those who were found: the first of them, how many more there are, and why there may be others still."""

    found: tuple[User, ...]
    more: int = 0
    unseen: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everything could be looked at."""
        return not self.unseen

    def describe(self) -> list[str]:
        """Return one text for each user, and one for those that are not named."""
        return [str(user) for user in self.found] + ([f"{self.more} more"] if self.more else [])


@dataclass
class _Namespace:
    """One mount namespace.

    ``mounts`` (by id) have their mount points as links in /proc show paths: from the top of the namespace. ``names``
    (the keys) are what the tree could be called here, each with a slash at its end.
    """

    mounts: dict[int, Mount] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)


def find_users(path: str, proc: str = "/proc", *, exclude: Collection[int] = ()) -> Users:
    """Return who uses a directory or anything in it, or a single file.

    Args:
        path: an absolute path; symlinks in it are resolved.
        proc: where procfs is mounted.
        exclude: processes that do not count, beside the calling one.

    Processes that end meanwhile are passed over. What may not be looked at makes the answer incomplete and is no error:
    an ordinary user sees only their own processes. Raises OSError when procfs is not there, ToolError for a mount table
    that cannot be parsed, LookupError when no mount covers the path.
    """
    own_pid = int(os.readlink(f"{proc}/self"))
    search = _Search(_Proc(proc), os.path.realpath(path), own_pid)
    pids = sorted({int(name) for name in os.listdir(proc) if name.isdecimal()} - {own_pid, *exclude})
    # All namespaces come first: a file opened in one of them may have been handed to a process in another.
    for pid, namespace in [(pid, search.namespace_of(pid)) for pid in pids]:
        search.look_at(pid, namespace)
    return search.result()


class _Search:
    """One search through /proc, with what it has learnt so far."""

    def __init__(self, proc: _Proc, path: str, own_pid: int) -> None:
        self.proc = proc
        self.own_pid = own_pid
        self.users: list[User] = []
        self._namespaces: dict[str | bytes, _Namespace] = {}
        self._views: dict[tuple[str | bytes, str], None] = {}
        self._mounts: dict[int, Mount] = {}
        self._names: dict[str, None] = {}
        mounts = parse(proc.content(own_pid, "mountinfo") or b"", f"{proc.path}/self/mountinfo")
        self._device, self._path = filesystem_path(mounts, path)
        own = containing(mounts, path)
        self._own_mount = own.mount_id if own.mount_point == path else None
        self._own_places: frozenset[object] = frozenset()
        self.namespace_of(own_pid)
        self._own_places = frozenset(_places(mounts))  # From now on: in our own namespace each mount stands for itself.
        proc.note_limits(mounts, own_pid)

    def result(self) -> Users:
        first, rest = self.users[:NAMED_USERS], self.users[NAMED_USERS:]
        return Users(tuple(first), len(rest), tuple(self.proc.unseen))

    def namespace_of(self, pid: int) -> _Namespace:
        """Return the mount namespace of a process; one that is new adds the bind mounts of the tree in it.

        A table shows only what lies under the root directory of its process, so those of all roots are put together.
        Where the namespace's number may not be read, its content stands for it.
        """
        number, root = self.proc.link(pid, "ns/mnt"), self.proc.link(pid, "root") or "/"
        if number is not None and (number, root) in self._views:
            return self._namespaces[number]
        content = self.proc.content(pid, "mountinfo")
        if content is None:
            return _Namespace()
        key = number or content
        namespace = self._namespaces.setdefault(key, _Namespace())
        if (key, root) not in self._views:
            self._views[(key, root)] = None
            mounts = parse(content, f"{self.proc.path}/{pid}/mountinfo")
            self._learn(pid, namespace, [each._replace(mount_point=_under(root, each.mount_point)) for each in mounts])
        return namespace

    def look_at(self, pid: int, namespace: _Namespace) -> None:
        """Add what one process uses."""
        self._look_at_folder(pid, namespace, "cwd", "working directory")
        self._look_at_folder(pid, namespace, "root", "root")
        self._look_at_open_files(pid, namespace)
        self._look_at_mapped_files(pid, namespace)

    def _learn(self, pid: int, namespace: _Namespace, mounts: Sequence[Mount]) -> None:
        """Remember mounts by their ids, which no two namespaces share, and what the tree is called by them."""
        self._add_bind_mounts(pid, mounts)
        for mount in mounts:
            self._mounts.setdefault(mount.mount_id, mount)
            namespace.mounts.setdefault(mount.mount_id, mount)
            name = self._name_by(mount)
            if name is not None:
                namespace.names[name.rstrip("/") + "/"] = None
        # Where the tree holds a container's whole root, its name there is "/", which would fit everything elsewhere.
        self._names.update(dict.fromkeys(name for name in namespace.names if name != "/"))

    def _name_by(self, mount: Mount) -> str | None:
        """Return what the tree, or the part of it that is mounted, is called where that mount is; None for no part."""
        if mount.device != self._device:
            return None
        relative = inside(self._path, mount.root)
        if relative is not None:
            return joined(mount.mount_point, relative)
        return mount.mount_point if self._within(mount.root) is not None else None

    def _within(self, path: str) -> str | None:
        """Return a path of the target's filesystem relative to the tree, or None where it lies outside.

        The root of a mount whose directory was removed ends in "//deleted": if that is the tree's own path, it was an
        earlier directory of this name, and is none of ours.
        """
        relative = inside(path, self._path)
        return None if relative is not None and relative.startswith("/") else relative

    def _add_bind_mounts(self, pid: int, mounts: Sequence[Mount]) -> None:
        """Add the mounts of the tree, or of something in it, apart from those that other entries stand for already.

        These are the tree's own mount, mounts seen again under another root directory, and the copies of our own
        mounts in a namespace that was copied from ours (systemd makes many such).
        """
        for mount, place in zip(mounts, _places(mounts)):
            relative = self._within(mount.root) if mount.device == self._device else None
            if relative is None or mount.mount_id in self._mounts or mount.mount_id == self._own_mount:
                continue
            if place not in self._own_places:
                holder, command = (0, "") if pid == self.own_pid else (pid, self.proc.command(pid))
                self.users.append(User(holder, command, "bind mount", relative, mount.mount_point))

    def _look_at_folder(self, pid: int, namespace: _Namespace, link: str, kind: str) -> None:
        seen_as = self.proc.link(pid, link)
        if seen_as is not None and f"{seen_as}/".startswith(tuple(namespace.names)):
            relative = self._trace(seen_as, namespace, self.proc.mount_behind(pid, link))
            if relative is not None:
                self._add(pid, kind, {relative: seen_as})

    def _look_at_open_files(self, pid: int, namespace: _Namespace) -> None:
        names = (*namespace.names, *self._names)
        found: dict[str, str] = {}
        for fd in self.proc.open_files(pid):
            seen_as = self.proc.link(pid, f"fd/{fd}")
            if seen_as is not None and f"{seen_as}/".startswith(names):
                relative = self._trace(seen_as, namespace, self.proc.mount_of_file(pid, fd))
                if relative is not None:
                    found.setdefault(relative, seen_as)
        self._add(pid, "open file", found)

    def _look_at_mapped_files(self, pid: int, namespace: _Namespace) -> None:
        found: dict[str, str] = {}
        if namespace.names:
            for seen_as in _mapped(self.proc.content(pid, "maps") or b"", tuple(namespace.names)):
                relative = self._trace(seen_as, namespace, None)
                if relative is not None:
                    found.setdefault(relative, seen_as)
        self._add(pid, "mapped file", found)

    def _trace(self, seen_as: str, namespace: _Namespace, mount_id: int | None) -> str | None:
        """Return a path that a process sees relative to the tree, or None where it lies outside.

        Without a mount id that we know, the path is looked up in the process's namespace as it is mounted now.
        """
        mount = self._mounts.get(mount_id) if mount_id is not None else None
        if mount is None:
            try:
                mount = containing(tuple(namespace.mounts.values()), seen_as)
            except (LookupError, ValueError):
                return None
        rest = inside(seen_as, mount.mount_point)
        if rest is None or mount.device != self._device:
            return None
        return self._within(joined(mount.root, rest))

    def _add(self, pid: int, kind: str, found: dict[str, str]) -> None:
        if found:
            path, seen_as = next(iter(found.items()))
            self.users.append(User(pid, self.proc.command(pid), kind, path, seen_as, len(found)))


class _Proc:
    """Reads procfs. What is gone reads as nothing; what may not be read as well, but ``unseen`` then says so."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.unseen: dict[str, None] = {}

    def link(self, pid: int, name: str) -> str | None:
        try:
            return os.readlink(f"{self.path}/{pid}/{name}")
        except OSError as error:
            self._note(error)
            return None

    def content(self, pid: int | str, name: str) -> bytes | None:
        try:
            with open(f"{self.path}/{pid}/{name}", "rb", buffering=0) as file:
                return file.read()
        except OSError as error:
            self._note(error)
            return None

    def open_files(self, pid: int) -> list[str]:
        try:
            return os.listdir(f"{self.path}/{pid}/fd")
        except OSError as error:
            self._note(error)
            return []

    def command(self, pid: int) -> str:
        """Return the name of a process. It names itself, so what could disturb a terminal is taken out."""
        name = os.fsdecode(self.content(pid, "comm") or b"?").rstrip("\n")
        return "".join(character if character.isprintable() else "?" for character in name)

    def mount_of_file(self, pid: int | str, fd: int | str) -> int | None:
        """Return the id of the mount through which a file was opened."""
        content = self.content(pid, f"fdinfo/{fd}") or b""
        for line in content.split(b"\n"):
            if line.startswith(b"mnt_id:"):
                return int(line[7:])
        return None

    def mount_behind(self, pid: int, link: str) -> int | None:
        """Return the id of the mount that the link of a process (cwd, root) leads to."""
        try:
            fd = os.open(f"{self.path}/{pid}/{link}", os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return None  # Its path has to do.
        try:
            return self.mount_of_file("self", fd)
        finally:
            os.close(fd)

    def note_limits(self, mounts: Sequence[Mount], own_pid: int) -> None:
        """Note whether there are processes that leave no trace here, not even one that may not be read."""
        if os.geteuid() != 0 and any(
            mount.fstype == "proc" and mount.mount_point == self.path and "hidepid=" in mount.super_options
            for mount in mounts
        ):
            self.unseen[_HIDDEN] = None
        if self.link(own_pid, "ns/pid") not in (None, _INITIAL_PID_NAMESPACE):
            self.unseen[_OUTSIDE] = None

    def _note(self, error: OSError) -> None:
        if error.errno not in _GONE:
            self.unseen[_DENIED] = None


def _places(mounts: Sequence[Mount]) -> Iterator[tuple[object, object]]:
    """Yield what is mounted where and on what: the same in a namespace and in one that was copied from it."""
    known = {mount.mount_id: (mount.device, mount.root, mount.mount_point) for mount in mounts}
    for mount in mounts:
        yield known[mount.mount_id], known.get(mount.parent_id)


def _under(root: str, mount_point: str) -> str:
    """Return a mount point, told from a root directory, as it is told from the top of its namespace."""
    return mount_point if root == "/" else joined(root, mount_point.lstrip("/"))


def _mapped(maps: bytes, names: Sequence[str]) -> Iterator[str]:
    """Yield the paths in the content of a maps file that begin with one of the names.

    As in proc_pid_maps(5), the path is the sixth field; it may hold blanks, and a newline in it is escaped.
    """
    wanted = tuple(os.fsencode(name).replace(b"\n", rb"\012") for name in names)
    if not any(b" " + name[:-1] in maps for name in wanted):
        return
    for line in maps.split(b"\n"):
        fields = line.split(None, 5)
        if len(fields) == 6 and (fields[5] + b"/").startswith(wanted):
            yield os.fsdecode(fields[5].replace(rb"\012", b"\n"))
