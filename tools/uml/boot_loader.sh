#!/usr/bin/env bash
# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The boot loader of a guest with a root on LVM: becomes the kernel that lies in the guest's /boot now, with the initrd
# beside it. User-mode Linux starts its argv[0] again at a reboot, which is this file.
# Usage: boot_loader.sh KERNEL_WORD..., of which ubdc= is the disk with /boot and initrd= is where to put it; called by
# tools/guest.py.
set -euo pipefail
for word; do
    case $word in
    ubdc=*) disk=${word#*=} ;;
    initrd=*) initrd=${word#*=} ;;
    esac
done
kernel=${initrd%/*}/vmlinuz
release=$(ls /usr/lib/uml/modules)
rm -f "$kernel" "$initrd"
/sbin/debugfs -R "dump /vmlinuz-$release $kernel" "$disk"
/sbin/debugfs -R "dump /initrd.img-$release $initrd" "$disk"
chmod +x "$kernel"
exec -a "$0" "$kernel" "$@"
