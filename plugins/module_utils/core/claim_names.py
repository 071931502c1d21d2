# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The names of claims and their namespaces, as a caller asks for them: what can be one, and which are there. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .errors import InvalidInput

#: What Kubernetes lets objects be called: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_NAMESPACE = re.compile(_LABEL)
_OBJECT = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_MOST_NAMES = 20


def is_object_name(name: str) -> bool:
    """Say whether an object can be called that, a claim or a volume."""
    return len(name) <= 253 and _OBJECT.fullmatch(name) is not None


def check_request(namespace: str, names: Sequence[str], selector: str | None) -> list[str]:
    """Return the names asked for, each once and in their order; raise InvalidInput for what no cluster can hold."""
    attempt = f"look up claims in namespace {namespace!r}"
    if len(namespace) > 63 or not _NAMESPACE.fullmatch(namespace):
        raise InvalidInput(attempt, "that is no name of a namespace", "use a-z, 0-9 and '-', at most 63 of them")
    for name in names:
        if not is_object_name(name):
            raise InvalidInput(attempt, f"{name!r} is no name of a claim", "use a-z, 0-9, '-' and '.' only")
    if names and selector:
        raise InvalidInput(attempt, "both names and a selector are given", "give one of them")
    return list(dict.fromkeys(names))


def missing_claim(namespace: str, name: str, existing: Iterable[str]) -> InvalidInput:
    """Return the error for a claim that is not there, with the names that are."""
    names = sorted(existing)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    listed = ", ".join(names[:_MOST_NAMES]) + more
    return InvalidInput(
        f"find claim {namespace}/{name}",
        "there is no such claim",
        f"choose one of those in the namespace: {listed}" if names else "check the name and the namespace",
    )
