# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of datasets, snapshots, bookmarks and holds: ZFS's own rule, and ours on top of it. Pure.

The rule is that of OpenZFS's zfs_namecheck.c (entity_namecheck, pool_namecheck) and zfsconcepts(7): letters, digits and
``-_.: ``, no empty component, none called ``.`` or ``..``, at most 255 bytes with everything that belongs to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ...core.errors import InvalidInput
from ...core.names import is_aside

#: ZFS_MAX_DATASET_NAME_LEN is 256, with the NUL at the end.
LONGEST = 255
#: What a snapshot is called while a new one takes its name.
OLD = "restorepoint-old-"

_COMPONENT = re.compile(r"[A-Za-z0-9_.: -]+")
_POOL = re.compile(r"[A-Za-z][A-Za-z0-9_.: -]*")
_RULE = "ZFS has letters, digits, '-', '_', '.', ':' and blanks in names"


def check_dataset(name: str) -> str:
    """Return the name of a dataset if ZFS could have one of that name; raise InvalidInput if not."""
    attempt = f"use {name!r} as a dataset"
    if "@" in name or "#" in name:
        raise InvalidInput(attempt, "it names a snapshot or bookmark", "give the dataset, and the snapshot as name")
    if name.startswith("/"):
        raise InvalidInput(attempt, "it is a path", "give its name, such as tank/data, as `zfs list` shows it")
    pool, *rest = name.split("/")
    if not _POOL.fullmatch(pool) or not all(_is_component(each) for each in rest):
        raise InvalidInput(attempt, _RULE, "give the name as `zfs list` shows it")
    _check_length(attempt, name)
    return name


def check_snapshot(name: str) -> str:
    """Return the part of a snapshot's name after the @ if ZFS could have it; raise InvalidInput if not."""
    attempt = f"use {name!r} as the name of a snapshot"
    if "@" in name or "/" in name:
        raise InvalidInput(attempt, "it is more than the part after the @", "give that part alone")
    if not _is_component(name):
        raise InvalidInput(attempt, _RULE, "choose such a name")
    _check_length(attempt, name)
    return name


def check_new_snapshot(name: str) -> str:
    """Return a name for a new snapshot; raise InvalidInput where it could not be used, or means something else here."""
    check_snapshot(name)
    if is_aside(name):
        raise InvalidInput(
            f"take a snapshot called {name!r}", "such names mean what a return has set aside", "choose another name"
        )
    if name.startswith(OLD):
        raise InvalidInput(
            f"take a snapshot called {name!r}", "such names are for snapshots that are being replaced", "choose another"
        )
    return name


def check_bookmark(name: str) -> str:
    """Return the part of a bookmark's name after the # if ZFS could have it; raise InvalidInput if not."""
    attempt = f"use {name!r} as the name of a bookmark"
    if not _is_component(name):
        raise InvalidInput(attempt, _RULE, "choose such a name, without the # and what comes before it")
    _check_length(attempt, name)
    return name


def check_tag(tag: str) -> str:
    """Return the tag of a hold if ZFS could have it (ZAP_MAXNAMELEN, no tab or newline); raise InvalidInput if not.

    Tags that begin with a dot are those of ZFS itself (``.send-...``).
    """
    attempt = f"use {tag!r} as the tag of a hold"
    if not tag or not tag.isprintable() or len(tag.encode("utf-8", "surrogateescape")) > LONGEST:
        raise InvalidInput(attempt, "it is empty, too long, or holds what cannot be printed", "choose another one")
    if tag.startswith((".", "-")):
        raise InvalidInput(attempt, "ZFS has such tags for itself, or takes them for options", "choose another one")
    return tag


def check_together(dataset: str, *ends: str) -> None:
    """Raise InvalidInput where a dataset's name with one of these ends (``@name``) would be longer than ZFS allows."""
    for end in ends:
        _check_length(f"use the name {dataset}{end}", dataset + end)


def pool_of(dataset: str) -> str:
    """Return the pool that a dataset, snapshot or bookmark lies in."""
    return re.split("[/@#]", dataset, maxsplit=1)[0]


def is_inside(dataset: str, root: str) -> bool:
    """Say whether a dataset is ``root`` or lies below it."""
    return dataset == root or dataset.startswith(root + "/")


def _is_component(text: str) -> bool:
    return bool(_COMPONENT.fullmatch(text)) and text not in (".", "..")


def _check_length(attempt: str, name: str) -> None:
    if len(name) > LONGEST:
        raise InvalidInput(attempt, f"it has {len(name)} characters, and ZFS allows {LONGEST}", "choose a shorter name")


def tops(targets: Sequence[str]) -> list[str]:
    """Return the outermost of these datasets: all below them move with them."""
    wanted = set(targets)
    return sorted(name for name in wanted if not any(above in wanted for above in _above(name)))


def _above(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name
