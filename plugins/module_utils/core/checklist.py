# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checklist of a host: what was gathered there, judged point by point. Pure; docs/checklist.md lists the points.

A point is ``ok``, ``failed``, a ``warning``, or ``unknown`` where it could not be looked at, which is never ``ok``.
Called by the filters of the playbook checklist.yml.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

MARKS = {"ok": "✓", "failed": "✗", "warning": "!", "unknown": "?"}
DAY = 86400
#: How old a file of metrics may be, in seconds: the timer of the role monitoring writes it each minute.
FRESH = 900
_SAMPLE = re.compile(r"(?P<name>restorepoint_\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Point:
    """One line of the list: what was looked at, how it stands, what was found, and what to do."""

    check: str
    subject: str
    state: str
    found: str
    todo: str = ""

    def line(self) -> str:
        """Return it as people read it."""
        words = f"{MARKS[self.state]} {self.check}: {self.subject + ': ' if self.subject else ''}{self.found}"
        return words if self.state == "ok" or not self.todo else f"{words}; {self.todo}"

    def data(self) -> dict[str, str]:
        """Return it as plain data."""
        return {key: str(value) for key, value in asdict(self).items()}


def paths(policies: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what on the host has to be looked at for these policies: data, stores, files with secrets."""
    found: set[str] = set()
    for policy in policies:
        for target in policy.get("targets", []):
            found.update(_data(target))
            found.update(str(target[key]) for key in ("store", "credentials_file", "kubeconfig") if target.get(key))
        found.update(_secrets_of_hooks(policy))
    return sorted(found)


def points(facts: Mapping[str, Any]) -> list[Point]:
    """Return all points of a host.

    ``facts``: ``now`` (seconds since 1970), ``agent`` (``installed``, ``current``), ``check`` (``rc``, ``stderr``),
    ``policies``, ``units`` (text of systemctl show), ``metrics`` (text), ``published`` (``mode``, ``exists``, ``age``),
    ``rules`` (``path``, ``exists``, ``current``), ``stats`` (by path: ``exists``, ``mode``, ``dev``), ``users`` (by
    credentials file), ``files`` (``policies``, ``state``), ``limits`` (days: ``verify``, ``drill``).
    """
    policies: Sequence[Mapping[str, Any]] = facts["policies"]
    found = [*_agent(facts), *_sound(facts), *_timers(policies, facts["units"])]
    found += [*_runs(policies, facts), *_proofs(policies, facts), *_published(facts)]
    found += [*_closed(facts), *_stores(policies, facts["stats"]), *_secrets(policies, facts["stats"])]
    return [*found, *_apis(policies, facts["users"])]


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the series of a text of Prometheus by name and labels; lines that are none are passed over."""
    found = {}
    for line in text.splitlines():
        match = _SAMPLE.fullmatch(line)
        if match:
            labels = frozenset(_LABEL.findall(match["labels"] or ""))
            found[match["name"], labels] = float(match["value"])
    return found


def units(text: str) -> dict[str, dict[str, str]]:
    """Return the properties of each unit, out of what ``systemctl show`` prints of several."""
    found: dict[str, dict[str, str]] = {}
    for block in re.split(r"\n\s*\n", text.strip()):
        properties = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if properties.get("Id"):
            found[properties["Id"]] = properties
    return found


def _agent(facts: Mapping[str, Any]) -> Iterator[Point]:
    todo = "play restorepoint.core.schedule"
    if not _true(facts["agent"]["installed"]):
        yield Point("agent", "", "failed", "it is not installed", todo)
    elif not _true(facts["agent"]["current"]):
        yield Point("agent", "", "failed", "it is of another version than this collection", todo)
    else:
        yield Point("agent", "", "ok", "installed, and of this version")


def _sound(facts: Mapping[str, Any]) -> Iterator[Point]:
    check = facts["check"]
    if int(check["rc"]) != 0:
        reason = str(check["stderr"]).strip() or f"the agent ended with {check['rc']}"
        yield Point("policies", "", "failed", reason, "correct them, and play restorepoint.core.schedule")
    elif not facts["policies"]:
        yield Point("policies", "", "failed", "there is none", "set restorepoint_policies")
    else:
        yield Point("policies", "", "ok", f"{len(facts['policies'])} sound")


def _timers(policies: Sequence[Mapping[str, Any]], text: str) -> Iterator[Point]:
    found = units(text)
    for policy in policies:
        if not policy.get("schedule"):
            continue
        timer = found.get(f"restorepoint-{policy['name']}.timer", {})
        todo = f"play restorepoint.core.schedule, or systemctl enable --now restorepoint-{policy['name']}.timer"
        if timer.get("UnitFileState") != "enabled" or timer.get("ActiveState") != "active":
            state = f"{timer.get('UnitFileState') or 'not there'}, {timer.get('ActiveState') or 'inactive'}"
            yield Point("timer", policy["name"], "failed", f"it is {state}", todo)
        elif not timer.get("NextElapseUSecRealtime"):
            yield Point("timer", policy["name"], "failed", "it has no next run", "look at the policy's schedule")
        else:
            yield Point("timer", policy["name"], "ok", f"next run {timer['NextElapseUSecRealtime']}")


def _runs(policies: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> Iterator[Point]:
    known = samples(facts["metrics"])
    for policy in policies:
        name = policy["name"]
        label = ("policy", name)
        last = known.get(("restorepoint_last_success_timestamp_seconds", frozenset({label, ("command", "run")})))
        due = known.get(("restorepoint_policy_last_due_timestamp_seconds", frozenset({label})))
        if last is None:
            yield Point(
                "last run", name, "unknown", "the agent tells nothing of it", "see what restorepoint metrics says"
            )
        elif policy.get("schedule") and (due is None or last < due):
            found = f"none has succeeded since it was due{_since(due, facts['now'])}"
            yield Point("last run", name, "failed", found, f"journalctl -u restorepoint-{name}")
        elif not last:
            yield Point("last run", name, "warning", "it never ran", f"restorepoint run {name}")
        else:
            yield Point("last run", name, "ok", f"succeeded{_since(last, facts['now'])}")


def _proofs(policies: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> Iterator[Point]:
    known = samples(facts["metrics"])
    for policy in policies:
        for command in ("verify", "drill"):
            if command == "drill" and any(each.get("backend") == "pve" for each in policy.get("targets", [])):
                found = "the agent drills no guests of Proxmox VE"
                todo = "restore a backup of each under another id now and then: see docs/drills.md"
                yield Point(command, policy["name"], "unknown", found, todo)
                continue
            labels = frozenset({("policy", policy["name"]), ("command", command)})
            last = known.get(("restorepoint_last_success_timestamp_seconds", labels), 0.0)
            days = int(facts["limits"][command])
            todo = f"restorepoint {command} {policy['name']}, and let a timer do it"
            if not last:
                yield Point(command, policy["name"], "failed", "none has succeeded yet", todo)
            elif float(facts["now"]) - last > days * DAY:
                found = f"the last one succeeded{_since(last, facts['now'])}, more than {days} days"
                yield Point(command, policy["name"], "failed", found, todo)
            else:
                yield Point(command, policy["name"], "ok", f"succeeded{_since(last, facts['now'])}")


def _published(facts: Mapping[str, Any]) -> Iterator[Point]:
    published, rules = facts["published"], facts["rules"]
    todo = "play the role restorepoint.core.monitoring"
    if published["mode"] == "none":
        yield Point("metrics", "", "warning", "nobody is told of them", todo)
    elif not _true(published["exists"]):
        yield Point("metrics", "", "failed", "they are not there", todo)
    elif float(published["age"]) > FRESH:
        found = f"they are {int(float(published['age']))} s old"
        yield Point("metrics", "", "failed", found, "systemctl status restorepoint_metrics.timer")
    else:
        yield Point("metrics", "", "ok", str(published["mode"]))
    if not rules["path"]:
        return
    if _true(rules["exists"]) and _true(rules["current"]):
        yield Point("alerts", rules["path"], "ok", "installed, and of this version")
    else:
        found = "they differ from this collection's" if _true(rules["exists"]) else "they are not installed"
        yield Point("alerts", rules["path"], "failed", found, "set monitoring_rules_file, and play the role monitoring")


def _closed(facts: Mapping[str, Any]) -> Iterator[Point]:
    for key, mode in (("policies", "0600"), ("state", "0700")):
        yield from _mode(
            f"{key} are closed" if key == "policies" else "state is closed", facts["files"][key], mode, facts["stats"]
        )


def _stores(policies: Sequence[Mapping[str, Any]], stats: Mapping[str, Any]) -> Iterator[Point]:
    seen: set[str] = set()
    for policy in policies:
        for target in policy.get("targets", []):
            store = target.get("store")
            if not store:
                continue
            if store not in seen:
                seen.add(store)
                yield from _mode("store is closed", store, "0700", stats)
            yield from _apart(policy, target, str(store), stats)


def _apart(
    policy: Mapping[str, Any], target: Mapping[str, Any], store: str, stats: Mapping[str, Any]
) -> Iterator[Point]:
    todo = "keep copies elsewhere: see docs/offsite.md"
    for data in _data(target):
        ends = [stats.get(path, {}) for path in (store, data)]
        if not all(end.get("exists") for end in ends):
            continue
        if ends[0]["dev"] != ends[1]["dev"]:
            yield Point("store is apart", data, "ok", f"{store} is on another filesystem")
        elif policy.get("export"):
            yield Point(
                "store is apart", data, "ok", f"{store} is on the same filesystem, and the policy has copies elsewhere"
            )
        else:
            yield Point(
                "store is apart", data, "warning", f"{store} is on the same filesystem, and lost together with it", todo
            )


def _secrets(policies: Sequence[Mapping[str, Any]], stats: Mapping[str, Any]) -> Iterator[Point]:
    found: set[str] = set()
    for policy in policies:
        found.update(_secrets_of_hooks(policy))
        for target in policy.get("targets", []):
            found.update(str(target[key]) for key in ("credentials_file", "kubeconfig") if target.get(key))
    for path in sorted(found):
        yield from _mode("credentials are closed", path, "0600", stats)


def _apis(policies: Sequence[Mapping[str, Any]], users: Mapping[str, str]) -> Iterator[Point]:
    for policy in policies:
        for target in policy.get("targets", []):
            if target.get("backend") != "pve":
                continue
            name = policy["name"]
            if target.get("transport") == "pvesh":
                yield Point("rights", name, "ok", "pvesh on the node needs no credential")
                continue
            if target.get("validate_certs") is False:
                todo = "set ca_path to a copy of /etc/pve/pve-root-ca.pem, and take validate_certs out"
                yield Point("TLS", name, "failed", "the certificate of Proxmox VE is not verified", todo)
            else:
                yield Point("TLS", name, "ok", "the certificate of Proxmox VE is verified")
            yield _right(name, users.get(str(target.get("credentials_file", "")), ""))


def _right(name: str, user: str) -> Point:
    todo = "make a token with privilege separation and the rights that docs/security.md names"
    if not user:
        return Point("rights", name, "unknown", "who logs in to Proxmox VE cannot be seen", "use a credentials_file")
    if user.startswith("root@"):
        return Point("rights", name, "failed", f"{user} may do everything in Proxmox VE", todo)
    if "!" not in user:
        return Point("rights", name, "warning", f"{user} logs in with a password", todo)
    return Point("rights", name, "ok", f"the token {user}")


def _mode(check: str, path: str, wanted: str, stats: Mapping[str, Any]) -> Iterator[Point]:
    seen = stats.get(path, {})
    if not seen.get("exists"):
        yield Point(check, path, "unknown", "it is not there", "it is made by the first run, or has to be put there")
    elif int(str(seen["mode"]), 8) & ~int(wanted, 8) & 0o077:
        yield Point(check, path, "failed", f"others may look into it (mode {seen['mode']})", f"chmod {wanted} {path}")
    else:
        yield Point(check, path, "ok", f"mode {seen['mode']}")


def _data(target: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for key in ("path", "subvolume"):
        value = target.get(key) or []
        found += [value] if isinstance(value, str) else [str(each) for each in value]
    return found


def _secrets_of_hooks(policy: Mapping[str, Any]) -> set[str]:
    keys = ("passfile", "defaults_file", "kubeconfig")
    return {str(hook[key]) for hook in policy.get("hooks", []) for key in keys if hook.get(key)}


def _true(value: Any) -> bool:
    """Return whether something is true, also where Ansible's templating has made text of it."""
    return str(value).strip().lower() in ("true", "yes", "1")


def _since(moment: float | None, now: Any) -> str:
    """Return how long ago something was, as words."""
    if not moment:
        return ""
    seconds = max(0, int(float(now) - moment))
    for unit, length in (("d", DAY), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f" {seconds // length} {unit} ago"
    return " just now"
