# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs of zfs_snapshot that are killed between any two changes of theirs, cut off, or lied to by `zfs`.

Whatever happens, nothing is lost, and the next run ends well or says what to do.
"""

from __future__ import annotations

import signal

import pytest

from ansible_collections.restorepoint.core.tests.guest.zfs_pools import two_pools
from ansible_collections.restorepoint.core.tests.lab.driver import Failed

PROGRAMS = ("zfs", "zpool", "mount", "umount")
CHANGING = frozenset(
    {
        *("set", "inherit", "mount", "unmount", "umount", "rename", "clone", "promote", "rollback", "snapshot"),
        *("destroy", "hold", "release", "bookmark"),
    }
)


@pytest.fixture(scope="module")
def pools(guest):
    yield from two_pools(guest)


def verb_of(call):
    """Return what a line of the shims' log does: ``3 zfs rename -u a b`` renames, ``9 umount /x`` unmounts."""
    _number, program, *words = call.split()
    return words[0] if program in ("zfs", "zpool") else program


def rehearsed(pools, **options):
    """Run the module with shims that let everything through; return its result, and the numbers of its changes."""
    with pools.guest.shims(*PROGRAMS, at=0, when="never") as folder:
        done = pools.guest.finished(pools.guest.start("zfs_snapshot", shims=folder, **options))
    return done, {int(call.split()[0]): verb_of(call) for call in pools.guest.calls() if verb_of(call) in CHANGING}


def killed(pools, at, verb, **options):
    """Kill the module before its change with this number, and see that it was that one."""
    assert pools.guest.dies("zfs_snapshot", *PROGRAMS, at=at, when="before", **options), (at, verb)
    last = pools.guest.calls()[-1]
    assert verb_of(last) == verb, last


def content(pools, home):
    """Return what is at and below a dataset, in one look: how it is mounted, its origin, and that it has no marks."""
    columns = "name,mounted,canmount,origin,restorepoint:return,restorepoint:mounted,restorepoint:replacing"
    listed = pools.zfs("list", "-H", "-r", "-t", "filesystem,volume", "-o", columns, home).splitlines()
    return {row[0]: row[1:] for row in (line.split("\t") for line in listed)}


NO_MARKS = ["-", "-", "-"]
MOUNTED = ["yes", "on", "-", *NO_MARKS]


def returned(pools, home, kept):
    """Say whether a dataset was returned (or taken back), and see that it is one of these entirely."""
    top = f"{home}/d"
    found = content(pools, home)
    asides = {name: row for name, row in found.items() if ".aside-" in name}
    assert {name: row for name, row in found.items() if name not in asides} == {
        home: MOUNTED, top: MOUNTED, f"{top}/child": MOUNTED,
    }  # fmt: skip
    assert pools.read(f"{top}/child") == "child"
    if not asides:
        assert pools.read(top) == kept
        return False
    ((aside, row),) = asides.items()
    assert row == ["no", "noauto", f"{top}@s1", *NO_MARKS]
    assert pools.read(top) == "one"
    assert pools.script(f"mount -t zfs -o zfsutil {aside} /mnt; cat /mnt/f; umount /mnt; zfs destroy {aside}") == kept
    return True


def test_a_return_that_keeps_the_present_content_survives_a_kill_before_each_of_its_changes(pools):
    """The next run takes it back or completes it: entirely, with the child where it was, and nothing lost.

    Commands that only read make no difference to what a kill leaves, so it is not killed before each of these too.
    """
    home = pools.fresh()
    top = f"{home}/d"
    pools.script(f"zfs create {top}; zfs create {top}/child; echo -n one > /{top}/f; echo -n child > /{top}/child/f")
    pools.call(dataset=[top], name="s1")
    pools.write(top, "two")
    plain = {"dataset": [top], "name": "s1"}
    options = {**plain, "state": "rolled_back", "keep_current": True}
    _done, changes = rehearsed(pools, **options)
    assert {"set", "unmount", "rename", "clone", "promote", "mount", "inherit"} <= set(changes.values())
    kept = "two"
    is_returned = returned(pools, home, kept)
    assert is_returned
    ends = []
    for number, (at, verb) in enumerate(changes.items()):
        if is_returned:
            kept = f"two {at}"
            pools.write(top, kept)
        killed(pools, at, verb, **options)
        # Every run recovers first. Now and then it is the one that shall return, and then it does.
        again = number % 5 == 3
        pools.call(**(options if again else plain))
        is_returned = returned(pools, home, kept)
        assert is_returned or not again, (at, verb)
        if not again:
            ends.append(is_returned)
    assert ends == sorted(ends)  # taken back up to some change, completed from there on
    assert set(ends) == {False, True}


def test_a_replacement_survives_a_kill_before_each_of_its_changes(pools):
    """The next run brings the old snapshot back or completes the new set; there is never neither."""
    top = pools.fresh()
    pools.zfs("create", f"{top}/a")
    plain = {"dataset": [top], "name": "one"}
    options = {"dataset": [top], "recursive": True, "name": "one", "replace": True}
    pools.call(**plain)
    _done, changes = rehearsed(pools, **options)
    assert list(changes.values()) == ["set", "rename", "snapshot", "destroy", "inherit"]
    ends = []
    for at, verb in changes.items():
        pools.zfs("destroy", f"{top}/a@one")
        before = pools.get(f"{top}@one", "guid")
        killed(pools, at, verb, **options)
        pools.call(**plain)
        assert pools.snapshots(top) == ["one"], (at, verb)
        assert pools.marks("tank") == "", (at, verb)
        ends.append(pools.get(f"{top}@one", "guid") != before)
        assert pools.snapshots(f"{top}/a") == (["one"] if ends[-1] else []), (at, verb)
        if not ends[-1]:
            assert pools.call(**options)["changed"]
            assert pools.snapshots(top) == pools.snapshots(f"{top}/a") == ["one"], (at, verb)
    assert ends == [False, False, False, True, True]


@pytest.mark.parametrize("when", ["garbage", "silent", "failing"])
@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_tool_that_lies_or_prints_nonsense_or_fails_at_any_call_is_an_error_and_changes_nothing(pools, when, state):
    """An error never reads as an absent snapshot, nor as one that was taken."""
    top = pools.fresh()
    pools.zfs("snapshot", f"{top}@one")
    options = {"dataset": [top], "name": "one" if state == "absent" else "two", "state": state}
    reached: list[str] = []
    while True:
        with pools.guest.shims("zfs", at=len(reached) + 1, when=when) as folder:
            process = pools.guest.start("zfs_snapshot", shims=folder, **options)
            try:
                pools.guest.finished(process)
            except Failed as failed:
                assert "Cannot" in str(failed)  # noqa: PT017 - the loop ends with the run that does not fail
            else:
                break
        assert pools.snapshots(top) == ["one"]
        reached.append(verb_of(pools.guest.calls()[len(reached)]))
    assert pools.snapshots(top) == {"present": ["one", "two"], "absent": []}[state]
    assert reached == {"present": ["list", "snapshot", "list"], "absent": ["list", "destroy"]}[state]


def test_a_snapshot_command_that_hangs_is_ended_and_what_it_made_is_looked_for(pools):
    top = pools.fresh()
    _done, changes = rehearsed(pools, dataset=[top], name="zero")
    (at,) = changes
    options = {"dataset": [top], "name": "one", "timeout": 10}
    with pools.guest.shims("zfs", at=at, when="hang") as folder, pytest.raises(Failed, match="did not end within 10 s"):
        pools.guest.finished(pools.guest.start("zfs_snapshot", shims=folder, **options))
    assert pools.snapshots(top) == ["zero"]
    with pools.guest.shims("zfs", at=at, when="late") as folder:
        done = pools.guest.finished(pools.guest.start("zfs_snapshot", shims=folder, **options))
    assert (done["changed"], done.only["action"]) == (True, "created")
    assert pools.snapshots(top) == ["zero", "one"]


def test_a_quota_without_room_for_a_volumes_snapshot_is_one_sentence_and_none_of_the_set_is_left(pools):
    """A snapshot of a volume with a reservation takes room for all that is written in it, once more."""
    top = pools.fresh()
    pools.script(f"zfs create {top}/a; zfs set quota=80M {top}; zfs create -V 48M {top}/v")
    pools.guest.run("dd", "if=/dev/urandom", f"of={pools.device(f'{top}/v')}", "bs=1M", "count=40", "conv=fsync")
    with pytest.raises(Failed, match=r"(out of space|quota exceeded).*free space or raise the quota"):
        pools.call(dataset=[top], recursive=True, name="one")
    assert pools.zfs("list", "-H", "-r", "-t", "snapshot", "-o", "name", top) == ""
    pools.zfs("set", "quota=none", top)
    assert pools.call(dataset=[top], recursive=True, name="one")["changed"]


def test_a_full_pool_loses_nothing_and_removing_a_snapshot_makes_room(pools):
    pools.script("truncate -s 100M /root/small.img; zpool create -O atime=off small /root/small.img")
    pools.zfs("create", "small/x")
    try:
        pools.write("small/x", "one")
        pools.call(dataset=["small/x"], name="s1")
        pools.script("dd if=/dev/urandom of=/small/x/big bs=1M count=30 conv=fsync status=none")
        pools.call(dataset=["small/x"], name="s2")
        pools.script("rm /small/x/big; zpool sync; cat /dev/urandom > /small/x/f || true; zpool sync small")
        size = pools.script("stat -c %s /small/x/f")
        with pytest.raises(Failed, match=r"out of space.*free space"):
            pools.call(dataset=["small/x"], name="s3")
        with pytest.raises(Failed, match="out of space"):
            pools.call("rolled_back", dataset=["small/x"], name="s1", keep_current=True)
        assert pools.script("stat -c %s /small/x/f") == size
        assert (pools.snapshots("small/x"), pools.marks("small")) == (["s1", "s2"], "")
        assert pools.call("absent", dataset=["small/x"], name="s2")["changed"]
        pools.script("zpool wait -t free small; zpool sync small")
        assert pools.call(dataset=["small/x"], name="s3")["changed"]
        assert pools.snapshots("small/x") == ["s1", "s3"]
    finally:
        pools.script("zpool destroy -f small; rm /root/small.img")


def test_of_two_runs_at_once_the_second_waits_and_says_for_whom(pools):
    top = pools.fresh()
    _done, changes = rehearsed(pools, dataset=[top], name="zero")
    (at,) = changes
    with pools.guest.shims("zfs", at=at, when="wait") as folder:
        first = pools.guest.start("zfs_snapshot", shims=folder, dataset=[top], name="one")
        pools.script(f"for i in $(seq 300); do [ $(cat {folder}/count) = {at} ] && exit; sleep 0.2; done; exit 1")
        with pytest.raises(Failed, match=rf"pid {first} .*since .* holds the lock"):
            pools.call(dataset=[top], name="two", lock_timeout=1)
        assert pools.snapshots(top) == ["zero"]
        assert len(pools.info(dataset=[top])["snapshots"]) == 1  # who only looks does not wait
        pools.guest.signal(first, signal.SIGKILL)
        assert pools.guest.finished(first) is None
        # Its `zfs snapshot` goes on without it.
        with pytest.raises(Failed, match=rf"perhaps a program that pid {first} .* holds the lock"):
            pools.call(dataset=[top], name="two", lock_timeout=1)
        second = pools.guest.start("zfs_snapshot", dataset=[top], name="two", lock_timeout=100)
        pools.guest.run("touch", f"{folder}/go")
        done = pools.guest.finished(second)
    assert done["changed"]
    assert pools.snapshots(top) == ["zero", "one", "two"]


def test_the_power_is_cut_in_the_middle_of_a_return_and_the_next_run_takes_it_back_and_does_it(pools):
    top = pools.fresh()
    pools.write(top, "one")
    pools.call(dataset=[top], name="s1")
    pools.write(top, "two")
    options = {"dataset": [top], "name": "s1", "state": "rolled_back", "keep_current": True}
    done, changes = rehearsed(pools, **options)
    pools.zfs("destroy", done.only["aside"]["dataset"])
    pools.write(top, "two")
    at = next(number for number, verb in changes.items() if verb == "promote")
    with pools.guest.shims(*PROGRAMS, at=at, when="hang") as folder:
        pools.guest.start("zfs_snapshot", shims=folder, **options)
        pools.script(f"for i in $(seq 300); do [ $(cat {folder}/count) = {at} ] && exit; sleep 0.2; done; exit 1")
        assert ".aside-" in pools.zfs("list", "-H", "-o", "origin", top)
        pools.script("zpool sync")
    pools.guest.power_cut()
    pools.import_again()
    done = pools.call(**options)
    assert done.only["action"] == "rolled_back"
    assert any("has been taken back" in str(each) for each in done["warnings"]), done["warnings"]
    assert pools.read(top) == "one"
    aside = done.only["aside"]["dataset"]
    assert pools.script(f"mount -t zfs -o zfsutil {aside} /mnt; cat /mnt/f; umount /mnt") == "two"
    assert len(pools.info(dataset=[top])["asides"]) == 1
    assert pools.marks("tank") == ""
