#!/usr/bin/env bash
# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Build OpenZFS's kernel modules for Debian's user-mode Linux, into the folder given.
# Debian ships that kernel without headers. Its configuration (--showconfig), the same version of the kernel's source and
# the table of exported symbols in the ELF file are enough: it has no CONFIG_MODVERSIONS.
# The kernel is that of this machine's Debian (KERNEL_SUITE), OpenZFS that of the guest's (SUITE), for its tools to match.
# Called by tools/guest.py, with SUITE, KERNEL_SUITE and MIRROR set.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$1
kernel=$(ls /usr/lib/uml/modules)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# contrib, without touching the machine's own apt settings
mkdir -p apt/lists/partial apt/archives/partial
for suite in "$KERNEL_SUITE" "$SUITE"; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $MIRROR $suite main contrib"
done | sort -u > apt/sources
apt=(apt-get -q -o "Dir::Etc::SourceList=$work/apt/sources" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$work/apt/lists"
    -o "Dir::Cache=$work/apt" -o APT::Sandbox::User=root)
"${apt[@]}" update
built_from=$(dpkg-query --show --showformat '${Built-Using}' user-mode-linux | sed -n 's/.*linux (= \([^)]*\)).*/\1/p')
"${apt[@]}" download "linux-source-${kernel%.*}=$built_from" "zfs-dkms/$SUITE"
for package in *.deb; do dpkg-deb --extract "$package" x; done
tar --extract --file x/usr/src/linux-source-*.tar.xz --exclude='*/drivers/gpu/drm/amd/include/*' \
    --exclude='*/tools/testing' --exclude='*/Documentation/[a-z]*'

tree=$(echo "$work"/linux-source-*/)
export ARCH=um
linux.uml --showconfig > "$tree/.config"
make --silent -C "$tree" olddefconfig
make --silent -C "$tree" -j"$(nproc)" modules_prepare
python3 "$here/symvers.py" "$(command -v linux.uml)" > "$tree/Module.symvers"
[ "$(cat "$tree/include/config/kernel.release")" = "$kernel" ]

cd "$(echo "$work"/x/usr/src/zfs-*)"
# This kernel has no SIMD; it is x86_64 without calling itself x86; and arch/um has its own setjmp. OpenZFS 2.3 knows
# the second and the third by itself.
cp "$here/simd_x86.h" include/os/linux/kernel/linux/simd_x86.h
find module -mindepth 2 -name Makefile.in -exec sed -i 's/\$(CONFIG_X86)/$(CONFIG_X86_64)/' {} +
grep -q CONFIG_UML include/os/linux/zfs/sys/zfs_context_os.h ||
    sed -i '1i #define setjmp kernel_setjmp\n#define longjmp kernel_longjmp' module/lua/setjmp/setjmp_x86_64.S
./configure --quiet --disable-dependency-tracking --with-config=kernel --with-linux="$tree" --with-linux-obj="$tree"
make --silent -j"$(nproc)" > make.log 2>&1 || { tail -30 make.log; exit 1; }
if grep 'undefined!' make.log; then exit 1; fi
find module -name '*.ko' -printf '%p\n' | while read -r module; do
    strip --strip-debug -o "$out/$(basename "$module")" "$module"
done
