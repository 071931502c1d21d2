# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`restorepoint metrics`: a file that is never half, a server that never waits for storage, truth when things fail."""

from __future__ import annotations

import functools
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.restorepoint.core.plugins.module_utils.agent import cli, looking, serving, state
from ansible_collections.restorepoint.core.plugins.module_utils.agent.job_looking import runs
from ansible_collections.restorepoint.core.plugins.module_utils.agent.metrics import gather, write_file
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput, StoreError, ToolError
from ansible_collections.restorepoint.core.plugins.module_utils.core.survey import Survey
from ansible_collections.restorepoint.core.plugins.module_utils.engine.policy import parse_policies
from ansible_collections.restorepoint.core.tests import signals
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.agent.test_agent import Host, wait_for

signals.as_usual()
#: Far longer than anything here takes on any machine.
LONG = 120


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def read(text):
    """The samples of a text in Prometheus's format, as {name: {labels: value}}."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def value(text, name, **labels):
    return read(text)[f"restorepoint_{name}"][tuple(sorted(labels.items()))]


# -- what it says ------------------------------------------------------------------------------------------------------


def test_a_run_and_what_it_took_can_be_seen(host):
    host.policy["keep"] = {"last": 3}
    assert host.call("run", "dev")[0] == 0
    code, text = host.call("metrics")
    assert code == 0
    labels = {"policy": "dev", "backend": "hostpath", "target": str(host.data)}
    (line,) = host.journal
    assert value(text, "backend_up", policy="dev", backend="hostpath") == 1
    assert value(text, "snapshots", **labels, owner="policy") == 1
    assert value(text, "keep_present", **labels, rule="last") == 1
    assert value(text, "keep_expected", policy="dev", rule="last") == 3
    assert value(text, "runs_total", policy="dev", command="run", outcome="done") == 1
    assert value(text, "last_success_timestamp_seconds", policy="dev", command="run") == line["started_epoch"]
    assert (
        0 < value(text, "storage_fill_ratio", backend="hostpath", part="data", storage=str(host.folder / "store")) < 1
    )


def test_looking_before_the_first_run_makes_nothing_up(host):
    code, text = host.call("metrics")
    assert code == 0
    assert (
        value(text, "snapshot_newest_timestamp_seconds", policy="dev", backend="hostpath", target=str(host.data)) == 0
    )
    assert not (host.folder / "store").exists()


def test_what_is_to_be_exported_and_when_can_be_seen_before_the_first_export(host):
    host.policy["export"] = [{"kind": "restic", "repository": "/x", "password_file": "/y"}]
    host.policy["export_schedule"] = {"calendar": ["hourly"]}
    code, text = host.call("metrics")
    assert code == 0
    assert value(text, "export_destinations", policy="dev") == 1
    assert value(text, "last_success_timestamp_seconds", policy="dev", command="export") == 0
    now = value(text, "collection_timestamp_seconds")
    assert 0 <= now - value(text, "export_last_due_timestamp_seconds", policy="dev") <= 3600


def test_verify_leaves_a_line_that_can_be_seen(host):
    host.call("run", "dev")
    assert host.call("verify", "dev")[0] == 0
    text = host.call("metrics")[1]
    assert value(text, "last_attempt_succeeded", policy="dev", command="verify") == 1
    (victim,) = (host.folder / "store").rglob("dev-*/file")
    victim.write_text("spoilt")
    assert host.call("verify", "dev")[0] == cli.FAULTS
    text = host.call("metrics")[1]
    assert value(text, "last_attempt_succeeded", policy="dev", command="verify") == 0
    assert value(text, "verify_faults", policy="dev") == 1
    assert value(text, "runs_total", policy="dev", command="verify", outcome="done") == 1
    assert "not as they were taken" in host.journal[-1]["reason"]


def test_a_verify_of_one_name_says_nothing_about_the_others_and_leaves_no_line(host):
    host.call("run", "dev")
    assert host.call("verify", "dev", "--name", host.names[0])[0] == 0
    assert [each["command"] for each in host.journal] == ["run"]


def test_a_verify_that_finds_nothing_is_no_success(host):
    assert host.call("verify", "dev")[0] == cli.USAGE
    assert [each["outcome"] for each in host.journal] == ["failed"]


# -- in a pod ----------------------------------------------------------------------------------------------------------


def a_job(begun, end):
    conditions = [{"type": end, "status": "True", "lastTransitionTime": "2026-11-22T02:00:09Z"}]
    labels = {"restorepoint.core/policy": "dev"}
    return {"metadata": {"uid": begun, "labels": labels}, "status": {"startTime": begun, "conditions": conditions}}


def test_in_a_pod_jobs_say_what_became_of_runs_and_are_counted_when_they_are_gone(host):
    jobs = [a_job("2026-11-22T02:00:00Z", "Complete")]

    def listed(resource):
        cron_job = {"metadata": {"labels": {"restorepoint.core/policy": "dev"}}}
        return {"Job": jobs, "CronJob": [cron_job]}[resource.kind]

    def gathered():
        return gather(
            lambda: parse_policies({"policies": [host.policy]}), str(host.folder / "state"), lambda: 1795312800, 30,
            jobs=functools.partial(runs, listed),
        )  # fmt: skip

    host.policy["export"] = [{"kind": "restic", "repository": "/x", "password_file": "/y"}]
    facts, troubles = gathered()
    assert troubles == []
    assert (facts.readable, facts.looks) == (True, [])  # a pod does not reach directories
    run = facts.tally["dev"]["commands"]["run"]
    assert (run["success"], run["succeeded"], run["outcomes"]) == (1795312800, True, {"done": 1})
    assert facts.policies[0].exports == 0  # nor does it know of exports
    jobs[:] = [a_job("2026-11-22T03:00:00Z", "Failed")]
    run = gathered()[0].tally["dev"]["commands"]["run"]
    assert (run["success"], run["succeeded"], run["outcomes"]) == (1795312800, False, {"done": 1, "failed": 1})
    # What is kept and is none of ours is counted anew.
    (host.folder / "state" / "jobs.json").write_text("[1]")
    assert gathered()[0].tally["dev"]["commands"]["run"]["outcomes"] == {"failed": 1}


def test_jobs_that_cannot_be_listed_are_a_journal_that_cannot_be_read(host):
    def refused(resource):
        raise ToolError(f"look at the {resource.plural}", "forbidden", "allow it")

    facts, troubles = gather(
        lambda: parse_policies({"policies": [host.policy]}), str(host.folder / "state"), lambda: 1795312800, 30,
        jobs=functools.partial(runs, refused),
    )  # fmt: skip
    assert facts.readable is False
    assert "forbidden" in troubles[0]


# -- when something fails ----------------------------------------------------------------------------------------------


def test_policies_that_cannot_be_used_are_a_metric_and_a_failure(host, capsys):
    host.policy["targets"] = []
    code, text = host.call("metrics")
    assert code == cli.FAILED
    assert value(text, "policies_sound") == 0
    assert "policies[0].targets" in capsys.readouterr().err


def test_a_state_folder_that_cannot_be_used_is_a_metric_and_the_targets_are_shown(host):
    host.call("run", "dev")
    os.chmod(host.folder / "state", 0o777)
    code, text = host.call("metrics")
    assert code == cli.FAILED
    assert value(text, "journal_readable") == 0
    assert value(text, "backend_up", policy="dev", backend="hostpath") == 1


def test_a_backend_that_fails_is_down_and_the_others_are_shown(host, capsys):
    host.call("run", "dev")
    (host.folder / "other").write_text("no store")
    host.policy["targets"].append(
        {"backend": "btrfs", "subvolume": [str(host.data)], "store": str(host.folder / "other")}
    )
    code, text = host.call("metrics")
    assert code == cli.FAILED
    assert value(text, "backend_up", policy="dev", backend="btrfs") == 0
    assert value(text, "backend_up", policy="dev", backend="hostpath") == 1
    assert "dev, btrfs: " in capsys.readouterr().err


def policies(*names):
    data = [{"name": name, "targets": [{"backend": "hostpath", "path": ["/x"], "store": "/y"}]} for name in names]
    return parse_policies({"policies": data})


def tasks(*names):
    return [looking.Task(policy, policy.targets[0]) for policy in policies(*names)]


def surveyed(task):
    return {"surveys": [{"target": task.policy.name, "newest": 7}], "storages": []}


def test_what_hangs_is_down_and_holds_nothing_else_up():
    def look(task, now):
        if task.policy.name == "hangs":
            signal.pause()
        return surveyed(task)

    names = ["hangs", *(f"sound-{number}" for number in range(9))]
    for seconds in (5, 20, 60):
        found, reasons = looking.looks(tasks(*names), lambda: 0, float(seconds), look)
        assert [each.policy for each in found] == names
        assert not found[0].up
        assert found[0].surveys == ()
        assert reasons[0] == f"hangs, hostpath: it did not end within {seconds} s"
        # On a machine that is very busy even what does not hang may take so long, but not with ever more time.
        if len(reasons) == 1:
            break
    assert [each.surveys for each in found[1:]] == [(Survey(name, newest=7),) for name in names[1:]]


def test_what_was_looking_is_gone_when_it_hung_and_took_its_tool_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(looking, "_GRACE", float(LONG))

    def look(task, now):
        looking_for = subprocess.Popen(["sleep", "1000"])
        (tmp_path / "pids.new").write_text(f"{os.getpid()} {looking_for.pid}")
        os.rename(tmp_path / "pids.new", tmp_path / "pids")
        try:
            signal.pause()
        finally:
            looking_for.kill()
            looking_for.wait()

    def gone(pid):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    for patience in (2.0, 10.0, 60.0):  # a machine that is very busy may not even start it in the first two
        found, _reasons = looking.looks(tasks("hangs"), lambda: 0, patience, look)
        assert not found[0].up
        if (tmp_path / "pids").exists():
            break
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    wait_for(lambda: all(map(gone, pids)), LONG)


def raising(error):
    raise error


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "what looked at it ended in the middle"),
        (lambda: os._exit(0), "what looked at it ended in the middle"),
        (lambda: raising(ToolError("look", "it is broken", "mend it")), "Cannot look: it is broken"),
        (lambda: raising(PermissionError(13, "Permission denied")), "Permission denied"),
    ],
)
def test_whatever_ends_a_look_is_told_and_the_next_one_is_made(ending, reason):
    def look(task, now):
        return ending() if task.policy.name == "broken" else surveyed(task)

    found, reasons = looking.looks(tasks("broken", "sound"), lambda: 0, LONG, look)
    assert [each.up for each in found] == [False, True]
    assert len(reasons) == 1
    assert reason in reasons[0]


def test_a_hundred_thousand_bytes_from_one_look_come_whole():
    def look(task, now):
        return {"surveys": [{"target": f"{task.policy.name}-{number:06d}"} for number in range(20_000)], "storages": []}

    found, reasons = looking.looks(tasks("one", "two"), lambda: 0, LONG, look)
    assert reasons == []
    assert [len(each.surveys) for each in found] == [20_000, 20_000]


# -- counters never fall -----------------------------------------------------------------------------------------------


def line(number):
    return {"policy": "dev", "command": "run", "outcome": "done", "started_epoch": number, "done": {"created": 1}}


def counted(folder):
    entry = folder.tally().get("dev", {"created": 0, "commands": {}})
    return entry["created"]


def test_counters_count_lines_that_are_not_kept_any_more(tmp_path, monkeypatch):
    monkeypatch.setattr(state, "JOURNAL_BYTES", 300)
    folder = state.State(str(tmp_path / "state"))
    for number in range(1, 60):
        folder.append(line(number))
        assert counted(folder) == number
    assert len(list(folder.records())) < 59
    assert folder.tally()["dev"]["commands"]["run"]["success"] == 59


def test_a_run_that_is_killed_while_it_rotates_counts_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(state, "JOURNAL_BYTES", 300)
    folder = state.State(str(tmp_path / "state"))
    for number in range(1, 60):
        folder.append(line(number))
    folder._fold()  # the oldest is in the tally now, and still there
    assert counted(folder) == 59
    folder._fold()
    assert counted(folder) == 59


def test_where_there_is_no_room_for_the_tally_the_journal_grows_and_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(state, "JOURNAL_BYTES", 300)
    folder = state.State(str(tmp_path / "state"))
    for number in range(1, 60):
        folder.append(line(number))
    (tmp_path / "state" / "tally.json.new").mkdir()  # nothing can be written there
    for number in range(60, 80):
        folder.append(line(number))
    assert counted(folder) == 79
    (tmp_path / "state" / "tally.json.new").rmdir()
    folder.append(line(80))
    assert counted(folder) == 80


# -- the file ----------------------------------------------------------------------------------------------------------


def test_the_file_can_be_read_by_all_and_holds_what_stdout_would(host):
    host.call("run", "dev")
    path = host.folder / "text" / "restorepoint.prom"
    path.parent.mkdir()
    umask = os.umask(0o077)
    try:
        assert host.call("metrics", "--textfile", str(path)) == (0, "")
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o644
    assert read(path.read_text()).keys() == read(host.call("metrics")[1]).keys()
    assert os.listdir(path.parent) == [path.name]


def test_a_link_in_the_place_of_the_new_file_is_not_followed(host, tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".x.prom.new").symlink_to(tmp_path / "victim")
    write_file(str(tmp_path / "x.prom"), b"new\n", state.State(str(tmp_path / "state")))
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / "x.prom").read_text() == "new\n"


def test_a_folder_that_is_not_there_is_said(host, capsys):
    assert host.call("metrics", "--textfile", "/nowhere/x.prom")[0] == cli.FAILED
    assert (
        "Cannot write the metrics to /nowhere/x.prom: No such file or directory; make its folder"
        in capsys.readouterr().err
    )


#: Writes the file again and again, each time killed one step later; prints what was there after each.
KILLED = """
import itertools, json, os, resource, signal, sys
from ansible_collections.restorepoint.core.plugins.module_utils.agent.metrics import write_file
from ansible_collections.restorepoint.core.plugins.module_utils.agent.state import State

folder = sys.argv[1]
path, state = os.path.join(folder, "x.prom"), State(os.path.join(folder, "state"))
old, new = b"old\\n" * 50_000, b"new\\n" * 50_000
STEPS = ("open", "os.", "fcntl.")


def attempt(prepare):
    write_file(path, old, state)
    pid = os.fork()
    if pid == 0:
        prepare()
        write_file(path, new, state)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    with open(path, "rb") as stream:
        content = stream.read()
    print(json.dumps({"status": status, "content": {old: "old", new: "new"}.get(content, "half")}), flush=True)
    return status


def die_at(step):
    passed = itertools.count()

    def hook(event, arguments):
        if event.startswith(STEPS) and next(passed) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: sys.addaudithook(hook)


def die_while_writing():
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


attempt(die_while_writing)
for step in itertools.count():
    if attempt(die_at(step)) == 0:
        break
"""


def test_killed_at_any_step_the_file_is_the_old_one_or_the_new_one_and_never_half(tmp_path):
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path], env=environ, capture_output=True, text=True, timeout=LONG, check=True
    )
    ends = [json.loads(each) for each in done.stdout.splitlines()]
    assert ends[0]["status"] & 0x7F == signal.SIGXFSZ
    assert ends[-1] == {"status": 0, "content": "new"}
    assert {each["content"] for each in ends} == {"old", "new"}
    assert [each["status"] for each in ends[1:-1]] == [signal.SIGKILL] * (len(ends) - 2)
    assert len(ends) > 5
    assert sorted(os.listdir(tmp_path)) == ["state", "x.prom"]


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path):
    folder = state.State(str(tmp_path / "state"))
    write_file(str(tmp_path / "x.prom"), b"old\n", folder)
    code = (
        "import resource, signal, sys\n"
        "from ansible_collections.restorepoint.core.plugins.module_utils.agent.metrics import write_file\n"
        "from ansible_collections.restorepoint.core.plugins.module_utils.agent.state import State\n"
        "state = State(sys.argv[2])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "write_file(sys.argv[1], b'n' * 100_000, state)\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", code, tmp_path / "x.prom", tmp_path / "state"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=LONG, check=False)
    assert StoreError.__name__ in done.stderr
    assert (tmp_path / "x.prom").read_text() == "old\n"
    assert sorted(os.listdir(tmp_path)) == ["state", "x.prom"]


# -- served ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("9642", ("127.0.0.1", 9642)),
        ("0.0.0.0:9642", ("0.0.0.0", 9642)),
        ("[::1]:9642", ("::1", 9642)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_an_address_is_loopback_unless_told(text, found):
    assert serving.address(text) == found


@pytest.mark.parametrize("text", ["", "x", ":9642", "host:", "127.0.0.1:99999", "9642x", "-1"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InvalidInput, match="it is no address and port"):
        serving.address(text)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_the_page_says_how_old_it_is_and_shows_nothing_that_is_too_old():
    clock = Clock()
    latest = serving.Latest(stale=50.0, clock=clock)
    assert value(latest.page().decode(), "collection_up") == 0
    latest.set(b"restorepoint_x 1\n")
    clock.now += 49
    assert value(latest.page().decode(), "x") == 1
    assert value(latest.page().decode(), "collection_age_seconds") == 49
    clock.now += 2
    assert "restorepoint_x" not in latest.page().decode()
    assert value(latest.page().decode(), "collection_up") == 0
    assert value(latest.page().decode(), "collection_age_seconds") == 51


def test_when_gathering_fails_the_old_page_is_not_shown_and_its_age_goes_on():
    clock = Clock()
    latest = serving.Latest(stale=1e6, clock=clock)
    latest.set(b"restorepoint_x 1\n")
    clock.now += 7
    latest.set(None)
    page = latest.page().decode()
    assert "restorepoint_x" not in page
    assert (value(page, "collection_up"), value(page, "collection_age_seconds")) == (0, 7)


class Served:
    """The agent, serving; ``get`` asks it."""

    def __init__(self, host, *more):
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        code = f"import sys; from {cli.__name__} import main; sys.exit(main())"
        self._errors = open(host.folder / "errors", "w+")  # noqa: SIM115 - closed in end
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *host.arguments, "metrics", "--listen", "127.0.0.1:0", *more],
            env=environ, stderr=self._errors,
        )  # fmt: skip
        wait_for(lambda: "serving metrics on" in self.said, LONG)
        self.port = int(re.findall(r"serving metrics on 127\.0\.0\.1:(\d+)", self.said)[0])

    @property
    def said(self):
        with open(self._errors.name) as stream:
            return stream.read()

    def get(self, path="/metrics", method="GET"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONG)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type"), answer.read().decode()
        finally:
            connection.close()

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(LONG)
        self._errors.close()
        return code


def test_what_is_served_is_what_is_written_and_follows_what_happens(host):
    host.call("run", "dev")
    served = Served(host, "--interval", "1s")
    try:
        wait_for(lambda: "restorepoint_collection_up 1\n" in served.get()[2], LONG)
        status, kind, text = served.get()
        assert (status, kind) == (200, serving.CONTENT_TYPE)
        assert value(text, "runs_total", policy="dev", command="run", outcome="done") == 1
        assert value(text, "collection_age_seconds") >= 0
        host.call("run", "dev")
        wait_for(lambda: value(served.get()[2], "runs_total", policy="dev", command="run", outcome="done") == 2, LONG)
        assert served.get("/metrics", "HEAD")[2] == ""
        assert served.get("/etc/passwd")[0] == 404
        assert served.get("/healthy")[::2] == (200, "healthy\n")
    finally:
        code = served.end()
    assert code == 0


def test_a_client_that_says_nothing_keeps_nobody_else_waiting(host):
    served = Served(host)
    try:
        with socket.create_connection(("127.0.0.1", served.port), timeout=LONG):
            assert served.get()[0] == 200
    finally:
        served.end()


def test_a_port_that_is_taken_is_said(host, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert host.call("metrics", "--listen", str(port))[0] == cli.FAILED
    assert f"Cannot listen on 127.0.0.1:{port}: " in capsys.readouterr().err


def test_a_gathering_that_hangs_is_killed_and_its_numbers_are_not_shown(monkeypatch):
    monkeypatch.setattr(serving, "itself", list)
    latest = serving.Latest(stale=1e6)
    said: list[str] = []
    latest.set(b"restorepoint_x 1\n")
    hung = ["sleep", "1000"]
    ending = threading.Event()
    gathering = serving.Gathering(hung, latest, 1000.0, ending, said.append, seconds=2.0)
    gathering.start()
    wait_for(lambda: said, LONG)
    ending.set()
    gathering.join(LONG)
    assert "timed out after 2.0 seconds" in said[0]
    assert gathering._process is not None
    assert gathering._process.wait(LONG) == -signal.SIGKILL
    assert "restorepoint_x" not in latest.page().decode()


@pytest.mark.parametrize("script", ["exit 2", "echo -n restorepoint_half", "kill -9 $$"])
def test_a_gathering_that_fails_is_told_and_shows(script, monkeypatch):
    monkeypatch.setattr(serving, "itself", list)
    latest = serving.Latest(stale=1e6)
    said: list[str] = []
    ending = threading.Event()
    gathering = serving.Gathering(["sh", "-c", script], latest, 1000.0, ending, said.append)
    gathering.start()
    wait_for(lambda: said, LONG)
    ending.set()
    gathering.join(LONG)
    assert "could not be gathered" in said[0]
    assert value(latest.page().decode(), "collection_up") == 0


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [["--timeout", "0s"], ["--interval", "0s", "--listen", "0"], ["--timeout", "soon"]])
def test_a_time_that_is_none_is_refused(host, argv, capsys):
    assert host.call("metrics", *argv)[0] == cli.USAGE
    assert capsys.readouterr().err


def test_a_file_and_a_port_are_not_both_written_to(host):
    with pytest.raises(SystemExit):
        cli.main(["metrics", "--textfile", "x", "--listen", "1"], io.StringIO(), time.time)
