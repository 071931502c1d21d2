# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`restorepoint report`: gathers what there is to tell of this host, and shows it as text, JSON or a page.

What a report says is in core/report.py; `looking` looks, so that storage which hangs cannot hang it. Called by `cli`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable, TextIO

from ..core.errors import InvalidInput, RestorePointError
from ..core.report import Known, report
from ..core.report_text import Look, check_line, text
from ..core.report_words import CODES
from ..engine.policy import Policy
from . import looking
from .metrics import gather, seconds_of, write_file
from .state import State

_FORMS = (".html", ".json", ".txt")
#: Nobody can follow anything faster, and each time storage is asked.
_SHORTEST_WATCH = 1.0
_HOME_AND_CLEAR, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def command(
    options: argparse.Namespace,
    policies: Callable[[], Sequence[Policy]],
    now: Callable[[], int],
    out: TextIO,
) -> int:
    """Run the command; return 0, 1, 2 or 3 as checks of the Nagios kind do: ok, warning, critical, unknown.

    Raises InvalidInput for options that cannot be meant, RestorePointError where a file could not be written.
    """
    timeout = seconds_of(options.timeout, "--timeout")
    if options.export is not None and not options.export.endswith(_FORMS):
        remedy = f"let its name end with {' or '.join(_FORMS)}"
        raise InvalidInput(f"write the report to {options.export}", "its ending tells no form", remedy)
    if options.watch is not None:
        return _watch(options, policies, now, out, timeout)
    made = make(options, policies, now, timeout)
    out.write(_shown(made, options, out))
    _export(made, options)
    return CODES[made["status"]]


def make(
    options: argparse.Namespace, policies: Callable[[], Sequence[Policy]], now: Callable[[], int], timeout: float
) -> dict[str, Any]:
    """Return the report of this host. What could not be read or looked at is in it."""
    facts, troubles = gather(policies, options.state, now, timeout, looking.in_detail)
    unread = troubles[: (not facts.sound) + (not facts.readable)]
    known = _known(policies, options.state) if facts.sound else {}
    return report(options.host or socket.gethostname(), facts, known, unread)


def _known(policies: Callable[[], Sequence[Policy]], folder: str) -> dict[str, Known]:
    """Return what there is to tell of each policy beside what is looked at."""
    records: dict[str, list[Mapping[str, Any]]] = {}
    try:
        for record in State(folder).records():
            records.setdefault(str(record.get("policy")), []).append(record)
    except (RestorePointError, OSError):
        records = {}  # It is said already that the journal cannot be read.
    return {
        each.name: Known(
            each.description,
            (*each.calendar, *each.cron),
            each.timezone,
            each.retention,
            records.get(each.name, []),
        )
        for each in policies()
    }


# -- showing it -------------------------------------------------------------------------------------------------------


def _shown(made: Mapping[str, Any], options: argparse.Namespace, out: TextIO) -> str:
    if options.json:
        return _json(made)
    if options.html:
        return _page(made)
    if options.check:
        return check_line(made) + "\n"
    return text(made, _terminal(options, out))


def _json(made: Mapping[str, Any]) -> str:
    return json.dumps(made, sort_keys=True) + "\n"


def _page(made: Mapping[str, Any]) -> str:
    from ..core.report_page import page

    return page([made], made["generated"])


def _terminal(options: argparse.Namespace, out: TextIO) -> Look:
    """Return how to write to where it goes: NO_COLOR (no-color.org) counts where --color says nothing else."""
    at_terminal = out.isatty()
    wanted = at_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    colour = {"always": True, "never": False}.get(options.color, wanted)
    unicode = (getattr(out, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"
    width = shutil.get_terminal_size((100, 24)).columns if at_terminal else 100
    return Look(width, colour, unicode, options.full)


def _export(made: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Write the file that is asked for, whole. One that is there keeps its mode. Raises RestorePointError."""
    path = options.export
    if path is None:
        return
    if path.endswith(".html"):
        content = _page(made)
    elif path.endswith(".json"):
        content = _json(made)
    else:
        content = text(made, Look(full=True))
    write_file(path, content.encode("utf-8", "backslashreplace"), State(options.state), "report", _mode(path))


def _mode(path: str) -> int:
    """Return the mode of the file that is there; of a new one what any program would give it."""
    try:
        return os.stat(path).st_mode & 0o777
    except OSError:
        umask = os.umask(0o077)
        os.umask(umask)
        return 0o666 & ~umask


def _watch(
    options: argparse.Namespace,
    policies: Callable[[], Sequence[Policy]],
    now: Callable[[], int],
    out: TextIO,
    timeout: float,
) -> int:
    """Show it again and again, until somebody interrupts; return the code of the last one."""
    if options.watch < _SHORTEST_WATCH:
        attempt = f"watch every {options.watch:g} s"
        raise InvalidInput(attempt, "storage is asked each time", f"wait {_SHORTEST_WATCH:g} s or longer")
    code = CODES["unknown"]
    try:
        while True:
            made = make(options, policies, now, timeout)
            code = CODES[made["status"]]
            shown = text(made, _terminal(options, out))
            if out.isatty():
                # Line by line over the old one: cleared first, it would flicker.
                lines = "".join(f"{line}{_CLEAR_LINE}\n" for line in shown.splitlines())
                shown = f"{_HOME_AND_CLEAR}{lines}{_CLEAR_BELOW}"
            out.write(shown)
            out.flush()
            _export(made, options)
            time.sleep(options.watch)
    except KeyboardInterrupt:
        return code
