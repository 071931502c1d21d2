# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drills on real filesystems: killed before each of their calls, with planted faults, and on a disk without room."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from ansible_collections.restorepoint.core.plugins.module_utils.agent import cli, opened, scratch, state
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import RestorePointError
from ansible_collections.restorepoint.core.tests.lab import faults, volumes
from ansible_collections.restorepoint.core.tests.lab.filesystems import (
    mount_image,
    mounts_below,
    one_at_a_time,
    run,
    unmount,
)
from ansible_collections.restorepoint.core.tests.lab.test_monitoring import CHECKOUT, RULES, told, tools
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.agent.test_agent import TOOL, Host

__all__ = ["tools"]  # a fixture

#: Kills of each kind are spread over so many of the calls, the first and the last ones among them.
_KILLS = 24


def on_the_place(host, place):
    """Let the policy of a host take something on a place, by what is natural there; return what is taken."""
    if place.kind == "btrfs":
        found = volumes.Volumes(place.folder)
        found.make("inside")
        where = {"backend": "btrfs", "subvolume": [str(found.target)], "store": str(found.store), "recursive": True}
        target = found.target
    else:
        target = place.make_target()
        (target / "file").write_text("one")
        (target / "folder").mkdir()
        (target / "folder" / "link").symlink_to("../file")
        where = {"backend": "hostpath", "path": [str(target)], "store": str(place.store)}
        where["checksum"] = not place.by_subvolume
    host.policy["targets"] = [where]
    assert host.call("run", "dev")[0] == 0
    return target


def nothing_stays(host, folder):
    assert not [each for each in os.listdir(folder) if "restorepoint-" in each]
    assert state.State(str(host.folder / "state")).drilled("dev").read() is None
    assert not mounts_below(host.folder)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.fixture(params=["ext4", "btrfs", "btrfs-subvolume"])
def kind(lab, request):
    """A place of each way in which something is laid out."""
    with lab.place(request.param) as found:
        yield found


def test_a_drill_of_each_kind_restores_checks_and_leaves_nothing(host, kind):
    target = on_the_place(host, kind)
    before = volumes.picture(target)
    host.policy["drill"] = {"files": 1, "command": ["grep", "one", "{path}/file"]}
    code, text = host.call("drill", "dev")
    assert code == 0, text
    assert volumes.picture(target) == before
    nothing_stays(host, kind.folder)
    (found,) = kind.folder.glob(f"store/*/{host.names[-1]}/file")
    if kind.kind == "ext4":
        found.unlink()
    else:
        run("btrfs", "property", "set", "-ts", found.parent, "ro", "false")
        found.write_text("two")
    assert host.call("drill", "dev")[0] == cli.FAULTS
    nothing_stays(host, kind.folder)


def drilled(host):
    """Drill in this process, as the fork that is killed does it."""
    code, text = host.call("drill", "dev")
    return {"code": code, "text": text}


def test_killed_before_any_of_its_calls_a_drill_leaves_nothing_that_the_next_does_not_remove(host, kind):
    target = on_the_place(host, kind)
    before = volumes.picture(target)
    report = faults.start(countdown=faults.Countdown(), call=lambda: drilled(host)).reported()
    assert report["code"] == 0, report
    count = len(report["calls"])
    assert count > 10
    for number in sorted({1 + each * (count - 1) // (_KILLS - 1) for each in range(_KILLS)}):
        countdown = faults.Countdown(at=number)
        assert faults.start(countdown=countdown, call=lambda: drilled(host)).wait() is None
        if number % 2:
            assert host.call("recover", "dev")[0] == 0, number
            nothing_stays(host, kind.folder)
        code, text = host.call("drill", "dev")
        assert code == 0, (number, text)
        nothing_stays(host, kind.folder)
        assert volumes.picture(target) == before
    assert [each["outcome"] for each in host.journal][-1] == "done"
    assert all(each["ok"] for each in host.json("verify", "dev"))


def test_a_disk_without_room_is_said_and_nothing_stays(lab, host):
    with lab.extra_disk("ext4", 64 << 20) as disk:
        (disk / "scratch").mkdir()
        (host.data / "large").write_bytes(os.urandom(80 << 20))
        assert host.call("run", "dev")[0] == 0
        host.policy["drill"] = {"scratch": str(disk / "scratch")}
        code, text = host.call("drill", "dev")
        assert code == cli.FAULTS
        assert "room" in text or "No space left" in text
        nothing_stays(host, disk / "scratch")


# -- filesystems of copies ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["ext4", "xfs"])
def image(request, lab, tmp_path):
    """A filesystem in a file, with something in it, and its type."""
    path = tmp_path / "image"
    with open(path, "wb") as stream:
        stream.truncate(320 << 20)
    run(f"mkfs.{request.param}", "-q", path)
    folder = tmp_path / "filling"
    folder.mkdir()
    mount_image(path, folder)
    try:
        (folder / "program").write_text("#!/bin/sh\n")
        (folder / "program").chmod(0o4755)
    finally:
        unmount(folder)
    return path, request.param


def test_a_copy_is_mounted_so_that_nothing_on_it_can_do_harm(image, tmp_path):
    path, fstype = image
    assert opened.filesystem_of(str(path), 60) == fstype
    folder = tmp_path / "mounted"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        with one_at_a_time():  # it takes a loop device
            options = opened.mount_options(fstype, untouched=True)
            where = stack.enter_context(opened.mounted(str(path), str(folder), fstype, options, 60))
        assert os.listdir(where)
        found = os.statvfs(where).f_flag
        for flag in (os.ST_RDONLY, os.ST_NOSUID, os.ST_NODEV, os.ST_NOEXEC):
            assert found & flag
        with pytest.raises(OSError, match="Read-only file system"):
            (folder / "new").write_text("x")
    assert not mounts_below(tmp_path)


def test_who_keeps_it_from_being_unmounted_is_named(image, tmp_path, monkeypatch):
    path, fstype = image
    monkeypatch.setattr(opened, "_ATTEMPTS", 2)
    folder = tmp_path / "mounted"
    folder.mkdir()
    with one_at_a_time():
        opened.mount(str(path), str(folder), fstype, opened.mount_options(fstype), 60)
    user = subprocess.Popen(["sleep", "600"], cwd=folder)
    try:
        with pytest.raises(RestorePointError, match=f"pid {user.pid} .*works in it"):
            opened.release(str(folder), 60)
    finally:
        user.kill()
        user.wait(60)
        opened.release(str(folder), 60)
    assert not mounts_below(tmp_path)


def test_a_damaged_filesystem_is_found_and_a_whole_one_is_not(image):
    path, fstype = image
    whole = scratch.Restored(device=str(path), fstype=fstype)
    assert scratch.check_filesystem(whole, 120) == ""
    if fstype == "ext4":
        run("debugfs", "-w", "-R", "clri program", path)
    else:
        root = run("xfs_db", "-c", "sb 0", "-c", "print rootino", path).split()[-1]
        run("xfs_db", "-x", "-c", f"inode {root}", "-c", "write -d core.nlinkv2 99", path)
    assert "finds faults in the filesystem" in scratch.check_filesystem(whole, 120)


def test_a_filesystem_that_nothing_here_can_check_is_said():
    with pytest.raises(RestorePointError, match="of which no check is known here; leave fsck out"):
        scratch.check_filesystem(scratch.Restored(device="/dev/null", fstype="hfsplus"), 60)


def test_btrfs_on_a_copied_volume_is_refused_rather_than_taken_for_the_original(tmp_path):
    with pytest.raises(RestorePointError, match="cannot be mounted beside its original"):
        opened.mount("/dev/null", str(tmp_path), "btrfs", "ro", 60)


# -- who hears of it ---------------------------------------------------------------------------------------------------


def succeeded(host):
    """Return what the metrics say of the last drill."""
    _code, text = host.call("metrics")
    (value,) = re.findall(r'^restorepoint_last_attempt_succeeded{command="drill",policy="dev"} (\S+)$', text, re.M)
    return f"{float(value):g}"


@pytest.mark.xdist_group("monitoring")  # one download of its tools
def test_the_alert_fires_by_the_line_of_a_drill_that_failed_and_clears_by_the_next(tools, host, ext4):
    on_the_place(host, ext4)
    seen = []
    for drill, expected in (({}, cli.OK), ({"files": 1000}, cli.FAULTS), ({}, cli.OK)):
        host.policy["drill"] = drill
        assert host.call("drill", "dev")[0] == expected
        seen.append(succeeded(host))
    assert seen == ["1", "0", "1"]
    labels = 'instance="h", job="j", policy="dev", command="drill"'
    values = " ".join(f"{value}x3" for value in seen)
    name, fired = "RestorePointWouldNotRestore", {"severity": "critical", "instance": "h", "job": "j", "policy": "dev"}
    words = {
        "summary": "The last drill of policy dev on h failed",
        "description": "What it keeps may not be what was taken, or may not come back.",
        "runbook_url": "https://github.com/restorepoint/core/blob/main/docs/runbook.md#alert-restorepointwouldnotrestore",
    }
    alert = [{"exp_labels": {**fired, "command": "drill"}, "exp_annotations": words}]
    case = {
        "rule_files": [str(RULES)],
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": f"restorepoint_last_attempt_succeeded{{{labels}}}", "values": values}],
                "alert_rule_test": [
                    {"alertname": name, "eval_time": "2m", "exp_alerts": []},
                    {"alertname": name, "eval_time": "6m", "exp_alerts": alert},
                    {"alertname": name, "eval_time": "10m", "exp_alerts": []},
                ],
            }
        ],
    }
    path = host.folder / "case.yml"
    path.write_text(yaml.safe_dump(case))
    assert "SUCCESS" in told(tools / "promtool", "test", "rules", path)


@pytest.fixture
def play(tmp_path):
    """Play the playbook on hosts that are all this one, each with an agent's arguments; return (code, output)."""
    place = tmp_path / "collections" / "ansible_collections" / "restorepoint"
    place.mkdir(parents=True)
    (place / "core").symlink_to(CHECKOUT)
    archive = tmp_path / "restorepoint.pyz"
    subprocess.run([sys.executable, TOOL, archive], check=True, capture_output=True, timeout=300)
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections"),
        "ANSIBLE_HOME": str(tmp_path / "ansible"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "ANSIBLE_SHOW_CUSTOM_STATS": "1",
    }

    def run(hosts, *arguments, **variables):
        known = {
            name: {
                "ansible_connection": "local",
                "ansible_become": False,
                "ansible_python_interpreter": sys.executable,
                "drill_agent": [sys.executable, str(archive), *found.arguments],
            }
            for name, found in hosts.items()
        }
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": known}}))
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", "restorepoint.core.drill", "-i", tmp_path / "hosts.yml",
             *arguments, "--extra-vars", json.dumps(variables)],
            cwd=tmp_path, env=environment, text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=300,
            check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    return run


def ready(host):
    """Give a host's policy the key, and a restore point."""
    host.policy["drill"] = {}
    assert host.call("run", "dev")[0] == 0


def test_the_playbook_drills_all_hosts_and_names_those_that_failed(play, tmp_path):
    hosts = {}
    for name in ("well", "ill"):
        (tmp_path / name).mkdir()
        hosts[name] = Host(tmp_path / name)
        ready(hosts[name])
    code, text = play(hosts, "--check")
    assert code == 0, text
    assert "well: would drill" in text
    assert ".restorepoint-drill-TOKEN" in text
    assert [len(each.journal) for each in hosts.values()] == [1, 1]
    code, text = play(hosts, drill_policies="dev", drill_wait="")
    assert code == 0, text
    assert "well: all came back" in text
    assert "ill: all came back" in text
    (stored,) = (tmp_path / "ill").glob("store/*/dev-*/file")
    stored.unlink()
    code, text = play(hosts, drill_policies="")
    assert code != 0
    assert "well: all came back" in text
    assert "ill: FAILED" in text
    assert "Drills failed on ill." in text
    assert "file is missing" in text
    assert [each.journal[-1]["outcome"] for each in hosts.values()] == ["done", "failed"]
