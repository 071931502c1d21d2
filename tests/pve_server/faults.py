# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the test server can be told to do wrong, and at which call.

``faults.at("POST */snapshot", 2, drop_after())`` lets the second call that fits the pattern lose its connection after
it was carried out. A pattern is that of fnmatch over ``METHOD /path``, without /api2/json and query. ``ANSWERS`` are
the faults of a single call that fit everywhere, so that a test can set each of them at each call of a run. Called by
https.py and shell.py. Standard library only.
"""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .tasks import StepFault

if TYPE_CHECKING:
    from .cluster import Cluster


@dataclass
class Action:
    """What happens at a call. Several of them add up."""

    #: Seconds before anything else happens.
    delay: float = 0.0
    #: Done to the cluster before the call is carried out.
    change: Callable[[Cluster], None] | None = None
    #: Befalls the task that the call starts.
    task: StepFault | None = None
    #: The call is not carried out: the connection is dropped, or this status is answered.
    drop_before: bool = False
    status: int = 0
    message: str = ""
    #: The call is carried out, but its answer is not what it should be: drop, cut, garbage.
    answer: str = ""


def slow(seconds: float) -> Action:
    """Let the call take longer."""
    return Action(delay=seconds)


def drop_before() -> Action:
    """Drop the connection; the call is not carried out."""
    return Action(drop_before=True)


def drop_after() -> Action:
    """Carry the call out, then drop the connection without an answer."""
    return Action(answer="drop")


def cut() -> Action:
    """Carry the call out, and drop the connection in the middle of the answer."""
    return Action(answer="cut")


def garbage() -> Action:
    """Carry the call out, and answer 200 with something that is no JSON."""
    return Action(answer="garbage")


def status(code: int, message: str = "") -> Action:
    """Answer with an HTTP status instead of carrying the call out."""
    return Action(status=code, message=message or _WORDS.get(code, "Internal Server Error"))


_WORDS = {401: "permission denied - invalid PVE ticket", 502: "Bad Gateway", 503: "Service Unavailable"}
_WORDS.update(
    {504: "Gateway Timeout", 595: "Connection refused", 596: "Connection timed out", 599: "Too many redirections"}
)


def logout() -> Action:
    """End every ticket, so that this call and each later one is refused until somebody logs in again."""
    return Action(change=lambda cluster: cluster.access.expire())


def fail_task(step: str, message: str) -> Action:
    """Let the task that the call starts fail before a step (operations.py names them; patterns are allowed)."""
    return Action(task=StepFault(step, "fail", message))


def warn_task(step: str, message: str) -> Action:
    """Let the task warn before a step, and go on: its status is 'WARNINGS: 1'."""
    return Action(task=StepFault(step, "warn", message))


def slow_task(step: str, seconds: float) -> Action:
    """Let the task take so much longer before a step."""
    return Action(task=StepFault(step, "slow", seconds=seconds))


def hang_task(step: str = "prepare") -> Action:
    """Let the task never end, unless ``server.release(task)`` lets it."""
    return Action(task=StepFault(step, "hang"))


def kill_task(step: str = "commit") -> Action:
    """Let the task's worker be killed before a step: its status is 'unexpected status', its locks stay."""
    return Action(task=StepFault(step, "kill"))


def move(vmid: int, node: str) -> Action:
    """Migrate a guest just before the call is carried out."""
    return Action(change=lambda cluster: cluster.move(vmid, node))


def revoke(account: str, privilege: str) -> Action:
    """Take a privilege away just before the call is carried out."""
    return Action(change=lambda cluster: cluster.access.revoke(account, privilege))


def do(change: Callable[[Cluster], None]) -> Action:
    """Change anything just before the call is carried out."""
    return Action(change=change)


#: Every fault that a single call can meet, by name.
ANSWERS: dict[str, Callable[[], Action]] = {
    "slow": lambda: slow(0.3),
    "dropped before": drop_before,
    "dropped after": drop_after,
    "answer cut": cut,
    "garbage": garbage,
    "logged out": logout,
    "500": lambda: status(500, "got timeout"),
    "502": lambda: status(502),
    "503": lambda: status(503),
    "595": lambda: status(595),
    "596": lambda: status(596),
}


@dataclass
class Rule:
    """A fault that waits for its call. ``nth`` counts the calls that fit, from 1; None means each of them."""

    pattern: str
    nth: int | None
    actions: tuple[Action, ...]
    seen: int = 0
    fired: int = 0


@dataclass
class Faults:
    """The faults that wait for their calls."""

    rules: list[Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def at(self, pattern: str, nth: int | None, *actions: Action) -> Rule:
        """Let something happen at the nth call, from now on, that fits a pattern; ``rule.fired`` tells if it did."""
        rule = Rule(pattern, nth, actions)
        with self._lock:
            self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self.rules.clear()

    def meet(self, method: str, path: str) -> list[Action]:
        """Return what happens at a call, and count it."""
        if not self.rules:
            return []
        call = f"{method} {path}"
        found: list[Action] = []
        with self._lock:
            for rule in self.rules:
                if fnmatch.fnmatchcase(call, rule.pattern):
                    rule.seen += 1
                    if rule.nth in (None, rule.seen):
                        rule.fired += 1
                        found.extend(rule.actions)
        return found
