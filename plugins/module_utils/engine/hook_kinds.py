# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hooks of policies for databases and workloads, as far as their keys go. Only data and checks: no I/O.

`policy` reads them; what they do is in agent/. What lies in files that they name is looked at when the policy runs:
policies are read on other machines, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Key:
    """One key of a hook: a text unless it says otherwise. ``path``: it has to be absolute."""

    default: Any = ""
    kind: type = str
    words: str = "a text"
    choices: tuple[str, ...] = ()
    path: bool = False
    needed: bool = False


_PORT = Key(0, int, "a number")
_MYSQL = {
    "defaults_file": Key(path=True),
    "socket": Key(path=True),
    "host": Key(),
    "port": _PORT,
    "user": Key(),
}
#: The keys of each kind, beside ``kind``, ``name`` and ``timeout``.
KINDS: dict[str, dict[str, Key]] = {
    "postgresql": {
        "host": Key(),
        "port": _PORT,
        "database": Key("postgres"),
        "user": Key("postgres"),
        "passfile": Key(path=True),
        "run_as": Key(),
    },
    "mariadb": {**_MYSQL, "lock": Key("backup", choices=("backup", "tables"))},
    "mysql": {**_MYSQL, "lock": Key("tables", choices=("tables",))},
    "workload": {
        "namespace": Key(needed=True),
        "workload": Key(needed=True),
        "kubeconfig": Key(path=True),
        "context": Key(),
    },
}
#: What can be scaled down, as kubectl calls it.
SCALED = ("deployment", "statefulset")
_WORKLOAD = re.compile(rf"({'|'.join(SCALED)})/([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?)")
_NAMESPACE = re.compile("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def workload_of(params: Mapping[str, Any]) -> tuple[str, str]:
    """Return of which kind (`SCALED`) a hook's workload is, and its name; ("", "") where it is none."""
    found = _WORKLOAD.fullmatch(params["workload"])
    return (found[1], found[2]) if found else ("", "")


def faults(values: Mapping[str, Any], keys: Mapping[str, Key]) -> Iterator[tuple[str, str]]:
    """Yield the key and the reason for each value that cannot be meant."""
    for name, key in keys.items():
        value = values[name]
        if key.needed and not value:
            yield name, "it is missing"
        elif isinstance(value, str) and not value.isprintable():
            yield name, "it holds characters that cannot be printed"
        elif value and key.path and not value.startswith("/"):
            yield name, "it has to be an absolute path"
        elif key.choices and value not in key.choices:
            yield name, f"{value!r} is none of {', '.join(key.choices)}"
        elif key is _PORT and not 0 <= value <= 65535:
            yield name, "there is no such port"
    if values.get("workload") and not workload_of(values)[0]:
        yield "workload", f"it has to be one of {', '.join(f'{kind}/NAME' for kind in SCALED)}"
    if values.get("namespace") and not _NAMESPACE.fullmatch(values["namespace"]):
        yield "namespace", "that cannot be the name of a namespace"
    if values.get("socket") and values.get("host"):
        yield "socket", "name either the socket or the host"
