# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prints an inventory whose hosts are the nodes of the test server, each with its own pvesh. Called by runme.sh."""

from __future__ import annotations

import json
import sys

with open(sys.argv[1], encoding="utf-8") as stream:
    PROGRAMS = json.load(stream)["programs"]
HOSTS = {
    name: {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "ansible_remote_tmp": f"/tmp/.ansible-{name}",
        "pve_node_name": name,
        "pve_path": folder,
    }
    for name, folder in PROGRAMS.items()
}
print(json.dumps({"all": {"hosts": HOSTS}}))
