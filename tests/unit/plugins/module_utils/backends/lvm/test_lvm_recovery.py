# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the next run does with what a killed one has left, told by the commands that it would give."""

from __future__ import annotations

from typing import cast

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.lvm import recovery, tags
from ansible_collections.restorepoint.core.plugins.module_utils.backends.lvm.commands import Lvm
from ansible_collections.restorepoint.core.plugins.module_utils.backends.lvm.report import Group, Report, Volume
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import RestorePointError

THICK = frozenset({"public", "snapshot", "thicksnapshot"})


class Tools:
    """Answers for LVM's tools: notes what is changed, and knows which merges the kernel has."""

    def __init__(self, merging=()):
        self.done = []
        self._merging = frozenset(merging)

    def change(self, program, *arguments, attempt, remedy=""):
        self.done.append(" ".join([program, *arguments]))

    def merging_devices(self):
        return self._merging


def volume(name, uuid=None, **options):
    """Return a volume with tags as the backend writes them, and the records that they hold."""
    records = options.pop("records", {})
    written = tuple(tag for kind, record in records.items() for tag in tags.encode(kind, record))
    options.setdefault("tags", written)
    return Volume("vg0", name, uuid or f"uuid-{name}", records={k: [r] for k, r in records.items()}, **options)


def recovered(*volumes, merging=()):
    """Return the commands that recovery gives, and what it tells."""
    tools = Tools(merging)
    told = recovery.recover(cast(Lvm, tools), Report(volumes, {"vg0": Group("vg0", 10, 4 << 20)}), 5)
    return tools.done, told


def taken(name, pending, **record):
    records = {tags.SNAPSHOT: {"name": name, "of": "uuid-root", "group": "g1", **record}}
    if pending:
        records[tags.PENDING] = {"change": "create", "group": "g1", "vgs": ["vg0", "vg1"]}
    return records


def test_snapshots_of_a_call_none_of_which_counts_are_removed():
    done, told = recovered(
        volume("root"),
        volume("root.set", records=taken("set", True)),
        volume("home.set", records=taken("set", True)),
    )
    assert done == ["lvremove vg0/root.set", "lvremove vg0/home.set"]
    assert ["removed a snapshot of a call that was interrupted" in each for each in told] == [True, True]


def test_snapshots_of_a_call_of_which_one_counts_all_count():
    left = volume("home.set", records=taken("set", True))
    done, told = recovered(volume("root.set", records=taken("set", False)), left)
    pending = [tag for tag in left.tags if tag.startswith(f"rp.{tags.PENDING}.")]
    assert done == [f"lvchange {' '.join(tags.arguments(remove=pending))} vg0/home.set"]
    assert told == ["vg0/home.set: completed a snapshot that was interrupted"]


def test_groups_that_a_call_spans_are_looked_at_as_well():
    report = Report((volume("root.set", records=taken("set", True)),), {"vg0": Group("vg0", 10, 4 << 20)})
    assert recovery.other_groups(report) == {"vg1"}


def test_a_replacement_that_counts_is_completed_and_gets_the_name():
    old = volume("root.set", "uuid-old", records=taken("set", False))
    new = volume("root.rp-0a1b2c3d", records=taken("set", False, replaces="uuid-old", lv="root.set"))
    done, _told = recovered(old, new)
    assert done == ["lvremove vg0/root.set", "lvrename vg0 root.rp-0a1b2c3d root.set"]


def test_a_replacement_whose_name_somebody_else_took_keeps_its_own():
    new = volume("root.rp-0a1b2c3d", records=taken("set", False, replaces="uuid-gone", lv="root.set"))
    assert recovered(volume("root.set", "uuid-foreign"), new) == ([], [])


def returning(**more):
    record = {
        "change": "return", "target": "t1", "of": "uuid-old", "aside": "t1.aside-20261122t013000z", "keep": False,
        "active": True, "mounts": [], "boot": "another boot",
    }  # fmt: skip
    return volume("t1.rp-0a1b2c3d", segtype="thin", records={tags.PENDING: {**record, **more}})


def test_a_thin_return_killed_before_the_rename_is_undone():
    done, told = recovered(volume("t1", "uuid-old", segtype="thin"), returning())
    assert done == ["lvremove vg0/t1.rp-0a1b2c3d"]
    assert told == ["vg0/t1: undid a return that was interrupted before it counted"]


@pytest.mark.parametrize("keep", [False, True])
def test_a_thin_return_killed_after_the_rename_is_completed_and_keeps_what_it_was_to_keep(keep):
    aside = volume("t1.aside-20261122t013000z", "uuid-old", segtype="thin")
    done, told = recovered(aside, returning(keep=keep))
    assert done[:2] == ["lvrename vg0 t1.rp-0a1b2c3d t1", "lvchange --activate y --ignoreactivationskip vg0/t1"]
    assert ("lvremove vg0/t1.aside-20261122t013000z" in done) is not keep
    assert done[-1].startswith("lvchange --deltag rp.pending.")
    assert told == ["vg0/t1: completed a return that was interrupted"]


def test_a_thin_return_whose_place_somebody_else_took_is_left_and_named():
    aside = volume("t1.aside-20261122t013000z", "uuid-old", segtype="thin")
    with pytest.raises(RestorePointError, match=r"another volume has that name.*rename one of them"):
        recovered(aside, volume("t1", "uuid-foreign"), returning())


@pytest.mark.parametrize(("merge", "command"), [("uuid-lv1.first", "lvremove"), ("uuid-gone", "lvchange")])
def test_an_aside_counts_once_the_merge_that_it_was_taken_for_has_begun(merge, command):
    records = {
        tags.ASIDE: {"of": "uuid-lv1", "aside": "aside-20261122t013000z"},
        tags.PENDING: {"change": "aside", "merge": merge},
    }
    aside = volume("lv1.aside-20261122t013000z", roles=THICK, records=records)
    done, _told = recovered(volume("lv1"), volume("lv1.first", roles=THICK), aside)
    assert [each.split()[0] for each in done] == [command]
    assert done[0].endswith("vg0/lv1.aside-20261122t013000z")


def test_a_merge_under_way_is_given_to_the_daemon_again_and_one_that_waits_is_not():
    origins = [volume("lv1", merging=True), volume("lv2", merging=True)]
    assert recovered(*origins, merging=["vg0-lv1"])[0] == ["lvchange --poll y vg0/lv1"]


def test_a_mark_that_does_not_say_what_to_do_is_an_error_that_names_the_volume():
    with pytest.raises(RestorePointError, match=r"left in vg0/lv1: its tags do not say what has to be done"):
        recovered(volume("lv1", records={tags.PENDING: {"change": "dance"}}))


def test_what_has_no_mark_is_never_touched():
    assert recovered(volume("lv1"), volume("lv1.first", roles=THICK), volume("t1.rp-0a1b2c3d")) == ([], [])
