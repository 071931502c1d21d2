# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lets INT, TERM and HUP end a run in order, and at no moment that counts. Standard library only; called by the bridge.

An interrupt becomes a KeyboardInterrupt, upon which core/run.py takes back what was begun. While changes are made to
count, or are taken back, it waits: otherwise something would have been done of which nobody knows.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Handles the signals of this process from `install` on. Works in the main thread only, as signals in Python do."""

    def __init__(self) -> None:
        self._depth = 0
        self._waiting: int | None = None

    def install(self) -> None:
        """Handle the signals from now on, but not those that this process was started to ignore (nohup)."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        if not self._depth:
            _interrupt(number)
        self._waiting = number

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let interrupts wait until the end of the block, and of the blocks around it.

        An error that ends the block goes before an interrupt that came meanwhile: it ends the run as well.
        """
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if not self._depth and self._waiting is not None:
            number, self._waiting = self._waiting, None
            _interrupt(number)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Let signals that Python handles, whoever handles them, wait until the end of the block.

    For a few steps of which none may be missing: a program that has been started, but is not known yet, could be
    stopped by nobody. Does nothing in another than the main thread, which no signal interrupts.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, lambda number, _frame: came.append(number))
        yield
    finally:
        # None may come while they are brought back: it would leave some of them as they are now.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for each in came:
            signal.raise_signal(each)


def _interrupt(number: int) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)
