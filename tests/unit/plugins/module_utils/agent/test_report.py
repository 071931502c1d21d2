# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`restorepoint report`: true when things fail, whole on the disk, in colour where somebody wants it."""

from __future__ import annotations

import io
import json
import os
import pathlib
import subprocess
import sys

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.agent import cli
from ansible_collections.restorepoint.core.plugins.module_utils.agent.completion import script
from ansible_collections.restorepoint.core.plugins.module_utils.agent.state import State
from ansible_collections.restorepoint.core.plugins.module_utils.core.report_read import understood
from ansible_collections.restorepoint.core.tests import signals
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.agent.test_agent import Host, archive

signals.as_usual()
#: Far longer than anything here takes on any machine.
LONG = 120
__all__ = ["archive"]


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


class Screen(io.StringIO):
    """A terminal, with somebody before it who interrupts once enough was shown."""

    encoding = "utf-8"
    enough = 0
    shown = 0

    def isatty(self):
        return True

    def flush(self):
        self.shown += 1
        if self.shown == self.enough:
            raise KeyboardInterrupt


def at_terminal(host, *argv, enough=0):
    screen = Screen()
    screen.enough = enough
    return cli.main([*host.arguments, "report", *argv], screen, host.now), screen.getvalue()


# -- what it says -----------------------------------------------------------------------------------------------------


def test_where_all_is_well_it_ends_with_0_and_says_what_there_is(host):
    host.policy["keep"] = {"last": 2}
    host.call("run", "dev")
    host.call("create", "dev", "--name", "by-hand")
    code, text = host.call("report", "--host", "db1")
    assert code == 0
    assert text.startswith("RESTOREPOINT OK - all is well: 1 policy, 1 target, 1 restore point\n")
    assert "keeps last 1 of 2" in text
    found = json.loads(host.call("report", "--json", "--host", "db1")[1])
    assert understood(found) == found
    (target,) = found["policies"][0]["targets"]
    assert target["counts"] == {"policy": 1, "manual": 1, "other": 0}
    assert {each["name"]: each["reason"] for each in target["snapshots"]}["by-hand"] == "foreign: owner manual"
    assert found["host"] == "db1"
    assert [each["part"] for each in found["storages"]] == ["data"]


def test_what_the_next_prune_would_remove_is_what_it_removes(host):
    host.policy["keep"] = {"last": 3}
    for _unused in range(3):
        host.call("run", "dev")
    host.policy["keep"] = {"last": 1}
    found = json.loads(host.call("report", "--json")[1])
    (target,) = found["policies"][0]["targets"]
    going = {each["name"] for each in target["snapshots"] if not each["keep"]}
    assert (len(going), target["removals"]) == (2, 2)
    before = set(host.names)
    host.call("prune", "dev")
    assert before - set(host.names) == going


def test_what_an_export_still_needs_is_neither_going_nor_late(host):
    host.policy["keep"] = {"last": 1}
    export = {"kind": "restic", "repository": "/nowhere", "password_file": "/nowhere.password"}
    host.policy["export"] = [export]
    host.call("run", "dev")
    oldest = host.names[0]
    sending = [f"hostpath:{host.data}", oldest]
    State(str(host.folder / "state")).mark("dev.export").write({"record": None, "sending": [sending]})
    host.call("run", "dev")
    assert oldest in host.names, "the run has pruned it"
    found = json.loads(host.call("report", "--json")[1])
    (target,) = found["policies"][0]["targets"]
    assert target["removals"] == 0
    (shown,) = [each for each in target["snapshots"] if each["name"] == oldest]
    assert "an export is sending it" in shown["reason"]
    late = [line for line in host.call("metrics")[1].splitlines() if line.startswith("restorepoint_snapshots_overdue{")]
    assert [line.rsplit(" ", 1)[1] for line in late] == ["0.0"]


def test_an_export_that_failed_is_a_warning(host, capsys):
    password = host.folder / "password"
    password.write_text("secret")
    password.chmod(0o600)
    export = {"kind": "restic", "repository": str(host.folder / "missing"), "password_file": str(password)}
    host.policy["export"] = [export]
    host.call("run", "dev")
    assert host.call("export", "dev")[0] == 1
    code, text = host.call("report", "--check")
    assert code == 1
    assert "The last export, begun at" in text


def test_a_run_that_failed_is_a_warning_with_its_sentence(host):
    host.call("run", "dev")
    host.policy["hooks"] = [{"kind": "command", "name": "x", "before": ["false"], "after": ["true"]}]
    host.call("run", "dev")
    code, text = host.call("report", "--check")
    assert code == 1
    assert "RESTOREPOINT WARNING - dev: The last run, begun at" in text
    assert "Cannot run the hook 'x' before the snapshots" in text
    assert text.endswith(" | problems=1 policies=1 targets=1 restorepoints=1\n")
    assert text.count("\n") == 1


def test_a_verify_that_found_a_fault_is_critical(host):
    host.call("run", "dev")
    (victim,) = (host.folder / "store").rglob("dev-*/file")
    victim.write_text("spoilt")
    host.call("verify", "dev")
    code, text = host.call("report")
    assert code == 2
    assert "not as they were taken" in text


def test_a_schedule_that_was_never_kept_is_critical(host):
    host.policy["schedule"] = {"calendar": "*-*-* 00:00"}
    host.now = lambda: 1795737600 + 7200  # 02:00 UTC
    code, text = host.call("report")
    assert code == 2
    assert "no run has succeeded since; none ever has" in text
    assert not (host.folder / "store").exists(), "looking has made something"


@pytest.mark.parametrize("form", [(), ("--json",), ("--html",), ("--check",)])
def test_policies_that_cannot_be_read_are_unknown_in_every_form(host, form):
    host.policy["targets"] = []
    code, text = host.call("report", *form)
    assert code == 3
    assert "policies[0].targets" in text


def test_a_state_folder_that_cannot_be_used_is_unknown_and_the_targets_are_shown(host):
    host.call("run", "dev")
    os.chmod(host.folder / "state", 0o777)
    code, text = host.call("report")
    assert code == 3
    assert "others than this user can write to it" in text
    assert "1 restore point, newest" in text


def test_a_tool_that_hangs_is_unknown_and_what_else_there_is_is_told(host, monkeypatch):
    programs = host.folder / "bin"
    programs.mkdir()
    for name in ("zfs", "zpool"):
        (programs / name).write_text("#!/bin/sh\nexec sleep 1000\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    host.call("run", "dev")
    host.policy["targets"].append({"backend": "zfs", "dataset": ["tank/a"]})
    for seconds in (3, 15, 60):
        code, text = host.call("report", "--timeout", f"{seconds}s", "--json")
        assert code == 3
        found = json.loads(text)
        assert f"Its zfs targets could not be looked at: it did not end within {seconds} s." in text
        # On a machine that is very busy even what does not hang may take so long, but not with ever more time.
        if "Its hostpath targets could not be looked at" not in text:
            break
    assert [each["target"] for each in found["policies"][0]["targets"]] == [str(host.data)]


# -- at a terminal ----------------------------------------------------------------------------------------------------


def test_colours_are_for_terminals_and_for_who_asks(host, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    host.call("run", "dev")
    assert "\x1b" not in host.call("report")[1]
    assert "\x1b[32mRESTOREPOINT OK" in host.call("report", "--color", "always")[1]
    assert "\x1b[32mRESTOREPOINT OK" in at_terminal(host)[1]
    assert "\x1b" not in at_terminal(host, "--color", "never")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in at_terminal(host)[1]
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in at_terminal(host)[1]


def test_a_narrow_terminal_is_not_written_beyond(host, monkeypatch):
    monkeypatch.setenv("COLUMNS", "44")
    host.policy["description"] = "a shop with a very long description that no terminal of forty-four columns holds"
    host.call("run", "dev")
    _first, *lines = at_terminal(host, "--color", "never", "--full")[1].splitlines()
    assert lines
    assert [each for each in lines if len(each) > 44] == []


def test_watching_shows_it_anew_until_somebody_interrupts_and_ends_as_the_last_one(host):
    host.call("run", "dev")
    code, text = at_terminal(host, "--watch", "1", "--color", "never", enough=2)
    assert code == 0
    assert text.count("RESTOREPOINT OK") == 2
    assert text.startswith("\x1b[H")
    assert "\x1b[2J" not in text, "a screen that is cleared first flickers"


def test_watching_all_the_time_is_refused(host, capsys):
    assert host.call("report", "--watch", "0")[0] == cli.USAGE
    assert "Cannot watch every 0 s" in capsys.readouterr().err


# -- as a file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "begin"),
    [("html", "<!DOCTYPE html>"), ("json", '{"format": 1'), ("txt", "RESTOREPOINT OK - all is well")],
)
def test_the_ending_of_a_file_tells_its_form(host, ending, begin):
    host.call("run", "dev")
    path = host.folder / "out" / f"report.{ending}"
    path.parent.mkdir()
    code, text = host.call("report", "--export", str(path))
    assert code == 0
    assert text.startswith("RESTOREPOINT OK")
    assert path.read_text().startswith(begin)
    assert os.listdir(path.parent) == [path.name]


def test_a_file_that_is_there_keeps_its_mode_and_a_new_one_has_a_usual_one(host):
    kept, new = host.folder / "kept.html", host.folder / "new.html"
    kept.write_text("old")
    kept.chmod(0o640)
    umask = os.umask(0o027)
    try:
        for path in (kept, new):
            host.call("report", "--export", str(path))
    finally:
        os.umask(umask)
    assert [path.stat().st_mode & 0o777 for path in (kept, new)] == [0o640, 0o640]
    assert kept.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("report.pdf", "Cannot write the report to report.pdf: its ending tells no form; let its name end with .html"),
        ("/nowhere/report.html", "Cannot write the report to /nowhere/report.html: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_written_is_said(host, capsys, path, words):
    assert host.call("report", "--export", path)[0] in (cli.USAGE, cli.FAILED)
    assert words in capsys.readouterr().err


def test_the_page_of_the_agent_as_one_file_needs_no_library_of_anybody(host, archive):
    done = subprocess.run(
        [sys.executable, "-I", archive, *host.arguments, "report", "--html"],
        capture_output=True,
        timeout=LONG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"<!DOCTYPE html>")
    assert str(host.data).encode() in done.stdout
    assert pathlib.Path(archive).stat().st_size < 700 * 1024


def test_shells_complete_its_options():
    found = script("bash", cli.parser())
    assert "--export" in found
    assert "--watch" in found
