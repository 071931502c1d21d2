# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of LVM in the guest share: a volume group with thick and thin volumes, and small questions to it."""

from __future__ import annotations

from typing import Any

from ansible_collections.restorepoint.core.tests.guest.machine import Machine

VG = "vg0"
#: Takes away the mounts and the volumes; then tells how many volumes, disks and missing disks the group has.
_EMPTY = f"""
for m in $(grep -o ' /mnt/[^ ]*' /proc/self/mountinfo | sort -r); do umount "$m" || exit; done
lvremove -qffy {VG} >/dev/null 2>&1 && vgs --noheadings -o lv_count,pv_count,vg_missing_pv_count {VG}
"""


class Storage:
    """The volume group ``vg0`` in the guest: thick ``lv1`` and ``lv2``, thin ``t1`` and ``t2`` in ``pool``."""

    def __init__(self, guest: Machine) -> None:
        self.guest = guest

    def build(self) -> None:
        """Make it anew; the group itself stays where nothing but volumes has been made of it since."""
        done = self.guest.run("bash", "-c", _EMPTY, check=False).split()
        if done != ["0", "1", "0"]:
            self.guest.clear_disks()
            self.guest.script(f"pvcreate -qy /dev/ubdb && vgcreate -q {VG} /dev/ubdb")

    def thick(self, name: str, megabytes: int = 64, filesystem: str | None = "ext4") -> str:
        """Make a thick volume with a filesystem; return vg/lv."""
        self.guest.run("lvcreate", "-qy", "-Wy", "-L", f"{megabytes}M", "-n", name, VG)
        return self._formatted(name, filesystem)

    def thin(self, name: str, megabytes: int = 64, filesystem: str | None = "ext4", pool: int = 200) -> str:
        """Make a thin volume, and its pool where there is none; return vg/lv."""
        there = self.guest.exists(f"/dev/mapper/{VG}-pool-tpool")
        size = [] if there else ["-L", f"{pool}M"]
        self.guest.run(
            *("lvcreate", "-qy", "--type", "thin", *size, "-V", f"{megabytes}M"),
            *("--thinpool", f"{VG}/pool", "-n", name),
        )
        return self._formatted(name, filesystem)

    def _formatted(self, name: str, filesystem: str | None) -> str:
        if filesystem is not None:
            force = "-F" if filesystem == "ext4" else "-f"
            self.guest.run(f"mkfs.{filesystem}", "-q", force, f"/dev/{VG}/{name}")
        return f"{VG}/{name}"

    def mount(self, name: str, *options: str) -> str:
        """Mount a volume; return where."""
        self.guest.run("mkdir", "-p", f"/mnt/{name}")
        self.guest.run("mount", *options, f"/dev/{VG}/{name}", f"/mnt/{name}")
        return f"/mnt/{name}"

    def unmount(self, name: str) -> None:
        """Unmount it."""
        self.guest.run("umount", f"/mnt/{name}")

    def put(self, name: str, content: str) -> None:
        """Write the file ``f`` on an unmounted volume."""
        self.guest.script(f"mount -t auto /dev/{VG}/{name} /mnt && echo {content} > /mnt/f && umount /mnt")

    def get(self, name: str) -> str:
        """Read the file ``f`` of an unmounted volume, as it would be after a boot."""
        return self.guest.script(
            f"lvchange -y -ay -K {VG}/{name}; mount -o ro /dev/{VG}/{name} /mnt 2>/dev/null"
            f" || mount -o ro,norecovery,nouuid /dev/{VG}/{name} /mnt; cat /mnt/f; umount /mnt"
        ).strip()

    def volumes(self) -> list[str]:
        """Return the names of all volumes that are not LVM's own."""
        out = self.guest.run("lvs", "--noheadings", "-o", "lv_name", VG, check=False)
        return sorted(line.strip() for line in out.splitlines())

    def identities(self) -> list[str]:
        """Return the names of all volumes that are not LVM's own, each with its UUID and its tags."""
        out = self.guest.run("lvs", "--noheadings", "-o", "lv_name,lv_uuid,lv_tags", VG)
        return sorted(" ".join(line.split()) for line in out.splitlines())

    def field(self, name: str, field: str) -> str:
        """Return a field of lvs of a volume."""
        return self.guest.run("lvs", "--noheadings", "-a", "-o", field, f"{VG}/{name}").strip()

    def snapshot(self, *volumes: str, **options: Any) -> Any:
        """Call lvm_snapshot."""
        return self.guest.call("lvm_snapshot", volume=list(volumes), **options)

    def info(self, *volumes: str, **options: Any) -> Any:
        """Call lvm_snapshot_info."""
        return self.guest.call("lvm_snapshot_info", volume=list(volumes) or None, **options)

    def names(self, volume: str) -> list[str]:
        """Return the names of the snapshots of a volume, oldest first."""
        return [each["name"] for each in self.info(volume)["snapshots"]]
