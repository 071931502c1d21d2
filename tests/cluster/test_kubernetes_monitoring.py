# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore points of a cluster watched: what kubernetes_monitoring_layout makes on a real API, and what its pod serves.

There is no kubelet here. So the command line of the Deployment's container is run as a process, as its account; a real
Prometheus scrapes it, with the labels that the ServiceMonitor gives. The CRDs are those of the operator of Prometheus.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.restorepoint.core.tests.cluster.lab import APPS, CHECKOUT, CORE, RBAC, Failed
from ansible_collections.restorepoint.core.tests.cluster.scheduled import BATCH

sys.path.insert(0, str(CHECKOUT / "tools"))

import prometheus
import prometheus_operator

MONITORING = "/apis/monitoring.coreos.com/v1"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
FILES = CHECKOUT / "roles" / "monitoring" / "files"
RULES = FILES / "restorepoint.rules.yml"
NAME = "restorepoint-metrics"
#: Far longer than anything here takes on any machine.
LONG = 180


@pytest.fixture(scope="module")
def definitions(cluster):
    """The CRDs of the operator, and the cluster without them. No other file of tests has to do with them."""
    assert cluster.own
    found = [yaml.safe_load(path.read_text()) for path in prometheus_operator.crds()]
    for each in found:
        path = f"{DEFINITIONS}/{each['metadata']['name']}"
        if cluster.api.find(path) is not None:
            cluster.api.delete(path)
            cluster.api.gone(path)
    cluster.until(lambda: cluster.api.raw("GET", MONITORING)[0] == 404, "the kinds are served no more")
    return found


@pytest.fixture(scope="module")
def operator(cluster, definitions):
    """The cluster serves the kinds of the operator from now on, for the rest of this file."""
    for each in definitions:
        cluster.api.create(DEFINITIONS, each)
    plurals = {each["spec"]["names"]["plural"] for each in definitions}

    def served():
        status, _headers, answer = cluster.api.raw("GET", MONITORING)
        told = {each["name"] for each in json.loads(answer)["resources"]} if status == 200 else set()
        return plurals <= told and all(cluster.api.raw("GET", f"{MONITORING}/{each}")[0] == 200 for each in plurals)

    cluster.until(served, f"{plurals} are served")


class Monitoring:
    """A watch over the jobs of a Schedule."""

    def __init__(self, schedule):
        self.schedule, self.cluster, self.api = schedule, schedule.cluster, schedule.cluster.api
        self.namespace = schedule.jobs
        self.given = {
            "agent": str(schedule.agent),
            "namespace": self.namespace,
            "image": "python:none",
            "rules": yaml.safe_load(RULES.read_text()),
            "dashboard": (FILES / "restorepoint.dashboard.json").read_text(),
            "policies": [schedule.policy],
        }

    def set_up(self, **options):
        """Set it up: one call in check mode, one in earnest, and one more that may not change anything."""
        given = {**self.given, **options}
        foreseen = self.cluster.call("kubernetes_monitoring_layout", check_mode=True, diff=True, **given)
        result = self.cluster.call("kubernetes_monitoring_layout", diff=True, **given)
        assert foreseen["changes"] == result["changes"]
        assert foreseen["diff"] == result["diff"]
        assert self.cluster.call("kubernetes_monitoring_layout", **given)["changes"] == []
        return result

    def targets(self, result):
        return [each["target"].replace(self.namespace, "JOBS") for each in result["changes"]]

    def get(self, base, plural, name=NAME):
        return self.api.get(f"{base}/namespaces/{self.namespace}/{plural}/{name}")

    def pod(self):
        return self.get(APPS, "deployments")["spec"]["template"]["spec"]

    def metrics(self):
        """The metrics, as the account sees them now: the Deployment's command, but that it does not serve."""
        argv, environment = self.schedule.process(self.pod(), "watch")
        at = argv.index("--listen")
        done = subprocess.run(
            [*argv[:at], *argv[at + 2 :]], capture_output=True, text=True, timeout=LONG, env=environment, check=False
        )
        assert done.returncode in (0, 1), done.stderr
        return samples(done.stdout)

    @contextlib.contextmanager
    def serving(self):
        """Run the command line of the Deployment, on another port; give where it listens."""
        argv, environment = self.schedule.process(self.pod(), "watch")
        at = argv.index("--listen")
        assert argv[at + 1] == "0.0.0.0:9642"
        argv[at + 1] = "127.0.0.1:0"
        with started(
            argv, self.schedule.folder / "served.log", r"serving metrics on (127\.0\.0\.1:\d+)", environment
        ) as at:
            yield at


def samples(text):
    """The samples of a page, as {name: {labels: value}}."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            found.setdefault(each.name.removeprefix("restorepoint_"), {})[tuple(sorted(each.labels.items()))] = (
                each.value
            )
    return found


def labels(**given):
    return tuple(sorted(given.items()))


@contextlib.contextmanager
def started(command, log, pattern, environment=None):
    """Start a program; give what the pattern finds in what it says, and end it."""
    with open(log, "w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
    try:
        deadline = time.monotonic() + LONG
        while not (found := re.search(pattern, log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield found[1]
    finally:
        process.terminate()
        process.wait(LONG)


def page(address, path="/metrics"):
    with urllib.request.urlopen(f"http://{address}{path}", timeout=LONG) as answer:
        return answer.read().decode()


@pytest.fixture
def monitoring(schedule):
    return Monitoring(schedule)


# -- without the operator: this comes first in the file ----------------------------------------------------------------


def test_without_the_operator_it_is_said_and_the_service_is_made_to_be_scraped(definitions, monitoring):
    result = monitoring.set_up()
    assert monitoring.targets(result) == [
        "Namespace JOBS",
        f"ServiceAccount JOBS/{NAME}",
        f"ConfigMap JOBS/{NAME}",
        "ConfigMap JOBS/restorepoint-dashboard",
        "ClusterRole restorepoint:JOBS:metrics",
        "ClusterRoleBinding restorepoint:JOBS:metrics",
        "Role JOBS/restorepoint:JOBS:metrics-jobs",
        f"Role {monitoring.schedule.namespace}/restorepoint:JOBS:metrics",
        "RoleBinding JOBS/restorepoint:JOBS:metrics-jobs",
        f"RoleBinding {monitoring.schedule.namespace}/restorepoint:JOBS:metrics",
        f"Service JOBS/{NAME}",
        f"Deployment JOBS/{NAME}",
    ]
    assert result["operator_kinds"] == []
    assert "serves no ServiceMonitor and no PrometheusRule" in json.dumps(result["warnings"])
    # What is changed is changed, on objects that the server has added much to.
    annotated = monitoring.set_up(scrape_annotations=True, interval="2min")
    assert monitoring.targets(annotated) == [f"Service JOBS/{NAME}", f"Deployment JOBS/{NAME}"]
    assert not annotated.get("warnings")
    service = monitoring.get(CORE, "services")
    assert service["metadata"]["annotations"]["prometheus.io/scrape"] == "true"
    with pytest.raises(Failed) as caught:
        monitoring.set_up(operator="always")
    assert "the operator of Prometheus is not installed" in caught.value.result["msg"]
    gone = monitoring.set_up(state="absent", policies=[], rules={}, dashboard="")
    assert len(gone["changes"]) == len(result["changes"]) - 1
    assert monitoring.api.find(f"{CORE}/namespaces/{monitoring.namespace}") is not None


# -- with it -----------------------------------------------------------------------------------------------------------


def test_the_deployment_shows_a_real_prometheus_what_runs_and_claims_are_with_rights_to_look_alone(
    operator, monitoring, tmp_path
):
    schedule, cluster = monitoring.schedule, monitoring.cluster
    cluster.claims(schedule.namespace, ["db", "uploads"])
    schedule.set_up(schedule.policy, retries=0)
    result = monitoring.set_up(operator="always", operator_labels={"release": "lab"})
    assert result["operator_kinds"] == ["ServiceMonitor", "PrometheusRule"]
    assert result["service"] == f"{NAME}.{monitoring.namespace}.svc:9642"
    before = monitoring.metrics()
    assert before["last_success_timestamp_seconds"][labels(policy="shop", command="run")] == 0
    assert before["journal_readable"] == {(): 1}

    schedule.record("restorepoint-shop")
    _ended_job(schedule, "first", "Succeeded")
    good = monitoring.metrics()
    success = good["last_success_timestamp_seconds"][labels(policy="shop", command="run")]
    assert success > 0
    assert good["last_attempt_succeeded"][labels(policy="shop", command="run")] == 1
    _ended_job(schedule, "second", "Failed")
    found = monitoring.metrics()
    assert found["last_success_timestamp_seconds"][labels(policy="shop", command="run")] == success
    assert found["last_attempt_succeeded"][labels(policy="shop", command="run")] == 0
    runs = {dict(key)["outcome"]: count for key, count in found["runs_total"].items()}
    assert (runs["done"], runs["failed"]) == (1, 1)
    # A Job that is gone is counted for ever, and what its CronJob says of the last success serves.
    schedule.cluster.api.delete(f"{BATCH}/namespaces/{schedule.jobs}/jobs/second", propagationPolicy="Background")
    schedule.cluster.api.gone(f"{BATCH}/namespaces/{schedule.jobs}/jobs/second")
    assert monitoring.metrics()["runs_total"] == found["runs_total"]
    for claim in ("db", "uploads"):
        target = labels(policy="shop", backend="csi", target=f"{schedule.namespace}/{claim}")
        assert found["snapshot_newest_timestamp_seconds"][target] > 0
        assert found["keep_present"][labels(**dict(target), rule="last")] == 1

    _rights_are_enough_and_not_more(monitoring)
    with monitoring.serving() as address:
        assert page(address, "/healthy") == "healthy\n"
        _prometheus_scrapes_it(monitoring, address, tmp_path)
    pod = monitoring.pod()
    assert [pod["containers"][0][each]["httpGet"]["path"] for each in ("livenessProbe", "readinessProbe")] == [
        "/healthy", "/healthy",
    ]  # fmt: skip


def _ended_job(schedule, name, phase):
    """Make a Job as ``kubectl create job --from`` does, and end its pod, as a kubelet would."""
    api, jobs = schedule.cluster.api, schedule.jobs
    cron_job = schedule.cron_jobs()["restorepoint-shop"]
    template = cron_job["spec"]["jobTemplate"]
    owner = {
        "apiVersion": "batch/v1", "kind": "CronJob", "name": "restorepoint-shop", "uid": cron_job["metadata"]["uid"],
        "controller": True,
    }  # fmt: skip
    metadata = {"name": name, "labels": template["metadata"]["labels"], "ownerReferences": [owner]}
    api.create(f"{BATCH}/namespaces/{jobs}/jobs", {"metadata": metadata, "spec": template["spec"]})
    pods = f"{CORE}/namespaces/{jobs}/pods"
    (pod,) = schedule.cluster.until(lambda: api.items(pods, labelSelector=f"job-name={name}"), "its pod is made")
    api.patch(f"{pods}/{pod['metadata']['name']}/status", {"status": {"phase": phase}})
    kind = {"Succeeded": "Complete", "Failed": "Failed"}[phase]

    def ended(item):
        conditions = (item or {}).get("status", {}).get("conditions") or []
        return any((each["type"], each["status"]) == (kind, "True") for each in conditions)

    api.wait(f"{BATCH}/namespaces/{jobs}/jobs/{name}", ended, LONG)


def _rights_are_enough_and_not_more(monitoring):
    """Take away one verb after the other: the metrics say each time that something cannot be seen."""
    schedule = monitoring.schedule
    name = urllib.parse.quote(f"restorepoint:{monitoring.namespace}:metrics")
    here = {
        f"{RBAC}/namespaces/{monitoring.namespace}/roles/{name}-jobs": monitoring.namespace,
        f"{RBAC}/namespaces/{schedule.namespace}/roles/{name}": schedule.namespace,
        f"{RBAC}/clusterroles/{name}": schedule.namespace,
    }
    taken = set()
    for path, namespace in here.items():
        for right in schedule.without_each_right(path, NAME, namespace):
            taken.add(right)
            found = monitoring.metrics()
            down = (found["journal_readable"][()], found["backend_up"][labels(policy="shop", backend="csi")])
            assert down == ((0, 1) if right[1] == "batch" else (1, 0)), f"it did without {right}"
    granted = {right for namespace in set(here.values()) for right in schedule.granted(NAME, namespace)}
    assert granted == taken
    assert {verb for verb, _group, _resource in granted} == {"list"}


def _prometheus_scrapes_it(monitoring, address, folder):
    """Have a Prometheus read the rules of the PrometheusRule, and scrape the agent as the ServiceMonitor says."""
    tools = prometheus.programs()
    spec = monitoring.get(MONITORING, "servicemonitors")["spec"]
    selected = monitoring.get(CORE, "services")["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= selected.items()
    (endpoint,) = spec["endpoints"]
    relabelings = [
        {re.sub("([A-Z])", lambda found: f"_{found[1].lower()}", key): value for key, value in each.items()}
        for each in endpoint["relabelings"]
    ]
    # What the operator's discovery would say of the pod.
    discovered = {"pod": "restorepoint-metrics-1", "container": "agent", "namespace": monitoring.namespace}
    rule = monitoring.get(MONITORING, "prometheusrules", "restorepoint")
    (folder / "rules.yml").write_text(yaml.safe_dump(rule["spec"]))
    checked = subprocess.run(
        [tools / "promtool", "check", "rules", folder / "rules.yml"],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    job = {
        "job_name": NAME, "metrics_path": endpoint["path"], "relabel_configs": relabelings,
        "static_configs": [{"targets": [address], "labels": discovered}],
    }  # fmt: skip
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "rules.yml")], "scrape_configs": [job],
    }  # fmt: skip
    (folder / "prometheus.yml").write_text(json.dumps(settings))
    command = [
        tools / "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        "--web.listen-address=127.0.0.1:0",
    ]  # fmt: skip
    pattern = r'msg="Listening on" address=(127\.0\.0\.1:\d+)'
    with started(command, folder / "prometheus.log", pattern) as server:
        expression = 'restorepoint_last_attempt_succeeded{command="run"}'
        (found,) = monitoring.cluster.until(lambda: queried(server, expression), "it has scraped the agent")
        assert found["metric"] == {
            "__name__": "restorepoint_last_attempt_succeeded", "instance": "kubernetes", "job": NAME,
            "namespace": monitoring.namespace, "policy": "shop", "command": "run",
        }  # fmt: skip
        firing = 'ALERTS{alertname="RestorePointRunFailed"}'
        monitoring.cluster.until(lambda: queried(server, firing), "the alert begins")
        with open(folder / "page", "w+") as stream:
            stream.write(page(address))
            stream.seek(0)
            checked = subprocess.run(
                [tools / "promtool", "check", "metrics"], stdin=stream, capture_output=True, text=True, timeout=LONG,
                check=False,
            )  # fmt: skip
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def queried(server, expression):
    url = f"http://{server}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    try:
        with urllib.request.urlopen(url, timeout=LONG) as answer:
            return json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        if error.code == 503:  # it has not read its log yet
            return []
        raise AssertionError(error.read().decode()) from error


def test_what_the_operator_reads_goes_with_the_rest_and_what_is_not_wanted_goes_alone(operator, monitoring):
    schedule = monitoring.schedule
    elsewhere = schedule.cluster.make_namespace("grafana")
    try:
        made = monitoring.set_up(dashboard_namespace=elsewhere)
        assert f"ConfigMap {elsewhere}/restorepoint-dashboard" in [each["target"] for each in made["changes"]]
        less = monitoring.set_up(operator="never", dashboard_namespace=elsewhere)
        assert monitoring.targets(less) == ["PrometheusRule JOBS/restorepoint", f"ServiceMonitor JOBS/{NAME}"]
        more = {**schedule.policy, "name": "files", "targets": [{"backend": "hostpath", "path": ["/x"], "store": "/y"}]}
        both = monitoring.set_up(policies=[schedule.policy, more], dashboard_namespace=elsewhere)
        # New policies begin a new pod.
        assert {f"ConfigMap JOBS/{NAME}", f"Deployment JOBS/{NAME}"} <= set(monitoring.targets(both))
        found = monitoring.metrics()
        assert found["backend_up"] == {labels(policy="shop", backend="csi"): 1}
        assert labels(policy="files", command="run") in found["last_success_timestamp_seconds"]
        gone = monitoring.set_up(state="absent", policies=[])
        assert {each["action"] for each in gone["changes"]} == {"remove"}
        assert (
            schedule.cluster.api.items(f"{CORE}/namespaces/{elsewhere}/configmaps", labelSelector="grafana_dashboard")
            == []
        )
    finally:
        schedule.cluster.remove_namespace(elsewhere)


def test_policies_that_a_pod_does_not_reach_are_refused_and_nothing_is_made(monitoring):
    policy = {"name": "pool", "targets": [{"backend": "zfs", "dataset": ["tank/a"]}], "schedule": {"calendar": "daily"}}
    with pytest.raises(Failed) as caught:
        monitoring.set_up(policies=[policy])
    assert "does not reach targets of zfs" in caught.value.result["msg"]
    assert monitoring.api.find(f"{CORE}/namespaces/{monitoring.namespace}") is None
