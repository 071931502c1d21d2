# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""csi_snapshot while parts of a real cluster are down, or fail: what it says, and what is left."""

from __future__ import annotations

import threading

import pytest

from ansible_collections.restorepoint.core.tests.cluster.lab import Failed
from ansible_collections.restorepoint.core.tests.cluster.test_csi_snapshot import Shop, actions


@pytest.fixture
def shop(fragile, fragile_namespace):
    return Shop(fragile, fragile_namespace)


def test_without_the_snapshot_controller_the_message_says_so_and_nothing_is_left(shop):
    with shop.cluster.own.without("snapshot-controller"):
        text = shop.fails(name="pre", timeout=3)
        assert "no snapshot controller has taken it up" in text
    shop.cluster.until(lambda: shop.names() == [], "what was made is gone")
    assert actions(shop.run(name="pre")) == ["created", "created"]


def test_a_driver_that_refuses_is_quoted_and_what_was_made_is_gone(shop):
    handle = shop.cluster.volume(shop.namespace, "uploads")["spec"]["csi"]["volumeHandle"]
    fault = {"match": handle, "code": "exhausted", "message": "no space left"}
    with shop.cluster.own.driver_fault("CreateSnapshot", **fault), pytest.raises(Failed) as caught:
        shop.run(name="pre", timeout=20)
    assert "no space left" in caught.value.result["msg"]
    assert sorted(each["action"] for each in caught.value.result["results"]) == ["failed", "undone"]
    # The sidecar comes back to a creation that failed in its own time, and removes only then.
    shop.cluster.until(lambda: shop.names() == [], "what was made is gone", seconds=240)


def test_an_error_of_the_driver_that_passes_is_waited_out(shop):
    entered = shop.cluster.own.driver_fault("CreateSnapshot", code="unavailable", message="not now")
    entered.__enter__()
    timer = threading.Timer(2.0, lambda: entered.__exit__(None, None, None))
    timer.start()
    assert actions(shop.run(name="pre", timeout=120)) == ["created", "created"]
    timer.join()


@pytest.mark.parametrize("state", ["present", "rolled_back"])
def test_an_api_server_that_is_restarted_in_the_middle_is_waited_for(shop, state):
    if state == "rolled_back":
        shop.run(name="pre")
    with shop.cluster.own.driver_fault("CreateSnapshot" if state == "present" else "CreateVolume", delay=3):
        timer = threading.Timer(1.0, lambda: shop.cluster.own.restart("kube-apiserver"))
        timer.start()
        result = shop.run(name="pre", state=state, timeout=300)
        timer.join()
    assert result["changed"]
    assert shop.read() == {"a": "old db"}
