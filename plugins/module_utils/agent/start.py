# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the file restorepoint.pyz begins: its ``__main__``, and the code that `compiled` has kept for it.

Python compiles what it imports from an archive anew at every start, which is most of a start. So compiled code is kept
in the state folder, for one build of the agent and one Python. It is used only from folders and a file that nobody but
this user can write to, and only whole. Without it everything works, slower.

This file is compiled at every start: it is short, and imports next to nothing.
"""

from __future__ import annotations

import importlib
import marshal
import os
import stat
import sys
import zlib
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

#: What stands before the code: a word with the version of this form, and four bytes that prove it whole.
MAGIC = b"restorepoint code 1\n"
DEFAULT_STATE = "/var/lib/restorepoint"


def state_folder(argv: Sequence[str]) -> str:
    """Return the state folder that a command line means, so far as that can be told without reading all of it."""
    found = os.environ.get("RESTOREPOINT_STATE", DEFAULT_STATE)
    for number, word in enumerate(argv):
        if word == "--state":
            found = argv[number + 1] if argv[number + 1 :] else found
        elif word.startswith("--state="):
            found = word[8:]
    return found


def place(folder: str, build: str) -> str:
    """Return where the code of a build is kept for this Python."""
    return os.path.join(folder, "code", f"{build}-{sys.implementation.cache_tag}-{sys.flags.optimize}")


def own(path: str, kind: int) -> bool:
    """Say whether a path is of that kind (stat.S_IFDIR), and nobody but this user can change it."""
    found = os.lstat(path)
    return stat.S_IFMT(found.st_mode) == kind and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def kept(folder: str, build: str) -> dict[str, tuple[bool, bytes]]:
    """Return the code that is kept of a build: of each module whether it is a package, and its code. {} for none."""
    path = place(folder, build)
    try:
        parts = ((folder, stat.S_IFDIR), (os.path.dirname(path), stat.S_IFDIR), (path, stat.S_IFREG))
        if not all(own(*part) for part in parts):
            return {}
        with open(path, "rb") as stream:
            content = stream.read()
        start = len(MAGIC) + 4
        if content[: len(MAGIC)] != MAGIC or content[len(MAGIC) : start] != proof(content[start:]):
            return {}
        found: dict[str, tuple[bool, bytes]] = marshal.loads(content[start:])
        return found
    except (OSError, ValueError, EOFError, TypeError):
        return {}


def proof(content: bytes) -> bytes:
    """Return four bytes that tell whether content is whole."""
    return zlib.crc32(content).to_bytes(4, "big")


class Compiled:
    """Imports modules from code that is kept. ``archive`` is the file that it was made of."""

    def __init__(self, codes: dict[str, tuple[bool, bytes]], archive: str) -> None:
        self._codes = codes
        self._archive = archive

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return the spec of a module whose code is kept."""
        if name not in self._codes:
            return None
        return ModuleSpec(name, self, origin=self._archive, is_package=self._codes[name][0])  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill a module."""
        exec(marshal.loads(self._codes[module.__name__][1]), module.__dict__)


def begin(build: str) -> int:
    """Run the agent; return its exit code. Where it has run on this host before, its code is kept for the next time."""
    archive = sys.path[0]
    folder = state_folder(sys.argv[1:])
    codes = kept(folder, build)
    if codes:
        sys.meta_path.insert(0, Compiled(codes, archive))
    ran_before = not codes and os.path.exists(os.path.join(folder, "journal.jsonl"))
    code: int = importlib.import_module("restorepoint.agent.cli").main()
    if ran_before:
        importlib.import_module("restorepoint.agent.compiled").keep(folder, build, archive)
    return code
