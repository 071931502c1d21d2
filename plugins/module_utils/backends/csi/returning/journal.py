# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an in-place return writes on volumes, and how it is read again: strictly. Pure; called by the rest of it.

Labels say which volumes have a part in it, and which. The journal, an annotation on the old volume and on the new one,
holds all that is needed to complete the return without the claim: it is there as long as the return is unfinished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ....core.errors import StoreError
from ....core.names import is_aside
from .. import objects

#: Labels of volumes. NAMESPACE is the one to list by.
NAMESPACE = objects.PREFIX + "namespace"
RETURN = objects.PREFIX + "return"
ROLE = objects.PREFIX + "role"
STAGE = objects.PREFIX + "stage"
#: Annotations of volumes. ONCE lies on the volume of the claim, and goes over to the next one.
JOURNAL = objects.PREFIX + "journal"
ASIDE = objects.PREFIX + "aside"
ONCE = objects.PREFIX + "once"
TEMPORARY = objects.PREFIX + "temporary"

OLD, NEW, LIVE, KEPT = "old", "new", "live", "aside"
PREPARING, SWAPPING, CALLING_OFF, REMOVING = "preparing", "swapping", "calling-off", "removing"
#: Modes: from a snapshot, or the volume of an aside comes back.
BY_SNAPSHOT, BY_ASIDE = "return", "undo"
_VERSION = 1
#: So many tokens are remembered for a claim, the newest ones.
_MOST_TOKENS = 50


@dataclass(frozen=True)
class Journal:
    """All that an unfinished return has to know.

    Args:
        id: names the return; it begins with the id of its call, see ``id_for``.
        mode: BY_SNAPSHOT or BY_ASIDE.
        claim, claim_uid, spec, labels, annotations, owners: the claim as it was.
        old: the volume that it was bound to, and ``policy`` its reclaim policy.
        source, source_uid: the object name and uid of the VolumeSnapshot, or the name and uid of the aside's volume.
        name: what the snapshot or aside is called in results.
        new_ref: by an aside: the claimRef that its volume had.
        temporary: by a snapshot: the name of the claim through which the new volume is made.
        size: bytes that the new volume must have.
        node: the node on which it has to be made, where that matters.
        at: when the return began, in seconds since the epoch. ``until``: when the run that began it gives up, if it
            lives. ``aside`` is what the old volume is called afterwards.
        keep: whether the old volume is kept.
        once: the token of this return. ``tokens`` are those used before, with the time.
    """

    id: str
    mode: str
    namespace: str
    claim: str
    claim_uid: str
    old: str
    policy: str
    source: str
    source_uid: str
    name: str
    size: int
    at: int
    until: int
    aside: str
    temporary: str
    spec: Mapping[str, Any]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owners: tuple[Mapping[str, Any], ...] = ()
    new_ref: Mapping[str, Any] = field(default_factory=dict)
    node: str = ""
    keep: bool = True
    once: str = ""
    tokens: Mapping[str, int] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """The claim as targets are written."""
        return f"{self.namespace}/{self.claim}"

    @property
    def run(self) -> str:
        """The id of the call that began it."""
        return self.id.partition("-")[0]

    @property
    def spent(self) -> dict[str, int]:
        """The tokens that are used up once this return is done."""
        return newest({**self.tokens, **({self.once: self.at} if self.once else {})})


def id_for(run: str, claim: str) -> str:
    """Return the id of the return of one claim in a call, valid as a label's value whatever the claim is called."""
    return f"{run}-{hashlib.sha256(claim.encode()).hexdigest()[:10]}"


def as_text(journal: Journal) -> str:
    """Return a journal as the text of an annotation."""
    content = {"version": _VERSION, **asdict(journal), "owners": [dict(each) for each in journal.owners]}
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def read(volume: Mapping[str, Any]) -> Journal | None:
    """Return the journal on a volume, None where there is none.

    Raises:
        StoreError: something is there that is no journal of this version.
    """
    text = _annotations(volume).get(JOURNAL)
    if text is None:
        return None
    content = _parsed(volume, text, JOURNAL)
    if content.pop("version", None) != _VERSION:
        raise _unreadable(volume, JOURNAL, f"it is not of version {_VERSION}")
    known = {each.name: each.type for each in fields(Journal)}
    if set(content) != set(known):
        odd = ", ".join(sorted(set(content) ^ set(known)))
        raise _unreadable(volume, JOURNAL, f"its members are not those of a journal ({odd})")
    for name, kind in known.items():
        if not _fits(content[name], str(kind)):
            raise _unreadable(volume, JOURNAL, f"{name} is {content[name]!r}")
    journal = Journal(**{**content, "owners": tuple(content["owners"])})
    if journal.mode not in (BY_SNAPSHOT, BY_ASIDE) or not is_aside(journal.aside):
        raise _unreadable(volume, JOURNAL, f"mode {journal.mode!r} or aside {journal.aside!r} is unknown")
    return journal


def _fits(value: Any, kind: str) -> bool:
    if kind == "str":
        return isinstance(value, str)
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "int":
        return _whole(value)
    if kind.startswith("tuple"):
        return isinstance(value, list) and all(isinstance(each, dict) for each in value)
    if not isinstance(value, dict):
        return False
    if kind == "Mapping[str, str]":
        return all(isinstance(each, str) for each in value.values())
    return kind != "Mapping[str, int]" or all(_whole(each) for each in value.values())


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


@dataclass(frozen=True)
class Kept:
    """What an aside's volume tells of itself: its name, the claim it was the volume of, since when, and why."""

    name: str
    namespace: str
    claim: str
    at: int
    returned_to: str


def kept_text(kept: Kept) -> str:
    """Return it as the text of an annotation."""
    return json.dumps(asdict(kept), sort_keys=True, separators=(",", ":"))


def read_kept(volume: Mapping[str, Any]) -> Kept | None:
    """Return what an aside's volume tells of itself; None for a volume that is no aside.

    Raises:
        StoreError: the volume's label says that it is one, and its annotation cannot be read.
    """
    if role_of(volume) != KEPT:
        return None
    content = _parsed(volume, _annotations(volume).get(ASIDE, ""), ASIDE)
    known = {each.name: str(each.type) for each in fields(Kept)}
    if set(content) != set(known) or not all(_fits(content[name], kind) for name, kind in known.items()):
        raise _unreadable(volume, ASIDE, "its members are not those of an aside")
    if not is_aside(content["name"]):
        raise _unreadable(volume, ASIDE, f"{content['name']!r} is no aside's name")
    return Kept(**content)


def tokens_of(volume: Mapping[str, Any] | None) -> dict[str, int]:
    """Return the ``once`` tokens that were used on the claim of a volume, with the times (seconds since the epoch).

    Raises:
        StoreError: the annotation cannot be read. To take it for empty would return a second time.
    """
    text = _annotations(volume or {}).get(ONCE)
    if volume is None or text is None:
        return {}
    content = _parsed(volume, text, ONCE)
    if not all(_whole(each) for each in content.values()):
        raise _unreadable(volume, ONCE, "a time in it is no number")
    return content


def tokens_text(tokens: Mapping[str, int]) -> str:
    """Return tokens as the text of an annotation."""
    return json.dumps(newest(tokens), sort_keys=True, separators=(",", ":"))


def newest(tokens: Mapping[str, int]) -> dict[str, int]:
    """Return the newest tokens, as many as are remembered."""
    return dict(sorted(tokens.items(), key=lambda each: (each[1], each[0]))[-_MOST_TOKENS:])


def role_of(volume: Mapping[str, Any]) -> str | None:
    """Return the part that a volume has in a return, or had: OLD, NEW, LIVE or KEPT."""
    return _labels(volume).get(ROLE)


def stage_of(volume: Mapping[str, Any]) -> str | None:
    """Return how far a return has come, from its old volume."""
    return _labels(volume).get(STAGE)


def id_of(volume: Mapping[str, Any]) -> str | None:
    """Return the id of the return that a volume has, or had, a part in."""
    return _labels(volume).get(RETURN)


def _labels(item: Mapping[str, Any]) -> Mapping[str, str]:
    return (item.get("metadata") or {}).get("labels") or {}


def _annotations(item: Mapping[str, Any]) -> Mapping[str, str]:
    return (item.get("metadata") or {}).get("annotations") or {}


def _parsed(volume: Mapping[str, Any], text: str, where: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise _unreadable(volume, where, str(error)) from None
    if not isinstance(content, dict):
        raise _unreadable(volume, where, "it is not a JSON object")
    return content


def _unreadable(volume: Mapping[str, Any], where: str, reason: str) -> StoreError:
    name = (volume.get("metadata") or {}).get("name")
    remedy = "see what somebody has changed there; the runbook says how to complete a return by hand"
    return StoreError(f"read annotation {where} of volume {name}", reason, remedy)
