# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The door to Kubernetes, against a real HTTPS server on loopback.

Each test that logs in does so twice: as modules do, which is with the standard library where that can be done, and with
the kubernetes package. What is said and done has to be the same.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils import kube, kube_accounts, kube_claims
from ansible_collections.restorepoint.core.plugins.module_utils.core.claims import ClaimError
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import (
    InvalidInput,
    MissingLibrary,
    RestorePointError,
)
from ansible_collections.restorepoint.core.plugins.module_utils.kube_login import (
    KubeError,
    log_in,
    log_in_with_package,
    secrets_of,
)
from ansible_collections.restorepoint.core.plugins.module_utils.kube_resources import CLAIMS, VOLUMES
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_kube import (
    TOKEN,
    FakeKube,
    claim,
    make_certificate,
    on_node,
)

SECRET = "a-secret-that-nobody-may-see"


@pytest.fixture
def server(certificate):
    with FakeKube(certificate) as fake:
        yield fake


@pytest.fixture(autouse=True)
def _no_cluster_of_this_machine(monkeypatch, tmp_path):
    """Tests see neither the proxy, nor the kubeconfig, nor the pod in which they may run."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


class Pauses(list[float]):
    """Takes the place of time.sleep, and keeps how long it was asked to wait."""

    __call__ = list.append


@pytest.fixture(params=[log_in, log_in_with_package], ids=["as modules do", "with the package"])
def login(request):
    """Make a client from options."""
    return lambda options, **more: kube.KubeClient(options, log_in=request.param, **more)


@pytest.fixture
def connect(login):
    """Make a client of a server, with its token and its CA."""

    def make(server, timeout=30.0, sleep=lambda seconds: None, **options):
        options = {"host": server.url, "api_key": TOKEN, "ca_cert": str(server.certificate), **options}
        return login(options, timeout=timeout, sleep=sleep)

    return make


def failure(call, *arguments, kind=KubeError, **options):
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert text.startswith("Cannot ")
    assert text.endswith(".")
    assert "\n" not in text
    assert TOKEN not in text
    assert SECRET not in text
    return text


def paths(server):
    return [request.path for request in server.requests]


# Resolving


def test_one_claim_costs_two_requests(server, connect):
    server.add(claim("data"))
    (found,) = kube_claims.resolve_claims(connect(server), "shop-a", ["data"], node_name="node-1")
    assert (found.path, found.nodes, found.pv) == ("/srv/volumes/data", ("node-1",), "pv-data")
    assert paths(server) == [
        "/api/v1/namespaces/shop-a/persistentvolumeclaims/data",
        "/api/v1/persistentvolumes/pv-data",
    ]


def test_a_hundred_claims_cost_two_requests(server, connect):
    server.add(*[claim(f"data-{number}") for number in range(100)])
    server.add(claim("other", namespace="shop-b"))
    found = kube_claims.resolve_claims(connect(server), "shop-a")
    assert len(found) == 100
    assert "other" not in {each.pvc for each in found}
    assert paths(server) == ["/api/v1/namespaces/shop-a/persistentvolumeclaims", "/api/v1/persistentvolumes"]


def test_several_names_cost_one_list_and_come_in_their_order(server, connect):
    server.add(claim("a"), claim("b"), claim("c"))
    found = kube_claims.resolve_claims(connect(server), "shop-a", ["c", "a", "c"])
    assert [each.pvc for each in found] == ["c", "a"]
    assert len(server.requests) == 3


def test_a_selector_is_left_to_the_server(server, connect):
    server.add(claim("db", labels={"app": "shop"}), claim("cache"))
    (found,) = kube_claims.resolve_claims(connect(server), "shop-a", selector="app=shop")
    assert found.pvc == "db"
    assert server.requests[0].query["labelSelector"] == "app=shop"


def test_a_selector_that_the_server_cannot_read_is_its_own_sentence(server, connect):
    text = failure(kube_claims.resolve_claims, connect(server), "shop-a", selector="app=(")
    assert "answered 400: unable to parse requirement" in text


def test_a_selector_that_matches_nothing_asks_for_no_volume(server, connect):
    server.add(claim("db"))
    text = failure(kube_claims.resolve_claims, connect(server), "shop-a", selector="app=x", kind=InvalidInput)
    assert "matches none" in text
    assert len(server.requests) == 1


@pytest.mark.parametrize("names", [["dat"], ["dat", "data"]])
def test_a_claim_that_is_not_there_is_answered_with_those_that_are(server, names, connect):
    server.add(claim("data"), claim("logs"))
    text = failure(kube_claims.resolve_claims, connect(server), "shop-a", names, kind=InvalidInput)
    assert "no such claim; choose one of those in the namespace: data, logs." in text


def test_a_claim_that_is_not_there_is_said_even_where_nothing_may_be_listed(server, connect):
    server.forbidden.add(("list", "persistentvolumeclaims"))
    text = failure(kube_claims.resolve_claims, connect(server), "shop-a", ["dat"], kind=InvalidInput)
    assert "there is no such claim; check the name and the namespace" in text


def test_unbound_and_foreign_claims_are_all_named_at_once(server, connect):
    pending = claim("pending", volumeName=None)
    pending["status"]["phase"] = "Pending"
    server.claims.append(pending)
    server.add(claim("far"), nodeAffinity=on_node("node-2"))
    server.add(claim("block"), hostPath=None, csi={"driver": "csi.example.org"})
    text = failure(kube_claims.resolve_claims, connect(server), "shop-a", node_name="node-1", kind=ClaimError)
    assert "resolve 3 claims" in text
    for words in ("shop-a/pending: it has no volume yet", "lies on node node-2", "CSI driver csi.example.org"):
        assert words in text


def test_claims_without_any_volume_cost_no_request_for_volumes(server, connect):
    pending = claim("pending", volumeName=None)
    pending["status"]["phase"] = "Pending"
    server.claims.append(pending)
    failure(kube_claims.resolve_claims, connect(server), "shop-a", kind=ClaimError)
    assert len(server.requests) == 1


@pytest.mark.parametrize("count", [1, 5])
def test_a_volume_that_does_not_exist_is_the_claims_fault_not_the_apis(server, count, connect):
    server.add(*[claim(f"data-{number}") for number in range(count)])
    del server.volumes[0]
    text = failure(kube_claims.resolve_claims, connect(server), "shop-a", kind=ClaimError)
    assert "its volume 'pv-data-0' does not exist" in text


@pytest.mark.parametrize(("namespace", "names"), [("../..", []), ("shop-a", ["../../nodes"]), ("shop-a", ["a?b"])])
def test_a_name_that_would_change_the_url_is_refused_before_any_request(server, namespace, names, connect):
    failure(kube_claims.resolve_claims, connect(server), namespace, names, kind=InvalidInput)
    assert server.requests == []


# Answers that go wrong


def test_an_expired_token_is_said_without_the_token(server, connect):
    client = connect(server, api_key=SECRET)
    text = failure(kube_claims.resolve_claims, client, "shop-a")
    assert f"{server.url} does not accept the credentials (Unauthorized); renew the token" in text
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("verb", "resource", "names"),
    [
        ("get", "persistentvolumeclaims", ["data-0"]),
        ("list", "persistentvolumeclaims", []),
        ("get", "persistentvolumes", ["data-0"]),
        ("list", "persistentvolumes", []),
    ],
)
def test_a_missing_permission_names_verb_and_resource(server, verb, resource, names, connect):
    server.add(*[claim(f"data-{number}") for number in range(5)])
    server.forbidden.add((verb, resource))
    text = failure(kube_claims.resolve_claims, connect(server), "shop-a", names)
    where = " in namespace shop-a" if resource == "persistentvolumeclaims" else ""
    assert f"allow {verb} on {resource}{where} to this user" in text
    assert f'User "tester" cannot {verb} resource' in text


def test_a_server_that_is_no_kubernetes_is_said(server, connect):
    text = failure(connect(server, host=f"{server.url}/elsewhere").list_objects, "list claims", CLAIMS, "a")
    assert "has no such object: the server could not find the requested resource; check the names and that host" in text


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_or_restarting_server_is_asked_again(server, status, connect):
    server.add(claim("data"))
    server.faults = [(status, {}), (status, {})]
    pauses = Pauses()
    assert len(kube_claims.resolve_claims(connect(server, sleep=pauses), "shop-a")) == 1
    assert pauses == list(kube.PAUSES[:2])


def test_retry_after_is_honoured_but_not_without_end(server, connect):
    server.faults = [(429, {"Retry-After": "2"}), (429, {"Retry-After": "3600"}), (503, {"Retry-After": "soon"})]
    server.add(claim("data"))
    pauses = Pauses()
    kube_claims.resolve_claims(connect(server, sleep=pauses), "shop-a")
    assert pauses == [2.0, 5.0, kube.PAUSES[2]]


def test_a_server_that_stays_broken_is_given_up(server, connect):
    server.faults = [(500, {})] * 99
    text = failure(kube_claims.resolve_claims, connect(server), "shop-a")
    assert "answered 500: the test says so; try again" in text
    assert len(server.requests) == len(kube.PAUSES) + 1


def test_a_slow_answer_is_not_waited_for(server, connect):
    server.delay = 1.0
    pauses = Pauses()
    text = failure(kube_claims.resolve_claims, connect(server, timeout=0.2, sleep=pauses), "shop-a")
    assert f"no answer from {server.url} within 0.2 s" in text
    assert pauses == []


def test_a_redirect_is_not_followed_and_gets_no_token(server, certificate, connect):
    with FakeKube(certificate) as other:
        server.faults = [(302, {"Location": f"{other.url}/api/v1/persistentvolumes"})]
        text = failure(connect(server).list_objects, "list volumes", VOLUMES)
        assert "answered 302" in text
        assert other.requests == []


@pytest.mark.parametrize("body", [b"<html>login</html>", b"", b"[]", b"\xff\xfe", b'{"items": 3}'])
def test_an_answer_that_is_not_the_apis_is_an_error_never_an_empty_list(server, body, connect):
    server.raw = body
    failure(kube_claims.resolve_claims, connect(server), "shop-a")


def test_a_server_that_is_down_is_said_with_the_kernels_words(server, connect):
    client = connect(server, host="https://127.0.0.1:9")
    text = failure(kube_claims.resolve_claims, client, "shop-a")
    assert "https://127.0.0.1:9 cannot be reached or understood (Connection refused)" in text


def test_a_server_that_comes_back_is_reached(certificate, connect):
    with FakeKube(certificate) as gone:
        port = int(gone.url.rsplit(":", 1)[1])
    came_back: list[FakeKube] = []

    def restart(_seconds):
        if not came_back:
            came_back.append(FakeKube(certificate, port).__enter__())
            came_back[0].add(claim("data"))

    try:
        assert len(kube_claims.resolve_claims(connect(gone, sleep=restart), "shop-a")) == 1
    finally:
        for fake in came_back:
            fake.__exit__()


def test_a_proxy_that_is_down_is_said_without_its_password(server, connect):
    text = failure(connect(server, proxy=f"http://me:{SECRET}@127.0.0.1:9").list_objects, "list volumes", VOLUMES)
    assert f"the proxy to {server.url} does not connect (Connection refused)" in text
    assert server.requests == []


def test_a_secret_that_the_server_repeats_is_blotted_out(server, connect):
    server.faults = [(400, {})]
    server.fault_message = f"what is {TOKEN}?"
    assert "answered 400: what is ***?" in failure(connect(server).list_objects, "list volumes", VOLUMES)


def test_an_unknown_host_is_said(server, connect):
    text = failure(connect(server, host="https://nowhere.invalid").list_objects, "list volumes", VOLUMES)
    assert "https://nowhere.invalid cannot be reached" in text


# Trust


def test_a_server_of_an_unknown_ca_is_refused(server, tmp_path, connect):
    other = make_certificate(tmp_path, "localhost")
    text = failure(kube_claims.resolve_claims, connect(server, ca_cert=str(other)), "shop-a")
    assert f"no trusted connection to {server.url}" in text
    assert "give the CA of its certificate as ca_cert" in text
    assert server.requests == []


def test_a_certificate_for_another_host_is_refused(tmp_path, connect):
    with FakeKube(make_certificate(tmp_path, "kube.example.org")) as server:
        text = failure(kube_claims.resolve_claims, connect(server), "shop-a")
        assert "no trusted connection" in text
        assert server.requests == []


def test_trust_can_be_waived(server, connect):
    server.add(claim("data"))
    assert kube_claims.resolve_claims(connect(server, ca_cert=None, validate_certs=False), "shop-a")


# Login


def test_basic_authentication_is_sent(server, connect):
    server.authorization = "Basic " + base64.b64encode(f"jane:{SECRET}".encode()).decode()
    server.add(claim("data"))
    assert kube_claims.resolve_claims(connect(server, api_key=None, username="jane", password=SECRET), "shop-a")


def test_a_client_certificate_needs_no_kubeconfig(server, connect):
    key = str(server.certificate)
    text = failure(kube_claims.resolve_claims, connect(server, api_key=None, client_cert=key, client_key=key), "shop-a")
    assert "does not accept the credentials" in text


def test_impersonation_sends_the_user_and_every_group(server, connect):
    server.add(claim("data"))
    kube_claims.resolve_claims(
        connect(server, impersonate_user="jane", impersonate_groups=["ops", "dev", "night shift"]), "shop-a"
    )
    headers = server.requests[0].headers
    assert headers["Impersonate-User"] == "jane"
    assert headers.get_all("Impersonate-Group") == ["ops", "dev", "night shift"]


def test_a_kubeconfig_can_be_a_mapping(server, login):
    server.add(claim("data"))
    assert kube_claims.resolve_claims(login({"kubeconfig": server.kubeconfig()}), "shop-a")


@pytest.mark.parametrize("way", ["option", "environment", "home"])
def test_a_kubeconfig_file_is_found(server, way, tmp_path, monkeypatch, login):
    server.add(claim("data"))
    path = tmp_path / (".kube/config" if way == "home" else "elsewhere")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(server.kubeconfig()))
    if way == "environment":
        monkeypatch.setenv("KUBECONFIG", str(path))
    assert kube_claims.resolve_claims(login({"kubeconfig": str(path)} if way == "option" else {}), "shop-a")


def exec_plugin(tmp_path, token, **status):
    """Return a kubeconfig's user whose token a program reads from a file, and that file."""
    version = "client.authentication.k8s.io/v1"
    path = tmp_path / "credential"
    credential = {"apiVersion": version, "kind": "ExecCredential", "status": {"token": token, **status}}
    path.write_text(json.dumps(credential))
    code = "import sys; print(open(sys.argv[1]).read())"
    plugin = {"apiVersion": version, "command": sys.executable, "args": ["-c", code, str(path)]}
    return {"exec": {**plugin, "interactiveMode": "Never"}}, path


def test_an_exec_plugin_supplies_the_token(server, tmp_path, login):
    server.add(claim("data"))
    user, _path = exec_plugin(tmp_path, TOKEN)
    assert kube_claims.resolve_claims(login({"kubeconfig": server.kubeconfig(**user)}), "shop-a")


def test_a_token_that_has_expired_is_renewed_between_requests(server, tmp_path, login):
    server.add(claim("data"))
    user, path = exec_plugin(tmp_path, TOKEN, expirationTimestamp="2020-01-01T00:00:00Z")
    client = login({"kubeconfig": server.kubeconfig(**user)})
    assert kube_claims.resolve_claims(client, "shop-a")
    path.write_text(path.read_text().replace(TOKEN, SECRET))
    server.authorization = f"Bearer {SECRET}"
    assert kube_claims.resolve_claims(client, "shop-a")


def test_a_token_that_is_given_goes_over_that_of_the_kubeconfig(server, login):
    server.add(claim("data"))
    client = login({"kubeconfig": server.kubeconfig(token="an-old-token"), "api_key": TOKEN})
    assert kube_claims.resolve_claims(client, "shop-a")


def test_a_host_that_is_given_goes_over_that_of_the_kubeconfig(server, login):
    server.add(claim("data"))
    config = server.kubeconfig()
    config["clusters"][0]["cluster"]["server"] = "https://nowhere.invalid"
    client = login({"kubeconfig": config, "host": server.url + "/"})
    assert kube_claims.resolve_claims(client, "shop-a")
    assert kube_claims.resolve_claims(client, "shop-a"), "nor is it forgotten after the first request"


def test_complete_credentials_for_a_host_need_no_kubeconfig_even_where_one_is_named(server, connect):
    server.add(claim("data"))
    assert kube_claims.resolve_claims(connect(server, kubeconfig="/nowhere"), "shop-a")


def test_the_pods_service_account_is_used_in_a_pod(server, monkeypatch, tmp_path, login):
    from kubernetes.config import incluster_config

    server.add(claim("data"))
    host, port = server.url[len("https://") :].split(":")
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(server.certificate))
    monkeypatch.setattr(kube_accounts, "ACCOUNT", str(tmp_path))
    (tmp_path / "ca.crt").symlink_to(server.certificate)
    assert kube_claims.resolve_claims(login({}), "shop-a")


def test_without_any_login_the_message_names_the_ways(login):
    text = failure(login, {}, kind=InvalidInput)
    assert "kubeconfig ~/.kube/config: it is not there or cannot be read; name one with kubeconfig, or" in text


def test_an_unknown_context_is_answered_with_those_that_exist(server, tmp_path, login):
    path = tmp_path / "config"
    path.write_text(json.dumps(server.kubeconfig()))
    for kubeconfig in (str(path), server.kubeconfig()):
        text = failure(login, {"kubeconfig": kubeconfig, "context": "prod"}, kind=InvalidInput)
        assert "has no context 'prod'; choose one of its contexts: lab." in text


@pytest.mark.parametrize("content", ["{", "just text", "[1, 2]", "", "\0"])
def test_a_broken_kubeconfig_file_is_said(content, tmp_path, login):
    path = tmp_path / "config"
    path.write_text(content)
    assert f"kubeconfig {path}" in failure(login, {"kubeconfig": str(path)}, kind=InvalidInput)


@pytest.mark.parametrize("as_file", [False, True])
def test_a_kubeconfig_with_a_hole_is_said_without_its_secrets(server, tmp_path, as_file, login):
    config = server.kubeconfig()
    config["users"] = [{"name": "tester", "token": SECRET}]
    path = tmp_path / "config"
    path.write_text(json.dumps(config))
    text = failure(login, {"kubeconfig": str(path) if as_file else config}, kind=InvalidInput)
    assert "Expected key user in" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "10.0.0.1:6443"}, "host is not a URL"),
        ({"host": "file:///etc"}, "host is not a URL"),
        ({"ca_cert": "/nowhere.pem"}, "ca_cert /nowhere.pem cannot be read"),
        ({"client_cert": "/etc/passwd"}, "client_cert and client_key go together"),
        ({"impersonate_groups": ["ops"]}, "lacks impersonate_user"),
        ({"kubeconfig": 7}, "neither a path nor a mapping"),
    ],
)
def test_options_that_cannot_be_right_are_refused_before_any_login(options, words, login):
    assert words in failure(login, options, kind=InvalidInput)


def test_a_password_in_the_hosts_url_is_never_shown(server, connect):
    host = server.url.replace("//", f"//jane:{SECRET}@")
    text = failure(kube_claims.resolve_claims, connect(server, host=host, api_key="wrong"), "shop-a")
    assert server.url in text


def test_secrets_are_found_wherever_they_stand():
    options = {
        "api_key": "key-1",
        "password": "word-2",
        "proxy": "http://me:word-3@proxy:3128",
        "proxy_headers": {"basic_auth": "me:word-4", "user_agent": "mine/1.0", "proxy_basic_auth": None},
        "kubeconfig": {
            "users": [
                {"name": "tester-name", "user": {"token": "token-0005", "client-key-data": "key-data-0006"}},
                {"name": "sso", "user": {"auth-provider": {"name": "oidc-name", "config": {"id-token": "id-token-7"}}}},
                {"name": "aws", "user": {"exec": {"env": [{"name": "AWS_SECRET", "value": "aws-secret-8"}]}}},
            ]
        },
    }
    assert sorted(secrets_of(options)) == [
        "aws-secret-8",
        "id-token-7",
        "key-1",
        "key-data-0006",
        "me:word-4",
        "token-0005",
        "word-2",
        "word-3",
    ]


# The package


def test_a_missing_package_is_named_with_the_failed_import(monkeypatch, login):
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(MissingLibrary) as caught:
        login({"host": "https://127.0.0.1:9", "api_key": "x"})
    assert caught.value.library == "kubernetes"
    assert "ModuleNotFoundError" in caught.value.traceback
    assert isinstance(caught.value, RestorePointError)


def test_a_package_that_is_too_old_is_refused(monkeypatch, login):
    import kubernetes

    monkeypatch.setattr(kubernetes, "__version__", "18.20.0")
    text = failure(login, {"host": "https://127.0.0.1:9", "api_key": "x"})
    assert "kubernetes is 18.20.0; install 24 or newer" in text


def test_the_package_is_not_imported_until_it_is_needed():
    code = (
        "import sys\n"
        "from ansible_collections.restorepoint.core.plugins.module_utils import kube\n"
        "assert 'kubernetes' not in sys.modules\n"
        "assert 'urllib3' not in sys.modules\n"
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
