# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Metrics, rules and dashboard before a real Prometheus that scrapes a real agent; every alert fires and clears."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import pytest
import yaml

from ansible_collections.restorepoint.core.tests.lab.conftest import lacking
from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.agent.test_agent import TOOL, Host, wait_for

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tools"))

import grafana_schema
from prometheus import Unavailable, programs

FILES = CHECKOUT / "roles" / "monitoring" / "files"
RULES = FILES / "restorepoint.rules.yml"
DASHBOARD = FILES / "restorepoint.dashboard.json"
CASES = sorted((pathlib.Path(__file__).parent / "monitoring").glob("alerts*.yml"))
#: Far longer than anything here takes on any machine.
LONG = 180
#: One Prometheus is enough.
pytestmark = pytest.mark.xdist_group("monitoring")


@pytest.fixture(scope="session")
def tools():
    """The folder with prometheus and promtool."""
    try:
        return programs()
    except Unavailable as error:
        lacking(str(error))


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts():
    return [rule for rule in rules() if "alert" in rule]


def dashboard():
    return json.loads(DASHBOARD.read_text())


def told(*command, **more):
    """Run a program that has to succeed; return what it says."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LONG, check=False, **{"stdin": subprocess.DEVNULL, **more}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


# -- rules -------------------------------------------------------------------------------------------------------------


def test_promtool_finds_no_fault_in_the_rules(tools):
    assert f"SUCCESS: {len(rules())} rules found" in told(tools / "promtool", "check", "rules", RULES)


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_alerts_fire_with_the_right_words_and_clear_again(tools, case):
    assert "SUCCESS" in told(tools / "promtool", "test", "rules", case)


def test_every_alert_is_seen_to_fire_and_later_to_be_clear():
    fires: dict[str, list[tuple[str, int]]] = {}
    clears: dict[str, list[tuple[str, int]]] = {}
    for case in CASES:
        for test in yaml.safe_load(case.read_text())["tests"]:
            for each in test.get("alert_rule_test", ()):
                end = fires if each["exp_alerts"] else clears
                end.setdefault(each["alertname"], []).append((test["name"], moment(each["eval_time"])))
    for alert in (rule["alert"] for rule in alerts()):
        first = fires.get(alert)
        assert first, f"{alert} is never seen to fire"
        name, at = first[0]
        quiet = [when for test, when in clears.get(alert, ()) if test == name]
        assert any(when < at for when in quiet), f"{alert} is not seen to be quiet before"
        assert any(when > at for when in quiet), f"{alert} is not seen to clear"


def moment(text):
    """Return the minutes of a time such as 90m, 5h or 2d."""
    return int(text[:-1]) * {"m": 1, "h": 60, "d": 1440}[text[-1]]


def anchors(page):
    """The anchors that headings of a page have on GitHub and in the manual."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_alert_says_what_to_do_on_a_page_that_there_is():
    known = anchors(CHECKOUT / "docs" / "runbook.md")
    for alert in alerts():
        page, _hash, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert page == "https://github.com/restorepoint/core/blob/main/docs/runbook.md"
        assert anchor == f"alert-{alert['alert'].lower()}"
        assert anchor in known, f"{anchor} is not in the runbook"
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert {"summary", "description"} < set(alert["annotations"])


def test_what_the_runbook_says_of_an_alert_is_of_one_that_there_is():
    there = {f"alert-{alert['alert'].lower()}" for alert in alerts()}
    assert {each for each in anchors(CHECKOUT / "docs" / "runbook.md") if each.startswith("alert-")} == there


# -- a real Prometheus that scrapes a real agent -----------------------------------------------------------------------


class Watched:
    """An agent that serves, and a Prometheus that scrapes it every second."""

    def __init__(self, tools, archive, folder, stack):
        self.folder = folder
        self.host = Host(folder)
        more: dict[str, Any] = {"schedule": {"calendar": ["hourly"]}, "keep": {"last": 1, "daily": 7}}
        self.host.policy.update(more)
        for word in ("run", "run", "create", "verify"):
            assert self.host.call(word, "dev")[0] == 0
        agent = [sys.executable, archive, *self.host.arguments, "metrics", "--listen", "0", "--interval", "3s"]
        self.agent = self._started(stack, "agent", agent, r"serving metrics on (127\.0\.0\.1:\d+)")
        (folder / "prometheus.yml").write_text(json.dumps(self._settings()))
        command = [
            tools / "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            "--web.listen-address=127.0.0.1:0",
        ]  # fmt: skip
        self.address = self._started(stack, "prometheus", command, r'msg="Listening on" address=(127\.0\.0\.1:\d+)')
        wait_for(lambda: self.query("count_over_time(restorepoint_collection_timestamp_seconds[1h]) > 3"), LONG)
        wait_for(lambda: self.query("ALERTS or vector(0)"), LONG)

    def _settings(self):
        jobs = [{"job_name": "restorepoint", "static_configs": [{"targets": [self.agent]}]}]
        return {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": jobs,
        }

    def _started(self, stack, name, command, pattern):
        """Start a program, to be ended at the end; return the address that it says it listens on."""
        log = self.folder / f"{name}.log"
        with open(log, "w") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        stack.callback(process.wait, LONG)
        stack.callback(process.terminate)

        def listening():
            assert process.poll() is None, log.read_text()
            return re.search(pattern, log.read_text())

        wait_for(listening, LONG)
        return re.findall(pattern, log.read_text())[0]

    def get(self, path, **parameters):
        """Ask Prometheus's API."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=LONG) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it has not read its log yet
                return {"result": []}
            raise AssertionError(error.read().decode()) from error

    def query(self, expression):
        """The samples that an expression has now."""
        return self.get("query", query=expression)["result"]


@pytest.fixture(scope="module")
def watched(tools, tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    archive = folder / "restorepoint.pyz"
    subprocess.run([sys.executable, TOOL, archive], check=True, capture_output=True, timeout=LONG)
    with contextlib.ExitStack() as stack:
        yield Watched(tools, archive, folder, stack)


def panels():
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def filled(expression):
    """An expression with its variables as a dashboard has them that shows all."""
    return re.sub(r"\$(instance|policy|backend)\b", ".+", expression)


def test_every_expression_of_every_panel_has_data(watched):
    asked = {(panel["title"], filled(target["expr"])) for panel in panels() for target in panel["targets"]}
    assert len(asked) > 20
    assert [each for each in asked if re.search(r"\$[a-z_{]", each[1])] == [], "a variable that nobody sets"
    deadline = time.monotonic() + LONG
    while lacking_data := {each for each in asked if not watched.query(each[1])}:
        assert time.monotonic() < deadline, lacking_data
        time.sleep(1)


def test_every_variable_of_the_dashboard_has_a_choice(watched):
    found = {}

    def asked():
        for variable in dashboard()["templating"]["list"]:
            if variable["type"] == "query":
                ((series, label),) = re.findall(r"^label_values\((.+), (\w+)\)$", variable["definition"])
                found[variable["name"]] = {each["metric"][label] for each in watched.query(filled(series))}
        return all(found.values())

    # A scrape that was late, as on a busy machine, leaves a moment without any series.
    wait_for(asked, LONG)
    assert found == {"instance": {watched.agent}, "policy": {"dev"}, "backend": {"hostpath"}}


def test_every_rule_can_be_evaluated(watched):
    def evaluated():
        found = [rule for group in watched.get("rules")["groups"] for rule in group["rules"]]
        assert [rule for rule in found if rule["health"] == "err"] == []
        return len(found) == len(rules()) and all(rule["health"] == "ok" for rule in found)

    wait_for(evaluated, LONG)


def test_no_alert_fires_where_all_is_well(watched):
    assert [each["metric"] for each in watched.query('ALERTS{alertstate="firing"}')] == []


def test_the_names_of_before_have_data(watched):
    names = {rule["record"] for rule in rules() if "record" in rule}
    assert len(names) == 7
    for name in names - {"lvm_snapshot_usage_percent"}:  # there is no LVM here
        wait_for(lambda name=name: watched.query(name), LONG)


def test_promtool_finds_no_fault_in_what_the_agent_says(tools, watched):
    with urllib.request.urlopen(f"http://{watched.agent}/metrics", timeout=LONG) as answer:
        page = answer.read()
    assert b"restorepoint_backend_up" in page
    with open(watched.folder / "page", "w+b") as stream:
        stream.write(page)
        stream.seek(0)
        assert told(tools / "promtool", "check", "metrics", stdin=stream) == ""


# -- the dashboard -----------------------------------------------------------------------------------------------------


def lost(given, read, at=""):
    """Yield where something of what was given is not in what was read."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key, value in given.items():
            yield from lost(value, read.get(key), f"{at}.{key}") if key in read else [f"{at}.{key}"]
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for number, pair in enumerate(zip(given, read)):
            yield from lost(*pair, f"{at}[{number}]")
    elif given != read:
        yield at


def understood(given):
    try:
        return grafana_schema.understood(given)
    except grafana_schema.Unavailable as error:
        lacking(str(error))


def test_grafana_knows_all_that_the_dashboard_says():
    # The definition of a variable is for people who edit it: Grafana writes it, and its schema does not have it.
    misses = [each for each in lost(dashboard(), understood(dashboard())) if not each.endswith("].definition")]
    assert misses == []


def test_what_grafana_does_not_know_would_be_seen():
    given = dashboard()
    stat = next(panel for panel in given["panels"] if panel["type"] == "stat")
    stat["options"]["colourMode"] = "value"
    stat["targets"][0]["expression"] = "1"
    number = given["panels"].index(stat)
    misses = {each for each in lost(given, understood(given)) if not each.endswith("].definition")}
    assert misses == {f".panels[{number}].options.colourMode", f".panels[{number}].targets[0].expression"}


def test_panels_have_ids_of_their_own_and_lie_beside_each_other():
    shown = dashboard()["panels"]
    assert len({panel["id"] for panel in shown}) == len(shown)
    taken: set[tuple[int, int]] = set()
    for panel in shown:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_panel_asks_the_source_that_the_person_chose_and_says_what_it_shows():
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels():
        assert panel["datasource"] == source
        assert [target["datasource"] for target in panel["targets"]] == [source] * len(panel["targets"])
        assert all(target["legendFormat"] for target in panel["targets"])
        assert panel["fieldConfig"]["defaults"]["unit"]
