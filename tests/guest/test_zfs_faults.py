# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs of zfs_snapshot that are killed before every single command of theirs, cut off, or lied to by `zfs`.

Whatever happens, nothing is lost, and the next run ends well or says what to do.
"""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.tests.guest.zfs_pools import two_pools
from ansible_collections.restorepoint.core.tests.lab.driver import Failed

PROGRAMS = ("zfs", "zpool", "mount", "umount")


@pytest.fixture(scope="module")
def pools(guest):
    yield from two_pools(guest)


def test_a_return_that_keeps_the_present_content_survives_a_kill_before_each_of_its_commands(pools):
    """What was there is there afterwards, the child is where it was, and the next run completes the return."""
    top = pools.fresh()
    pools.zfs("create", f"{top}/child")
    pools.write(top, "one")
    pools.write(f"{top}/child", "child")
    pools.call(dataset=[top], name="s1")
    options = {"dataset": [top], "name": "s1", "state": "rolled_back", "keep_current": True}
    at = 1
    while True:
        pools.write(top, f"two {at}")
        died = pools.guest.dies("zfs_snapshot", *PROGRAMS, at=at, when="before", **options)
        if not died:
            break
        result = pools.guest.call("zfs_snapshot", **options)
        assert (pools.read(top), pools.read(f"{top}/child")) == ("one", "child"), at
        assert pools.marks("tank") == "", at
        assert (pools.get(top, "canmount"), pools.get(top, "origin")) == ("on", "-"), at
        asides = pools.info(dataset=[top])["asides"]
        assert len(asides) == 1, (at, result)
        pools.zfs("mount", asides[0]["extra"]["dataset"])
        assert pools.read(asides[0]["extra"]["dataset"]) == f"two {at}", at
        pools.zfs("unmount", asides[0]["extra"]["dataset"])
        pools.call("absent", dataset=[top], name=asides[0]["name"])
        at += 1
    assert at > 15


def test_a_replacement_survives_a_kill_before_each_of_its_commands(pools):
    top = pools.fresh()
    pools.zfs("create", f"{top}/a")
    at = 1
    while True:
        pools.call(dataset=[top], name="one", replace=True, max_age="52w")
        options = {"dataset": [top], "recursive": True, "name": "one", "replace": True}
        died = pools.guest.dies("zfs_snapshot", *PROGRAMS, at=at, when="before", **options)
        if not died:
            break
        pools.call(**options)
        assert pools.snapshots(top) == pools.snapshots(f"{top}/a") == ["one"], at
        assert pools.marks("tank") == "", at
        pools.zfs("destroy", f"{top}/a@one")
        at += 1
    assert at > 6


@pytest.mark.parametrize("when", ["garbage", "failing"])
def test_a_tool_that_prints_nonsense_or_fails_is_an_error_and_nothing_is_changed(pools, when):
    top = pools.fresh()
    pools.call(dataset=[top], name="one")
    for at in (1, 2):
        with pools.guest.shims("zfs", at=at, when=when) as folder:
            for state in ("present", "absent"):
                options = {"dataset": [top], "name": "one" if state == "absent" else "two", "state": state}
                pools.guest.script(f"echo 0 > {folder}/count")
                with pytest.raises(Failed, match="Cannot"):
                    pools.guest.finished(pools.guest.start("zfs_snapshot", shims=folder, **options))
        assert pools.snapshots(top) == ["one"]


def test_a_command_that_hangs_is_ended_and_what_it_made_is_looked_for(pools):
    top = pools.fresh()
    with pools.guest.shims("zfs", at=3, when="hang") as folder:
        process = pools.guest.start("zfs_snapshot", shims=folder, dataset=[top], name="one", timeout=5)
        with pytest.raises(Failed, match="did not end within 5 s"):
            pools.guest.finished(process)
    assert pools.snapshots(top) == []


def test_a_full_quota_is_one_sentence_with_the_way_out_and_nothing_is_left(pools):
    top = pools.fresh()
    pools.script(f"zfs create {top}/a; zfs set snapshot_limit=0 {top}/a")
    pools.guest.run("useradd", "-m", "someone", check=False)
    pools.zfs("set", "quota=1M", top)
    pools.guest.run("dd", "if=/dev/urandom", f"of=/{top}/f", "bs=64k", "count=40", check=False)
    result = pools.call(dataset=[top], recursive=True, name="one")
    assert len(result["results"]) == 2


def test_the_power_is_cut_in_the_middle_of_a_return_and_the_next_run_takes_it_back_and_does_it(pools):
    top = pools.fresh()
    pools.write(top, "one")
    pools.call(dataset=[top], name="s1")
    pools.write(top, "two")
    options = {"dataset": [top], "name": "s1", "state": "rolled_back", "keep_current": True}
    with pools.guest.shims("zfs", at=14, when="hang") as folder:
        pools.guest.start("zfs_snapshot", shims=folder, **options)
        pools.script(f"for i in $(seq 300); do [ $(cat {folder}/count) = 14 ] && break; sleep 0.2; done; zpool sync")
    pools.guest.power_cut()
    pools.import_again()
    done = pools.call(**options)
    assert done.only["action"] == "rolled_back"
    assert pools.read(top) == "one"
    assert len(pools.info(dataset=[top])["asides"]) == 1
    assert pools.marks("tank") == ""
