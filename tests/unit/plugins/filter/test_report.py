# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filters of reports: each host is shown, whatever it has answered, and nothing it writes is believed unread."""

from __future__ import annotations

import json

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.restorepoint.core.plugins.filter.report_page import FilterModule as Page
from ansible_collections.restorepoint.core.plugins.filter.report_summary import FilterModule as Summary
from ansible_collections.restorepoint.core.tests.page import samples

report_page = Page().filters()["report_page"]
report_summary = Summary().filters()["report_summary"]


def answered(report):
    return {"stdout": json.dumps(report), "rc": 2, "stderr": ""}


FLEET = {
    "db1": answered(samples.usual()),
    "db2": answered(samples.calm()),
    "db3": {"unreachable": True, "msg": "No route to <b>host</b>"},
    "db4": {"msg": "No such file or directory: b'/usr/local/sbin/restorepoint'", "rc": 2},
}


def test_a_host_has_the_name_that_the_inventory_has_for_it():
    shown = report_page({"db1": answered(samples.calm(host="www.elsewhere.example"))})
    assert "<bdi>db1</bdi>" in shown
    assert "www.elsewhere.example" not in shown


def test_each_host_is_on_the_page():
    shown = report_page(FLEET, "All <hosts>")
    assert "<title>All &lt;hosts&gt;</title>" in shown
    for words in (
        ">unreachable<",
        "No route to &lt;b&gt;host&lt;/b&gt;.",
        ">no report<",
        "It gave no report: No such file",
    ):
        assert words in shown


def test_the_summary_has_each_host_in_one_list():
    found = report_summary(FLEET)
    lists = {name: found[name] for name in ("ok", "warning", "critical", "unknown", "unreachable")}
    assert lists == {"ok": ["db2"], "warning": [], "critical": ["db1"], "unknown": ["db4"], "unreachable": ["db3"]}
    assert (found["status"], found["hosts"], found["policies"], found["restore_points"]) == ("critical", 4, 4, 124)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({}, "It gave no report: nothing was said."),
        (None, "It gave no report: nothing was said."),
        (
            {"stdout": "{", "stderr": "one\nargument COMMAND: invalid choice: 'report'"},
            "invalid choice: &#x27;report&#x27;",
        ),
        ({"stdout": '{"format": 9}'}, "Cannot read the report: its format is 9, and 1 is understood here"),
        ({"stdout": json.dumps({**samples.calm(), "policies": [{"name": "<script>"}]})}, "report.policies[0] lacks"),
    ],
)
def test_what_is_no_report_is_said_in_its_place(result, reason):
    assert reason in report_page({"db1": result})
    assert report_summary({"db1": result})["unknown"] == ["db1"]


def test_a_summary_holds_no_text_of_a_host():
    told = json.dumps(report_summary({"db1": answered(samples.hard())}))
    assert samples.LONG not in told
    assert "script" not in told


@pytest.mark.parametrize("given", [{}, [], None, "text"])
def test_nothing_is_refused(given):
    for each in (report_page, report_summary):
        with pytest.raises(AnsibleFilterError) as raised:
            each(given)
        assert str(raised.value).startswith("Cannot show reports: there are none")
