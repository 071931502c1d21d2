# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the hooks ``postgresql``, ``mariadb`` and ``mysql`` do, through the databases' own clients. Called by `hooks`.

PostgreSQL gets a checkpoint, which makes its recovery from the snapshot short; there is nothing to undo.

MariaDB and MySQL are locked by a session that a client keeps open. The lock is the session's, so it cannot outlive it:

- the client ends when this process does, as its stdin is a pipe from here;
- the session bears a mark, a lock of its own by the run's token; by it the watchdog, or the next run, finds the session
  and has the server end it;
- the server ends it by itself when it has been idle for longer than anything may be quiesced.

What may be held is asked of the session at the end: where it is gone, what was taken is not of one state.
Passwords stay in files that only their owner can read, or there are none (a local socket).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import time
from collections.abc import Sequence

from .. import process, secret_files
from ..core.errors import InvalidInput, ToolError
from ..engine.policy import Hook
from .hook_programs import REMEDY, Lost

#: Seconds after which the server ends a session that nobody speaks to: later than the run's own limit (`hooks`).
IDLE_SECONDS = 420
_LOCKS = {
    "tables": ("FLUSH TABLES WITH READ LOCK", "UNLOCK TABLES"),
    "backup": ("BACKUP STAGE START;\nBACKUP STAGE BLOCK_COMMIT", "BACKUP STAGE END"),
}
#: Signs that the session gives, none of which a server says by itself.
_MARKED, _HELD, _RELEASED = (f"restorepoint: {word}" for word in ("marked", "held", "released"))


def before(hook: Hook) -> process.Dialogue | None:
    """Do what a hook does before the snapshots; return the session that holds the lock. Raises RestorePointError."""
    if hook.kind == "postgresql":
        _checkpoint(hook)
        return None
    return _lock(hook)


def after(hook: Hook, held: process.Dialogue | None = None) -> None:
    """Let go what the before-hook holds: through its session, or without it through another one.

    Raises ToolError; Lost, where it had been let go already.
    """
    if hook.kind == "postgresql":
        return
    if held is None:
        _end_session(hook)
        return
    attempt = f"run the hook {hook.name!r} after the snapshots"
    release = f"{_LOCKS[hook.params['lock']][1]};\nSELECT '{_RELEASED}';\n"
    try:
        held.ask(release, _RELEASED, hook.timeout)
    except ToolError as error:
        held.end(0)
        with contextlib.suppress(ToolError):
            _end_session(hook)
        reason = f"the lock was not held until the end: {error.reason}"
        raise Lost(attempt, reason, "find out what has ended the session, and run the policy again") from error
    held.end(hook.timeout)


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


def _checkpoint(hook: Hook) -> None:
    attempt = f"run the hook {hook.name!r} before the snapshots"
    argv = psql(hook, attempt)
    process.run(argv, timeout=hook.timeout, attempt=attempt, remedy=REMEDY)


def psql(hook: Hook, attempt: str) -> list[str]:
    """Return the command line of a checkpoint. Raises InvalidInput."""
    params = hook.params
    local = not params["host"] or params["host"].startswith("/")
    # Over a local socket PostgreSQL knows its users by those of the system.
    user = params["run_as"] or ("postgres" if local and not params["passfile"] else "")
    become: list[str] = []
    owner: tuple[int, ...] = ()
    if user:
        try:
            uid = pwd.getpwnam(user).pw_uid
        except KeyError as error:
            raise InvalidInput(attempt, f"there is no user {user}", "name one of the system in run_as") from error
        owner = (uid,)
        if uid != os.geteuid():
            become = ["runuser", "-u", user, "--"]
    words = {
        "host": params["host"],
        "port": str(params["port"] or ""),
        "dbname": params["database"],
        "user": params["user"],
        "passfile": params["passfile"],
        "connect_timeout": str(max(2, hook.timeout)),
    }
    if params["passfile"]:
        secret_files.check(params["passfile"], attempt, owner)
    connection = " ".join(f"{key}={_conninfo(value)}" for key, value in words.items() if value)
    return [*become, "psql", "-X", "-w", "-q", "-v", "ON_ERROR_STOP=1", "-d", connection, "-c", "CHECKPOINT"]


def _conninfo(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


# -- MariaDB and MySQL -------------------------------------------------------------------------------------------------


def client(hook: Hook, attempt: str) -> list[str]:
    """Return the command line of a client that reads statements from its stdin. Raises InvalidInput."""
    params = hook.params
    names = ("mariadb", "mysql") if hook.kind == "mariadb" else ("mysql",)
    argv = [next((name for name in names if process.find_program(name)), names[0])]
    if params["defaults_file"]:
        secret_files.check(params["defaults_file"], attempt)
        argv.append(f"--defaults-extra-file={params['defaults_file']}")
    # One that connected again would go on without the lock.
    argv += ["--batch", "--unbuffered", "--raw", "--skip-column-names", "--skip-reconnect"]
    argv += [f"--{key}={params[key]}" for key in ("socket", "host", "port", "user") if params[key]]
    return argv


def _lock(hook: Hook) -> process.Dialogue:
    attempt = f"run the hook {hook.name!r} before the snapshots"
    token = _token(hook)
    session = process.Dialogue(client(hook, attempt), attempt, REMEDY)
    try:
        # Whoever waits for this lock makes others wait, so the server gives it up when we do.
        marking = (
            f"SET SESSION lock_wait_timeout = {hook.timeout};\nSET SESSION wait_timeout = {IDLE_SECONDS};\n"
            f"SELECT IF(GET_LOCK('{token}', 0) = 1, '{_MARKED}', 'refused');\n"
        )
        session.ask(marking, _MARKED, hook.timeout)
        session.ask(f"{_LOCKS[hook.params['lock']][0]};\nSELECT '{_HELD}';\n", _HELD, hook.timeout)
    except BaseException:
        # A statement that waits goes on after its client: the server has to end it.
        session.end(0)
        with contextlib.suppress(ToolError):
            _end_session(hook)
        raise
    return session


def _end_session(hook: Hook) -> None:
    """Have the server end the session of this run, if there is one, and wait until it is gone. Raises ToolError."""
    attempt = f"let go what the hook {hook.name!r} holds"
    token = _token(hook)
    deadline = time.monotonic() + hook.timeout
    while True:
        (holder,) = _told(hook, attempt, f"SELECT IFNULL(IS_USED_LOCK('{token}'), 0);\n") or ("",)
        if not re.fullmatch("[0-9]+", holder):
            raise ToolError(attempt, f"its server answers {holder!r}", "look whether it is locked")
        if holder == "0":
            return
        if time.monotonic() > deadline:
            reason = f"connection {holder} of the database does not end"
            raise ToolError(attempt, reason, f"run KILL {holder} in the database at once")
        # It may have ended meanwhile, so that this fails.
        with contextlib.suppress(ToolError):
            _told(hook, attempt, f"KILL CONNECTION {holder};\n")
        time.sleep(0.1)


def _told(hook: Hook, attempt: str, statements: str) -> Sequence[str]:
    argv = client(hook, attempt)
    done = process.run(argv, timeout=hook.timeout, attempt=attempt, remedy=REMEDY, input=statements)
    return done.stdout.split()


def _token(hook: Hook) -> str:
    if not re.fullmatch("[0-9a-f]{16,64}", hook.token):
        raise ValueError(f"a hook that holds something needs a token: {hook.token!r}")
    return f"restorepoint.{hook.token}"
