# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From claims to directories and nodes, on plain dicts as the API answers them."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core import claim_names, claims
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput, RestorePointError
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_kube import (
    affinity,
    claim,
    on_node,
    volume,
)

HOSTNAME = claims.HOSTNAME


def resolve(pvc=None, **spec):
    pvc = pvc or claim("data")
    return claims.resolve_claim(pvc, volume(pvc, **spec))


def is_in(*values, key=HOSTNAME):
    return {"key": key, "operator": "In", "values": list(values)}


def error_of(call, *arguments, kind=claims.ClaimError):
    with pytest.raises(kind) as caught:
        call(*arguments)
    text = str(caught.value)
    assert text.startswith("Cannot ")
    assert text.endswith(".")
    assert "\n" not in text
    return text


def test_a_hostpath_claim_becomes_its_path_and_node():
    assert resolve() == claims.ClaimVolume(
        namespace="shop-a",
        pvc="data",
        pv="pv-data",
        path="/srv/volumes/data",
        nodes=("node-1",),
        kind="hostPath",
        uid="uid-shop-a-data",
        storage_class="hostpath",
    )


def test_a_local_claim_becomes_its_path_and_node():
    found = resolve(hostPath=None, local={"path": "/mnt/disks/ssd1"})
    assert (found.kind, found.path) == ("local", "/mnt/disks/ssd1")


@pytest.mark.parametrize(
    ("written", "meant"),
    [("/a//b/", "/a/b"), ("//a/b", "/a/b"), ("///", "/"), ("/a/./b", "/a/b"), ("/with space/ü", "/with space/ü")],
)
def test_a_path_is_normalised(written, meant):
    assert resolve(hostPath={"path": written}).path == meant


@pytest.mark.parametrize("path", ["", "a/b", "../a", "/a/../../etc", "/a\0b", None, 7, ["/a"]])
def test_a_path_that_is_not_absolute_and_plain_is_refused(path):
    assert "not absolute and plain" in error_of(lambda: resolve(hostPath={"path": path}))


@pytest.mark.parametrize("spec", [{"nodeAffinity": None}, {"nodeAffinity": {}}, {"nodeAffinity": {"required": None}}])
def test_a_volume_without_affinity_lies_on_any_node(spec):
    found = resolve(**spec)
    assert found.nodes == ()
    claims.check_node(found, "whatever")


@pytest.mark.parametrize(
    ("terms", "nodes"),
    [
        ([[is_in("b", "a")]], ("a", "b")),
        ([[is_in("a")], [is_in("b")]], ("a", "b")),
        ([[is_in("a", "b"), is_in("b", "c")]], ("b",)),
        ([[is_in("a"), is_in("b")], [is_in("c")]], ("c",)),
        ([[], [is_in("c")]], ("c",)),
    ],
)
def test_terms_are_alternatives_and_their_requirements_all_hold(terms, nodes):
    assert resolve(nodeAffinity=affinity(*terms)).nodes == nodes


def test_a_node_can_be_named_by_a_field():
    term = {"matchFields": [is_in("node-7", key="metadata.name")]}
    assert resolve(nodeAffinity={"required": {"nodeSelectorTerms": [term]}}).nodes == ("node-7",)


def test_a_label_and_a_field_count_as_one_only_when_they_name_the_same_node():
    term = {"matchExpressions": [is_in("n1")], "matchFields": [is_in("n1", key="metadata.name")]}
    assert resolve(nodeAffinity={"required": {"nodeSelectorTerms": [term]}}).nodes == ("n1",)
    term["matchFields"] = [is_in("n1.example.org", key="metadata.name")]
    text = error_of(lambda: resolve(nodeAffinity={"required": {"nodeSelectorTerms": [term]}}))
    assert "with different values" in text


@pytest.mark.parametrize(
    "requirement",
    [
        {"key": HOSTNAME, "operator": "NotIn", "values": ["a"]},
        {"key": HOSTNAME, "operator": "Exists"},
        {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["eu-1"]},
        {"key": "metadata.name", "operator": "In", "values": ["a"]},
        {"key": HOSTNAME, "operator": "In", "values": "node"},
        {"key": HOSTNAME, "operator": "In", "values": [""]},
        {"key": HOSTNAME, "operator": "In"},
        "node-1",
    ],
)
def test_what_cannot_be_told_is_said_and_not_guessed(requirement):
    text = error_of(lambda: resolve(nodeAffinity=affinity([is_in("a")], [requirement])))
    assert "'pv-data' cannot tell its node" in text
    assert "path" in text


@pytest.mark.parametrize("terms", [[], [[]], [[is_in("a"), is_in("b")]], [[is_in()]]])
def test_an_affinity_that_matches_no_node_is_not_any_node(terms):
    assert "matches no node at all" in error_of(lambda: resolve(nodeAffinity=affinity(*terms)))


def test_a_volume_on_another_node_names_that_node_and_the_way_there():
    text = error_of(claims.check_node, resolve(nodeAffinity=on_node("node-2", "node-1")), "control")
    assert text == (
        "Cannot reach the directory of claim shop-a/data: its volume 'pv-data' lies on node node-1 or node-2, and this "
        "is control; run it against the inventory host of that node, which the filter claims_by_host finds, or "
        "delegate_to it."
    )


def test_a_volume_on_this_node_passes_in_any_case():
    claims.check_node(resolve(nodeAffinity=on_node("node-2", "Node-1")), "node-1")


def test_a_node_name_is_never_matched_by_its_beginning():
    found = resolve(nodeAffinity=on_node("node-1.example.org"))
    assert "lies on node node-1.example.org" in error_of(claims.check_node, found, "node-1")


def test_a_pending_claim_names_phase_class_and_first_use():
    pvc = claim("data", volumeName=None, storageClassName="slow")
    pvc["status"] = {"phase": "Pending"}
    text = error_of(claims.resolve_claim, pvc, None)
    assert "phase Pending, storage class slow" in text
    assert "WaitForFirstConsumer" in text


def test_a_lost_claim_says_that_its_volume_is_gone():
    pvc = claim("data")
    pvc["status"] = {"phase": "Lost"}
    assert "its volume 'pv-data' is gone" in error_of(claims.resolve_claim, pvc, None)


@pytest.mark.parametrize("name", ["../nodes", "pv data", "PV", ["pv"]])
def test_a_volume_name_that_would_leave_its_place_in_a_url_is_refused(name):
    assert "no volume can be called" in error_of(claims.volume_name, claim("data", volumeName=name))


def test_a_claim_whose_volume_does_not_exist_is_an_error():
    assert "'pv-data' does not exist" in error_of(claims.resolve_claim, claim("data"), None)


@pytest.mark.parametrize("member", ["namespace", "name", "uid"])
def test_a_volume_that_does_not_point_back_is_refused(member):
    pvc = claim("data")
    found = volume(pvc)
    found["spec"]["claimRef"][member] = "another"
    text = error_of(claims.resolve_claim, pvc, found)
    assert "is reserved for" in text
    assert "another" in text


def test_a_volume_that_nobody_claimed_is_refused():
    assert "reserved for no claim" in error_of(lambda: resolve(claimRef=None))


def test_two_objects_without_a_uid_do_not_belong_together():
    pvc = claim("data")
    del pvc["metadata"]["uid"]
    reference = {"namespace": "shop-a", "name": "data"}
    found = volume(claim("data"), claimRef=reference)
    assert "is reserved for" in error_of(claims.resolve_claim, pvc, found)


def test_a_csi_volume_names_its_driver_and_the_module_for_it():
    source = {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-1"}
    text = error_of(lambda: resolve(hostPath=None, csi=source))
    assert "CSI driver ebs.csi.aws.com" in text
    assert "csi_snapshot" in text


def test_a_volume_of_another_kind_names_its_kind():
    text = error_of(lambda: resolve(hostPath=None, nfs={"server": "nas", "path": "/export"}))
    assert "is of kind nfs" in text
    assert "csi_snapshot handles CSI volumes" in text


@pytest.mark.parametrize("kind", ["File", "Socket", "BlockDevice", "CharDevice"])
def test_a_hostpath_that_is_no_directory_is_refused(kind):
    assert f"is a {kind}, not a directory" in error_of(lambda: resolve(hostPath={"path": "/x", "type": kind}))


def test_a_raw_block_claim_is_refused():
    assert "raw block device" in error_of(lambda: resolve(claim("data", volumeMode="Block"), volumeMode="Block"))


def test_a_claim_that_is_being_deleted_is_a_warning():
    pvc = claim("data")
    pvc["metadata"]["deletionTimestamp"] = "2026-11-22T01:30:00Z"
    (warning,) = resolve(pvc).warnings
    assert "shop-a/data is being deleted" in warning


def test_a_missing_name_lists_the_names_that_exist():
    found = [claim("logs"), claim("data")]
    text = error_of(claims.select_claims, "shop-a", found, ["data", "dat"], None, kind=InvalidInput)
    assert text == (
        "Cannot find claim shop-a/dat: there is no such claim; choose one of those in the namespace: data, logs."
    )


def test_a_long_list_of_names_is_cut_short():
    names = [f"claim-{number:03}" for number in range(200)]
    text = str(claim_names.missing_claim("shop-a", "x", names))
    assert "claim-019 and 180 more" in text
    assert "claim-020" not in text


def test_claims_come_in_the_order_asked_for_else_by_name():
    found = [claim("b"), claim("c"), claim("a")]

    def names(asked):
        return [each["metadata"]["name"] for each in claims.select_claims("shop-a", found, asked, None)]

    assert names(["c", "a"]) == ["c", "a"]
    assert names([]) == ["a", "b", "c"]


def test_a_selector_that_matches_nothing_is_an_error():
    text = error_of(claims.select_claims, "shop-a", [], [], "app=x", kind=InvalidInput)
    assert "'app=x' matches none" in text


def test_a_namespace_without_claims_is_an_error():
    text = error_of(claims.select_claims, "shop-a", [], [], None, kind=InvalidInput)
    assert "has none, or does not exist" in text


@pytest.mark.parametrize("namespace", ["", "Shop", "a/b", "..", "a.b", "-a", "a-", "a\n", "x" * 64])
def test_a_namespace_that_no_cluster_can_hold_is_refused(namespace):
    error_of(claim_names.check_request, namespace, [], None, kind=InvalidInput)


@pytest.mark.parametrize("name", ["", "../nodes", "a b", "A", "a..b", "x" * 254, "data?watch=1"])
def test_a_claim_name_that_no_cluster_can_hold_is_refused(name):
    error_of(claim_names.check_request, "shop-a", [name], None, kind=InvalidInput)


def test_names_and_a_selector_together_are_refused():
    error_of(claim_names.check_request, "shop-a", ["a"], "app=x", kind=InvalidInput)


def test_a_name_asked_for_twice_is_taken_once():
    assert claim_names.check_request("shop-a--1", ["b", "a.x", "b"], None) == ["b", "a.x"]


def test_every_claim_at_fault_is_named_in_one_sentence():
    good, pending, remote = claim("good"), claim("pending", volumeName=None), claim("remote")
    pending["status"] = {"phase": "Pending"}
    volumes = {"pv-good": volume(good), "pv-remote": volume(remote, hostPath=None, csi={"driver": "d"})}
    text = error_of(claims.resolve_all, [good, pending, remote], volumes, "node-1")
    assert "resolve 2 claims" in text
    assert "claim shop-a/pending: it has no volume yet" in text
    assert "claim shop-a/remote: its volume 'pv-remote' is served by the CSI driver d" in text
    assert "good" not in text


def test_without_a_node_to_check_volumes_of_all_nodes_are_resolved():
    one, two = claim("one"), claim("two")
    volumes = {"pv-one": volume(one), "pv-two": volume(two, nodeAffinity=on_node("node-2"))}
    found = claims.resolve_all([two, one], volumes, None)
    assert [each.nodes for each in found] == [("node-2",), ("node-1",)]


WORDS = st.sampled_from(["", "node-1", "node-2", "In", "NotIn", HOSTNAME, "metadata.name", "/", "/a", "a", "..", "\0"])
KEYS = st.sampled_from(
    ["required", "nodeSelectorTerms", "matchExpressions", "matchFields", "key", "operator", "values", "path", "type"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
REQUIREMENTS = st.fixed_dictionaries(
    {"key": st.just(HOSTNAME) | WORDS, "operator": st.just("In") | WORDS, "values": st.lists(WORDS, max_size=3) | JSON}
)
TERMS = st.fixed_dictionaries(
    {}, optional={"matchExpressions": st.lists(REQUIREMENTS, max_size=3) | JSON, "matchFields": JSON}
)
AFFINITIES = JSON | st.lists(TERMS | JSON, max_size=3).map(lambda terms: {"required": {"nodeSelectorTerms": terms}})
SOURCES = JSON | st.fixed_dictionaries({"path": st.text() | WORDS | st.text().map("/{}".format)})


@given(affinity=AFFINITIES, source=SOURCES, kind=st.sampled_from(["hostPath", "local", "nfs", "csi"]))
def test_no_volume_crashes_it_and_no_path_is_ever_relative(affinity, source, kind):
    try:
        found = resolve(**{"hostPath": None, "nodeAffinity": affinity, kind: source})
    except RestorePointError:
        return
    assert posixpath.isabs(found.path)
    assert found.path == "/" + posixpath.normpath(found.path).lstrip("/")
    assert ".." not in found.path.split("/")
    assert all(isinstance(node, str) and node for node in found.nodes)


@given(JSON, JSON)
def test_objects_of_any_shape_end_in_an_error_or_an_absolute_path(pvc, pv):
    pvc = pvc if isinstance(pvc, dict) else {"metadata": pvc, "spec": pvc, "status": pvc}
    with pytest.raises(RestorePointError):
        claims.resolve_claim(pvc, pv if isinstance(pv, dict) else None)


@given(st.lists(st.lists(st.lists(st.sampled_from("abcd"), max_size=3), max_size=3), max_size=3))
def test_nodes_are_the_union_of_terms_and_the_intersection_within_them(tree):
    expected = {node for node in "abcd" if any(term and all(node in values for values in term) for term in tree)}
    spec = affinity(*[[is_in(*values) for values in term] for term in tree])
    if expected:
        assert set(resolve(nodeAffinity=spec).nodes) == expected
    else:
        error_of(lambda: resolve(nodeAffinity=spec))


@pytest.mark.parametrize(
    ("provisioner", "source", "kind"),
    [
        ("microk8s.io/hostpath", {"hostPath": {"path": "{top}-pvc-1", "type": "DirectoryOrCreate"}}, "hostPath"),
        ("rancher.io/local-path", {"hostPath": {"path": "{top}_shop_data", "type": "DirectoryOrCreate"}}, "hostPath"),
        ("rancher.io/local-path", {"hostPath": None, "local": {"path": "{top}_shop_data"}}, "local"),
        ("openebs.io/local", {"hostPath": None, "local": {"path": "{top}", "fsType": ""}}, "local"),
    ],
)
def test_volumes_of_the_usual_provisioners_are_read_whatever_they_call_their_folders(provisioner, source, kind):
    top = "/var/snap/microk8s/common/default-storage/shop-a-b-data"
    spec = {
        name: {key: value.format(top=top) for key, value in given.items()} if given else None
        for name, given in source.items()
    }
    asked = claim("data", namespace="shop-a-b")
    made = volume(asked, **spec, nodeAffinity=on_node("node-1"))
    made["metadata"]["annotations"] = {"pv.kubernetes.io/provisioned-by": provisioner}
    found = claims.resolve_claim(asked, made)
    assert (found.kind, found.nodes, found.namespace) == (kind, ("node-1",), "shop-a-b")
    assert found.path.startswith(top)


def test_claims_whose_names_run_into_the_same_words_are_kept_apart():
    """Provisioners join namespace and name with a hyphen: a-b/c and a/b-c look alike on disk."""
    one, other = claim("c", namespace="a-b", volumeName="pv-1"), claim("b-c", namespace="a", volumeName="pv-2")
    for asked, stranger in ((one, other), (other, one)):
        error_of(claims.resolve_claim, asked, {**volume(stranger), "metadata": {"name": asked["spec"]["volumeName"]}})
