# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Thin pools and snapshots that dmeventd extends before they are full, set up by lvm_layout and seen by info.

The settings are those that the role lvm writes. dmeventd looks every 10 seconds.
"""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.tests.guest.lvm import Storage

PROFILE = "/etc/lvm/profile/extended.profile"
LOCAL = "/etc/lvm/lvmlocal.conf"
MIB = 1 << 20


@pytest.fixture
def storage(guest):
    storage = Storage(guest)
    storage.build()
    return storage


@pytest.fixture
def extending(guest):
    """Set pools of the profile ``extended``, and all snapshots, to be extended by a fifth from 70 % on."""
    thin = "activation {\n thin_pool_autoextend_threshold = 70\n thin_pool_autoextend_percent = 20\n}\n"
    thick = "activation {\n snapshot_autoextend_threshold = 70\n snapshot_autoextend_percent = 20\n}\n"
    before = guest.read(LOCAL)
    guest.write(PROFILE, thin)
    guest.write(LOCAL, before + thick)
    yield
    guest.write(LOCAL, before)
    guest.run("rm", PROFILE)


def fill(guest, place, megabytes):
    guest.run("dd", "if=/dev/urandom", f"of={place}", "bs=1M", f"count={megabytes}", "conv=fsync", "status=none")


def shown_after(storage, guest, volume, size_of, size):
    """Ask info until a size is another one, for ten minutes at most; return what it shows then."""
    for _unused in range(300):
        shown = storage.info(volume)
        if size_of(shown) != size:
            break
        guest.run("sleep", "2")
    return shown


def pool_size(shown):
    return shown["pools"][0]["size_bytes"]


def snapshot_size(shown):
    return shown["snapshots"][0]["size_bytes"]


def test_a_thin_pool_of_the_layout_grows_when_it_is_filled_to_its_threshold(storage, guest, extending):
    layout = {
        "volume_groups": [{"name": "vg0", "devices": ["/dev/ubdb"]}],
        "thin_pools": [{"volume_group": "vg0", "name": "pool", "size": "100M", "profile": "extended"}],
        "volumes": [{"volume_group": "vg0", "name": "t1", "thin_pool": "pool", "size": "400M"}],
    }
    assert guest.call("lvm_layout", **layout)["changed"]
    [pool] = storage.info("vg0/t1")["pools"]
    assert (pool["size_bytes"], pool["profile"], pool["monitored"]) == (100 * MIB, "extended", True)
    assert (pool["autoextend_threshold"], pool["autoextend_percent"], pool["autoextends"]) == (70, 20, True)
    fill(guest, "/dev/vg0/t1", 60)
    guest.run("sleep", "12")
    assert pool_size(storage.info("vg0/t1")) == 100 * MIB
    fill(guest, "/dev/vg0/t1", 80)
    [grown] = shown_after(storage, guest, "vg0/t1", pool_size, 100 * MIB)["pools"]
    assert grown["size_bytes"] == 120 * MIB
    assert 60 < grown["data_percent"] < 70
    assert grown["health"] is None
    # The layout that it was made of still stands: nothing makes the pool small again.
    assert not guest.call("lvm_layout", **layout)["changed"]


def test_a_thick_snapshot_of_ours_grows_before_it_overflows_and_is_still_good(storage, guest, extending):
    volume = storage.thick("lv1", 64)
    storage.put("lv1", "one")
    taken = storage.snapshot(volume, name="first", size="16M")
    assert taken["results"][0]["snapshot"]["size_bytes"] == 16 * MIB
    shown = storage.info(volume)
    assert shown["autoextend"]["snapshot_autoextend_threshold"] == 70
    at = storage.mount("lv1")
    fill(guest, f"{at}/filling", 12)
    storage.unmount("lv1")
    grown = shown_after(storage, guest, volume, snapshot_size, 16 * MIB)
    assert snapshot_size(grown) == 20 * MIB
    [snapshot] = grown["snapshots"]
    assert snapshot["ready"]
    storage.put("lv1", "two")
    assert storage.snapshot(volume, name="first", state="rolled_back")["changed"]
    assert storage.get("lv1") == "one"
