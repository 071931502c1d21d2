# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Chromium without a window, and axe-core, for the tests of the report's page. No root.

Chromium comes from Debian's packages, unpacked into the cache folder with what of its libraries and fonts this machine
lacks; axe-core comes from the npm registry, and is proven by its hash. Both are there after the first time.

    chromium.py path    print the program, and where axe-core lies

Called by tests/page.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

from environments import CACHE, locked

PACKAGE = "chromium-headless-shell"
#: The page asks for the system's own font; pictures for the documentation look the same everywhere with these.
FONTS = ("fonts-inter", "fonts-dejavu-core")
AXE = "axe-core@4.11.1"
AXE_SHA256 = "5b86f813d96904f2d925fed5715877c75fc1cc140f89565fb42145e7801b2305"
_SECONDS = 600
_FONTS_CONF = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <dir>{folder}/usr/share/fonts</dir>
  <cachedir>{folder}/font-cache</cachedir>
  <alias binding="strong"><family>system-ui</family><prefer><family>Inter</family></prefer></alias>
  <alias binding="strong"><family>sans-serif</family><prefer><family>Inter</family></prefer></alias>
  <alias binding="strong"><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
"""


class Unavailable(RuntimeError):
    """They cannot be had on this machine."""


class Browser(NamedTuple):
    """A program to run, what its environment needs besides, and the text of axe-core."""

    program: pathlib.Path
    environ: dict[str, str]
    axe: str


def browser() -> Browser:
    """Return what the tests need, getting it where it is missing. Raises Unavailable."""
    folder = CACHE / "chromium"
    program = folder / "usr" / "lib" / "chromium" / PACKAGE
    with locked("chromium"):
        if not (folder / "complete").exists():
            _unpack(folder, program)
        axe = folder / "axe.min.js"
        if not axe.exists():
            _fetch_axe(axe)
    libraries = sorted({str(path.parent) for path in (folder / "usr" / "lib").rglob("*.so*")})
    environ = {"LD_LIBRARY_PATH": os.pathsep.join(libraries), "FONTCONFIG_FILE": str(folder / "fonts.conf")}
    return Browser(program, environ, axe.read_text(encoding="utf-8"))


def _unpack(folder: pathlib.Path, program: pathlib.Path) -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Unavailable("Cannot get Chromium: it is taken from Debian's packages, and this is no Debian.")
    with tempfile.TemporaryDirectory() as work:
        try:
            _download(work)
            for package in pathlib.Path(work).glob("*.deb"):
                _run("dpkg-deb", "--extract", str(package), str(folder), cwd=work)
                package.unlink()
        except (subprocess.SubprocessError, OSError) as error:
            words = getattr(error, "stderr", None) or error
            raise Unavailable(f"Cannot get Chromium from Debian's package {PACKAGE}: {words}") from error
    if not program.exists():
        raise Unavailable(f"Cannot use Debian's package {PACKAGE}: it has no {program.name}")
    # What it uses of its own package is beside it; a desktop's files and documentation are not needed.
    (folder / "fonts.conf").write_text(_FONTS_CONF.format(folder=folder), encoding="utf-8")
    (folder / "complete").touch()


def _download(work: str) -> None:
    """Download the packages that this machine lacks; where apt's lists are old or missing, root updates them first."""
    try:
        _run(*_APT, "download", *_lacking(work), cwd=work)
    except subprocess.CalledProcessError:
        if os.geteuid() != 0:
            raise
        _run("apt-get", "update", "--quiet", cwd=work)
        _run(*_APT, "download", *_lacking(work), cwd=work)


_APT = ("apt-get", "--quiet", "-o", "APT::Sandbox::User=root")


def _lacking(work: str) -> Sequence[str]:
    """Return the packages that apt would install, with the fonts. It only says so: nothing is installed."""
    options = ("-o", "Debug::NoLocking=1", "--no-install-recommends", "--simulate")
    said = _run(*_APT, *options, "install", PACKAGE, cwd=work)
    return sorted({PACKAGE, *FONTS, *re.findall(r"^Inst (\S+)", said, re.MULTILINE)})


def _fetch_axe(target: pathlib.Path) -> None:
    attempt = f"Cannot get {AXE} from the npm registry"
    if not shutil.which("npm"):
        raise Unavailable(f"{attempt}: there is no npm here.")
    with tempfile.TemporaryDirectory() as work:
        try:
            _run("npm", "pack", AXE, "--silent", "--ignore-scripts", "--cache", f"{work}/npm", cwd=work)
        except (subprocess.SubprocessError, OSError) as error:
            raise Unavailable(f"{attempt}: {getattr(error, 'stderr', None) or error}") from error
        (archive,) = pathlib.Path(work).glob("*.tgz")
        if hashlib.sha256(archive.read_bytes()).hexdigest() != AXE_SHA256:
            raise Unavailable(f"{attempt}: what came has another hash than {AXE_SHA256}")
        with tarfile.open(archive) as opened:
            member = opened.extractfile("package/axe.min.js")
            if member is None:
                raise Unavailable(f"{attempt}: it has no axe.min.js")
            new = target.with_suffix(".new")
            new.write_bytes(member.read())
    os.replace(new, target)


def _run(*command: str, cwd: str) -> str:
    done = subprocess.run(
        command, check=True, cwd=cwd, timeout=_SECONDS, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    return done.stdout


def main() -> None:
    """Print where it is."""
    try:
        print(browser().program)
    except Unavailable as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
