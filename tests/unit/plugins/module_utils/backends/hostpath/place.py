# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory, a store beside it, and calls upon them, through the plan and the run as the modules make them.

For the tests beside it: they need no root and no filesystem of their own.
"""

from __future__ import annotations

import os
import pathlib
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ansible_collections.restorepoint.core.plugins.module_utils.backends.hostpath import info
from ansible_collections.restorepoint.core.plugins.module_utils.backends.hostpath.backend import HostpathBackend
from ansible_collections.restorepoint.core.plugins.module_utils.backends.hostpath.options import (
    HostpathOptions,
    HostTarget,
)
from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import Change, Desired
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import Blocked
from ansible_collections.restorepoint.core.plugins.module_utils.core.plan import Plan, make_plan
from ansible_collections.restorepoint.core.plugins.module_utils.core.retention import parse_policy
from ansible_collections.restorepoint.core.plugins.module_utils.core.run import Run

#: Longer than a file counts as too fresh to be sure that a further change of it would show.
SETTLED = 0.03


class Place:
    """Directories, and one store. ``now`` goes on by an hour with each call."""

    def __init__(self, path: pathlib.Path, *names: str) -> None:
        self.path = path
        self.targets = [path / name for name in names or ("target",)]
        self.target = self.targets[0]
        self.store = path / "store"
        self.now = 1_700_000_000
        self.warnings: list[str] = []
        self.audit: list[Any] = []
        for target in self.targets:
            target.mkdir(exist_ok=True)

    def backend(self, **options: Any) -> HostpathBackend:
        """Return a backend. Users of the target are not looked for, unless a test asks for it."""
        options.setdefault("ignore_users", True)
        options.setdefault("lock_timeout", 1.0)
        known = HostpathOptions(now=lambda: self.now, **options)
        return HostpathBackend([HostTarget(str(target)) for target in self.targets], str(self.store), known)

    def plan(self, backend: HostpathBackend, desired: Desired) -> Plan:
        """Return the plan; raise Blocked where there are blockers."""
        plan = make_plan(desired, backend.situations(desired), self.now)
        self.warnings += plan.warnings
        if plan.blockers:
            raise Blocked("do it", plan.blockers)
        return plan

    def call(
        self,
        state: str,
        name: str | None = "x",
        keep: dict[str, Any] | None = None,
        asides: dict[str, Any] | None = None,
        on_failure: str = "undo",
        adapt: Callable[[HostpathBackend], HostpathBackend] = lambda backend: backend,
        options: dict[str, Any] | None = None,
        **asked: Any,
    ) -> list[dict[str, Any]]:
        """Carry out one call and return its results."""
        self.now += 3600
        self.warnings, self.audit = [], []
        desired = Desired(
            state=state,
            name=name if state != "pruned" else None,
            retention=None if keep is None else parse_policy(keep),
            asides=None if asides is None else parse_policy(asides),
            **asked,
        )
        backend = adapt(self.backend(**(options or {})))
        backend.check(desired)
        try:
            with backend.session(writing=True):
                run = Run(backend, self._record, time.monotonic, on_failure == "keep")
                try:
                    return run.carry_out(self.plan(backend, desired))
                finally:
                    self.warnings += run.warnings
        finally:
            self.warnings += backend.warnings

    def _record(self, change: Change, outcome: str) -> dict[str, str]:
        record = {"change": change.verb, "target": change.target, "name": change.name, "outcome": outcome}
        self.audit.append(record)
        return record

    def take(self, name: str = "x", **options: Any) -> dict[str, Any]:
        """Take a snapshot of files that have settled, and return the result of the first target."""
        time.sleep(SETTLED)
        return self.call("present", name, options=options)[0]

    def actions(self, state: str, name: str | None = "x", **asked: Any) -> list[str]:
        """Carry out one call and return what was done."""
        return [each["action"] for each in self.call(state, name, **asked)]

    def info(self, **asked: Any) -> dict[str, Any]:
        """Return what the info module shows."""
        backend = self.backend()
        try:
            return info.describe(backend, **asked)
        finally:
            self.warnings = backend.warnings

    def names(self) -> list[str]:
        """Return the names of the snapshots of the first target, oldest first."""
        with self.looking() as backend:
            return [each.name for each in backend.snapshots(str(self.target))]

    @contextmanager
    def looking(self) -> Iterator[HostpathBackend]:
        """Open the store as a reader."""
        backend = self.backend()
        with backend.session(writing=False):
            yield backend

    @property
    def folder(self) -> pathlib.Path:
        """The folder of the first target in the store."""
        with self.looking() as backend:
            folder = backend.store.folder(str(self.target))
            assert folder is not None
            folder.close()
            return pathlib.Path(folder.path)

    def snapshot(self, name: str = "x") -> pathlib.Path:
        """Return where a snapshot of the first target lies."""
        return self.folder / name

    def lines(self, name: str = "x") -> dict[str, list[str]]:
        """Return the fields of a manifest by what they are about."""
        text = (self.folder / f"{name}.manifest").read_text(errors="surrogateescape").splitlines()[1:]
        return {line.split("\t")[0]: line.split("\t") for line in text}


def picture(path: pathlib.Path) -> dict[str, tuple[Any, ...]]:
    """Return everything about a tree that a return has to bring back, by an independent and slow look at it."""
    seen: dict[str, tuple[Any, ...]] = {}
    first: dict[tuple[int, int], str] = {}
    for each in [path, *sorted(path.rglob("*"))]:
        st = os.lstat(each)
        relative = os.path.relpath(each, path)
        kind = stat.S_IFMT(st.st_mode)
        content: Any = None
        if kind == stat.S_IFLNK:
            content = os.readlink(each)
        elif kind == stat.S_IFREG:
            content = (each.read_bytes(), first.setdefault((st.st_dev, st.st_ino), relative))
        size = None if kind == stat.S_IFDIR else st.st_size
        names = sorted(os.listxattr(each, follow_symlinks=False))
        attributes = [(name, os.getxattr(each, name, follow_symlinks=False)) for name in names]
        seen[relative] = (st.st_mode, st.st_uid, st.st_gid, size, st.st_mtime_ns, content, attributes)
    return seen
