# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the demonstration as a user would: install the collection from the checkout, then play restorepoint.core.demo.

Needs neither root nor Galaxy; ansible-core comes from PyPI into the cache folder, once. Called by ``make demo``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from cores import newest_core
from environments import CHECKOUT, environment
from pythons import clean_path


def main() -> None:
    """Install into a folder of its own, play, and remove it again."""
    core, python = newest_core()
    tools = environment("ansible-" + core.series, python, [core.requirement])
    with tempfile.TemporaryDirectory(prefix="restorepoint-demo-") as folder:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHON"))}
        environ |= {
            "PATH": os.pathsep.join([str(tools), clean_path()]),
            "ANSIBLE_HOME": f"{folder}/ansible",
            "ANSIBLE_COLLECTIONS_PATH": f"{folder}/collections",
            "ANSIBLE_CALLBACK_PLUGINS": str(CHECKOUT / "tools" / "demo_output"),
            "ANSIBLE_STDOUT_CALLBACK": "plain",
            "ANSIBLE_REMOTE_TMP": f"{folder}/tmp",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            "LC_ALL": "C.UTF-8",  # Ansible ends at once where the locale is not UTF-8
        }
        install = ["ansible-galaxy", "collection", "install", "--no-deps", "--offline"]
        target = ["--collections-path", f"{folder}/collections", str(CHECKOUT)]
        galaxy = subprocess.run(
            [*install, *target], check=False, env=environ, cwd=folder, capture_output=True, text=True
        )
        if galaxy.returncode != 0:
            raise SystemExit(f"Cannot install the collection from {CHECKOUT}: {galaxy.stderr.strip()}")
        play = ["ansible-playbook", "restorepoint.core.demo", *sys.argv[1:]]
        raise SystemExit(subprocess.run(play, check=False, env=environ, cwd=folder).returncode)


if __name__ == "__main__":
    main()
