# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeps the agent's compiled code in the state folder, for its next start. Called by `start`."""

from __future__ import annotations

import contextlib
import marshal
import os
import stat
import zipfile

from .. import whole_file
from . import start


def keep(folder: str, build: str, archive: str) -> None:
    """Compile what is in the agent's file, and keep it, in place of what other builds have left.

    It does so only in a folder that is this user's alone. A failure changes nothing: it is for speed only.
    """
    with contextlib.suppress(OSError, zipfile.BadZipFile):
        if not start.own(folder, stat.S_IFDIR):
            return
        path = start.place(folder, build)
        inside = os.path.dirname(path)
        os.makedirs(inside, mode=0o700, exist_ok=True)
        if not start.own(inside, stat.S_IFDIR):
            return
        codes = compiled(archive, build)
        if not codes:
            return
        whole_file.put(path, start.packed(codes), 0o600, f"{path}.{os.getpid()}")
        for name in os.listdir(inside):
            if not name.startswith(f"{build}-"):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(inside, name))


def compiled(archive: str, build: str) -> dict[str, tuple[bool, bytes]]:
    """Return the code of each module in the agent's file, by its name, and whether it is a package.

    {} where another build lies there by now.
    """
    found = {}
    with zipfile.ZipFile(archive) as opened:
        if build.encode() not in opened.read("__main__.py"):
            return {}
        for name in opened.namelist():
            if name.endswith(".py") and name != "__main__.py":
                package = name.endswith("/__init__.py")
                module = (name[: -len("/__init__.py")] if package else name[:-3]).replace("/", ".")
                code = compile(opened.read(name), os.path.join(archive, name), "exec", dont_inherit=True)
                found[module] = (package, marshal.dumps(code))
    return found
