#!/usr/bin/env bash
# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Make the guest's root filesystem: Debian with real systemd, LVM, ZFS and Btrfs, as a sparse ext4 image.
# It is never mounted here. Usage: build_root.sh IMAGE MODULES PUBLIC_KEY; called by tools/guest.py, with SUITE, MIRROR,
# GUEST_IP and HOST_IP set.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
image=$1 modules=$2 key=$3
kernel=$(ls /usr/lib/uml/modules)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
packages=systemd,systemd-sysv,udev,dbus,openssh-server,python3,python3-apt,lvm2,dmeventd,thin-provisioning-tools
packages=$packages,zfsutils-linux,btrfs-progs,xfsprogs,e2fsprogs,rsync,cron,iproute2,kmod,psmisc,ca-certificates
packages=$packages,initramfs-tools
debootstrap --variant=minbase --components=main,contrib --include="$packages" "$SUITE" "$root" "$MIRROR" \
    > "$work/log" 2>&1 || { tail "$work/log"; exit 1; }
rm -f "$root"/var/cache/apt/archives/*.deb

# The guest has no network. What tests install there lies in a repository of its own.
cp /etc/resolv.conf "$root/etc/resolv.conf"
chroot "$root" apt-get -qq update
chroot "$root" apt-get -qq install --yes --no-install-recommends --download-only sanoid
mkdir -p "$root/srv/packages"
mv "$root"/var/cache/apt/archives/*.deb "$root/srv/packages/"
(
    cd "$root/srv/packages"
    for package in *.deb; do
        dpkg-deb --field "$package"
        printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$package" "$(stat --format=%s "$package")" \
            "$(sha256sum "$package" | cut -d' ' -f1)"
    done > Packages
)
echo 'deb [trusted=yes] file:/srv/packages ./' > "$root/etc/apt/sources.list"
rm -rf "$root"/var/lib/apt/lists/*
chroot "$root" apt-get -qq update

install -d -m 700 "$root/root/.ssh"
install -m 600 "$key" "$root/root/.ssh/authorized_keys"
echo guest > "$root/etc/hostname"
printf '127.0.0.1 localhost guest\n' > "$root/etc/hosts"
: > "$root/etc/machine-id"
printf '/dev/ubda / ext4 defaults 0 1\n' > "$root/etc/fstab"
printf 'dm-mod\ndm-snapshot\ndm-thin-pool\nzfs\nloop\noverlay\n' > "$root/etc/modules-load.d/storage.conf"
printf 'UsePAM yes\nUseDNS no\nMaxStartups 100\n' > "$root/etc/ssh/sshd_config.d/guest.conf"
# A merge is looked at every 15 s by default.
sed -i 's/^\(\s*\)#* *polling_interval *=.*/\1polling_interval = 1/' "$root/etc/lvm/lvm.conf"
grep -q '^\s*polling_interval = 1' "$root/etc/lvm/lvm.conf"
cat > "$root/etc/systemd/network/10-guest.network" <<NETWORK
[Match]
Name=eth* vec* en*
[Network]
Address=$GUEST_IP/24
Gateway=$HOST_IP
NETWORK
# Cold plug only what matters: there are very many terminals, and each costs time at boot.
mkdir -p "$root/etc/systemd/system/systemd-udev-trigger.service.d"
cat > "$root/etc/systemd/system/systemd-udev-trigger.service.d/guest.conf" <<UNIT
[Service]
ExecStart=
ExecStart=udevadm trigger --type=devices --action=add --subsystem-match=block --subsystem-match=net
UNIT
chroot "$root" systemctl --quiet enable systemd-networkd ssh
chroot "$root" systemctl --quiet mask getty@tty1.service getty-static.service systemd-timesyncd apt-daily.timer \
    apt-daily-upgrade.timer systemd-networkd-wait-online.service e2scrub_reap.service e2scrub_all.timer \
    systemd-udev-settle.service zfs-import-cache.service zfs-import-scan.service zfs-zed.service zfs-load-module.service \
    systemd-binfmt.service systemd-pstore.service modprobe@efi_pstore.service modprobe@drm.service \
    systemd-network-generator.service systemd-hwdb-update.service systemd-journal-catalog-update.service ldconfig.service
mkdir -p "$root/lib/modules/$kernel"
cp -a "/usr/lib/uml/modules/$kernel" "$root/lib/modules/"
mkdir -p "$root/lib/modules/$kernel/extra"
cp "$modules"/*.ko "$root/lib/modules/$kernel/extra/"
/sbin/depmod -b "$root" "$kernel"
# For another root than this disk, see lay_root.sh and boot_loader.sh. A root on LVM needs its modules before it is there.
if [ "$SUITE" = "$(. /etc/os-release && echo "$VERSION_CODENAME")" ]; then
    install "$here/lay_root.sh" "$root/usr/local/sbin/lay-root"
    install -m 644 "$(command -v linux.uml)" "$root/boot/vmlinuz-$kernel"
    linux.uml --showconfig > "$root/boot/config-$kernel"
    ln -s "boot/vmlinuz-$kernel" "$root/vmlinuz"
    ln -s "boot/initrd.img-$kernel" "$root/initrd.img"
    sed -i 's/^MODULES=.*/MODULES=list/' "$root/etc/initramfs-tools/initramfs.conf"
    chroot "$root" mkinitramfs -o "/boot/initrd.img-$kernel" "$kernel"
fi
touch "$root/etc/.updated" "$root/var/.updated"
mkfs.ext4 -q -O ^metadata_csum -d "$root" "$image" 4G
