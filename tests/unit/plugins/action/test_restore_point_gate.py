# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gate between two steps: what it makes of what all hosts of a play have told."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("ansible.plugins.action")

from ansible_collections.restorepoint.core.plugins.action.restore_point_gate import Play, report_of

OPTIONS = {"once": "new", "name": "upgrade", "replace": False, "partial": False}
GROUP = {"delegate_to": "web1", "label": "zfs on web1", "targets": [{}]}
PART = {"target": "zfs:a", "place": "m", "exists": False}


def told(host, **more):
    """What the module's task has registered on a host that has one group of targets."""
    part = {**PART, "place": host}
    item = {"item": {**GROUP, "delegate_to": host}, "parts": [part], "results": [], **more}
    return {"__restore_point_groups": [GROUP], "__restore_point_reports": {"results": [item]}}


def play(hosts, *, here=None, batch=None, strategy="linear", **more):
    names = list(hosts)
    here = names if here is None else here
    variables = {
        "ansible_play_hosts_all": names,
        "ansible_play_hosts": here,
        "ansible_play_batch": here if batch is None else batch,
        "hostvars": hosts,
        **more,
    }
    return Play(variables, SimpleNamespace(_play=SimpleNamespace(strategy=strategy), _parent=None))


def test_all_hosts_that_are_here_begin_with_a_token_and_a_digest_of_those_with_targets():
    problems, facts = play({"web1": told("web1"), "idle": {"__restore_point_groups": []}}).start(OPTIONS)
    assert problems == []
    assert facts["members"] == ["web1"]
    assert facts["hosts"].startswith("1:")
    assert facts["token"]


@pytest.mark.parametrize("strategy", ["free", "ansible.builtin.free", "host_pinned", "mitogen_free"])
def test_hosts_that_do_not_wait_for_each_other_are_refused(strategy):
    problems, _facts = play({"web1": told("web1"), "web2": {}}, strategy=strategy).start(OPTIONS)
    assert problems == [f"with strategy: {strategy} hosts do not wait for each other (use linear)"]


def test_hosts_that_come_later_or_do_not_take_part_or_are_gone_are_told():
    hosts = {"web1": told("web1"), "web2": told("web2"), "db1": {}, "db2": told("db2")}
    later, _facts = play(hosts, batch=["web1", "db1", "db2"], here=["web1", "web2", "db1", "db2"]).start(OPTIONS)
    assert later[0].startswith("with serial, web2 would come later")
    problems, _facts = play(hosts, here=["web1", "web2", "db1"]).start(OPTIONS)
    assert problems[0] == "db2: it failed or was unreachable before, and is not in the play any more"
    assert problems[1].startswith("db1: it does not take part")


def test_a_play_without_any_targets_is_an_error():
    problems, _facts = play({"web1": {"__restore_point_groups": []}}).start(OPTIONS)
    assert problems == ["no host has any restore_point_targets"]


def test_what_all_have_told_is_judged_together():
    problems, facts = play({"web1": told("web1"), "web2": told("web2")}).taking(OPTIONS)
    assert (problems, facts["go"], facts["token"]) == ((), True, "new")
    hosts = {"web1": told("web1"), "web2": told("web2", failed=True, msg="Cannot look: gone; nothing was changed.")}
    problems, facts = play(hosts).taking(OPTIONS)
    assert (problems, facts["go"]) == (("web2: Cannot look: gone",), False)


def test_a_return_gets_the_callers_token_or_that_of_the_run():
    start = {"hosts": "1:0", "token": "run"}
    one = {"web1": told("web1", results=[{"action": "rolled_back", "changed": True}])}
    for once, token in (("job7", "job7"), ("", "run")):
        problems, facts = play(one, __restore_point_start=start).returning({**OPTIONS, "once": once})
        assert (problems, facts["go"], facts["token"]) == ((), True, token)


def test_results_of_all_hosts_are_collected():
    created = {"target": "zfs:a", "action": "created", "changed": True}
    taken = [{**created, "instant": at, "snapshot": {"created": "2026-11-22T01:30:00Z"}} for at in (10.0, 11.5)]
    hosts = {
        "web1": told("web1", results=[taken[0]]),
        "web2": told("web2", results=[{**taken[1], "reboot_required": True}]),
    }
    problems, facts = play(hosts).reports(OPTIONS)
    assert problems == []
    assert (facts["spread_seconds"], facts["reboot"], facts["any_changed"]) == (1.5, ["web2"], True)
    assert list(facts["results"]) == ["web1", "web2"]


def test_a_host_that_told_nothing_is_no_host_that_is_well():
    silent = {"__restore_point_groups": [GROUP], "__restore_point_reports": {"skipped": True}}
    problems, _facts = play({"web1": told("web1"), "web2": silent}).reports(OPTIONS)
    assert problems == ["web2: it has told nothing"]


def test_what_a_lost_host_told_in_an_earlier_step_does_not_count():
    problems, _facts = play({"web1": told("web1"), "web2": told("web2")}, here=["web1"]).reports(OPTIONS)
    assert problems == ["web2: it failed or was unreachable before, and is not in the play any more"]
    lost = {"web1": told("web1"), "web2": told("web2", unreachable=True, msg="no route")}
    problems, _facts = play(lost, here=["web1"]).reports(OPTIONS)
    assert problems == ["web2: it is unreachable: no route"], "its own word is worth more"


def test_hooks_that_failed_are_told_with_their_hosts():
    hosts = {"web1": {"__restore_point_hook_fault": "the hook stop failed"}, "web2": {"__restore_point_hook_fault": ""}}
    assert play(hosts).hooks(OPTIONS)[0] == ["web1: the hook stop failed"]


def test_the_host_that_was_asked_is_named_where_it_is_another_one():
    lost = {"item": {**GROUP, "delegate_to": "localhost"}, "unreachable": True, "msg": "no   route\n"}
    assert report_of("web1", lost).fault == "localhost is unreachable: no route"
    assert report_of("web1", {"failed": True}).fault == "it failed without a word"
