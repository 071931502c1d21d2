# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What this project writes of a snapshot into the last line of its description, and what a snapshot may be called.

A snapshot of Proxmox VE has a name, a description, and nothing else that is free. So owner, labels and tokens are one
line of JSON behind the marker below, the last of the description. People see and edit descriptions in the web
interface: whatever they do there, what can be read stays readable, and what cannot is text. Pure; called by listing.py
and operations.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...core.errors import InvalidInput

MARKER = "restorepoint: "
#: A guest's own description may have 8 KiB (PVE/AbstractConfig.pm); a snapshot's has no limit of its own in the API,
#: but lies in the same file of /etc/pve, which everything reads at each step.
MAX_BYTES = 8192
QEMU, LXC = "qemu", "lxc"
#: pve-configid (pve-common, JSONSchema.pm); the snapshot methods add maxLength 40.
_CONFIG_ID = re.compile(r"[a-z][a-z0-9_-]+", re.IGNORECASE)
_LONGEST = 40


@dataclass(frozen=True)
class Metadata:
    """What a snapshot's last line says. ``run`` tells which run took it, ``once`` when which token was used up."""

    owner: str | None = None
    policy: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    once: Mapping[str, int] = field(default_factory=dict)
    aside_of: str | None = None
    run: str | None = None


def compose(description: str, metadata: Metadata) -> str:
    """Return a description with its last line. Raises InvalidInput where it would be too long."""
    known: dict[str, Any] = {
        "owner": metadata.owner,
        "policy": metadata.policy if metadata.policy != metadata.owner else None,
        "labels": dict(metadata.labels),
        "once": dict(metadata.once),
        "aside_of": metadata.aside_of,
        "run": metadata.run,
    }
    kept = {key: value for key, value in known.items() if value not in (None, {})}
    line = MARKER + json.dumps(kept, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    text = f"{description}\n{line}" if description else line
    size = len(text.encode("utf-8", "surrogateescape"))
    if size > MAX_BYTES:
        raise InvalidInput(
            "describe a snapshot",
            f"description and labels take {size} bytes, and Proxmox VE is given at most {MAX_BYTES}",
            "shorten the description, or use fewer labels",
        )
    return text


def split(text: str) -> tuple[str, Metadata]:
    """Return a description without its metadata, and the metadata.

    The last line that can be read counts, wherever people have put theirs. Containers' descriptions come with a line
    end.
    """
    lines = text.rstrip("\n").split("\n")
    for number in range(len(lines) - 1, -1, -1):
        metadata = _parsed(lines[number].strip())
        if metadata is not None:
            return "\n".join(lines[:number] + lines[number + 1 :]).rstrip("\n"), metadata
    return "\n".join(lines), Metadata()


def _parsed(line: str) -> Metadata | None:
    if not line.startswith(MARKER):
        return None
    try:
        found = json.loads(line[len(MARKER) :])
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    owner = _text(found.get("owner"))
    once = found.get("once")
    labels = found.get("labels")
    return Metadata(
        owner=owner,
        policy=_text(found.get("policy")) or (owner if owner != "manual" else None),
        labels={key: str(value) for key, value in labels.items()} if isinstance(labels, dict) else {},
        once={key: value for key, value in once.items() if _is_moment(value)} if isinstance(once, dict) else {},
        aside_of=_text(found.get("aside_of")),
        run=_text(found.get("run")),
    )


def _is_moment(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def check_name(name: str, attempt: str) -> str:
    """Return a snapshot's name if Proxmox VE takes it for some guest; raise InvalidInput if not."""
    if len(name) > _LONGEST:
        raise InvalidInput(attempt, f"the name has {len(name)} characters", f"choose one of at most {_LONGEST}")
    if not _CONFIG_ID.fullmatch(name):
        raise InvalidInput(
            attempt,
            "Proxmox VE takes 2 to 40 characters of a-z, A-Z, 0-9, '_' and '-', beginning with a letter",
            "choose such a name",
        )
    if name == "current":
        raise InvalidInput(attempt, "Proxmox VE calls the present state 'current'", "choose another name")
    return name


def reserved(name: str, kind: str) -> bool:
    """Say whether Proxmox VE reserves a name for guests of that kind (API2/Qemu.pm, API2/LXC/Snapshot.pm)."""
    if kind == QEMU:
        return name == "current" or name.lower() == "pending"
    return name in ("current", "vzdump")
