# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Units of systemd on this host: what there is, what systemd thinks of new ones, and the steps of a plan.

Called by bridge/schedule.py; systemd.py beside it makes the plan.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .. import process, whole_file
from ..core.errors import StoreError, ToolError
from .plan import Plan, Step
from .systemd import OURS, FileStep, Found, UnitState

FOLDER = "/etc/systemd/system"
STAMPS = "/var/lib/systemd/timers"
_TIMEOUT = 120.0
_ATTEMPT = "make units"
#: Units are looked at here before they take their place.
_CANDIDATES = "/run"
#: Since this version a trouble of other units is not one of ours.
_RECURSIVE_ERRORS = 250


def version() -> int:
    """Return systemd's version. Raises ToolError where it does not run here."""
    said = process.run(["systemctl", "--version"], timeout=_TIMEOUT, attempt=_ATTEMPT).stdout
    found = re.match(r"systemd (\d+)", said)
    if found is None:
        raise ToolError(_ATTEMPT, f"systemctl calls its version {said[:60]!r}", "look at `systemctl --version`")
    if not os.path.isdir("/run/systemd/system"):
        raise ToolError(_ATTEMPT, "systemd does not run on this host", "start `restorepoint run` with what does")
    return int(found.group(1))


def read(wanted: Iterable[str], known: int) -> Found:
    """Return what there is of the wanted units, and of those that may be ours. ``known`` is systemd's version."""
    texts = dict(_texts())
    units = sorted({*wanted, *texts})
    stamps = [f"{STAMPS}/stamp-{unit}" for unit in texts if os.path.exists(f"{STAMPS}/stamp-{unit}")]
    return Found(known, texts, _states(units) if units else {}, stamps)


def _texts() -> Iterator[tuple[str, str | None]]:
    try:
        names = sorted(name for name in os.listdir(FOLDER) if OURS.fullmatch(name))
        for name in names:
            path = os.path.join(FOLDER, name)
            if os.path.islink(path) or not os.path.isfile(path):
                yield name, None
            else:
                with open(path, encoding="utf-8", errors="replace") as stream:
                    yield name, stream.read()
    except OSError as error:
        raise StoreError(_ATTEMPT, f"{error.filename}: {error.strerror}", "run it as root") from error


def _states(units: Sequence[str]) -> dict[str, UnitState]:
    argv = ["systemctl", "show", "--property=Id,UnitFileState,ActiveState,NeedDaemonReload", "--", *units]
    said = process.run(argv, timeout=_TIMEOUT, attempt=_ATTEMPT).stdout
    states = {}
    for block in said.strip().split("\n\n"):
        words = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if not {"Id", "UnitFileState", "ActiveState", "NeedDaemonReload"} <= set(words):
            raise ToolError(_ATTEMPT, f"systemctl show said {block[:200]!r}", "look at `systemctl show`")
        stale = words["NeedDaemonReload"] == "yes"
        states[words["Id"]] = UnitState(words["UnitFileState"], words["ActiveState"], stale)
    return states


def object_to(units: Mapping[str, str], calendar: Sequence[str], known: int, plan: Plan) -> None:
    """Ask systemd about units, and moments, before they take anybody's place; what it objects to becomes blockers."""
    if calendar:
        try:
            process.run(["systemd-analyze", "calendar", "--", *calendar], timeout=_TIMEOUT, attempt=_ATTEMPT)
        except ToolError as error:
            plan.block("schedule", error.reason, "correct the schedule, or install the time zones of this host")
    if not units:
        return
    with tempfile.TemporaryDirectory(prefix="restorepoint-units.", dir=_CANDIDATES) as folder:
        for name, text in units.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as stream:
                stream.write(text)
        argv = ["systemd-analyze", "verify", "--man=no"]
        argv += ["--recursive-errors=no"] if known >= _RECURSIVE_ERRORS else []
        try:
            process.run([*argv, *(os.path.join(folder, name) for name in units)], timeout=_TIMEOUT, attempt=_ATTEMPT)
        except ToolError as error:
            plan.block("units", error.reason.replace(f"{folder}/", ""), "correct what systemd complains about")


def carry_out(plan: Plan, done: list[Step]) -> None:
    """Take all steps in their order, and add each to ``done`` once it is. Raises RestorePointError."""
    for step in plan.steps:
        if isinstance(step, FileStep):
            _write(step)
        else:
            argv = [str(word) for word in step.argv]
            process.run(argv, timeout=_TIMEOUT, attempt=f"{step.action}, of {step.target}")
        done.append(step)


def _write(step: FileStep) -> None:
    """Have a file whole, or as it was: it is written beside, and takes its place in one step."""
    beside = os.path.join(os.path.dirname(step.path), f".{os.path.basename(step.path)}.new")
    try:
        if step.content is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(step.path)
            return
        whole_file.put(step.path, step.content.encode("utf-8"), 0o644, beside)
    except OSError as error:
        raise StoreError(f"{step.action} {step.path}", str(error.strerror), "make room for it, as root") from error
