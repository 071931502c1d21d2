# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may do what on the test server: users, API tokens, tickets with their CSRF tokens, and permissions.

Privileges are granted on paths (``/``, ``/vms/100``, ``/pool/web``, ``/nodes/pve1``) and hold below them. root@pam may
do everything. A token with privilege separation has only what both it and its user were granted; without, what its user
has. Standard library only.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

ROOT = "root@pam"
ROLES = {
    "PVEAuditor": ("Sys.Audit", "VM.Audit", "Pool.Audit", "Datastore.Audit"),
    "Snapshotter": ("VM.Audit", "VM.Snapshot"),
    "Rollbacker": ("VM.Audit", "VM.Snapshot.Rollback"),
    "PVEVMUser": ("VM.Audit", "VM.PowerMgmt", "VM.Console"),
    "PVEVMAdmin": ("VM.Audit", "VM.PowerMgmt", "VM.Snapshot", "VM.Snapshot.Rollback", "VM.Config.Options"),
}


class Lifetimes(Protocol):
    """The settings that matter here."""

    ticket_lifetime: float


@dataclass
class Account:
    """A user or an API token, and what it was granted: path -> privileges."""

    id: str
    password: str = ""
    secret: str = ""
    separated: bool = True
    grants: dict[str, set[str]] = field(default_factory=dict)

    def has(self, path: str, privilege: str) -> bool:
        """Return whether it was granted a privilege on a path or above it."""
        while True:
            if privilege in self.grants.get(path, ()):
                return True
            if path == "/":
                return False
            path = path.rpartition("/")[0] or "/"


@dataclass
class Ticket:
    """A login. It ends ``ends``."""

    user: str
    csrf: str
    ends: float


class Access:
    """Accounts, logins and checks."""

    def __init__(self, clock: Callable[[], float], settings: Lifetimes) -> None:
        self._clock, self._settings = clock, settings
        self.accounts: dict[str, Account] = {}
        self.tickets: dict[str, Ticket] = {}
        self.logins = 0
        self.add_user(ROOT, "secret")

    def add_user(self, user: str, password: str = "secret") -> Account:
        """Add a user (``snap@pve``), who may do nothing yet."""
        self.accounts[user] = Account(user, password=password)
        return self.accounts[user]

    def add_token(self, user: str, name: str, separated: bool = True, secret: str = "") -> Account:
        """Add an API token of a user; its id is ``user!name``."""
        full = f"{user}!{name}"
        self.accounts[full] = Account(full, secret=secret or secrets.token_hex(16), separated=separated)
        return self.accounts[full]

    def grant(self, account: str, path: str, *privileges: str) -> None:
        """Grant privileges, or the roles of ROLES, on a path."""
        grants = self.accounts[account].grants.setdefault(path, set())
        for each in privileges:
            grants.update(ROLES.get(each, (each,)))

    def revoke(self, account: str, privilege: str) -> None:
        """Take a privilege away, wherever it was granted."""
        for grants in self.accounts[account].grants.values():
            grants.discard(privilege)

    def login(self, user: str, password: str) -> dict[str, Any] | None:
        """Return what /access/ticket answers, or None; a valid ticket serves as the password and is renewed."""
        account = self.accounts.get(user)
        if account is None or "!" in user or not (self._ticket_of(user, password) or self._right(account, password)):
            return None
        self.logins += 1
        now = self._clock()
        ticket = f"PVE:{user}:{int(now):08X}::{secrets.token_urlsafe(24)}"
        csrf = f"{int(now):08X}:{secrets.token_urlsafe(24)}"
        self.tickets[ticket] = Ticket(user, csrf, now + self._settings.ticket_lifetime)
        return {"username": user, "ticket": ticket, "CSRFPreventionToken": csrf, "clustername": "lab"}

    @staticmethod
    def _right(account: Account, password: str) -> bool:
        return bool(account.password) and hmac.compare_digest(account.password.encode(), password.encode())

    def _ticket_of(self, user: str, text: str) -> Ticket | None:
        ticket = self.tickets.get(text)
        return ticket if ticket and ticket.user == user and ticket.ends > self._clock() else None

    def expire(self) -> None:
        """End every ticket now."""
        self.tickets.clear()

    def ticket(self, text: str) -> Ticket | None:
        """Return a ticket that is still valid."""
        found = self.tickets.get(text)
        return found if found and found.ends > self._clock() else None

    def token(self, text: str) -> str | None:
        """Return the account of ``user!name=secret``."""
        name, _mark, secret = text.partition("=")
        account = self.accounts.get(name)
        right = account and "!" in name and hmac.compare_digest(account.secret.encode(), secret.encode())
        return name if right else None

    def may(self, user: str, paths: Iterable[str], privilege: str) -> bool:
        """Return whether a user or token has a privilege on one of the paths (a guest's own and its pool's)."""
        paths = list(paths)
        if user == ROOT:
            return True
        account = self.accounts.get(user)
        if account is None:
            return False
        owner, _mark, token = user.partition("!")
        if token:
            allowed = self.may(owner, paths, privilege)
            return allowed and (not account.separated or any(account.has(path, privilege) for path in paths))
        return any(account.has(path, privilege) for path in paths)
