# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds the agent: the engine of this checkout as one file, ``restorepoint.pyz``, the same to the byte each time.

It holds the layers core, backends, engine, agent and the doors, and prometheus_client; a bare Python 3.9 runs it. Every
file has the same date and mode, and they stand in the order of their names, so that only content makes a difference.
Called by ``make agent`` and by tests.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import pathlib
import sys
import zipfile
from collections.abc import Iterator
from types import ModuleType

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
ENGINE = CHECKOUT / "plugins" / "module_utils"
#: What of module_utils a host needs: not what only Ansible uses.
LEFT_OUT = ("bridge", "setup", "__pycache__")
MAX_BYTES = 700 * 1024
_SHEBANG = b"#!/usr/bin/env python3\n"
_DATE = (1980, 1, 1, 0, 0, 0)
_MAIN = "import sys\n\nfrom restorepoint.agent.cli import main\n\nsys.exit(main())\n"


def libraries() -> ModuleType:
    """Return the module that has the libraries, whatever the checkout's folder is called."""
    name = "restorepoint_engine"
    if name not in sys.modules:
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(ENGINE)]
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{name}.setup.agent_libraries")


def sources() -> Iterator[tuple[str, bytes]]:
    """Yield the name in the archive and the content of each file, in order."""
    yield "__main__.py", _MAIN.encode()
    for path in sorted(ENGINE.rglob("*.py"), key=lambda path: path.relative_to(ENGINE).as_posix()):
        inside = path.relative_to(ENGINE)
        if not set(inside.parts) & set(LEFT_OUT):
            yield f"restorepoint/{inside.as_posix()}", path.read_bytes()
    yield from libraries().files()
    yield "restorepoint/COPYING", (CHECKOUT / "LICENSES" / "GPL-3.0-or-later.txt").read_bytes()


def build(target: pathlib.Path) -> int:
    """Write the agent to ``target``, and return its size in bytes. Raises SystemExit where it is too large."""
    with target.open("wb") as stream:
        stream.write(_SHEBANG)
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, content in sources():
                entry = zipfile.ZipInfo(name, _DATE)
                entry.create_system = 3
                entry.external_attr = 0o100644 << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, content, compresslevel=9)
    target.chmod(0o755)
    size = target.stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f"{target} has {size} bytes, more than the {MAX_BYTES} that fit into a ConfigMap")
    return size


def main() -> None:
    """Build it where the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("target", nargs="?", default="restorepoint.pyz", type=pathlib.Path)
    target = parser.parse_args().target
    print(f"{target}: {build(target)} bytes", file=sys.stdout)


if __name__ == "__main__":
    main()
