# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fetches Kubernetes manifests, from files or URLs, and holds them to their checksums. Called by the layout modules.

May import ansible and what lies below.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.module_utils.urls import open_url

from ..core.errors import InvalidInput, ToolError

#: Seconds to wait for an answer of a server of manifests, and the most that a manifest may hold (bytes).
_FETCH_SECONDS = 30
_LARGEST = 8_000_000
#: The option by which manifests are named.
SPEC: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {"source": {"type": "str", "required": True}, "sha256": {"type": "str"}},
}


def sources_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the SHA-256 sum of each source: as given, of a file as it is. Raises InvalidInput, ToolError."""
    found: dict[str, str] = {}
    for row in rows:
        source, given = row["source"], (row["sha256"] or "").lower()
        attempt = f"read the manifest {source}"
        if source in found:
            raise InvalidInput(attempt, "it is named twice", "name it once")
        if given and (len(given) != 64 or set(given) - set("0123456789abcdef")):
            raise InvalidInput(attempt, f"{given!r} is no SHA-256 sum", "give the 64 digits that sha256sum prints")
        if _is_url(source):
            if not given:
                raise InvalidInput(attempt, "it is a URL without sha256", "give the sum of the file you have looked at")
            found[source] = given
            continue
        if not os.path.isabs(source):
            raise InvalidInput(attempt, "it is neither an absolute path nor a URL", "give one of the two")
        found[source] = hashlib.sha256(_checked(source, _read_file(source), given)).hexdigest()
    return found


def _is_url(source: str) -> bool:
    return source.startswith(("https://", "http://"))


def _checked(source: str, data: bytes, sha256: str) -> bytes:
    is_ = hashlib.sha256(data).hexdigest()
    if sha256 and is_ != sha256:
        raise ToolError(
            f"take the manifest {source}", f"its SHA-256 sum is {is_}, not {sha256}",
            "look at what is in it before you trust it, and correct sha256",
        )  # fmt: skip
    return data


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(_LARGEST)
    except OSError as error:
        words = error.strerror or str(error)
        raise InvalidInput(f"read the manifest {path}", words, "name a file on the host that runs the module") from None


def _download(url: str) -> bytes:
    try:
        with open_url(url, timeout=_FETCH_SECONDS, http_agent="restorepoint.core") as answer:
            data: bytes = answer.read(_LARGEST)
            return data
    except Exception as error:  # urllib, ssl and Ansible each have their own
        raise ToolError(
            f"download the manifest {url}", " ".join(str(error).split()),
            "see that this host reaches it, or name a copy under manifests",
        ) from None  # fmt: skip


def documents_of(sources: Mapping[str, str], downloads: list[str]) -> list[Any]:
    """Return all documents; add to ``downloads`` the URLs that were downloaded. Raises InvalidInput, ToolError."""
    yaml = importlib.import_module("yaml")
    documents: list[Any] = []
    for source, sha256 in sources.items():
        data = _checked(source, _download(source) if _is_url(source) else _read_file(source), sha256)
        if _is_url(source):
            downloads.append(source)
        try:
            documents += yaml.safe_load_all(data)
        except yaml.YAMLError as error:
            words = " ".join(str(error).split())
            raise InvalidInput(f"read the manifest {source}", words, "name a file of YAML") from None
    return documents
