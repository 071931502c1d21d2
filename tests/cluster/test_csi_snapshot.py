# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""csi_snapshot on a real control plane: every state, in check mode, in earnest and again; and what goes wrong."""

from __future__ import annotations

import threading

import pytest

from ansible_collections.restorepoint.core.tests.cluster.lab import CORE, GROUPS, SNAPSHOTS, Failed

BOTH = ["db", "uploads"]
SNAPSHOT_GROUP = "snapshot.storage.k8s.io"
ACTS = "csi_snapshot"


class Shop:
    """A namespace with two claims that hold data, and the module for it."""

    def __init__(self, cluster, namespace):
        self.cluster, self.api, self.namespace = cluster, cluster.api, namespace
        for claim in BOTH:
            cluster.claim(namespace, claim, {"a": f"old {claim}"}, labels={"app": "shop"})

    def run(self, check_mode=False, **options):
        given = {"namespace": self.namespace, "pvc": BOTH, "timeout": 180, **options}
        if "selector" in given:
            del given["pvc"]
        return self.cluster.call(ACTS, check_mode=check_mode, diff=True, **given)

    def done(self, again=False, **options):
        """Run it in check mode, in earnest, and again; what was foreseen has to come."""
        before = self.cluster.snapshots(self.namespace)
        foreseen = self.run(check_mode=True, **options)
        assert self.cluster.snapshots(self.namespace) == before
        result = self.run(**options)
        assert foreseen.told == result.told
        assert foreseen["changed"] == result["changed"]
        assert foreseen["diff"] == result["diff"]
        assert self.run(**options)["changed"] == again
        return result

    def fails(self, **options):
        with pytest.raises(Failed) as caught:
            self.run(**options)
        text = caught.value.result["msg"]
        assert text.startswith("Cannot ")
        assert "\n" not in text
        return text

    def info(self, **options):
        return self.cluster.call("csi_snapshot_info", namespace=self.namespace, **options)

    def names(self):
        return self.cluster.snapshots(self.namespace)

    def read(self, claim="db"):
        return self.cluster.read(self.namespace, claim)


@pytest.fixture
def shop(cluster, namespace):
    return Shop(cluster, namespace)


def actions(result):
    return [each["action"] for each in result["results"]]


# Snapshots and claims from them


def test_the_whole_tour_with_the_data_compared_on_disk(shop):
    before = shop.read()
    result = shop.done(name="pre", description="Before", labels={"ticket": "1"})
    assert actions(result) == ["created", "created"]
    assert shop.names() == ["db-pre", "uploads-pre"]
    shop.cluster.write(shop.namespace, "db", {"a": "new", "b": "later"})
    shown = [each for each in shop.info(contents=True)["snapshots"] if each["target"].endswith("/db")]
    assert [(each["name"], each["ready"], each["description"]) for each in shown] == [("pre", True, "Before")]
    assert shown[0]["extra"]["handle"]
    result = shop.done(name="pre", state="cloned", clone=["db-copy", "uploads-copy"])
    assert [each["phase"] for each in result["results"]] == ["Bound", "Bound"]
    assert shop.cluster.read(shop.namespace, "db-copy") == before
    assert actions(shop.done(name="pre", state="absent")) == ["removed", "removed"]
    assert shop.names() == []


def test_a_claim_is_returned_right_after_its_snapshot_is_ready(shop):
    for number in range(3):
        shop.cluster.write(shop.namespace, "db", {"a": f"data {number}"})
        shop.run(pvc=["db"], name=f"n-{number}")  # the snapshot controller lets go of the claim a moment later
        shop.run(pvc=["db"], name=f"n-{number}", state="rolled_back")
        assert shop.read() == {"a": f"data {number}"}


def test_a_larger_clone_of_another_class(shop):
    shop.done(pvc=["db"], name="pre")
    assert "needs 1.0 MiB" in shop.fails(pvc=["db"], name="pre", state="cloned", clone=["copy"], size="1K")
    shop.done(pvc=["db"], name="pre", state="cloned", clone=["copy"], size="2M", storage_class="folders")
    claim = shop.api.get(shop.cluster.claim_path(shop.namespace, "copy"))
    assert claim["spec"]["resources"]["requests"]["storage"] in ("2Mi", str(2 * 2**20))


def test_a_description_changes_in_place_and_an_old_snapshot_is_replaced(shop):
    shop.done(name="pre", description="one")
    assert actions(shop.done(name="pre", description="two", object_labels={"team": "a"})) == ["described"] * 2
    old = {each["extra"]["uid"] for each in shop.info()["snapshots"]}
    threading.Event().wait(2.5)
    assert "older than max_age 1s" in shop.fails(name="pre", max_age="1s")
    assert actions(shop.run(name="pre", max_age="1s", replace=True)) == ["replaced"] * 2
    new = {each["extra"]["uid"] for each in shop.info()["snapshots"]}
    assert len(shop.names()) == 2
    assert not old & new


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_the_deletion_policy_decides_what_stays_on_the_storage(shop, policy):
    shop.done(pvc=["db"], name="pre", deletion_policy=policy)
    (shown,) = shop.info(contents=True)["snapshots"]
    content = f"{SNAPSHOTS}/volumesnapshotcontents/{shown['extra']['content']}"
    shop.done(pvc=["db"], name="pre", state="absent")
    if policy == "Delete":
        shop.api.gone(content)
        return
    assert shop.api.get(content)["spec"]["deletionPolicy"] == "Retain"
    # What was retained can be imported again, once what is left of it is gone; its data comes back.
    assert "is known already" in shop.fails(pvc=["db"], name="found", import_handle=shown["extra"]["handle"])
    shop.api.delete(content)
    shop.api.gone(content)
    shop.cluster.write(shop.namespace, "db", {"a": "new"})
    shop.done(pvc=["db"], name="found", import_handle=shown["extra"]["handle"])
    shop.done(pvc=["db"], name="found", state="cloned", clone=["copy"])
    assert shop.read("copy") == {"a": "old db"}
    shop.run(pvc=["db"], name="found", state="absent", deletion_policy="Delete")


def test_foreign_snapshots_are_listed_cloned_and_removed_by_their_objects_name(shop):
    shop.cluster.snapshot(shop.namespace, "db", "by-hand")
    (shown,) = shop.info()["snapshots"]
    assert (shown["name"], shown["owner"], shown["ready"]) == ("by-hand", None, True)
    shop.done(pvc=["db"], name="by-hand", state="cloned", clone=["copy"])
    shop.done(pvc=["db"], state="pruned", keep={"last": 1})
    assert shop.names() == ["by-hand"]
    shop.done(pvc=["db"], name="by-hand", state="absent")
    assert shop.names() == []


def test_the_keep_rules_hold(shop):
    for number in range(3):
        shop.run(name=f"nightly-{number}", owner="nightly")
        threading.Event().wait(1.1)
    shop.done(owner="nightly", state="pruned", keep={"last": 2})
    assert shop.names() == ["db-nightly-1", "db-nightly-2", "uploads-nightly-1", "uploads-nightly-2"]


def test_a_hundred_claims_take_a_request_each_and_a_few_more(shop):
    names = [f"data-{number:03d}" for number in range(100)]
    shop.cluster.claims(shop.namespace, names)
    result = shop.run(pvc=names, name="pre")
    assert actions(result) == ["created"] * 100
    assert result["api_calls"] <= 100 * 1.5 + 20
    clones = [f"copy-{number:03d}" for number in range(100)]
    result = shop.run(pvc=names, name="pre", state="cloned", clone=clones)
    assert result["api_calls"] <= 100 * 1.5 + 20
    assert shop.read("copy-042") == {"name": "data-042"}
    result = shop.run(pvc=names, name="pre", state="absent")
    assert result["api_calls"] <= 100 * 1.5 + 20
    assert shop.names() == []


# Groups


@pytest.mark.parametrize("way", ["names", "selector"])
def test_a_group_is_of_one_instant_and_goes_as_one(shop, way):
    meant = {"selector": "app=shop"} if way == "selector" else {}
    result = shop.done(name="pre", group=True, **meant)
    assert len({each["group"] for each in result["results"]}) == 1
    assert result["spread_seconds"] == 0
    assert [each["name"] for each in shop.info()["snapshots"]] == ["pre", "pre"]
    assert "name those claims too" in shop.fails(pvc=["db"], name="pre", state="absent")
    shop.cluster.write(shop.namespace, "db", {"a": "new"})
    shop.done(pvc=["db"], name="pre", state="cloned", clone=["copy"])
    assert shop.read("copy") == {"a": "old db"}
    shop.done(name="pre", state="absent", **meant)
    assert shop.api.items(f"{GROUPS}/namespaces/{shop.namespace}/volumegroupsnapshots") == []


# Returns


def test_claims_are_returned_in_place_and_that_is_taken_back(shop):
    shop.done(name="pre")
    for claim in BOTH:
        shop.cluster.write(shop.namespace, claim, {"a": "new", "b": "later"})
    foreseen = shop.run(check_mode=True, name="pre", state="rolled_back")
    assert shop.read()["a"] == "new"
    result = shop.run(name="pre", state="rolled_back", once="job-1")
    assert foreseen.told == result.told
    assert actions(result) == ["rolled_back"] * 2
    assert [shop.read(claim) for claim in BOTH] == [{"a": "old db"}, {"a": "old uploads"}]
    assert not shop.run(name="pre", state="rolled_back", once="job-1")["changed"]
    assert [each["name"] for each in shop.info()["asides"]] == [each["aside"]["name"] for each in result["results"]]
    assert shop.done(state="rolled_back", undo=True)["changed"]
    assert shop.read() == {"a": "new", "b": "later"}
    assert shop.done(state="pruned", asides={"last": 0, "max_age": "1s"}) is not None


def test_an_aside_is_removed_by_its_name(shop):
    shop.done(pvc=["db"], name="pre")
    aside = shop.run(pvc=["db"], name="pre", state="rolled_back").only["aside"]
    shop.done(pvc=["db"], name=aside["name"], state="absent")
    assert shop.info()["asides"] == []
    assert shop.read() == {"a": "old db"}


def test_without_keep_current_the_old_volume_goes(shop):
    shop.done(pvc=["db"], name="pre")
    result = shop.run(pvc=["db"], name="pre", state="rolled_back", keep_current=False)
    assert result.only["aside"] is None
    assert shop.info()["asides"] == []


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_workloads_are_stopped_for_a_return_and_brought_back(shop, kind):
    shop.done(pvc=["db"], name="pre")
    shop.cluster.write(shop.namespace, "db", {"a": "new"})
    with shop.cluster.node(shop.namespace):
        path = shop.cluster.deployment(shop.namespace, "web", "db", replicas=2, kind=kind)
        shop.api.wait(path, lambda found: found and found["status"].get("readyReplicas") == 2)
        assert "set stop_workloads: true" in shop.fails(pvc=["db"], name="pre", state="rolled_back")
        foreseen = shop.run(check_mode=True, pvc=["db"], name="pre", state="rolled_back", stop_workloads=True)
        result = shop.run(pvc=["db"], name="pre", state="rolled_back", stop_workloads=True)
        assert foreseen.told == result.told
        assert [(each["kind"], each["name"], each["ready"]) for each in result["workloads"]] == [(kind, "web", True)]
        assert shop.read() == {"a": "old db"}
        assert shop.api.get(path)["spec"]["replicas"] == 2


def test_a_return_that_is_killed_at_any_request_is_ended_by_the_next_run(shop, proxy):
    """With a Deployment and a StatefulSet on the claim, which have to have their replicas again each time."""
    shop.done(pvc=["db"], name="pre")
    back = {"pvc": ["db"], "name": "pre", "state": "rolled_back", "stop_workloads": True, "timeout": 120}
    with shop.cluster.node(shop.namespace):
        made = [("Deployment", 2), ("StatefulSet", 1)]
        paths = {
            shop.cluster.deployment(shop.namespace, kind.lower(), "db", replicas=count, kind=kind): count
            for kind, count in made
        }
        at = 1
        while True:
            for path, count in paths.items():
                shop.api.wait(path, lambda found, count=count: found["status"].get("readyReplicas") == count)
                assert shop.api.get(path)["spec"]["replicas"] == count
            shop.cluster.write(shop.namespace, "db", {"a": "new"})
            if not shop.cluster.dies(proxy, ACTS, at=at, after=at % 2 == 0, namespace=shop.namespace, **back):
                break
            assert actions(shop.run(**back)) == ["rolled_back"]
            assert shop.read() == {"a": "old db"}
            assert shop.info()["claims"][0]["phase"] == "Bound"
            at += 1
    assert shop.read() == {"a": "old db"}  # of the run that ended by itself
    assert at > 10


def test_where_one_claim_does_not_let_go_the_others_of_the_call_are_taken_back(shop, proxy):
    """A pod that comes late keeps one claim, in the middle of its swap, while the swap of the other is done."""
    shop.done(name="pre")
    for claim in BOTH:
        shop.cluster.write(shop.namespace, claim, {"a": "new"})
    volume = shop.cluster.volume(shop.namespace, "db")["metadata"]["name"]
    pods = []

    def late():
        pods.append(shop.cluster.pod(shop.namespace, "late", "uploads"))
        shop.cluster.until(lambda: shop.api.get(pods[0])["spec"].get("nodeName"), "the pod has a node")

    proxy.tell("call", verb="DELETE", path="/persistentvolumeclaims/uploads$", function=late)
    back = {"name": "pre", "state": "rolled_back", "once": "job-1"}
    with shop.cluster.node(shop.namespace):
        with pytest.raises(Failed) as caught:
            shop.run(**back, timeout=40, kubeconfig=str(shop.cluster.through(proxy)))
        told = caught.value.result
        assert "pod late on node" in told["msg"]
        assert {each["target"].partition("/")[2]: each["action"] for each in told["results"]} == {
            "db": "undone",
            "uploads": "failed",
        }
        assert shop.cluster.volume(shop.namespace, "db")["metadata"]["name"] == volume
        assert shop.read() == {"a": "new"}
        assert [each for each in shop.info()["asides"] if each["target"].endswith("/db")] == []
        shop.api.delete(pods[0])
        shop.cluster.until(lambda: shop.api.find(pods[0]) is None, "the pod is gone")
        result = shop.run(**back)  # the token was not used up by what was taken back
    assert actions(result) == ["rolled_back"] * 2
    assert [shop.read(claim) for claim in BOTH] == [{"a": "old db"}, {"a": "old uploads"}]
    assert len(shop.info()["asides"]) == 2


def test_a_return_that_was_interrupted_is_called_off(shop, proxy):
    shop.done(pvc=["db"], name="pre")
    shop.cluster.write(shop.namespace, "db", {"a": "new"})
    volume = shop.cluster.volume(shop.namespace, "db")["metadata"]["name"]
    options = {"namespace": shop.namespace, "pvc": ["db"], "name": "pre", "state": "rolled_back", "timeout": 60}
    assert shop.cluster.dies(proxy, ACTS, at=2, after=True, **options)
    assert actions(shop.done(pvc=["db"], state="rolled_back", call_off=True)) == ["called_off"]
    assert shop.cluster.volume(shop.namespace, "db")["metadata"]["name"] == volume
    assert shop.read() == {"a": "new"}
    assert [each["pvc"] for each in shop.info()["claims"]] == BOTH


def test_workloads_that_a_killed_return_left_stopped_come_back_when_it_is_called_off_or_completed(shop, proxy):
    shop.done(pvc=["db"], name="pre")
    options = {"namespace": shop.namespace, "pvc": ["db"], "name": "pre", "state": "rolled_back", "timeout": 60}
    with shop.cluster.node(shop.namespace):
        path = shop.cluster.deployment(shop.namespace, "web", "db", replicas=2)
        shop.api.wait(path, lambda found: found and found["status"].get("readyReplicas") == 2)
        # Not by a count: a patch that meets the controller's own is refused, and comes again.
        assert shop.cluster.dies(
            proxy, ACTS, at=1, after=True, path="/deployments/", stop_workloads=True,
            when=lambda: shop.api.get(path)["spec"]["replicas"] == 0, **options,
        )  # fmt: skip
        result = shop.run(pvc=["db"], state="rolled_back", call_off=True)
        assert result["changed"]
        assert [each["name"] for each in result["workloads"]] == ["web"]
        assert shop.api.get(path)["spec"]["replicas"] == 2


@pytest.mark.parametrize(("state", "path"), [("present", "/volumesnapshots"), ("cloned", "/persistentvolumeclaims")])
def test_a_namespace_that_is_deleted_in_the_middle_ends_the_run_with_a_sentence(cluster, proxy, state, path):
    shop = Shop(cluster, cluster.make_namespace())
    shop.run(pvc=["db"], name="pre")
    options = {"name": "pre", "state": state, "clone": ["copy"]} if state == "cloned" else {"name": "more"}
    proxy.tell("call", verb="POST", path=path, function=lambda: cluster.remove_namespace(shop.namespace))
    text = shop.fails(pvc=["db"], **options, timeout=30, kubeconfig=str(cluster.through(proxy)))
    assert shop.namespace in text or "db" in text
    cluster.until(lambda: cluster.api.find(f"{CORE}/namespaces/{shop.namespace}") is None, "the namespace is gone")


# Permissions

READS = [("", "persistentvolumeclaims", "list"), (SNAPSHOT_GROUP, "volumesnapshots", "list")]
EVERYWHERE = [("", "persistentvolumes", "list"), (SNAPSHOT_GROUP, "volumesnapshotclasses", "list")]
MAKES = [(SNAPSHOT_GROUP, "volumesnapshots", verb) for verb in ("create", "watch", "delete")]


def rules(rights):
    return [{"apiGroups": [group], "resources": [what], "verbs": [verb]} for group, what, verb in rights]


@pytest.mark.parametrize("missing", [*READS, *EVERYWHERE, *MAKES], ids=lambda each: "-".join(each[1:]))
def test_each_right_that_is_missing_is_named_and_nothing_is_touched(shop, missing):
    inside = [each for each in (*READS, *MAKES) if each != missing]
    outside = [each for each in EVERYWHERE if each != missing]
    user = shop.cluster.user(shop.namespace, rules(inside), rules(outside))
    text = shop.fails(name="pre", kubeconfig=user.kubeconfig)
    assert f"this login may not {missing[2]} on {missing[1]}" in text
    assert shop.names() == []


def test_these_rights_suffice_and_no_more_are_needed(shop):
    user = shop.cluster.user(shop.namespace, rules([*READS, *MAKES]), rules(EVERYWHERE))
    assert shop.run(name="pre", kubeconfig=user.kubeconfig)["changed"]
    assert shop.run(name="pre", state="absent", kubeconfig=user.kubeconfig)["changed"]


def test_a_token_that_is_not_accepted_any_more_is_told(shop):
    user = shop.cluster.user(shop.namespace, rules([*READS, *MAKES]), rules(EVERYWHERE))
    user.revoke()
    assert "does not accept the credentials" in shop.fails(name="pre", kubeconfig=user.kubeconfig)


def test_an_unknown_context_is_told(shop):
    assert "has no context 'prod'; choose one of its contexts" in shop.fails(name="pre", context="prod")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pvc": ["nobody"]}, "there is no such claim"),
        ({"name": "Pre_1"}, "Kubernetes does not allow it"),
        ({"snapshot_class": "nowhere"}, "there is no snapshot class 'nowhere'"),
        ({"selector": "app=(", "name": "x"}, "answered 400"),
    ],
)
def test_bad_input_is_one_sentence(shop, options, says):
    assert says in shop.fails(**{"name": "pre", **options})
    assert shop.names() == []


# A server that fails


@pytest.mark.parametrize("state", ["present", "absent", "cloned", "rolled_back"])
@pytest.mark.parametrize("fault", ["429", "500", "cut_before", "cut_after", "close"])
def test_faults_of_the_server_are_survived(shop, proxy, state, fault):
    options = {"pvc": ["db"], "name": "pre", "state": state}
    if state != "present":
        shop.run(pvc=["db"], name="pre")
    if state == "cloned":
        options["clone"] = ["copy"]
    if fault.isdigit():
        for verb in ("GET", "POST", "PATCH", "DELETE"):
            proxy.tell("answer", verb=verb, times=2, status=int(fault), skip=1)
    elif fault == "close":
        proxy.tell("close", verb="WATCH", times=3, seconds=0.1)
    else:
        for verb in ("POST", "PATCH", "DELETE"):
            proxy.tell(fault, verb=verb, path="^(?!.*accessreviews)", times=1)
    result = shop.run(**options, kubeconfig=shop.cluster.through(proxy))
    assert result["changed"]
    assert len(shop.names()) == (0 if state == "absent" else 1)
    if state == "rolled_back":
        assert shop.read() == {"a": "old db"}
    else:
        assert not shop.run(**options)["changed"]
