# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of pve_snapshot and pve_snapshot_info, and what they mean. Called by those modules.

Names and environment variables of the connection are those of the community.proxmox collection, so that its playbooks
need little change. May import ansible and what lies below.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.parameters import env_fallback

from ..audit import AuditLog
from ..backends.pve.backend import PveBackend, PveOptions
from ..backends.pve.guests import Selection, words
from ..backends.pve.info import describe, guest_result
from ..core.backend import Backend, Desired
from ..core.errors import InvalidInput
from ..engine.desired import desired_state
from ..engine.spec import ASIDES_SPEC, KEEP_SPEC, SNAPSHOT_SPEC
from ..pve import CONNECT, Connection, HttpsTransport, PveshTransport, Transport
from .module import StateModule, now
from .showing import show
from .spec import FIELDS_SPEC, REQUIRED_IF


def _option(*variables: str, **spec: Any) -> dict[str, Any]:
    """Return an option that falls back to the first of the environment variables ``PROXMOX_*`` that is set."""
    return {"type": "str", "fallback": (env_fallback, [f"PROXMOX_{variable}" for variable in variables]), **spec}


CONNECTION_SPEC: dict[str, Any] = {
    "transport": {"type": "str", "choices": ["https", "pvesh"], "default": "https"},
    "api_host": _option("HOST"),
    "api_port": _option("PORT", type="int"),
    "api_user": _option("USER"),
    "api_password": _option("PASSWORD", no_log=True),
    "api_otp": _option("OTP", no_log=True),
    "api_token_id": _option("TOKEN_ID", no_log=False),
    "api_token_secret": _option("TOKEN_SECRET", no_log=True),
    "validate_certs": _option("VALIDATE_CERTS", type="bool", default=True),
    "ca_path": _option("CA_PATH", type="path"),
    "api_timeout": _option("API_TIMEOUT", type="int", default=30),
}

SELECTION_SPEC: dict[str, Any] = {
    "vmid": {"type": "list", "elements": "str"},
    "guest": {"type": "list", "elements": "str", "aliases": ["hostname"]},
    "tags": {"type": "list", "elements": "str"},
    "pool": {"type": "list", "elements": "str"},
    "node": {"type": "list", "elements": "str"},
    "type": {"type": "str", "choices": ["qemu", "lxc"]},
    "status": {"type": "str", "choices": ["running", "stopped"]},
    "exclude": {"type": "list", "elements": "str"},
    "select": {"type": "str"},
    "allow_none": {"type": "bool", "default": False},
    "parallel": {"type": "int", "default": 8},
    "timeout": {"type": "int", "default": 3600},
}
#: One of these has to be given where something is changed.
SELECTORS = ("vmid", "guest", "tags", "pool", "node", "type", "status", "select")

STATE_SPEC: dict[str, Any] = {
    **CONNECTION_SPEC,
    **SELECTION_SPEC,
    **SNAPSHOT_SPEC,
    **KEEP_SPEC,
    **ASIDES_SPEC,
    "name": {"type": "str", "aliases": ["snapname"]},
    "state": {"type": "str", "choices": ["present", "absent", "rolled_back", "pruned"], "default": "present"},
    "vmstate": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
    "start": {"type": "bool", "default": False},
    "destroy_newer": {"type": "bool", "default": False},
    "keep_current": {"type": "bool", "default": False},
    "once": {"type": "str"},
    "only_if_current_parent": {"type": "bool", "default": False},
    "lock_timeout": {"type": "int", "default": 60},
    "repair": {"type": "bool", "default": False},
}

INFO_SPEC: dict[str, Any] = {
    **CONNECTION_SPEC,
    **SELECTION_SPEC,
    "name": {"type": "str", "aliases": ["snapname"]},
    "config": {"type": "bool", "default": False},
    "compare": {"type": "bool", "default": False},
    "text": {"type": "bool", "default": False},
    **FIELDS_SPEC,
}


class PveModule(StateModule):
    """Adds to the result which guests matched, and to each result which guest it is about."""

    def _reach(self, backend: Backend, desired: Desired, audit: AuditLog) -> None:
        if not isinstance(backend, PveBackend):
            raise TypeError("this module speaks to Proxmox VE")
        try:
            super()._reach(backend, desired, audit)
        finally:
            self._result["guests"] = [guest_result(guest) for guest in backend.guests.values()]
            self._result["api_calls"] = backend.calls
            for result in self._result["results"]:
                guest = backend.guests.get(result["target"])
                if guest is not None:
                    result.update(guest.facts())


def run_state() -> NoReturn:
    """Run pve_snapshot."""
    module = AnsibleModule(
        STATE_SPEC,
        supports_check_mode=True,
        required_one_of=[SELECTORS],
        required_if=REQUIRED_IF,
    )

    def make(params: Mapping[str, Any], report: Callable[..., None] | None) -> tuple[Backend, Desired]:
        desired = desired_state(params, {}, ())
        if desired.description is not None:
            desired = dataclasses.replace(desired, description=desired.description.rstrip("\n"))
        return PveBackend(_connect(params), _selection(params), _options(params, report), now), desired

    PveModule(module, make).run()


def run_info() -> NoReturn:
    """Run pve_snapshot_info."""
    module = AnsibleModule(INFO_SPEC, supports_check_mode=True)
    shows = {each: module.params[each] for each in ("name", "config", "compare", "text")}

    def look(params: Mapping[str, Any]) -> tuple[dict[str, Any], Sequence[str]]:
        backend = PveBackend(_connect(params), _selection(params), _options({**params, **_UNUSED}, None), now)
        backend.check(Desired(state="info"))
        result = describe(backend, **shows)
        return {**result, "api_calls": backend.calls}, backend.warnings

    show(module, look)


#: What pve_snapshot_info has no use for.
_UNUSED: dict[str, Any] = {
    "vmstate": False,
    "force": False,
    "start": False,
    "only_if_current_parent": False,
    "repair": False,
    "on_failure": "keep",
    "lock_timeout": 0,
}


def _selection(params: Mapping[str, Any]) -> Selection:
    lists = ("vmid", "guest", "tags", "pool", "node", "exclude")
    given: dict[str, Any] = {name: words(params[name]) for name in lists}
    given.update({name: params[name] or None for name in ("type", "status", "select")})
    return Selection(allow_none=params["allow_none"], **given)


def _options(params: Mapping[str, Any], report: Callable[..., None] | None) -> PveOptions:
    def step(stage: str, fields: Mapping[str, Any]) -> None:
        if report is not None:
            report(stage, fields, always=True)

    for option in ("lock_timeout", "timeout", "api_timeout"):
        if params[option] < 0:
            raise InvalidInput(f"read {option}: {params[option]}", "it is negative", "give 0 or more seconds")
    pvesh = params["transport"] == "pvesh"
    token = bool(params["api_token_id"])
    return PveOptions(
        vmstate=params["vmstate"],
        force=params["force"],
        start=params["start"],
        only_if_current_parent=params["only_if_current_parent"],
        repair=params["repair"],
        can_unlock=pvesh or (params["api_user"] == "root@pam" and not token),
        undoes=params["on_failure"] == "undo",
        parallel=params["parallel"],
        lock_timeout=float(params["lock_timeout"]),
        timeout=float(params["timeout"]),
        api_timeout=float(max(1, params["api_timeout"])),
        progress=step if report is not None else None,
    )


def _connect(params: Mapping[str, Any]) -> Callable[[], Transport]:
    """Return what logs in. Raises InvalidInput for a connection that cannot be meant."""
    if params["transport"] == "pvesh":
        return PveshTransport
    user = params["api_user"] or str(params["api_token_id"] or "").partition("!")[0]
    for option, value in (("api_host", params["api_host"]), ("api_user", user)):
        if not value:
            variable = option.replace("api_", "PROXMOX_").upper()
            raise InvalidInput(CONNECT, f"{option} is not set", f"set it, or {variable}, or transport: pvesh on a node")
    connection = Connection(
        host=params["api_host"],
        port=params["api_port"],
        user=user,
        password=params["api_password"],
        otp=params["api_otp"],
        token_id=params["api_token_id"],
        token_secret=params["api_token_secret"],
        validate_certs=params["validate_certs"],
        ca_path=params["ca_path"],
        timeout=float(params["api_timeout"]),
    )
    return lambda: HttpsTransport(connection)
