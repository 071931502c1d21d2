# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The programs pvesh, qm, pct and pve-test-server: they hand their arguments to the test server and print its answer.

Run by the scripts that ``PveServer.programs(node)`` writes, which set SOCKET, NODE and PROGRAM. Imports little, so that
it starts quickly. What they do is in shell.py, which also says how the real pvesh behaves. Standard library only.
"""

from __future__ import annotations

import json
import signal
import socket
import sys


def main(path: str, node: str, program: str, argv: list[str]) -> int:
    """Run a program on the test server; return its exit code."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError as error:
        print(f"the test server is not there: {error}", file=sys.stderr)
        return 111
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: connection.sendall(b"interrupt\n"))
    connection.sendall(json.dumps({"program": program, "node": node, "argv": argv}).encode() + b"\n")
    for line in connection.makefile("rb"):
        ((kind, text),) = json.loads(line).items()
        if kind == "code":
            return int(text)
        stream = sys.stdout if kind == "out" else sys.stderr
        stream.buffer.write(text.encode())
        stream.flush()
    print("the test server has gone", file=sys.stderr)
    return 111


if __name__ == "__main__":
    sys.exit(main(globals()["SOCKET"], globals()["NODE"], globals()["PROGRAM"], sys.argv[1:]))
