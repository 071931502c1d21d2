# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Install the programs that the tests and the benchmark call, where they are missing and this is Debian's root.

Anyone else is told what is missing; the tests that need it then say so themselves. Called by ``make test``.
"""

from __future__ import annotations

import os
import shutil
import subprocess

#: A program that has to be on PATH (sbin included), and the package that brings it.
PROGRAMS = {
    "btrfs": "btrfs-progs",
    "findmnt": "util-linux",
    "fish": "fish",
    "getfattr": "attr",
    "git": "git",
    "losetup": "mount",
    "lz4": "lz4",
    "mandoc": "mandoc",
    "mariadbd": "mariadb-server",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "openssl": "openssl",
    "pg_createcluster": "postgresql",
    "restic": "restic",
    "rsync": "rsync",
    "setcap": "libcap2-bin",
    "setfacl": "acl",
    "sshd": "openssh-server",
    "zsh": "zsh",
    "zstd": "zstd",
}


def main() -> None:
    """Install or name what is missing."""
    path = os.pathsep.join([*os.get_exec_path(), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    missing = sorted({package for program, package in PROGRAMS.items() if not shutil.which(program, path=path)})
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print(f"Not there, and needed by some tests: {', '.join(missing)}. Install them to run everything.")
        return
    print(f"Installing {', '.join(missing)}", flush=True)
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update", "-qq"], ["install", "-qq", "--no-install-recommends", *missing]):
        subprocess.run(["apt-get", *arguments], check=True, env=environ, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
