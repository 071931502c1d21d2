# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Annotations on pods and claims that ask for snapshots: what they mean, and what is due by them. Pure.

    snapshot.alpha.kubernetes.io/frequency: hourly, daily, weekly or monthly
    snapshot.alpha.kubernetes.io/retention: how many stay; without it all do

On a pod they are about every claim that it mounts; those on a claim itself go before. What is due is found from the
snapshots that are there: in each hour, day, week or month that has none yet, one is taken, whenever that is. So a run
that was missed is caught up once, and none is taken twice. Called by agent/annotating.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .periods import Periods

PREFIX = "snapshot.alpha.kubernetes.io/"
FREQUENCY, RETENTION = PREFIX + "frequency", PREFIX + "retention"
#: The most frequent first.
FREQUENCIES = ("hourly", "daily", "weekly", "monthly")
#: The owner of what is taken by annotations.
OWNER = "annotated"
_MOST = 1000
_FINISHED = ("Succeeded", "Failed")

Item = Mapping[str, Any]
#: Namespace and name.
Claim = tuple[str, str]


@dataclass(frozen=True)
class Wish:
    """What is asked for a claim: how often, and how many stay (None: all)."""

    frequency: str
    retention: int | None

    def with_(self, other: Wish) -> Wish:
        """Return what satisfies both."""
        frequency = min(self.frequency, other.frequency, key=FREQUENCIES.index)
        both = (self.retention, other.retention)
        return Wish(frequency, None if None in both else max(each for each in both if each is not None))


@dataclass(frozen=True)
class Fault:
    """What is wrong with the annotations of an object, for an event on it."""

    item: Item
    message: str


@dataclass
class Wishes:
    """What is asked for each claim, and what cannot be understood."""

    claims: dict[Claim, Wish] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def wishes(claims: Iterable[Item], pods: Iterable[Item]) -> Wishes:
    """Return what the annotations of claims and pods ask for.

    Where pods ask for different things of one claim, the most frequent and the longest kept holds, with a fault that
    says so. What has a fault of its own asks for nothing.
    """
    found = Wishes()
    known = {_key(each): each for each in claims if not each["metadata"].get("deletionTimestamp")}
    for pod in sorted(pods, key=_key):
        if not _is_running(pod):
            continue
        wish = _wish(pod, found.faults)
        for name in _claims_of(pod) if wish is not None else ():
            claim = (_key(pod)[0], name)
            before = found.claims.get(claim)
            if claim not in known or wish is None or _asked(known[claim]):
                continue
            found.claims[claim] = wish if before is None else wish.with_(before)
            if before not in (None, wish):
                message = f"another pod asks for other snapshots of claim {name}: {_words(found.claims[claim])} holds"
                found.faults.append(Fault(pod, message))
    for key, claim_item in known.items():
        own = _wish(claim_item, found.faults) if _asked(claim_item) else None
        if own is not None:
            found.claims[key] = own
    return found


def due(wish: Wish, taken: Sequence[int], now: int, timezone: str) -> bool:
    """Say whether a snapshot is to be taken.

    Args:
        taken: when those by annotations were taken; ``now``: both in seconds since the epoch.
        timezone: in which days, weeks and months begin.
    """
    newest = max(taken, default=None)
    if newest is None:
        return True
    if newest >= now:
        return False
    this, last = Periods([now, newest], timezone).of(wish.frequency, [0, 1])
    return this != last


def _key(item: Item) -> Claim:
    return str(item["metadata"].get("namespace")), str(item["metadata"]["name"])


def _is_running(pod: Item) -> bool:
    over = (pod.get("status") or {}).get("phase") in _FINISHED or pod["metadata"].get("deletionTimestamp")
    return not over and _asked(pod)


def _asked(item: Item) -> bool:
    annotations = item["metadata"].get("annotations") or {}
    return FREQUENCY in annotations or RETENTION in annotations


def _claims_of(pod: Item) -> list[str]:
    volumes = (pod.get("spec") or {}).get("volumes") or []
    names = [(each.get("persistentVolumeClaim") or {}).get("claimName") for each in volumes]
    # The claim of an ephemeral volume is called after pod and volume.
    names += [f"{_key(pod)[1]}-{each['name']}" for each in volumes if each.get("ephemeral")]
    return [str(each) for each in dict.fromkeys(names) if each]


def _wish(item: Item, faults: list[Fault]) -> Wish | None:
    """Return what an object's annotations ask for; None, and a fault, where that cannot be understood."""
    annotations = item["metadata"].get("annotations") or {}
    frequency, retention = annotations.get(FREQUENCY), annotations.get(RETENTION)
    if frequency is None:
        faults.append(Fault(item, f"{RETENTION} is set, and {FREQUENCY} is not: no snapshots are taken"))
        return None
    if frequency not in FREQUENCIES:
        message = f"{FREQUENCY} is {_quoted(frequency)}, and has to be one of {', '.join(FREQUENCIES)}"
        faults.append(Fault(item, f"{message}: no snapshots are taken"))
        return None
    if retention is None:
        return Wish(frequency, None)
    text = str(retention)
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= _MOST):
        message = f"{RETENTION} is {_quoted(retention)}, and has to be a number from 1 to {_MOST}"
        faults.append(Fault(item, f"{message}: no snapshots are taken, and none is removed"))
        return None
    return Wish(frequency, int(text))


def _quoted(value: Any) -> str:
    text = str(value)
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _words(wish: Wish) -> str:
    return f"{wish.frequency}, {'all' if wish.retention is None else wish.retention} kept"
