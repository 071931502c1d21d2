# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hook that scales a workload down and back, on a real control plane, by the agent's own file."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.agent import cli
from ansible_collections.restorepoint.core.plugins.module_utils.backends.csi.workloads.kinds import MARK
from ansible_collections.restorepoint.core.tests.cluster.lab import APPS, CORE
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.agent.test_agent import TOOL, Host

KINDS = {"Deployment": "deployment", "StatefulSet": "statefulset"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The agent as one file."""
    target = tmp_path_factory.mktemp("agent") / "restorepoint.pyz"
    subprocess.run([sys.executable, TOOL, target], check=True, capture_output=True, timeout=120)
    return target


class Shop(Host):
    """A host whose policy scales a workload of a cluster down. ``rights``: a login that may do nothing else."""

    def __init__(self, folder, archive, cluster, namespace, kind):
        super().__init__(folder)
        self.archive = archive
        self.cluster, self.namespace, self.kind = cluster, namespace, kind
        cluster.claim(namespace, "data")
        self.path = cluster.deployment(namespace, "web", "data", replicas=2, kind=kind)
        plural = f"{KINDS[kind]}s"
        rules = [
            {"apiGroups": ["apps"], "resources": [plural], "verbs": ["get", "patch"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
        ]
        self.user = cluster.user(namespace, rules, [])
        self.hook = {
            "kind": "workload",
            "name": "web",
            "namespace": namespace,
            "workload": f"{KINDS[kind]}/web",
            "kubeconfig": str(self.user.kubeconfig),
            "timeout": "120s",
        }
        self.policy["hooks"] = [self.hook]

    def call(self, *argv):
        """Run a command, in a process of its own: here there are threads; return its exit code and what it printed."""
        command = [sys.executable, self.archive, *self.arguments, *argv]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
        return done.returncode, done.stdout

    @property
    def replicas(self):
        return self.cluster.api.get(self.path)["spec"]["replicas"]

    @property
    def marked(self):
        metadata = self.cluster.api.get(self.path)["metadata"]
        return MARK in {**metadata.get("labels", {}), **metadata.get("annotations", {})}

    def up(self):
        """Wait until its pods run."""

        def running():
            pods = self.cluster.api.items(f"{CORE}/namespaces/{self.namespace}/pods")
            return sum(each["status"].get("phase") == "Running" for each in pods) == 2

        self.cluster.until(running, "two pods run")

    def waiting(self):
        """Give it a last hook that waits, and return the path of the file with that hook's process."""
        pid = self.folder / "pid"
        words = f"echo $$ > {pid}.part; mv {pid}.part {pid}; exec sleep 1000"
        self.policy["hooks"] = [
            self.hook,
            {"kind": "command", "name": "wait", "before": ["sh", "-c", words], "timeout": "1h"},
        ]
        return pid


@pytest.fixture(params=KINDS)
def shop(tmp_path, archive, cluster, namespace, request):
    with cluster.node(namespace):
        found = Shop(tmp_path, archive, cluster, namespace, request.param)
        found.up()
        yield found


def test_it_has_no_pods_while_the_snapshots_are_taken_and_the_replicas_that_it_had_afterwards(shop):
    pods = f"{shop.cluster.api.server}{CORE}/namespaces/{shop.namespace}/pods"
    seen = (
        f"import ssl, json, sys, urllib.request as u; c = ssl._create_unverified_context(); "
        f"r = u.Request({pods!r}, headers={{'Authorization': 'Bearer ' + sys.stdin.read()}}); "
        "assert json.load(u.urlopen(r, context=c))['items'] == []"
    )
    token = shop.folder / "token"
    token.write_text(shop.user.token)
    look = ["sh", "-c", f'exec {sys.executable} -c "$1" < {token}', "sh", seen]
    shop.policy["hooks"].append({"kind": "command", "name": "look", "before": look})
    code, text = shop.call("run", "dev")
    assert code == 0, (text, shop.journal)
    assert (shop.replicas, shop.marked) == (2, False)
    assert [(each["before"], each["after"]) for each in shop.journal[0]["hooks"]] == [("done", "done")] * 2


@pytest.mark.parametrize("both", [False, True], ids=["agent killed", "agent and watchdog killed"])
def test_a_killed_agent_brings_it_back(shop, both):
    pid = shop.waiting()
    command = [sys.executable, shop.archive, *shop.arguments, "run", "dev"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as agent:
        shop.cluster.until(pid.exists, "the run waits in its last hook")
        assert (shop.replicas, shop.marked) == (0, True)
        if both:
            # It would bring it back itself between the end of its children and its own.
            agent.send_signal(signal.SIGSTOP)
            children = pathlib.Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
            for child in children:
                os.kill(int(child), signal.SIGKILL)
        agent.kill()
    if not both:
        os.kill(int(pid.read_text()), signal.SIGKILL)
        shop.cluster.until(lambda: (shop.replicas, shop.marked) == (2, False), "it is brought back")
    shop.policy["hooks"] = []
    assert shop.call("run", "dev")[0] == 0
    assert (shop.replicas, shop.marked) == (2, False)
    assert [each["outcome"] for each in shop.journal] == ["killed", "done"]


def test_pods_that_do_not_go_fail_the_run_and_nothing_is_taken(tmp_path, archive, cluster, namespace):
    with cluster.node(namespace, grace=1000):
        shop = Shop(tmp_path, archive, cluster, namespace, "Deployment")
        shop.up()
        shop.hook["timeout"] = "2s"
        assert shop.call("run", "dev")[0] == cli.FAILED
        assert (shop.replicas, shop.marked) == (2, False)
        assert shop.names == []
        assert "in time" in shop.journal[0]["reason"]


def test_what_is_not_there_or_not_allowed_is_said(tmp_path, archive, cluster, namespace):
    with cluster.node(namespace):
        shop = Shop(tmp_path, archive, cluster, namespace, "Deployment")
        shop.up()
        for workload, words in (("deployment/other", "not found"), ("statefulset/web", "forbidden")):
            shop.hook["workload"] = workload
            assert shop.call("run", "dev")[0] == cli.FAILED
            assert words in shop.journal[-1]["reason"]
        assert shop.names == []


def test_one_without_replicas_stays_so(tmp_path, archive, cluster, namespace):
    shop = Shop(tmp_path, archive, cluster, namespace, "Deployment")
    cluster.api.patch(f"{APPS}/namespaces/{namespace}/deployments/web", {"spec": {"replicas": 0}})
    assert shop.call("run", "dev")[0] == 0
    assert (shop.replicas, shop.marked) == (0, False)
