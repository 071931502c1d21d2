# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drills of claims against a real control plane: a new claim of the snapshot, the user's look at it, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.agent import cli
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.agent.test_agent import TOOL, Host

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("KUBECONFIG_LAB")), reason="needs the driver of the project's cluster"
)


@pytest.fixture
def host(cluster, namespace, tmp_path):
    """A host whose policy has taken a claim, which was damaged since."""
    found = Host(tmp_path)
    cluster.claim(namespace, "data", {"a": "one"})
    found.policy["targets"] = [{
        "backend": "csi", "namespace": [namespace], "pvc": ["data"], "kubeconfig": str(cluster.kubeconfig)
    }]  # fmt: skip
    assert found.call("run", "dev")[0] == 0, found.journal
    cluster.write(namespace, "data", {"a": "damaged"})
    return found


def claims(cluster, namespace):
    return sorted(each["metadata"]["name"] for each in cluster.api.items(cluster.claim_path(namespace)))


def test_a_drill_makes_a_claim_of_the_snapshot_shows_it_to_the_command_and_removes_it(cluster, namespace, host):
    host.policy["drill"] = {"command": ["sh", "-c", f"echo $RESTOREPOINT_CLAIM > {host.folder}/claim"]}
    code, text = host.call("drill", "dev")
    assert code == cli.OK, text
    shown = (host.folder / "claim").read_text().strip()
    assert shown.startswith(f"{namespace}/restorepoint-drill-")
    assert claims(cluster, namespace) == ["data"]
    assert host.journal[-1]["drills"][0]["ok"]
    assert cluster.read(namespace, "data") == {"a": "damaged"}
    host.policy["drill"] = {"command": ["false", "{claim}"]}
    code, text = host.call("drill", "dev")
    assert code == cli.FAULTS
    assert f"false {namespace}/restorepoint-drill-" in text
    assert claims(cluster, namespace) == ["data"]


def test_the_claim_of_a_drill_that_was_killed_has_the_bytes_of_the_snapshot_and_goes(cluster, namespace, host):
    host.policy["drill"] = {"command": ["sh", "-c", 'kill -KILL "$PPID"']}
    archive = host.folder / "restorepoint.pyz"
    subprocess.run([sys.executable, TOOL, archive], check=True, capture_output=True, timeout=300)
    done = subprocess.run([sys.executable, archive, *host.arguments, "drill", "dev"], timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL
    (clone,) = set(claims(cluster, namespace)) - {"data"}
    assert cluster.read(namespace, clone) == {"a": "one"}
    assert host.call("recover", "dev")[0] == cli.OK
    assert claims(cluster, namespace) == ["data"]
    assert host.journal[-1]["outcome"] == "killed"
