# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Does things for many guests at once: so many on each node, and never two on one guest. Called by backend.py."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ...core.errors import NotBegun, RestorePointError

#: However many nodes there are, no more threads than this.
MOST_THREADS = 128


@dataclass(frozen=True)
class Job:
    """What has to be done for one guest; ``words`` name it in messages."""

    node: str
    words: str
    work: Callable[[], Any]


def in_parallel(jobs: Sequence[Job], parallel: int, stop_on_failure: bool = False) -> list[Any]:
    """Do all jobs, at most ``parallel`` of a node at once; return what each gives, or the RestorePointError in its
    place.

    With ``stop_on_failure`` none is begun any more once one has failed; NotBegun is their error. An interrupt of the
    main thread lets those that run end in the background, and begins no others.
    """
    outcomes: list[Any] = [None] * len(jobs)
    nodes: dict[str, deque[int]] = {}
    for index, job in enumerate(jobs):
        nodes.setdefault(job.node, deque()).append(index)
    each = max(1, min(parallel, MOST_THREADS // max(1, len(nodes))))
    failed: list[str] = []
    stopped = threading.Event()

    def labour(queue: deque[int]) -> None:
        while not stopped.is_set():
            try:
                index = queue.popleft()
            except IndexError:
                return
            if failed and stop_on_failure:
                outcomes[index] = NotBegun(f"begin with {jobs[index].words}", f"{failed[0]} had failed")
                continue
            outcomes[index] = _attempted(jobs[index])
            if isinstance(outcomes[index], RestorePointError):
                failed.append(jobs[index].words)

    threads = [
        threading.Thread(target=labour, args=(queue,), daemon=True)
        for queue in nodes.values()
        for _unused in range(min(each, len(queue)))
    ]
    if len(threads) == 1:
        labour(next(iter(nodes.values())))
        return outcomes
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        stopped.set()
    return outcomes


def _attempted(job: Job) -> Any:
    try:
        return job.work()
    except RestorePointError as error:
        return error
    except Exception as error:  # a defect of ours: the others' outcomes must not be lost with it
        remedy = "report this, it is a defect of restorepoint.core"
        return RestorePointError(f"work on {job.words}", f"{type(error).__name__}: {error}", remedy)
