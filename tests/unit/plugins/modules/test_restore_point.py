# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module restore_point, over a directory and a guest of Proxmox VE; and its documentation."""

from __future__ import annotations

import pytest
import yaml

from ansible_collections.restorepoint.core.plugins.module_utils.bridge.restore_point import SPEC
from ansible_collections.restorepoint.core.plugins.modules import restore_point
from ansible_collections.restorepoint.core.tests.pve_server.faults import fail_task
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.documented import (
    differences,
    faults,
    missing,
    options,
)
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.pve_cluster import guests_of_each_kind
from ansible_collections.restorepoint.core.tests.unit.plugins.modules.running import run


@pytest.fixture
def cluster():
    with guests_of_each_kind() as found:
        yield found


@pytest.fixture
def targets(cluster, tmp_path):
    """A directory and a guest, both with a word in them."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("one")
    cluster.server.guest(101).write("one")
    return [
        {"backend": "hostpath", "path": str(tmp_path / "data"), "store": str(tmp_path / "store")},
        {"backend": "pve", "vmid": "101", **cluster.login},
    ]


def play(targets, state="present", **more):
    return run(restore_point, targets=targets, name="upgrade", state=state, **more)


def test_every_option_is_documented_as_it_is():
    assert list(differences(SPEC, options(restore_point))) == []


def test_both_are_taken_returned_and_removed_together(cluster, targets, tmp_path):
    taken = play(targets)
    assert [each["action"] for each in taken["results"]] == ["created", "created"]
    returned = yaml.safe_load(restore_point.RETURN)
    assert missing(taken, returned) == []
    # What else a result tells is its own backend's.
    assert list(faults({key: value for key, value in taken.items() if key != "results"}, returned)) == []
    assert f"{cluster.server.host}:{cluster.server.port}" in [each["place"] for each in taken["parts"]]
    assert not play(targets)["changed"]
    (tmp_path / "data" / "file").write_text("two")
    cluster.server.guest(101).write("two")
    assert play(targets, "rolled_back", once="t1")["changed"]
    cluster.server.wait_idle()
    assert (tmp_path / "data" / "file").read_text() == "one"
    assert set(cluster.server.guest(101).content.values()) == {"one"}
    assert not play(targets, "rolled_back", once="t1")["changed"]
    assert play(targets, "absent")["changed"]
    assert cluster.names(101) == []


def test_what_was_taken_is_removed_when_the_other_fails(cluster, targets):
    cluster.server.faults.at("POST */101/snapshot", 1, fail_task("volume:*", "zfs error: out of space"))
    failed = play(targets)
    assert "out of space" in failed["msg"]
    assert [each["exists"] for each in play(targets, check_mode=True)["parts"]] == [False, False]


def test_a_password_is_in_no_result(cluster, targets):
    assert cluster.server.password not in str(play(targets))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"stage": "undo"}, "it has no stage undo"),
        ({"stage": "begin"}, "stage begin needs run"),
        ({"assume_stopped": True}, "assume_stopped is for check mode"),
    ],
)
def test_what_cannot_be_meant_is_refused(targets, more, said):
    assert said in play(targets, **more)["msg"]
