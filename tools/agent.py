# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds the agent of this checkout, ``restorepoint.pyz``. plugins/module_utils/setup/agent_build.py does the work.

Called by ``make agent`` and by tests. It needs no environment, so it makes the package's name itself.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import pathlib
import sys
from types import ModuleType

ENGINE = pathlib.Path(__file__).resolve().parents[1] / "plugins" / "module_utils"


def builder() -> ModuleType:
    """Return the module that builds it, whatever the checkout's folder is called."""
    name = "restorepoint_engine"
    if name not in sys.modules:
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(ENGINE)]
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{name}.setup.agent_build")


def build(target: pathlib.Path) -> int:
    """Write the agent to ``target``, and return its size in bytes. Raises RestorePointError where it is too large."""
    content: bytes = builder().agent_bytes()
    target.write_bytes(content)
    target.chmod(0o755)
    return len(content)


def main() -> None:
    """Build it where the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("target", nargs="?", default="restorepoint.pyz", type=pathlib.Path)
    target = parser.parse_args().target
    print(f"{target}: {build(target)} bytes", file=sys.stdout)


if __name__ == "__main__":
    main()
