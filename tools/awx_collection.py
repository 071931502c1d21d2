# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection awx.awx, for tests: out of PyPI's package ``ansible``, which carries it, into the cache folder.

Called by tests/runner. Nothing of it is in this repository.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

from environments import CACHE, locked

#: The last release that has awx.awx in it: 24.6.1.
RELEASE = "11.13.0"
SHA256 = "7f1c9c6a6026ff214d9240647e4d2b019b2a9d4c7a2bc733932bcf92af80ab04"
_PART = "ansible_collections/awx/awx/"


def collections_path() -> pathlib.Path:
    """Return a folder for ANSIBLE_COLLECTIONS_PATH that has awx.awx in it, downloading it where it is missing."""
    folder = CACHE / "awx" / RELEASE
    with locked("awx-collection"):
        if not folder.is_dir():
            _fetch(folder)
    return folder


def _fetch(folder: pathlib.Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        wanted = pathlib.Path(name, "wanted.txt")
        wanted.write_text(f"ansible=={RELEASE} --hash=sha256:{SHA256}\n", encoding="ascii")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        options = ["--only-binary=:all:", "--ignore-requires-python", "--require-hashes", "--dest", name]
        subprocess.run([*command, *options, "--requirement", str(wanted)], check=True, timeout=600)
        with zipfile.ZipFile(next(pathlib.Path(name).glob("*.whl"))) as archive:
            parts = [part for part in archive.namelist() if part.startswith(_PART)]
            archive.extractall(pathlib.Path(name, "content"), parts)
        os.replace(pathlib.Path(name, "content"), folder)


if __name__ == "__main__":
    print(collections_path())
