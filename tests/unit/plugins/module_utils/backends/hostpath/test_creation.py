# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is written down of a snapshot, and on what the next one is built."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import stat

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.backends.hostpath import creation
from ansible_collections.restorepoint.core.plugins.module_utils.backends.hostpath.options import HostTarget
from ansible_collections.restorepoint.core.plugins.module_utils.backends.stored import making
from ansible_collections.restorepoint.core.plugins.module_utils.core.run import RunFailed
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.backends.hostpath.place import Place


@pytest.fixture
def place(tmp_path):
    found = Place(tmp_path)
    (found.target / "f").write_text("one")
    return found


def metadata(place, name="x"):
    return json.loads((place.folder / f"{name}.json").read_text())


def test_the_metadata_says_all_that_people_and_later_versions_need(place):
    place.call("present", description="d", labels={"app": "web"}, owner="nightly", policy="nightly")
    found = metadata(place)
    manifest = (place.folder / "x.manifest").read_bytes()
    assert {key: found[key] for key in (
        "format", "name", "created", "sequence", "source", "host", "owner", "policy", "description", "labels",
        "exclude", "checksum", "strategy", "files", "directories", "others", "bytes", "inconsistent", "left_out",
        "not_kept", "manifest_sha256",
    )} == {
        "format": 1, "name": "x", "created": "2023-11-14T23:13:20Z", "sequence": 1, "source": str(place.target),
        "host": platform.node(), "owner": "nightly", "policy": "nightly", "description": "d", "labels": {"app": "web"},
        "exclude": [], "checksum": None, "strategy": "copy", "files": 1, "directories": 1, "others": 0, "bytes": 3,
        "inconsistent": [], "left_out": [], "not_kept": {}, "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
    }  # fmt: skip
    assert found["tool"].startswith("restorepoint.core ")


def test_the_metadata_is_for_nobody_elses_eyes(place):
    place.call("present")
    for name in ("x.json", "x.manifest"):
        assert stat.S_IMODE((place.folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700


def test_what_is_known_of_a_claim_stands_in_the_metadata(place):
    claim = {"namespace": "web", "pvc": "data", "pv": "pv-1", "node": "node1"}

    def adapt(backend):
        backend._by_path[str(place.target)] = HostTarget(str(place.target), claim)
        return backend

    place.call("present", adapt=adapt)
    assert {key: metadata(place)[key] for key in claim} == claim


def test_sequences_go_on_and_are_not_used_again_by_what_comes_after_a_removal(place):
    for name in ("x", "y"):
        place.call("present", name)
    place.call("absent", "x")
    place.call("present", "z")
    assert [metadata(place, name)["sequence"] for name in ("y", "z")] == [2, 3]


def test_a_snapshot_is_built_on_the_newest_sound_one(place):
    for name in ("x", "y"):
        place.take(name)
    (place.folder / "y.json").write_text("corrupt")
    place.take("z")
    assert os.path.samefile(place.snapshot("x") / "f", place.snapshot("z") / "f")


def test_after_a_return_the_next_snapshot_shares_with_the_one_that_was_returned_to(place):
    place.take("x")
    (place.target / "f").write_text("two, longer")
    place.take("y")
    place.call("rolled_back", "x")
    assert place.take("z")["linked_files"] == 1
    assert os.path.samefile(place.snapshot("x") / "f", place.snapshot("z") / "f")


def test_a_snapshot_after_that_return_makes_the_newest_one_the_basis_again(place):
    place.take("x")
    (place.target / "f").write_text("two, longer")
    place.call("rolled_back", "x")
    (place.target / "f").write_text("three, even longer")
    place.take("y")
    place.take("z")
    assert os.path.samefile(place.snapshot("y") / "f", place.snapshot("z") / "f")


@pytest.mark.parametrize("mode", [0o2755, 0o755])
def test_copies_do_not_inherit_the_group_of_the_store(place, mode):
    place.call("present")
    place.folder.chmod(mode)
    place.call("present", "y")
    assert (place.snapshot("y") / "f").stat().st_gid == (place.target / "f").stat().st_gid
    assert stat.S_IMODE(place.snapshot("y").stat().st_mode) == stat.S_IMODE(place.target.stat().st_mode)


@pytest.mark.parametrize(("number", "words"), [(28, "free space"), (122, "quota"), (13, "run as root"), (24, "ulimit")])
def test_a_known_error_comes_with_the_way_out(number, words):
    assert words in making.remedy(OSError(number, os.strerror(number)), "/store")


def test_a_failure_in_the_middle_leaves_nothing(place, monkeypatch):
    def fail(*_unused):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(creation.Creation, "_describe", fail)
    with pytest.raises(RunFailed, match="No space left on device"):
        place.call("present")
    monkeypatch.undo()
    assert os.listdir(place.folder) == [".target.json"]


def test_progress_is_told(place):
    told = []
    place.call("present", options={"progress": lambda stage, fields: told.append((stage, dict(fields)))})
    assert told == [(f"take snapshot 'x' of {place.target}", {"files": 1, "bytes": 3})]
