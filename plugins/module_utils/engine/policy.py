# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Policies: targets, schedule, keep rules, hooks. Read as a whole, with every fault named by its place.

No storage is touched. docs/policies.md describes the format for people. Called by the agent, and by whatever installs
policies, before it does.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from ..core.errors import InvalidInput, RestorePointError
from ..core.names import check_owner
from ..core.offsite import Destination
from ..core.retention import RetentionPolicy, parse_policy
from ..core.schedule import Calendar, latest, parse_calendar, parse_cron
from ..core.units import parse_duration
from . import exports, hook_kinds
from .drills import DrillRules, parse_drill
from .spec import KEEP_SPEC

#: How long a policy waits for another run on the same storage where it does not say, in seconds. Policies are often due
#: at the same moment, and nobody sits and waits for them.
PATIENCE = 600
#: What a target may say beside its backend: those options of the module that belong to taking and keeping.
_OPTIONS = {
    "zfs": ("dataset", "recursive", "timeout", "lock_timeout"),
    "lvm": ("volume", "size", "data_limit", "metadata_limit", "command_timeout", "lock_timeout"),
    "btrfs": ("subvolume", "store", "recursive", "nested", "lock_timeout"),
    "hostpath": (
        *("path", "store", "exclude", "bandwidth_limit", "checksum", "require_consistent", "lock_timeout"),
        *("namespace", "pvc", "selector", "node_name", "other_nodes", "kubeconfig", "context"),
    ),
    "csi": (
        *("namespace", "pvc", "selector", "kubeconfig", "context", "snapshot_class", "deletion_policy", "group"),
        *("group_snapshot_class", "timeout"),
    ),
    "pve": (
        *("vmid", "guest", "tags", "pool", "node", "type", "status", "exclude", "transport", "api_host", "api_port"),
        *("api_user", "credentials_file", "validate_certs", "ca_path", "api_timeout"),
        *("vmstate", "parallel", "timeout", "lock_timeout"),
    ),
}
#: The option that names the targets themselves.
TARGET_OPTION = {
    "zfs": "dataset",
    "lvm": "volume",
    "btrfs": "subvolume",
    "hostpath": "path",
    "csi": "namespace",
    "pve": "vmid",
}
#: Backends whose targets may be named as claims of Kubernetes, in ``namespace`` and what goes with it.
_CLAIMS = ("hostpath", "csi")

_POLICY_KEYS = (
    *("name", "description", "targets", "schedule", "timezone", "keep", "min_keep", "min_age", "max_delete"),
    *("require_recent", "match", "only_if_changed", "hooks", "labels"),
    *("drill", "export", "drill_schedule", "export_schedule"),
)
_HOOK_KEYS = {
    "command": ("kind", "name", "before", "after", "timeout"),
    "fsfreeze": ("kind", "name", "path", "timeout"),
    **{kind: ("kind", "name", "timeout", *keys) for kind, keys in hook_kinds.KINDS.items()},
}
_HOOK_TIMEOUT = "60s"


@dataclass(frozen=True)
class Target:
    """Targets of one backend with the same options. ``params`` has every option of its module, with its default."""

    backend: str
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Hook:
    """What is done before and after the snapshots are taken. ``timeout`` is in seconds, for each of the two.

    ``command`` runs the argument lists ``before`` and ``after`` (one may be empty); ``fsfreeze`` freezes the filesystem
    of ``path``. ``params`` has the keys of the kinds in `hook_kinds`, with their defaults. ``token`` is of one run: by
    it the after-hook finds what the before-hook holds, also from another process.
    """

    kind: str
    name: str
    timeout: int
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    path: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    token: str = ""


@dataclass(frozen=True)
class Schedule:
    """When something is due: the expressions as they were given, and what they mean."""

    calendar: tuple[str, ...] = ()
    cron: tuple[str, ...] = ()
    moments: tuple[Calendar, ...] = ()


@dataclass(frozen=True)
class Policy:
    """One checked policy. Its name is the owner of what it takes."""

    name: str
    targets: tuple[Target, ...]
    retention: RetentionPolicy
    description: str = ""
    calendar: tuple[str, ...] = ()
    cron: tuple[str, ...] = ()
    moments: tuple[Calendar, ...] = ()
    timezone: str = "UTC"
    match: tuple[str, ...] = ()
    only_if_changed: bool = False
    hooks: tuple[Hook, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    drill: DrillRules | None = None
    exports: tuple[Destination, ...] = ()
    drill_schedule: Schedule = Schedule()
    export_schedule: Schedule = Schedule()

    def last_due(self, now: int) -> int | None:
        """Return the last moment at which it should have run, in seconds since the epoch; None without a schedule."""
        return latest(self.moments, now, self.timezone)

    def drill_due(self, now: int) -> int | None:
        """Return the last moment at which it should have been drilled, like `last_due`."""
        return latest(self.drill_schedule.moments, now, self.timezone)

    def export_due(self, now: int) -> int | None:
        """Return the last moment at which it should have been exported, like `last_due`."""
        return latest(self.export_schedule.moments, now, self.timezone)


@dataclass(frozen=True)
class Fault:
    """Something wrong in the policies, and where."""

    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


class InvalidPolicies(InvalidInput):
    """The policies cannot be used. ``faults`` holds all there is to correct."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("use these policies", "; ".join(map(str, self.faults)), "correct all of them and try again")


def parse_policies(data: Any) -> list[Policy]:
    """Return the policies in ``{"policies": [...]}``.

    Raises InvalidPolicies, which names every fault of all of them.
    """
    faults: list[Fault] = []
    top = _Reader("the file", data, faults)
    top.only(("policies",), prefix="")
    found = []
    names: dict[str, str] = {}
    for number, raw in enumerate(top.sequence("policies", place="policies")):
        place = f"policies[{number}]"
        policy = _policy(_Reader(place, raw, faults))
        name = raw.get("name") if isinstance(raw, Mapping) else None
        if isinstance(name, str) and names.setdefault(name, place) != place:
            faults.append(Fault(f"{place}.name", f"{names[name]} is called {name!r} already"))
        if policy is not None:
            found.append(policy)
    if faults:
        raise InvalidPolicies(faults)
    return found


class _Reader:
    """Reads the keys of one mapping, and notes what is wrong with them."""

    def __init__(self, place: str, data: Any, faults: list[Fault]) -> None:
        self.place = place
        self.faults = faults
        self.data: Mapping[Any, Any] = data if isinstance(data, Mapping) else {}
        self.sound = isinstance(data, Mapping)
        if not self.sound:
            self.fault("", f"it is {_kind(data)}, and has to be a mapping")

    def at(self, key: str) -> str:
        return ".".join(each for each in (self.place, key) if each)

    def fault(self, key: str, reason: str) -> None:
        self.faults.append(Fault(self.at(key), reason))

    def only(self, keys: Sequence[str], prefix: str | None = None) -> None:
        """Note every key that is not among these, with the nearest one that is."""
        for key in self.data:
            if key not in keys:
                place = self.at(str(key)) if prefix is None else f"{prefix}{key}"
                self.faults.append(Fault(place, f"there is no such key; {_nearest(str(key), keys)}"))

    def get(self, key: str, kind: type | tuple[type, ...], default: Any, words: str) -> Any:
        """Return a value of that kind, or the default where it is missing, None or wrong."""
        value = self.data.get(key)
        if value is None:
            return default
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.fault(key, f"it is {_kind(value)}, and has to be {words}")
            return default
        return value

    def sequence(self, key: str, place: str | None = None) -> list[Any]:
        """Return a list that has to be there and to hold something."""
        value = self.data.get(key)
        if isinstance(value, list) and value:
            return value
        if self.sound:
            reason = "it is missing" if value is None else "it has to be a list with something in it"
            self.faults.append(Fault(place or self.at(key), reason))
        return []

    def texts(self, key: str, one_is_enough: bool = True) -> tuple[str, ...]:
        """Return a list of texts; a single text counts as one."""
        value = self.data.get(key)
        if value is None:
            return ()
        if isinstance(value, str) and one_is_enough:
            value = [value]
        if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
            self.fault(key, "it has to be a list of texts, none of them empty")
            return ()
        return tuple(value)

    def tried(self, key: str, call: Callable[[], Any]) -> Any:
        """Return what a call of the core returns, or None and a fault in its words."""
        try:
            return call()
        except RestorePointError as error:
            self.fault(key, f"{error.reason}; {error.remedy}")
            return None


def _kind(value: Any) -> str:
    names = {"dict": "a mapping", "list": "a list", "str": "a text", "bool": "true or false", "NoneType": "empty"}
    return names.get(type(value).__name__, "a number")


def _nearest(word: str, known: Sequence[str]) -> str:
    import difflib  # only where something is wrong

    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"the keys are {', '.join(known)}"


def _policy(read: _Reader) -> Policy | None:
    before = len(read.faults)
    read.only(_POLICY_KEYS)
    name = read.get("name", str, "", "a text")
    if read.sound and not name:
        read.fault("name", "it is missing")
    elif name == "manual":
        read.fault("name", "manual is the owner of what is taken by hand; choose another name")
    elif name:
        read.tried("name", lambda: check_owner(name))
    timezone = read.get("timezone", str, "UTC", "the name of a time zone")
    schedule = _schedule(read, "schedule", "leave it out for a policy that is run by hand")
    targets = _targets(read)
    retention = _retention(read, timezone)
    policy = Policy(
        name=name,
        targets=targets,
        retention=retention or RetentionPolicy(),
        description=read.get("description", str, "", "a text"),
        calendar=schedule.calendar,
        cron=schedule.cron,
        moments=schedule.moments,
        timezone=timezone,
        match=read.texts("match"),
        only_if_changed=read.get("only_if_changed", bool, False, "true or false"),
        hooks=_hooks(read, targets),
        labels=_labels(read),
        drill=_drill(read, targets),
        exports=_exports(read, targets, timezone),
        drill_schedule=_schedule_of(read, "drill"),
        export_schedule=_schedule_of(read, "export"),
    )
    return policy if len(read.faults) == before else None


def _schedule(read: _Reader, name: str, remedy: str) -> Schedule:
    data = read.data.get(name)
    if data is None:
        return Schedule()
    inner = _Reader(read.at(name), data, read.faults)
    inner.only(("calendar", "cron"))
    calendar, cron = inner.texts("calendar"), inner.texts("cron")
    moments = []
    for key, texts, parse in (("calendar", calendar, parse_calendar), ("cron", cron, parse_cron)):
        for number, text in enumerate(texts):
            found = inner.tried(f"{key}[{number}]", functools.partial(parse, text))
            moments += [found] if found is not None else []
    if inner.sound and not inner.data:
        inner.fault("", f"it has neither calendar nor cron; {remedy}")
    return Schedule(calendar, cron, tuple(moments))


def _schedule_of(read: _Reader, what: str) -> Schedule:
    """Return when a policy is drilled or exported; that it has the key for it is looked at as well."""
    name = f"{what}_schedule"
    # A drill without rules has the defaults; an export without a destination has nothing to do.
    missing = read.data.get(what) is None or (what == "export" and not read.data.get(what))
    if read.data.get(name) is not None and missing:
        read.fault(name, f"the policy has no key {what}, so there is nothing to be done at these moments")
    return _schedule(read, name, f"leave it out where `restorepoint {what}` is started by something else")


def _retention(read: _Reader, timezone: str) -> RetentionPolicy | None:
    keep = read.data.get("keep")
    if keep is not None:
        inner = _Reader(read.at("keep"), keep, read.faults)
        inner.only(tuple(KEEP_SPEC["keep"]["options"]))
        if not inner.sound:
            return None
        keep = {key: value for key, value in inner.data.items() if key in KEEP_SPEC["keep"]["options"]}
    found: RetentionPolicy | None = None
    keys = ("keep", "timezone", "min_keep", "min_age", "max_delete", "require_recent")
    given = {
        "keep": keep, "timezone": timezone,
        **{key: read.data[key] for key in keys[2:] if read.data.get(key) is not None},
    }  # fmt: skip
    # One after the other, so that each fault has its place.
    for key in keys:
        values = {key: given[key]} if key in given else {}
        parts = [{"keep": {rule: value}} for rule, value in (keep or {}).items()] if key == "keep" else [values]
        for part in parts:
            rule = next(iter(part["keep"])) if key == "keep" else None
            read.tried(f"keep.{rule}" if rule else key, functools.partial(_try_rule, part))
    if not any(fault.place.startswith(read.at("")) and _about_keeping(fault.place) for fault in read.faults):
        found = read.tried("keep", lambda: parse_policy(**given))
    return found


def _try_rule(part: Mapping[str, Any]) -> RetentionPolicy:
    return parse_policy(**{"keep": None, **part})


def _about_keeping(place: str) -> bool:
    return any(
        f".{key}" in place for key in ("keep", "timezone", "min_keep", "min_age", "max_delete", "require_recent")
    )


def _labels(read: _Reader) -> dict[str, str]:
    labels = read.get("labels", Mapping, {}, "a mapping")
    wrong = [key for key, value in labels.items() if not isinstance(key, str) or isinstance(value, (dict, list))]
    for key in wrong:
        read.fault(f"labels.{key}", "a label is a name and a text")
    return {key: str(value) for key, value in labels.items() if key not in wrong}


def _drill(read: _Reader, targets: Sequence[Target]) -> DrillRules | None:
    data = read.data.get("drill")
    if data is None:
        return None
    return parse_drill(_Reader(read.at("drill"), data, read.faults), [each.backend for each in targets])


# -- targets -----------------------------------------------------------------------------------------------------------


def parse_targets(raw: Any, more: Mapping[str, Sequence[str]]) -> tuple[Target, ...]:
    """Return the targets of a list like that of a policy; ``more`` are options of each backend beside a policy's.

    Raises InvalidInput, which names every fault.
    """
    faults: list[Fault] = []
    found = _targets(_Reader("", {"targets": raw}, faults), more)
    if faults:
        raise InvalidInput("use these targets", "; ".join(map(str, faults)), "correct all of them and try again")
    return found


def _targets(read: _Reader, more: Mapping[str, Sequence[str]] | None = None) -> tuple[Target, ...]:
    found: list[Target] = []
    first: dict[Any, int] = {}
    for number, raw in enumerate(read.sequence("targets")):
        inner = _Reader(read.at(f"targets[{number}]"), raw, read.faults)
        target = _target(inner, more or {})
        if target is None:
            continue
        for lock, where in _locks(target).items():
            if first.setdefault(lock, number) != number:
                named = "pvc" if target.backend == "csi" else TARGET_OPTION[target.backend]
                inner.fault("", f"targets[{first[lock]}] is of {where} already; name all of them in its {named}, "
                                "or make another policy for other options")  # fmt: skip
        found.append(target)
    return tuple(found)


def _locks(target: Target) -> dict[tuple[str, Any], str]:
    """Return what only one entry of a policy may be of, each with words.

    Two sessions of one lock would wait for each other, and one claim has one snapshot of a name.
    """
    if target.backend == "csi":
        return {("csi", each): f"csi and namespace {each}" for each in target.params["namespace"]}
    store = target.params.get("store")
    return {(target.backend, store): f"{target.backend} and this store" if store else target.backend}


def _target(read: _Reader, more: Mapping[str, Sequence[str]]) -> Target | None:
    before = len(read.faults)
    backend = read.get("backend", str, "", "a text")
    if backend not in _OPTIONS:
        if read.sound:
            known = ", ".join(_OPTIONS)
            why = f"there is no backend {backend!r}" if backend else "it is missing"
            read.fault("backend", f"{why}; there are {known}")
        return None
    options = (*_OPTIONS[backend], *more.get(backend, ()))
    read.only(("backend", *options))
    params = {}
    for option, spec in specification(backend).items():
        params[option] = _option(read, option, spec, options)
    named = TARGET_OPTION[backend]
    others = {"hostpath": ("namespace",), "pve": getattr(engine(backend), "SELECTORS", ())}.get(backend, ())
    if not read.data.get(named) and not any(read.data.get(other) for other in others):
        read.fault(named, "it is missing")
    if backend in _CLAIMS:
        _check_claims(read)
    return Target(backend, params) if len(read.faults) == before and _meant(read, backend, params) else None


def _check_claims(read: _Reader) -> None:
    """Note where claims are named in a way that has two meanings, or none."""
    given = {key for key in ("path", "namespace", "pvc", "selector") if read.data.get(key)}
    if {"path", "namespace"} <= given:
        read.fault("namespace", "path names the directories already; give one of the two")
    if {"pvc", "selector"} <= given:
        read.fault("selector", "pvc names the claims already; give one of the two")
    for key in sorted(given & {"pvc", "selector"} if "namespace" not in given else ()):
        read.fault(key, "it lacks namespace, in which the claims are")


def _meant(read: _Reader, backend: str, params: Mapping[str, Any]) -> bool:
    """Let the backend's own reader object, such as to a size that is none. It touches no storage."""
    module = engine(backend)
    made = read.tried("", lambda: getattr(module, "unasked", module.backend_of)(params, lambda: 0))
    return made is not None


def engine(backend: str) -> Any:
    """Return the module of the engine for a backend. Imported only where it is needed: it is most of a start."""
    import importlib

    return importlib.import_module(f".{backend}", __package__)


def specification(backend: str) -> dict[str, Any]:
    """Return the options of a backend's module, as AnsibleModule takes them."""
    module = engine(backend)
    return {**module.TARGET_SPEC, **module.OPTION_SPEC, **getattr(module, "CLAIM_SPEC", {})}


def _option(read: _Reader, option: str, spec: Mapping[str, Any], known: Sequence[str]) -> Any:
    waits = option == "lock_timeout" and read.data["backend"] != "pve"  # there it is the guest's own lock
    default = PATIENCE if waits else spec.get("default")
    if option not in known or read.data.get(option) is None:
        if spec.get("required") and option != TARGET_OPTION[read.data["backend"]]:
            read.fault(option, "it is missing")
        return default
    if spec["type"] == "list":
        return list(read.texts(option))
    kinds: dict[str, tuple[type | tuple[type, ...], str]] = {
        "str": ((str, int), "a text"),
        "path": (str, "a path"),
        "int": (int, "a whole number"),
        "bool": (bool, "true or false"),
    }
    value = read.get(option, *_with_default(kinds[spec["type"]], default))
    if "choices" in spec and value not in spec["choices"]:
        read.fault(option, f"{value!r} is none of {', '.join(spec['choices'])}")
    return str(value) if spec["type"] == "str" and value is not None else value


def _with_default(kind: tuple[Any, str], default: Any) -> tuple[Any, Any, str]:
    return kind[0], default, kind[1]


# -- hooks -------------------------------------------------------------------------------------------------------------


def _hooks(read: _Reader, targets: Sequence[Target]) -> tuple[Hook, ...]:
    raw = read.get("hooks", list, [], "a list")
    found = [
        _hook(_Reader(read.at(f"hooks[{number}]"), each, read.faults), number, targets)
        for number, each in enumerate(raw)
    ]
    return tuple(found)


def _hook(read: _Reader, number: int, targets: Sequence[Target]) -> Hook:
    kind = read.get("kind", str, "", "a text")
    if kind not in _HOOK_KEYS:
        if read.sound:
            read.fault("kind", f"there is no hook {kind!r}; there are {', '.join(_HOOK_KEYS)}")
        return Hook(kind, "", 0)
    read.only(_HOOK_KEYS[kind])
    text = read.get("timeout", str, _HOOK_TIMEOUT, "a duration such as 60s")
    timeout = read.tried("timeout", lambda: parse_duration(text, "timeout"))
    if timeout == 0:
        read.fault("timeout", "a hook needs some time; write 1s or more")
    hook = Hook(
        kind=kind,
        name=read.get("name", str, f"{kind} {number}", "a text"),
        timeout=timeout or 0,
        before=read.texts("before", one_is_enough=False),
        after=read.texts("after", one_is_enough=False),
        path=read.get("path", str, "", "a path"),
        params=_hook_params(read, hook_kinds.KINDS.get(kind, {})),
    )
    if kind == "command" and not read.data.get("before") and not read.data.get("after"):
        read.fault("", "it has neither before nor after; each is a program with its arguments, as a list")
    if kind == "fsfreeze":
        _check_freeze(read, hook, targets)
    return hook


def _hook_params(read: _Reader, keys: Mapping[str, hook_kinds.Key]) -> dict[str, Any]:
    values = {name: read.get(name, key.kind, key.default, key.words) for name, key in keys.items()}
    for name, reason in hook_kinds.faults(values, keys):
        read.fault(name, reason)
    return values


def _check_freeze(read: _Reader, hook: Hook, targets: Sequence[Target]) -> None:
    if not hook.path.startswith("/"):
        read.fault("path", "it has to be the absolute path of a directory on the filesystem that is to be frozen")
    if any(target.backend == "lvm" for target in targets):
        read.fault("kind", "fsfreeze and LVM lock each other out: lvcreate freezes the filesystem by itself; "
                           "quiesce the application with a command instead")  # fmt: skip
    if any(target.backend == "btrfs" for target in targets):
        read.fault("kind", "a snapshot of Btrfs is written to the filesystem that would be frozen; "
                           "quiesce the application with a command instead")  # fmt: skip


# -- exports -----------------------------------------------------------------------------------------------------------


def _exports(read: _Reader, targets: Sequence[Target], timezone: str) -> tuple[Destination, ...]:
    raw = read.get("export", list, [], "a list")
    readers = [_Reader(read.at(f"export[{number}]"), each, read.faults) for number, each in enumerate(raw)]
    # A time zone that is none is the policy's fault, and told once.
    known = timezone if read.at("timezone") not in [each.place for each in read.faults] else "UTC"
    backends = [target.backend for target in targets]
    return exports.destinations(readers, backends, functools.partial(_retention, timezone=known))
