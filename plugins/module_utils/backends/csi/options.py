# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a call of csi_snapshot may set beside claims and state. Called by the bridge and the backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

#: Called with a stage and its facts, for progress_file.
Report = Callable[[str, Mapping[str, Any]], None]
#: Seconds that the deadline grows by for each claim after the first.
SECONDS_EACH = 5.0


@dataclass(frozen=True)
class Selection:
    """Which claims of a namespace are meant: those named, in that order, or those that match a label selector."""

    namespace: str
    names: tuple[str, ...] = ()
    selector: str | None = None


@dataclass(frozen=True)
class CsiOptions:
    """The options. ``timeout`` in seconds, ``size`` in bytes; ``undoes``: what failed is to be taken back."""

    snapshot_class: str | None = None
    deletion_policy: str | None = None
    group: bool = False
    group_snapshot_class: str | None = None
    object_labels: Mapping[str, str] = field(default_factory=dict)
    object_annotations: Mapping[str, str] = field(default_factory=dict)
    storage_class: str | None = None
    size: int | None = None
    import_handle: str | None = None
    undo: bool = False
    call_off: bool = False
    stop_workloads: bool = True
    wait: bool = True
    timeout: float = 300.0
    undoes: bool = True
    progress: Report | None = None
