# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every state of zfs_snapshot on real pools: in check mode, for real, and again."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.tests.guest.zfs_pools import two_pools
from ansible_collections.restorepoint.core.tests.lab.driver import Failed


@pytest.fixture(scope="module")
def pools(guest):
    yield from two_pools(guest)


def test_a_snapshot_is_taken_with_its_description_and_a_second_run_changes_nothing(pools):
    top = pools.fresh()
    labels = {"app": "web", "n": 1}
    made = pools.predicted_then_done(dataset=[top], name="one", description='a "b"\t\\ ü', labels=labels)
    snapshot = made.only["snapshot"]
    assert (snapshot["description"], snapshot["labels"]) == ('a "b"\t\\ ü', {"app": "web", "n": "1"})
    assert (snapshot["owner"], snapshot["policy"], snapshot["ready"]) == ("manual", None, True)
    (shown,) = pools.info(dataset=[top])["snapshots"]
    lean = pools.info(dataset=[top], tree=False)
    assert (lean["snapshots"], "tree" in lean) == ([shown], False)
    few = pools.info(dataset=[top], fields=["name", "size_bytes"])
    assert few["snapshots"] == [{"name": "one", "size_bytes": shown["size_bytes"]}]
    assert few["tree"] == {top: [{"name": "one", "children": []}]}
    assert shown == snapshot


def test_a_tree_with_volumes_in_two_pools_is_one_instant_in_each(pools):
    top, other = pools.fresh(), pools.fresh("two")
    pools.script(f"zfs create {top}/a; zfs create {top}/a/b; zfs create -s -V 16M {top}/v")
    made = pools.predicted_then_done(dataset=[top, other], recursive=True, name="one", owner="nightly")
    assert [each["target"] for each in made["results"]] == [top, f"{top}/a", f"{top}/a/b", f"{top}/v", other]
    assert len({each["snapshot"]["extra"]["createtxg"] for each in made["results"] if each["target"] != other}) == 1
    assert made["spread_seconds"] > 0
    alone = pools.call(dataset=[top], recursive=True, name="two")
    assert alone["spread_seconds"] == 0


def test_a_description_is_changed_in_place_and_back_again(pools):
    top = pools.fresh()
    pools.zfs("create", f"{top}/a")
    pools.call(dataset=[top], recursive=True, name="one", description="first", labels={"a": "b"})
    before = pools.get(f"{top}@one", "guid")
    changed = pools.predicted_then_done(dataset=[top], recursive=True, name="one", description="", labels={})
    assert [each["action"] for each in changed["results"]] == ["described", "described"]
    assert changed["results"][0]["snapshot"]["description"] == ""
    assert pools.get(f"{top}@one", "guid") == before


def test_only_what_a_snapshot_has_itself_is_its_metadata(pools):
    top = pools.fresh()
    pools.zfs("set", "restorepoint:owner=nightly", "restorepoint:description=inherited", top)
    pools.zfs("snapshot", f"{top}@foreign")
    pools.call(dataset=[top], name="own", description="mine")
    shown = {each["name"]: each for each in pools.info(dataset=[top])["snapshots"]}
    assert (shown["foreign"]["owner"], shown["foreign"]["description"]) == (None, "")
    assert (shown["own"]["owner"], shown["own"]["description"]) == ("manual", "mine")
    for asked in ({"fields": ["name"]}, {"fields": ["name"], "owner": "manual"}, {"fields": ["name", "owner"]}):
        few = pools.info(dataset=[top], **asked)["snapshots"]
        expected = [each for each in shown.values() if "owner" not in asked or each["owner"] == "manual"]
        assert few == [{key: each[key] for key in asked["fields"]} for each in expected]
    pruned = pools.call("pruned", dataset=[top], owner="nightly", keep={"last": 1})
    assert not pruned["changed"]


def test_holds_and_bookmarks_are_made_with_the_snapshot_or_later(pools):
    top = pools.fresh()
    pools.call(dataset=[top], name="one")
    made = pools.predicted_then_done(dataset=[top], name="one", hold="keep me", bookmark="mark")
    assert made.only["action"] == "described"
    assert "keep me" in pools.zfs("holds", "-H", f"{top}@one")
    pools.predicted_then_done(dataset=[top], name="two", hold="h", bookmark="mark2")
    assert pools.zfs("list", "-H", "-t", "bookmark", "-o", "name", "-r", top).split() == [f"{top}#mark", f"{top}#mark2"]
    with pytest.raises(Failed, match=r"bookmark .*#mark is there, of another snapshot"):
        pools.call(dataset=[top], name="three", bookmark="mark")


def test_one_snapshot_each_of_many_datasets_goes_at_one_instant(pools):
    top = pools.fresh()
    pools.script("\n".join(f"zfs create -u {top}/d{number}" for number in range(24)))
    for name in ("one", "two"):
        pools.call(dataset=[top], recursive=True, name=name, owner="nightly")
    pools.zfs("snapshot", f"{top}/d7@foreign")
    pruned = pools.predicted_then_done("pruned", dataset=[top], recursive=True, owner="nightly", keep={"last": 1})
    assert [each["action"] for each in pruned["results"] if each["changed"]] == ["removed"] * 25
    left = pools.zfs("list", "-H", "-t", "snapshot", "-o", "name", "-r", top).split()
    expected = [f"{top}@two", *(f"{top}/d{number}@two" for number in range(24)), f"{top}/d7@foreign"]
    assert sorted(left) == sorted(expected)
    history = pools.script(f"zpool history -i {top.partition('/')[0]} | grep ' destroy {top}[@/]'")
    assert len({line.partition("[txg:")[2].partition("]")[0] for line in history.splitlines()}) == 1


def test_a_held_or_cloned_snapshot_is_not_removed_and_the_blockers_are_named(pools):
    top = pools.fresh()
    pools.call(dataset=[top], name="one", hold="keep")
    pools.zfs("clone", f"{top}@one", f"{top}-clone")
    with pytest.raises(Failed) as failed:
        pools.call("absent", dataset=[top], name="one")
    assert failed.value.reasons == [
        "snapshot 'one' is held: tag keep", f"snapshot 'one' is in use: cloned as {top}-clone",
    ]  # fmt: skip
    assert pools.snapshots(top) == ["one"]
    pools.zfs("destroy", f"{top}-clone")
    pools.zfs("hold", "other", f"{top}@one")
    with pytest.raises(Failed, match="held: tag other"):
        pools.call("absent", dataset=[top], name="one", hold="keep")
    pools.zfs("release", "other", f"{top}@one")
    pools.predicted_then_done("absent", dataset=[top], name="one", hold="keep")
    assert pools.snapshots(top) == []


def test_a_set_that_is_incomplete_or_old_is_replaced_as_a_whole_at_one_instant(pools):
    top = pools.fresh()
    pools.zfs("create", f"{top}/a")
    pools.call(dataset=[top], name="one")
    with pytest.raises(Failed, match="the set would not be of one instant"):
        pools.call(dataset=[top], recursive=True, name="one")
    made = pools.call(dataset=[top], recursive=True, name="one", replace=True)
    assert [each["action"] for each in made["results"]] == ["replaced", "created"]
    assert len({each["snapshot"]["extra"]["createtxg"] for each in made["results"]}) == 1
    assert pools.snapshots(top) == pools.snapshots(f"{top}/a") == ["one"]
    assert pools.marks("tank") == ""


def test_a_rollback_names_what_is_newer_and_takes_it_only_where_that_is_allowed(pools):
    top = pools.fresh()
    pools.write(top, "one")
    pools.call(dataset=[top], name="s1")
    pools.write(top, "two")
    pools.zfs("snapshot", f"{top}@s2")
    pools.zfs("bookmark", f"{top}@s2", f"{top}#b2")
    with pytest.raises(Failed, match="newer snapshots would be lost: s2"):
        pools.call("rolled_back", dataset=[top], name="s1")
    pools.zfs("hold", "h", f"{top}@s2")
    with pytest.raises(Failed, match="'s2' is held: tag h"):
        pools.call("rolled_back", dataset=[top], name="s1", destroy_newer=True)
    pools.zfs("release", "h", f"{top}@s2")
    assert pools.read(top) == "two"
    done = pools.predicted_then_done("rolled_back", dataset=[top], name="s1", destroy_newer=True)
    assert [each["action"] for each in done["results"]] == ["removed", "rolled_back"]
    assert (pools.read(top), pools.snapshots(top)) == ("one", ["s1"])


def test_a_newer_bookmark_alone_blocks_too(pools):
    top = pools.fresh()
    pools.write(top, "one")
    pools.call(dataset=[top], name="s1")
    pools.write(top, "two")
    pools.script(f"zfs snapshot {top}@s2; zfs bookmark {top}@s2 {top}#b; zfs destroy {top}@s2")
    with pytest.raises(Failed, match="newer bookmark #b would be lost"):
        pools.call("rolled_back", dataset=[top], name="s1")
    pools.predicted_then_done("rolled_back", dataset=[top], name="s1", destroy_newer=True)
    assert pools.read(top) == "one"


def test_a_volume_is_returned_and_one_that_is_open_blocks(pools):
    top = pools.fresh()
    volume = f"{top}/v"
    pools.zfs("create", "-s", "-V", "16M", volume)
    pools.write_volume(volume, "one")
    pools.call(dataset=[volume], name="s1")
    pools.write_volume(volume, "two")
    device = pools.device(volume)
    with pools.guest.user(opens=device), pytest.raises(Failed, match=r"pid \d+ \(sleep\) has /dev/zd\d+ open"):
        pools.call("rolled_back", dataset=[volume], name="s1")
    pools.predicted_then_done("rolled_back", dataset=[volume], name="s1")
    assert pools.read_volume(volume) == "one"


def test_a_busy_filesystem_blocks_with_the_process_named_unless_that_is_lifted(pools):
    top = pools.fresh()
    pools.write(top, "one")
    pools.call(dataset=[top], name="s1")
    pools.write(top, "two")
    with pools.guest.user(f"/{top}"):
        with pytest.raises(Failed, match=r"pid \d+ \(sleep\) works in it"):
            pools.call("rolled_back", dataset=[top], name="s1")
        with pytest.raises(Failed, match=r"pid \d+ \(sleep\) works in it"):
            pools.call("rolled_back", dataset=[top], name="s1", keep_current=True, ignore_users=True)
        assert pools.read(top) == "two"
        assert pools.call("rolled_back", dataset=[top], name="s1", ignore_users=True)["changed"]
    assert pools.read(top) == "one"


def test_once_returns_a_dataset_once_for_a_token_whatever_comes_after(pools):
    top = pools.fresh()
    pools.write(top, "one")
    pools.call(dataset=[top], name="s1")
    pools.write(top, "two")
    assert pools.call("rolled_back", dataset=[top], name="s1", once="job-1")["changed"]
    pools.write(top, "three")
    again = pools.call("rolled_back", dataset=[top], name="s1", once="job-1")
    assert (again["changed"], pools.read(top)) == (False, "three")
    assert pools.call("rolled_back", dataset=[top], name="s1", once="job-2")["changed"]
    assert pools.marks("tank") == ""


def test_a_return_keeps_the_present_content_and_can_be_returned_from(pools):
    top = pools.fresh()
    pools.script(f"zfs create {top}/child; zfs set recordsize=16K {top}; zfs set refreservation=1M {top}")
    pools.write(top, "one")
    pools.call(dataset=[top], name="s1", hold="h")
    guid = pools.get(f"{top}@s1", "guid")
    pools.write(top, "two")
    pools.write(f"{top}/child", "present")
    pools.zfs("snapshot", f"{top}@s2")
    done = pools.predicted_then_done("rolled_back", dataset=[top], name="s1", keep_current=True)
    aside = done.only["aside"]
    assert pools.read(top) == "one"
    assert pools.read(f"{top}/child") == "present"
    assert pools.get(f"{top}@s1", "guid") == guid
    assert (pools.get(top, "recordsize"), pools.get(top, "origin")) == ("16384", "-")
    assert pools.get(top, "refreservation") == str(1 << 20)
    (shown,) = pools.info(dataset=[top])["asides"]
    assert (shown["name"], shown["extra"]["dataset"]) == (aside["name"], aside["dataset"])
    assert shown["extra"]["snapshots"] == ["s2"]
    assert pools.marks("tank") == ""
    back = pools.predicted_then_done("rolled_back", dataset=[top], name=aside["name"], keep_current=True)
    assert pools.read(top) == "two"
    assert pools.snapshots(top) == ["s1", "s2"]
    kept = back.only["aside"]["name"]
    assert pools.get(top, "canmount") == "on"
    pools.predicted_then_done("absent", dataset=[top], name=kept)
    assert pools.info(dataset=[top])["asides"] == []
    assert pools.marks("tank") == ""


def test_a_tree_is_returned_as_one_with_what_lies_in_it_and_beside(pools):
    top = pools.fresh()
    pools.script(f"zfs create {top}/a; zfs create {top}/a/b; zfs create -V 16M {top}/v; zfs create {top}/a/off")
    for each in (top, f"{top}/a", f"{top}/a/b"):
        pools.write(each, "one")
    pools.write_volume(f"{top}/v", "one")
    pools.zfs("unmount", f"{top}/a/off")
    pools.call(dataset=[top], recursive=True, name="s1")
    for each in (top, f"{top}/a", f"{top}/a/b"):
        pools.write(each, "two")
    pools.write_volume(f"{top}/v", "two")
    pools.zfs("create", f"{top}/later")
    pools.write(f"{top}/later", "later")
    wanted = [top, f"{top}/a", f"{top}/a/b", f"{top}/v"]
    done = pools.predicted_then_done("rolled_back", dataset=wanted, name="s1", keep_current=True)
    assert len({each["aside"]["name"] for each in done["results"]}) == 1
    assert [pools.read(each) for each in wanted[:3]] == ["one"] * 3
    assert (pools.read_volume(f"{top}/v"), pools.read(f"{top}/later")) == ("one", "later")
    assert pools.get(f"{top}/a/off", "mounted") == "no"
    assert pools.get(f"{top}/v", "refreservation") != "0"
    name = done["results"][0]["aside"]["name"]
    with pytest.raises(Failed, match="lies in it"):
        pools.call("absent", dataset=[top], name=name)
    removed = pools.predicted_then_done("absent", dataset=wanted, name=name)
    assert all(each["action"] == "removed" for each in removed["results"])


def test_a_clone_is_made_with_its_mount_point_and_properties(pools):
    top = pools.fresh()
    pools.write(top, "one")
    pools.call(dataset=[top], name="s1")
    pools.write(top, "two")
    options = {"dataset": [top], "name": "s1", "clone": [f"{top}-c"], "mountpoint": ["/mnt/c"]}
    done = pools.predicted_then_done("cloned", properties={"readonly": True, "a:b": "c"}, **options)
    assert done.only["clone"] == f"{top}-c"
    assert pools.guest.read("/mnt/c/f") == "one"
    assert (pools.get(f"{top}-c", "readonly"), pools.get(f"{top}-c", "a:b")) == ("on", "c")
    with pytest.raises(Failed, match="exists, and is no clone of it"):
        pools.call("cloned", dataset=[top], name="s1", clone=[pools.fresh()])


def test_keep_rules_remove_only_what_is_owned_and_show_what_that_frees(pools):
    top = pools.fresh()
    for number in range(1, 5):
        pools.guest.run("dd", "if=/dev/urandom", f"of=/{top}/f", "bs=1M", "count=2", "conv=fsync", "status=none")
        pools.call(dataset=[top], name=f"n{number}", owner="nightly")
    pools.guest.run("rm", f"/{top}/f")
    pools.script(f"zfs snapshot {top}@foreign; zpool sync")
    pools.zfs("hold", "h", f"{top}@n1")
    done = pools.predicted_then_done("pruned", dataset=[top], owner="nightly", keep={"last": 1})
    assert pools.snapshots(top) == ["n1", "n4", "foreign"]
    freed = [each["frees_together_bytes"] for each in done["results"]]
    assert len(set(freed)) == 1
    assert freed[0] > 4_000_000


def test_an_encryption_root_is_returned_and_its_key_loaded_again(pools):
    top = pools.fresh()
    root = f"{top}/enc"
    pools.script(
        f"zfs create -o encryption=on -o keyformat=passphrase -o keylocation=file:///root/zfs.key {root};"
        f"zfs create {root}/kid; zfs create -o encryption=on -o keyformat=passphrase"
        f" -o keylocation=file:///root/zfs.key {root}/own"
    )
    pools.write(root, "one")
    pools.write(f"{root}/kid", "kid")
    pools.call(dataset=[root], name="s1")
    pools.write(root, "two")
    done = pools.predicted_then_done("rolled_back", dataset=[root], name="s1", keep_current=True)
    assert (pools.read(root), pools.read(f"{root}/kid")) == ("one", "kid")
    assert pools.get(f"{root}/kid", "encryptionroot") == root
    assert pools.get(root, "keystatus") == "available"
    pools.predicted_then_done("absent", dataset=[root], name=done.only["aside"]["name"])
    pools.zfs("set", "keylocation=prompt", root)
    pools.write(root, "three")
    with pytest.raises(Failed, match="keylocation=prompt"):
        pools.call("rolled_back", dataset=[root], name="s1", keep_current=True)
    pools.predicted_then_done("rolled_back", dataset=[root], name="s1")
    assert pools.read(root) == "one"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dataset": ["tank/nothing"], "name": "x"}, "Cannot use tank/nothing: there is no such dataset"),
        ({"dataset": ["nopool/x"], "name": "x"}, "Cannot use nopool/x: there is no such dataset"),
        ({"dataset": ["tank@x"], "name": "x"}, "it names a snapshot or bookmark"),
        ({"dataset": ["/tank"], "name": "x"}, "it is a path"),
        ({"dataset": ["tank"], "name": "a/b"}, "it is more than the part after the @"),
        ({"dataset": ["tank"], "name": "a%b"}, "ZFS has letters"),
        ({"dataset": ["tank"], "name": "aside-20261122t013000z"}, "what a return has set aside"),
        ({"dataset": ["tank"], "name": "x" * 252}, "ZFS allows 255"),
        ({"dataset": ["tank"], "name": "x", "description": "x" * 9000}, "it takes 9000 bytes"),
        ({"dataset": ["tank"], "name": "x", "hold": ".send"}, "as the tag of a hold"),
        ({"dataset": ["tank"], "name": "x", "state": "rolled_back"}, "there is no snapshot 'x'"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(pools, options, words):
    with pytest.raises(Failed) as failed:
        pools.call(options.pop("state", "present"), **options)
    assert words in str(failed.value)
