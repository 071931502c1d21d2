# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One restore point of real LVM, ZFS and a directory: taken on all of them or on none, and all of them return."""

from __future__ import annotations

import pytest

from ansible_collections.restorepoint.core.tests.guest.machine import VOLUME_AND_DATASET
from ansible_collections.restorepoint.core.tests.lab.driver import Failed

TARGETS = [
    {"backend": "lvm", "volume": "vg0/data", "size": "32M", "unmount": "true"},
    {"backend": "zfs", "dataset": "rp/shop"},
    {"backend": "hostpath", "path": "/root/rp/data", "store": "/root/rp/store"},
]
PLACES = ("/mnt/data", "/mnt/rp/shop", "/root/rp/data")


@pytest.fixture(scope="module")
def host(guest):
    """The guest with all three, each with a file."""
    guest.script(VOLUME_AND_DATASET + "mkdir -p /root/rp/data")
    write(guest, "one")
    yield guest
    guest.run("rm", "-rf", "/root/rp")


def write(guest, word):
    guest.script("".join(f"echo {word} > {place}/file\n" for place in PLACES) + "sync")


def words(guest):
    return [guest.read(f"{place}/file").strip() for place in PLACES]


def play(guest, state="present", **options):
    return guest.call("restore_point", name="upgrade", state=state, targets=TARGETS, **options)


def test_where_one_kind_fails_none_keeps_a_snapshot(host):
    given = {"name": "upgrade", "state": "present", "targets": TARGETS}
    with host.shims("zfs", at=0, when="never") as folder:
        host.finished(host.start("restore_point", shims=folder, **given))
        (number,) = [at for at, call in enumerate(host.calls(), 1) if " zfs snapshot " in call]
    play(host, "absent")
    with host.shims("zfs", at=number, when="failing") as folder, pytest.raises(Failed, match="the shim says no"):
        host.finished(host.start("restore_point", shims=folder, **given))
    assert [each["exists"] for each in play(host, check_mode=True)["parts"]] == [False] * 3


def test_all_kinds_are_taken_and_return_together(host):
    assert [each["action"] for each in play(host)["results"]] == ["created"] * 3
    assert not play(host)["changed"]
    write(host, "two")
    play(host, "rolled_back", once="t1")
    assert words(host) == ["one"] * 3
    write(host, "three")
    assert not play(host, "rolled_back", once="t1")["changed"], "the job that returns has returned"
    assert words(host) == ["three"] * 3
