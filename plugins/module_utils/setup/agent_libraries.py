# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The libraries that go into the agent, pinned by version and hash, as their authors made them. Called by its builder.

A wheel lies in the cache folder of the control node; where it is missing, pip downloads it, once. Hosts and pods
download nothing. Of a wheel only those modules are taken that the agent imports, unmodified, with its licence.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple

from .. import process
from ..core.errors import RestorePointError

_PIP_SECONDS = 300.0


class Wheel(NamedTuple):
    """A wheel of PyPI. ``parts`` are the files that the agent needs, ``about`` those of its dist-info that go along."""

    package: str
    version: str
    sha256: str
    parts: tuple[str, ...]
    about: tuple[str, ...]

    @property
    def file(self) -> str:
        """The wheel's name."""
        return f"{self.package}-{self.version}-py3-none-any.whl"


#: Its package imports most of itself; left out are its bridges to other frameworks, its parsers and several processes.
PROMETHEUS = Wheel(
    "prometheus_client",
    "0.26.0",
    "fa93d06737aa02bacd05794768508bb97d2fbee28cb3bca04eaae92f0ca953d6",
    (
        *("__init__.py", "asgi.py", "context_managers.py", "decorator.py", "exposition.py", "gc_collector.py"),
        *("metrics.py", "metrics_core.py", "mmap_dict.py", "openmetrics/__init__.py", "openmetrics/exposition.py"),
        *("platform_collector.py", "process_collector.py", "registry.py", "samples.py", "utils.py", "validation.py"),
        "values.py",
    ),
    ("METADATA", "licenses/LICENSE", "licenses/NOTICE"),
)


def files() -> Iterator[tuple[str, bytes]]:
    """Yield the name in the agent and the content of each file, in a fixed order. Raises RestorePointError."""
    for wheel in (PROMETHEUS,):
        with zipfile.ZipFile(BytesIO(_content(wheel))) as archive:
            for part in wheel.parts:
                yield f"{wheel.package}/{part}", archive.read(f"{wheel.package}/{part}")
            for part in wheel.about:
                name = f"{wheel.package}-{wheel.version}.dist-info/{part}"
                yield name, archive.read(name)


def cache() -> pathlib.Path:
    """Return the folder in which wheels are kept. ``RESTOREPOINT_WHEELS`` names it, as execution environments do."""
    named = os.environ.get("RESTOREPOINT_WHEELS")
    if named:
        return pathlib.Path(named)
    top = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(top) / "restorepoint" / "wheels"


def _content(wheel: Wheel) -> bytes:
    """Return the wheel, proven to be the one that is meant."""
    kept = cache() / wheel.file
    try:
        content = kept.read_bytes()
    except OSError:
        content = b""
    if hashlib.sha256(content).hexdigest() != wheel.sha256:
        content = _downloaded(wheel)
        # Two builders at once write the same, and neither sees half of it.
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as stream:
            stream.write(content)
        os.replace(stream.name, kept)
    return content


def _downloaded(wheel: Wheel) -> bytes:
    attempt = f"get {wheel.package} {wheel.version}, which goes into the agent"
    remedy = f"let pip reach PyPI or a mirror of it, or put {wheel.file} into {cache()}"
    with tempfile.TemporaryDirectory() as folder:
        wanted = pathlib.Path(folder) / "wanted.txt"
        wanted.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="ascii")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        options = ["--only-binary=:all:", "--require-hashes", "--dest", folder, "--requirement", str(wanted)]
        process.run([*command, *options], timeout=_PIP_SECONDS, attempt=attempt, remedy=remedy)
        content = (pathlib.Path(folder) / wheel.file).read_bytes()
    if hashlib.sha256(content).hexdigest() != wheel.sha256:
        raise RestorePointError(attempt, f"what came has another hash than {wheel.sha256}", remedy)
    return content
