# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a snapshot keeps: a tree with every kind of file is the same after each way out of the store and back."""

from __future__ import annotations

import os
import pathlib
import subprocess
import time

import pytest

from ansible_collections.restorepoint.core.tests.lab.driver import Failed, call, call_as, info
from ansible_collections.restorepoint.core.tests.lab.every_kind import fill, fill_as_root, sparse
from ansible_collections.restorepoint.core.tests.lab.filesystems import run
from ansible_collections.restorepoint.core.tests.lab.likeness import assert_same, rsync_differences, snapshot_of

NOBODY = 54321


@pytest.fixture(autouse=True)
def _umask():
    """A strict umask, as hardened hosts set it: nothing of it may show in copies."""
    old = os.umask(0o077)
    yield
    os.umask(old)


@pytest.fixture
def hard_place(place):
    """A place whose folder hands a group and default ACLs down to all that is made in it."""
    os.chown(place.folder, 0, 4711)
    place.folder.chmod(0o2755)
    subprocess.run(["setfacl", "-d", "-m", "u:1234:rwx,g:1234:rwx", place.folder], check=True)
    return place


@pytest.fixture
def target(hard_place):
    path = hard_place.make_target()
    fill(path)
    fill_as_root(path)
    os.chown(path, 12, 34)
    path.chmod(0o2751)
    os.setxattr(path, "user.top", b"of the tree")
    os.utime(path, ns=(10**18, 10**18 + 123))
    time.sleep(0.05)  # what changed just now is read again by the next run
    return path


def stored(place, name):
    (folder,) = (each for each in place.store.iterdir() if not each.name.startswith("."))
    return folder / name


def damage(target):
    """Change a tree in many ways."""
    for name in ("names", "links", "contents"):
        subprocess.run(["rm", "-rf", target / name], check=True)
    (target / "modes" / "0644").write_text("other content")
    (target / "modes" / "0640").chmod(0o600)
    os.removexattr(target / "attributes" / "file", "user.binary")
    (target / "new").mkdir()
    (target / "new" / "file").write_text("new")
    os.utime(target / "times" / "1960")
    os.chown(target / "owners" / "33", 34, 34)
    target.chmod(0o700)


def assert_verified(place):
    found = info(store=place.store, verify=True)["verified"]
    assert [(each["name"], each["faults"]) for each in found if not each["ok"]] == []
    return found


def test_every_kind_of_file_comes_through_each_way(hard_place, target):
    place = hard_place
    options = {"path": [target], "store": place.store}
    original = snapshot_of(target)

    first = call(**options, name="first").only
    assert (first["not_kept"], first["inconsistent"], first["left_out"]) == ({}, [], [])
    assert_same(original, snapshot_of(stored(place, "first")))
    assert rsync_differences(target, stored(place, "first"), "/level 000*") == ""

    second = call(**options, name="second").only
    assert second["strategy"] == "subvolume" if place.by_subvolume else second["linked_files"] == second["files"]
    assert_same(original, snapshot_of(stored(place, "second")))

    third = call(**options, name="third", checksum=True).only
    assert third["strategy"] == "copy"
    assert_same(original, snapshot_of(stored(place, "third")))
    fourth = call(**options, name="fourth", checksum=True).only
    assert fourth["linked_files"] == fourth["files"]
    assert_same(original, snapshot_of(stored(place, "fourth")))
    assert_verified(place)
    assert_same(original, snapshot_of(target))

    for name in ("second", "fourth"):
        clone = place.folder / f"clone of {name}"
        call(**options, name=name, state="cloned", clone=[clone])
        assert_same(original, snapshot_of(clone))


def test_every_kind_of_file_is_returned(hard_place, target):
    place = hard_place
    options = {"path": [target], "store": place.store}
    original = snapshot_of(target)
    call(**options, name="first")
    call(**options, name="second")
    assert call(**options, name="second", state="rolled_back")["changed"] is False

    damage(target)
    damaged = snapshot_of(target)
    result = call(**options, name="second", state="rolled_back").only
    assert result["not_kept"] == {}
    assert_same(original, snapshot_of(target))
    aside = pathlib.Path(result["aside"]["path"])
    assert_same(damaged, snapshot_of(aside))
    assert call(**options, name="second", state="rolled_back")["changed"] is False
    assert call(**options, name="first", state="rolled_back")["changed"] is False

    time.sleep(0.05)
    after = call(**options, name="after").only
    if not place.by_subvolume:
        assert after["linked_files"] >= after["files"] - 20, "the files that were returned are known by their manifest"
    assert_same(original, snapshot_of(stored(place, "after")))

    call(**options, name=result["aside"]["name"], state="rolled_back")
    assert_same(damaged, snapshot_of(target))
    assert call(**options, name=result["aside"]["name"], state="rolled_back")["changed"] is False
    assert_same(original, snapshot_of(stored(place, "first")))
    assert_verified(place)


def test_every_kind_of_file_is_removed(hard_place, target):
    place = hard_place
    options = {"path": [target], "store": place.store}
    for name in ("first", "second"):
        call(**options, name=name)
    damage(target)
    aside = call(**options, name="first", state="rolled_back").only["aside"]
    for name in ("first", "second", aside["name"]):
        assert call(**options, name=name, state="absent")["changed"] is True
        assert call(**options, name=name, state="absent")["changed"] is False
    assert not os.path.lexists(aside["path"])
    folder = stored(place, "")
    assert {each.name for each in folder.iterdir()} <= {".target.json", ".returned.json", ".returned.manifest"}
    assert {each.name for each in place.folder.iterdir()} == {"target", "store"}


def test_sizes_of_every_kind_of_file_are_measured(hard_place, target):
    place = hard_place
    call(path=[target], store=place.store, name="first", checksum=True)
    (found,) = info(path=[target], store=place.store, sizes=True)["snapshots"]
    used = int(run("du", "-s", "--block-size=1", "--exclude=level 000*", stored(place, "first")).split()[0])
    size = found["size_bytes"] if found["size_bytes"] is not None else found["extra"]["apparent_bytes"]
    assert 0.9 * used < size < 1.1 * used + (1 << 20)


PARTS = ("links", "contents/32 MiB", "modes/0666", "specials/socket", "times", "names", "owners/link of 33")


def test_parts_are_returned_as_they_were(hard_place, target):
    place = hard_place
    options = {"path": [target], "store": place.store, "name": "first", "state": "rolled_back"}
    call(path=[target], store=place.store, name="first")
    original = snapshot_of(target)
    for part in PARTS:
        above = (target / part).parent
        times = (above.stat().st_atime_ns, above.stat().st_mtime_ns)
        subprocess.run(["rm", "-rf", target / part], check=True)
        (target / part).write_text("something else")
        os.utime(above, ns=times)
        assert call(**options, paths=[part])["changed"] is True
        assert call(**options, paths=[part])["changed"] is False
    found = snapshot_of(target)
    # Btrfs cannot rename across subvolumes, so there what is set aside lies in the target.
    found = {path: facts for path, facts in found.items() if not path.startswith(b".restorepoint-")}
    assert_same(original, found)
    assert call(**options)["changed"] is False


def test_a_sparse_file_of_1_gib_takes_the_room_of_its_data_only(place):
    target = place.make_target()
    sparse(target / "1 GiB", 1 << 30, (300 << 20) + 5, 600 << 20)
    original = snapshot_of(target)
    options = {"path": [target], "store": place.store, "name": "first"}
    call(**options)
    assert_same(original, snapshot_of(stored(place, "first")))
    (target / "1 GiB").unlink()
    call(**options, state="rolled_back")
    assert_same(original, snapshot_of(target))
    assert call(**options, state="rolled_back")["changed"] is False


def test_a_file_that_is_written_in_place_keeps_its_old_content_in_the_snapshot(place):
    target = place.make_target()
    file = target / "file"
    file.write_bytes(b"a" * 200_000)
    time.sleep(0.05)
    for name in ("one", "two"):
        call(path=[target], store=place.store, name=name)
    with open(file, "r+b") as stream:
        stream.write(b"b")
    for name in ("one", "two"):
        assert (stored(place, name) / "file").read_bytes() == b"a" * 200_000
    call(path=[target], store=place.store, name="two", state="rolled_back", keep_current=False)
    with open(file, "r+b") as stream:
        stream.write(b"c")
    for name in ("one", "two"):
        assert (stored(place, name) / "file").read_bytes() == b"a" * 200_000


def test_a_change_that_moves_no_size_and_no_mtime_is_taken(place):
    target = place.make_target()
    file = target / "file"
    file.write_bytes(b"before")
    time.sleep(0.05)
    before = file.stat()
    call(path=[target], store=place.store, name="one")
    file.write_bytes(b"behind")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    call(path=[target], store=place.store, name="two")
    assert (stored(place, "two") / "file").read_bytes() == b"behind"
    assert (stored(place, "one") / "file").read_bytes() == b"before"
    assert call(path=[target], store=place.store, name="one", state="rolled_back")["changed"] is True
    assert file.read_bytes() == b"before"


def test_a_file_with_many_names_is_one_file_again_after_a_return_without_a_manifest(ext4):
    target = ext4.make_target()
    fill(target)
    call(path=[target], store=ext4.store, name="one")
    original = snapshot_of(target)
    manifest = stored(ext4, "one.manifest")
    manifest.write_text("nonsense")
    damage_file = target / "modes" / "0600"
    damage_file.write_text("changed")
    call(path=[target], store=ext4.store, name="one", state="rolled_back")
    assert_same(original, snapshot_of(target))


def test_an_empty_tree_comes_through(place):
    target = place.make_target()
    original = snapshot_of(target)
    for name in ("one", "two"):
        call(path=[target], store=place.store, name=name)
        assert_same(original, snapshot_of(stored(place, name)))
    (target / "file").touch()
    call(path=[target], store=place.store, name="one", state="rolled_back")
    assert_same(original, snapshot_of(target))
    assert_verified(place)


def test_a_store_on_another_filesystem_keeps_all_of_it(lab, target, hard_place):
    place = hard_place
    with lab.place("ext4" if place.fstype != "ext4" else "xfs") as elsewhere:
        original = snapshot_of(target)
        result = call(path=[target], store=elsewhere.store, name="first")
        assert_same(original, snapshot_of(stored(elsewhere, "first")))
        assert any("other filesystem" in each or "another filesystem" in each for each in warnings(result)) == (
            place.reflinks
        )
        damage(target)
        call(path=[target], store=elsewhere.store, name="first", state="rolled_back")
        assert_same(original, snapshot_of(target))


def warnings(result):
    return [str(each) for each in result.get("warnings", [])]


# -- as an ordinary user -----------------------------------------------------------------------------------------------


@pytest.fixture
def users_place(place):
    """A place whose folder belongs to an ordinary user."""
    os.chown(place.folder, NOBODY, NOBODY)
    return place


def users_target(place):
    target = place.make_target()
    fill(target)
    run("chown", "-R", "--no-dereference", f"{NOBODY}:{NOBODY}", target)
    # chown clears these.
    for mode in (0o2755, 0o4711, 0o6755, 0o7777):
        (target / "modes" / f"{mode:04o}").chmod(mode)
    time.sleep(0.05)
    return target


def test_an_ordinary_user_keeps_all_of_a_tree_of_their_own(users_place):
    target = users_target(users_place)
    options = {"path": [target], "store": users_place.store}
    original = snapshot_of(target)
    result = call_as(NOBODY, **options, name="first").only
    assert (result["not_kept"], result["inconsistent"]) == ({}, [])
    assert_same(original, snapshot_of(stored(users_place, "first")))
    call_as(NOBODY, **options, name="second")
    assert_same(original, snapshot_of(stored(users_place, "second")))
    (target / "modes" / "0600").write_text("changed")
    call_as(NOBODY, **options, name="first", state="rolled_back")
    assert_same(original, snapshot_of(target))
    assert call_as(NOBODY, **options, name="first", state="rolled_back")["changed"] is False
    (verified, _unused) = call_as(NOBODY, info, store=users_place.store, verify=True)["verified"]
    assert verified["faults"] == []
    for name in ("first", "second"):
        assert call_as(NOBODY, **options, name=name, state="absent")["changed"] is True
        assert not os.path.lexists(stored(users_place, name))


def test_an_ordinary_user_is_told_what_was_not_kept_and_keeps_the_rest(lab):
    with lab.place("ext4") as place:
        os.chown(place.folder, NOBODY, NOBODY)
        target = place.make_target()
        (target / "mine").write_text("mine")
        (target / "of root").write_text("root's, and readable")
        (target / "setuid").write_text("root's")
        (target / "setuid").chmod(0o4755)
        (target / "of root").chmod(0o644)
        (target / "capable").write_text("x")
        os.setxattr(target / "capable", "security.capability", b"\x01\x00\x00\x02\x00\x04" + bytes(14))
        (target / "capable").chmod(0o755)
        (target / "directory of root").mkdir(mode=0o755)
        (target / "directory of root").chmod(0o755)
        (target / "directory of root" / "file").write_text("x")
        (target / "directory of root" / "file").chmod(0o644)
        os.mknod(target / "device", 0o020666, os.makedev(1, 3))
        for name in ("mine", "capable"):
            os.chown(target / name, NOBODY, NOBODY)
        os.setxattr(target / "capable", "security.capability", b"\x01\x00\x00\x02\x00\x04" + bytes(14))
        os.chown(target, NOBODY, NOBODY)
        original = snapshot_of(target)
        lost = call_as(NOBODY, path=[target], store=place.store, name="first").only["not_kept"]
        assert set(lost["ownership"]["examples"]) == {
            "of root", "setuid", "directory of root", "directory of root/file",
        }  # fmt: skip
        assert lost["devices"] == {"count": 1, "examples": ["device"]}
        assert lost["xattrs"]["examples"] == ["capable (security.capability)"]
        kept = snapshot_of(stored(place, "first"))
        assert set(original) - set(kept) == {b"device"}
        assert not int(kept[b"setuid"]["mode"], 8) & 0o6000, "nobody's copy of root's program must not be setuid"
        assert_same({**original, b"device": {}}, {**kept, b"device": {}}, "owner", "mode", "xattrs")
        (verified,) = call_as(NOBODY, info, store=place.store, verify=True)["verified"]
        assert verified["faults"] == []


def test_an_ordinary_user_who_cannot_read_a_file_is_told_which(lab):
    with lab.place("ext4") as place:
        os.chown(place.folder, NOBODY, NOBODY)
        target = place.make_target()
        (target / "below").mkdir()
        (target / "below" / "secret").write_text("x")
        (target / "below").chmod(0o755)
        with pytest.raises(Failed, match=r"Permission denied \(/?below/secret\)"):
            call_as(NOBODY, path=[target], store=place.store, name="first")
        folder = stored(place, "")
        assert [each.name for each in folder.iterdir()] == [".target.json"]
