# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guest as tests see it: run modules and programs in it, kill them, cut its power.

The collection and ansible-core's module_utils are shipped into it once for a session; one process there (server.py)
answers over ssh, so that a call costs a fraction of a second. Called by conftest.py and the tests of this folder.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any

import ansible
import pytest

from ansible_collections.restorepoint.core.tests.lab.driver import Result, arguments, judged

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tools"))

from guest import Guest, Unavailable

__all__ = ["Guest", "Machine", "ProgramFailed", "Unavailable"]

#: Where the collection lies in the guest.
LIBRARY = "/opt/restorepoint"
COLLECTION = "ansible_collections/restorepoint/core"
#: The programs for which there are shims.
SHIMMED = (
    *("lvs", "lvcreate", "lvchange", "lvrename", "lvremove", "lvconvert", "dmsetup", "mount", "umount"),
    *("zfs", "zpool", "btrfs", "wipefs", "pvcreate", "vgcreate", "vgextend", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs"),
    *("dd", "losetup", "mkdir", "systemctl"),
)
DISKS = ("/dev/ubdb", "/dev/ubdc", "/dev/ubdd", "/dev/ubde")
#: A volume with a mounted filesystem, and a dataset: what tests of both kinds begin with.
VOLUME_AND_DATASET = f"""
vgcreate -qq vg0 {DISKS[0]}
lvcreate -qq -y -L 64M -n data vg0
mkfs.ext4 -q -F /dev/vg0/data
zpool create -f -m /mnt/rp rp {DISKS[1]}
zfs create rp/shop
mkdir -p /mnt/data
mount /dev/vg0/data /mnt/data
"""
_SHIM = """#!/bin/sh
# Counts its calls, and kills the module that calls it before or after one of them. A fork is slow here: builtins only.
# Of several at once each takes a number of its own: that of the first file which is not there yet.
read -r count < {folder}/count
count=$((count + 1))
set -C
until true 2>/dev/null > {folder}/call.$count; do count=$((count + 1)); done
set +C
echo $count > {folder}/count
echo "$count ${{0##*/}} $*" >> {folder}/log
if [ $count -ne {at} ]; then exec {program} "$@"; fi
case {when} in
before) kill -KILL $PPID; exit 1 ;;
hang) exec sleep 600 ;;
wait) until [ -e {folder}/go ]; do sleep 0.1; done; exec {program} "$@" ;;
garbage) echo 'x{{'; exit 0 ;;
silent) exit 0 ;;
failing) echo 'the shim says no' >&2; exit 5 ;;
esac
{program} "$@"
code=$?
case {when} in
after) kill -KILL $PPID ;;
late) exec sleep 600 ;;
esac
exit $code
"""


#: Takes away whatever tests have made of the disks, in whatever state it is; what is not there is no trouble. Each
#: program gets all names at once: starting one takes longest here.
_CLEAR = """
for m in $(grep -o ' /mnt/[^ ]*' /proc/self/mountinfo | sort -r); do umount "$m" || true; done
for p in $(zpool list -H -o name); do zpool destroy -f "$p" || true; done
for n in $(dmsetup ls | grep -o '^vg[0-9]-[^ ]*'); do dmsetup resume "$n" || true; some=yes; done
{ [ -z "$some" ] || vgremove -qffy vg0 vg1; wipefs -qa %(disks)s; } >/dev/null 2>&1
"""


_UDEV = r"""
sed -i -E 's/^(\s*)#? ?(udev_sync|udev_rules) = {old}$/\1\2 = {new}/' /etc/lvm/lvm.conf
"""


#: How long anything in the guest may take, in seconds: many times what it takes on a machine with nothing else to do.
PATIENCE = 600.0


class ProgramFailed(RuntimeError):
    """A program in the guest ended with another code than 0."""

    def __init__(self, words: Sequence[str], answer: dict[str, Any]) -> None:
        super().__init__(f"{' '.join(words)}: {answer['err'].strip() or answer['out'].strip()} (rc {answer['rc']})")
        self.answer = answer


class Machine:
    """A booted guest, with the collection in it."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self._server: subprocess.Popen[str] | None = None
        self._numbers = itertools.count(1)
        self._shims = ""
        self._real: dict[str, str] = {}

    # -- its life ------------------------------------------------------------------------------------------------------

    def boot(self, fresh: bool = False) -> None:
        """Start it where it does not run, ship what it needs, and start the server in it."""
        self._hang_up()
        self.guest.start(fresh=fresh)
        self._ship()
        command = f"cd / && PYTHONPATH={LIBRARY} exec python3 -u {LIBRARY}/{COLLECTION}/tests/guest/server.py"
        self._server = subprocess.Popen(
            self.guest.ssh(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
            errors="surrogateescape", bufsize=1,
        )  # fmt: skip

    def boot_or_skip(self, fresh: bool = False) -> None:
        """Boot it. Where there can be no guest the test is skipped with the reason, and on CI it fails."""
        try:
            self.boot(fresh=fresh)
        except Unavailable as error:
            if os.environ.get("CI") == "true":
                pytest.fail(str(error))
            pytest.skip(str(error))

    def power_cut(self) -> None:
        """Cut its power, and boot it again: what it had not written is gone."""
        self._hang_up()
        self.guest.power_cut()
        self.boot()

    def reboot(self) -> None:
        """Shut it down in order, and boot it again."""
        self._hang_up()
        self.guest.stop()
        self.boot()

    def close(self) -> None:
        """Leave it running."""
        self._hang_up()

    def _hang_up(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.communicate()
            self._server = None

    def _ship(self) -> None:
        """Copy the collection's plugins, the server, and ansible-core's module_utils, as one archive."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", dereference=True) as tar:
            for part in ("plugins", "tests/guest/server.py"):
                tar.add(CHECKOUT / part, f"{COLLECTION}/{part}", filter=_wanted)
            package = pathlib.Path(ansible.__file__).parent
            for part in ("release.py", "module_utils"):
                tar.add(package / part, f"ansible/{part}", filter=_wanted)
            # As Ansible itself sends it: its own __init__.py wants what only a control node has.
            tar.addfile(tarfile.TarInfo("ansible/__init__.py"))
        unpack = f"rm -rf {LIBRARY} && mkdir -p {LIBRARY} && tar -x -C {LIBRARY}"
        subprocess.run(self.guest.ssh(unpack), input=archive.getvalue(), check=True, timeout=PATIENCE)

    # -- what runs in it -----------------------------------------------------------------------------------------------

    def _ask(self, seconds: float = PATIENCE + 60, **request: Any) -> dict[str, Any]:
        assert self._server is not None
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        if not select.select([self._server.stdout], [], [], seconds)[0]:
            raise TimeoutError(f"the guest did not answer {request} within {seconds:g} s")
        answer: dict[str, Any] = json.loads(self._server.stdout.readline() or "{}")
        if not answer and "signal" not in request:
            raise RuntimeError(f"the guest's server ended upon {request}")
        return answer

    def call(self, module: str, /, *, check_mode: bool = False, diff: bool = False, **options: Any) -> Result:
        """Run a module; raise Failed where it fails."""
        return judged(self._ask(call=module, arguments=arguments(options, check_mode, diff))["out"])

    def run(self, *words: str, input: str | None = None, check: bool = True, timeout: float = PATIENCE) -> str:  # noqa: A002
        """Run a program, and return what it printed to stdout. Raises ProgramFailed, unless ``check`` is off."""
        answer = self._ask(seconds=timeout + 60, run=list(words), input=input, timeout=timeout)
        if check and answer["rc"] != 0:
            raise ProgramFailed(words, answer)
        return str(answer["out"])

    def succeeds(self, *words: str) -> bool:
        """Say whether a program ends with code 0."""
        return bool(self._ask(run=list(words))["rc"] == 0)

    def script(self, text: str, timeout: float = PATIENCE) -> str:
        """Run a bash script that ends at the first failure; return what it printed."""
        return self.run("bash", "-euo", "pipefail", "-c", text, timeout=timeout)

    def clear_disks(self) -> None:
        """Leave the disks empty, whatever was on them."""
        self.run("bash", "-c", _CLEAR % {"disks": " ".join(DISKS)}, check=False)

    @contextlib.contextmanager
    def without_udev(self) -> Iterator[None]:
        """Let LVM make its device nodes itself, and udev do nothing.

        A command of LVM makes up to 30 events, and udev starts programs for them, which here takes six times as long as
        the command. What is a matter of our steps, and not of devices that come and go, is tested without that. After
        a boot udev is there again.
        """
        self.script(_UDEV.format(old=1, new=0) + "udevadm control --stop-exec-queue")
        yield
        # One that is started anew has forgotten what has been waiting.
        again = "systemctl restart systemd-udevd; udevadm trigger -s block; udevadm settle --timeout=500"
        self.script(_UDEV.format(old=0, new=1) + again)

    def write(self, path: str, content: str, mode: int = 0o644) -> None:
        """Write a file, through to the disk."""
        self._ask(write=[{"path": path, "content": content, "mode": mode}])

    def read(self, path: str) -> str:
        """Return a file's content. Raises ProgramFailed where it cannot be read."""
        answer = self._ask(read=path)
        if answer["rc"] != 0:
            raise ProgramFailed(("read", path), answer)
        return str(answer["out"])

    def exists(self, path: str) -> bool:
        """Say whether there is anything of that name."""
        return bool(self._ask(exists=path)["exists"])

    def device(self, path: str) -> str:
        """Wait until there is a device of that name, and udev has done with it; return the name.

        ZFS makes the devices of volumes after `zfs` has ended: before that, udev has nothing to wait for.
        """
        self.script(f"until [ -b {path} ]; do sleep 0.1; done; udevadm settle")
        return path

    @contextlib.contextmanager
    def user(self, place: str = "/", opens: str = "/dev/null") -> Iterator[None]:
        """Have a process ``sleep`` that works in a folder and has a file open, from when it does until it has ended."""
        begin = f"cd {place}; sleep 3600 < {opens} > /dev/null 2>&1 & echo $!; "
        pid = self.script(f"{begin} until grep -qx sleep /proc/$!/comm; do sleep 0.1; done").strip()
        try:
            yield
        finally:
            self.script(f"kill {pid}; while [ -e /proc/{pid} ]; do sleep 0.1; done")

    def until(self, path: str, lines: int = 0, timeout: float = PATIENCE) -> str:
        """Wait until there is a file of so many lines, and return it. Raises TimeoutError."""
        answer = self._ask(seconds=timeout + 60, until=path, lines=lines, timeout=timeout)
        if answer["out"] is None:
            raise TimeoutError(f"{path} had no {lines} lines within {timeout:g} s")
        return str(answer["out"])

    def start(self, module: str, /, *, shims: str | None = None, check_mode: bool = False, **options: Any) -> int:
        """Start a module, with the folder ``shims`` before PATH; `finished` takes the id that it returns."""
        environment = {}
        if shims is not None:
            environment["PATH"] = f"{shims}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        answer = self._ask(start=module, arguments=arguments(options, check_mode), environment=environment)
        return int(answer["pid"])

    def finished(self, process: int, timeout: float = PATIENCE) -> Result | None:
        """Wait for a module that was started: its result, or None where it was killed. Raises Failed."""
        answer = self._ask(seconds=timeout + 60, wait=process, timeout=timeout)
        if answer["rc"] is None:
            raise TimeoutError(f"the module did not end within {timeout:g} s")
        if answer["rc"] == -signal.SIGKILL:
            return None
        assert answer["out"].strip(), answer
        return judged(answer["out"])

    def signal(self, process: int, number: signal.Signals) -> None:
        """Send a signal to a module that was started, and to what it has started in its process group."""
        self._ask(signal=process, number=int(number))

    @contextlib.contextmanager
    def shims(self, *programs: str, at: int, when: str) -> Iterator[str]:
        """Give a folder for PATH with stand-ins for programs, of whose calls, counted together, the ``at``-th differs.

        ``when`` says how: ``before`` and ``after`` kill the caller before or after the program has run, ``hang`` never
        ends, ``late`` neither, but has done its work; ``wait`` runs it
        once there is a file ``go`` in that folder. Without running, ``garbage`` prints nonsense and succeeds,
        ``silent`` succeeds and prints nothing, ``failing`` fails. With 0 for ``at`` all are let through. `calls` tells
        of the calls.
        """
        if not self._real:
            folders = (f"{folder}/{program}" for folder in ("/usr/sbin", "/usr/bin") for program in SHIMMED)
            listed = self.run("sh", "-c", 'for f; do [ ! -x "$f" ] || echo "$f"; done', "sh", *folders)
            self._real = {path.rpartition("/")[2]: path for path in listed.split()}
        folder = f"/run/shims.{os.getpid()}.{next(self._numbers)}"
        self._shims = folder
        files = [(f"{folder}/count", "0\n", 0o644), (f"{folder}/log", "", 0o644)]
        for program in programs:
            text = _SHIM.format(folder=folder, at=at, when=when, program=self._real[program])
            files.append((f"{folder}/{program}", text, 0o755))
        self._ask(write=[{"path": path, "content": text, "mode": mode} for path, text, mode in files])
        yield folder

    def calls(self) -> list[str]:
        """Return the calls of the last `shims`, as ``N PROGRAM ARGUMENTS``."""
        return self.read(f"{self._shims}/log").splitlines()

    def dies(self, module: str, /, *programs: str, at: int, when: str, **options: Any) -> bool:
        """Run a module that is killed before or after the ``at``-th call of programs; say whether it came so far.

        False means that it ended by itself, having called them less often: so a loop over ``at`` reaches every step.
        """
        with self.shims(*programs, at=at, when=when) as folder:
            return self.finished(self.start(module, shims=folder, **options)) is None


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in entry.name else entry
