#!/usr/bin/env bash
# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs in the guest instead of init, before its first boot: copies the root as it was built onto /dev/ubdb, as the kind
# that ROOT names, and ends. tools/guest.py reads the last line of what it says.
set -euo pipefail
trap 'code=$?; sync; echo "lay-root: $code"; poweroff -f' EXIT
export PATH=/usr/sbin:/usr/bin DM_DISABLE_UDEV=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
case $ROOT in
lvm)
    modprobe dm-mod
    vgcreate -qy vg0 /dev/ubdb
    lvcreate -qy -An -Wn -Zn -L "$(blockdev --getsize64 /dev/ubda)b" -n root vg0
    e2image -ra /dev/ubda /dev/mapper/vg0-root
    mount /dev/mapper/vg0-root /mnt
    # What boots it lies on a filesystem of its own, as on most machines.
    mkfs.ext4 -q -O ^metadata_csum /dev/ubdc
    mount /dev/ubdc /run
    mv /mnt/boot/* /run/
    printf '/dev/vg0/root / ext4 defaults 0 1\n/dev/ubdc /boot ext4 defaults 0 2\n' > /mnt/etc/fstab
    umount /run /mnt
    ;;
btrfs)
    mkfs.btrfs -q /dev/ubdb
    mount /dev/ubdb /mnt
    btrfs -q subvolume create /mnt/@
    cp -ax /. /mnt/@
    printf '/dev/ubdb / btrfs subvol=@ 0 0\n' > /mnt/@/etc/fstab
    umount /mnt
    ;;
*)
    exit 2
    ;;
esac
