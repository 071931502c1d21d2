# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds the agent: the engine of this collection as one file, ``restorepoint.pyz``, the same to the byte each time.

It holds the layers core, backends, engine, agent and the doors, and prometheus_client; a bare Python 3.9 runs it. Every
file has the same date and mode, and they stand in the order of their names, so that only content makes a difference.
It reads the collection that it lies in, so it works on the control node only: an installed collection, or a checkout.
Called by the action agent_file, and by tools/agent.py.
"""

from __future__ import annotations

import hashlib
import io
import pathlib
import zipfile
from collections.abc import Iterator

from ..core.errors import StoreError
from . import agent_libraries

ENGINE = pathlib.Path(__file__).resolve().parents[1]
#: The licence goes with the agent.
LICENCE = ENGINE.parents[1] / "LICENSES" / "GPL-3.0-or-later.txt"
#: What of module_utils a host needs: not what only Ansible uses.
LEFT_OUT = ("bridge", "setup", "__pycache__")
#: So much fits into a ConfigMap of Kubernetes, in base64 and beside other things.
MAX_BYTES = 700 * 1024
_SHEBANG = b"#!/usr/bin/env python3\n"
_DATE = (1980, 1, 1, 0, 0, 0)
#: How the file begins, and what is put behind it. The number of the build tells compiled code of one from another's.
_START = "agent/start.py"
_BEGIN = '\n\nif __name__ == "__main__":\n    sys.exit(begin("{build}"))\n'


def sources() -> Iterator[tuple[str, bytes]]:
    """Yield the name in the archive and the content of each file, in order. Raises OSError, RestorePointError."""
    parts = list(_parts())
    digest = hashlib.sha256()
    for name, content in parts:
        digest.update(f"{name} {len(content)}\n".encode() + content)
    begin = _BEGIN.format(build=digest.hexdigest()[:32])
    yield "__main__.py", (ENGINE / _START).read_bytes() + begin.encode()
    yield from parts


def _parts() -> Iterator[tuple[str, bytes]]:
    for path in sorted(ENGINE.rglob("*.py"), key=lambda path: path.relative_to(ENGINE).as_posix()):
        inside = path.relative_to(ENGINE)
        if not set(inside.parts) & set(LEFT_OUT):
            yield f"restorepoint/{inside.as_posix()}", path.read_bytes()
    yield from agent_libraries.files()
    yield "restorepoint/COPYING", LICENCE.read_bytes()


def agent_bytes() -> bytes:
    """Return the agent as a file has it. Raises RestorePointError where that cannot be."""
    attempt = "build the agent"
    stream = io.BytesIO(_SHEBANG)
    stream.seek(0, io.SEEK_END)
    try:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, content in sources():
                entry = zipfile.ZipInfo(name, _DATE)
                entry.create_system = 3
                entry.external_attr = 0o100644 << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, content, compresslevel=9)
    except OSError as error:
        raise StoreError(attempt, f"{error.filename}: {error.strerror}", "install the collection again") from error
    built = stream.getvalue()
    if len(built) > MAX_BYTES:
        reason = f"it has {len(built)} bytes, more than the {MAX_BYTES} that fit into a ConfigMap"
        raise StoreError(attempt, reason, "leave something out")
    return built
