# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands around a dataset's content stays through a return: legacy mounts, grants of `zfs allow`, and shares."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.tests.guest.zfs_pools import two_pools

SHARE = "ro=@192.0.2.0/24,no_subtree_check"


@pytest.fixture(scope="module")
def pools(guest):
    yield from two_pools(guest)


@pytest.fixture
def legacy(pools, guest):
    """Make a dataset with mountpoint=legacy, mounted by hand; give its name and where it is mounted."""
    dataset = f"{pools.fresh()}/by hand"
    place = f"/mnt/{dataset.replace('/', '-')}"
    pools.zfs("create", "-o", "mountpoint=legacy", dataset)
    guest.run("mkdir", "-p", place)
    guest.run("mount", "-t", "zfs", "-o", "nosuid,nodev", dataset, place)
    yield dataset, place
    guest.run("umount", place)


def mounted(guest, place):
    """Return what is mounted on a place, and the options that the test gave."""
    source, options = guest.run("findmnt", "-rn", "-o", "SOURCE,OPTIONS", place).strip().rsplit(" ", 1)
    return source.replace(r"\x20", " "), {"nosuid", "nodev"} & set(options.split(","))


def put(guest, place, text):
    guest.run("dd", f"of={place}/f", "conv=fsync", "status=none", input=text)


def allowed(pools, dataset):
    return pools.zfs("allow", dataset)


@pytest.mark.parametrize("keep_current", [False, True])
def test_a_legacy_dataset_is_returned_under_the_mount_that_somebody_made_by_hand(pools, guest, legacy, keep_current):
    dataset, place = legacy
    put(guest, place, "one")
    pools.call(dataset=[dataset], name="s1")
    put(guest, place, "two")
    done = pools.predicted_then_done("rolled_back", dataset=[dataset], name="s1", keep_current=keep_current)
    assert "warnings" not in done
    assert guest.read(f"{place}/f") == "one"
    assert mounted(guest, place) == (dataset, {"nosuid", "nodev"})
    assert (pools.get(dataset, "mountpoint"), pools.get(dataset, "mountpoint", source=True)) == ("legacy", "local")
    if keep_current:
        aside = done.only["aside"]
        assert (pools.get(aside["dataset"], "mounted"), pools.get(aside["dataset"], "mountpoint")) == ("no", "legacy")
        pools.predicted_then_done("rolled_back", dataset=[dataset], name=aside["name"], keep_current=True)
        assert guest.read(f"{place}/f") == "two"
        assert mounted(guest, place) == (dataset, {"nosuid", "nodev"})
    assert pools.marks("tank") == ""


def test_a_legacy_dataset_that_is_not_mounted_stays_so_through_a_return(pools, guest, legacy):
    dataset, place = legacy
    put(guest, place, "one")
    pools.call(dataset=[dataset], name="s1")
    put(guest, place, "two")
    guest.run("umount", place)
    pools.predicted_then_done("rolled_back", dataset=[dataset], name="s1", keep_current=True)
    assert pools.get(dataset, "mounted") == "no"
    guest.run("mount", "-t", "zfs", dataset, place)
    assert guest.read(f"{place}/f") == "one"


def test_a_legacy_child_that_is_not_returned_is_mounted_again_where_it_was(pools, guest, legacy):
    dataset, place = legacy
    parent = dataset.rpartition("/")[0]
    put(guest, place, "present")
    pools.write(parent, "one")
    pools.call(dataset=[parent], name="s1")
    pools.write(parent, "two")
    pools.predicted_then_done("rolled_back", dataset=[parent], name="s1", keep_current=True)
    assert (pools.read(parent), guest.read(f"{place}/f")) == ("one", "present")
    assert mounted(guest, place) == (dataset, {"nosuid", "nodev"})
    assert pools.marks("tank") == ""


def test_what_is_allowed_on_a_dataset_is_allowed_after_a_return_that_keeps_the_present(pools):
    top = pools.fresh()
    child = f"{top}/child"
    pools.script(
        f"zfs create {child}; zfs create {top}/kept;"
        f"zfs allow -s @backup snapshot,hold {top}; zfs allow -g daemon @backup,send {top};"
        f"zfs allow -l -u daemon mount,userprop {top}; zfs allow -d -u nobody rollback,destroy {top};"
        f"zfs allow -c clone {top}; zfs allow -e diff {top};"
        f"zfs allow -u 54321 receive {child}; zfs allow -u daemon rename {top}/kept"
    )
    before = {name: allowed(pools, name) for name in (top, child, f"{top}/kept")}
    assert "user (unknown: 54321) receive" in before[child]
    pools.call(dataset=[top, child], name="s1")
    for name in (top, child):  # what has not been written since is not returned at all
        pools.write(name, "later")
    done = pools.predicted_then_done("rolled_back", dataset=[top, child], name="s1", keep_current=True)
    assert "warnings" not in done
    assert [each["action"] for each in done["results"]] == ["rolled_back", "rolled_back"]
    assert {name: allowed(pools, name) for name in before} == before
    # They stand on what was set aside as well, so that a return to it brings them back.
    aside = done["results"][0]["aside"]
    assert "user nobody destroy,rollback" in allowed(pools, aside["dataset"])
    pools.call("rolled_back", dataset=[top, child], name=aside["name"], keep_current=True)
    assert {name: allowed(pools, name) for name in before} == before


def test_a_share_that_a_dataset_has_itself_is_its_own_after_a_return(pools):
    """The property is what is tested: no NFS server runs here."""
    top = pools.fresh()
    pools.script(f"zfs create {top}/a; zfs set sharenfs={SHARE} {top}; zfs create -o sharenfs=off {top}/off")
    pools.write(top, "one")
    pools.call(dataset=[top], name="s1")
    pools.write(top, "two")
    for options in ({"keep_current": True}, {}):
        pools.predicted_then_done("rolled_back", dataset=[top], name="s1", **options)
        assert pools.read(top) == "one"
        shares = [(pools.get(name, "sharenfs"), pools.get(name, "sharenfs", source=True)) for name in below(top)]
        assert shares == [(SHARE, "local"), (SHARE, f"inherited from {top}"), ("off", "local")]
        pools.write(top, "two")


def below(top):
    return [top, f"{top}/a", f"{top}/off"]
