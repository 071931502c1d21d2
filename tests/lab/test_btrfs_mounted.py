# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""btrfs_snapshot on subvolumes that are mounted themselves, by name, by number, and as the default subvolume."""

from __future__ import annotations

import os

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.btrfs import backend, toplevel
from ansible_collections.restorepoint.core.plugins.module_utils.backends.stored import subvolume
from ansible_collections.restorepoint.core.tests.lab.driver import Failed
from ansible_collections.restorepoint.core.tests.lab.filesystems import mounts_below, run, unmount
from ansible_collections.restorepoint.core.tests.lab.volumes import Volumes, create, picture


class Mounted(Volumes):
    """A filesystem whose subvolumes are mounted as a system has them: @ at ``root``, @store at ``store``."""

    def __init__(self, top, folder):
        super().__init__(folder)
        self.top = top
        self.device = run("findmnt", "-n", "-o", "SOURCE", top).split("[")[0].strip()
        for name, point in (("@", "data"), ("@store", "store")):
            create(top / name)
            (folder / point).mkdir()
        (top / "@" / "file").write_text("one")
        run("mount", "-o", "subvol=@store", self.device, folder / "store")

    @property
    def store(self):
        return self.folder / "store" / "points"

    def mount(self, options="subvol=@"):
        run("mount", "-o", options, self.device, self.target)

    def remount(self, options="subvol=@"):
        unmount(self.target)
        self.mount(options)


@pytest.fixture
def mounted(lab, tmp_path):
    with lab.extra_disk("btrfs") as top:
        volumes = Mounted(top, tmp_path)
        own = toplevel.TopLevel(str(top))
        hidden = own.open()
        own.close()
        try:
            yield volumes
        finally:
            for place in mounts_below(tmp_path):
                unmount(place)
        # Of other filesystems it may well be mounted: tests run side by side.
        assert hidden not in mounts_below("/run/restorepoint"), "the top level stays mounted"


def by_name(volumes):
    return "subvol=@"


def by_number(volumes):
    return f"subvolid={subvolume.show(str(volumes.top / '@')).number}"


def by_default(volumes):
    subvolume.set_default(str(volumes.top / "@"))
    return "rw"


@pytest.mark.parametrize("how", [by_name, by_number, by_default], ids=lambda how: how.__name__)
def test_a_mounted_subvolume_is_returned_by_its_name_and_takes_effect_with_the_next_mount(mounted, how):
    mounted.mount(how(mounted))
    mounted.twice("a")
    (mounted.target / "file").write_text("two")
    result = mounted.twice("a", "rolled_back").only
    assert result["remount_required"] == [str(mounted.target)]
    assert not result["reboot_required"]
    assert picture(mounted.target) == {"file": "two"}, "what is mounted stays what it was until the next mount"
    assert "takes effect when it is next mounted" in mounted.call("a", "rolled_back").only["reason"]
    # A name, or the default, leads to the new content. A number would lead to the old one, so it is asked for anew.
    mounted.remount(by_number(mounted) if how is by_number else "rw" if how is by_default else "subvol=@")
    assert picture(mounted.target) == {"file": "one"}
    assert mounted.call("a", "rolled_back").only["action"] == "unchanged"
    (aside,) = mounted.info()["asides"]
    assert aside["extra"]["filesystem_path"] == f"/@.{aside['name']}"
    mounted.twice(aside["name"], "absent")
    assert sorted(each.name for each in mounted.top.iterdir()) == ["@", "@store"]


def test_the_default_subvolume_follows_its_name_and_comes_back_when_a_return_fails(mounted, monkeypatch):
    subvolume.set_default(str(mounted.top / "@"))
    mounted.mount("rw")
    mounted.call("a")
    (mounted.target / "file").write_text("two")
    before = subvolume.default_number(str(mounted.top))

    def fail(path):
        raise OSError(5, "Input/output error", path)

    real = subvolume.set_default
    monkeypatch.setattr(subvolume, "set_default", fail)
    with pytest.raises(Failed, match="Input/output error"):
        mounted.call("a", "rolled_back")
    monkeypatch.setattr(subvolume, "set_default", real)
    assert subvolume.default_number(str(mounted.top)) == before
    assert picture(mounted.target) == picture(mounted.top / "@") == {"file": "two"}
    mounted.call("a", "rolled_back")
    assert subvolume.default_number(str(mounted.top)) == subvolume.show(str(mounted.top / "@")).number != before


def test_a_default_subvolume_that_is_not_mounted_itself_is_followed_too(mounted):
    subvolume.set_default(str(mounted.top / "@"))
    target = [mounted.top / "@"]
    mounted.call("a", subvolume=target)
    (mounted.top / "@" / "file").write_text("two")
    mounted.twice("a", "rolled_back", subvolume=target)
    assert subvolume.default_number(str(mounted.top)) == subvolume.show(str(mounted.top / "@")).number


def test_two_returns_before_the_next_mount_keep_both_contents(mounted):
    mounted.mount()
    mounted.call("a")
    (mounted.target / "file").write_text("two")
    mounted.call("b")
    (mounted.target / "file").write_text("three")
    mounted.call("a", "rolled_back")
    mounted.twice("b", "rolled_back")
    assert len(mounted.info()["asides"]) == 2
    mounted.remount()
    assert picture(mounted.target) == {"file": "two"}
    contents = sorted((mounted.top / each["extra"]["filesystem_path"][1:] / "file").read_text()
                      for each in mounted.info()["asides"])  # fmt: skip
    assert contents == ["one", "three"]


def test_an_aside_that_is_still_mounted_is_not_removed_nor_is_it_without_keep_current(mounted):
    mounted.mount()
    mounted.call("a")
    (mounted.target / "file").write_text("two")
    refused = mounted.refused("a", "rolled_back", keep_current=False)
    assert refused.reasons == [f"it is mounted at {mounted.target}, so what is there cannot be removed yet"]
    result = mounted.call("a", "rolled_back").only
    assert (
        f"is in use: it is mounted at {mounted.target}" in mounted.refused(result["aside"]["name"], "absent").reasons[0]
    )
    kept = mounted.call(None, "pruned", asides={"max_age": "1s"})
    assert not kept["changed"]


def test_subvolumes_in_a_mounted_one_are_not_taken_from_the_running_system(mounted):
    mounted.mount()
    create(mounted.target / "var")
    (mounted.target / "var" / "file").write_text("one")
    mounted.call("alone")
    mounted.call("all", recursive=True)
    (mounted.target / "file").write_text("two")
    (mounted.target / "var" / "file").write_text("two")
    refused = mounted.refused("alone", "rolled_back")
    assert "cannot be moved over before the next mount" in refused.reasons[0]
    mounted.twice("all", "rolled_back", recursive=True)
    assert picture(mounted.target)["var/file"] == "two"
    mounted.remount()
    assert picture(mounted.target) == {"file": "one", "var": None, "var/file": "one"}


def test_a_mount_that_is_written_down_by_number_stands_in_the_way(mounted, monkeypatch, tmp_path_factory):
    fstab = tmp_path_factory.mktemp("etc") / "fstab"
    number = by_number(mounted)
    fstab.write_text(f"# none\n{mounted.device} {mounted.target} btrfs defaults,{number} 0 0\n")
    monkeypatch.setattr(backend, "_FSTAB", str(fstab))
    mounted.mount()
    mounted.call("a")
    (mounted.target / "file").write_text("two")
    refused = mounted.refused("a", "rolled_back")
    assert refused.reasons == [f"{fstab} mounts it by {number}, which stays with the old content"]
    assert refused.result["blockers"][0]["remedy"] == "name it by subvol=PATH there"
    fstab.write_text(f"{mounted.device} {mounted.target} btrfs defaults,subvol=@ 0 0\n")
    mounted.call("a", "rolled_back")


def test_the_top_level_of_a_filesystem_holds_every_store_and_so_is_refused(lab, tmp_path):
    with lab.extra_disk("btrfs") as top:
        create(top / "@store")
        store = tmp_path / "store"
        store.mkdir()
        device = run("findmnt", "-n", "-o", "SOURCE", top).split("[")[0].strip()
        run("mount", "-o", "subvol=@store", device, store)
        try:
            volumes = Volumes(tmp_path)
            # By its path in the filesystem every store lies inside the top level.
            assert "the store lies inside the subvolume" in str(volumes.refused(subvolume=[top]))
        finally:
            unmount(store)


def test_a_top_level_that_a_killed_run_left_mounted_is_used_and_unmounted(mounted):
    mounted.mount()
    mounted.call("a")
    left = toplevel.TopLevel(str(mounted.store))
    path = left.open()
    os.close(left._lock)  # as a kill does
    (mounted.target / "file").write_text("two")
    mounted.call("a", "rolled_back")
    assert path not in mounts_below("/run/restorepoint")


def test_of_two_that_need_the_top_level_the_last_one_unmounts_it(mounted):
    mounted.call("a", subvolume=[mounted.top / "@"])
    one, other = toplevel.TopLevel(str(mounted.store)), toplevel.TopLevel(str(mounted.store))
    path = one.open()
    assert other.open() == path
    one.close()
    assert path in mounts_below("/run/restorepoint")
    other.close()
    assert path not in mounts_below("/run/restorepoint")


def test_of_a_mounted_root_it_is_said_that_a_reboot_is_required(mounted, monkeypatch):
    """The lab does not reboot: that the target is / is made believe, all else is real."""
    mounted.mount()
    mounted.call("a")
    (mounted.target / "file").write_text("two")
    monkeypatch.setattr(backend, "_mounted", lambda *_unused: ["/"])
    told = mounted.call("a", "rolled_back", check_mode=True).only
    done = mounted.call("a", "rolled_back")
    assert told["reboot_required"]
    assert done.only["reboot_required"]
    assert any("until you reboot" in str(each) for each in done["warnings"]), done["warnings"]
