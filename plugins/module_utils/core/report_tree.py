# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In which order snapshots with parents are shown: the newest first, and branches beside what they left. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def branches(snapshots: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], int]]:
    """Return each snapshot once, with how many branches it lies away from the line of its newest descendant.

    ``snapshots`` are of one target, the newest first. Those without parents that are there stay in that order. A parent
    that is its own descendant, as no storage has one, counts as none.
    """
    parents, children = _family(snapshots)
    if not any(each is not None for each in parents):
        return [(each, 0) for each in snapshots]
    order = _from_roots(parents, children)
    reached = set(order)
    tips = list(range(len(snapshots)))
    for number in reversed(order):
        tips[number] = min([number, *(tips[child] for child in children[number])])
    for number in order:
        children[number].sort(key=tips.__getitem__)
    roots = [number for number in range(len(snapshots)) if parents[number] is None or number not in reached]
    lost = {number for number in range(len(snapshots)) if number not in reached}
    found: list[tuple[Mapping[str, Any], int]] = []
    work = [(number, 0, True) for number in sorted(roots, key=tips.__getitem__, reverse=True)]
    while work:
        number, depth, whole = work.pop()
        if not whole or number in lost:
            found.append((snapshots[number], depth))
            continue
        work += _line(number, depth, children)
    return found


def _family(snapshots: Sequence[Mapping[str, Any]]) -> tuple[list[int | None], list[list[int]]]:
    """Return the place of each one's parent, and of its children."""
    places = {each["name"]: number for number, each in reversed(list(enumerate(snapshots)))}
    parents = [places.get(each["parent"]) if each["parent"] else None for each in snapshots]
    children: list[list[int]] = [[] for _unused in snapshots]
    for number, parent in enumerate(parents):
        if parent is not None:
            children[parent].append(number)
    return parents, children


def _from_roots(parents: Sequence[int | None], children: Sequence[Sequence[int]]) -> list[int]:
    """Return all that have an end of their line, parents before children."""
    found = [number for number, parent in enumerate(parents) if parent is None]
    for number in found:
        found += children[number]
    return found


def _line(root: int, depth: int, children: Sequence[Sequence[int]]) -> list[tuple[int, int, bool]]:
    """Return the work that shows a line and its branches, the last piece first: it is taken from the end."""
    found: list[tuple[int, int, bool]] = []
    number = root
    while True:
        found.append((number, depth, False))
        found += [(branch, depth + 1, True) for branch in reversed(children[number][1:])]
        if not children[number]:
            return found
        number = children[number][0]
