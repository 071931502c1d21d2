# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which volume is what is told by UUIDs in tags, and never by names."""

from __future__ import annotations

from ansible_collections.restorepoint.core.plugins.module_utils.backends.lvm import tags, view
from ansible_collections.restorepoint.core.plugins.module_utils.backends.lvm.report import Group, Report, Volume
from ansible_collections.restorepoint.core.plugins.module_utils.backends.lvm.view import View
from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import Desired, Situation
from ansible_collections.restorepoint.core.plugins.module_utils.core.plan import make_plan

SNAPSHOT = frozenset({"public", "snapshot", "thinsnapshot"})
THICK = frozenset({"public", "snapshot", "thicksnapshot"})


def volume(name, uuid=None, **options):
    records = {
        kind: [record] if isinstance(record, dict) else record for kind, record in options.pop("records", {}).items()
    }
    return Volume("vg0", name, uuid or f"uuid-{name}", records=records, **options)


def own(name, of="uuid-root", **options):
    record = {"name": name, "of": of, **options.pop("record", {})}
    records = {tags.SNAPSHOT: record, **options.pop("more", {})}
    lv = options.pop("lv", f"root.{name}")
    return volume(lv, segtype="thin", roles=SNAPSHOT, records=records, **options)


def seen(*volumes):
    return View(Report(volumes, {"vg0": Group("vg0", 10, 4 << 20)}))


def names(view_, target):
    return [snapshot.name for snapshot, _unused in view_.snapshots(target)]


ROOT = volume("root", segtype="thin")


def test_a_volume_whose_name_only_ends_alike_is_no_snapshot():
    """infra.lvm_snapshots takes root_myripu for a snapshot of the set ripu, and removes it by force."""
    view_ = seen(ROOT, own("ripu"), volume("root_myripu"), volume("root.ripu2"), volume("root.ripu.3", origin="root"))
    assert names(view_, ROOT) == ["ripu"]
    assert view_.find(ROOT, "ripu")[1].name == "root.ripu"


def test_thick_snapshots_of_one_second_stay_in_the_order_in_which_they_were_taken():
    root = volume("root")
    thick = {"segtype": "linear", "roles": THICK, "origin": "root", "created": 7}
    first = volume("root.b", records={tags.SNAPSHOT: {"name": "b", "of": "uuid-root", "number": 1}}, **thick)
    second = volume("root.a", records={tags.SNAPSHOT: {"name": "a", "of": "uuid-root", "number": 2}}, **thick)
    older = volume("root.c", records={tags.SNAPSHOT: {"name": "c", "of": "uuid-root"}}, **thick)
    assert names(seen(root, second, older, first), root) == ["c", "b", "a"]
    assert seen(root, second, older, first).next_number(root) == 3
    assert seen(root, older).next_number(root) == seen(root).next_number(root) == 1


def test_names_of_volumes_do_not_matter_for_what_is_whose():
    moved = own("first", lv="anything")
    assert names(seen(volume("renamed", "uuid-root"), moved), volume("renamed", "uuid-root")) == ["first"]
    assert names(seen(volume("root", "uuid-new"), moved), volume("root", "uuid-new")) == []


def test_a_volume_that_took_another_ones_place_has_that_ones_snapshots_and_the_aside():
    was = [{"uuid": "uuid-root", "aside": "aside-20261122t013000z", "at": 5, "returned_to": "first"}]
    new = volume(
        "root", "uuid-new", segtype="thin", roles=SNAPSHOT, origin_uuid="uuid-root.first", records={tags.WAS: was}
    )
    old = volume("root.aside-20261122t013000z", "uuid-root", segtype="thin")
    view_ = seen(new, old, own("first"), own("second", of="uuid-new"))
    assert sorted(names(view_, new)) == ["first", "second"]
    [(aside, there)] = view_.asides(new)
    assert (aside.name, aside.created, there.uuid) == ("aside-20261122t013000z", 5, "uuid-root")
    assert aside.extra["aside"] is True


def test_snapshots_of_others_are_shown_under_the_names_of_their_volumes():
    foreign = volume("by-hand", segtype="thin", roles=SNAPSHOT, origin_uuid="uuid-root")
    busy = volume("production", segtype="thin", roles=SNAPSHOT, origin_uuid="uuid-root", active=True)
    found = {snapshot.name: snapshot for snapshot, _unused in seen(ROOT, foreign, busy).snapshots(ROOT)}
    assert found["by-hand"].owner is None
    assert found["by-hand"].in_use is None
    assert "active" in found["production"].in_use


def test_a_snapshot_that_somebody_has_open_is_not_removed():
    """infra.lvm_snapshots removes by force."""
    view_ = seen(ROOT, own("first", is_open=True), own("second"))
    there = Situation("vg0/root", tuple(snapshot for snapshot, _unused in view_.snapshots(ROOT)))
    plan = make_plan(Desired(state="absent", name="first"), [there], now=5)
    assert plan.changes == ()
    assert [each.reason for each in plan.blockers] == ["snapshot 'first' is in use: vg0/root.first is open"]


def test_a_volume_of_another_never_hides_a_snapshot_of_that_name():
    foreign = volume("first", segtype="thin", roles=SNAPSHOT, origin_uuid="uuid-root")
    view_ = seen(ROOT, foreign, own("first"))
    assert sorted(names(view_, ROOT)) == ["first", "lv:first"]
    assert view_.find(ROOT, "first")[1].name == "root.first"


def test_a_snapshot_whose_tags_are_damaged_is_treated_as_somebody_elses():
    broken = volume("root.x", segtype="thin", roles=SNAPSHOT, origin_uuid="uuid-root", damage="cannot be read")
    [(snapshot, _unused)] = seen(ROOT, broken).snapshots(ROOT)
    assert (snapshot.name, snapshot.owner) == ("root.x", None)


def test_what_a_killed_run_left_is_not_there():
    pending = own("set", record={"group": "g"}, more={tags.PENDING: {"change": "create", "group": "g"}})
    assert names(seen(ROOT, pending), ROOT) == []


def test_once_one_of_a_call_counts_all_of_them_do():
    pending = own("set", record={"group": "g"}, more={tags.PENDING: {"change": "create", "group": "g"}})
    counting = own("set", of="uuid-var", lv="var.set", record={"group": "g"})
    assert names(seen(ROOT, pending, counting), ROOT) == ["set"]


def test_what_was_replaced_is_not_there_any_more_once_the_new_one_counts():
    old = own("first")
    new = own("first", lv="root.rp-1", record={"replaces": old.uuid, "group": "g"})
    assert [each.name for _unused, each in seen(ROOT, old, new).snapshots(ROOT)] == ["root.rp-1"]
    waiting = own(
        "first", lv="root.rp-1", record={"replaces": old.uuid, "group": "g"}, more={tags.PENDING: {"group": "g"}}
    )
    assert [each.name for _unused, each in seen(ROOT, old, waiting).snapshots(ROOT)] == ["root.first"]


def test_an_overflowed_snapshot_is_not_ready_and_says_so():
    lost = volume("root.x", roles=THICK, invalid=True, records={tags.SNAPSHOT: {"name": "x", "of": "uuid-root"}})
    [(snapshot, _unused)] = seen(ROOT, lost).snapshots(ROOT)
    assert not snapshot.ready
    assert "overflowed" in snapshot.extra["fault"]


def test_a_token_of_a_merge_counts_once_the_snapshot_is_merging_or_gone():
    target = volume(
        "root", records={tags.RETURN: {"name": "x", "uuid": "uuid-s", "at": 7, "once": "job", "how": "merge"}}
    )
    still = volume("root.x", "uuid-s", roles=THICK)
    merging = volume("root.x", "uuid-s", roles=THICK, merging=True)
    assert view.spent_tokens(seen(target, still), target) == {}
    assert view.spent_tokens(seen(target, merging), target) == {"job": 7}
    assert view.spent_tokens(seen(target), target) == {"job": 7}
