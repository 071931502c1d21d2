# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lay out the collection where Ansible's tools want it: in ``ansible_collections/restorepoint/core``.

A checkout may lie in a folder of any name. What is staged is what git would take: files that are committed or new,
with their present content, and nothing that is ignored.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator

from environments import CACHE, CHECKOUT

INNER = pathlib.PurePath("ansible_collections", "restorepoint", "core")


def _files() -> list[str]:
    """Return the checkout's files, relative to it; from a tarball, which has no git, all of them."""
    listing = [
        "git",
        "-c",
        "safe.directory=*",
        "-C",
        str(CHECKOUT),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    if (CHECKOUT / ".git").exists():
        names = subprocess.run(listing, check=True, capture_output=True).stdout.decode().split("\0")
    else:
        names = [str(path.relative_to(CHECKOUT)) for path in CHECKOUT.rglob("*") if not path.is_dir()]
    return [name for name in names if name and os.path.lexists(CHECKOUT / name)]


@contextlib.contextmanager
def staged() -> Iterator[pathlib.Path]:
    """Give a fresh copy of the collection, in a tree of its own that is removed afterwards."""
    (CACHE / "stage").mkdir(parents=True, exist_ok=True)
    for left in (CACHE / "stage").iterdir():  # by runs that were killed
        if time.time() - left.stat().st_mtime > 86400:
            shutil.rmtree(left, ignore_errors=True)
    root = pathlib.Path(tempfile.mkdtemp(dir=CACHE / "stage"))
    try:
        for name in _files():
            target = root / INNER / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target, follow_symlinks=False)
        yield root / INNER
    finally:
        shutil.rmtree(root, ignore_errors=True)


def linked() -> pathlib.Path:
    """Return the top of a lasting tree in which the collection is a link to the checkout: for pytest and mypy."""
    top = CACHE / "links" / hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:12]
    link = top / INNER
    link.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        link.symlink_to(CHECKOUT)
    return top


def private_home() -> pathlib.Path:
    """Return a home folder for Ansible's tools, so that what they leave behind lies in our cache.

    The user's own settings for pip stay in force: where they live in a home folder, they are linked.
    """
    home = CACHE / "home"
    for name in (".config/pip", ".pip", ".cache/pip"):
        own = pathlib.Path.home() / name
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        if own.exists():
            with contextlib.suppress(FileExistsError):
                (home / name).symlink_to(own)
    return home
