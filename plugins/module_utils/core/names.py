# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of snapshots: the automatic ones, and what a token or an owner may be called. Pure.

An automatic name, ``{owner}-{UTC time}``, is made once for a whole run and is valid for every backend at once, so that
one restore point has one name everywhere. The strictest rule is Proxmox's (pve-configid, at most 40 characters).
"""

from __future__ import annotations

import datetime
import re

from .errors import InvalidInput

PORTABLE = re.compile(r"[a-z][a-z0-9-]{1,39}")
#: LVM refuses LVs called snapshot* and pvmove*; Proxmox reserves current, pending and vzdump.
RESERVED_PREFIXES = ("snapshot", "pvmove")
RESERVED_WORDS = ("current", "pending", "vzdump")
_TIME = "%Y%m%dt%H%M%Sz"
_LONGEST_OWNER = 40 - len("-20261122t013000z")
ASIDE = re.compile(r"aside-\d{8}t\d{6}z(-\d+)?")


def check_owner(owner: str) -> str:
    """Return ``owner`` if automatic names can begin with it on every backend; raise InvalidInput if not."""
    attempt = f"use {owner!r} as an owner"
    if not PORTABLE.fullmatch(owner) or len(owner) > _LONGEST_OWNER:
        raise InvalidInput(
            attempt,
            f"it must be 2 to {_LONGEST_OWNER} characters of a-z, 0-9 and '-', beginning with a letter",
            "choose such a name",
        )
    if owner.startswith(RESERVED_PREFIXES) or owner in RESERVED_WORDS:
        raise InvalidInput(attempt, "LVM or Proxmox VE reserves that name", "choose another one")
    return owner


def stamp(epoch: int) -> str:
    """Return a moment as names carry it: ``20261122t013000z`` (UTC)."""
    return datetime.datetime.fromtimestamp(epoch, tz=datetime.timezone.utc).strftime(_TIME)


def automatic_name(owner: str, epoch: int) -> str:
    """Return ``{owner}-{UTC time}``, valid on every backend; raise InvalidInput for an owner that cannot be used."""
    return f"{check_owner(owner)}-{stamp(epoch)}"


def aside_name(epoch: int) -> str:
    """Return what content set aside at that moment is called."""
    return f"aside-{stamp(epoch)}"


def is_aside(name: str) -> bool:
    """Say whether a name means content that was set aside by a return."""
    return ASIDE.fullmatch(name) is not None
