# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `lvremove` has removed is what is not there any more, whatever it says."""

from __future__ import annotations

from typing import cast

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.lvm import tags
from ansible_collections.restorepoint.core.plugins.module_utils.backends.lvm.backend import LvmBackend
from ansible_collections.restorepoint.core.plugins.module_utils.backends.lvm.commands import Lvm
from ansible_collections.restorepoint.core.plugins.module_utils.backends.lvm.options import LvmOptions, LvmTarget
from ansible_collections.restorepoint.core.plugins.module_utils.backends.lvm.report import Group, Report, Volume
from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import DESTROY, Change
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import RestorePointError, ToolError


class Tools:
    """Answers for LVM's tools, with volumes that come and go. ``lvremove`` leaves what is ``spared``.

    It then ends well, or with ``fails`` as LVM does: with an error, after having removed the others.
    """

    def __init__(self, spared=(), fails=False):
        self.volumes = [Volume("vg0", "root", "uuid-root")] + [snapshot(name) for name in ("one", "two")]
        self.spared = spared
        self.fails = fails
        self.calls = []

    def report(self, vgs):
        self.calls.append("lvs")
        return Report(tuple(self.volumes), {"vg0": Group("vg0", 10, 4 << 20)})

    def change(self, program, *paths, attempt, remedy=""):
        self.calls.append(program)
        self.volumes = [each for each in self.volumes if each.path not in paths or each.path in self.spared]
        if self.fails:
            raise ToolError(attempt, "Logical volume in use.", remedy)


def snapshot(name):
    record = {"name": name, "of": "uuid-root", "at": 5}
    return Volume(
        "vg0", f"root.{name}", f"uuid-{name}", size=4 << 20, origin="root", origin_uuid="uuid-root",
        roles=frozenset({"public", "snapshot", "thicksnapshot"}), tags=tuple(tags.encode(tags.SNAPSHOT, record)),
        records={tags.SNAPSHOT: [record]},
    )  # fmt: skip


def removed(tools):
    """Remove both snapshots; return the outcomes."""
    backend = LvmBackend([LvmTarget("vg0", "root")], LvmOptions(now=lambda: 5))
    backend.lvm = cast(Lvm, tools)
    return backend.commit([Change(DESTROY, "vg0/root", name, "asked for") for name in ("one", "two")])


def test_snapshots_are_removed_with_one_command_and_looked_for_once():
    tools = Tools()
    assert removed(tools) == [{"freed_bytes": 4 << 20}] * 2
    assert tools.calls == ["lvs", "lvremove", "lvs"]


@pytest.mark.parametrize("spared", [["vg0/root.two"], ["vg0/root.one", "vg0/root.two"]])
def test_an_lvremove_that_leaves_something_and_ends_well_is_not_believed(spared):
    outcomes = removed(Tools(spared=spared))
    wrong = [each for each in outcomes if isinstance(each, RestorePointError)]
    assert [each.attempt for each in wrong] == [f"remove {path}" for path in spared]
    assert {each.reason for each in wrong} == {"lvremove ended well, but the volume is still there"}
    assert outcomes[0] == {"freed_bytes": 4 << 20} or len(spared) == 2


def test_an_lvremove_that_fails_half_way_is_told_in_its_own_words_for_what_is_left():
    first, second = removed(Tools(spared=["vg0/root.two"], fails=True))
    assert first == {"freed_bytes": 4 << 20}
    assert isinstance(second, ToolError)
    assert second.reason == "Logical volume in use."
