# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of volumes: how a caller may write them, and what LVM accepts. Pure. Called by the bridge and the backend.

The rules are those of LVM 2.03 (lvm(8), "VALID NAMES", and what its tools refuse when tried): the characters, the
reserved beginnings and parts, and two lengths. ``vg/lv`` has at most 127 characters, and so has the name that the
device mapper gets, in which each hyphen of a name stands twice and to which LVM adds an ending such as ``-cow``.
"""

from __future__ import annotations

import re

from ...core.errors import InvalidInput

_CHARACTERS = re.compile(r"[A-Za-z0-9+_.][A-Za-z0-9+_.-]*")
_RESERVED_PREFIXES = ("snapshot", "pvmove")
#: LVM's own sub-volumes; a name that holds one of these anywhere is refused by its tools.
_RESERVED_PARTS = (
    "_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_imeta", "_iorig", "_mimage", "_mlog", "_pmspare", "_rimage",
    "_rmeta", "_tdata", "_tmeta", "_tpool", "_vdata", "_vorigin", "_vpool", "_wcorig",
)  # fmt: skip
LONGEST = 127
_LONGEST_ENDING = len("-tpool")
_DEV, _MAPPER = "/dev/", "/dev/mapper/"


def parse_volume(text: str) -> tuple[str, str]:
    """Return (vg, lv) of a volume written as ``vg/lv``, ``/dev/vg/lv`` or ``/dev/mapper/vg-lv``. Raises InvalidInput.

    Nothing is looked up: a link to such a device has to be resolved by who has one.
    """
    if text.startswith(_MAPPER):
        vg, lv = _from_mapper(text)
    else:
        plain = text[len(_DEV) :] if text.startswith(_DEV) else text
        vg, slash, lv = plain.partition("/")
        if not slash or "/" in lv or (text.startswith("/") and not text.startswith(_DEV)):
            raise _not_a_volume(text, "it is not of the form vg/lv")
    for name in (vg, lv):
        fault = _fault(name)
        if fault is not None:
            raise _not_a_volume(text, f"{name!r} {fault}")
    return vg, lv


def _from_mapper(text: str) -> tuple[str, str]:
    """Split a device mapper name at its only single hyphen: inside a name each hyphen stands twice."""
    parts = re.split(r"(?<!-)-(?!-)", text[len(_MAPPER) :].replace("--", "\0"))
    if len(parts) != 2:
        raise _not_a_volume(text, "it is not the device mapper name of a logical volume")
    vg, lv = (part.replace("\0", "-") for part in parts)
    return vg, lv


def mapper_name(vg: str, lv: str) -> str:
    """Return what the device mapper calls a volume."""
    return f"{vg.replace('-', '--')}-{lv.replace('-', '--')}"


def snapshot_lv(lv: str, name: str) -> str:
    """Return the LV name of a snapshot. It is for people: what a snapshot is called and of what is in its tags."""
    return f"{lv}.{name}"


def check_name(name: str) -> str:
    """Return a snapshot's name if it can be part of an LV's; raise InvalidInput if not."""
    if name.startswith("-"):
        fault: str | None = "begins with a hyphen"
    else:
        fault = _fault(name, reserved=False)
    if fault is not None:
        raise InvalidInput(
            f"use {name!r} as the name of a snapshot", f"it {fault}", "use letters, digits and the characters + _ . -"
        )
    return name


def check_new_lv(vg: str, lv: str, purpose: str) -> str:
    """Return the name of an LV that is to be made, if LVM accepts it in that VG. Raises InvalidInput.

    ``purpose`` is what it is for, as a verb phrase.
    """
    fault = _fault(lv)
    if fault is None and len(f"{vg}/{lv}") > LONGEST:
        fault = f"makes {vg}/{lv} {len(f'{vg}/{lv}')} characters long, and LVM takes {LONGEST}"
    mapped = len(mapper_name(vg, lv)) + _LONGEST_ENDING
    if fault is None and mapped > LONGEST:
        fault = f"makes the name for the device mapper {mapped} characters long (a hyphen counts twice) of {LONGEST}"
    if fault is not None:
        raise InvalidInput(purpose, f"the LV name {lv!r} {fault}", "choose a shorter or plainer name")
    return lv


def _fault(name: str, reserved: bool = True) -> str | None:
    """Say what LVM has against the name of a VG or LV, or None."""
    if name in ("", ".", ".."):
        return "is no name"
    if name.startswith("-"):
        return "begins with a hyphen"
    if not _CHARACTERS.fullmatch(name):
        return "has characters other than letters, digits and + _ . -"
    if len(name) > LONGEST:
        return f"is longer than {LONGEST} characters"
    if reserved and name.startswith(_RESERVED_PREFIXES):
        return "begins with a word that LVM reserves (snapshot, pvmove)"
    parts = [part for part in _RESERVED_PARTS if part in name]
    return f"holds {parts[0]}, which LVM reserves" if parts else None


def _not_a_volume(text: str, reason: str) -> InvalidInput:
    return InvalidInput(f"use {text!r} as a volume", reason, "name it as vg/lv, such as vg0/data")
