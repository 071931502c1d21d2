# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Policies that a cluster runs, for tests: their jobs set up, and pods run as processes of their accounts.

Called by test_kubernetes_schedule.py and test_kubernetes_monitoring.py.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import urllib.parse

from ansible_collections.restorepoint.core.plugins.module_utils.setup.kubernetes_objects import PROGRAM
from ansible_collections.restorepoint.core.tests.cluster.lab import CORE

BATCH = "/apis/batch/v1"
TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools" / "agent.py"
#: Runs the agent as a pod would, but for where the files of its account lie; also where it starts itself again.
AS_IN_A_POD = """
import runpy, sys
sys.path.insert(0, sys.argv[1])
import restorepoint.agent.serving, restorepoint.kube_accounts
restorepoint.kube_accounts.ACCOUNT = account = sys.argv[2]
plain = restorepoint.agent.serving.itself
def itself(argv):
    program, option, code, *others = plain(argv)
    line = f"import restorepoint.kube_accounts; restorepoint.kube_accounts.ACCOUNT = {account!r}; "
    return [program, option, code.replace("from ", line + "from ", 1), *others]
restorepoint.agent.serving.itself = itself
sys.argv = sys.argv[3:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Schedule:
    """Policies set up in a namespace of jobs, and what comes of running their jobs."""

    def __init__(self, cluster, namespace, agent, folder):
        self.cluster, self.namespace, self.agent, self.folder = cluster, namespace, agent, folder
        self.jobs = f"{namespace}-jobs"
        target = {"backend": "csi", "namespace": namespace, "timeout": 120}
        if cluster.snapshot_class:
            target["snapshot_class"] = cluster.snapshot_class
        self.policy = {
            "name": "shop",
            "targets": [target],
            "schedule": {"calendar": "*-*-* 02:00"},
            "keep": {"last": 1},
        }

    def set_up(self, *policies, **options):
        """Set the policies up: one call in check mode, one in earnest, and one more that may not change anything."""
        given = {
            "policies": list(policies),
            "agent": str(self.agent),
            "namespace": self.jobs,
            "image": "python:none",
            **options,
        }
        foreseen = self.cluster.call("kubernetes_schedule_layout", check_mode=True, diff=True, **given)
        result = self.cluster.call("kubernetes_schedule_layout", diff=True, **given)
        assert foreseen["changes"] == result["changes"]
        assert foreseen["diff"] == result["diff"]
        assert self.cluster.call("kubernetes_schedule_layout", **given)["changes"] == []
        return result

    def cron_jobs(self):
        items = self.cluster.api.items(f"{BATCH}/namespaces/{self.jobs}/cronjobs")
        return {each["metadata"]["name"]: each for each in items}

    def token(self, account):
        path = f"{CORE}/namespaces/{self.jobs}/serviceaccounts/{account}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        return self.cluster.api.create(path, {**request, "spec": {"expirationSeconds": 3600}})["status"]["token"]

    def run(self, name):
        """Run the command line of a CronJob as its account; return exit code, what it said, and what it complained."""
        argv, environment = self.process(
            self.cron_jobs()[name]["spec"]["jobTemplate"]["spec"]["template"]["spec"], name
        )
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300, env=environment, check=False)
        return done.returncode, done.stdout, done.stderr

    def process(self, spec, name):
        """Return the command line of a pod's container as a process of its account has it, and its environment."""
        (container,) = spec["containers"]
        folder = self.folder / name
        places = {}
        for mount in container["volumeMounts"]:
            volume = next(each for each in spec["volumes"] if each["name"] == mount["name"])
            places[mount["mountPath"]] = str(self._mounted(folder, volume, mount))
        account = folder / "account"
        account.mkdir(parents=True, exist_ok=True)
        (account / "token").write_text(self.token(spec["serviceAccountName"]))
        login = self.cluster._login("", self.jobs)["clusters"][0]["cluster"]
        ca = login.get("certificate-authority-data")
        (account / "ca.crt").write_bytes(
            base64.b64decode(ca) if ca else pathlib.Path(login["certificate-authority"]).read_bytes()
        )
        server = urllib.parse.urlsplit(login["server"])
        environment = {
            "KUBERNETES_SERVICE_HOST": server.hostname,
            "KUBERNETES_SERVICE_PORT": str(server.port or 443),
            "NODE_NAME": "node-1",
            "PATH": os.environ["PATH"],
        }
        command = [_placed(places, word) for word in container["command"]]
        assert command[:2] == ["python3", places[PROGRAM]]
        # Isolated and without the folder of packages: what the standard library does not have, is not there.
        return [sys.executable, "-I", "-S", "-c", AS_IN_A_POD, places[PROGRAM], str(account), *command[1:]], environment

    def _mounted(self, folder, volume, mount):
        """Do as a kubelet does; return where it is."""
        if "emptyDir" in volume:
            path = folder / "empty" / volume["name"]
            path.mkdir(parents=True, exist_ok=True)
            return path
        name = volume["configMap"]["name"]
        found = self.cluster.api.get(f"{CORE}/namespaces/{self.jobs}/configmaps/{name}")
        key = mount["subPath"]
        data = base64.b64decode(found["binaryData"][key]) if key in found.get("binaryData", {}) else None
        path = folder / "files" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if data is not None else found["data"][key].encode())
        return path

    def record(self, name):
        code, out, err = self.run(name)
        assert code == 0, out + err
        return json.loads(out)

    def taken(self):
        """The claims of which there are snapshots, each as often as there is one."""
        items = self.cluster.api.items(self.cluster.snapshot_path(self.namespace))
        return sorted(each["spec"]["source"]["persistentVolumeClaimName"] for each in items)

    def granted(self, account, namespace):
        """Return what the API server says that an account may do in a namespace, beside what every account may."""

        def rules(token):
            api = type(self.cluster.api)(self.cluster.api.server, None, token, tls=self.cluster.trust)
            review = {"spec": {"namespace": namespace}}
            status = api.create("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)["status"]
            return {
                (verb, group, resource)
                for rule in status["resourceRules"]
                for verb in rule["verbs"]
                for group in rule.get("apiGroups", [""])
                for resource in rule.get("resources", [])
            }

        return rules(self.token(account)) - rules(self.token("default"))

    def without_each_right(self, path, account, namespace):
        """Take one verb after the other out of a role, and yield it while the account does not have it."""
        api = self.cluster.api
        rules = api.get(path)["rules"]
        for number, rule in enumerate(rules):
            (group,), (resource,) = rule["apiGroups"], rule["resources"]
            for verb in rule["verbs"]:
                less = [dict(each) for each in rules]
                less[number] = {**rule, "verbs": [each for each in rule["verbs"] if each != verb]}
                if not less[number]["verbs"]:
                    del less[number]
                api.patch(path, {"rules": less})
                self._until_granted(account, namespace, (verb, group, resource), False)
                yield verb, group, resource
                api.patch(path, {"rules": rules})
                self._until_granted(account, namespace, (verb, group, resource), True)

    def _until_granted(self, account, namespace, what, granted):
        self.cluster.until(
            lambda: (what in self.granted(account, namespace)) is granted, f"{what} is granted: {granted}"
        )

    def remove(self):
        self.cluster.call("kubernetes_monitoring_layout", state="absent", namespace=self.jobs)
        self.cluster.call("kubernetes_schedule_layout", policies=[], namespace=self.jobs)
        with contextlib.suppress(Exception):
            self.cluster.api.delete(f"{CORE}/namespaces/{self.jobs}")


def _placed(places, word):
    for mount, path in places.items():
        if word == mount or word.startswith(f"{mount}/"):
            return path + word[len(mount) :]
    return word
