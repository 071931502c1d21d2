# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""btrfs_snapshot on real Btrfs: every state, twice and in check mode; subvolumes inside others; blockers."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.btrfs import backend
from ansible_collections.restorepoint.core.plugins.module_utils.backends.stored import subvolume
from ansible_collections.restorepoint.core.tests.lab.driver import Failed
from ansible_collections.restorepoint.core.tests.lab.filesystems import run, unmount
from ansible_collections.restorepoint.core.tests.lab.volumes import Volumes, create, picture, uuid


@pytest.fixture
def volumes(lab):
    """A fresh folder on Btrfs."""
    with lab.place("btrfs") as place:
        yield Volumes(place.folder)


def stored(volumes, name="a", target=None):
    """Return where a snapshot lies."""
    (folder,) = [
        each for each in volumes.store.iterdir() if each.is_dir() and str((target or volumes.target).name) in each.name
    ]
    return folder / name


# -- present -----------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_a_read_only_subvolume_of_the_content_at_that_instant(volumes):
    target = volumes.make()
    result = volumes.twice(description="before", labels={"app": "web"})
    snapshot = stored(volumes)
    facts = subvolume.show(str(snapshot))
    assert picture(snapshot) == {"file": "one"}
    assert facts.read_only
    assert facts.parent_uuid == uuid(target)
    with pytest.raises(OSError, match="Read-only"):
        (snapshot / "file").write_text("two")
    shown = result.only["snapshot"]
    assert (shown["backend"], shown["description"], shown["labels"]) == ("btrfs", "before", {"app": "web"})
    assert shown["extra"]["uuid"] == facts.uuid
    assert stat.S_IMODE(volumes.store.stat().st_mode) == 0o700


def test_a_file_that_was_only_just_written_is_whole_in_the_snapshot(volumes):
    target = volumes.make()
    (target / "big").write_bytes(b"x" * (1 << 20))
    volumes.call()
    assert (stored(volumes) / "big").stat().st_size == 1 << 20
    assert (stored(volumes) / "big").read_bytes() == b"x" * (1 << 20)


def test_several_subvolumes_are_taken_together_and_it_is_said_how_far_apart(volumes):
    targets = [volumes.make(), volumes.make(name="other")]
    result = volumes.twice(subvolume=targets)
    instants = sorted(each["instant"] for each in result["results"])
    assert result["spread_seconds"] == round(instants[1] - instants[0], 3)
    assert 0 <= result["spread_seconds"] < 60


def test_a_second_run_never_puts_a_snapshot_into_the_first(volumes):
    """`btrfs subvolume snapshot`, run twice, does; so does a task that calls it."""
    volumes.make()
    volumes.twice()
    assert sorted(os.listdir(stored(volumes))) == ["file"]


@pytest.mark.parametrize("foreign", ["subvolume", "snapshot", "directory"])
def test_what_lies_under_the_name_but_was_not_taken_from_there_does_not_count(volumes, foreign):
    """community.general.btrfs_subvolume takes whatever is there for the snapshot that was asked for."""
    volumes.make()
    other = volumes.make(name="other")
    volumes.call()
    run("btrfs", "subvolume", "delete", stored(volumes))
    if foreign == "directory":
        stored(volumes).mkdir()
    elif foreign == "subvolume":
        create(stored(volumes))
    else:
        run("btrfs", "subvolume", "snapshot", "-r", other, stored(volumes))
    failed = volumes.refused()
    assert "is not the one that was taken" in failed.reasons[0]
    assert volumes.call(replace=True).only["action"] == "replaced"
    assert picture(stored(volumes)) == {"file": "one"}


def test_a_snapshot_that_was_made_writable_and_changed_does_not_count(volumes):
    volumes.make()
    volumes.call()
    run("btrfs", "property", "set", "-ts", stored(volumes), "ro", "false")
    assert "was made writable" in volumes.refused("a", "rolled_back").result["blockers"][0]["reason"]
    (stored(volumes) / "file").write_text("forged")
    run("btrfs", "property", "set", "-ts", stored(volumes), "ro", "true")
    run("sync", "-f", volumes.folder)
    assert "was written to" in volumes.refused().reasons[0]
    (proof,) = volumes.info(verify=True)["verified"]
    assert not proof["ok"]
    assert "was written to" in proof["fault"]


def test_subvolumes_inside_are_named_as_left_out_or_taken_with_recursive(volumes):
    volumes.make("db", "srv/deep", "db/log")
    alone = volumes.call("alone").only
    assert alone["left_out"] == ["db", "db/log", "srv/deep"]
    assert picture(stored(volumes, "alone")) == {"file": "one", "db": None, "srv": None, "srv/deep": None}
    together = volumes.twice("all", recursive=True).only
    assert together["nested"] == ["db", "db/log", "srv/deep"]
    assert together["left_out"] == []
    nested = stored(volumes, "all.nested")
    assert sorted((each / "file").read_text() for each in nested.iterdir()) == [
        "one in db", "one in db/log", "one in srv/deep"]  # fmt: skip
    assert all(subvolume.show(str(each)).read_only for each in nested.iterdir())
    assert together["nested_spread_seconds"] >= 0


def test_a_snapshot_without_the_subvolumes_inside_does_not_count_where_recursive_is_asked(volumes):
    volumes.make("db")
    volumes.call()
    assert "does not hold the subvolume db" in volumes.refused(recursive=True).reasons[0]
    assert volumes.twice(recursive=True, replace=True).only["action"] == "replaced"
    assert not volumes.leftovers()


# -- absent, pruned ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recursive", [False, True])
def test_a_removed_snapshot_is_gone_from_the_disk(volumes, recursive):
    volumes.make("db")
    volumes.call(recursive=recursive)
    before = run("btrfs", "subvolume", "list", "-o", volumes.folder.parent).count("\n")
    gone = 2 if recursive else 1
    assert volumes.twice("a", "absent").only["action"] == "removed"
    assert run("btrfs", "subvolume", "list", "-o", volumes.folder.parent).count("\n") == before - gone
    assert volumes.names == []
    assert not volumes.leftovers()


def test_pruning_keeps_what_the_rules_keep_and_asides_by_their_own(volumes):
    target = volumes.make()
    for name in ("a", "b", "c"):
        volumes.call(name)
        (target / "file").write_text(name)
    volumes.call("a", "rolled_back")
    (target / "file").write_text("x")
    volumes.call("b", "rolled_back")
    assert len(volumes.info()["asides"]) == 2
    done = volumes.twice(None, "pruned", keep={"last": 1})
    assert volumes.names == ["c"]
    assert {each["action"] for each in done["results"]} == {"removed"}
    assert len(volumes.info()["asides"]) == 2
    volumes.twice(None, "pruned", asides={"last": 1})
    assert len(volumes.info()["asides"]) == 1


# -- rolled_back -------------------------------------------------------------------------------------------------------


def test_a_return_brings_the_content_back_and_keeps_what_was_there(volumes):
    target = volumes.make()
    volumes.call()
    (target / "file").write_text("two")
    result = volumes.twice("a", "rolled_back").only
    assert picture(target) == {"file": "one"}
    (target / "file").write_text("writable")
    aside = volumes.folder / f"data.{result['aside']['name']}"
    assert str(aside) == result["aside"]["path"]
    assert picture(aside) == {"file": "two"}
    assert volumes.call(result["aside"]["name"], "rolled_back").only["action"] == "rolled_back"
    assert picture(target) == {"file": "two"}
    assert volumes.twice(result["aside"]["name"], "absent").only["action"] == "removed"
    assert not volumes.leftovers()


def test_an_untouched_subvolume_is_not_returned_and_one_byte_is_noticed(volumes):
    target = volumes.make()
    volumes.call()
    assert volumes.call("a", "rolled_back").only["action"] == "unchanged"
    (target / "file").write_text("onE")
    assert volumes.call("a", "rolled_back", check_mode=True).only["action"] == "rolled_back"


@pytest.mark.parametrize("recursive", [False, True])
def test_reading_what_was_returned_is_no_difference(volumes, recursive):
    """It moves access times, and so writes."""
    target = volumes.make("db", "srv/deep")
    volumes.call(recursive=recursive)
    (target / "file").write_text("two")
    before = {each: each.stat().st_mtime_ns for each in (target, target / "srv")}
    volumes.call("a", "rolled_back", recursive=recursive)
    assert (target / "srv").stat().st_mtime_ns == before[target / "srv"]
    changed = subvolume.show(str(target)).changed
    for path in ("file", "db/file", "srv/deep/file"):
        os.utime(target / path, ns=(1, (target / path).stat().st_mtime_ns))
    run("sync", "-f", volumes.folder)
    assert subvolume.show(str(target)).changed > changed
    again = volumes.call("a", "rolled_back", recursive=recursive).only
    assert again["action"] == "unchanged"
    assert "every file has the same content" in again["reason"]


def test_a_snapshot_taken_after_a_return_does_not_hide_that_nothing_was_written(volumes):
    target = volumes.make("db")
    volumes.call(recursive=True)
    (target / "file").write_text("two")
    volumes.call("a", "rolled_back", recursive=True)
    volumes.call("later", recursive=True)
    assert volumes.call("a", "rolled_back", recursive=True).only["action"] == "unchanged"


def test_without_keep_current_nothing_is_left_of_what_was_there(volumes):
    target = volumes.make()
    volumes.call()
    (target / "file").write_text("two")
    volumes.twice("a", "rolled_back", keep_current=False)
    assert picture(target) == {"file": "one"}
    assert sorted(each.name for each in volumes.folder.iterdir()) == ["data", "store"]


def test_a_missing_subvolume_is_brought_back(volumes):
    target = volumes.make("db")
    volumes.call(recursive=True)
    run("btrfs", "subvolume", "delete", target / "db")
    run("btrfs", "subvolume", "delete", target)
    volumes.twice("a", "rolled_back", recursive=True)
    assert picture(target) == {"file": "one", "db": None, "db/file": "one in db"}


def test_a_tree_taken_with_recursive_is_returned_whole(volumes):
    target = volumes.make("db", "srv/deep", "db/log")
    before = picture(target)
    volumes.call(recursive=True)
    for path in ("file", "db/file", "db/log/file"):
        (target / path).write_text("two")
    changed = picture(target)
    result = volumes.twice("a", "rolled_back", recursive=True).only
    assert picture(target) == before
    assert result["nested_returned"] == ["db", "db/log", "srv/deep"]
    assert set(subvolume.tree(str(target))) == {"db", "db/log", "srv/deep"}
    assert picture(volumes.folder / f"data.{result['aside']['name']}") == changed
    volumes.call(result["aside"]["name"], "rolled_back", recursive=True)
    assert picture(target) == changed
    volumes.call(None, "pruned", asides={"max_age": "1s"})
    assert not volumes.leftovers()


def test_one_write_in_a_subvolume_inside_makes_the_tree_differ(volumes):
    target = volumes.make("db")
    volumes.call(recursive=True)
    (target / "db" / "file").write_text("two")
    told = volumes.call("a", "rolled_back", recursive=True, check_mode=True).only
    assert "in the subvolume db in it, file has 3 bytes instead of 9" in told["reason"]
    assert volumes.call("a", "rolled_back").only["action"] == "unchanged"


def test_subvolumes_that_the_snapshot_does_not_hold_are_moved_over_as_they_are(volumes):
    target = volumes.make("db", "srv/deep", "db/log")
    volumes.call()
    (target / "file").write_text("two")
    (target / "db" / "file").write_text("two in db")
    same = {path: uuid(target / path) for path in ("db", "srv/deep", "db/log")}
    result = volumes.twice("a", "rolled_back").only
    assert result["nested_moved"] == ["db", "srv/deep"]
    assert (target / "file").read_text() == "one"
    assert (target / "db" / "file").read_text() == "two in db"
    assert {path: uuid(target / path) for path in same} == same
    aside = volumes.folder / f"data.{result['aside']['name']}"
    assert subvolume.tree(str(aside)) == []
    assert not volumes.leftovers()


def test_a_subvolume_made_after_a_recursive_snapshot_is_moved_over(volumes):
    target = volumes.make("db")
    volumes.call(recursive=True)
    create(target / "db" / "new")
    (target / "db" / "new" / "file").write_text("new")
    result = volumes.call("a", "rolled_back", recursive=True).only
    assert (result["nested_returned"], result["nested_moved"]) == (["db"], ["db/new"])
    assert picture(target)["db/new/file"] == "new"


def test_subvolumes_can_be_left_with_what_is_set_aside_but_not_be_lost(volumes):
    target = volumes.make("db")
    volumes.call()
    (target / "file").write_text("two")
    refused = volumes.refused("a", "rolled_back", nested="aside", keep_current=False)
    assert refused.reasons == ["the subvolumes db in it are not in the snapshot, and would be lost"]
    result = volumes.call("a", "rolled_back", nested="aside").only
    aside = volumes.folder / f"data.{result['aside']['name']}"
    assert (aside / "db" / "file").read_text() == "one in db"
    assert picture(target) == {"file": "one", "db": None}
    volumes.twice(result["aside"]["name"], "absent")
    assert sorted(each.name for each in volumes.folder.iterdir()) == ["data", "store"]


def test_a_subvolume_without_a_place_in_the_snapshot_stands_in_the_way(volumes):
    target = volumes.make()
    (target / "taken").write_text("a file")
    volumes.call()
    (target / "taken").unlink()
    create(target / "taken")
    (target / "later").mkdir()
    create(target / "later" / "db")
    create(target / "fixed")
    run("btrfs", "property", "set", "-ts", target / "fixed", "ro", "true")
    reasons = volumes.refused("a", "rolled_back").reasons
    assert [each for each in reasons if "taken" in each] == [
        "the subvolume taken in it is not in the snapshot, where a file has its name"]  # fmt: skip
    assert any("where there is no directory later" in each for each in reasons)
    assert any("the subvolume fixed in it is read-only" in each for each in reasons)
    assert (target / "later" / "db").is_dir()
    assert volumes.call("a", "rolled_back", nested="aside").only["action"] == "rolled_back"


def test_recursive_is_refused_for_a_snapshot_that_holds_no_subvolumes(volumes):
    target = volumes.make("db")
    volumes.call()
    (target / "file").write_text("two")
    assert (
        "was taken without recursive, and does not hold db"
        in volumes.refused("a", "rolled_back", recursive=True).reasons[0]
    )


def test_properties_and_attributes_are_kept(volumes):
    target = volumes.make("db", "fixed")
    run("btrfs", "property", "set", target, "compression", "zstd")
    run("chattr", "+C", target / "db")
    run("btrfs", "property", "set", "-ts", target / "fixed", "ro", "true")
    volumes.call(recursive=True)
    (target / "file").write_text("two")
    volumes.call("a", "rolled_back", recursive=True)
    assert run("btrfs", "property", "get", target, "compression").strip() == "compression=zstd"
    assert "C" in run("lsattr", "-d", target / "db").split()[0]
    assert run("btrfs", "property", "get", "-ts", target / "fixed", "ro").strip() == "ro=true"
    assert run("btrfs", "property", "get", "-ts", target, "ro").strip() == "ro=false"


def test_a_token_returns_once(volumes):
    target = volumes.make()
    volumes.call()
    (target / "file").write_text("two")
    assert volumes.call("a", "rolled_back", once="job-1").only["action"] == "rolled_back"
    (target / "file").write_text("three")
    assert volumes.call("a", "rolled_back", once="job-1").only["action"] == "unchanged"
    assert picture(target) == {"file": "three"}


# -- cloned ------------------------------------------------------------------------------------------------------------


def test_a_clone_is_writable_and_known_by_its_uuid(volumes):
    target = volumes.make("db")
    volumes.call(recursive=True)
    clone = volumes.folder / "copy"
    volumes.twice("a", "cloned", clone=[clone], recursive=True)
    assert picture(clone) == picture(target)
    (clone / "file").write_text("mine")
    assert volumes.call("a", "cloned", clone=[clone], recursive=True).only["action"] == "unchanged"
    run("btrfs", "subvolume", "delete", clone / "db", clone)
    create(clone)  # has the same inode number as the clone had
    assert f"{clone} exists, and is no clone of it" in volumes.refused("a", "cloned", clone=[clone]).reasons


# -- what stands in the way --------------------------------------------------------------------------------------------


def test_what_is_no_subvolume_or_lies_elsewhere_is_refused(volumes, lab):
    target = volumes.make()
    (target / "folder").mkdir()
    assert "it is no Btrfs subvolume" in str(volumes.refused(subvolume=[target / "folder"]))
    with lab.place("ext4") as other:
        (other.folder / "dir").mkdir()
        assert "two filesystems" in str(volumes.refused(subvolume=[other.folder / "dir"]))
        volumes_there = Volumes(other.folder)
        assert "does not lie on Btrfs" in str(volumes_there.refused(subvolume=[target]))
    inside = Volumes(target)
    assert "the store lies inside the subvolume" in str(inside.refused(subvolume=[target]))
    assert not volumes.store.exists()


def test_a_process_that_uses_it_and_a_mount_by_subvolid_stand_in_the_way(volumes, tmp_path):
    target = volumes.make("db")
    volumes.call()
    (target / "file").write_text("two")
    user = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, cwd=target / "db"
    )
    try:
        assert any(f"pid {user.pid}" in each for each in volumes.refused("a", "rolled_back").reasons)
    finally:
        user.communicate()
    device = run("findmnt", "-n", "-o", "SOURCE", "-T", volumes.folder).split("[")[0].strip()
    run("mount", "-o", f"subvolid={subvolume.show(str(target)).number}", device, tmp_path)
    try:
        assert any(f"mounted at {tmp_path}" in each for each in volumes.refused("a", "rolled_back").reasons)
        result = volumes.call("a", "rolled_back", ignore_users=True, nested="aside").only
        assert result["remount_required"] == [str(tmp_path)]
        refused = volumes.refused(result["aside"]["name"], "absent")
        assert f"is in use: it is mounted at {tmp_path}" in refused.reasons[0]
    finally:
        unmount(tmp_path)
    volumes.call(result["aside"]["name"], "absent")


def test_a_read_only_target_stands_in_the_way(volumes):
    target = volumes.make()
    volumes.call()
    (target / "file").write_text("two")
    run("btrfs", "property", "set", "-ts", target, "ro", "true")
    assert volumes.refused("a", "rolled_back").reasons == ["it is read-only"]
    assert volumes.twice("b").only["snapshot"]["extra"]["source_read_only"]


def test_a_swap_file_stands_in_the_way_of_a_snapshot_and_the_tools_words_are_told(volumes, monkeypatch):
    target = volumes.make()
    swap = target / "swap"
    swap.touch(0o600)
    run("chattr", "+C", swap)
    run("fallocate", "-l", "16M", swap)
    run("mkswap", swap)
    try:
        run("swapon", swap)
    except RuntimeError as error:
        pytest.fail(f"the lab cannot use a swap file: {error}")
    try:
        assert volumes.refused().reasons == ["the swap file swap in it is in use, and Btrfs refuses a snapshot of that"]
        monkeypatch.setattr(backend, "_SWAPS", "/nonexistent")
        with pytest.raises(Failed, match=r"Text file busy.*subvolume of their own"):
            volumes.call()
        assert not volumes.leftovers()
    finally:
        run("swapoff", swap)


# -- info --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quotas", [False, True])
def test_sizes_tell_what_a_snapshot_holds_alone(lab, quotas):
    with lab.extra_disk("btrfs") as disk:
        volumes = Volumes(disk)
        target = volumes.make("db")
        if quotas:
            run("btrfs", "quota", "enable", disk)
            run("btrfs", "quota", "rescan", "-w", disk)  # enabling begins one, and does not wait for it
        (target / "big").write_bytes(os.urandom(1 << 20))
        (target / "db" / "big").write_bytes(os.urandom(1 << 20))
        volumes.call(recursive=True)
        (target / "big").unlink()
        (target / "db" / "big").unlink()
        run("sync", "-f", disk)
        (shown,) = volumes.info(sizes=True)["snapshots"]
        assert shown["extra"]["measured_by"] == ("quota groups" if quotas else "extents")
        assert 2 << 20 <= shown["size_bytes"] <= 3 << 20
        assert 2 << 20 <= shown["referenced_bytes"] <= 3 << 20


def test_info_lists_the_store_and_proves_what_is_in_it(volumes):
    volumes.make("db")
    other = volumes.make(name="other")
    volumes.call(recursive=True)
    volumes.call("b", subvolume=[other])
    found = volumes.info(verify=True)
    assert [(each["target"], each["name"]) for each in found["snapshots"]] == [
        (str(volumes.target), "a"), (str(other), "b")]  # fmt: skip
    assert all(each["ok"] for each in found["verified"])
    assert list(found["tree"]) == [str(volumes.target), str(other)]
    assert [each["name"] for each in volumes.info(subvolume=[other])["snapshots"]] == ["b"]
