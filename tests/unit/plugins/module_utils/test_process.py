# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running real programs: small Python ones, written here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils import process
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import ToolError
from ansible_collections.restorepoint.core.plugins.module_utils.process import find_program, run
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.open_files import opened


def python(code, *arguments, timeout=30, **options):
    return run([sys.executable, "-c", code, *arguments], timeout=timeout, attempt="list volumes", **options)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_program_gives_its_output_and_exit_code():
    done = python("import sys; print('out'); print('err', file=sys.stderr)")
    assert done == ("out\n", "err\n", 0)


def test_arguments_reach_the_program_without_a_shell():
    hostile = ["$(id)", "a b", "*", "; rm -rf /", "'", ""]
    assert python("import sys; print(sys.argv[1:])", *hostile).stdout == f"{hostile}\n"


def test_the_locale_is_c_and_the_language_unset(monkeypatch):
    monkeypatch.setenv("LANGUAGE", "de")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert python("import os; print(os.environ['LC_ALL'], 'LANGUAGE' in os.environ)").stdout == "C False\n"


def test_stdin_is_empty_unless_something_is_given():
    code = "import sys; print(len(sys.stdin.read()))"
    assert python(code).stdout == "0\n"
    assert python(code, input="secret").stdout == "6\n"
    assert python(code, input="").stdout == "0\n"


def test_large_input_and_output_pass_at_the_same_time():
    text = "x" * 3_000_000
    assert python("import sys, shutil; shutil.copyfileobj(sys.stdin, sys.stdout, 1000)", input=text).stdout == text


def test_a_program_that_does_not_read_its_input_is_no_error():
    assert python("print('done')", input="x" * 3_000_000).stdout == "done\n"


def test_bytes_that_are_no_utf8_survive():
    printed = python(r"import sys; sys.stdout.buffer.write(b'a\xff')").stdout
    assert os.fsencode(printed) == b"a\xff"


def test_a_missing_program_is_named():
    with pytest.raises(ToolError) as caught:
        run(["no-such-tool", "list"], timeout=5, attempt="list volumes")
    assert str(caught.value) == (
        "Cannot list volumes: the program no-such-tool is not there; install no-such-tool, and try again."
    )


def test_a_missing_program_of_lvm_is_named_with_what_brings_it(monkeypatch):
    monkeypatch.setattr(process, "find_program", lambda _name: None)
    with pytest.raises(ToolError, match="the program lvs is not there; install lvm2, and try again"):
        run(["lvs"], timeout=5, attempt="list volumes")


def test_a_program_that_cannot_be_started_is_an_error_in_the_kernels_words(tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(ToolError, match="could not be started: No such file or directory"):
        run([str(script)], timeout=5, attempt="list volumes")


def test_a_failure_shows_the_command_the_exit_code_and_the_last_words():
    with pytest.raises(ToolError) as caught:
        python("import sys; sys.exit('no space\\nleft on \\x1b[31mpool')", "a b", remedy="free some space")
    message = str(caught.value)
    assert message.startswith(f"Cannot list volumes: `{sys.executable} -c ")
    assert message.endswith("'a b'` failed with exit code 1: no space; left on ?[31mpool; free some space.")


def test_a_failure_without_words_on_stderr_shows_those_on_stdout():
    with pytest.raises(ToolError, match="exit code 3: usage: tool"):
        python("print('usage: tool'); raise SystemExit(3)")
    with pytest.raises(ToolError, match="exit code 3: it printed nothing"):
        python("raise SystemExit(3)")


def test_other_exit_codes_can_be_no_failure():
    assert python("raise SystemExit(3)", ok=(0, 3)).rc == 3


def test_a_death_by_signal_is_named():
    with pytest.raises(ToolError, match="was ended by SIGKILL"):
        python("import os; os.kill(os.getpid(), 9)")


def test_a_long_command_and_long_words_do_not_flood_the_message():
    with pytest.raises(ToolError) as caught:
        python("import sys; sys.exit('x' * 100000)", *["volume"] * 1000)
    assert len(str(caught.value)) < 2000
    assert "(1003 words)" in str(caught.value)


class LeapingClock:
    """Takes the place of ``time``: an hour has gone by as soon as a file is there, however slow the machine is."""

    sleep = staticmethod(time.sleep)

    def __init__(self, path):
        self.path = path

    def monotonic(self):
        return time.monotonic() + (3600 if self.path.exists() else 0)


@pytest.fixture
def told(tmp_path, monkeypatch):
    """The file by which a program tells that its time may be over."""
    monkeypatch.setattr(process, "time", LeapingClock(tmp_path / "told"))
    return str(tmp_path / "told")


def test_a_timeout_ends_the_program_and_all_it_started(told):
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, file=sys.stderr, flush=True)\n"
        "open(sys.argv[1], 'w').close()\n"
        "time.sleep(600)\n"
    )
    start = time.monotonic()
    with pytest.raises(ToolError, match="did not end within 1000 s and was stopped") as caught:
        python(code, told, timeout=1000)
    assert time.monotonic() - start < 300  # the program would take twice as long
    child = int(caught.value.reason.rpartition(": ")[2])
    wait_until(lambda: not is_running(child))


def test_a_program_that_ignores_term_is_killed(monkeypatch, told):
    monkeypatch.setattr(process, "_GRACE_SECONDS", 0.3)
    code = "import os, signal, sys, time\nsignal.signal(15, signal.SIG_IGN)\nprint(os.getpid(), flush=True)\n"
    with pytest.raises(ToolError, match="did not end within") as caught:
        python(code + "open(sys.argv[1], 'w').close()\ntime.sleep(600)", told, timeout=1000)
    assert not is_running(int(caught.value.reason.rpartition(": ")[2]))


def test_a_daemon_left_behind_does_not_hold_us_up():
    code = (
        "import subprocess, sys\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True)\n"
    )
    start = time.monotonic()
    done = python(code)
    os.kill(int(done.stdout), signal.SIGKILL)
    assert time.monotonic() - start < 30  # the daemon lives twice as long


def test_a_program_that_closes_its_output_early_is_waited_for():
    code = "import os, time\nos.close(1); os.close(2)\ntime.sleep(0.5)\nos._exit(7)\n"
    assert python(code, ok=(7,)).rc == 7


def test_endless_output_is_an_error_and_not_half_an_answer(monkeypatch):
    monkeypatch.setattr(process, "MAX_STDOUT", 1_000_000)
    with pytest.raises(ToolError, match="printed more than 1000000 bytes and was stopped"):
        python("while True: print('x' * 1000)")


def test_of_endless_complaints_the_end_is_kept():
    done = python("import sys\nfor number in range(100000): print(number, file=sys.stderr)")
    assert len(done.stderr) <= process.KEPT_STDERR
    assert done.stderr.endswith("\n99999\n")


def test_an_interruption_stops_the_program(tmp_path):
    note = tmp_path / "pid"
    code = "import os, sys, time\nopen(sys.argv[1], 'w').write(str(os.getpid()))\ntime.sleep(60)\n"

    def interrupt():
        wait_until(lambda: note.exists() and note.read_text())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        python(code, str(note))
    thread.join()
    assert not is_running(int(note.read_text()))


def test_an_interruption_while_a_program_is_being_started_stops_it(monkeypatch):
    started = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self.pid)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        python("import time; time.sleep(60)")
    assert not is_running(*started)


def test_no_open_file_is_left_behind():
    before = opened()
    python("print(1)", input="x")
    with pytest.raises(ToolError):
        python("raise SystemExit(1)")
    assert opened() <= before


def test_programs_are_found_in_the_system_folders_too(monkeypatch, tmp_path):
    tool = tmp_path / "some-tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(process, "SYSTEM_FOLDERS", (str(tmp_path),))
    assert find_program("some-tool") == str(tool)
    assert find_program("other-tool") is None


def test_a_program_in_the_working_directory_is_not_found(monkeypatch, tmp_path):
    tool = tmp_path / "some-tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{os.pathsep}.{os.pathsep}/usr/bin")
    assert find_program("some-tool") is None


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- dialogues ---------------------------------------------------------------------------------------------------------


def dialogue(code, *arguments):
    return process.Dialogue([sys.executable, "-u", "-c", code, *arguments], "hold a lock", "look at it")


ECHO = "import sys\nfor line in sys.stdin: print('you said', line, end=''); print('sign')"


def test_a_program_that_stays_answers_again_and_again():
    session = dialogue(ECHO)
    assert session.ask("one\n", "sign", 60) == ["you said one"]
    assert session.ask("two\n", "sign", 60) == ["you said two"]
    session.end(60)


def test_a_program_that_has_ended_is_told_with_its_own_words():
    session = dialogue("import sys; sys.stderr.write('access denied'); sys.exit(3)")
    with pytest.raises(ToolError, match=r"failed with exit code 3: access denied"):
        session.ask("one\n", "sign", 60)
    session.end(0)
    with pytest.raises(ToolError):
        session.ask("two\n", "sign", 60)


def test_a_program_that_does_not_answer_is_told_and_stopped():
    session = dialogue("import os, time; print(os.getpid()); print('sign'); time.sleep(1000)")
    (pid,) = session.ask("", "sign", 60)
    with pytest.raises(ToolError, match=r"did not answer within 0\.1 s"):
        session.ask("one\n", "sign", 0.1)
    session.end(0)
    assert not is_running(int(pid))


def test_a_program_that_stays_ends_when_we_are_killed():
    code = f"""
import os, sys
sys.path[:] = {sys.path!r}
from ansible_collections.restorepoint.core.plugins.module_utils import process
child = "import os, sys; print(os.getpid()); print('sign'); sys.stdin.read()"
session = process.Dialogue([sys.executable, "-u", "-c", child], "hold a lock", "look at it")
print(session.ask("", "sign", 60)[0], flush=True)
os.kill(os.getpid(), 9)
"""
    done = python(code, timeout=60, ok=(-9,))
    wait_until(lambda: not is_running(int(done.stdout)))
