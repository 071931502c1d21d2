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


def proof(content: bytes) -> bytes:
    """Return four bytes that tell whether content is whole."""
    return zlib.crc32(content).to_bytes(4, "big")


def packed(codes: dict[str, tuple[bool, bytes]]) -> bytes:
    """Return what is kept of code: of each module whether it is a package, and its code.

    An index stands before the code, so that a start reads of it only what it needs. Each part has its own proof.
    """
    index, place, parts = {}, 0, []
    for name, (package, code) in codes.items():
        index[name] = (package, place, len(code), proof(code))
        parts.append(code)
        place += len(code)
    head = marshal.dumps(index)
    return b"".join([MAGIC, len(head).to_bytes(4, "big"), proof(head), head, *parts])


class Compiled:
    """Imports modules from code that is kept in an open file. ``archive`` is the file that it was made of.

    Raises OSError, ValueError, EOFError, TypeError where there is none, or it is not whole.
    """

    def __init__(self, folder: str, build: str, archive: str) -> None:
        path = place(folder, build)
        parts = ((folder, stat.S_IFDIR), (os.path.dirname(path), stat.S_IFDIR), (path, stat.S_IFREG))
        if not all(own(*part) for part in parts):
            raise ValueError("others can change it")
        self._archive = archive
        self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        start = len(MAGIC) + 8
        begin = os.pread(self._fd, start, 0)
        size = int.from_bytes(begin[-8:-4], "big")
        head = os.pread(self._fd, size, start)
        if begin[: len(MAGIC)] != MAGIC or proof(head) != begin[-4:]:
            raise ValueError("it is not whole")
        self._index: dict[str, tuple[bool, int, int, bytes]] = marshal.loads(head)
        self._first = start + size

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return the spec of a module whose code is kept, and whole."""
        if name not in self._index:
            return None
        package, where, size, crc = self._index[name]
        try:
            code = os.pread(self._fd, size, self._first + where)
        except OSError:  # the watchdog of hooks closes what is not its own
            return None
        if proof(code) != crc:
            return None
        spec = ModuleSpec(name, self, origin=self._archive, loader_state=code, is_package=package)  # type: ignore[arg-type]
        if package:
            # What is not whole here is found in the archive.
            spec.submodule_search_locations = [os.path.join(self._archive, *name.split("."))]
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill a module."""
        spec = module.__spec__
        if spec is not None:
            code, spec.loader_state = spec.loader_state, None
            exec(marshal.loads(code), module.__dict__)


def begin(build: str) -> int:
    """Run the agent; return its exit code. Where it has run on this host before, its code is kept for the next time."""
    archive = sys.path[0]
    folder = state_folder(sys.argv[1:])
    kept = True
    try:
        sys.meta_path.insert(0, Compiled(folder, build, archive))
    except (OSError, ValueError, EOFError, TypeError):
        kept = False
        importlib.import_module("restorepoint.compiled_once")
    ran_before = not kept and os.path.exists(os.path.join(folder, "journal.jsonl"))
    code: int = importlib.import_module("restorepoint.agent.cli").main()
    if ran_before:
        importlib.import_module("restorepoint.agent.compiled").keep(folder, build, archive)
    return code
