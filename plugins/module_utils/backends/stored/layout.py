# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What things are called in a store, and which names a snapshot may have. No I/O.

    <store>/.restorepoint-store.json     says that this is a store, and of which format
    <store>/.lock
    <store>/.journal.json                a batch of renames that counts as done (see store.py)
    <store>/<target>/.target.json        which directory this is about
    <store>/<target>/<name>/             a snapshot: the tree itself
    <store>/<target>/<name>.json         its metadata
    <store>/<target>/<name>.manifest     its manifest (directories)
    <store>/<target>/<name>.nested/      the subvolumes inside it, each a snapshot of its own (btrfs)
    <store>/<target>/.new-<id>...        in the making
    <store>/<target>/.old-<id>...        on its way out
    <store>/<target>/.pending-<id>.json  a return or a clone that is under way beside the target
    <store>/<target>/.aside-<time>.json  content that a return has set aside
    <store>/<target>/.returned.json      the last return, and .returned.manifest: what it made
    <store>/<target>/.tokens.json        the `once` tokens that were used up
    <store>/<target>/.clones.json        what was cloned, and where to

``docs/store-format.md`` says the same for people.
"""

from __future__ import annotations

import hashlib
import os
import re

from ...core.errors import InvalidInput
from ...core.names import is_aside

FORMAT = 1
MARKER = ".restorepoint-store.json"
LOCK = ".lock"
JOURNAL = ".journal.json"
TARGET = ".target.json"
RETURNED = ".returned"
TOKENS = ".tokens.json"
CLONES = ".clones.json"
NEW = ".new-"
OLD = ".old-"
PENDING = ".pending-"
ASIDE = ".aside-"
#: What a run makes beside a target, or in the root of one that is a mount point; never part of a snapshot.
STAGING = ".restorepoint-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
#: What lies beside the tree of a snapshot, under its name and one of these.
NESTED = ".nested"
BESIDE = (".manifest", NESTED)
_SUFFIXES = (".json", *BESIDE)
_UNREADABLE = re.compile(r"[^A-Za-z0-9.+]+")
_READABLE_LENGTH = 80


def check_name(name: str) -> str:
    """Return ``name`` if a snapshot may have it; raise InvalidInput if not."""
    attempt = f"use {name!r} as the name of a snapshot"
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            attempt,
            "it must be 1 to 128 characters of A-Z, a-z, 0-9 and '._+-', beginning with a letter or a digit",
            "choose such a name",
        )
    if name.endswith(_SUFFIXES):
        raise InvalidInput(
            attempt,
            "the store keeps metadata under names that end in .json, .manifest and .nested",
            "rename it",
        )
    return name


def check_new_name(name: str) -> str:
    """Return ``name`` if a new snapshot may have it: not one of content that was set aside."""
    if is_aside(name):
        raise InvalidInput(
            f"take a snapshot called {name!r}", "such names mean what a return has set aside", "choose another name"
        )
    return check_name(name)


def folder_name(path: str) -> str:
    """Return the folder of a target in a store: readable, and no other path's (16 hex digits of its SHA-256)."""
    readable = _UNREADABLE.sub("-", path).strip("-.")[-_READABLE_LENGTH:].lstrip("-.")
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return f"{readable}-{digest}" if readable else digest
