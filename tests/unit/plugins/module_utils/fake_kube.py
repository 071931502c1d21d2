# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small Kubernetes API server for tests: real HTTPS on loopback, claims and volumes, and answers that go wrong.

It knows what kube.py asks for and answers in the API's own shapes. Tests fill ``claims`` and ``volumes``, break it with
``faults``, ``forbidden``, ``delay`` and ``raw``, and read ``requests`` afterwards.
"""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import json
import re
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

TOKEN = "a-token-that-nobody-may-see"
CORE = {"persistentvolumeclaims": "PersistentVolumeClaim", "persistentvolumes": "PersistentVolume"}
_PATH = re.compile(r"/api/v1(?:/namespaces/(?P<namespace>[^/]+))?/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+))?")
_REQUIREMENT = re.compile(r"([\w./-]+)(?:(==|=|!=)([\w.-]*))?")


def claim(
    name: str, namespace: str = "shop-a", labels: Mapping[str, str] | None = None, **changes: Any
) -> dict[str, Any]:
    """Return a bound claim as the API shows it; ``changes`` go over its spec."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{namespace}-{name}",
            "labels": dict(labels or {}),
            "finalizers": ["kubernetes.io/pvc-protection"],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "hostpath",
            "volumeMode": "Filesystem",
            "volumeName": f"pv-{name}",
            **changes,
        },
        "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}},
    }


def affinity(*terms: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a nodeAffinity of terms, each a list of matchExpressions."""
    return {"required": {"nodeSelectorTerms": [{"matchExpressions": term} for term in terms]}}


def on_node(*nodes: str) -> dict[str, Any]:
    """Return the nodeAffinity that provisioners of local directories write."""
    return affinity([{"key": "kubernetes.io/hostname", "operator": "In", "values": list(nodes)}])


def volume(of: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the hostPath volume that a claim is bound to; ``changes`` go over its spec, None takes a member out."""
    reference = {member: of["metadata"][member] for member in ("namespace", "name", "uid")}
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"},
        "claimRef": {"kind": "PersistentVolumeClaim", **reference},
        "hostPath": {"path": f"/srv/volumes/{of['metadata']['name']}", "type": "DirectoryOrCreate"},
        "nodeAffinity": on_node("node-1"),
        "persistentVolumeReclaimPolicy": "Delete",
        "storageClassName": "hostpath",
        "volumeMode": "Filesystem",
        **changes,
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": of["spec"]["volumeName"], "uid": f"uid-{of['spec']['volumeName']}"},
        "spec": {name: value for name, value in spec.items() if value is not None},
        "status": {"phase": "Bound"},
    }


@dataclass(frozen=True)
class Request:
    """One request that was received."""

    path: str
    query: Mapping[str, str]
    headers: Any
    method: str = "GET"
    body: Any = None


def make_certificate(folder: Path, *hosts: str) -> Path:
    """Write a self-signed certificate for the hosts, and its key behind it, to one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fake-kube")])
    now = datetime.datetime.now(tz=datetime.timezone.utc)
    names = [x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host) for host in hosts]
    usage = {
        "content_commitment": False,
        "data_encipherment": False,
        "decipher_only": False,
        "encipher_only": False,
        "key_agreement": False,
        "key_encipherment": False,
    }
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{hosts[0]}.pem"
    pem = serialization.Encoding.PEM
    path.write_bytes(
        certificate.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


class FakeKube:
    """The server. Use it as a context manager; ``url`` is where it listens.

    ``faults`` are answered first, one for each request, as (status, headers), with ``fault_message``. ``forbidden``
    holds (verb, resource). ``raw`` is a body sent instead of every answer. ``delay`` is in seconds. ``prefix`` is what
    each path has to begin with, as behind a gateway. ``clients``: only those are let in that show this certificate as
    theirs.
    """

    def __init__(self, certificate: Path, port: int = 0, clients: bool = False) -> None:
        self.certificate = certificate
        self.claims: list[dict[str, Any]] = []
        self.volumes: list[dict[str, Any]] = []
        self.authorization = f"Bearer {TOKEN}"
        self.lets_in_anybody = False
        self.faults: list[tuple[int, dict[str, str]]] = []
        self.fault_message = "the test says so"
        self.forbidden: set[tuple[str, str]] = set()
        self.raw: bytes | None = None
        self.delay = 0.0
        self.prefix = ""
        self.requests: list[Request] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        if clients:
            context.load_verify_locations(certificate)
            context.verify_mode = ssl.CERT_REQUIRED
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeKube:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, *claims: dict[str, Any], **changes: Any) -> None:
        """Add claims, each with its volume."""
        self.claims += claims
        self.volumes += [volume(each, **changes) for each in claims]

    def kubeconfig(self, **user: Any) -> dict[str, Any]:
        """Return a kubeconfig for this server, as a mapping, with one context called ``lab``."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [
                {"name": "fake", "cluster": {"server": self.url, "certificate-authority": str(self.certificate)}}
            ],
            "users": [{"name": "tester", "user": user or {"token": TOKEN}}],
            "contexts": [{"name": "lab", "context": {"cluster": "fake", "user": "tester"}}],
        }

    def answer(self, request: Request) -> tuple[int, dict[str, str], Any]:
        """Return (status, headers, body) for one GET."""
        if self.faults:
            status, headers = self.faults.pop(0)
            return status, headers, status_of(status, self.fault_message)
        sent = _credentials(request.headers.get("Authorization") or "")
        if not self.lets_in_anybody and sent != _credentials(self.authorization):
            return 401, {}, status_of(401, "Unauthorized")
        if request.path in _DISCOVERY:
            return 200, {}, _DISCOVERY[request.path]
        asked = _PATH.fullmatch(request.path)
        if not asked or asked["resource"] not in CORE:
            return 404, {}, status_of(404, "the server could not find the requested resource")
        verb = "get" if asked["name"] else "list"
        if (verb, asked["resource"]) in self.forbidden:
            message = f'{asked["resource"]} is forbidden: User "tester" cannot {verb} resource "{asked["resource"]}"'
            return 403, {}, status_of(403, message)
        return self._objects(request, asked["resource"], asked["namespace"], asked["name"])

    def _objects(
        self, request: Request, resource: str, namespace: str | None, name: str | None
    ) -> tuple[int, dict[str, str], Any]:
        every = self.claims if resource == "persistentvolumeclaims" else self.volumes
        objects = [each for each in every if each["metadata"].get("namespace") == namespace]
        if name:
            for each in objects:
                if each["metadata"]["name"] == name:
                    return 200, {}, each
            return 404, {}, status_of(404, f'{resource} "{name}" not found')
        try:
            requirements = requirements_of(request.query.get("labelSelector", ""))
        except ValueError as error:
            return 400, {}, status_of(400, str(error))
        items = [each for each in objects if matches(each, requirements)]
        return 200, {}, {"apiVersion": "v1", "kind": f"{CORE[resource]}List", "metadata": {}, "items": items}

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                path, _unused, query = self.path.partition("?")
                path = path[len(fake.prefix) :] if path.startswith(fake.prefix) else f"/outside{path}"
                sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = dict(urllib.parse.parse_qsl(query))
                request = Request(path, asked, self.headers, self.command, json.loads(sent) if sent else None)
                fake.requests.append(request)
                time.sleep(fake.delay)
                status, headers, body = fake.answer(request)
                if status == 0:  # the answer is lost
                    self.close_connection = True
                elif isinstance(body, Iterator):
                    self._stream(body)
                else:
                    self._send(status, headers, body)

            do_POST = do_PATCH = do_DELETE = do_GET

            def _stream(self, lines: Iterator[Any]) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for line in lines:
                    if line is None:  # the connection is cut
                        self.close_connection = True
                        return
                    data = json.dumps(line).encode() + b"\n"
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")

            def _send(self, status: int, headers: Mapping[str, str], body: Any) -> None:
                data = fake.raw if fake.raw is not None else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:  # a client that does not trust us, or that has stopped waiting
                    self.close_connection = True

            def finish(self) -> None:
                try:
                    super().finish()
                except OSError:
                    self.close_connection = True

            def log_message(self, *_unused: object) -> None:
                """Say nothing."""

        return Handler


_DISCOVERY: dict[str, Any] = {
    "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.1"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            {"name": name, "kind": kind, "namespaced": name == "persistentvolumeclaims", "verbs": ["get", "list"]}
            for name, kind in CORE.items()
        ],
    },
}


def _credentials(header: str) -> tuple[str, str]:
    """Return scheme and credentials; the letter case of a scheme means nothing (RFC 9110)."""
    scheme, _space, rest = header.partition(" ")
    return scheme.lower(), rest


def status_of(code: int, message: str, reason: str = "") -> dict[str, Any]:
    return {
        "reason": reason,
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "code": code,
    }


def requirements_of(selector: str) -> list[tuple[str, str | None, str | None]]:
    """Return (key, operator, value) for each part of a selector of equalities; raise ValueError for what is none."""
    requirements: list[tuple[str, str | None, str | None]] = []
    for part in filter(None, selector.split(",")):
        found = _REQUIREMENT.fullmatch(part.strip())
        if not found:
            raise ValueError(f"unable to parse requirement: found {part!r}")
        requirements.append((found[1], found[2], found[3]))
    return requirements


def matches(item: Mapping[str, Any], requirements: list[tuple[str, str | None, str | None]]) -> bool:
    labels = item["metadata"].get("labels", {})
    for key, operator, value in requirements:
        equal = labels.get(key) == value if operator else key in labels
        if equal == (operator == "!="):
            return False
    return True
