# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes wrong: no room, full pools, overflow, lost disks, busy volumes, killed runs, power cuts.

The next run ends well, or says what to do.
"""

from __future__ import annotations

import signal

import pytest

from ansible_collections.restorepoint.core.tests.guest.lvm import Storage
from ansible_collections.restorepoint.core.tests.lab.driver import Failed

#: What changes something or looks: a run is killed at each call of one of these.
TOOLS = ("lvs", "lvcreate", "lvchange", "lvrename", "lvremove", "lvconvert", "umount", "mount", "dmsetup")
#: A return of a volume that is mounted.
_RETURN = {"name": "first", "state": "rolled_back", "unmount": True}


@pytest.fixture(scope="module", autouse=True)
def without_udev(guest, empty_disks):
    with guest.without_udev():
        yield


@pytest.fixture
def storage(guest):
    storage = Storage(guest)
    storage.build()
    return storage


# -- room and health ---------------------------------------------------------------------------------------------------


def test_a_call_for_which_there_is_no_room_changes_nothing_and_says_how_much_is_missing(storage):
    volumes = [storage.thick("lv1", 700, None), storage.thick("lv2", 700, None)]
    with pytest.raises(Failed, match=r"need .* GiB in the volume group vg0, which has .* MiB free"):
        storage.snapshot(*volumes, name="first", size="100%ORIGIN")
    assert storage.volumes() == ["lv1", "lv2"]
    assert storage.snapshot(*volumes, name="first", size="100%FREE")["changed"]


def test_a_pool_above_its_limit_takes_nothing_new_and_a_full_one_neither(storage, guest):
    volume = storage.thin("t1", 100, pool=64)
    # A full pool lets writers wait for a minute by default, and then fail: here they fail at once.
    guest.run("lvchange", "-q", "--errorwhenfull", "y", "vg0/pool")
    storage.snapshot(volume, name="first")
    at = storage.mount("t1")
    guest.run("dd", "if=/dev/urandom", f"of={at}/x", "bs=1M", "count=40", "conv=fsync", "status=none")
    with pytest.raises(Failed, match=r"the data of the thin pool vg0/pool is .* % full, above 50 %"):
        storage.snapshot(volume, name="second", data_limit=50)
    guest.run("timeout", "20", "dd", "if=/dev/urandom", f"of={at}/y", "bs=1M", "count=40", "conv=fsync", check=False)
    with pytest.raises(Failed, match="thin pool vg0/pool"):
        storage.snapshot(volume, name="second", data_limit=99)
    assert storage.names(volume) == ["first"]
    guest.run("lvextend", "-q", "-L", "+200M", "vg0/pool")
    storage.unmount("t1")  # its filesystem has seen errors, and could not be frozen
    assert storage.snapshot(volume, name="second")["changed"]


def test_an_overflowed_snapshot_is_no_snapshot_to_return_to(storage, guest):
    volume = storage.thick("lv1")
    storage.snapshot(volume, name="first", size="4M")
    at = storage.mount("lv1")
    guest.run("dd", "if=/dev/urandom", f"of={at}/x", "bs=1M", "count=20", "conv=fsync", "status=none")
    storage.unmount("lv1")
    [shown] = storage.info(volume)["snapshots"]
    assert shown["ready"] is False
    for state in ("rolled_back", "present"):
        with pytest.raises(Failed, match="overflowed"):
            storage.snapshot(volume, name="first", state=state)
    assert storage.snapshot(volume, name="first", replace=True)["changed"]
    assert storage.info(volume)["snapshots"][0]["ready"] is True
    assert storage.volumes() == ["lv1", "lv1.first"]


def test_a_merge_that_would_make_a_newer_snapshot_overflow_is_refused(storage, guest):
    volume = storage.thick("lv1")
    storage.put("lv1", "one")
    storage.snapshot(volume, name="old", size="100%ORIGIN")
    at = storage.mount("lv1")
    guest.run("dd", "if=/dev/urandom", f"of={at}/x", "bs=1M", "count=20", "conv=fsync", "status=none")
    storage.unmount("lv1")
    storage.snapshot(volume, name="new", size="8M")
    with pytest.raises(Failed, match=r"newer snapshot lv1.new of 8.0 MiB would overflow"):
        storage.snapshot(volume, name="old", state="rolled_back")
    assert storage.names(volume) == ["old", "new"]
    assert storage.snapshot(volume, name="old", state="rolled_back", destroy_newer=True)["changed"]
    assert storage.get("lv1") == "one"


def test_siblings_older_and_newer_keep_their_content_over_a_merge(storage):
    volume = storage.thick("lv1")
    for name in ("one", "two", "three"):
        storage.put("lv1", name)
        storage.snapshot(volume, name=name, size="50%ORIGIN")
    storage.put("lv1", "four")
    storage.snapshot(volume, name="two", state="rolled_back")
    assert [storage.get(lv) for lv in ("lv1", "lv1.one", "lv1.three")] == ["two", "one", "three"]
    assert storage.names(volume) == ["one", "three"]
    storage.snapshot(volume, name="one", state="rolled_back")
    assert [storage.get(lv) for lv in ("lv1", "lv1.three")] == ["one", "three"]


# -- use ---------------------------------------------------------------------------------------------------------------


def test_who_uses_a_volume_stands_in_the_way_of_its_return_and_is_named(storage, guest):
    volumes = [storage.thick("lv1"), storage.thin("t1")]
    storage.snapshot(*volumes, name="first")
    for lv in ("lv1", "t1"):
        storage.mount(lv)
    guest.write("/mnt/t1/log", "")
    with guest.user("/mnt/t1", opens="/mnt/t1/log"):
        with pytest.raises(Failed) as failure:
            storage.snapshot(*volumes, name="first", state="rolled_back")
        message = str(failure.value)
        assert "vg0/lv1: it is mounted at /mnt/lv1" in message
        assert "vg0/t1: it is mounted at /mnt/t1" in message
        assert "(sleep) has log open" in message
        with pytest.raises(Failed, match=r"\(sleep\) has log open"):
            storage.snapshot(*volumes, name="first", state="rolled_back", unmount=True)
        assert guest.succeeds("mountpoint", "-q", "/mnt/lv1")


@pytest.mark.parametrize("kind", ["thick", "thin"])
def test_a_volume_is_unmounted_for_its_return_and_mounted_again_as_it_was(storage, guest, kind):
    lv = "lv1" if kind == "thick" else "t1"
    volume = storage.thick(lv) if kind == "thick" else storage.thin(lv)
    storage.put(lv, "one")
    storage.snapshot(volume, name="first")
    at = storage.mount(lv, "-o", "noatime,nodev,commit=17")
    guest.write(f"{at}/f", "two\n")
    before = guest.run("findmnt", "-no", "OPTIONS", at)
    result = storage.snapshot(volume, name="first", state="rolled_back", unmount=True)
    assert result["results"][0]["deferred"] is False
    assert guest.read(f"{at}/f") == "one\n"
    assert guest.run("findmnt", "-no", "OPTIONS", at) == before
    storage.unmount(lv)


def test_a_merge_into_a_volume_in_use_is_put_off_and_told_so_by_every_run(storage, guest):
    volume = storage.thick("lv1")
    storage.put("lv1", "one")
    storage.snapshot(volume, name="first")
    at = storage.mount("lv1")
    guest.write(f"{at}/f", "two\n")
    options = {"name": "first", "state": "rolled_back", "when_busy": "defer"}
    foreseen = storage.snapshot(volume, check_mode=True, **options)["results"][0]
    done = storage.snapshot(volume, **options)["results"][0]
    for each in (foreseen, done):
        assert (each["merge"], each["deferred"], each["reboot_required"]) == ("deferred", True, True)
    again = storage.snapshot(volume, **options)
    assert not again["changed"]
    assert "waits" in again["results"][0]["reason"]
    assert storage.info(volume)["volumes"][0]["merge"]["state"] == "deferred"
    with pytest.raises(Failed, match="being merged"):
        storage.snapshot(volume, name="second")
    storage.unmount("lv1")
    guest.run("lvchange", "-an", volume)
    guest.run("lvchange", "-ay", volume)
    last = storage.snapshot(volume, **options)
    assert not last["changed"]
    assert storage.get("lv1") == "one"
    assert storage.volumes() == ["lv1"]


def test_a_thin_volume_in_use_is_exchanged_under_its_mount(storage, guest):
    volume = storage.thin("t1")
    storage.put("t1", "one")
    storage.snapshot(volume, name="first")
    at = storage.mount("t1")
    guest.write(f"{at}/f", "two\n")
    with pytest.raises(Failed, match="keep_current"):
        storage.snapshot(volume, name="first", state="rolled_back", when_busy="defer")
    done = storage.snapshot(volume, name="first", state="rolled_back", when_busy="defer", keep_current=True)
    [result] = done["results"]
    assert (result["deferred"], result["reboot_required"]) == (True, False)
    assert guest.read(f"{at}/f") == "two\n"
    storage.unmount("t1")
    assert storage.get("t1") == "one"


# -- other collections' defects ----------------------------------------------------------------------------------------


def test_a_return_of_which_a_member_is_missing_fails_and_returns_nothing(storage):
    """linux-system-roles/snapshot stops at the first missing member, and reports success."""
    volumes = [storage.thin("t1"), storage.thin("t2")]
    storage.put("t2", "one")
    storage.snapshot(volumes[1], name="set")
    storage.put("t2", "two")
    with pytest.raises(Failed, match="vg0/t1: there is no snapshot 'set'"):
        storage.snapshot(*volumes, name="set", state="rolled_back")
    assert storage.get("t2") == "two"


def test_a_set_called_ripu_does_not_take_root_myripu(storage, guest):
    """infra.lvm_snapshots finds members by an unescaped suffix, and removes them by force."""
    volumes = [storage.thin("root"), storage.thin("root_myripu"), storage.thin("xripu")]
    storage.snapshot(volumes[0], name="ripu")
    guest.run("lvchange", "-ay", "-K", "vg0/root.ripu")
    storage.mount("root.ripu")
    with pytest.raises(Failed, match=r"vg0/root\.ripu is open"):
        storage.snapshot(volumes[0], name="ripu", state="absent")
    storage.unmount("root.ripu")
    assert storage.snapshot(volumes[0], name="ripu", state="absent")["changed"]
    assert storage.volumes() == ["pool", "root", "root_myripu", "xripu"]


# -- killed, hanging, at once ------------------------------------------------------------------------------------------


def survives(storage, check, *volumes, **options):
    """Kill a run after each of its calls, and let the next run do the same; ``check`` looks at what is there after."""
    at = 0
    while True:
        at += 1
        died = storage.guest.dies("lvm_snapshot", *TOOLS, at=at, when="after", volume=list(volumes), **options)
        last = storage.guest.calls()[-1]
        storage.snapshot(*volumes, **options)
        check(f"killed after {last}" if died else "not killed")
        if not died:
            return at


def test_a_call_that_is_killed_at_any_step_takes_all_snapshots_or_none(storage):
    volumes = [storage.thick("lv1"), storage.thin("t1")]

    def check(when):
        assert storage.volumes() == ["lv1", "lv1.set", "pool", "t1", "t1.set"], when
        assert not any("rp.pending" in storage.field(lv, "lv_tags") for lv in ("lv1.set", "t1.set")), when
        storage.snapshot(*volumes, name="set", state="absent")

    assert survives(storage, check, *volumes, name="set", size=None) > 4


def test_a_replacement_that_is_killed_at_any_step_leaves_one_snapshot(storage):
    volume = storage.thin("t1")
    storage.snapshot(volume, name="first")

    def check(when):
        assert storage.volumes() == ["pool", "t1", "t1.first"], when
        assert storage.names(volume) == ["first"], when

    assert survives(storage, check, volume, name="first", max_age="0s", replace=True) > 5


def test_a_thin_return_that_is_killed_at_any_step_is_completed_or_undone(storage, guest):
    volume = storage.thin("t1")
    storage.put("t1", "one")
    storage.snapshot(volume, name="first")
    storage.mount("t1")

    def check(when):
        assert guest.read("/mnt/t1/f") == "one\n", when
        assert storage.volumes() == ["pool", "t1", "t1.first"], when
        assert "rp.pending" not in storage.field("t1", "lv_tags"), when
        guest.write("/mnt/t1/f", "two\n")

    guest.write("/mnt/t1/f", "two\n")
    assert survives(storage, check, volume, name="first", state="rolled_back", unmount=True) > 7
    storage.unmount("t1")


def test_a_thick_return_that_is_killed_at_any_step_is_made_once(storage, guest):
    volume = storage.thick("lv1")
    storage.put("lv1", "one")
    storage.mount("lv1")
    at = 0
    died = True
    while died:
        at += 1
        guest.write("/mnt/lv1/f", "one\n")
        storage.snapshot(volume, name="first", size="100%ORIGIN")
        guest.write("/mnt/lv1/f", "two\n")
        options = {"name": "first", "state": "rolled_back", "unmount": True, "keep_current": True, "size": "50%ORIGIN"}
        died = guest.dies("lvm_snapshot", *TOOLS, at=at, when="after", volume=[volume], **options)
        when = guest.calls()[-1]
        storage.snapshot(volume, **options)
        assert guest.read("/mnt/lv1/f") == "one\n", when
        while storage.info(volume)["volumes"][0]["merge"] is not None:
            pass
        assert "rp.pending" not in storage.field("lv1", "lv_tags"), when
        [aside] = storage.info(volume)["asides"]
        storage.snapshot(volume, name=aside["name"], state="absent")
        assert storage.volumes() == ["lv1"], when
    assert at > 7
    storage.unmount("lv1")


def mounted_and_changed(storage, guest):
    """Return a thick volume that is mounted, and holds something else than its snapshot ``first``."""
    volume = storage.thick("lv1")
    storage.put("lv1", "one")
    storage.mount("lv1")
    storage.snapshot(volume, name="first", size="100%ORIGIN")
    guest.write("/mnt/lv1/f", "two\n")
    return volume


def test_a_mount_that_fails_while_a_merge_goes_on_is_tried_again(storage, guest):
    volume = mounted_and_changed(storage, guest)
    with guest.shims("mount", at=1, when="failing") as folder:
        run = guest.start("lvm_snapshot", shims=folder, volume=[volume], **_RETURN)
        assert "warnings" not in (guest.finished(run) or {})
    # More where the merge has ended in between: then LVM unlinks the device, and links it anew.
    assert len(guest.calls()) >= 2
    assert guest.read("/mnt/lv1/f") == "one\n"
    storage.unmount("lv1")


def test_what_cannot_be_mounted_again_after_a_return_is_a_failure_and_the_next_run_mounts_it(storage, guest):
    volume = mounted_and_changed(storage, guest)
    guest.write("/run/refusing/mount", "#!/bin/sh\necho 'I do not want to' >&2\nexit 32\n", 0o755)
    with pytest.raises(Failed, match=r"mount vg0/lv1 at /mnt/lv1 again: .*not want to.*by hand") as failed:
        guest.finished(guest.start("lvm_snapshot", shims="/run/refusing", volume=[volume], **_RETURN))
    assert failed.value.result["changed"]
    again = storage.snapshot(volume, **_RETURN)
    assert not again["results"][0]["changed"]
    assert "vg0/lv1: mounted again what an interrupted return had unmounted" in str(again["warnings"])
    assert guest.read("/mnt/lv1/f") == "one\n"
    assert storage.snapshot(volume, **_RETURN).get("warnings") is None
    storage.unmount("lv1")


def test_two_runs_at_once_take_one_snapshot(storage, guest):
    volume = storage.thick("lv1")
    runs = [guest.start("lvm_snapshot", volume=[volume], name="first", size="16M") for _unused in range(2)]
    results = [guest.finished(run) for run in runs]
    assert sorted(result["changed"] for result in results) == [False, True]
    assert storage.volumes() == ["lv1", "lv1.first"]


def test_a_run_waits_for_the_lvcreate_that_a_killed_one_has_left_running(storage, guest):
    volume = storage.thick("lv1")
    with guest.shims("lvcreate", at=1, when="wait") as folder:
        first = guest.start("lvm_snapshot", shims=folder, volume=[volume], name="first", size="16M")
        guest.script(f"for i in $(seq 300); do [ $(cat {folder}/count) = 1 ] && exit; sleep 0.2; done; exit 1")
        guest.signal(first, signal.SIGKILL)
        assert guest.finished(first) is None
        with pytest.raises(Failed, match=rf"perhaps a program that pid {first} .* holds the lock"):
            storage.snapshot(volume, name="second", size="16M", lock_timeout=1)
        second = guest.start("lvm_snapshot", volume=[volume], name="second", size="16M", lock_timeout=100)
        guest.run("touch", f"{folder}/go")
        done = guest.finished(second)
    assert done["changed"]
    # The one of the killed run has not been finished: the second has seen it, and taken it back or kept it whole.
    assert storage.volumes() in (["lv1", "lv1.first", "lv1.second"], ["lv1", "lv1.second"])


def test_what_lvm_leaves_running_holds_no_lock(storage, guest):
    """LVM starts dmeventd, which watches, and lvmpolld, which merges: both stay."""
    volume = storage.thick("lv1")
    guest.run("bash", "-c", "systemctl stop dm-event.socket dm-event.service; ! pidof dmeventd", check=False)
    try:
        storage.snapshot(volume, name="first", size="16M")
        guest.run("lvchange", "-q", "--monitor", "y", f"{volume}.first")
        storage.snapshot(volume, name="second", size="16M")
        assert guest.run("pidof", "dmeventd")
        storage.snapshot(volume, name="second", state="absent", lock_timeout=1)
        locks = guest.run("cat", "/proc/locks")
        number = guest.run("stat", "-c", "%i", "/run/restorepoint/lvm.lock").strip()
        assert not any(line.split()[5].endswith(f":{number}") for line in locks.splitlines())
    finally:
        guest.run("bash", "-c", "pkill dmeventd; systemctl start dm-event.socket", check=False)


@pytest.mark.parametrize("when", ["hang", "garbage", "failing"])
def test_an_lvs_that_hangs_or_prints_nonsense_fails_the_run_and_changes_nothing(storage, guest, when):
    volume = storage.thick("lv1")
    patience = 3 if when == "hang" else 60
    with guest.shims("lvs", at=1, when=when) as folder, pytest.raises(Failed, match="Cannot") as failure:
        guest.finished(guest.start("lvm_snapshot", shims=folder, volume=[volume], name="x", command_timeout=patience))
    words = {"hang": "did not end within 3 s", "garbage": "form of its JSON report", "failing": "the shim says no"}
    assert words[when] in str(failure.value)
    assert storage.volumes() == ["lv1"]


@pytest.mark.parametrize(
    ("program", "state", "words"),
    [("lvcreate", "present", "Cannot"), ("lvremove", "absent", "lvremove ended well, but the volume is still there")],
)
def test_a_tool_that_ends_well_and_has_done_nothing_is_not_believed(storage, guest, program, state, words):
    volume = storage.thick("lv1")
    storage.snapshot(volume, name="one", size="16M")
    options = {"present": {"name": "two", "size": "16M"}, "absent": {"name": "one"}}[state]
    with guest.shims(program, at=1, when="silent") as folder, pytest.raises(Failed, match=words):
        guest.finished(guest.start("lvm_snapshot", shims=folder, volume=[volume], state=state, **options))
    assert storage.volumes() == ["lv1", "lv1.one"]
    assert storage.snapshot(volume, state=state, **options)["changed"]


def test_a_snapshot_that_fails_takes_those_before_it_back(storage, guest):
    volumes = [storage.thick("lv1"), storage.thick("lv2")]
    with guest.shims("lvcreate", at=2, when="failing") as folder, pytest.raises(Failed, match="the shim says no"):
        guest.finished(guest.start("lvm_snapshot", shims=folder, volume=volumes, name="set", size="16M"))
    assert storage.volumes() == ["lv1", "lv2"]


@pytest.mark.parametrize("at", [1, 2])
def test_a_rename_that_fails_leaves_a_thin_volume_as_it_was(storage, guest, at):
    volume = storage.thin("t1")
    storage.put("t1", "one")
    storage.snapshot(volume, name="first")
    storage.put("t1", "two")
    with guest.shims("lvrename", at=at, when="failing") as folder, pytest.raises(Failed, match="the shim says no"):
        guest.finished(guest.start("lvm_snapshot", shims=folder, volume=[volume], name="first", state="rolled_back"))
    assert storage.get("t1") == "two"
    assert storage.volumes() == ["pool", "t1", "t1.first"]
