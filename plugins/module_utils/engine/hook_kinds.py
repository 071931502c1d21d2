# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hooks of policies for databases and workloads, as far as their keys go. Only data and checks: no I/O.

`policy` reads them; what they do is in agent/. What lies in files that they name is looked at when the policy runs:
policies are read on other machines, too.
"""

from __future__ import annotations

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
}


def faults(values: Mapping[str, Any], keys: Mapping[str, Key]) -> Iterator[tuple[str, str]]:
    """Yield the key and the reason for each value that cannot be meant."""
    for name, key in keys.items():
        value = values[name]
        if isinstance(value, str) and not value.isprintable():
            yield name, "it holds characters that cannot be printed"
        elif value and key.path and not value.startswith("/"):
            yield name, "it has to be an absolute path"
        elif key.choices and value not in key.choices:
            yield name, f"{value!r} is none of {', '.join(key.choices)}"
        elif key is _PORT and not 0 <= value <= 65535:
            yield name, "there is no such port"
    if values.get("socket") and values.get("host"):
        yield "socket", "name either the socket or the host"
