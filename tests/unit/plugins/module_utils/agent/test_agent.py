# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent on directories: what its commands do and say, its exit codes, its journal, and hooks whatever happens."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time
import zipfile

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.agent import cli, state
from ansible_collections.restorepoint.core.plugins.module_utils.lock import FileLock
from ansible_collections.restorepoint.core.tests import signals

signals.as_usual()

TOOL = pathlib.Path(__file__).resolve().parents[5] / "tools" / "agent.py"


def wait_for(what, seconds=120.0):
    """Wait until something is true, and fail if it does not come to be."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)


class Host:
    """A host with one policy, ``dev``, on one directory; ``others`` stand before it."""

    others = ()

    def __init__(self, folder):
        self.folder = folder
        self.data = folder / "data"
        self.data.mkdir()
        (self.data / "file").write_text("one")
        self.now = time.time
        self.policy = {
            "name": "dev",
            "targets": [{"backend": "hostpath", "path": [str(self.data)], "store": str(folder / "store")}],
        }

    @property
    def arguments(self):
        """Write the policies, and return the options that name them."""
        (self.folder / "policies.json").write_text(json.dumps({"policies": [*self.others, self.policy]}))
        return ["--policies", str(self.folder / "policies.json"), "--state", str(self.folder / "state")]

    def call(self, *argv):
        """Run a command in this process; return its exit code and what it printed."""
        out = io.StringIO()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            return cli.main([*self.arguments, *argv], out, self.now), out.getvalue()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def json(self, *argv):
        """Run a command that has to succeed, and return what it says as JSON."""
        code, text = self.call(*argv, "--json")
        assert code == 0, text
        return json.loads(text)

    @property
    def journal(self):
        """The lines of the journal."""
        return list(state.State(str(self.folder / "state")).records())

    @property
    def names(self):
        """The names of the snapshots, the oldest first."""
        return [each["name"] for each in self.json("list")]

    def note(self, word):
        """Return a command that adds a word to a file."""
        return ["sh", "-c", f"echo {word} >> {self.folder}/notes"]

    @property
    def notes(self):
        """The words that hooks have noted."""
        path = self.folder / "notes"
        return path.read_text().split() if path.exists() else []

    def hooks(self, *names, **changed):
        """Give the policy hooks that note what they do; ``changed`` are commands in the place of some of them."""
        self.policy["hooks"] = [
            {
                "kind": "command",
                "name": name,
                "before": changed.get(f"before_{name}", self.note(f"+{name}")),
                "after": changed.get(f"after_{name}", self.note(f"-{name}")),
                "timeout": "2min",  # no hook of the tests takes nearly as long
            }
            for name in names
        ]


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """The agent as one file."""
    target = tmp_path_factory.mktemp("agent") / "restorepoint.pyz"
    subprocess.run([sys.executable, TOOL, target], check=True, capture_output=True, timeout=120)
    return target


# -- what commands do --------------------------------------------------------------------------------------------------


def test_a_run_takes_a_restore_point_and_leaves_one_line(host):
    code, text = host.call("run", "dev")
    assert code == 0
    (line,) = host.journal
    assert (line["outcome"], line["policy"], line["command"]) == ("done", "dev", "run")
    assert line["targets"] == [f"hostpath:{host.data}"]
    assert line["done"] == {"created": 1}
    assert line["bytes"] == 3
    assert line["seconds"] >= 0
    assert line["name"] in text
    assert host.names == [line["name"]]


def test_a_run_prunes_what_the_keep_rules_do_not_keep_and_nothing_that_was_taken_by_hand(host):
    host.policy["keep"] = {"last": 2}
    host.call("create", "dev", "--name", "by-hand")
    for _unused in range(4):
        host.call("run", "dev")
    names = host.names
    assert names[0] == "by-hand"
    assert len(names) == 3
    assert [each["done"].get("removed", 0) for each in host.journal] == [0, 0, 0, 1, 1]


def test_a_dry_run_says_why_and_touches_nothing(host):
    for _unused in range(3):
        host.call("run", "dev")
    host.policy["keep"] = {"last": 1}
    lines = len(host.journal)
    code, text = host.call("prune", "dev", "--dry-run")
    assert code == 0
    assert [line.split()[0] for line in text.splitlines()] == ["remove", "remove", "keep"]
    assert "last 1/1" in text
    assert (len(host.names), len(host.journal)) == (3, lines)
    host.call("prune", "dev")
    assert len(host.names) == 1


def test_nothing_new_is_taken_where_nothing_changed_if_the_policy_asks_for_that(host):
    host.policy["only_if_changed"] = True
    host.call("run", "dev")
    assert host.call("run", "dev")[0] == 0
    assert host.journal[-1]["outcome"] == "unchanged"
    assert host.names[0] in host.journal[-1]["reason"]
    (host.data / "file").write_text("two")
    host.call("run", "dev")
    assert len(host.names) == 2


def test_a_snapshot_taken_by_hand_is_no_reason_to_leave_out_the_policy_s_own(host):
    host.policy["only_if_changed"] = True
    host.call("create", "dev")
    host.call("run", "dev")
    assert host.journal[-1]["outcome"] == "done"


def test_a_missed_run_is_caught_up_once(host):
    host.policy["schedule"] = {"calendar": ["*-*-* 02:00"]}
    begin = 1_795_500_000 - 1_795_500_000 % 86400
    host.now = lambda: begin + 10 * 3600
    assert host.call("due")[1].startswith("dev due since ")
    host.call("run", "dev", "--if-due")
    assert host.call("due") == (0, "")
    assert host.call("run", "dev", "--if-due") == (0, "dev: not due\n")
    host.now = lambda: begin + 5 * 86400 + 10 * 3600
    host.call("run", "dev", "--if-due")
    host.call("run", "dev", "--if-due")
    assert len(host.names) == len(host.journal) == 2


def test_a_return_needs_yes_where_there_is_no_terminal(host, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("dev\n"))
    host.call("run", "dev")
    (host.data / "file").write_text("two")
    assert host.call("rollback", "dev", host.names[0])[0] == cli.USAGE
    assert "say --yes" in capsys.readouterr().err
    assert (host.data / "file").read_text() == "two"
    assert host.call("rollback", "dev", host.names[0], "--yes")[0] == 0
    assert (host.data / "file").read_text() == "one"
    assert host.journal[-1]["done"] == {"rolled_back": 1}


@pytest.mark.parametrize(("typed", "code", "content"), [("dev\n", 0, "one"), ("yes\n", cli.USAGE, "two")])
def test_at_a_terminal_the_name_has_to_be_typed(host, monkeypatch, typed, code, content):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    host.call("run", "dev")
    (host.data / "file").write_text("two")
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert host.call("rollback", "dev", host.names[0])[0] == code
    assert (host.data / "file").read_text() == content


def test_a_return_to_what_is_not_there_is_blocked_and_says_what_is(host, capsys):
    host.call("run", "dev")
    assert host.call("rollback", "dev", "nothing", "--yes")[0] == cli.BLOCKED
    assert host.names[0] in host.journal[-1]["reason"]


def test_damage_in_a_store_is_found(host):
    host.call("run", "dev")
    assert host.call("verify", "dev")[0] == 0
    (stored,) = (host.folder / "store").rglob(f"{host.names[0]}/file")
    os.chmod(stored, 0o777)
    code, text = host.call("verify", "dev")
    assert code == cli.FAULTS
    assert "FAULT" in text


def test_the_tree_shows_targets_and_their_snapshots(host):
    host.call("run", "dev")
    lines = host.call("list", "--tree")[1].splitlines()
    assert lines[0] == f"hostpath:{host.data}"
    assert lines[1].startswith(f"`-- {host.names[0]}")


def test_an_export_without_a_policy_that_has_one_says_so(host, capsys):
    assert host.call("export")[0] == cli.USAGE
    assert "no policy has the key export; give one that key: see docs/offsite.md" in capsys.readouterr().err


def test_one_policy_that_cannot_be_looked_at_hides_no_other(host, capsys):
    host.call("run", "dev")
    lost = {"name": "lost", "targets": [{"backend": "csi", "namespace": "shop", "kubeconfig": "/nowhere/kubeconfig"}]}
    host.others = [lost]
    code, text = host.call("list")
    assert (code, text.split()[1:3]) == (cli.FAILED, [f"hostpath:{host.data}", host.journal[0]["name"]])
    told = capsys.readouterr().err
    assert told.startswith("restorepoint: lost: Cannot log in with kubeconfig /nowhere/kubeconfig: No such file")
    assert "name one that is there" in told


@pytest.mark.parametrize(
    ("keys", "argv", "code"),
    [
        ({}, ["run", "other"], cli.USAGE),
        ({"nmae": 1}, ["check"], cli.USAGE),
        ({}, ["verify", "dev"], cli.USAGE),
        ({}, ["create", "dev", "--name", "-bad"], 2),
        ({"targets": [{"backend": "hostpath", "path": "/nowhere", "store": "/nowhere-store"}]}, ["run", "dev"], 1),
    ],
)
def test_a_failure_is_never_exit_0(host, keys, argv, code):
    host.policy.update(keys)
    try:
        found = host.call(*argv)[0]
    except SystemExit as end:
        found = end.code
    assert found == code


# -- locks, journal, kills ---------------------------------------------------------------------------------------------


def test_the_second_of_two_runs_is_told_and_noted(host, capsys):
    host.call("run", "dev")
    with FileLock(str(host.folder / "state" / "runs" / "dev.lock"), 0, "test"):
        assert host.call("run", "dev")[0] == cli.BUSY
    assert [each["outcome"] for each in host.journal] == ["done", "busy"]
    assert len(host.names) == 1


def test_a_return_by_hand_does_not_wait_as_long_as_a_policy(host, monkeypatch):
    host.call("run", "dev")
    monkeypatch.setattr(cli, "_PATIENCE", 0)
    with FileLock(str(host.folder / "store" / ".lock"), 0, "test"):
        assert host.call("rollback", "dev", host.names[0], "--yes")[0] == cli.FAILED
    assert "holds the lock" in host.journal[-1]["reason"]


def test_the_journal_is_rotated_and_loses_no_line_meanwhile(host, monkeypatch):
    monkeypatch.setattr(state, "JOURNAL_BYTES", 300)
    folder = state.State(str(host.folder / "state"))
    for number in range(30):
        folder.append({"number": number, "text": "x" * 100})
    assert [each["number"] for each in folder.records()][-15:] == list(range(15, 30))
    assert len(list((host.folder / "state").glob("journal.jsonl*"))) == state.KEPT_JOURNALS + 1


def test_where_the_journal_takes_no_line_the_next_run_writes_it(host, monkeypatch, capsys):
    append = state.State.append

    def full(self, record):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(state.State, "append", full)
    assert host.call("run", "dev")[0] == cli.FAILED
    assert "No space left" in capsys.readouterr().err
    monkeypatch.setattr(state.State, "append", append)
    host.call("run", "dev")
    assert [each["outcome"] for each in host.journal] == ["done", "done"]
    assert [each["name"] for each in host.journal] == host.names


def test_a_state_folder_that_others_can_write_to_is_refused(host):
    (host.folder / "state").mkdir(mode=0o700)
    os.chmod(host.folder / "state", 0o777)
    assert host.call("run", "dev")[0] == cli.FAILED
    assert not (host.folder / "store").exists()


# -- hooks -------------------------------------------------------------------------------------------------------------


def test_after_hooks_run_in_reverse(host):
    host.hooks("a", "b")
    host.call("run", "dev")
    assert host.notes == ["+a", "+b", "-b", "-a"]
    assert [each["after"] for each in host.journal[0]["hooks"]] == ["done", "done"]


def test_a_before_hook_that_fails_stops_the_run_and_only_what_succeeded_is_taken_back(host):
    host.hooks("a", "b", "c", before_b=["false"])
    assert host.call("run", "dev")[0] == cli.FAILED
    assert host.notes == ["+a", "-a"]
    assert host.names == []
    assert "'b'" in host.journal[0]["reason"]


def test_after_hooks_run_where_the_snapshot_fails(host):
    host.hooks("a", "b", before_b=["rm", "-r", str(host.data)])
    assert host.call("run", "dev")[0] == cli.FAILED
    assert host.notes == ["+a", "-b", "-a"]
    assert host.names == []


def test_a_target_that_is_not_there_is_told_before_anything_is_quiesced(host):
    host.hooks("a")
    host.policy["targets"][0]["path"] = [str(host.folder / "missing")]
    assert host.call("run", "dev")[0] == cli.FAILED
    assert host.notes == []


def test_nothing_is_quiesced_while_another_run_is_waited_for(host):
    # Else this run holds frozen what that run has to write to, and each waits for the other.
    host.call("run", "dev")
    host.hooks("a")
    host.policy["targets"][0]["lock_timeout"] = 0
    with FileLock(str(host.folder / "store" / ".lock"), 0, "test"):
        assert host.call("run", "dev")[0] == cli.FAILED
    assert host.notes == []
    assert host.call("run", "dev")[0] == 0
    assert host.notes == ["+a", "-a"]


def test_an_after_hook_that_fails_is_a_failure_and_the_others_run_all_the_same(host):
    host.hooks("a", "b", after_b=["false"])
    assert host.call("run", "dev")[0] == cli.FAILED
    assert host.notes == ["+a", "+b", "-a"]
    assert host.journal[0]["done"] == {"created": 1}
    assert "'b'" in host.journal[0]["reason"]


def test_a_hook_that_hangs_is_stopped(host):
    host.hooks("a", "b", before_b=["sleep", "600"])
    host.policy["hooks"][1]["timeout"] = "1s"
    assert host.call("run", "dev")[0] == cli.FAILED
    assert host.notes == ["+a", "-a"]
    assert "did not end within 1 s" in host.journal[0]["reason"]


class Caught:
    """A run, in a process of its own, that is caught in its last hook."""

    def __init__(self, host, archive):
        note_b = f"echo +b >> {host.folder}/notes"
        host.hooks("a", "b", before_b=["sh", "-c", f"echo $$ > {host.folder}/pid; {note_b}; exec sleep 1000"])
        host.policy["hooks"][1]["timeout"] = "1h"
        self.host = host
        self.process = subprocess.Popen(
            [sys.executable, archive, *host.arguments, "run", "dev"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: host.notes == ["+a", "+b"])

    def watchdog(self):
        """Return the pid of the watchdog: the child that is the agent once more. The other one is the hook."""
        agent = pathlib.Path(f"/proc/{self.process.pid}")
        children = (agent / "task" / agent.name / "children").read_text().split()
        command = (agent / "cmdline").read_bytes()
        (found,) = (each for each in children if pathlib.Path(f"/proc/{each}/cmdline").read_bytes() == command)
        return int(found)

    def kill(self):
        """Kill the agent, and then the hook that it leaves behind."""
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.kill(int((self.host.folder / "pid").read_text()), signal.SIGKILL)


def test_when_the_agent_is_killed_the_watchdog_thaws_at_once_and_the_next_run_notes_the_truth(host, archive):
    caught = Caught(host, archive)
    caught.kill()
    wait_for(lambda: host.notes == ["+a", "+b", "-b", "-a"])
    host.hooks()
    assert host.call("run", "dev")[0] == 0
    killed, done = host.journal
    assert (killed["outcome"], done["outcome"]) == ("killed", "done")
    assert [(each["name"], each["after"]) for each in killed["hooks"]] == [("b", "done"), ("a", "done")]
    assert host.names == [done["name"]]
    assert host.notes == ["+a", "+b", "-b", "-a"]


def test_when_the_watchdog_is_killed_as_well_the_next_run_thaws(host, archive):
    caught = Caught(host, archive)
    os.kill(caught.watchdog(), signal.SIGKILL)
    caught.kill()
    assert host.notes == ["+a", "+b"]
    host.hooks()
    assert host.call("run", "dev")[0] == 0
    assert host.notes == ["+a", "+b", "-b", "-a"]
    assert [each["outcome"] for each in host.journal] == ["killed", "done"]


# -- the file ----------------------------------------------------------------------------------------------------------


def test_the_file_is_the_same_to_the_byte_each_time(archive, tmp_path):
    again = tmp_path / "again.pyz"
    environment = {**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    subprocess.run(
        [sys.executable, TOOL, again], check=True, capture_output=True, timeout=120, env=environment, umask=0
    )
    assert again.read_bytes() == archive.read_bytes()
    assert os.access(again, os.X_OK)


def test_the_file_fits_a_configmap_and_holds_nothing_of_ansible(archive):
    assert archive.stat().st_size < 700 * 1024
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
        assert not [name for name in names if "/bridge/" in name or "/setup/" in name]
        texts = [opened.read(name) for name in names if name.endswith(".py")]
    assert not [text for text in texts if b"import ansible" in text or b"from ansible" in text]


def test_the_file_runs_without_anything_beside_python(archive, host):
    command = [sys.executable, "-I", "-S", archive, *host.arguments]
    subprocess.run([*command, "run", "dev"], check=True, capture_output=True, timeout=60, cwd="/", env={})
    assert len(host.names) == 1


def test_the_file_has_what_metrics_need(archive, host):
    host.call("run", "dev")
    command = [sys.executable, "-I", "-S", archive, *host.arguments, "metrics"]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60, cwd="/", env={})
    assert b'restorepoint_backend_up{backend="hostpath",policy="dev"} 1.0' in done.stdout


def test_starting_takes_at_most_a_few_times_what_python_itself_takes(archive):
    def seconds(*argv):
        """The least CPU time of several starts: what other work on the machine adds is not ours."""
        found = []
        for _unused in range(5):
            # Not os.times: it counts in hundredths, and Python's own start takes one of them.
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-I", "-S", *argv], check=True, capture_output=True, timeout=60)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(found)

    assert seconds(archive, "--help") < max(0.08, 8 * seconds("-c", "pass"))
