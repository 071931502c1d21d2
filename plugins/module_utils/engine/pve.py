# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options by which guests of Proxmox VE are named in policies, and the backend that they mean.

Passwords and secrets stand in a file of their own, or in the environment, and are read when the policy runs. Called by
the agent; the module pve_snapshot has its options in the bridge.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Callable

from .. import secret_files
from ..backends.pve.backend import PveBackend, PveOptions
from ..backends.pve.guests import Selection, words
from ..core.errors import InvalidInput
from ..pve import CONNECT, Connection, PveshTransport, Transport
from ..pve_http import PlainTransport

TARGET_SPEC: dict[str, Any] = {
    "vmid": {"type": "list", "elements": "str"},
    "guest": {"type": "list", "elements": "str"},
    "tags": {"type": "list", "elements": "str"},
    "pool": {"type": "list", "elements": "str"},
    "node": {"type": "list", "elements": "str"},
    "type": {"type": "str", "choices": ["qemu", "lxc"]},
    "status": {"type": "str", "choices": ["running", "stopped"]},
    "exclude": {"type": "list", "elements": "str"},
    "transport": {"type": "str", "choices": ["https", "pvesh"], "default": "https"},
    "api_host": {"type": "str"},
    "api_port": {"type": "int"},
    "api_user": {"type": "str"},
    "credentials_file": {"type": "path"},
    "api_password": {"type": "str", "no_log": True},
    "api_token_id": {"type": "str"},
    "api_token_secret": {"type": "str", "no_log": True},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "api_timeout": {"type": "int", "default": 30},
}

OPTION_SPEC: dict[str, Any] = {
    "vmstate": {"type": "bool", "default": False},
    "start": {"type": "bool", "default": False},
    "parallel": {"type": "int", "default": 8},
    "timeout": {"type": "int", "default": 3600},
    "lock_timeout": {"type": "int", "default": 60},
}

#: Options of which one has to say which guests are meant.
SELECTORS = ("vmid", "guest", "tags", "pool", "node", "type", "status")
#: Options that lift blockers.
LIFTING = ("destroy_newer",)
#: What a file of credentials may hold, and the variables of the environment that say the same.
SECRETS = {
    "api_user": "PROXMOX_USER",
    "api_password": "PROXMOX_PASSWORD",
    "api_token_id": "PROXMOX_TOKEN_ID",
    "api_token_secret": "PROXMOX_TOKEN_SECRET",
}


def backend_of(
    params: Mapping[str, Any], now: Callable[[], int], report: Callable[..., None] | None = None
) -> PveBackend:
    """Return the backend that the options mean. ``now`` gives seconds since the epoch. Raises InvalidInput."""
    if not any(params[option] for option in SELECTORS):
        raise InvalidInput("find the targets", "no guest is named", f"give one of {', '.join(SELECTORS)}")
    if params["transport"] == "https" and not params["api_host"]:
        raise InvalidInput(CONNECT, "api_host is not set", "set it, or transport: pvesh on a node")
    for option in ("parallel", "timeout", "api_timeout", "lock_timeout"):
        least = 0 if option == "lock_timeout" else 1
        if params[option] < least:
            raise InvalidInput(f"read {option}: {params[option]}", "that is too little", f"give {least} or more")
    lists = ("vmid", "guest", "tags", "pool", "node", "exclude")
    chosen: dict[str, Any] = {name: words(params[name]) for name in lists}
    selection = Selection(type=params["type"] or None, status=params["status"] or None, **chosen)

    def step(stage: str, fields: Mapping[str, Any]) -> None:
        if report is not None:
            report(stage, fields, always=True)

    options = PveOptions(
        vmstate=params["vmstate"],
        start=params["start"],
        can_unlock=params["transport"] == "pvesh" or params["api_user"] == "root@pam",
        parallel=params["parallel"],
        lock_timeout=float(params["lock_timeout"]),
        timeout=float(params["timeout"]),
        api_timeout=float(params["api_timeout"]),
        progress=step if report is not None else None,
    )
    return PveBackend(lambda: _connect(params), selection, options, now)


def _connect(params: Mapping[str, Any]) -> Transport:
    """Log in. Raises InvalidInput, PveError."""
    if params["transport"] == "pvesh":
        return PveshTransport()
    given = {key: params[key] for key in SECRETS if params.get(key)}
    secrets = {**({} if given.keys() - {"api_user"} else _secrets(params["credentials_file"])), **given}
    token = secrets.get("api_token_id") or ""
    user = params["api_user"] or secrets.get("api_user") or token.partition("!")[0]
    attempt = f"{CONNECT} of {params['api_host']}"
    if not user:
        raise InvalidInput(attempt, "nobody says as whom", "set api_user, or a token with its user")
    if not token and not secrets.get("api_password"):
        # A policy cannot have them itself.
        remedy = "write one into a file that credentials_file names, or set PROXMOX_TOKEN_ID and PROXMOX_TOKEN_SECRET"
        raise InvalidInput(attempt, "there is neither a password nor a token", remedy)
    return PlainTransport(
        Connection(
            host=params["api_host"],
            port=params["api_port"],
            user=user,
            password=secrets.get("api_password"),
            token_id=token or None,
            token_secret=secrets.get("api_token_secret"),
            validate_certs=params["validate_certs"],
            ca_path=params["ca_path"],
            timeout=float(params["api_timeout"]),
        )
    )


def _secrets(path: str | None) -> dict[str, str]:
    """Return what the file of credentials says, or the environment where there is no file."""
    if not path:
        found = {key: os.environ.get(variable, "") for key, variable in SECRETS.items()}
        return {key: value for key, value in found.items() if value}
    remedy = f"write it as a JSON mapping of some of {', '.join(SECRETS)} to texts"
    text = secret_files.read(path, CONNECT)
    try:
        told = json.loads(text)
    except ValueError:
        raise InvalidInput(CONNECT, f"{path} is no JSON", remedy) from None  # the error would show a part of it
    if not isinstance(told, dict) or not all(isinstance(each, str) for each in told.values()):
        raise InvalidInput(CONNECT, f"{path} is no mapping of texts", remedy)
    unknown = sorted(set(told) - set(SECRETS))
    if unknown:
        raise InvalidInput(CONNECT, f"{path} has {', '.join(unknown)}, which is not known", remedy)
    return told
