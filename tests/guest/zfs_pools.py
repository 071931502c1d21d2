# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two pools in the guest, and what tests ask of them again and again. For the tests of ZFS beside it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from ansible_collections.restorepoint.core.tests.guest.machine import Machine
from ansible_collections.restorepoint.core.tests.lab.driver import Result

KEY = "/root/zfs.key"


class Pools:
    """The pools ``tank`` and ``two``. Every test has a dataset of its own in each."""

    def __init__(self, guest: Machine) -> None:
        self.guest = guest
        self._numbers = itertools.count(1)
        self._import_or_make()

    def _import_or_make(self) -> None:
        self.guest.script(
            "for pool in tank two; do zpool list $pool >/dev/null 2>&1 && zpool destroy -f $pool; done;"
            "zpool create -f -O atime=off tank /dev/ubdb; zpool create -f -O atime=off two /dev/ubdc;"
            f"echo 'a secret that is long' > {KEY}; sync"
        )

    def import_again(self) -> None:
        """After a boot: nothing imports pools by itself here."""
        self.guest.script("modprobe zfs; zpool import -a -d /dev; zfs load-key -a; zfs mount -a")

    def destroy(self) -> None:
        """Leave the disks empty. A pool is busy while udev looks at one of its volumes."""
        self.guest.script("udevadm settle; for pool in tank two; do zpool destroy -f $pool; done")

    def fresh(self, pool: str = "tank") -> str:
        """Make a filesystem for one test, and return its name."""
        name = f"{pool}/t{next(self._numbers)}"
        self.guest.run("zfs", "create", name)
        return name

    def zfs(self, *words: str) -> str:
        """Run `zfs`."""
        return self.guest.run("zfs", *words).strip()

    def script(self, text: str) -> str:
        """Run a bash script."""
        return self.guest.script(text)

    def write(self, dataset: str, text: str, file: str = "f") -> None:
        """Write a file in a filesystem."""
        self.guest.run("dd", f"of=/{dataset}/{file}", "conv=fsync", "status=none", input=text)

    def read(self, dataset: str, file: str = "f") -> str:
        """Return the content of a file in a filesystem."""
        return self.guest.read(f"/{dataset}/{file}")

    def device(self, volume: str) -> str:
        """Return a volume's device, when udev has made it."""
        return self.guest.device(f"/dev/zvol/{volume}")

    def write_volume(self, volume: str, text: str) -> None:
        """Write at the beginning of a volume."""
        self.guest.run("dd", f"of={self.device(volume)}", "conv=fsync,notrunc", "status=none", input=text)
        self.guest.run("udevadm", "settle")

    def read_volume(self, volume: str, length: int = 3) -> str:
        """Return what stands at the beginning of a volume, past the cache."""
        self.guest.run("blockdev", "--flushbufs", self.device(volume))
        return self.guest.run("head", "-c", str(length), self.device(volume))

    def snapshots(self, dataset: str) -> list[str]:
        """Return the names of a dataset's snapshots, oldest first."""
        listed = self.zfs("list", "-H", "-t", "snapshot", "-o", "name", "-s", "createtxg", "-d", "1", dataset)
        return [line.partition("@")[2] for line in listed.splitlines()]

    def get(self, name: str, key: str, source: bool = False) -> str:
        """Return a property's value, or its source."""
        return self.zfs("get", "-Hp", "-o", "source" if source else "value", key, name)

    def call(self, state: str = "present", **options: Any) -> Result:
        """Run zfs_snapshot."""
        return self.guest.call("zfs_snapshot", state=state, **options)

    def info(self, **options: Any) -> Result:
        """Run zfs_snapshot_info."""
        return self.guest.call("zfs_snapshot_info", **options)

    def predicted_then_done(self, state: str = "present", **options: Any) -> Result:
        """Run check mode, then for real, then again: it predicts exactly, and a second run changes nothing."""
        predicted = self.call(state, check_mode=True, **options)
        done = self.call(state, **options)
        assert predicted.told == done.told
        assert predicted["changed"] == done["changed"]
        assert not self.call(state, **options)["changed"]
        return done

    def marks(self, pool: str) -> str:
        """Return the marks of unfinished changes that there are in a pool."""
        keys = "restorepoint:return,restorepoint:mounted,restorepoint:replacing,restorepoint:once-begun"
        return self.zfs("get", "-Hr", "-s", "local", "-o", "name,property,value", keys, pool)


def two_pools(guest: Machine) -> Iterator[Pools]:
    """Give the pools to a module of tests, and take them away afterwards."""
    pools = Pools(guest)
    yield pools
    pools.destroy()
