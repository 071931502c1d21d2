# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What there is to watch of one target: a few numbers in the place of a list of snapshots. Pure.

A host may have a hundred thousand snapshots. Whoever watches wants to know how many there are, how old the newest
usable one is, and whether the keep rules hold. Called by the agent for its metrics, by the process that lists them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from .backend import Desired, Situation
from .plan import point
from .retention import FUTURE_TOLERANCE, RULES, RetentionPolicy, decide
from .snapshot import Snapshot

#: Whose snapshots there are: the policy's own, those taken by hand, and all others.
OWN, MANUAL, OTHER = "policy", "manual", "other"
#: What a rule has kept is called so in its decisions: ``daily 3/7``.
_SLOT = re.compile(rf"({'|'.join(RULES)}) [0-9]+/")
_STOPPED = "not removed ("


@dataclass(frozen=True)
class Survey:
    """One target of one policy, in numbers.

    ``owners`` counts all snapshots by whose they are. The rest is about the policy's own: ``oldest`` and ``newest`` are
    of those that are usable and not dated in the future, in seconds since the epoch, 0 where there is none. ``kept``
    counts the filled slots of each keep rule. ``overdue`` counts what the rules did not keep when they were last to be
    applied, and is there all the same. ``ahead_seconds`` is how far in the future the latest date lies. ``size_bytes``
    is what removing them would free, as far as it is known; of ``size_unknown`` it is not. ``fullest`` is the fill of
    the fullest snapshot that is lost when it overflows, as a ratio, or None.
    """

    target: str
    owners: Mapping[str, int] = field(default_factory=dict)
    not_ready: int = 0
    held: int = 0
    in_use: int = 0
    ahead: int = 0
    overdue: int = 0
    asides: int = 0
    size_bytes: int = 0
    size_unknown: int = 0
    oldest: int = 0
    newest: int = 0
    ahead_seconds: int = 0
    kept: Mapping[str, int] = field(default_factory=dict)
    fullest: float | None = None


def survey(
    situation: Situation, owner: str, retention: RetentionPolicy, match: Sequence[str], now: int, due: int
) -> Survey:
    """Return a target in numbers.

    Args:
        situation: what the backend says is there.
        owner: the policy's name.
        retention, match: its keep rules, and what else than its own they apply to.
        now: seconds since the epoch.
        due: when the keep rules were last to be applied, the same.
    """
    own = [each for each in situation.snapshots if each.owner == owner]
    usable = [each.created for each in own if each.ready and each.created <= now + FUTURE_TOLERANCE]
    latest = max((each.created for each in own), default=now)
    fills = [fill for each in situation.snapshots if (fill := _fill(each)) is not None]
    desired = Desired(state="pruned", owner=owner, match=tuple(match))
    points = [point(desired, each, True) for each in situation.snapshots]
    kept: Counter[str] = Counter()
    overdue = 0
    if not retention.has_no_rule and points:
        reasons = [each.reason for each in decide(points, retention, now).decisions]
        kept.update(found.group(1) for found in map(_SLOT.match, reasons) if found)
        earlier = decide(points, retention, min(due, now)).decisions
        overdue = sum(not each.keep or each.reason.startswith(_STOPPED) for each in earlier)
    return Survey(
        target=situation.target.partition(":")[2],
        owners=_owners(situation.snapshots, owner),
        not_ready=sum(not each.ready for each in own),
        held=sum(each.held is not None for each in own),
        in_use=sum(each.in_use is not None for each in own),
        ahead=sum(each.created > now + FUTURE_TOLERANCE for each in own),
        overdue=overdue,
        asides=len(situation.asides),
        size_bytes=sum(each.size_bytes or 0 for each in own),
        size_unknown=sum(each.size_bytes is None for each in own),
        oldest=min(usable, default=0),
        newest=max(usable, default=0),
        ahead_seconds=max(0, latest - now),
        kept={rule: kept[rule] for rule, _limit in retention.rules},
        fullest=max(fills, default=None),
    )


def _owners(snapshots: Iterable[Snapshot], owner: str) -> dict[str, int]:
    names = {owner: OWN, "manual": MANUAL}
    found = Counter(names.get(each.owner or "", OTHER) for each in snapshots)
    return {name: found[name] for name in (OWN, MANUAL, OTHER)}


def _fill(snapshot: Snapshot) -> float | None:
    """Return how full a thick LVM snapshot is; None for what cannot overflow by itself."""
    percent = snapshot.extra.get("fill_percent")
    return percent / 100 if snapshot.extra.get("type") == "thick" and isinstance(percent, (int, float)) else None


def merged(surveys: Sequence[Survey], target: str) -> Survey:
    """Return several targets as one of that name: counts are added, and of all else the worst counts.

    The newest snapshot of many targets is that of the one that waits longest; a rule is as full as it is where it is
    emptiest.
    """
    if not surveys:
        return Survey(target)
    rules = {rule for each in surveys for rule in each.kept}
    fills = [each.fullest for each in surveys if each.fullest is not None]
    oldest = [each.oldest for each in surveys if each.oldest]
    added = {
        name: sum(getattr(each, name) for each in surveys)
        for name in ("not_ready", "held", "in_use", "ahead", "overdue", "asides", "size_bytes", "size_unknown")
    }
    return Survey(
        target=target,
        owners={name: sum(each.owners.get(name, 0) for each in surveys) for name in (OWN, MANUAL, OTHER)},
        oldest=min(oldest, default=0),
        newest=min(each.newest for each in surveys),
        ahead_seconds=max(each.ahead_seconds for each in surveys),
        kept={rule: min(each.kept.get(rule, 0) for each in surveys) for rule in RULES if rule in rules},
        fullest=max(fills, default=None),
        **added,
    )


def from_fields(data: Mapping[str, Any]) -> Survey:
    """Return a survey from its fields, such as another process has sent them."""
    return Survey(**{each.name: data[each.name] for each in fields(Survey) if each.name in data})
