# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A snapshot in the making: hidden files in its target's folder, which a batch of renames makes a snapshot.

Called by the backends that keep their snapshots in a store.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...core.errors import RestorePointError
from . import layout
from .remove import DIRECTORY
from .store import Folder, Rename, discard

#: Who has written the metadata of a snapshot.
TOOL = "restorepoint.core 0.1.0"


@dataclass
class Making:
    """A snapshot in the making."""

    folder: Folder
    label: str  #: the hidden name that its files begin with
    report: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    ends: tuple[str, ...] = (".manifest",)  #: what beside the tree is there of it

    def renames(self, name: str) -> list[Rename]:
        """Return the steps that make it the snapshot ``name``: the tree comes last, and with it the snapshot."""
        return [Rename(f"{self.folder.name}/{self.label}{end}", f"{self.folder.name}/{name}{end}")
                for end in (*self.ends, ".json", "")]  # fmt: skip

    def discard(self) -> None:
        """Remove what there is of it."""
        for end in ("", ".json", *self.ends):
            discard(self.folder.fd, self.label + end, self.folder.path)

    def give_up(self) -> None:
        """Remove what there is of it, after a failure, which no other one may hide: the next run removes the rest."""
        with contextlib.suppress(OSError, RestorePointError):
            self.discard()


def new_file_owner(parent: int, name: str) -> tuple[int, int]:
    """Prepare a new directory of ours for copies; return who owns what is made in it.

    Default ACLs that it inherited would be given to every copy, and so would a group that its parent hands down.
    """
    fd = os.open(name, DIRECTORY, dir_fd=parent)
    try:
        for attribute in ("system.posix_acl_default", "system.posix_acl_access"):
            with contextlib.suppress(OSError):  # there is none, or the filesystem knows none
                os.removexattr(fd, attribute)
        os.fchmod(fd, 0o700)
        if stat.S_IMODE(os.fstat(fd).st_mode) & stat.S_ISGID:
            os.fchown(fd, -1, os.getegid())
        probe = f"{layout.NEW}probe"
        probe_fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=fd)
        try:
            st = os.fstat(probe_fd)
        finally:
            os.close(probe_fd)
            os.unlink(probe, dir_fd=fd)
        return st.st_uid, st.st_gid
    finally:
        os.close(fd)


def remedy(error: OSError, store: str) -> str:
    """Return the way out of an error met while a snapshot was made."""
    known: Mapping[int, str] = {
        28: f"free space on the filesystem of {store}, prune it, or name a store elsewhere",
        122: f"raise the disk quota on the filesystem of {store}, or name a store elsewhere",
        13: "run as root, or as the user that may read all of it",
        1: "run as root, or as the user that may read all of it",
        24: "raise the limit of open files (ulimit -n): a tree so deep needs three for each level",
        5: "the disk reports errors: look at the kernel's log before anything else",
    }
    return known.get(error.errno or 0, "nothing was kept of it; mend that and try again")
