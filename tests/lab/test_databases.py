# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hooks for databases, on real servers: what is locked is locked while the snapshots are taken, and not after."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.agent import cli
from ansible_collections.restorepoint.core.tests.lab import databases
from ansible_collections.restorepoint.core.tests.lab.conftest import lacking
from ansible_collections.restorepoint.core.tests.lab.databases import SECRET, wait_for
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.agent.test_agent import TOOL, Host

#: One process has them all, so that one server of each kind is enough.
pytestmark = pytest.mark.xdist_group("databases")


def server(kind):
    """Yield a server; on CI it has to be there."""
    if os.geteuid() != 0:
        lacking("root")
    # The path of a socket is short, and other users have to reach it.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rp-db-", dir="/tmp"))
    try:
        found = kind(folder)
    except databases.NotThere as error:
        shutil.rmtree(folder)
        lacking(str(error))
    try:
        yield found
    finally:
        found.close()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def postgresql():
    yield from server(databases.PostgreSQL)


@pytest.fixture(scope="module")
def mariadb():
    yield from server(databases.MariaDB)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The agent as one file."""
    target = tmp_path_factory.mktemp("agent") / "restorepoint.pyz"
    subprocess.run([sys.executable, TOOL, target], check=True, capture_output=True, timeout=120)
    return target


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def secret(host, name, text, mode=0o600):
    """Return the path of a file that holds a password."""
    path = host.folder / name
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def reasons(host):
    """Return all that the journal says, and see to it that it holds no password."""
    text = json.dumps(host.journal, ensure_ascii=False)
    assert SECRET not in text
    assert SECRET not in json.dumps(host.journal)
    return text


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


def checkpoint(postgresql):
    """Return where the recovery of the server would begin."""
    return postgresql.sql("SELECT redo_lsn FROM pg_control_checkpoint()")


def written(postgresql):
    """Write something that no checkpoint covers."""
    postgresql.sql("CREATE TABLE IF NOT EXISTS orders (number int); INSERT INTO orders SELECT generate_series(1, 1000)")
    return postgresql.sql("SELECT pg_current_wal_lsn()")


def covers(postgresql, place):
    return postgresql.sql(f"SELECT redo_lsn >= '{place}' FROM pg_control_checkpoint()") == "t"


def test_a_checkpoint_of_postgresql_comes_before_the_snapshot(postgresql, host):
    host.policy["hooks"] = [{"kind": "postgresql", "name": "db", "host": str(postgresql.folder)}]
    place = written(postgresql)
    assert not covers(postgresql, place)
    code, text = host.call("run", "dev")
    assert code == 0, text
    assert covers(postgresql, place)
    assert [(each["before"], each["after"]) for each in host.journal[0]["hooks"]] == [("done", "done")]


def test_postgresql_takes_its_password_from_a_file_that_others_cannot_read(postgresql, host, capsys):
    line = f"*:*:*:backup:{SECRET}\n"
    hook = {"kind": "postgresql", "host": str(postgresql.folder), "user": "backup", "database": "postgres"}
    host.policy["hooks"] = [{**hook, "passfile": secret(host, "pass", line, 0o640)}]
    assert host.call("run", "dev")[0] == cli.FAILED
    assert "mode 0640" in reasons(host)
    host.policy["hooks"] = [{**hook, "passfile": secret(host, "pass", "*:*:*:backup:wrong\n")}]
    assert host.call("run", "dev")[0] == cli.FAILED
    assert "password authentication failed" in reasons(host)
    assert host.names == []
    host.policy["hooks"] = [{**hook, "passfile": secret(host, "pass", line)}]
    place = written(postgresql)
    assert host.call("run", "dev")[0] == 0
    assert covers(postgresql, place)
    assert SECRET not in reasons(host) + capsys.readouterr().err


# -- MariaDB, MySQL ----------------------------------------------------------------------------------------------------


def hook_of(mariadb, **keys):
    return {"kind": "mariadb", "name": "db", "socket": str(mariadb.socket), "timeout": "60s", **keys}


def looking(mariadb, statements):
    """Return a hook that is sound where others' statements fail for want of a lock."""
    refused = f"! {' '.join(mariadb.client)} -e '{statements}' 2>{mariadb.folder}/said"
    proven = f"grep -q 'Lock wait timeout' {mariadb.folder}/said"
    return {"kind": "command", "name": "look", "before": ["sh", "-c", f"{refused} && {proven}"]}


@pytest.mark.parametrize(
    "keys", [{}, {"lock": "tables"}, {"kind": "mysql"}], ids=["mariadb", "mariadb tables", "mysql"]
)
def test_nobody_writes_while_the_snapshots_are_taken_and_everybody_afterwards(mariadb, host, keys):
    host.policy["hooks"] = [hook_of(mariadb, **keys), looking(mariadb, mariadb.WRITE)]
    assert mariadb.takes_writes()
    code, text = host.call("run", "dev")
    assert code == 0, text + reasons(host)
    assert mariadb.takes_writes()
    assert len(host.names) == 1


def test_mariadb_takes_its_password_from_a_file_that_others_cannot_read(mariadb, host, capsys):
    def text(word):
        return f'[client]\nuser=backup\npassword="{word}"\n'

    hook = hook_of(mariadb)
    host.policy["hooks"] = [{**hook, "defaults_file": secret(host, "cnf", text(SECRET), 0o644)}]
    assert host.call("run", "dev")[0] == cli.FAILED
    assert "mode 0644" in reasons(host)
    host.policy["hooks"] = [{**hook, "defaults_file": secret(host, "cnf", text("wrong"))}]
    assert host.call("run", "dev")[0] == cli.FAILED
    assert "Access denied" in reasons(host)
    host.policy["hooks"] = [
        {**hook, "defaults_file": secret(host, "cnf", text(SECRET))},
        looking(mariadb, mariadb.WRITE),
    ]
    assert host.call("run", "dev")[0] == 0, reasons(host)
    assert SECRET not in reasons(host) + capsys.readouterr().err
    assert mariadb.takes_writes()


def test_where_the_lock_is_not_to_be_had_nothing_is_taken_and_nobody_waits_for_it(mariadb, host):
    host.policy["hooks"] = [hook_of(mariadb, lock="tables", timeout="1s")]
    with mariadb.session("LOCK TABLES shop.orders WRITE"):
        assert host.call("run", "dev")[0] == cli.FAILED
        wait_for(lambda: not mariadb.sessions("FLUSH"), "a session still waits for the lock")
    assert host.names == []
    assert mariadb.takes_writes()


class Caught:
    """A run, in a process of its own, that waits in its last hook, with the lock held."""

    def __init__(self, host, archive, mariadb, **keys):
        self.pid = host.folder / "pid"
        waiting = f"echo $$ > {self.pid}.part; mv {self.pid}.part {self.pid}; exec sleep 1000"
        host.policy["hooks"] = [
            hook_of(mariadb, **keys),
            {"kind": "command", "name": "wait", "before": ["sh", "-c", waiting], "timeout": "1h"},
        ]
        command = [sys.executable, archive, *host.arguments, "run", "dev"]
        self.agent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def watchdog(self):
        children = pathlib.Path(f"/proc/{self.agent.pid}/task/{self.agent.pid}/children").read_text().split()
        command = pathlib.Path(f"/proc/{self.agent.pid}/cmdline").read_bytes()
        return [int(each) for each in children if pathlib.Path(f"/proc/{each}/cmdline").read_bytes() == command]

    def holding(self):
        """Wait until it holds the lock and waits."""
        wait_for(self.pid.exists, "the run did not come to its last hook")

    def kill(self):
        self.agent.kill()
        self.agent.wait()

    def end(self):
        """End the hook that a killed agent leaves behind."""
        if self.pid.exists():
            os.kill(int(self.pid.read_text()), signal.SIGKILL)


@pytest.mark.parametrize("lock", ["backup", "tables"])
@pytest.mark.parametrize("both", [False, True], ids=["agent killed", "agent and watchdog killed"])
def test_a_killed_agent_lets_go_and_the_next_run_tells(mariadb, host, archive, lock, both):
    caught = Caught(host, archive, mariadb, lock=lock)
    caught.holding()
    assert not mariadb.takes_writes()
    watchdogs = caught.watchdog()
    assert len(watchdogs) == 1
    if both:
        os.kill(watchdogs[0], signal.SIGKILL)
    caught.kill()
    wait_for(mariadb.takes_writes, "the lock is still held")
    caught.end()
    host.policy["hooks"] = []
    assert host.call("run", "dev")[0] == 0
    killed, done = host.journal
    assert (killed["outcome"], done["outcome"]) == ("killed", "done")
    assert [(each["name"], each["after"]) for each in killed["hooks"]] == [("wait", "done"), ("db", "done")]
    assert len(host.names) == 1


def test_an_agent_that_is_killed_while_it_waits_for_the_lock_leaves_nobody_waiting(mariadb, host, archive):
    with mariadb.session("LOCK TABLES shop.orders WRITE"):
        caught = Caught(host, archive, mariadb, lock="tables", timeout="1h")
        wait_for(lambda: mariadb.sessions("FLUSH TABLES"), "the run does not ask for the lock")
        caught.kill()
        wait_for(lambda: not mariadb.sessions("FLUSH TABLES"), "a session still waits for the lock")
    assert mariadb.takes_writes()


def test_where_the_lock_is_lost_meanwhile_the_restore_point_goes_again(mariadb, host):
    lose = (
        "SELECT CONCAT('KILL ', id, ';') FROM information_schema.processlist WHERE user = 'root' "
        "AND id <> CONNECTION_ID()"
    )
    client = " ".join(mariadb.client)
    # A session of an earlier test may just have ended, hence --force.
    kill = f'{client} -e "{lose}" > {host.folder}/kill && {client} --force < {host.folder}/kill || true'
    host.policy["hooks"] = [
        hook_of(mariadb),
        {"kind": "command", "name": "lose", "before": ["sh", "-c", kill]},
    ]
    assert host.call("run", "dev")[0] == cli.FAILED
    assert host.names == []
    assert "was not held until the end" in reasons(host)
    assert host.journal[0]["done"] == {"created": 1, "removed": 1}
    # The server tells the client of its end before it has let all go.
    wait_for(mariadb.takes_writes, "the lock is still held")


def test_a_server_that_goes_down_while_it_is_locked_fails_the_run(host):
    for own in server(databases.MariaDB):
        stop = f"kill -9 $(cat {own.folder}/pid)"
        host.policy["hooks"] = [
            hook_of(own),
            {"kind": "command", "name": "crash", "before": ["sh", "-c", stop]},
        ]
        assert host.call("run", "dev")[0] == cli.FAILED
        assert host.names == []
        assert "was not held until the end" in reasons(host)
