# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stores that exports reach over a network, as ordinary processes on loopback: an sshd with SFTP, and an S3 server."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils import process

from .conftest import lacking

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
KEY_ID, SECRET_KEY = "AKIALAB4711", "a/secret+key=of-the-store"
_SECONDS = 120.0


@dataclass(frozen=True)
class Sshd:
    """A server for root, with a key of its own. ``key_file`` is let in, ``known_hosts`` knows it."""

    port: int
    key_file: str
    known_hosts: str


@contextmanager
def sshd(folder: pathlib.Path) -> Iterator[Sshd]:
    """Serve SFTP on a free port; all of its files lie in ``folder``."""
    program = process.find_program("sshd")
    if program is None:
        lacking("the program sshd")
    for name in ("host", "id"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(keygen, check=True, timeout=_SECONDS)
    (folder / "authorized_keys").write_text((folder / "id.pub").read_text())
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    for _unused in range(20):
        port = _free_port()
        settings = {
            "ListenAddress": "127.0.0.1", "Port": str(port), "HostKey": f"{folder}/host", "UsePAM": "no",
            "AuthorizedKeysFile": f"{folder}/authorized_keys", "PasswordAuthentication": "no", "StrictModes": "no",
            "PermitRootLogin": "prohibit-password", "PidFile": "none", "Subsystem": "sftp internal-sftp",
        }  # fmt: skip
        (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        with open(folder / "sshd.log", "w+", encoding="utf-8") as log:
            server = subprocess.Popen(
                [str(program), "-D", "-e", "-f", str(folder / "sshd_config")], stdin=subprocess.DEVNULL, stderr=log
            )
            try:
                # Another process may have taken the port meanwhile: then it ends, and the next one is tried.
                if _listens(server, folder / "sshd.log", port):
                    host_key = (folder / "host.pub").read_text()
                    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
                    yield Sshd(port, str(folder / "id"), str(folder / "known_hosts"))
                    return
            finally:
                server.terminate()
                server.wait(_SECONDS)
    pytest.fail(f"sshd does not start: {(folder / 'sshd.log').read_text()}")


def _listens(server: subprocess.Popen[bytes], log: pathlib.Path, port: int) -> bool:
    """Wait until it listens; say whether it does, or has ended."""
    deadline = time.monotonic() + _SECONDS
    while server.poll() is None:
        if f"Server listening on 127.0.0.1 port {port}" in log.read_text():
            return True
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return False


def _free_port() -> int:
    with closed_port() as port:
        return port


@contextmanager
def closed_port() -> Iterator[int]:
    """Give a port on which nobody listens, nor can begin to."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        yield int(found.getsockname()[1])


@contextmanager
def s3() -> Iterator[str]:
    """Serve S3, empty, with the key above; give its URL."""
    sys.path.insert(0, str(CHECKOUT / "tools"))
    import s3 as built
    from cluster import Unavailable

    try:
        program = built.program()
    except Unavailable as error:
        lacking(str(error))
    environ = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    with subprocess.Popen([program], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://{server.stdout.readline().strip()}"
