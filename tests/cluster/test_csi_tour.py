# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks for claims, played with ansible-playbook against a real control plane; data is compared on disk."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from ansible_collections.restorepoint.core.tests.cluster.lab import CHECKOUT, NODE, contents
from ansible_collections.restorepoint.core.tests.cluster.test_claims import Volumes

DRIVER = "folders.restorepoint.test"
pytestmark = pytest.mark.skipif(
    bool(os.environ.get("KUBECONFIG_LAB")), reason="needs the driver of the project's cluster"
)


@pytest.fixture
def play(cluster, tmp_path):
    """Play a playbook of the collection; return (ok, changed) of each host."""
    place = tmp_path / "collections" / "ansible_collections" / "restorepoint"
    place.mkdir(parents=True)
    (place / "core").symlink_to(CHECKOUT)
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections"),
        "ANSIBLE_HOME": str(tmp_path / "ansible"),
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "ANSIBLE_NOCOLOR": "1",
        "K8S_AUTH_KUBECONFIG": str(cluster.kubeconfig),
    }

    def run(name, *arguments, **variables):
        command = [sys.executable, "-m", "ansible", "playbook", f"restorepoint.core.{name}", *arguments]
        ended = subprocess.run(
            [*command, "--extra-vars", json.dumps(variables)], cwd=tmp_path, env=environment, text=True,
            capture_output=True, stdin=subprocess.DEVNULL, timeout=300, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout + ended.stderr
        recap = re.findall(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)", ended.stdout, re.MULTILINE)
        return {host: (int(ok), int(changed)) for host, ok, changed in recap}, ended.stdout

    return run


def test_the_tour_of_one_claim_changes_things_once_and_restores_its_bytes(cluster, namespace, play):
    cluster.claim(namespace, "data", {"a": "one", "sub/b": b"\x00\xff"})
    before = cluster.read(namespace, "data")
    asked = {
        "csi_namespace": namespace,
        "csi_claim": "data",
        "csi_driver": {
            "kind": "csi_hostpath", "driver": DRIVER, "name": f"tour-{namespace}", "volume_binding_mode": "Immediate",
        },
        "csi_snapshots_install_controller": False,
    }  # fmt: skip
    try:
        first, shown = play("csi_tour", **asked)
        assert first["localhost"][1] == 3  # the classes, the snapshot, the claim
        assert f"{namespace}/data tour" in shown
        cluster.write(namespace, "data", {"a": "damaged"})
        assert cluster.read(namespace, "data-restored") == before
        again, _shown = play("csi_tour", **asked)
        assert again["localhost"][1] == 0
        assert cluster.read(namespace, "data-restored") == before
    finally:
        cluster.api.delete(f"/apis/storage.k8s.io/v1/storageclasses/tour-{namespace}")
        cluster.api.delete(f"/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses/tour-{namespace}")


def test_claims_are_taken_listed_restored_and_pruned_by_playbooks_whose_variables_are_text(cluster, namespace, play):
    cluster.claims(namespace, ["db", "web"])
    for number in (1, 2):
        named = {"csi_namespace": namespace, "csi_claims": "db,web", "csi_owner": "nightly"}
        play("csi_take_restore_point", restore_point=f"nightly-{number}", **named)
    _recap, shown = play("csi_list_snapshots", csi_namespace=namespace)
    assert shown.count("nightly-1, taken") == shown.count("nightly-2, taken") == 2
    cluster.write(namespace, "db", {"name": "damaged"})
    play("csi_restore_into_new_claims", restore_point="nightly-1", csi_namespace=namespace, csi_claims="db,web")
    assert cluster.read(namespace, "db-restored") == {"name": "db"}
    assert cluster.read(namespace, "web-restored") == {"name": "web"}
    play("csi_prune_by_policy", csi_keep_last="1", **named)
    cluster.until(lambda: len(cluster.snapshots(namespace)) == 2, "the older ones are gone")
    assert all(name.endswith("nightly-2") for name in cluster.snapshots(namespace))


def test_claims_return_in_place_and_the_return_is_undone(cluster, namespace, play):
    cluster.claim(namespace, "db", {"a": "one"})
    named = {"csi_namespace": namespace, "csi_claims": "db"}
    play("csi_take_restore_point", restore_point="pre-upgrade", **named)
    cluster.write(namespace, "db", {"a": "two"})
    play("csi_roll_back_claims", restore_point="pre-upgrade", **named)
    assert cluster.read(namespace, "db") == {"a": "one"}
    play("csi_roll_back_claims", csi_undo="yes", **named)
    assert cluster.read(namespace, "db") == {"a": "two"}


def test_a_play_over_nodes_takes_on_each_what_lies_there(cluster, namespace, play, tmp_path):
    volumes = Volumes(cluster, namespace, tmp_path / "default-storage")
    here = volumes.add("data", NODE, files={"a": "one"})
    there = volumes.add("logs", "node-9", files={"b": "two"})
    hosts = {
        "k1": {"restorepoint_node": NODE},
        "k2": {"ansible_host": "node-9.example.org", "ansible_connection": "local"},
        "k3": {},
    }
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"nodes": {"hosts": {name: {**local, **each} for name, each in hosts.items()}}}))
    asked = {"target": "nodes", "claim_namespaces": namespace, "claim_become": "no", "restore_point": "x",
             "claim_store": f"{tmp_path}/store"}  # fmt: skip
    try:
        recap, _shown = play("hostpath_claims", "-i", str(inventory), **asked)
        assert {host: changed for host, (_ok, changed) in recap.items()} == {"localhost": 0, "k1": 1, "k2": 1, "k3": 0}
        before = [contents(here), contents(there)]
        (here / "a").write_text("damaged")
        (there / "new").write_text("later")
        recap, _shown = play("hostpath_claims", "-i", str(inventory), claim_state="rolled_back", **asked)
        assert [contents(here), contents(there)] == before
        recap, _shown = play("hostpath_claims", "-i", str(inventory), claim_state="rolled_back", **asked)
        assert sum(changed for _ok, changed in recap.values()) == 0
    finally:
        volumes.remove()


def test_who_is_told_to_set_variables_is_told_which(play):
    with pytest.raises(AssertionError, match="Set csi_namespace, and csi_claims or csi_selector"):
        play("csi_take_restore_point")


def test_the_role_stops_at_a_release_whose_checksums_it_does_not_know(play):
    with pytest.raises(AssertionError, match=r"this role knows the manifests of 8[.]6[.]0 only"):
        play("csi_set_up_cluster", csi_snapshots_version="9.9.9")
