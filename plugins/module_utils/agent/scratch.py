# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scratch places of drills: the newest snapshot of one target laid out beside its original, and taken away again.

A place is written down before anything of it is made, so that a kill at any moment leaves what the next drill can
take away. What is taken away has to be proven ours first, by what was written down: a folder by its inode, a clone by a
random name and by what its storage says of it. The original is only ever read. Called by `drilling`.

============== ==============================================================
hostpath       a copy in a folder beside the store
btrfs          a writable snapshot in such a folder
zfs            a clone at the top of the pool; a volume's is a device
lvm, thin      a writable snapshot of the snapshot
lvm, thick     the snapshot itself, of which LVM has no clones; only ever read
csi            a new claim in the same namespace
============== ==============================================================
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Callable

from .. import mounts, process
from ..audit import AuditLog, current_user
from ..core.backend import Desired
from ..core.errors import RestorePointError
from ..core.run import RunFailed
from ..core.snapshot import Snapshot
from ..engine.policy import TARGET_OPTION, Target, engine
from ..engine.reach import Reach
from . import opened

PREFIX = "restorepoint-drill-"
#: On a clone of ZFS: by which drill it was made.
PROPERTY = "restorepoint-drill:token"
#: What a program may take that mounts, looks, or makes a device, in seconds.
TIMEOUT = 120.0
_STORED = ("btrfs", "hostpath")
_FORBIDDEN = "look what it is, and remove it by hand if nobody needs it"


@dataclasses.dataclass(frozen=True)
class Place:
    """A scratch place, as it is written down. All of it can be JSON.

    ``params`` are those of the target, narrowed to this one. ``folder`` is a directory of the drill's own ("" for a
    claim), and ``inode`` what tells it from another one, once it is there. ``clone`` is what the storage calls the
    clone, "" where there is none; ``of`` is what the storage has to say that it is a clone of.
    """

    backend: str
    params: Mapping[str, Any]
    target: str
    snapshot: str
    token: str
    folder: str
    clone: str
    of: str
    inode: int | None = None

    @property
    def shown(self) -> str:
        """What people look for, should it stay."""
        return " and ".join(dict.fromkeys(each for each in (self.clone, self.folder) if each))


def read_place(fields: Mapping[str, Any]) -> Place:
    """Return a place that was written down."""
    return Place(**fields)


@dataclasses.dataclass(frozen=True)
class Restored:
    """What lies in a place: at ``path`` ("" as long as it is not mounted), on ``device``, or in ``claim``.

    ``source`` and ``fstype`` are what is to be mounted. ``own``: it is a copy, so its journal may be played back.
    """

    path: str = ""
    device: str = ""
    claim: str = ""
    source: str = ""
    fstype: str = ""
    own: bool = True


def plan(target: Target, snapshot: Snapshot, scratch: str, state: str, token: str = "") -> Place:
    """Return the place for a snapshot of one target. Nothing is made.

    ``scratch`` is the folder that the policy names, ``state`` that of the agent. ``snapshot`` is as the backend tells
    it, without a label in front of its target.
    """
    token = token or os.urandom(6).hex()
    name, backend, params = f"{PREFIX}{token}", target.backend, _narrowed(target, snapshot.target)
    folder, clone, of = os.path.join(scratch or os.path.join(state, "scratch"), name), "", ""
    if backend in _STORED:
        folder = os.path.join(scratch or os.path.dirname(params["store"].rstrip("/")), f".{name}")
        clone = os.path.join(folder, "content")
    elif backend == "zfs":
        clone, of = f"{snapshot.target.partition('/')[0]}/{name}", f"{snapshot.target}@{snapshot.name}"
    elif backend == "lvm" and snapshot.extra.get("type") == "thin":
        clone, of = f"{snapshot.target.partition('/')[0]}/{name}", str(snapshot.extra["uuid"])
    elif backend == "csi":
        folder, clone = "", name
    return Place(backend, params, snapshot.target, snapshot.name, token, folder, clone, of)


def _narrowed(target: Target, name: str) -> dict[str, Any]:
    """Return the options of a target for one of those that it names."""
    params = dict(target.params)
    if target.backend == "csi":
        namespace, _slash, claim = name.partition("/")
        return {**params, "namespace": [namespace], "pvc": [claim], "selector": None}
    params[TARGET_OPTION[target.backend]] = [name]
    if target.backend == "hostpath":
        params.update(namespace=None, pvc=None, selector=None)
    if target.backend == "zfs":
        params["recursive"] = False
    return params


class Scratch:
    """Makes one place, and takes it away.

    Args:
        place: as it is planned, or was written down.
        owner: whose snapshot it is.
        now: seconds since the epoch.
        note: writes the place down; on the disk when it returns.
        shield: a context in which interrupts wait.
    """

    def __init__(
        self,
        place: Place,
        owner: str,
        now: Callable[[], int],
        note: Callable[[Place], None],
        shield: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.place = place
        self._owner = owner
        self._now = now
        self._note = note
        self._shield = shield

    # -- making --------------------------------------------------------------------------------------------------------

    def make(self, snapshot: Snapshot) -> Restored:
        """Lay the snapshot out. Raises RestorePointError; what is there then, `remove` takes away."""
        self._note(self.place)
        if self.place.folder:
            self._make_folder()
        if self.place.backend in _STORED:
            self._clone()
            return Restored(path=self.place.clone)
        if self.place.backend == "csi":
            self._clone()
            return Restored(claim=f"{self.place.target.partition('/')[0]}/{self.place.clone}")
        return self._zfs() if self.place.backend == "zfs" else self._lvm(snapshot)

    def _make_folder(self) -> None:
        if self.place.folder.endswith(f"/scratch/{PREFIX}{self.place.token}"):
            with contextlib.suppress(OSError):  # making what lies in it says why
                os.makedirs(os.path.dirname(self.place.folder), mode=0o700, exist_ok=True)
        with self._shield():
            found = opened.make_folder(self.place.folder)
            self.place = dataclasses.replace(self.place, inode=found.st_ino)
            self._note(self.place)

    def _zfs(self) -> Restored:
        from ..backends.zfs.tool import Zfs

        attempt = f"look at {self.place.target}"
        ((kind,),) = Zfs(self.place.params["timeout"]).rows(("type",), (), [self.place.target], attempt)
        given = {} if kind == "volume" else {"mountpoint": "legacy", "canmount": "noauto"}
        self._clone(properties={**given, PROPERTY: self.place.token})
        if kind != "volume":
            return Restored(source=self.place.clone, fstype="zfs")
        return self._on_device(f"/dev/zvol/{self.place.clone}", True)

    def _lvm(self, snapshot: Snapshot) -> Restored:
        if not self.place.clone:
            vg = self.place.target.partition("/")[0]
            return self._on_device(f"/dev/{vg}/{snapshot.extra['lv']}", False)
        self._clone()
        return self._on_device(f"/dev/{self.place.clone}", True)

    @staticmethod
    def _on_device(device: str, own: bool) -> Restored:
        """Wait for a device, and see what is on it."""
        deadline = time.monotonic() + TIMEOUT
        while not os.path.exists(device):
            if time.monotonic() > deadline:
                reason = f"it has not come within {TIMEOUT:g} s"
                raise RestorePointError(f"open {device}", reason, "look whether udev runs")
            time.sleep(0.1)
        return Restored(device=device, source=device, fstype=opened.filesystem_of(device, TIMEOUT), own=own)

    def _backend(self, **given: Any) -> Any:
        return engine(self.place.backend).backend_of({**self.place.params, **given}, self._now, None)

    def _clone(self, **given: Any) -> None:
        """Let the backend make the clone, with all that it looks at before it touches anything."""
        backend = self._backend(**given)
        clones = {self.place.target: self.place.clone}
        desired = Desired(state="cloned", name=self.place.snapshot, owner=self._owner, clones=clones)
        backend.check(desired)
        reach = Reach(backend, desired, self._now)
        with backend.session(True):
            reach.plan()
            reach.check()
            try:
                reach.carry_out(AuditLog(None, current_user()), False, self._shield)
            except RunFailed as error:
                raise error.cause from error

    def mount(self, restored: Restored, executable: bool, writable: bool) -> Restored:
        """Mount what was laid out as a filesystem; others are returned as they are. Raises RestorePointError."""
        if restored.path or not restored.source:
            return restored
        if not restored.fstype:
            raise RestorePointError(
                f"look into {restored.device}", "there is no filesystem on it that blkid knows", "check it by a command"
            )
        options = opened.mount_options(
            restored.fstype, writable=writable and restored.own, executable=executable, untouched=not restored.own
        )
        opened.mount(restored.source, self.place.folder, restored.fstype, options, TIMEOUT)
        return dataclasses.replace(restored, path=self.place.folder)

    def release(self) -> None:
        """Unmount it. Raises RestorePointError that names who uses it."""
        opened.release(self.place.folder, TIMEOUT)

    # -- taking away ---------------------------------------------------------------------------------------------------

    def remove(self) -> None:
        """Take the place away, as far as it is there. Raises RestorePointError where something of it has to stay."""
        place = self.place
        if place.folder:
            self.release()
        if place.backend in _STORED:
            self._remove_stored()
        elif place.backend == "zfs":
            self._remove_dataset()
        elif place.backend == "lvm" and place.clone:
            self._remove_volume()
        elif place.backend == "csi":
            self._remove_claim()
        if place.folder and self._own_folder():
            with contextlib.suppress(FileNotFoundError):
                self._tried(lambda: os.rmdir(place.folder))

    def _own_folder(self) -> bool:
        """Say whether the folder is there; raise where it is not the one that was made, or something hangs in it."""
        try:
            found = os.lstat(self.place.folder)
        except FileNotFoundError:
            return False
        attempt = f"remove {self.place.folder}"
        if self.place.inode is None:
            # A kill between mkdir and the note: then it is empty, and rmdir proves it.
            return True
        if found.st_ino != self.place.inode:  # devices have other numbers after a reboot
            raise RestorePointError(attempt, "it is not the one that the drill has made", _FORBIDDEN)
        inside = mounts.below(mounts.read_mounts(), os.path.realpath(self.place.folder))
        if inside:
            raise RestorePointError(attempt, f"something is mounted at {inside[0]}", f"run `umount {inside[0]}`")
        return True

    def _tried(self, call: Callable[[], None]) -> None:
        try:
            call()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise RestorePointError(f"remove {self.place.folder}", str(error.strerror), _FORBIDDEN) from error

    def _remove_stored(self) -> None:
        """Let the store end what a kill has left of the copying; then remove the folder's content."""
        from ..backends.stored.remove import opened as directory
        from ..backends.stored.returning import remove_with_subvolumes

        if not os.path.lexists(self.place.folder):
            return
        backend = self._backend()
        if backend.store.exists():
            with backend.session(True):
                pass
        if self.place.inode is None or not self._own_folder():
            return

        def empty() -> None:
            with directory(self.place.folder) as fd:
                for name in os.listdir(fd):
                    remove_with_subvolumes(fd, name, self.place.folder)

        self._tried(empty)

    def _remove_dataset(self) -> None:
        from ..backends.zfs.tool import Zfs

        zfs, clone = Zfs(self.place.params["timeout"]), self.place.clone
        attempt = f"remove the clone {clone}"
        rows = zfs.list_those_there(("name", "origin", PROPERTY), [clone], attempt)
        if not rows:
            return
        ((_name, origin, token),) = rows
        if token != self.place.token or not (origin == self.place.of or origin.endswith(f"@{self.place.snapshot}")):
            raise RestorePointError(attempt, f"it is no clone of {self.place.of} by this drill", _FORBIDDEN)
        zfs.run("destroy", clone, attempt=attempt)

    def _remove_volume(self) -> None:
        from ..backends.lvm import tags

        backend, attempt = self._backend(), f"remove the clone {self.place.clone}"
        vg, _slash, lv = self.place.clone.partition("/")
        with backend.session(True):
            volume = backend.lvm.report([vg]).find(vg, lv)
            if volume is None:
                return
            if (volume.record(tags.CLONE) or {}).get("uuid") != self.place.of:
                reason = f"its tags do not call it a clone of {self.place.snapshot}"
                raise RestorePointError(attempt, reason, _FORBIDDEN)
            backend.lvm.change("lvremove", self.place.clone, attempt=attempt)

    def _remove_claim(self) -> None:
        from ..backends.csi.objects import CLONE_OF, annotations_of
        from ..kube import KubeClient
        from ..kube_login import log_in_alone
        from ..kube_resources import CLAIMS

        params, clone = self.place.params, self.place.clone
        client = KubeClient(
            {"kubeconfig": params["kubeconfig"], "context": params["context"]}, patience=30.0, log_in=log_in_alone
        )
        namespace, attempt = params["namespace"][0], f"remove the claim {params['namespace'][0]}/{clone}"
        deadline, asked = time.monotonic() + params["timeout"], False
        while True:
            found = client.find(attempt, CLAIMS, namespace, clone)
            if found is None:
                return
            if CLONE_OF not in annotations_of(found):
                raise RestorePointError(attempt, "it is not annotated as a clone", _FORBIDDEN)
            if not asked:
                client.delete(attempt, CLAIMS, namespace, clone, found["metadata"]["uid"])
                asked = True
            if time.monotonic() > deadline:
                reason = f"it was asked to go, and is still there after {params['timeout']} s"
                raise RestorePointError(attempt, reason, "look for a pod that still uses it")
            time.sleep(0.5)


def check_filesystem(restored: Restored, timeout: float) -> str:
    """Check the filesystem on a device, which is not mounted, without writing to it; return what is wrong, or "".

    e2fsck(8) ends with 4 and xfs_repair(8) with 1 where something is. Raises RestorePointError where it cannot run.
    """
    device, attempt = restored.device, f"check the filesystem on {restored.device}"
    known = {
        **dict.fromkeys(("ext2", "ext3", "ext4"), (["e2fsck", "-f", "-n", device], 4)),
        "xfs": (["xfs_repair", "-n", device], 1),
        "vfat": (["fsck.vfat", "-n", device], 1),
        "btrfs": (["btrfs", "check", "--readonly", device], 1),
    }
    if restored.fstype not in known:
        kind = restored.fstype or "no known one"
        raise RestorePointError(attempt, f"it is {kind}, of which no check is known here", "leave fsck out")
    argv, bad = known[restored.fstype]
    done = process.run(argv, timeout=timeout, attempt=attempt, remedy="install the tools of it", ok=(0, bad))
    if not done.rc:
        return ""
    words = [line.strip() for line in (*done.stdout.splitlines(), *done.stderr.splitlines()) if line.strip()]
    return f"{argv[0]} finds faults in the filesystem: {'; '.join(words[-4:])[-500:]}"
