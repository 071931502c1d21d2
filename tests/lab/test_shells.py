# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Completion in real shells, and the manual page before a real judge of such pages."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time

import pytest

from ansible_collections.restorepoint.core.tests.lab.conftest import lacking
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.agent.test_agent import TOOL, Host

PATIENCE = 120
START = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}
SET_UP = {"bash": "", "zsh": "autoload -U compinit && compinit -u -D"}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The agent under its own name, in a folder for PATH."""
    target = tmp_path_factory.mktemp("bin") / "restorepoint"
    subprocess.run([sys.executable, TOOL, target], check=True, capture_output=True, timeout=120)
    return target


class Shelled(Host):
    """A host with one policy on two directories, and what a shell on it needs to find the agent."""

    def __init__(self, folder, program):
        super().__init__(folder)
        other = folder / "odd $(touch hacked) name"
        other.mkdir()
        target = {"backend": "hostpath", "path": [str(self.data), str(other)], "store": str(folder / "store")}
        self.policy["targets"] = [target]
        self.environment = {
            "PATH": f"{program.parent}:{os.path.dirname(sys.executable)}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(folder),
            "TERM": "dumb",
            "LC_ALL": "C.UTF-8",
            "RESTOREPOINT_POLICIES": self.arguments[1],
            "RESTOREPOINT_STATE": self.arguments[3],
        }


@pytest.fixture
def host(tmp_path, program):
    """A host with two restore points."""
    found = Shelled(tmp_path, program)
    for name in ("before-upgrade", "monday"):
        assert found.call("create", "dev", "--name", name)[0] == 0
    return found


class Typing:
    """Somebody who types into an interactive shell, at a terminal."""

    def __init__(self, shell, host):
        if shutil.which(shell) is None:
            lacking(shell)
        self.terminal, theirs = pty.openpty()
        # setsid makes the terminal that of the shell, as a login does.
        command = ["setsid", "--ctty", *START[shell]]
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=host.environment, cwd=host.folder
        )
        os.close(theirs)
        script = host.folder / f"completion.{shell}"
        made = subprocess.run(
            ["restorepoint", "completion", shell],
            check=True,
            capture_output=True,
            timeout=PATIENCE,
            env=host.environment,
        )
        script.write_bytes(made.stdout)
        self.number = 0
        self.run(f"{SET_UP[shell] or ':'}; PS1='> '; . {script}")

    def __enter__(self):
        return self

    def __exit__(self, *_unused):
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)

    def until(self, mark):
        """Return what the shell prints up to a mark."""
        text, deadline = "", time.monotonic() + PATIENCE
        while mark not in text:
            left = deadline - time.monotonic()
            assert left > 0, f"no {mark!r} in {text!r}"
            if select.select([self.terminal], [], [], left)[0]:
                text += os.read(self.terminal, 65536).decode("utf-8", "replace")
        return text

    def run(self, command):
        """Run a command line, and return what it printed."""
        self.number += 1
        # The mark is put together by the shell, so that the echo of what is typed is not taken for it.
        os.write(self.terminal, f"{command}; echo; echo end''-{self.number}-\n".encode())
        return self.until(f"end-{self.number}-")

    def completed(self, line):
        """Return the words of a line after TAB was pressed behind it."""
        self.number += 1
        # Then to its beginning, to have its words printed instead of carried out.
        os.write(self.terminal, f"{line}\t\x01printf '<%s>' end''-{self.number}- \x05 end''-of-line\n".encode())
        text = self.until("<end-of-line>")
        return text.rpartition(f"<end-{self.number}->")[2][1:].split("><")[1:-1]


CASES = [
    ("restorepoint rollb", ["rollback"]),
    ("restorepoint run d", ["run", "dev"]),
    ("restorepoint run --if", ["run", "--if-due"]),
    ("restorepoint prune --dry-run d", ["prune", "--dry-run", "dev"]),
    ("restorepoint rollback dev bef", ["rollback", "dev", "before-upgrade"]),
    ("restorepoint rollback --yes dev mo", ["rollback", "--yes", "dev", "monday"]),
    ("restorepoint verify dev --name mo", ["verify", "dev", "--name", "monday"]),
    ("restorepoint completion fi", ["completion", "fish"]),
    ("restorepoint --policies polic", ["--policies", "policies.json"]),
    ("restorepoint --policies policies.json run d", ["--policies", "policies.json", "run", "dev"]),
    ("restorepoint --state=state --policies=policies.json run d", None),
    ("restorepoint list dev d", ["list", "dev", "dev"]),
    ("restorepoint --policies missing.json run d", ["--policies", "missing.json", "run", "d"]),
]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands_options_policies_and_restore_points(host, shell):
    with Typing(shell, host) as typing:
        for line, words in CASES:
            wanted = words or ["--state=state", "--policies=policies.json", "run", "dev"]
            assert typing.completed(line) == wanted, line
        odd = typing.completed(f"restorepoint rollback dev monday --target {host.folder}/odd")
    assert odd[-1] == f"{host.folder}/odd $(touch hacked) name"
    assert not (host.folder / "hacked").exists()


def test_fish_completes_commands_options_policies_and_restore_points(host):
    if shutil.which("fish") is None:
        lacking("fish")
    lines = [line for line, _words in CASES]
    asking = "restorepoint completion fish | source; for line in $argv; complete -C $line; echo end; end"
    found = subprocess.run(
        ["fish", "--no-config", "-c", asking, *lines],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=host.environment,
        cwd=host.folder,
    )
    assert not found.stderr
    offered = [[line.split("\t")[0] for line in part.splitlines() if line] for part in found.stdout.split("end\n")[:-1]]
    wanted = [[] if words and words[-1] == "d" else [(words or ["dev"])[-1]] for _line, words in CASES]
    assert offered == wanted


def test_every_command_is_offered(host):
    with Typing("bash", host) as typing:
        typing.run("bind '\"\\t\": insert-completions'")
        offered = typing.completed("restorepoint ")[1:]
    text = subprocess.run(
        ["restorepoint", "--help"], check=True, capture_output=True, text=True, timeout=PATIENCE, env=host.environment
    ).stdout
    listed = [line.split()[0] for line in text.splitlines() if line.startswith("    ") and line[4] != " "]
    assert sorted(offered) == sorted(listed)
    assert {"run", "rollback", "man"} <= set(offered)


def test_the_manual_page_is_sound_and_names_every_command_and_option(host):
    if shutil.which("mandoc") is None:
        lacking("mandoc")
    page = subprocess.run(
        ["restorepoint", "man"], check=True, capture_output=True, timeout=PATIENCE, env=host.environment
    ).stdout
    judged = subprocess.run(
        ["mandoc", "-T", "lint"], input=page, capture_output=True, timeout=PATIENCE, env=host.environment, check=False
    )
    # A date would make two builds differ.
    told = [line for line in judged.stdout.decode().splitlines() if "missing date" not in line]
    assert told == []
    shown = subprocess.run(
        ["mandoc", "-T", "ascii", "-O", "width=200"], input=page, check=True, capture_output=True, timeout=PATIENCE
    ).stdout.decode()
    plain = re.sub(".\b", "", shown)
    for word in ("restorepoint run [--json]", "--destroy-newer", "POLICY NAME", "130", "RESTOREPOINT_STATE"):
        assert word in plain
