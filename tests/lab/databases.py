# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real database servers of the tests' own, in a folder each, on a local socket. They need root, and end with the tests.

Called by test_databases.py.
"""

from __future__ import annotations

import contextlib
import pathlib
import pwd
import shutil
import subprocess
import time

from ansible_collections.restorepoint.core.plugins.module_utils import process

#: Enough for a machine that is busy with other things.
PATIENCE = 120.0
SECRET = "pass-Wörd'7"


class NotThere(Exception):
    """A server is not installed, or did not come up. Says why."""


def wait_for(what, words):
    """Wait until something is true; fail with these words if it does not come to be."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, words
        time.sleep(0.05)


def ended(process):
    """End a server of ours."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class PostgreSQL:
    """A server on a socket in ``folder``; postgres is known by its user of the system, ``backup`` by SECRET."""

    def __init__(self, folder):
        programs = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not programs:
            raise NotThere("PostgreSQL's server (Debian's package postgresql)")
        self._bin = programs[-1].parent
        self.folder = folder
        folder.chmod(0o755)
        self.data = folder / "data"
        self.data.mkdir()
        owner = pwd.getpwnam("postgres")
        for each in (folder, self.data):
            shutil.chown(each, owner.pw_uid, owner.pw_gid)
        self._as_owner(self._bin / "initdb", "-D", self.data, "-A", "peer", "-N", "-E", "UTF8", "--locale=C.UTF-8")
        rules = "local all backup scram-sha-256\nlocal all all peer\n"
        (self.data / "pg_hba.conf").write_text(rules)
        settings = ("listen_addresses=", f"unix_socket_directories={folder}", "fsync=off", "checkpoint_timeout=1d")
        options = [word for each in settings for word in ("-c", each)]
        self._log = (folder / "log").open("wb")
        command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=KILL"]
        self._server = subprocess.Popen(
            [*command, self._bin / "postgres", "-D", self.data, *options], stdout=self._log, stderr=self._log, cwd="/"
        )
        wait_for(self._is_up, f"PostgreSQL did not come up: {(folder / 'log').read_text()[-2000:]}")
        self.sql(f"SET password_encryption = 'scram-sha-256'; CREATE ROLE backup LOGIN PASSWORD '{quoted(SECRET)}'")
        self.sql("GRANT pg_checkpoint TO backup")

    def _as_owner(self, *argv):
        subprocess.run(
            ["runuser", "-u", "postgres", "--", *argv], check=True, capture_output=True, timeout=PATIENCE, cwd="/"
        )

    def _is_up(self):
        argv = [self._bin / "pg_isready", "-q", "-h", self.folder]
        return subprocess.run(argv, check=False, timeout=PATIENCE).returncode == 0

    def sql(self, text):
        """Return what a statement gives, as one text."""
        argv = ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-h", self.folder, "-d", "postgres", "-c", text]
        done = subprocess.run(argv, check=True, capture_output=True, timeout=PATIENCE, cwd="/", text=True)
        return done.stdout.strip()

    def close(self):
        """End it."""
        self._server.send_signal(2)
        ended(self._server)
        self._log.close()


def quoted(text):
    """Return a text for a literal of SQL."""
    return text.replace("'", "''")


class MariaDB:
    """A server on a socket in ``folder``; root is known by its user of the system, ``backup`` by SECRET."""

    def __init__(self, folder):
        if shutil.which("mariadbd", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") is None:
            raise NotThere("MariaDB's server (Debian's package mariadb-server)")
        self.folder, self.data, self.socket = folder, folder / "data", folder / "sock"
        common = ["--no-defaults", f"--datadir={self.data}", "--user=root"]
        # Machines limit how many asynchronous requests all processes together may have.
        common.append("--innodb-use-native-aio=0")
        made = subprocess.run(
            ["mariadb-install-db", *common, "--auth-root-authentication-method=socket", "--skip-test-db"],
            check=False,
            capture_output=True,
            timeout=PATIENCE,
        )
        assert made.returncode == 0, (made.stdout + made.stderr).decode("utf-8", "replace")
        self._log = (folder / "log").open("wb")
        options = [f"--socket={self.socket}", "--skip-networking", f"--pid-file={folder / 'pid'}", "--skip-log-bin"]
        self._server = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", "mariadbd", *common, *options, "--innodb-flush-log-at-trx-commit=0"],
            stdout=self._log,
            stderr=self._log,
        )
        wait_for(self._is_up, f"MariaDB did not come up: {(folder / 'log').read_text()[-2000:]}")
        self.sql(f"CREATE USER backup@localhost IDENTIFIED BY '{quoted(SECRET)}'")
        self.sql("GRANT RELOAD ON *.* TO backup@localhost")
        self.sql("CREATE DATABASE shop; CREATE TABLE shop.orders (number INT PRIMARY KEY AUTO_INCREMENT)")

    def _is_up(self):
        argv = [*self.client, "-e", "SELECT 1"]
        return subprocess.run(argv, check=False, capture_output=True, timeout=PATIENCE).returncode == 0

    @property
    def client(self):
        """The beginning of a command line, as root."""
        return ["mariadb", "--no-defaults", "-BN", f"--socket={self.socket}"]

    def sql(self, text):
        """Return what statements give, as one text."""
        argv = [*self.client, "-e", text]
        return subprocess.run(argv, check=True, capture_output=True, timeout=PATIENCE, text=True).stdout.strip()

    #: A statement that writes, and fails at once where a lock forbids that.
    WRITE = "SET lock_wait_timeout = 0; INSERT INTO shop.orders VALUES ()"

    def takes_writes(self):
        """Say whether anybody can write."""
        argv = [*self.client, "-e", self.WRITE]
        done = subprocess.run(argv, check=False, capture_output=True, timeout=PATIENCE, text=True)
        assert done.returncode == 0 or "Lock wait timeout" in done.stderr, done.stderr
        return done.returncode == 0

    def sessions(self, words):
        """Return the numbers of the sessions whose statement begins so."""
        found = self.sql(
            "SELECT id FROM information_schema.processlist "
            f"WHERE id <> CONNECTION_ID() AND IFNULL(info, '') LIKE '{words}%'"
        )
        return [int(each) for each in found.split()]

    @contextlib.contextmanager
    def session(self, statements):
        """Keep a session open that has carried out statements."""
        client = process.Dialogue([*self.client, "--unbuffered"], "hold a session", "look at the server")
        try:
            client.ask(f"{statements};\nSELECT 'done';\n", "done", PATIENCE)
            yield
            # The client's end does not wait for the server, which may hold a lock of the session a little longer.
            client.ask("UNLOCK TABLES;\nSELECT 'gone';\n", "gone", PATIENCE)
        finally:
            client.end(PATIENCE)

    def close(self):
        """End it."""
        ended(self._server)
        self._log.close()
