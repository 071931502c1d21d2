# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The code that the agent keeps for its next start: used where it is its own and whole, and never otherwise."""

from __future__ import annotations

import marshal
import subprocess
import sys

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.agent import compiled, start
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.agent.test_agent import TOOL, Host


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The agent as one file."""
    target = tmp_path_factory.mktemp("agent") / "restorepoint.pyz"
    subprocess.run([sys.executable, TOOL, target], check=True, capture_output=True, timeout=120)
    return target


@pytest.fixture
def host(tmp_path):
    """A host on which the agent has run before, but not from its file."""
    found = Host(tmp_path)
    assert found.call("run", "dev")[0] == 0
    return found


def check(host, archive):
    """Return what the agent says when it is started from its file."""
    command = [sys.executable, archive, *host.arguments, "check"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def code_of(host):
    """Return the file with the code, which has to be the only one."""
    (found,) = (host.folder / "state" / "code").iterdir()
    return found


def speaking(path, words="from what was kept"):
    """Put other code in the place of what is kept, which prints some words."""
    text = f"def main():\n    print({words!r})\n    return 0\n"
    codes = {name: (name != "restorepoint.agent.cli", marshal.dumps(compile("", name, "exec"))) for name in PACKAGES}
    codes["restorepoint.agent.cli"] = (False, marshal.dumps(compile(text, "cli", "exec")))
    path.write_bytes(start.packed(codes))


PACKAGES = ("restorepoint", "restorepoint.agent", "restorepoint.agent.cli")


def test_code_is_kept_where_the_agent_has_run_before_and_used_at_the_next_start(host, archive):
    assert check(host, archive) == "dev: sound\n"
    path = code_of(host)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert check(host, archive) == "dev: sound\n"
    speaking(path)
    assert check(host, archive) == "from what was kept\n"


def test_a_start_without_kept_code_compiles_each_file_once(tmp_path, archive):
    program = """
import collections, runpy, sys
archive, *arguments = sys.argv[1:]
seen = collections.Counter()
def look(event, details):
    if event == "compile" and isinstance(details[1], str) and details[1].startswith(archive + "/restorepoint/agent/"):
        seen[details[1]] += 1
sys.addaudithook(look)
sys.argv = [archive, *arguments]
try:
    runpy.run_path(archive, run_name="__main__")
finally:
    assert f"{archive}/restorepoint/agent/cli.py" in seen and set(seen.values()) == {1}, seen
"""
    command = [sys.executable, "-c", program, str(archive), *Host(tmp_path).arguments, "check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_nothing_is_kept_by_the_first_run_on_a_host(tmp_path, archive):
    host = Host(tmp_path)
    command = [sys.executable, archive, *host.arguments]
    for words in (["check"], ["run", "dev"]):
        subprocess.run([*command, *words], check=True, capture_output=True, timeout=120)
        assert not (host.folder / "state" / "code").exists()


@pytest.mark.parametrize("spoil", ["torn", "changed", "older form", "empty"])
def test_what_is_not_whole_is_not_used(host, archive, spoil):
    check(host, archive)
    path = code_of(host)
    speaking(path)
    content = path.read_bytes()
    spoilt = {
        "torn": content[:-1],
        "changed": content[:-1] + bytes([content[-1] ^ 1]),
        "older form": content.replace(b"code 1", b"code 0", 1),
        "empty": b"",
    }
    path.write_bytes(spoilt[spoil])
    assert check(host, archive) == "dev: sound\n"


@pytest.mark.parametrize("what", ["state", "folder", "file"])
def test_what_others_can_write_to_is_not_used(host, archive, what):
    check(host, archive)
    path = code_of(host)
    speaking(path)
    {"state": path.parents[1], "folder": path.parent, "file": path}[what].chmod(0o777)
    assert check(host, archive) == "dev: sound\n"


def test_a_link_is_not_followed(host, archive):
    check(host, archive)
    path = code_of(host)
    speaking(path)
    path.rename(host.folder / "elsewhere")
    path.symlink_to(host.folder / "elsewhere")
    assert check(host, archive) == "dev: sound\n"


def test_code_of_another_build_goes_and_that_of_another_python_stays(host, archive):
    check(host, archive)
    path = code_of(host)
    build = path.name.partition("-")[0]
    path.unlink()
    for name in ("0000-cpython-311-0", f"{build}-pypy99-0"):
        (path.parent / name).write_bytes(b"")
    check(host, archive)
    assert sorted(each.name for each in path.parent.iterdir()) == sorted([path.name, f"{build}-pypy99-0"])


def test_nothing_is_kept_of_a_file_that_was_replaced_meanwhile(host, archive):
    assert compiled.compiled(str(archive), "another-build") == {}


def test_a_full_disk_does_not_trouble_the_agent(host, archive):
    (host.folder / "state" / "code").write_text("in the way")
    assert check(host, archive) == "dev: sound\n"


@pytest.mark.parametrize(
    ("argv", "folder"),
    [
        (["run", "x"], start.DEFAULT_STATE),
        (["--state", "/a", "run"], "/a"),
        (["--policies", "x", "--state=/b", "run"], "/b"),
        (["--state"], start.DEFAULT_STATE),
    ],
)
def test_the_state_folder_is_read_from_the_command_line(argv, folder, monkeypatch):
    monkeypatch.delenv("RESTOREPOINT_STATE", raising=False)
    assert start.state_folder(argv) == folder
