# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The store: batches that count whole or not at all, whenever a run is killed, and what is not ours left alone."""

from __future__ import annotations

import json
import os
import stat
from random import Random

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.stored import layout
from ansible_collections.restorepoint.core.plugins.module_utils.backends.stored.store import (
    Rename,
    Store,
    check_apart,
    read_json,
    write_json,
)
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import (
    InvalidInput,
    LockTimeout,
    StoreError,
)

ENDS = ("", ".json", ".manifest")
TARGETS = ("/srv/a", "/srv/b", "/srv/c")


@pytest.fixture
def store(tmp_path):
    found = Store(str(tmp_path / "store"), "hostpath")
    found.make_directory()
    found.make()
    yield found
    found.close()


def put(store, target, label, content):
    """Make the three pieces of a snapshot under a label in the folder of a target."""
    folder = store.folder(target, make=True)
    os.mkdir(label, dir_fd=folder.fd)
    for end in (".json", ".manifest"):
        fd = os.open(label + end, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=folder.fd)
        os.write(fd, f"{content}{end}".encode())
        os.close(fd)
    fd = os.open(f"{label}/which", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=folder.fd)
    os.write(fd, content.encode())
    os.close(fd)
    folder.close()
    return folder.name


def visible(store):
    """Return all that is there and not hidden, with its content."""
    found = {}
    for root, folders, files in os.walk(store.path):
        folders[:] = [each for each in folders if not each.startswith(".")]
        for name in files:
            if not name.startswith("."):
                path = os.path.join(root, name)
                with open(path, encoding="utf-8") as stream:
                    found[os.path.relpath(path, store.path)] = stream.read()
    return found


def hidden(store):
    """Return what is hidden and does not belong to a store at rest."""
    return sorted(
        each
        for _unused, folders, files in os.walk(store.path)
        for each in folders + files
        if each.startswith(".") and each not in (layout.MARKER, layout.LOCK, layout.TARGET)
    )


def steps(folder, old, new, order=(".manifest", ".json", "")):
    return [Rename(f"{folder}/{old}{end}", f"{folder}/{new}{end}") for end in order]


def create(store, target):
    return steps(put(store, target, ".new-1", "new"), ".new-1", "x")


def replace(store, target):
    folder = put(store, target, "x", "old")
    put(store, target, ".new-1", "new")
    return steps(folder, "x", ".old-1", ENDS) + steps(folder, ".new-1", "x")


def destroy(store, target):
    return steps(put(store, target, "x", "old"), "x", ".old-1", ENDS)


BATCHES = [[create], [replace], [destroy], [create, replace], [replace, replace, replace], [destroy, create, destroy]]


@pytest.mark.parametrize("kinds", BATCHES)
def test_a_batch_that_was_killed_anywhere_is_completed_by_the_next_run(tmp_path, kinds):
    ends = []
    count = 0
    while True:
        store = Store(str(tmp_path / f"store-{count}"), "hostpath")
        store.make_directory()
        store.make()
        batch = [step for kind, target in zip(kinds, TARGETS) for step in kind(store, target)]
        if count > len(batch):
            break
        journal = {"format": layout.FORMAT, "renames": [[step.old, step.new] for step in batch]}
        write_json(store.fd, layout.JOURNAL, journal)
        for step in batch[:count]:
            os.rename(step.old, step.new, src_dir_fd=store.fd, dst_dir_fd=store.fd)
        assert any("completed a change" in each for each in store.recover())
        assert hidden(store) == []
        ends.append(visible(store))
        assert store.recover() == []
        store.close()
        count += 1
    # What no run was killed in comes to the same end.
    store.apply(batch)
    store.recover()
    assert ends == [visible(store)] * (len(batch) + 1)
    store.close()


@pytest.mark.parametrize("kinds", BATCHES)
def test_a_batch_that_fails_anywhere_is_taken_back(tmp_path, kinds, monkeypatch):
    rename = os.rename
    for count in range(20):
        store = Store(str(tmp_path / f"store-{count}"), "hostpath")
        store.make_directory()
        store.make()
        batch = [step for kind, target in zip(kinds, TARGETS) for step in kind(store, target)]
        if count >= len(batch):
            break
        before, hidden_before = visible(store), hidden(store)
        failing = batch[count]

        def fail(old, new, failing=failing, **directories):
            if (old, new) == (failing.old, failing.new):
                raise OSError(5, "Input/output error", old)
            rename(old, new, **directories)

        monkeypatch.setattr(os, "rename", fail)
        with pytest.raises(OSError, match="Input/output error"):
            store.apply(batch)
        monkeypatch.setattr(os, "rename", rename)
        assert (visible(store), hidden(store)) == (before, hidden_before)
        assert not store.in_doubt
        store.close()
    assert count == len(batch)


def test_a_batch_overwrites_nothing_that_it_does_not_move_away(store):
    folder = put(store, "/srv/a", "x", "old")
    put(store, "/srv/a", ".new-1", "new")
    before = visible(store)
    with pytest.raises(FileExistsError):
        store.apply(steps(folder, ".new-1", "x"))
    assert visible(store) == before


def test_what_a_killed_run_left_hidden_is_removed_and_nothing_else(store):
    folder = put(store, "/srv/a", "x", "kept")
    put(store, "/srv/a", ".new-1", "half")
    put(store, "/srv/a", ".old-1", "going")
    os.mkdir(os.path.join(store.path, ".new-folder"))
    with open(os.path.join(store.path, folder, ".something-else"), "w", encoding="utf-8"):
        pass
    before = visible(store)
    assert len(store.recover()) == 1
    assert visible(store) == before
    assert hidden(store) == [".something-else"]


@pytest.mark.parametrize(
    "journal",
    ["", "[]", "{}", '{"renames": 1}', '{"renames": [["a"]]}', '{"renames": [["gone", "nowhere"]]}', "\udcff"],
)
def test_a_journal_that_cannot_be_completed_stops_the_run_and_is_named(store, journal):
    put(store, "/srv/a", "x", "kept")
    with open(os.path.join(store.path, layout.JOURNAL), "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(journal)
    before = visible(store)
    with pytest.raises(StoreError, match=r"\.journal\.json"):
        store.recover()
    assert visible(store) == before


# --- making and opening ----------------------------------------------------------------------------------------------


def test_a_new_store_is_for_nobody_elses_eyes_and_says_what_it_is(store):
    assert stat.S_IMODE(os.stat(store.path).st_mode) == 0o700
    assert store.loose_mode() is None
    with open(os.path.join(store.path, layout.MARKER), encoding="utf-8") as stream:
        assert json.load(stream) == {"format": 1, "tool": "restorepoint.core", "backend": "hostpath"}


def test_a_store_of_another_backend_is_not_used(store):
    with pytest.raises(StoreError, match="it is one of hostpath snapshots; name another folder for those of btrfs"):
        Store(store.path, "btrfs").exists()


def test_a_store_that_others_may_read_is_called_loose(store):
    os.chmod(store.path, 0o755)
    assert store.loose_mode() == "0755"


def test_looking_for_a_store_makes_none(tmp_path):
    assert not Store(str(tmp_path / "store"), "hostpath").exists()
    assert os.listdir(tmp_path) == []


def test_an_empty_folder_can_become_a_store(tmp_path):
    store = Store(str(tmp_path), "hostpath")
    assert not store.exists()
    store.make_directory()
    store.make()
    assert store.exists()


def test_a_folder_with_other_files_is_never_made_a_store(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"it holds other files, such as 'thesis\.tex'"):
        Store(str(tmp_path), "hostpath").make_directory()
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("make", [lambda path: path.write_text(""), lambda path: path.symlink_to(path.parent)])
def test_what_is_no_directory_is_no_store(tmp_path, make):
    make(tmp_path / "store")
    with pytest.raises(StoreError, match="it is no directory"):
        Store(str(tmp_path / "store"), "hostpath").exists()


def test_a_store_of_another_version_is_not_touched(store):
    write_json(store.fd, layout.MARKER, {"format": 2})
    with pytest.raises(StoreError, match="of format 2, and this version writes format 1"):
        store.exists()


@pytest.mark.parametrize("content", ["", "[]", "no json", "{}", '"format"'])
def test_a_marker_that_cannot_be_read_is_named(store, content):
    with open(os.path.join(store.path, layout.MARKER), "w", encoding="utf-8") as stream:
        stream.write(content)
    with pytest.raises(StoreError, match=r"\.restorepoint-store\.json in it cannot be read"):
        store.exists()


def test_a_store_of_another_user_is_refused(store, monkeypatch):
    owner = os.stat(store.path).st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        assert store.exists(), "root's store may be used by those whom root lets in"
        os.chown(store.path, 12345, 12345)
    with pytest.raises(StoreError, match="it belongs to uid"):
        store.exists()


def test_two_runs_do_not_change_one_store_at_once(store):
    with store.writing(0), pytest.raises(LockTimeout, match="use the store"), store.writing(0):
        pass


# --- targets ---------------------------------------------------------------------------------------------------------


def test_the_folder_of_a_target_is_made_once_and_found_again(store):
    assert store.folder("/srv/a") is None
    made = store.folder("/srv/a", make=True)
    found = store.folder("/srv/a")
    assert made.path == found.path
    assert list(store.targets()) == ["/srv/a"]
    made.close()
    found.close()


def test_a_folder_that_says_it_is_anothers_is_refused(store):
    folder = store.folder("/srv/a", make=True)
    write_json(folder.fd, layout.TARGET, {"format": 1, "path": "/srv/b"})
    folder.close()
    with pytest.raises(StoreError, match="names '/srv/b'"):
        store.folder("/srv/a")


def test_a_folder_of_nobody_is_named(store):
    os.mkdir(os.path.join(store.path, "stranger"))
    with pytest.raises(StoreError):
        list(store.targets())


def test_files_that_people_put_into_a_store_do_not_matter(store):
    store.folder("/srv/a", make=True).close()
    with open(os.path.join(store.path, "README"), "w", encoding="utf-8"):
        pass
    assert list(store.targets()) == ["/srv/a"]
    assert store.recover() == []


# --- snapshots -------------------------------------------------------------------------------------------------------

GOOD = {"format": 1, "name": "x", "created": "2026-11-22T01:30:00Z", "sequence": 1, "source": "/srv/a"}


def entries(store, metadata, tree=True):
    folder = store.folder("/srv/a", make=True)
    try:
        if tree:
            os.mkdir("x", dir_fd=folder.fd)
        if metadata is not None:
            with open(os.path.join(folder.path, "x.json"), "w", encoding="utf-8") as stream:
                stream.write(metadata if isinstance(metadata, str) else json.dumps(metadata))
        with store.writing(0):
            return store.entries(folder)
    finally:
        folder.close()


def test_a_snapshot_is_as_its_metadata_says(store):
    (entry,) = entries(store, {**GOOD, "description": "d", "labels": {"a": "b"}, "bytes": 7, "strategy": "copy"})
    snapshot = entry.snapshot("/srv/a")
    assert (snapshot.name, snapshot.ready, snapshot.description, snapshot.labels) == ("x", True, "d", {"a": "b"})
    assert (snapshot.sequence, snapshot.referenced_bytes) == (1, 7)
    assert snapshot.as_result()["created"] == GOOD["created"]
    assert snapshot.extra == {"strategy": "copy", "source": "/srv/a"}


@pytest.mark.parametrize(
    ("metadata", "fault"),
    [
        ("", "it is no JSON"),
        ("[]", "it is no JSON object"),
        ("nul", "it is no JSON"),
        ({**GOOD, "format": 2}, "it is of format 2"),
        ({**GOOD, "name": "y"}, "it is about 'y'"),
        ({**GOOD, "created": "yesterday"}, "metadata is corrupt"),
        ({**GOOD, "created": 5}, "created is missing or no str"),
        ({**GOOD, "sequence": "1"}, "sequence is missing or no int"),
        ({**GOOD, "labels": ["a"]}, "labels is no mapping"),
        ({key: value for key, value in GOOD.items() if key != "source"}, "source is missing"),
        (None, "it has no metadata beside it"),
    ],
)
def test_corrupt_metadata_is_named_and_the_snapshot_not_usable(store, metadata, fault):
    (entry,) = entries(store, metadata)
    snapshot = entry.snapshot("/srv/a")
    assert (snapshot.name, snapshot.ready) == ("x", False)
    assert fault in snapshot.extra["fault"]


def test_a_snapshot_whose_tree_is_missing_is_not_usable(store):
    (entry,) = entries(store, GOOD, tree=False)
    assert entry.fault == "its tree is missing"


def test_metadata_is_never_read_through_a_link(store, tmp_path):
    (tmp_path / "elsewhere").write_text(json.dumps(GOOD))
    folder = store.folder("/srv/a", make=True)
    os.mkdir("x", dir_fd=folder.fd)
    os.symlink(tmp_path / "elsewhere", "x.json", dir_fd=folder.fd)
    (entry,) = store.entries(folder)
    assert entry.fault is not None
    folder.close()


def test_snapshots_are_listed_by_their_order_and_not_by_their_names(store):
    folder = store.folder("/srv/a", make=True)
    order = ["z", "a", "m", "b"]
    for name in Random(1).sample(order, 4):
        os.mkdir(name, dir_fd=folder.fd)
        write_json(folder.fd, f"{name}.json", {**GOOD, "name": name, "sequence": order.index(name)})
    assert [entry.name for entry in store.entries(folder)] == order
    folder.close()


# --- files -----------------------------------------------------------------------------------------------------------


def test_json_is_written_whole_or_not_at_all(store):
    write_json(store.fd, "x.json", {"a": "é\udcff"})
    assert read_json(store.fd, "x.json") == {"a": "é\udcff"}
    with pytest.raises(TypeError):
        write_json(store.fd, "x.json", {"a": object()})
    assert read_json(store.fd, "x.json") == {"a": "é\udcff"}
    assert hidden(store) == []


@pytest.mark.parametrize(
    ("target", "where", "word"),
    [
        ("/srv/a", "/srv/a", "the same directory"),
        ("/srv/a", "/srv/a/store", "the store lies inside the target"),
        ("/srv/a/b", "/srv/a", "the target lies inside the store"),
        ("/", "/srv/store", "the store lies inside the target"),
        ("/srv", "/", "the target lies inside the store"),
    ],
)
def test_a_store_and_a_target_do_not_lie_in_each_other(target, where, word):
    with pytest.raises(InvalidInput, match=word):
        check_apart(target, where)


def test_a_store_beside_a_target_whose_name_it_begins_with_is_fine():
    check_apart("/srv/a", "/srv/ab")
    check_apart("/srv/ab", "/srv/a")
