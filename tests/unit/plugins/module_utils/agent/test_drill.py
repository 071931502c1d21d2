# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drills of directories: what they find, what they say, and that nothing of them stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.agent import cli, opened, state
from ansible_collections.restorepoint.core.plugins.module_utils.core.history import tally
from ansible_collections.restorepoint.core.plugins.module_utils.engine.drills import DrillRules
from ansible_collections.restorepoint.core.plugins.module_utils.engine.policy import InvalidPolicies, parse_policies
from ansible_collections.restorepoint.core.plugins.module_utils.lock import FileLock
from ansible_collections.restorepoint.core.tests import signals
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.agent.test_agent import (
    TOOL,
    Host,
    wait_for,
)

signals.as_usual()


@pytest.fixture
def host(tmp_path):
    """A host whose one directory has been taken, with a checksum of every file."""
    found = Host(tmp_path)
    store = str(tmp_path / "store")
    found.policy["targets"] = [{"backend": "hostpath", "path": [str(found.data)], "store": store, "checksum": True}]
    (found.data / "folder").mkdir()
    (found.data / "folder" / "second").write_text("second")
    assert found.call("run", "dev")[0] == 0
    return found


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """The agent as one file."""
    target = tmp_path_factory.mktemp("agent") / "restorepoint.pyz"
    subprocess.run([sys.executable, TOOL, target], check=True, capture_output=True, timeout=120)
    return target


def stored(host, name="file"):
    """Return the path of a file of the newest snapshot in the store."""
    (found,) = host.folder.glob(f"store/*/{host.names[-1]}/{name}")
    return found


def drill(host, expected=cli.OK):
    """Drill; return the line in the journal, once it is sure that nothing of it stays."""
    code, text = host.call("drill", "dev")
    assert code == expected, text
    nothing_stays(host)
    return host.journal[-1]


def nothing_stays(host):
    assert not list(host.folder.glob("**/*restorepoint-drill-*"))
    assert state.State(str(host.folder / "state")).drilled("dev").read() is None


# -- what it finds -----------------------------------------------------------------------------------------------------


def test_a_drill_restores_the_newest_restore_point_and_leaves_one_line_and_nothing_else(host):
    (host.data / "file").write_text("changed since")
    line = drill(host)
    assert (line["command"], line["outcome"], line["checked"], line["faults"]) == ("drill", "done", 1, 0)
    (result,) = line["drills"]
    assert (result["target"], result["name"], result["files"], result["bytes"]) == (
        f"hostpath:{host.data}", host.names[-1], 2, 9
    )  # fmt: skip
    assert 0 <= result["restore_seconds"] <= result["seconds"] <= line["seconds"]
    assert (host.data / "file").read_text() == "changed since"


def test_the_metrics_count_a_drill_as_one(host):
    drill(host)
    stored(host).write_text("two")
    drill(host, cli.FAULTS)
    counted = tally(host.journal)["dev"]["commands"]["drill"]
    assert counted["outcomes"] == {"done": 1, "failed": 1}
    assert (counted["succeeded"], counted["faults"]) == (False, 1)


def test_a_drill_that_was_missed_is_made_up_for_once_and_one_that_failed_stays_due(host):
    host.policy.update(drill={"files": 3}, drill_schedule={"calendar": "*-*-* 02:00"})
    begin = (int(time.time()) // 86400 + 1) * 86400  # after the restore point was taken
    host.now = lambda: begin + 10 * 3600
    assert host.call("due")[1].startswith("dev drill due since ")
    assert host.call("drill", "dev", "--if-due")[0] == cli.FAULTS
    assert host.call("due", "--json")[1].count('"drill"') == 1
    host.policy["drill"] = {}
    assert host.call("drill", "--if-due")[0] == cli.OK
    assert host.call("due") == (0, "")
    assert host.call("drill", "dev", "--if-due") == (0, "dev: not due\n")
    host.now = lambda: begin + 5 * 86400 + 10 * 3600
    host.call("drill", "dev", "--if-due")
    host.call("drill", "dev", "--if-due")
    outcomes = [each["outcome"] for each in host.journal if each["command"] == "drill"]
    assert outcomes == ["failed", "done", "done"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: os.truncate(path, 1), "has 1 bytes instead of 3"),
        (lambda path: path.unlink(), "file is missing"),
        (lambda path: path.with_name("planted").write_text("x"), "planted is not in the manifest"),
    ],
)
def test_a_drill_finds_what_was_done_to_the_store(host, damage, words):
    damage(stored(host))
    line = drill(host, cli.FAULTS)
    assert line["outcome"] == "failed"
    assert words in line["reason"]
    assert str(host.data) in line["reason"]


def test_a_drill_finds_other_bytes_in_a_file_that_looks_the_same(host):
    path = stored(host)
    before = path.stat()
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "has other content than its checksum says" in drill(host, cli.FAULTS)["reason"]


def test_a_manifest_that_is_gone_is_a_fault_and_without_that_check_none(host):
    (manifest,) = host.folder.glob(f"store/*/{host.names[-1]}.manifest")
    manifest.unlink()
    assert drill(host, cli.FAULTS)["faults"] == 1


def test_only_the_newest_restore_point_counts(host):
    first = stored(host)
    (host.data / "file").write_text("newer")
    assert host.call("run", "dev")[0] == 0
    os.truncate(first, 1)
    assert drill(host)["name"] == host.names[-1]


def test_what_was_taken_by_hand_is_not_what_the_policy_takes(host):
    host.call("create", "dev", "--name", "by-hand")
    assert drill(host)["name"].startswith("dev-")


def test_without_a_restore_point_a_drill_fails(host):
    host.policy["name"] = "other"
    code, text = host.call("drill", "other")
    assert code == cli.FAULTS
    assert "there is no restore point of this policy" in text
    assert host.journal[-1]["outcome"] == "failed"


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"files": 3}, "there are 2 files, and there have to be 3"),
        ({"bytes": "1K"}, "there have to be 1.0 KiB"),
        ({"command": ["false"]}, "`false` failed with exit code 1"),
        ({"command": ["sh", "-c", "echo it is broken >&2; exit 7"]}, "it is broken"),
        ({"command": ["no-such-program-of-mine"]}, "no-such-program-of-mine of the check is not there"),
        ({"command": ["sleep", "600"], "timeout": "1s"}, "did not end within 1 s and was stopped"),
    ],
)
def test_each_check_of_the_policy_can_fail(host, rules, words):
    host.policy["drill"] = rules
    line = drill(host, cli.FAULTS)
    assert words in line["reason"]
    assert line["drills"][0]["ok"] is False


def test_each_check_of_the_policy_can_hold(host):
    host.policy["drill"] = {"files": 2, "bytes": 9, "max_age": "1h", "command": ["grep", "one", "{path}/file"]}
    assert drill(host)["outcome"] == "done"


def test_a_restore_point_that_is_too_old_is_a_fault(host):
    host.policy["drill"] = {"max_age": "1h"}
    before, host.now = host.now, lambda: before() + 7200
    assert "older than max_age 1h" in drill(host, cli.FAULTS)["reason"]


def test_a_command_is_told_where_the_content_is_and_whose(host):
    script = f"env > {host.folder}/env; cp $RESTOREPOINT_PATH/file {host.folder}"
    host.policy["drill"] = {"command": ["sh", "-c", script]}
    (host.data / "file").write_text("changed since")
    drill(host)
    assert (host.folder / "file").read_text() == "one"
    told = (host.folder / "env").read_text().splitlines()
    assert f"RESTOREPOINT_TARGET=hostpath:{host.data}" in told
    assert f"RESTOREPOINT_NAME={host.names[-1]}" in told
    assert "RESTOREPOINT_PATH" not in os.environ


def test_a_target_that_fails_does_not_hide_the_others(host):
    other = host.folder / "other"
    other.mkdir()
    (other / "file").write_text("three")
    host.policy["targets"][0]["path"].append(str(other))
    assert host.call("run", "dev")[0] == 0
    (path,) = host.folder.glob(f"store/*data*/{host.names[-1]}/file")
    path.unlink()
    line = drill(host, cli.FAULTS)
    assert (line["checked"], line["faults"]) == (2, 1)
    assert {each["target"]: each["ok"] for each in line["drills"]} == {
        f"hostpath:{host.data}": False, f"hostpath:{other}": True
    }  # fmt: skip


# -- what it leaves ----------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_restored_and_touches_nothing(host):
    host.policy["drill"] = {"scratch": str(host.folder / "missing")}
    before = len(host.journal)
    code, text = host.call("drill", "--dry-run", "--json")
    assert code == 0
    (found,) = json.loads(text)
    assert (found["policy"], found["target"], found["name"]) == ("dev", f"hostpath:{host.data}", host.names[-1])
    assert found["place"].startswith(str(host.folder / "missing"))
    assert len(host.journal) == before
    nothing_stays(host)


def test_without_a_name_those_are_drilled_that_have_the_key(host):
    assert host.call("drill")[0] == cli.USAGE
    host.policy["drill"] = {}
    code, text = host.call("drill", "--json")
    assert code == 0
    assert [each["policy"] for each in json.loads(text)] == ["dev"]


def test_a_scratch_folder_that_is_missing_is_said(host):
    host.policy["drill"] = {"scratch": str(host.folder / "missing")}
    line = drill(host, cli.FAULTS)
    assert "No such file or directory" in line["reason"]
    assert "make the directory above it, or name another one" in line["reason"]


def test_a_drill_waits_for_a_run_of_its_policy(host):
    held = threading.Event()
    let_go = threading.Event()

    def hold():
        with FileLock(str(host.folder / "state" / "runs" / "dev.lock"), 10, "run policy dev"):
            held.set()
            let_go.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    try:
        assert held.wait(60)
        assert host.call("drill", "dev", "--wait", "0")[0] == cli.BUSY
        assert host.journal[-1]["outcome"] == "busy"
    finally:
        let_go.set()
        other.join(60)
    assert drill(host)["outcome"] == "done"


@pytest.mark.parametrize("how", ["the next drill", "recover"])
def test_what_a_drill_that_was_killed_has_left_goes(host, archive, how):
    host.policy["drill"] = {"command": ["sh", "-c", 'kill -KILL "$PPID"']}
    done = subprocess.run([sys.executable, archive, *host.arguments, "drill", "dev"], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(host.folder.glob(".restorepoint-drill-*/content/file"))
    host.policy["drill"] = {}
    if how == "recover":
        assert host.call("recover", "dev")[0] == 0
        nothing_stays(host)
        assert [each["outcome"] for each in host.journal] == ["done", "killed"]
    else:
        drill(host)
        assert [each["outcome"] for each in host.journal] == ["done", "killed", "done"]


def test_an_interrupt_takes_the_scratch_place_away(host, archive):
    host.policy["drill"] = {"command": ["sh", "-c", f"echo > {host.folder}/there; exec sleep 600"]}
    agent = subprocess.Popen([sys.executable, archive, *host.arguments, "drill", "dev"], stdout=subprocess.DEVNULL)
    wait_for((host.folder / "there").exists, 60)
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(60) == cli.INTERRUPTED
    nothing_stays(host)
    assert host.journal[-1]["outcome"] == "interrupted"


def test_a_folder_that_took_the_place_of_the_drills_own_is_not_removed(host, archive):
    host.policy["drill"] = {"command": ["sh", "-c", 'kill -KILL "$PPID"']}
    subprocess.run([sys.executable, archive, *host.arguments, "drill", "dev"], timeout=120, check=False)
    (folder,) = host.folder.glob(".restorepoint-drill-*")
    folder.rename(host.folder / "moved")
    folder.mkdir()
    (folder / "precious").write_text("mine")
    host.policy["drill"] = {}
    code, _text = host.call("drill", "dev")
    assert code == cli.FAILED
    assert "it is not the one that the drill has made" in host.journal[-1]["reason"]
    assert (folder / "precious").read_text() == "mine"


# -- the key -----------------------------------------------------------------------------------------------------------


def rules(drill, backend="hostpath"):
    """Return the rules of a policy with this key, or its faults as texts."""
    targets = {
        "hostpath": {"backend": "hostpath", "path": ["/srv/a"], "store": "/srv/store"},
        "lvm": {"backend": "lvm", "volume": ["vg/a"]},
        "csi": {"backend": "csi", "namespace": ["shop"]},
        "pve": {"backend": "pve", "vmid": ["100"], "transport": "pvesh"},
    }
    try:
        (found,) = parse_policies({"policies": [{"name": "dev", "targets": [targets[backend]], "drill": drill}]})
    except InvalidPolicies as error:
        return [str(each) for each in error.faults]
    return found.drill


def test_an_empty_key_has_the_defaults_and_without_it_there_is_none():
    assert rules({}) == DrillRules()
    assert rules(None) is None


def test_every_key_is_read():
    given = {"manifest": False, "read": False, "files": 7, "bytes": "2M", "fsck": True, "command": ["x", "{path}"]}
    found = rules({**given, "timeout": "2h", "max_age": "3d", "writable": True, "scratch": "/srv/scratch/"}, "lvm")
    assert found == DrillRules(
        manifest=False, read=False, files=7, bytes=2 << 20, fsck=True, command=("x", "{path}"), timeout=7200,
        max_age=259200, writable=True, scratch="/srv/scratch",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("drill", "backend", "words"),
    [
        ({"manifst": True}, "hostpath", "policies[0].drill.manifst: there is no such key; did you mean manifest?"),
        ([], "hostpath", "policies[0].drill: it is a list, and has to be a mapping"),
        ({"files": -1}, "hostpath", "policies[0].drill.files: it is negative"),
        ({"files": "many"}, "hostpath", "policies[0].drill.files: it is a text, and has to be a whole number"),
        ({"bytes": "much"}, "hostpath", "policies[0].drill.bytes: it is not a size"),
        ({"timeout": "10"}, "hostpath", "policies[0].drill.timeout: it is not a duration"),
        ({"command": "true"}, "hostpath", "policies[0].drill.command: it has to be a list of texts"),
        ({"command": []}, "hostpath", "policies[0].drill.command: it is empty"),
        ({"scratch": "here"}, "hostpath", "policies[0].drill.scratch: it has to be the absolute path"),
        ({"writable": True}, "hostpath", "policies[0].drill.writable: nothing would write"),
        ({"fsck": True}, "hostpath", "policies[0].drill.fsck: only logical volumes"),
        ({"files": 1}, "csi", "policies[0].drill.files: what is in a claim is not seen from outside"),
        ({}, "pve", "policies[0].drill: guests of Proxmox VE are not drilled"),
    ],
)
def test_what_is_wrong_in_the_key_is_named_by_its_place(drill, backend, words):
    found = rules(drill, backend)
    assert isinstance(found, list)
    assert any(each.startswith(words) for each in found), found


# -- how things are mounted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fstype", ["ext2", "ext3", "ext4", "xfs", "zfs", "vfat"])
@pytest.mark.parametrize("untouched", [True, False])
def test_nothing_on_a_copy_can_do_harm_and_it_is_read_only_unless_asked(fstype, untouched):
    options = opened.mount_options(fstype, untouched=untouched).split(",")
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(options)
    assert ("noload" in options) == (untouched and fstype in ("ext3", "ext4"))
    assert ("norecovery" in options) == (untouched and fstype == "xfs")
    assert ("nouuid" in options) == (fstype == "xfs")
    assert ("errors=remount-ro" in options) == fstype.startswith("ext")
    assert opened.mount_options(fstype, writable=True, executable=True).split(",")[:3] == ["rw", "nosuid", "nodev"]
