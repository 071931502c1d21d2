# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A certificate for the test server, made at its start with the openssl program: one of its own, which is its own CA.

Standard library only. Made once for a process; the folder goes when that ends.
"""

from __future__ import annotations

import functools
import pathlib
import subprocess
import tempfile
from typing import NamedTuple

_NAMES = "DNS:localhost,IP:127.0.0.1,IP:::1"
_KEEP: list[tempfile.TemporaryDirectory[str]] = []


class Certificate(NamedTuple):
    """Files: the certificate, which is the CA's too, and its key."""

    certificate: pathlib.Path
    key: pathlib.Path


@functools.cache
def certificate(name: str = "pve-test") -> Certificate:
    """Return a certificate for this machine's loopback names, and its key; RuntimeError in openssl's words."""
    folder = tempfile.TemporaryDirectory(prefix="restorepoint-pve-ca-")
    _KEEP.append(folder)
    made = Certificate(pathlib.Path(folder.name, "ca.pem"), pathlib.Path(folder.name, "key.pem"))
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-keyout", str(made.key), "-out", str(made.certificate), "-days", "3", "-subj", f"/CN={name}"]
    usage = ["-addext", f"subjectAltName={_NAMES}", "-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    argv = ["openssl", "req", "-x509", *curve, *files, *usage]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"openssl made no certificate: {done.stderr.strip()}")
    made.key.chmod(0o600)
    return made
