# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The test server as a process of its own, for playbooks, benchmarks and integration targets.

    python -m ansible_collections.restorepoint.core.tests.pve_server --scenario fleet --guests 200 --nodes 4

prints one line of JSON (url, host, port, ca_path, user, password, programs by node) and serves until it gets SIGTERM,
until its stdin ends (``--until-eof``), or for ``--max-seconds``. ``--ready-file`` gets the same line once all is ready.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import signal
import sys
import threading

from . import scenarios
from .server import PveServer


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pve_server", description="A Proxmox VE of our own, for tests.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--scenario", choices=("empty", *scenarios.SCENARIOS), default="kinds")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--guests", type=int, default=200, help="of the fleet")
    parser.add_argument("--archived", type=int, default=1100, help="archived tasks of each node of the fleet")
    parser.add_argument("--task-seconds", type=float, default=0.02)
    parser.add_argument("--list-lag", type=float, default=0.0, help="seconds by which task lists are behind")
    parser.add_argument("--realistic", action="store_true", help="take as long as real storage does")
    parser.add_argument("--ready-file", type=pathlib.Path)
    parser.add_argument("--until-eof", action="store_true", help="end when stdin ends")
    parser.add_argument("--max-seconds", type=float, default=3600.0)
    return parser.parse_args()


def _wait_for_eof(done: threading.Event) -> None:
    sys.stdin.read()
    done.set()


def main() -> None:
    """Serve until told to end."""
    told = _arguments()
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    with PveServer([f"pve{number + 1}" for number in range(told.nodes)], host=told.host, port=told.port) as server:
        if told.realistic:
            server.settings.realistic()
        server.settings.task_seconds = told.task_seconds
        server.tasks.list_lag = told.list_lag
        if told.scenario == "fleet":
            scenarios.fleet(server, told.guests, told.archived)
        elif told.scenario == "kinds":
            scenarios.kinds(server)
        line = json.dumps(server.described())
        if told.ready_file:
            part = told.ready_file.with_name(f"{told.ready_file.name}.part")
            part.write_text(line, encoding="utf-8")
            os.replace(part, told.ready_file)
        print(line, flush=True)
        if told.until_eof:
            threading.Thread(target=_wait_for_eof, args=(done,), daemon=True).start()
        done.wait(told.max_seconds)


if __name__ == "__main__":
    main()
