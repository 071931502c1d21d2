# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A machine of our own with real LVM, ZFS and systemd, whatever kernel this one has: user-mode Linux from Debian.

It is an ordinary process. Its network is a namespace of its own, ssh reaches it by a ProxyCommand. It is built once for
each version of the kernel and of tools/uml/, into the cache folder. RP_GUEST names one of several that run side by
side. RP_GUEST_SUITE=trixie makes it of another Debian than this machine's: its programs, and its OpenZFS in the kernel
too, which stays this machine's. RP_GUEST_ROOT says on what the root of a guest of this machine's Debian lies: lvm (a
thick volume, and /boot beside it) or btrfs (a subvolume) instead of a plain disk.

    guest.py build            build it where it is missing (cold 5 to 8 minutes)
    guest.py build-behind     the same, in the background: whoever needs it waits for it
    guest.py start            boot it; one that runs is left as it is
    guest.py reset            throw away its disks, and boot a clean one
    guest.py stop             shut it down
    guest.py end-all          end every guest at once
    guest.py ssh [WORD...]    run a command in it, or a shell
    guest.py inventory        print Ansible's inventory of it

Called by the Makefile, the noxfile and the fixture of tests/guest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from environments import CACHE, CHECKOUT, WEEK, behind, locked

RECIPE = CHECKOUT / "tools" / "uml"
GUEST_IP, HOST_IP = "10.99.0.2", "10.99.0.1"
DISKS = 4
DISK_BYTES = 2 << 30
#: Takes some 15 s, and many times that on a machine that is busy with other things: no more than a bound.
BOOT_SECONDS = 600.0
#: A connection that a guest has left behind, as it went down, ends with that: nobody else would end it, ever.
ALIVE = {"ServerAliveInterval": "15", "ServerAliveCountMax": "8"}
#: The roots there are, and what the kernel is told of each. The first is the image as it was built; of the others, each
#: guest gets a copy on its first disk (tools/uml/lay_root.sh).
ROOTS = {
    "plain": ("root=/dev/ubda", "rw"),
    "lvm": ("root=/dev/mapper/vg0-root", "ro"),
    "btrfs": ("root=/dev/ubdb", "rootfstype=btrfs", "rootflags=subvol=@", "rw"),
}
ROOT_DISK_BYTES = 8 << 30
#: Run at each boot, since starting a program takes long here. Nothing of it changes what is done to storage:
#: udev does not look again at a disk each time somebody has written to it, nor start ZFS's script for names of trays;
#: LVM writes no copies of its metadata into /etc, looks for no D-Bus service, and touches 8 MB less memory.
QUICKER = r"""
mkdir -p /run/udev/rules.d && cd /run/udev/rules.d && : > 69-vdev.rules
echo 'SUBSYSTEM=="block", KERNEL=="ubd*|dm-*", OPTIONS:="nowatch"' > 61-nowatch.rules
udevadm control --reload && udevadm trigger --subsystem-match=block && udevadm settle --timeout=240
sed -i -E 's/^(\s*)#? ?(backup|archive|notify_dbus) = 1$/\1\2 = 0/; s/^(\s*)#? ?(reserved_memory) = 8192$/\1\2 = 64/' \
    /etc/lvm/lvm.conf
"""
#: What building and running it calls, and the packages that bring it.
PROGRAMS = {
    "bc": "bc",
    "bison": "bison",
    "debootstrap": "debootstrap",
    "depmod": "kmod",
    "flex": "flex",
    "gcc": "gcc",
    "ip": "iproute2",
    "linux.uml": "user-mode-linux",
    "make": "make",
    "mkfs.ext4": "e2fsprogs",
    "nc": "netcat-openbsd",
    "perl": "perl",
    "ssh": "openssh-client",
    "xz": "xz-utils",
}
SYSTEM_PATH = os.pathsep.join([*os.get_exec_path(), "/usr/local/sbin", "/usr/sbin", "/sbin"])


class Unavailable(RuntimeError):
    """A guest cannot be had on this machine, which lacks something."""


class GuestFailed(RuntimeError):
    """A guest could be had, and does not work."""


def settings() -> dict[str, str]:
    """Return the environment of what is called: no terminal is asked, and system programs are found."""
    return {**os.environ, "PATH": SYSTEM_PATH, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}


def run(*command: str | os.PathLike[str]) -> str:
    """Run a program, and return what it printed; its complaints go where ours go."""
    done = subprocess.run(
        [os.fspath(word) for word in command], check=True, stdout=subprocess.PIPE, text=True,
        stdin=subprocess.DEVNULL, env=settings(),
    )  # fmt: skip
    return str(done.stdout)


def lack() -> str | None:
    """Say what this machine lacks for a guest, or None."""
    if os.geteuid() != 0:
        return "root, to give it a network"
    if not pathlib.Path("/etc/debian_version").exists() or not shutil.which("apt-get"):
        return "Debian, whose packages it is made of"
    if not pathlib.Path("/dev/net/tun").exists() and not pathlib.Path("/sys/class/misc/tun").exists():
        return "/dev/net/tun"
    return None


def require() -> None:
    """Raise Unavailable where this machine cannot have a guest."""
    missing = lack()
    if missing:
        raise Unavailable(f"Cannot make the guest: it needs {missing}.")


def install_programs() -> None:
    """Install what building and running it calls, where that is missing."""
    missing = sorted({package for name, package in PROGRAMS.items() if not shutil.which(name, path=SYSTEM_PATH)})
    headers = "/usr/include/stdlib.h"
    if not os.path.exists(headers):
        missing.append("libc6-dev")
    if missing:
        print(f"Installing {', '.join(missing)}", flush=True)
        run("apt-get", "update", "-qq")
        run("apt-get", "install", "-qq", "--no-install-recommends", *missing)


def own_suite() -> str:
    """Return the code name of this machine's Debian."""
    lines = pathlib.Path("/etc/os-release").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)["VERSION_CODENAME"].strip('"')


def chosen_suite() -> str:
    """Return the code name of the guest's Debian: this machine's, or the one that RP_GUEST_SUITE names."""
    return os.environ.get("RP_GUEST_SUITE") or own_suite()


def mirror() -> str:
    """Return the mirror that this machine's apt uses for its Debian."""
    suite = own_suite()
    mirrors = run("apt-get", "indextargets", "--format", "$(REPO_URI)", f"Codename: {suite}").split()
    if not mirrors:
        run("apt-get", "update", "-qq")
        mirrors = run("apt-get", "indextargets", "--format", "$(REPO_URI)", f"Codename: {suite}").split()
    return mirrors[0]


def built() -> pathlib.Path:
    """Return the folder with the guest's parts (root.img, key), building them where they are missing."""
    require()
    with locked("guest-programs"):
        install_programs()
    kernel = run("dpkg-query", "--show", "--showformat", "${Version}", "user-mode-linux")
    recipe = b"".join(path.read_bytes() for path in sorted(RECIPE.iterdir()) if path.is_file())
    other = "" if chosen_suite() == own_suite() else chosen_suite()
    name = hashlib.sha256(kernel.encode() + other.encode() + recipe).hexdigest()[:12]
    folder = CACHE / "guest" / "built" / name
    with locked(f"guest-build-{name}"):
        if not (folder / "complete").exists():
            build(folder)
        (folder / "complete").touch()
        return folder


def build(folder: pathlib.Path) -> None:
    """Build the guest's parts. What a run that was killed left of them is thrown away."""
    print("Building the guest: 5 to 8 minutes, once.", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    of = {"SUITE": chosen_suite(), "KERNEL_SUITE": own_suite(), "MIRROR": mirror()}
    environ = {**settings(), **of, "GUEST_IP": GUEST_IP, "HOST_IP": HOST_IP}
    modules, key, image = folder / "modules", folder / "key", folder / "root.img"
    modules.mkdir()
    with open(folder / "log", "w") as log:
        try:
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "guest", "-f", key)
            for step in (("build_modules.sh", modules), ("build_root.sh", image, modules, f"{key}.pub")):
                command = ["nice", "bash", str(RECIPE / step[0]), *map(str, step[1:])]
                subprocess.run(command, check=True, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        except subprocess.CalledProcessError as error:
            tail = (folder / "log").read_text(errors="replace").splitlines()[-15:]
            raise GuestFailed("\n".join([f"Cannot build the guest: {error}", *tail])) from error
    for other in folder.parent.iterdir():
        used = other / "complete" if (other / "complete").exists() else other
        if time.time() - used.stat().st_mtime > WEEK:
            shutil.rmtree(other, ignore_errors=True)


class Guest:
    """One guest, by its name. Its disks and its network are its own; its parts are shared and never written to."""

    def __init__(self, name: str | None = None, root: str | None = None) -> None:
        name = name or os.environ.get("RP_GUEST") or "main"
        suite = os.environ.get("RP_GUEST_SUITE")
        self.name = f"{name}-{suite}" if suite else name
        self.root = root or os.environ.get("RP_GUEST_ROOT") or "plain"
        self.folder = CACHE / "guest" / "run" / self.name
        self.parts = pathlib.Path()
        self.namespace = f"rp-{self.name}"

    @property
    def _pid_file(self) -> pathlib.Path:
        return self.folder / "pid"

    def is_running(self) -> bool:
        """Say whether its process is there."""
        try:
            pid = int(self._pid_file.read_text())
            return f"umid=rp-{self.name}\0".encode() in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return False

    def start(self, fresh: bool = False) -> None:
        """Boot it and wait until ssh answers. ``fresh``: with empty disks, and a root as it was built."""
        self.parts = built()
        with locked(f"guest-{self.name}"):
            if fresh:
                self._halt()
            if self.is_running() and self._answers():
                return
            self._halt()
            self._network()
            if fresh or not (self.folder / "laid").exists():
                self._new_disks()
            self._boot()

    def stop(self) -> None:
        """Shut it down in order."""
        if self.is_running():
            self.parts = built()
            # What ends with the network may never be told of its end; services have 90 s to stop.
            nothing = subprocess.DEVNULL
            asking = subprocess.Popen(self.ssh("poweroff"), stdin=nothing, stdout=nothing, stderr=nothing)
            _wait(180, lambda: not self.is_running())
            asking.kill()
            asking.wait()
        self._halt()

    def power_cut(self) -> None:
        """End it as a power cut does: what it had not written is gone. `start` boots it again with its disks."""
        self._halt()

    def remove(self) -> None:
        """End it, and leave nothing of it: no disks, no network."""
        self._halt()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.namespace in run("ip", "netns", "list").split():
            run("ip", "netns", "delete", self.namespace)

    def ssh(self, *words: str) -> list[str]:
        """Return the command that runs words in it, as ssh does: joined by spaces, for the shell over there."""
        return ["ssh", *self.ssh_options(), f"root@{GUEST_IP}", *words]

    def ssh_options(self) -> list[str]:
        """Return ssh's options for it."""
        options = {
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
            "ConnectTimeout": "60",  # one that is gone is told of at once; one that is busy may take its time
            **ALIVE,
            "ProxyCommand": f"ip netns exec {self.namespace} nc %h %p",
        }
        words = [word for option, value in options.items() for word in ("-o", f"{option}={value}")]
        return ["-i", str(self.parts / "key"), *words]

    def variables(self) -> dict[str, Any]:
        """Return Ansible's variables of this host."""
        alive = " ".join(f"-o {option}={value}" for option, value in ALIVE.items())
        shared = f"-o ControlMaster=auto -o ControlPersist=60 {alive}"
        proxy = f"-o ProxyCommand='ip netns exec {self.namespace} nc %h %p'"
        return {
            "ansible_host": GUEST_IP,
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_private_key_file": str(self.parts / "key"),
            "ansible_ssh_common_args": f"-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null {proxy} {shared}",
            "ansible_ssh_pipelining": True,
            "ansible_ssh_timeout": 60,
            "ansible_control_path": f"/tmp/rp-guest-{self.name}-%%h",
        }

    def inventory(self) -> Mapping[str, Any]:
        """Return an inventory with this one host, ``guest``, in the group ``storage``."""
        return {"storage": {"hosts": {"guest": self.variables()}}}

    def _new_disks(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("*"):
            path.unlink()
        for number in range(1, DISKS + 1):
            with open(self.folder / f"disk{number}", "wb") as disk:
                disk.truncate(ROOT_DISK_BYTES if number == 1 and self.root != "plain" else DISK_BYTES)
        if self.root != "plain":
            process = self._kernel(
                "linux.uml", "root=/dev/ubda", "ro", self._plain(), "init=/usr/local/sbin/lay-root", f"ROOT={self.root}"
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(BOOT_SECONDS)
            if "lay-root: 0" not in self._said():
                self._give_up(f"lay its root on {self.root}")
        (self.folder / "laid").touch()

    def _network(self) -> None:
        """Make its namespace, with a tap at this end."""
        tun = pathlib.Path("/dev/net/tun")
        if not tun.exists():
            tun.parent.mkdir(exist_ok=True)
            run("mknod", tun, "c", "10", "200")
        if self.namespace not in run("ip", "netns", "list").split():
            run("ip", "netns", "add", self.namespace)
        inside = ["ip", "netns", "exec", self.namespace, "ip"]
        if "guest" not in run(*inside, "-brief", "link", "show"):
            run(*inside, "tuntap", "add", "dev", "guest", "mode", "tap")
            run(*inside, "address", "add", f"{HOST_IP}/24", "dev", "guest")
        for device in ("lo", "guest"):
            run(*inside, "link", "set", device, "up")

    def _boot(self) -> None:
        loader = str(RECIPE / "boot_loader.sh") if self.root == "lvm" else "linux.uml"
        where = {"plain": self._plain(), "lvm": f"initrd={self.folder / 'initrd'}"}.get(self.root, "noinitrd")
        process = self._kernel(loader, *ROOTS[self.root], where)
        deadline = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            if self._answers():
                subprocess.run(self.ssh("bash -eu"), input=QUICKER, text=True, timeout=300, check=True, env=settings())
                return
            time.sleep(0.5)
        self._give_up("boot it: ssh does not answer")

    def _plain(self) -> str:
        return f"ubda={self.folder / 'root.cow'},{self.parts / 'root.img'}"

    def _kernel(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        """Start its kernel, with these words beside those that are always the same."""
        disks = [f"ubd{letter}={self.folder / f'disk{number}'}" for number, letter in enumerate("bcde", 1)]
        command = [
            *("ip", "netns", "exec", self.namespace, program, f"umid=rp-{self.name}"),
            *(f"mem={os.environ.get('RP_GUEST_MEMORY', '2048M')}", "quiet", "systemd.show_status=false"),
            *(*words, *disks, "eth0=tuntap,guest", "con=null", "con0=null,fd:1", "con1=null", "ssl=null"),
        ]
        with open(self.folder / "console", "wb") as log:
            # Its memory is a file that must be executable; /dev/shm is a tmpfs on which that holds.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**settings(), "TMPDIR": "/dev/shm"},
            )  # fmt: skip
        self._pid_file.write_text(str(process.pid))
        return process

    def _said(self) -> str:
        return (self.folder / "console").read_text(errors="replace")

    def _give_up(self, attempt: str) -> NoReturn:
        tail = self._said().splitlines()[-20:]
        self._halt()
        raise GuestFailed("\n".join([f"Cannot {attempt}. The end of the guest's console:", *tail]))

    def _answers(self) -> bool:
        try:
            done = subprocess.run(self.ssh("true"), timeout=60, check=False, capture_output=True, env=settings())
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def _halt(self) -> None:
        """End its processes at once: it has its own process group, which its helpers are in as well."""
        if self.is_running():
            group = int(self._pid_file.read_text())
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
            _wait(120, lambda: not _lives(group))
        self._pid_file.unlink(missing_ok=True)


def _wait(seconds: float, over: Callable[[], bool]) -> None:
    """Wait until something is over, for so long at most."""
    deadline = time.monotonic() + seconds
    while not over() and time.monotonic() < deadline:
        time.sleep(0.1)


def _lives(group: int) -> bool:
    """Say whether a process of a group has not ended. One that is ending has no command line any more, and still holds
    its memory, the locks of its disks, and its end of the network.
    """
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            state, _parent, its = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(its) == group and state not in ("Z", "X"):
                return True
    return False


def end_all() -> None:
    """End every guest that runs, at once. Their disks stay."""
    for folder in (CACHE / "guest" / "run").glob("*"):
        Guest(folder.name).power_cut()


def main(arguments: Sequence[str]) -> int:
    """Do what the first word says."""
    guest, words = Guest(), list(arguments)
    verb = words.pop(0) if words else "start"
    if verb == "build-behind":
        if lack() is None:
            behind(__file__, "build")
    elif verb == "build":
        built()
    elif verb in ("start", "reset"):
        guest.start(fresh=verb == "reset")
        print(f"The guest {guest.name!r} runs: make guest-ssh ARGS=COMMAND.")
    elif verb == "stop":
        guest.stop()
    elif verb == "end-all":
        end_all()
    elif verb == "inventory":
        guest.parts = built()
        print(json.dumps(guest.inventory(), indent=2))
    elif verb == "ssh":
        guest.parts = built()
        return subprocess.run(guest.ssh(*words), check=False, env=settings()).returncode
    else:
        print(__doc__)
        return 2
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except (Unavailable, GuestFailed) as error:
        raise SystemExit(str(error)) from None
