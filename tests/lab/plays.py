# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A control node as tests see it: plays run as ``ansible-playbook`` does, are watched, and killed at a chosen step.

Called by test_restore_points.py, and by tests/guest/fleet.py. The steps are told by killing/kill_control_node.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
KILLED = -9
#: No play of the tests takes nearly as long.
PATIENCE = 900.0


@dataclass
class Played:
    """How a play ended: its exit code, and what it printed."""

    code: int
    text: str

    @property
    def unchanged(self) -> bool:
        """Whether no host says that anything was changed."""
        counts = re.findall(r"^\S+ +: ok=.* changed=(\d+) ", self.text, re.MULTILINE)
        return bool(counts) and set(counts) == {"0"}

    def well(self) -> Played:
        """See to it that it ended well."""
        assert self.code == 0, self.text
        return self

    def killed(self) -> Played:
        """See to it that it was killed."""
        assert self.code == KILLED, self.text
        return self

    def said(self, *words: str) -> Played:
        """See to it that it failed, and said all of this in one message."""
        assert self.code not in (0, KILLED), self.text
        assert any(all(word in line for word in words) for line in self.text.splitlines()), self.text
        return self


class Running:
    """A play that was started."""

    def __init__(self, process: subprocess.Popen[bytes], output: pathlib.Path, steps: pathlib.Path) -> None:
        self._process, self._output, self._steps = process, output, steps

    def kill(self) -> None:
        """Kill the control node: nothing that the play has started on it runs any more when this returns."""
        self._process.kill()
        end_left(self._steps)

    def end(self) -> Played:
        """Wait for it. Of one that was killed nothing runs any more when this returns."""
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not end: {self._output.read_text()}") from None
        if code == KILLED:
            end_left(self._steps)
        return Played(code, self._output.read_text(errors="replace"))


def start(
    folder: pathlib.Path, inventory: Mapping[str, Any], book: str, variables: Mapping[str, Any], *arguments: str,
    kill: str = "",
) -> Running:  # fmt: skip
    """Start a play of a book, a file's path or a playbook's name. ``kill`` is the step at which it is killed."""
    hosts, steps, output = folder / "inventory.json", folder / "steps", folder / "output"
    hosts.write_text(json.dumps(inventory))
    steps.write_text("")
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": os.environ["PYTHONPATH"].split(":")[0],
        "ANSIBLE_CALLBACK_PLUGINS": str(CHECKOUT / "tests" / "lab" / "killing"),
        "ANSIBLE_LOCAL_TEMP": str(folder / "local"),
        "ANSIBLE_REMOTE_TEMP": str(folder / "remote"),
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_NOCOLOR": "1",
        "RP_KILL": kill,
        "RP_STEPS": str(steps),
    }
    program = str(pathlib.Path(sys.executable).parent / "ansible-playbook")
    with open(output, "wb") as log:
        process = subprocess.Popen(
            [program, "-i", str(hosts), book, "-e", json.dumps(variables), *arguments],
            env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    return Running(process, output, steps)


def play(
    folder: pathlib.Path, inventory: Mapping[str, Any], book: str, variables: Mapping[str, Any], *arguments: str,
    kill: str = "",
) -> Played:  # fmt: skip
    """Play a book, and wait for its end; see `start`."""
    return start(folder, inventory, book, variables, *arguments, kill=kill).end()


def end_left(steps: pathlib.Path) -> None:
    """End what a play runs, or has left running, on the control node. Its environment tells which processes it has."""
    sign = f"RP_STEPS={steps}".encode()
    deadline = time.monotonic() + 60
    while left := _with_sign(sign):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def _with_sign(sign: bytes) -> list[int]:
    found = []
    for each in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if each.name.isdigit() and sign in (each / "environ").read_bytes().split(b"\0"):
                found.append(int(each.name))
    return found
