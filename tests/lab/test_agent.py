# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent on real filesystems: one restore point over several backends, freezes that always thaw, and full disks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.agent import cli
from ansible_collections.restorepoint.core.tests.lab import volumes
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.agent.test_agent import (
    TOOL,
    Host,
    wait_for,
)


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """The agent as one file."""
    target = tmp_path_factory.mktemp("agent") / "restorepoint.pyz"
    subprocess.run([sys.executable, TOOL, target], check=True, capture_output=True, timeout=120)
    return target


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


WRITERS: list[subprocess.Popen[bytes]] = []
PATIENCE = 120


def is_written(folder, seconds):
    """Say whether a writer comes to its end in that time. One that hangs goes on once it is thawed."""
    writer = subprocess.Popen(["touch", folder / "trial"])
    WRITERS.append(writer)
    try:
        writer.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        return False


def is_frozen(folder):
    """Say whether the filesystem of a folder takes no write. Only for one that should be: others may just be slow."""
    return not is_written(folder, 3)


def is_thawed(folder):
    """Say whether it takes writes, or comes to do so."""
    return is_written(folder, PATIENCE)


@pytest.fixture
def frozen(lab, host):
    """The host with its data on a filesystem of its own that the policy freezes; thawed at the end in any case."""
    with lab.extra_disk("ext4") as disk:
        host.data = disk / "data"
        host.data.mkdir()
        (host.data / "file").write_text("one")
        host.policy["targets"][0]["path"] = [str(host.data)]
        host.policy["hooks"] = [{"kind": "fsfreeze", "name": "freeze", "path": str(disk)}]
        try:
            yield host
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", disk], capture_output=True, timeout=60, check=False)
            while WRITERS:
                WRITERS.pop().wait(PATIENCE)


def test_a_frozen_filesystem_is_taken_and_thawed(frozen):
    frozen.policy["hooks"].append(
        {"kind": "command", "name": "look", "before": ["sh", "-c", f"! timeout -s KILL 1 touch {frozen.data}/x"]}
    )
    code, text = frozen.call("run", "dev")
    assert code == 0, text
    assert [(each["before"], each["after"]) for each in frozen.journal[0]["hooks"]] == [("done", "done")] * 2
    assert is_thawed(frozen.data)


def test_a_freeze_is_thawed_when_the_next_hook_hangs(frozen):
    frozen.policy["hooks"].append({"kind": "command", "name": "hang", "before": ["sleep", "600"], "timeout": "1s"})
    assert frozen.call("run", "dev")[0] == cli.FAILED
    assert is_thawed(frozen.data)
    assert "did not end within 1 s" in frozen.journal[0]["reason"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_freeze_is_thawed_when_the_agent_is_killed(frozen, archive, number):
    waits = ["sh", "-c", f"echo $$ > {frozen.folder}/pid; exec sleep 1000"]
    frozen.policy["hooks"].append({"kind": "command", "name": "wait", "before": waits, "timeout": "1h"})
    agent = subprocess.Popen([sys.executable, archive, *frozen.arguments, "run", "dev"], stdout=subprocess.DEVNULL)
    pid = frozen.folder / "pid"
    wait_for(lambda: pid.exists() and pid.read_text().endswith("\n"))
    assert is_frozen(frozen.data)
    agent.send_signal(number)
    # An agent that ends waits for what is under way; one that was killed leaves it behind.
    os.kill(int(pid.read_text()), signal.SIGKILL)
    assert agent.wait(PATIENCE) != 0
    assert is_thawed(frozen.data)
    frozen.policy["hooks"] = []
    assert frozen.call("run", "dev")[0] == 0
    outcomes = [each["outcome"] for each in frozen.journal]
    assert outcomes == (["killed", "done"] if number == signal.SIGKILL else [outcomes[0], "done"])
    assert outcomes[0] in ("killed", "failed", "interrupted")
    assert len(frozen.names) == 1


def test_a_freeze_of_what_the_run_has_to_write_to_is_refused(frozen):
    frozen.policy["targets"][0]["store"] = str(frozen.data.parent / "store")
    assert frozen.call("run", "dev")[0] == cli.FAILED
    assert "has to be written to meanwhile" in frozen.journal[0]["reason"]
    assert is_thawed(frozen.data)


def test_a_filesystem_that_somebody_else_has_frozen_stays_frozen(frozen):
    subprocess.run(["fsfreeze", "--freeze", frozen.data.parent], check=True, timeout=60)
    assert frozen.call("run", "dev")[0] == cli.FAILED
    assert is_frozen(frozen.data)


def test_one_restore_point_over_btrfs_and_a_directory_is_all_or_nothing(lab, host):
    with lab.place("btrfs") as place:
        found = volumes.Volumes(place.folder)
        found.make()
        host.policy["targets"].append({"backend": "btrfs", "subvolume": [str(found.target)], "store": str(found.store)})
        assert host.call("run", "dev")[0] == 0
        assert len(set(host.names)) == 1
        taken = {each["target"] for each in host.json("list")}
        assert taken == {f"btrfs:{found.target}", f"hostpath:{host.data}"}
        host.policy["targets"][1]["subvolume"].append(str(place.folder / "missing"))
        assert host.call("run", "dev")[0] != 0
        assert len(set(host.names)) == 1
        del host.policy["targets"][1]["subvolume"][1]
        (host.data / "file").write_text("two")
        (found.target / "file").write_text("two")
        assert host.call("rollback", "dev", host.names[0], "--yes")[0] == 0
        assert (host.data / "file").read_text() == (found.target / "file").read_text() == "one"


def test_a_full_disk_fails_the_run_and_nothing_half_done_is_left(lab, host):
    with lab.extra_disk("ext4", 64 << 20) as disk:
        host.policy["targets"][0]["store"] = str(disk / "store")
        (host.data / "large").write_bytes(os.urandom(80 << 20))
        assert host.call("run", "dev")[0] == cli.FAILED
        assert host.journal[0]["outcome"] == "failed"
        assert "No space left" in host.journal[0]["reason"]
        (host.data / "large").unlink()
        assert host.call("run", "dev")[0] == 0
        assert host.names == [host.journal[1]["name"]]


def test_where_the_disk_of_the_journal_fills_up_meanwhile_the_truth_comes_later(lab, host):
    with lab.extra_disk("ext4", 32 << 20) as disk:
        state = disk / "state"
        fill = f"dd if=/dev/zero of={disk}/fill bs=4k status=none || true; sync"
        host.policy["hooks"] = [{"kind": "command", "name": "fill", "before": ["sh", "-c", fill]}]
        arguments = [*host.arguments[:2], "--state", str(state)]
        assert cli.main([*arguments, "run", "dev"]) == cli.FAILED
        assert not (state / "journal.jsonl").exists() or not (state / "journal.jsonl").read_text()
        (disk / "fill").unlink()
        host.policy["hooks"] = []
        assert cli.main([*host.arguments[:2], "--state", str(state), "run", "dev"]) == 0
        lines = [json.loads(line) for line in (state / "journal.jsonl").read_text().splitlines()]
        assert [each["outcome"] for each in lines] == ["done", "done"]
        assert sorted(each["name"] for each in lines) == host.names


def test_of_two_runs_at_once_one_takes_and_the_other_says_so(host, archive):
    # The one that takes goes on when the other one has ended, however late that has begun.
    host.hooks("a", before_a=["sh", "-c", f"until [ -e {host.folder}/go ]; do sleep 0.05; done"])
    host.policy["hooks"][0]["timeout"] = "10min"
    command = [sys.executable, archive, *host.arguments, "run", "dev"]
    runs = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _unused in range(2)]
    wait_for(lambda: [each.poll() for each in runs].count(None) == 1)
    (host.folder / "go").touch()
    assert sorted(each.wait(PATIENCE) for each in runs) == [0, cli.BUSY]
    assert sorted(each["outcome"] for each in host.journal) == ["busy", "done"]
    assert len(host.names) == 1


def done_in(host):
    """Return the restore points of which the journal says that they were taken."""
    return {each["name"] for each in host.journal if (each["command"], each["outcome"]) == ("run", "done")}


def test_a_run_killed_at_any_moment_leaves_a_whole_restore_point_or_none(host, archive):
    for number in range(200):
        (host.data / f"file {number}").write_text("x" * 1000)
    told = 0
    for number in range(12):
        agent = subprocess.Popen([sys.executable, archive, *host.arguments, "run", "dev"], stdout=subprocess.DEVNULL)
        time.sleep(0.15 + 0.04 * number)
        agent.kill()
        code = agent.wait()
        before, told = told, len(done_in(host))
        # One that was killed after its line was written has been carried out all the same.
        assert told - before in ((1,) if code == 0 else (0, 1))
    assert host.call("run", "dev")[0] == 0
    assert host.call("verify", "dev")[0] == 0
    assert done_in(host) <= set(host.names)
    assert len(done_in(host)) == told + 1
