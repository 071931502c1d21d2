# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Subvolumes of the lab, and the calls upon them that its tests of Btrfs make. Called by test_btrfs_*.py."""

from __future__ import annotations

import os
import pathlib
from dataclasses import dataclass
from typing import Any

from ansible_collections.restorepoint.core.plugins.module_utils.backends.stored import subvolume
from ansible_collections.restorepoint.core.tests.lab import driver
from ansible_collections.restorepoint.core.tests.lab.filesystems import run


def create(path: pathlib.Path) -> pathlib.Path:
    """Make a subvolume."""
    run("btrfs", "-q", "subvolume", "create", path)
    return path


def uuid(path: pathlib.Path) -> str:
    """Return the UUID of a subvolume."""
    return subvolume.show(str(path)).uuid


def picture(folder: pathlib.Path) -> dict[str, str | None]:
    """Return the content of each file below a folder, by its path; None for directories."""
    return {
        os.path.relpath(each, folder): each.read_text() if each.is_file() else None
        for each in sorted(folder.rglob("*"))
    }


@dataclass
class Volumes:
    """A folder on Btrfs with a store beside what is taken."""

    folder: pathlib.Path

    @property
    def store(self) -> pathlib.Path:
        """Where the store goes."""
        return self.folder / "store"

    @property
    def target(self) -> pathlib.Path:
        """A subvolume, once ``make`` has made it."""
        return self.folder / "data"

    def make(self, *inside: str, name: str = "data") -> pathlib.Path:
        """Make a subvolume with a file, and subvolumes inside it, each with a file."""
        target = create(self.folder / name)
        (target / "file").write_text("one")
        for path in inside:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            create(target / path)
            (target / path / "file").write_text(f"one in {path}")
        return target

    def call(self, name: str | None = "a", state: str = "present", /, **options: Any) -> driver.Result:
        """Call btrfs_snapshot."""
        options.setdefault("subvolume", [self.target])
        return driver.btrfs_call(store=self.store, name=name, state=state, **options)

    def twice(self, name: str | None = "a", state: str = "present", /, **options: Any) -> driver.Result:
        """Call it in check mode, then in earnest, and again; the first predicts, the last changes nothing."""
        told = self.call(name, state, check_mode=True, **options)
        done = self.call(name, state, **options)
        again = self.call(name, state, **options)
        assert told.told == done.told
        assert not again["changed"], again["results"]
        assert {each["action"] for each in again["results"]} == {"unchanged"}
        return done

    def refused(self, name: str | None = "a", state: str = "present", /, **options: Any) -> driver.Failed:
        """Call it, in check mode too; return how it failed."""
        failures = []
        for check_mode in (True, False):
            try:
                result = self.call(name, state, check_mode=check_mode, **options)
            except driver.Failed as error:
                failures.append(error)
            else:
                raise AssertionError(f"it went through: {result['results']}")
        assert failures[0].result["msg"] == failures[1].result["msg"]
        return failures[1]

    def info(self, **options: Any) -> driver.Result:
        """Call btrfs_snapshot_info."""
        return driver.btrfs_info(store=self.store, **options)

    @property
    def names(self) -> list[str]:
        """The names of the snapshots of all targets."""
        return [each["name"] for each in self.info()["snapshots"]]

    def leftovers(self) -> list[str]:
        """Return what a run must not leave behind: hidden files beside targets, and in folders of the store."""
        found = [each.name for each in self.folder.iterdir() if each.name.startswith(".restorepoint-")]
        if self.store.is_dir():
            hidden = (".new-", ".old-", ".pending-", ".journal")
            found += [name for _unused, dirs, files in os.walk(self.store) for name in (*dirs, *files)
                      if name.startswith(hidden)]  # fmt: skip
        return found
