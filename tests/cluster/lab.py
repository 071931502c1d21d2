# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cluster as tests see it: namespaces, claims and what lies in them, users, modules, faults.

It is the project's own (tools/cluster.py), or the one that KUBECONFIG_LAB names. What only the own one can do (look
into volumes, end parts, faults of the driver) is in `Lab.own`. Called by conftest.py and the tests of this folder.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import io
import itertools
import json
import os
import pathlib
import secrets
import shutil
import ssl
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from ansible_collections.restorepoint.core.tests.cluster.node import NODE, Node
from ansible_collections.restorepoint.core.tests.cluster.proxy import Proxy
from ansible_collections.restorepoint.core.tests.lab import driver
from ansible_collections.restorepoint.core.tests.lab.driver import Failed, Result

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tools"))

from cluster import PARTS, Cluster, ClusterFailed, Unavailable, behind
from cluster_api import CORE, GROUPS, SNAPSHOTS, Api, ApiError

__all__ = [
    "CORE",
    "GROUPS",
    "NODE",
    "PARTS",
    "SNAPSHOTS",
    "Api",
    "ApiError",
    "Cluster",
    "ClusterFailed",
    "Failed",
    "Lab",
]
__all__ += ["Node", "Proxy", "Result", "Unavailable", "User", "guarded"]

MODULES = "ansible_collections.restorepoint.core.plugins.modules"
#: The classes of our own cluster that are meant where none is named.
CLASS = "folders"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
APPS = "/apis/apps/v1"
#: How a pod on a cluster that is not ours writes what it is given into its claim, and shows what lies there.
WRITE = 'printf %s "$PAYLOAD" | base64 -d | tar -x -C "$FOLDER"'
READ = 'tar -c -C "$FOLDER" . | base64'
#: What a person's shell may say of clusters, which no test is to meet.
_FOREIGN = ("K8S_AUTH_", "KUBECONFIG", "KUBERNETES_")


def guarded(name: str, pid: int) -> None:
    """Have the cluster of that name removed when the process ends, however it ends."""
    behind("guard", name, str(pid))


class User:
    """A service account with rights of its own: ``kubeconfig`` (a path) and ``token`` log in as it."""

    def __init__(self, lab: Lab, namespace: str, name: str) -> None:
        self.lab, self.namespace, self.name = lab, namespace, name
        self.path = f"{CORE}/namespaces/{namespace}/serviceaccounts/{name}"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        }
        self.token = str(lab.api.create(f"{self.path}/token", request)["status"]["token"])
        self.kubeconfig = lab.kubeconfig_for(self.token, namespace)
        self.api = Api(lab.api.server, None, self.token, tls=lab.trust)

    def may(self, verb: str, group: str, resource: str, namespace: str | None) -> bool:
        """Say whether it may do that, as the API server says."""
        wanted = {"verb": verb, "group": group, "resource": resource, **({"namespace": namespace} if namespace else {})}
        review = {"spec": {"resourceAttributes": wanted}}
        answer = self.api.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        return bool(answer["status"]["allowed"])

    def revoke(self) -> None:
        """Remove the account: its token is not accepted any more, as one that has expired."""
        self.lab.api.delete(self.path)
        self.lab.until(lambda: self.api.raw("GET", f"{CORE}/namespaces")[0] == 401, "the token is refused")


class Own:
    """What only a cluster of the project's own offers: its processes, its disk, its driver."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.data = cluster.data

    def stop(self, part: str, gently: bool = False) -> None:
        """End a part, such as snapshot-controller."""
        self.cluster.stop_part(part, gently)

    def start(self, part: str) -> None:
        """Start a part that was ended."""
        self.cluster.start_part(part)

    def restart(self, part: str = "kube-apiserver") -> None:
        """End a part at once, and start it again; the API server answers when this returns."""
        self.stop(part)
        self.start(part)

    @contextlib.contextmanager
    def without(self, part: str) -> Iterator[None]:
        """Do without a part meanwhile."""
        self.stop(part)
        try:
            yield
        finally:
            self.start(part)

    @contextlib.contextmanager
    def driver_fault(self, method: str, match: str = "", **told: Any) -> Iterator[None]:
        """Let the driver fail meanwhile: ``method`` is CSI's, such as CreateSnapshot.

        ``match``: only requests with this text in them (a volume's handle, a snapshot's). ``code`` (internal,
        unavailable, exhausted, invalid, deadline) and ``message`` fail the call, ``delay`` (seconds) comes first.
        ``unready=True``, with CreateSnapshot: snapshots are made, and are not ready to use.
        """
        path = self.data / "faults" / method
        hidden = path.with_suffix(".new")
        hidden.write_text(json.dumps({"match": match, **told}))
        hidden.rename(path)
        try:
            yield
        finally:
            path.unlink()


class Lab:
    """A cluster, and what tests do in it. ``api`` is the administrator's client, ``kubeconfig`` a path of his login."""

    def __init__(self, api: Api, kubeconfig: pathlib.Path, trust: ssl.SSLContext, cluster: Cluster | None) -> None:
        self.api, self.kubeconfig, self.trust = api, kubeconfig, trust
        self._cluster = cluster
        #: The classes that claims and snapshots get; on a cluster that is not ours None, its default, or those named.
        self.storage_class = CLASS if cluster else os.environ.get("LAB_STORAGE_CLASS")
        self.snapshot_class = CLASS if cluster else os.environ.get("LAB_SNAPSHOT_CLASS")
        #: Where this machine sees volumes as folders, by their handles: of a cluster that is not ours, if at all.
        named = os.environ.get("LAB_VOLUMES")
        self._volumes = cluster.data / "volumes" if cluster else pathlib.Path(named) if named else None
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="restorepoint-cluster-"))
        self._names = itertools.count(1)

    def close(self) -> None:
        """Remove what it has written."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def refresh(self) -> None:
        """Find the API server again, after its cluster was started anew: its port may be another one."""
        self.api = self.own.cluster.api()

    @property
    def own(self) -> Own:
        """What only the project's own cluster offers; with KUBECONFIG_LAB the test is skipped, which names that."""
        if self._cluster is None:
            pytest.skip("needs a control plane of the lab's own, and KUBECONFIG_LAB names another one")
        return Own(self._cluster)

    # -- logins --------------------------------------------------------------------------------------------------------

    def kubeconfig_for(self, token: str, namespace: str = "default", server: str | None = None) -> pathlib.Path:
        """Write a kubeconfig for a token, and return its path; ``server`` may be a proxy's address."""
        told = json.loads(json.dumps(self._login(token, namespace)))
        if server:
            told["clusters"][0]["cluster"]["server"] = server
        path = self._folder / f"kubeconfig-{next(self._names)}"
        path.touch(mode=0o600)
        path.write_text(json.dumps(told))
        return path

    def _login(self, token: str, namespace: str) -> dict[str, Any]:
        if self._cluster is not None:
            return self._cluster.login(token, namespace=namespace)
        yaml = importlib.import_module("yaml")
        told = yaml.safe_load(self.kubeconfig.read_text())
        context = next(each for each in told["contexts"] if each["name"] == told["current-context"])
        cluster = next(each for each in told["clusters"] if each["name"] == context["context"]["cluster"])
        here = {"cluster": cluster["name"], "user": "user", "namespace": namespace}
        return {
            **{"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "current-context": "lab"},
            "users": [{"name": "user", "user": {"token": token}}],
            "contexts": [{"name": "lab", "context": here}],
        }

    def user(
        self, namespace: str, rules: Sequence[Mapping[str, Any]], cluster_rules: Sequence[Mapping[str, Any]] = ()
    ) -> User:
        """Make a user with these rights (rules of RBAC) in a namespace, and ``cluster_rules`` in the whole cluster.

        It returns when the API server grants the last rule of each.
        """
        name = f"user-{secrets.token_hex(4)}"
        self.api.create(f"{CORE}/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": name}})
        subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
        inner = f"{RBAC}/namespaces/{namespace}"
        for base, kind, given in ((inner, "Role", rules), (RBAC, "ClusterRole", cluster_rules)):
            labels = {"restorepoint.test/namespace": namespace}
            metadata = {"name": name, "labels": labels}
            self.api.create(f"{base}/{kind.lower()}s", {"metadata": metadata, "rules": list(given)})
            reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
            binding = {"metadata": metadata, "subjects": [subject], "roleRef": reference}
            self.api.create(f"{base}/{kind.lower()}bindings", binding)
        made = User(self, namespace, name)
        for given, where in ((rules, namespace), (cluster_rules, None)):
            for rule in given[-1:]:
                resource, _slash, _sub = str(rule["resources"][-1]).partition("/")
                wanted = (str(rule["verbs"][-1]), str(rule["apiGroups"][-1]), resource, where)
                if not rule.get("resourceNames"):
                    self.until(lambda wanted=wanted: made.may(*wanted), f"{name} may {wanted}")
        return made

    @contextlib.contextmanager
    def proxy(self) -> Iterator[Proxy]:
        """Give a proxy in front of the API server, which does wrong what it is told; `through` logs in through it."""
        cluster = self.own.cluster
        with Proxy(cluster.server, cluster.ca, cluster.certificate, cluster.key) as made:
            yield made

    def through(self, proxy: Proxy, token: str | None = None) -> pathlib.Path:
        """Return a kubeconfig that goes through a proxy: the administrator's, or that of a token."""
        return self.kubeconfig_for(token or str(self.api.token), server=proxy.address)

    # -- objects -------------------------------------------------------------------------------------------------------

    def until(self, holds: Any, what: str, seconds: float = 180) -> Any:
        """Wait until something holds, and return what it gave."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = holds()
            if found:
                return found
            time.sleep(0.1)
        raise TimeoutError(f"{what}: not within {seconds:g} s")

    def make_namespace(self, prefix: str = "test") -> str:
        """Make a namespace of a name of its own, with all that controllers put into it."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        self.api.create(f"{CORE}/namespaces", {"metadata": {"name": name}})
        self.api.wait(f"{CORE}/namespaces/{name}/serviceaccounts/default", bool)
        self.api.wait(f"{CORE}/namespaces/{name}/configmaps/kube-root-ca.crt", bool)
        return name

    def remove_namespace(self, name: str) -> None:
        """Remove a namespace, and what users of it were given in the whole cluster, without waiting for the end."""
        self.api.delete(f"{CORE}/namespaces/{name}")
        for kind in ("clusterrolebindings", "clusterroles"):
            for each in self.api.items(f"{RBAC}/{kind}", labelSelector=f"restorepoint.test/namespace={name}"):
                self.api.delete(f"{RBAC}/{kind}/{each['metadata']['name']}")

    def claim_path(self, namespace: str, name: str = "") -> str:
        """Return the path of a claim, or of all of them."""
        return f"{CORE}/namespaces/{namespace}/persistentvolumeclaims{'/' if name else ''}{name}"

    def snapshot_path(self, namespace: str, name: str = "") -> str:
        """Return the path of a VolumeSnapshot, or of all of them."""
        return f"{SNAPSHOTS}/namespaces/{namespace}/volumesnapshots{'/' if name else ''}{name}"

    def group_path(self, namespace: str, name: str = "") -> str:
        """Return the path of a VolumeGroupSnapshot, or of all of them."""
        return f"{GROUPS}/namespaces/{namespace}/volumegroupsnapshots{'/' if name else ''}{name}"

    def claim(
        self,
        namespace: str,
        name: str,
        files: Mapping[str, str | bytes] | None = None,
        *,
        size: str = "1Mi",
        storage_class: str | None = None,
        snapshot: str | None = None,
        labels: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> dict[str, Any]:
        """Make a claim, wait until it is bound, and write files into its volume; ``snapshot`` makes it from one."""
        spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
        if storage_class or self.storage_class:
            spec["storageClassName"] = storage_class or self.storage_class
        if snapshot is not None:
            spec["dataSource"] = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": snapshot}
        metadata = {"name": name, "labels": dict(labels or {})}
        made = self.api.create(self.claim_path(namespace), {"metadata": metadata, "spec": spec})
        if wait:
            made = self.bound(namespace, name)
        if files:
            self.write(namespace, name, files)
        return made

    def claims(self, namespace: str, names: Sequence[str], files: Mapping[str, str | bytes] | None = None) -> None:
        """Make many claims at once; each gets the files, and one called ``name`` with its own name in it."""
        for name in names:
            self.claim(namespace, name, wait=False)
        for name in names:
            self.bound(namespace, name, seconds=60 + 2 * len(names))
            self.write(namespace, name, {"name": name, **(files or {})})

    def bound(self, namespace: str, name: str, seconds: float = 180) -> dict[str, Any]:
        """Wait until a claim is bound, and return it."""
        path = self.claim_path(namespace, name)
        return self.api.wait(path, lambda found: found and found["status"].get("phase") == "Bound", seconds)

    def volume(self, namespace: str, name: str) -> dict[str, Any]:
        """Return the volume of a claim that is bound."""
        claim = self.api.get(self.claim_path(namespace, name))
        return self.api.get(f"{CORE}/persistentvolumes/{claim['spec']['volumeName']}")

    def snapshot(
        self, namespace: str, claim: str, name: str, snapshot_class: str | None = None, wait: bool = True
    ) -> dict[str, Any]:
        """Take a snapshot without the collection, and wait until it is ready, and the claim is let go."""
        spec: dict[str, Any] = {"source": {"persistentVolumeClaimName": claim}}
        if snapshot_class or self.snapshot_class:
            spec["volumeSnapshotClassName"] = snapshot_class or self.snapshot_class
        made = {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshot",
            "metadata": {"name": name},
            "spec": spec,
        }
        created = self.api.create(self.snapshot_path(namespace), made)
        return self.taken(namespace, claim, name) if wait else created

    def taken(self, namespace: str, claim: str, name: str) -> dict[str, Any]:
        """Wait until a snapshot is ready, and its claim is let go, and return the snapshot."""
        found = self.ready(self.snapshot_path(namespace, name))
        self.api.wait(f"{CORE}/namespaces/{namespace}/persistentvolumeclaims/{claim}", _is_let_go)
        return found

    def group_snapshot(self, namespace: str, name: str, labels: Mapping[str, str]) -> dict[str, Any]:
        """Take a snapshot of all claims with these labels, without the collection, and wait until it is ready."""
        made = {
            "apiVersion": "groupsnapshot.storage.k8s.io/v1",
            "kind": "VolumeGroupSnapshot",
            "metadata": {"name": name},
            "spec": {"volumeGroupSnapshotClassName": "folders", "source": {"selector": {"matchLabels": dict(labels)}}},
        }
        self.api.create(self.group_path(namespace), made)
        return self.ready(self.group_path(namespace, name))

    def ready(self, path: str, seconds: float = 180) -> dict[str, Any]:
        """Wait until a snapshot, or a group of them, is ready to use, and return it."""
        return self.api.wait(path, lambda found: found and found.get("status", {}).get("readyToUse"), seconds)

    def snapshots(self, namespace: str) -> list[str]:
        """Return the names of the VolumeSnapshots of a namespace."""
        return sorted(each["metadata"]["name"] for each in self.api.items(self.snapshot_path(namespace)))

    def deployment(self, namespace: str, name: str, claim: str, replicas: int = 1, kind: str = "Deployment") -> str:
        """Make a Deployment, StatefulSet or DaemonSet whose pods use a claim; return its path. `node` runs its pods."""
        labels = {"app": name}
        pod = {"metadata": {"labels": labels}, "spec": pod_spec(claim)}
        spec: dict[str, Any] = {"selector": {"matchLabels": labels}, "template": pod}
        if kind != "DaemonSet":
            spec["replicas"] = replicas
        if kind == "StatefulSet":
            spec["serviceName"] = name
        path = f"{APPS}/namespaces/{namespace}/{kind.lower()}s"
        self.api.create(path, {"metadata": {"name": name, "labels": labels}, "spec": spec})
        return f"{path}/{name}"

    def pod(self, namespace: str, name: str, claim: str) -> str:
        """Make a bare pod that uses a claim; return its path."""
        path = f"{CORE}/namespaces/{namespace}/pods"
        self.api.create(path, {"metadata": {"name": name}, "spec": pod_spec(claim)})
        return f"{path}/{name}"

    def node(self, namespace: str, grace: float = 0.0) -> Node:
        """Give a stand-in for scheduler and kubelet of one namespace, as a context manager."""
        assert self.own
        return Node(self.api, namespace, grace)

    # -- what lies in volumes ------------------------------------------------------------------------------------------

    def folder(self, namespace: str, claim: str) -> pathlib.Path:
        """Return the folder of a claim's volume."""
        return self.folder_of(self.volume(namespace, claim))

    def folder_of(self, volume: Mapping[str, Any]) -> pathlib.Path:
        """Return the folder of a volume, a PersistentVolume's object."""
        if self._volumes is None:
            pytest.skip("looks at volumes on disk, and LAB_VOLUMES does not say where those of KUBECONFIG_LAB lie")
        return self._volumes / str(volume["spec"]["csi"]["volumeHandle"])

    def write(self, namespace: str, claim: str, files: Mapping[str, str | bytes]) -> None:
        """Write files into a claim's volume; paths are relative to it."""
        if self._volumes is None:
            self._in_a_pod(namespace, claim, WRITE, packed(files))
            return
        top = self.folder(namespace, claim)
        for name, content in files.items():
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    def read(self, namespace: str, claim: str) -> dict[str, str]:
        """Return the files of a claim's volume: relative path and content."""
        if self._volumes is None:
            return unpacked(self._in_a_pod(namespace, claim, READ))
        return contents(self.folder(namespace, claim))

    def _in_a_pod(self, namespace: str, claim: str, script: str, payload: str = "") -> str:
        """Run a script in a pod of its own that has a claim, and return what it printed."""
        name = f"files-{secrets.token_hex(4)}"
        spec = pod_spec(claim, os.environ.get("LAB_IMAGE", "busybox:stable"))
        values = {"PAYLOAD": payload, "FOLDER": "/data"}
        environment = [{"name": key, "value": value} for key, value in values.items()]
        spec["containers"][0].update(command=["sh", "-ec", script], env=environment)
        path = f"{CORE}/namespaces/{namespace}/pods"
        self.api.create(path, {"metadata": {"name": name}, "spec": {**spec, "restartPolicy": "Never"}})
        ended = ("Succeeded", "Failed")
        pod = self.api.wait(f"{path}/{name}", lambda found: found and found["status"].get("phase") in ended, 300)
        _status, _headers, log = self.api.raw("GET", f"{path}/{name}/log")
        assert pod["status"]["phase"] == "Succeeded", log.decode(errors="replace")
        self.api.delete(f"{path}/{name}")
        self.api.gone(f"{path}/{name}", 120)
        return log.decode()

    # -- modules -------------------------------------------------------------------------------------------------------

    def call(
        self,
        module: str,
        /,
        *,
        kubeconfig: pathlib.Path | None = None,
        check_mode: bool = False,
        diff: bool = False,
        login: bool = True,
        **options: Any,
    ) -> Result:
        """Run a module in this process, through its real argument spec; raise Failed where it fails.

        It logs in as the administrator, or with ``kubeconfig``; ``login=False``: with nothing but its options.
        """
        entry = importlib.import_module(f"{MODULES}.{module}").main
        told = self._options(kubeconfig, login, options)
        with _own_environment():
            return driver._run(entry, driver.arguments(told, check_mode, diff))

    def start(self, module: str, /, *, kubeconfig: pathlib.Path | None = None, **options: Any) -> subprocess.Popen[str]:
        """Start a module as a process of its own, which can be killed; `finished` takes it."""
        path = CHECKOUT / "plugins" / "modules" / f"{module}.py"
        told = self._folder / f"arguments-{next(self._names)}"
        told.write_text(driver.arguments(self._options(kubeconfig, True, options)))
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        return subprocess.Popen(
            [sys.executable, str(path), str(told)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def finished(self, process: subprocess.Popen[str], timeout: float = 600) -> Result | None:
        """Wait for a module that was started: its result, or None where it was killed. Raises Failed."""
        out, err = process.communicate(timeout=timeout)
        if process.returncode < 0:
            return None
        assert out.strip(), err
        return driver.judged(out)

    def dies(
        self,
        proxy: Proxy,
        module: str,
        /,
        *,
        at: int,
        after: bool,
        verb: str = "",
        path: str = "^(?!.*accessreviews)",  # a review of rights writes nothing
        when: Callable[[], bool] = lambda: True,
        **options: Any,
    ) -> bool:
        """Run a module that is killed before or after its ``at``-th request that writes (or of ``verb``) to ``path``.

        Only those count at which ``when`` holds. False means that it ended by itself, having made fewer: so a loop over
        ``at`` reaches every step.
        """
        running: list[subprocess.Popen[str]] = []
        verbs = {verb} if verb else {"POST", "PATCH", "PUT", "DELETE"}
        count = itertools.count(1)

        def kill() -> None:
            if when() and next(count) == at:
                running[0].kill()
                running[0].wait(30)

        proxy.heal()
        for each in sorted(verbs):
            proxy.tell("call", verb=each, path=path, times=proxy.EVER, after=after, function=kill)
        try:
            running.append(self.start(module, kubeconfig=self.through(proxy), **options))
            ended = self.finished(running[0])
            proxy.settle()
            return ended is None
        finally:
            proxy.heal()

    def _options(self, kubeconfig: pathlib.Path | None, login: bool, options: dict[str, Any]) -> dict[str, Any]:
        return {"kubeconfig": str(kubeconfig or self.kubeconfig), **options} if login else options


def contents(folder: pathlib.Path) -> dict[str, str]:
    """Return the files of a folder: relative path and content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes().decode(errors="backslashreplace") for path in files}


def packed(files: Mapping[str, str | bytes]) -> str:
    """Return files as an archive in text."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            entry, data = tarfile.TarInfo(name), content.encode() if isinstance(content, str) else content
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return base64.b64encode(out.getvalue()).decode()


def unpacked(text: str) -> dict[str, str]:
    """Return the files of an archive in text: relative path and content."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(text))) as archive:
        for entry in archive:
            data = archive.extractfile(entry) if entry.isfile() else None
            if data:
                found[entry.name.removeprefix("./")] = data.read().decode(errors="backslashreplace")
    return found


def pod_spec(claim: str, image: str = "none") -> dict[str, Any]:
    """Return the spec of a pod that uses a claim."""
    return {
        "containers": [{"name": "main", "image": image, "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
        "terminationGracePeriodSeconds": 1,
    }


@contextlib.contextmanager
def _own_environment() -> Iterator[None]:
    """Keep what the shell says of clusters from a module that runs in this process."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_FOREIGN)}
    try:
        yield
    finally:
        os.environ.update(kept)


def outside(kubeconfig: str) -> Lab:
    """Return the lab on a cluster that a kubeconfig names; it logs in with a token or a client certificate."""
    path = pathlib.Path(kubeconfig).expanduser()
    yaml = importlib.import_module("yaml")
    told = yaml.safe_load(path.read_text())
    context = next(each["context"] for each in told["contexts"] if each["name"] == told["current-context"])
    cluster = next(each["cluster"] for each in told["clusters"] if each["name"] == context["cluster"])
    user = next(each["user"] for each in told["users"] if each["name"] == context["user"])
    data = cluster.get("certificate-authority-data")
    trust = ssl.create_default_context(
        cafile=cluster.get("certificate-authority"), cadata=base64.b64decode(data).decode() if data else None
    )
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name in ("client-certificate", "client-key"):
            files[name] = user.get(name)
            if user.get(f"{name}-data"):
                files[name] = str(pathlib.Path(folder, name))
                pathlib.Path(files[name]).write_bytes(base64.b64decode(user[f"{name}-data"]))
        if files["client-certificate"]:
            trust.load_cert_chain(files["client-certificate"], files["client-key"])
        elif not user.get("token"):
            raise Unavailable(
                f"Cannot use the cluster of {path}: its user has neither a token nor a client certificate; "
                "give KUBECONFIG_LAB a kubeconfig with one of these."
            )
    return Lab(Api(cluster["server"], None, user.get("token"), tls=trust), path, trust, None)


def lab_of(cluster: Cluster) -> Lab:
    """Return the lab on a cluster of the project's own that runs."""
    trust = ssl.create_default_context(cafile=str(cluster.ca))
    return Lab(cluster.api(), cluster.kubeconfig, trust, cluster)


@contextlib.contextmanager
def running(name: str) -> Iterator[Lab]:
    """Give the lab on a cluster of that name; one that did not run before is removed again."""
    found = Cluster(name)
    kept = found.is_running()
    try:
        found.start(fresh=not kept)
    except Unavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    if not kept:
        guarded(name, os.getpid())
    lab = lab_of(found)
    try:
        yield lab
    finally:
        lab.close()
        if not kept:
            found.remove()


def _is_let_go(claim: dict[str, Any] | None) -> bool:
    """Say whether the controller has taken off what kept a claim while a snapshot was made of it."""
    finalizers = (claim or {}).get("metadata", {}).get("finalizers") or []
    return "snapshot.storage.kubernetes.io/pvc-as-source-protection" not in finalizers
