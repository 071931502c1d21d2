# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every state of lvm_snapshot on real LVM, each twice and in check mode, thick and thin, ext4 and XFS."""

from __future__ import annotations

import time

import pytest

from ansible_collections.restorepoint.core.tests.guest.lvm import Storage
from ansible_collections.restorepoint.core.tests.lab.driver import Failed


@pytest.fixture
def storage(guest):
    storage = Storage(guest)
    storage.build()
    return storage


def actions(result):
    return [each["action"] for each in result["results"]]


def predicted(result):
    """What of the results check mode has to know beforehand."""
    known = (
        "target",
        "name",
        "action",
        "changed",
        "reason",
        "size_bytes",
        "freed_bytes",
        "deferred",
        "reboot_required",
    )
    return [{key: each[key] for key in known if key in each} for each in result["results"]]


def both(storage, *volumes, **options):
    """Call it in check mode and for real; what was predicted has to be what is done. Return the latter."""
    # By UUID: what check mode returned to a thin snapshot would have the same names as before.
    before = storage.identities()
    foreseen = storage.snapshot(*volumes, check_mode=True, diff=True, **options)
    again = storage.snapshot(*volumes, check_mode=True, diff=True, **options)
    assert storage.identities() == before
    assert foreseen["results"] == again["results"]
    done = storage.snapshot(*volumes, diff=True, **options)
    assert predicted(foreseen) == predicted(done)
    assert foreseen["changed"] == done["changed"]
    assert foreseen["diff"] == done["diff"]
    return done


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_a_thick_snapshot_is_taken_described_and_removed(storage, filesystem):
    volume = storage.thick("lv1", 320 if filesystem == "xfs" else 64, filesystem)
    storage.put("lv1", "one")
    options = {"name": "first", "size": "20%ORIGIN", "description": "The first, of ✓", "labels": {"app": "wéb, x@y"}}
    taken = both(storage, volume, **options)
    assert actions(taken) == ["created"]
    snapshot = taken["results"][0]["snapshot"]
    assert (snapshot["description"], snapshot["labels"]) == ("The first, of ✓", {"app": "wéb, x@y"})
    assert snapshot["owner"] == "manual"
    assert not both(storage, volume, **options)["changed"]
    described = both(storage, volume, **{**options, "description": "Another " + "x" * 3000})
    assert actions(described) == ["described"]
    [shown] = storage.info(volume)["snapshots"]
    assert shown["description"] == "Another " + "x" * 3000
    assert shown["labels"] == {"app": "wéb, x@y"}
    assert shown["extra"]["type"] == "thick"
    removed = both(storage, volume, name="first", state="absent")
    assert actions(removed) == ["removed"]
    assert removed["results"][0]["freed_bytes"] > 0
    assert not both(storage, volume, name="first", state="absent")["changed"]
    assert storage.volumes() == ["lv1"]


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_a_return_to_a_thick_snapshot_uses_it_up_and_a_second_run_finds_that(storage, filesystem):
    volume = storage.thick("lv1", 320 if filesystem == "xfs" else 64, filesystem)
    storage.put("lv1", "one")
    storage.snapshot(volume, name="first", size="50%ORIGIN")
    storage.put("lv1", "two")
    back = both(storage, volume, name="first", state="rolled_back")
    assert actions(back) == ["rolled_back"]
    assert back["results"][0]["merge"] == "done"
    assert storage.get("lv1") == "one"
    assert storage.volumes() == ["lv1"]
    storage.put("lv1", "three")
    second = both(storage, volume, name="first", state="rolled_back")
    assert not second["changed"]
    assert "has used it up" in second["results"][0]["reason"]
    assert storage.get("lv1") == "three"
    storage.snapshot(volume, name="first", size="50%ORIGIN")
    storage.put("lv1", "four")
    assert storage.snapshot(volume, name="first", state="rolled_back")["changed"]
    assert storage.get("lv1") == "three"


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_a_thin_volume_is_returned_cloned_and_keeps_all_its_snapshots(storage, filesystem):
    volume = storage.thin("t1", 320 if filesystem == "xfs" else 64, filesystem)
    storage.put("t1", "one")
    assert actions(both(storage, volume, name="first")) == ["created"]
    storage.put("t1", "two")
    storage.snapshot(volume, name="second")
    storage.put("t1", "three")
    back = both(storage, volume, name="first", state="rolled_back")
    assert actions(back) == ["rolled_back"]
    assert storage.get("t1") == "one"
    assert storage.names(volume) == ["first", "second"]
    assert storage.volumes() == ["pool", "t1", "t1.first", "t1.second"]
    storage.snapshot(volume, name="second", state="rolled_back", keep_current=True)
    assert storage.get("t1") == "two"
    [aside] = storage.info(volume)["asides"]
    assert storage.names(volume) == ["first", "second"]
    assert not both(storage, volume, name="second")["changed"]
    cloned = both(storage, volume, name="first", state="cloned", clone=["copy"])
    assert cloned["results"][0]["clone"] == "vg0/copy"
    assert not both(storage, volume, name="first", state="cloned", clone=["copy"])["changed"]
    assert storage.get("copy") == "one"
    storage.put("copy", "mine")
    assert storage.names(volume) == ["first", "second"]
    storage.snapshot(volume, name=aside["name"], state="rolled_back")
    assert storage.get("t1") == "one"
    assert both(storage, volume, name=aside["name"], state="absent")["changed"]
    assert storage.info(volume)["asides"] == []
    assert both(storage, volume, name="first", state="absent")["changed"]
    assert storage.names(volume) == ["second"]
    assert storage.volumes() == ["copy", "pool", "t1", "t1.second"]
    storage.snapshot(volume, name="second", state="rolled_back")
    assert storage.get("t1") == "two"


def test_what_was_set_on_a_thin_volume_is_set_after_its_return(storage, guest):
    volume = storage.thin("t1")
    guest.run("lvchange", "--addtag", "backup=daily", volume)
    guest.run("lvchange", "--setautoactivation", "n", volume)
    guest.run("lvchange", "--setactivationskip", "y", volume)
    storage.snapshot(volume, name="first")
    storage.snapshot(volume, name="first", state="rolled_back")
    assert "backup=daily" in storage.field("t1", "lv_tags").split(",")
    assert storage.field("t1", "lv_autoactivation") == ""
    assert storage.field("t1", "lv_skip_activation") == "skip activation"
    assert storage.field("t1", "lv_active") == "active"
    assert storage.field("t1", "lv_permissions") == "writeable"


def test_several_volumes_are_taken_in_one_call_and_the_result_says_how_far_apart(storage):
    volumes = [storage.thick("lv1"), storage.thick("lv2"), storage.thin("t1")]
    begun = time.monotonic()
    taken = both(storage, *volumes, name="set")
    assert actions(taken) == ["created"] * 3
    assert 0 < taken["spread_seconds"] < time.monotonic() - begun
    tags = " ".join(storage.field(f"{lv}.set", "lv_tags") for lv in ("lv1", "lv2", "t1"))
    assert "rp.snapshot." in tags
    assert "rp.pending." not in tags
    assert not both(storage, *volumes, name="set")["changed"]


def test_a_set_of_which_a_member_is_missing_is_no_success_and_replace_takes_it_anew(storage):
    volumes = [storage.thick("lv1"), storage.thick("lv2")]
    storage.snapshot(volumes[0], name="set")
    old = storage.field("lv1.set", "lv_uuid")
    with pytest.raises(Failed, match="not on vg0/lv2"):
        storage.snapshot(*volumes, name="set")
    replaced = both(storage, *volumes, name="set", replace=True)
    assert sorted(actions(replaced)) == ["created", "replaced"]
    assert storage.volumes() == ["lv1", "lv1.set", "lv2", "lv2.set"]
    assert storage.field("lv1.set", "lv_uuid") != old
    assert not both(storage, *volumes, name="set")["changed"]


def test_pruning_goes_by_owner_and_never_takes_what_others_made(storage, guest):
    volume = storage.thin("t1")
    for number in range(4):
        storage.snapshot(volume, name=f"nightly-{number}", owner="nightly")
    guest.run("lvcreate", "-qy", "-s", "-n", "t1.by-hand", volume)
    guest.run("lvcreate", "-qy", "-s", "-kn", "-n", "production", volume)
    pruned = both(storage, volume, state="pruned", owner="nightly", keep={"last": 2})
    assert actions(pruned) == ["removed", "removed"]
    assert storage.names(volume) == ["nightly-2", "nightly-3", "t1.by-hand", "production"]
    assert not both(storage, volume, state="pruned", owner="nightly", keep={"last": 2})["changed"]
    storage.snapshot(volume, state="pruned", owner="nightly", keep={"last": 1}, match=["*"])
    left = storage.names(volume)
    assert "production" in left, "an active volume that somebody made of it is in use"


def test_content_of_a_thick_volume_is_kept_by_a_snapshot_taken_first(storage):
    volume = storage.thick("lv1")
    storage.put("lv1", "one")
    storage.snapshot(volume, name="first", size="100%ORIGIN")
    storage.put("lv1", "two")
    back = storage.snapshot(volume, name="first", state="rolled_back", keep_current=True)
    aside = back["results"][0]["aside"]["name"]
    assert storage.get("lv1") == "one"
    assert [each["name"] for each in storage.info(volume)["asides"]] == [aside]
    storage.snapshot(volume, name=aside, state="rolled_back")
    assert storage.get("lv1") == "two"
    assert storage.volumes() == ["lv1"]


def test_a_token_is_used_up_by_one_return(storage):
    volumes = [storage.thin("t1"), storage.thick("lv1")]
    for lv in ("t1", "lv1"):
        storage.put(lv, "one")
    storage.snapshot(*volumes, name="first", size=None)
    for lv in ("t1", "lv1"):
        storage.put(lv, "two")
    assert storage.snapshot(*volumes, name="first", state="rolled_back", once="job-1")["changed"]
    for lv in ("t1", "lv1"):
        assert storage.get(lv) == "one"
        storage.put(lv, "three")
    again = both(storage, *volumes, name="first", state="rolled_back", once="job-1")
    assert not again["changed"]
    assert all("job-1" in each["reason"] for each in again["results"])
    assert [storage.get(lv) for lv in ("t1", "lv1")] == ["three", "three"]
    other = storage.snapshot(volumes[0], name="first", state="rolled_back", once="job-2")
    assert other["changed"]
    assert not storage.snapshot(volumes[0], name="first", state="rolled_back", once="job-1")["changed"]


def test_info_shows_every_volume_that_is_no_snapshot_and_how_full_things_are(storage):
    storage.thick("lv1")
    volume = storage.thin("t1")
    storage.snapshot("vg0/lv1", volume, name="first")
    storage.mount("t1")
    shown = storage.info(used_by=True)
    assert [each["target"] for each in shown["volumes"]] == ["vg0/lv1", "vg0/t1"]
    thin = shown["volumes"][1]
    assert thin["mounted_at"] == ["/mnt/t1"]
    assert thin["used_by"] == ["it is mounted at /mnt/t1"]
    assert thin["used_bytes"] > 0
    [pool] = shown["pools"]
    assert pool["pool"] == "vg0/pool"
    assert pool["monitored"] is True
    assert pool["autoextends"] is False
    assert shown["autoextend"]["snapshot_autoextend_threshold"] == 100
    assert [(each["target"], each["name"]) for each in shown["snapshots"]] == [("vg0/lv1", "first"), (volume, "first")]
    assert [node["name"] for node in shown["tree"]["vg0/lv1"]] == ["first"]
    assert storage.info("/dev/mapper/vg0-t1")["volumes"][0]["target"] == "vg0/t1"


def test_a_renamed_volume_keeps_its_snapshots_and_their_tags(storage, guest):
    volume = storage.thin("t1")
    storage.snapshot(volume, name="first", owner="nightly", description="kept")
    storage.snapshot(volume, name="first", state="rolled_back")
    guest.run("lvrename", "vg0", "t1", "other")
    guest.run("lvrename", "vg0", "t1.first", "whatever")
    [found] = storage.info("vg0/other")["snapshots"]
    assert (found["name"], found["owner"], found["description"]) == ("first", "nightly", "kept")
    assert storage.snapshot("vg0/other", name="first", state="rolled_back")["changed"]
