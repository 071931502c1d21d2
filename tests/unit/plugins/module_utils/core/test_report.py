# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports: what is wrong and how bad, what stays and why, how it is shown, and what is believed of another host's."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import Situation
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.restorepoint.core.plugins.module_utils.core.history import tally
from ansible_collections.restorepoint.core.plugins.module_utils.core.metrics import Facts, Look, Storage, Watched
from ansible_collections.restorepoint.core.plugins.module_utils.core.report import (
    LISTED_AT_LEAST,
    LISTED_IN_ALL,
    SAID,
    TARGETS,
    Known,
    detail,
    report,
    without,
)
from ansible_collections.restorepoint.core.plugins.module_utils.core.report_page import page
from ansible_collections.restorepoint.core.plugins.module_utils.core.report_read import understood
from ansible_collections.restorepoint.core.plugins.module_utils.core.report_style import STYLE
from ansible_collections.restorepoint.core.plugins.module_utils.core.report_text import (
    Look as Terminal,
)
from ansible_collections.restorepoint.core.plugins.module_utils.core.report_text import check_line, first_line, text
from ansible_collections.restorepoint.core.plugins.module_utils.core.report_tree import branches
from ansible_collections.restorepoint.core.plugins.module_utils.core.report_words import (
    CODES,
    scaled,
    span,
    visible,
    worst,
)
from ansible_collections.restorepoint.core.plugins.module_utils.core.retention import parse_policy
from ansible_collections.restorepoint.core.plugins.module_utils.core.snapshot import Snapshot
from ansible_collections.restorepoint.core.plugins.module_utils.core.survey import OTHER, OWN, Survey
from ansible_collections.restorepoint.core.tests.page import samples

NOW = samples.NOW
HOUR, DAY = 3600, 86400
LAST2 = parse_policy({"last": 2})


def shot(name, age, **more):
    return Snapshot("zfs", "zfs:tank/a", name, NOW - age, owner=more.pop("owner", "shop"), **more)


def looked(*surveys, backend="zfs", storages=(), **more):
    return Look("shop", backend, True, 0.1, surveys, tuple(storages), **more)


def fresh(**more):
    return Survey(**{"target": "tank/a", "owners": {OWN: 2}, "newest": NOW - 60, "oldest": NOW - 120, **more})


def made(*looks, due=NOW - 30, success=NOW - 20, records=(), troubles=(), sound=True, expected=None, **more):
    policy = Watched("shop", due, expected or {"last": 2}, success, **more)
    facts = Facts(NOW, 0.5, sound, True, [policy] if sound else [], looks, tally(records))
    return report("db1", facts, {"shop": Known(retention=LAST2, records=list(records))}, troubles)


def problems(found):
    return [(each["level"], each["kind"]) for each in found["problems"]]


def line(command, outcome, age, **more):
    return {"policy": "shop", "command": command, "outcome": outcome, "started_epoch": NOW - age, **more}


# -- what is wrong -----------------------------------------------------------------------------------------------------


def test_where_nothing_is_wrong_all_is_well():
    found = made(looked(fresh()))
    assert (found["status"], found["problems"]) == ("ok", [])
    assert found["summary"] == "all is well: 1 policy, 1 target, 2 restore points"


@pytest.mark.parametrize(
    ("survey", "more", "expected"),
    [
        (fresh(), {"due": NOW - 3700, "success": NOW - DAY}, [("critical", "missed")]),
        (fresh(), {"due": NOW - 3700, "success": 0}, [("critical", "missed")]),
        (fresh(), {"due": NOW - 3500, "success": 0}, []),  # it may be under way
        (fresh(), {"due": None, "success": 0}, []),  # it has no schedule
        (fresh(newest=NOW - 27 * HOUR), {"due": NOW - 2 * HOUR}, [("critical", "old")]),
        (fresh(newest=0), {"due": NOW - 2 * HOUR}, [("critical", "old")]),
        (fresh(newest=NOW - 25 * HOUR), {"due": NOW - 2 * HOUR}, []),
        (fresh(newest=NOW - 27 * HOUR), {"due": NOW - 28 * HOUR}, []),  # a weekly one
        (fresh(newest=NOW - 27 * HOUR), {"due": NOW - 2 * HOUR, "records": [line("run", "unchanged", HOUR)]}, []),
        (fresh(not_ready=1), {}, [("warning", "not-ready")]),
        (fresh(overdue=3), {"due": NOW - 3 * HOUR}, [("warning", "overdue")]),
        (fresh(overdue=3), {}, []),  # the run that removes them is under way
        (fresh(ahead_seconds=61), {}, [("warning", "clock")]),
        (fresh(fullest=0.81), {}, [("critical", "full")]),
        (fresh(fullest=0.79), {}, []),
        (fresh(), {"records": [line("run", "failed", 10, reason="no")]}, [("warning", "failed")]),
        (fresh(), {"records": [line("verify", "failed", 10)]}, [("critical", "unsound")]),
        (fresh(), {"records": [line("drill", "failed", 10)]}, [("critical", "unsound")]),
        (fresh(), {"records": [line("drill", "done", 36 * DAY)]}, [("warning", "unproven")]),
        (fresh(), {"records": [line("drill", "done", 34 * DAY)]}, []),
        (
            fresh(),
            {"records": [*(line("run", "failed", age) for age in (9000, 6000, 3000)), line("run", "done", 10)]},
            [("critical", "failing")],
        ),
        (fresh(), {"exports": 1, "records": [line("export", "done", 9 * DAY)]}, [("warning", "export-late")]),
        (fresh(), {"exports": 1, "records": [line("export", "done", 7 * DAY)]}, []),
        (fresh(), {"exports": 1}, [("warning", "export-late")]),  # there never was one
        (fresh(), {"records": [line("export", "done", 9 * DAY)]}, []),  # it has no destination any more
        (
            fresh(),
            {"exports": 1, "export_due": NOW - 7 * HOUR, "records": [line("export", "done", 8 * HOUR)]},
            [("warning", "export-late")],
        ),
        (fresh(), {"exports": 1, "export_due": NOW - 5 * HOUR, "records": [line("export", "done", 8 * HOUR)]}, []),
        (fresh(), {"exports": 1, "export_due": NOW - 20 * DAY, "records": [line("export", "done", 19 * DAY)]}, []),
        (fresh(), {"troubles": ["the state folder is not ours"]}, [("unknown", "journal")]),
    ],
)
def test_what_is_wrong_has_its_level(survey, more, expected):
    found = made(looked(survey), **more)
    assert problems(found) == expected
    assert found["status"] == worst(level for level, _kind in expected)


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        (Storage("zfs", "tank", "data", 0.91), [("warning", "space")]),
        (Storage("zfs", "tank", "data", 0.89), []),
        (Storage("lvm", "vg/pool", "data", 0.91), [("critical", "space")]),
        (Storage("lvm", "vg/pool", "metadata", 0.81), [("critical", "space")]),
        (Storage("lvm", "vg/pool", "metadata", 0.79), []),
    ],
)
def test_storage_that_fills_is_wrong(storage, expected):
    found = made(looked(fresh(), storages=[storage, dataclasses.replace(storage, fill=0.1)]))
    assert problems(found) == expected
    assert [each["fill"] for each in found["storages"]] == [storage.fill]


def test_what_could_not_be_looked_at_is_unknown_and_the_rest_is_told():
    found = made(looked(fresh()), Look("shop", "csi", False, 30.0, reason="it did not end within 30 s"))
    assert problems(found) == [("unknown", "unseen")]
    (policy,) = found["policies"]
    assert [each["target"] for each in policy["targets"]] == ["tank/a"]
    assert found["summary"] == "shop: Its csi targets could not be looked at: it did not end within 30 s."
    assert CODES[found["status"]] == 3


def test_policies_that_cannot_be_read_are_unknown():
    found = made(sound=False, troubles=["Cannot read the policies in x: it is no JSON; mend it."])
    assert problems(found) == [("unknown", "policies")]


def test_the_same_of_many_targets_is_said_a_few_times():
    surveys = [fresh(not_ready=1)] * 50
    found = made(looked(*(dataclasses.replace(each, target=f"t{n:02d}") for n, each in enumerate(surveys))))
    assert len(found["problems"]) == SAID + 1
    assert found["problems"][-1]["text"] == "The same holds for 30 more targets of this policy."
    assert {each["status"] for each in found["policies"][0]["targets"]} == {"warning"}


def test_a_failure_is_told_in_its_own_words_with_its_targets():
    reason = "Cannot create a: no room; make some."
    failure = {"reason": reason, "failures": [{"target": "zfs:tank/a", "reason": "no room"}]}
    found = made(looked(fresh()), records=[line("run", "failed", 600, **failure), line("run", "done", 60)])
    assert found["status"] == "ok"
    (told,) = found["policies"][0]["failures"]
    assert (told["reason"], told["outcome"], told["targets"]) == (reason, "failed", failure["failures"])
    assert reason in page([found], found["generated"])


# -- what stays --------------------------------------------------------------------------------------------------------


def test_each_snapshot_has_the_reason_of_the_keep_rules():
    found = detail(
        Situation(
            "zfs:tank/a",
            (
                shot("c", 10), shot("b", 20), shot("a", 30), shot("hand", 40, owner="manual"),
                shot("bad", 50, ready=False, extra={"fault": "it is cut"}), shot("old", 60, held="keep"),
            ),
            (shot("tank/a.aside-x", 70),),
        ),
        "shop", LAST2, (), NOW,
    )  # fmt: skip
    told = {each["name"]: (each["keep"], each["reason"], each["whose"]) for each in found["snapshots"]}
    assert list(told) == ["c", "b", "a", "hand", "bad", "old"]
    assert told["c"] == (True, "last 1/2", OWN)
    assert told["a"] == (False, "removed: older than all rules", OWN)
    assert told["hand"] == (True, "foreign: owner manual", "manual")
    assert told["old"][:2] == (True, "held: keep")
    assert found["removals"] == 1
    assert [each["fault"] for each in found["snapshots"] if each["fault"]] == ["it is cut"]
    assert [each["name"] for each in found["asides"]] == ["tank/a.aside-x"]


def test_what_stops_the_keep_rules_is_a_note_and_nothing_goes():
    rules = parse_policy({"last": 1}, max_delete=1)
    found = detail(Situation("zfs:a", tuple(shot(f"s{n}", n) for n in range(5))), "shop", rules, (), NOW)
    assert found["removals"] == 0
    assert found["notes"] == ["4 of 5 snapshots would go, and max_delete allows 1"]


def test_lists_are_shortened_where_there_are_too_many_and_say_so():
    names = [f"t{number:04d}" for number in range(TARGETS + 20)]
    listed = detail(Situation("zfs:a", tuple(shot(f"s{n}", n) for n in range(40))), "shop", LAST2, (), NOW)
    looks = looked(*(fresh(target=each) for each in names), details=(listed,) * len(names))
    (policy,) = made(looks)["policies"]
    assert policy["target_count"] == len(names)
    assert len(policy["targets"]) == TARGETS
    assert sum(len(each["snapshots"]) for each in policy["targets"]) <= max(LISTED_IN_ALL, LISTED_AT_LEAST * TARGETS)
    assert {len(each["snapshots"]) + each["omitted"] for each in policy["targets"]} == {40}


# -- the tree ----------------------------------------------------------------------------------------------------------


def family(*pairs):
    return [{"name": name, "parent": parent} for name, parent in pairs]


def drawn(snapshots):
    return [(each["name"], depth) for each, depth in branches(snapshots)]


def test_a_branch_is_shown_beside_what_it_left():
    found = family(("e", "b"), ("d", "c"), ("c", "b"), ("b", "a"), ("a", None))
    assert drawn(found) == [("e", 0), ("d", 1), ("c", 1), ("b", 0), ("a", 0)]


def test_snapshots_without_parents_stay_in_their_order():
    assert drawn(family(("b", None), ("a", "gone"))) == [("b", 0), ("a", 0)]


@given(st.lists(st.integers(-1, 30), max_size=30))
def test_each_snapshot_is_shown_once_whatever_the_parents_are(parents):
    found = family(*((str(n), str(parent)) for n, parent in enumerate(parents)))
    assert sorted(name for name, _depth in drawn(found)) == sorted(each["name"] for each in found)


def test_ten_thousand_branches_one_in_the_other_are_shown():
    count = 10_000
    pairs = [(str(n), str(n - 2 if n > 1 else 0)) for n in range(1, count)]
    assert len(drawn(family(*reversed(pairs), ("0", None)))) == count


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3600, "60 min"), (7200, "2 h"), (DAY, "24 h"), (2 * DAY, "2 d"),
     (14 * DAY, "2 w"), (60 * DAY, "2 mo"), (365 * DAY, "1 y")],
)  # fmt: skip
def test_a_span_is_said_in_one_unit(seconds, words):
    assert span(seconds) == words


@given(st.text())
def test_what_is_visible_holds_no_control_character_and_no_mark_of_direction(words):
    found = visible(words)
    assert not {unicodedata.category(each) for each in found} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    found.encode("utf-8")


def test_a_line_of_time_has_the_oldest_at_its_beginning_and_now_at_its_end():
    assert scaled(0, 30 * DAY) == 1
    assert scaled(30 * DAY, 30 * DAY) == pytest.approx(0)
    assert scaled(-60, 30 * DAY) == 1
    places = [scaled(age, 30 * DAY) for age in (60, HOUR, DAY, 7 * DAY)]
    assert places == sorted(places, reverse=True)


# -- the terminal ------------------------------------------------------------------------------------------------------

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("name", ["calm", "usual", "hard"])
@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("full", [True, False])
def test_nothing_is_wider_than_the_terminal_but_the_first_line(name, width, full):
    found = getattr(samples, name)()
    plain = text(found, Terminal(width, colour=False, full=full))
    first, *lines = plain.splitlines()
    assert first == first_line(found)
    assert [each for each in lines if len(each) > width] == []
    assert "\x1b" not in plain
    assert ESCAPES.sub("", text(found, Terminal(width, colour=True, full=full))).split() == plain.split()
    assert text(found, Terminal(width, unicode=False)).isascii() or name == "hard"


def test_the_first_line_says_how_it_is_and_a_check_has_numbers_behind():
    found = samples.usual()
    assert first_line(found).startswith("RESTOREPOINT CRITICAL - 7 problems; files: It was due at")
    words, numbers = check_line(found).split(" | ")
    assert words == first_line(found)
    assert numbers == "problems=7 policies=3 targets=3 restorepoints=90"
    assert "|" not in first_line({**found, "summary": "a | b"})


def test_a_terminal_is_told_each_reason_in_full():
    shown = text(samples.usual(), Terminal(200, full=True))
    assert (
        "pre-upgrade, 3 d ago: it was taken by hand, so no keep rule of this policy removes it; held: keep it" in shown
    )
    assert "removed: passed over by hourly" in shown or "removed: a newer one of its" in shown


# -- the page ----------------------------------------------------------------------------------------------------------


class Outline(html.parser.HTMLParser):
    """Which elements there are, whether each is ended, and what they say."""

    VOID = ("meta", "link", "br")

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.names, self.attributes, self.words = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += [(tag, *each) for each in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += [(tag, *each) for each in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def outlined(shown):
    found = Outline()
    found.feed(shown)
    found.close()
    assert found.open == []
    return found


@pytest.mark.parametrize("name", ["calm", "usual", "hard", "fleet"])
def test_a_page_is_whole_and_holds_nothing_active_and_no_address(name):
    found = getattr(samples, name)()
    found = found if isinstance(found, list) else [found]
    shown = page(found, found[0]["generated"], "All" if name == "fleet" else "")
    outline = outlined(shown)
    assert not {"script", "img", "iframe", "object", "form", "base"} & set(outline.names)
    assert not [each for each in outline.attributes if each[1].startswith("on") or each[1] in ("src", "style")]
    links = {value for _tag, key, value in outline.attributes if key == "href"}
    assert {each[0] for each in links - {"data:,"}} <= {"#"}
    ids = [value for _tag, key, value in outline.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    assert {each[1:] for each in links if each.startswith("#")} <= set(ids)


def test_no_text_can_begin_a_template_of_ansible():
    shown = page([samples.hard()], samples.hard()["generated"])
    for sign in ("{{", "{%", "{#"):
        assert sign not in shown
    assert samples.HOSTILE in "".join(outlined(shown).words)


@given(st.text(), st.text())
def test_whatever_a_target_or_a_description_is_called_the_page_stays_whole(name, words):
    plain = samples.calm()
    (policy,) = plain["policies"]
    (target,) = policy["targets"]
    snapshots = [{**each, "name": words, "description": name} for each in target["snapshots"][:2]]
    named = {**plain, "host": words, "policies": [{**policy, "description": words,
             "targets": [{**target, "target": name, "snapshots": snapshots}]}]}  # fmt: skip
    one = {**plain, "policies": [{**policy, "targets": [{**target, "snapshots": target["snapshots"][:2]}]}]}
    found = outlined(page([named], plain["generated"]))
    usual = outlined(page([one], plain["generated"]))
    allowed = {"br", "span", "bdi", "p"}  # of a description
    assert [each for each in found.names if each not in allowed] == [
        each for each in usual.names if each not in allowed
    ]


def test_a_host_that_was_not_reached_is_shown_as_such():
    gone = without("db3", "2026-11-26T20:40:00Z", "no route to host", "unreachable")
    shown = page([samples.calm(), gone], gone["generated"], "All")
    words = " ".join(outlined(shown).words)
    assert "unreachable" in words
    assert "No route to host." in words


def test_the_style_reads_nothing_from_elsewhere():
    assert "url(" not in STYLE
    assert "@import" not in STYLE


# -- what is believed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", [samples.calm(), samples.usual(), samples.hard(), *samples.fleet()[-2:]])
def test_a_report_is_read_as_it_was_made(found):
    assert understood(json.loads(json.dumps(found))) == json.loads(json.dumps(found))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda found: found.update(format=2), "its format is 2, and 1 is understood here"),
        (lambda found: found.pop("policies"), "report lacks policies"),
        (lambda found: found.update(status="<b>"), "report.status is '<b>', and has to be one of"),
        (lambda found: found.update(generated="yesterday"), "Invalid isoformat string"),
        (lambda found: found["policies"].append(7), "report.policies[1] is no mapping"),
        (lambda found: found["policies"][0]["targets"][0].update(removals="1"), "removals is '1', and has to be int"),
        (lambda found: found["policies"][0]["targets"][0].update(removals=True), "removals is True, and has to be int"),
        (lambda found: found.update(problems={}), "report.problems is no list"),
    ],
)
def test_what_has_not_the_form_of_a_report_is_none(spoil, reason):
    found = json.loads(json.dumps(samples.calm()))
    spoil(found)
    with pytest.raises(InvalidInput) as raised:
        understood(found)
    assert reason in str(raised.value)


def test_what_does_not_belong_to_a_report_is_left_out():
    found = json.loads(json.dumps(samples.calm()))
    found["policies"][0]["secret"] = "x"
    assert "secret" not in understood(found)["policies"][0]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    )
)
def test_whatever_comes_is_a_report_or_is_refused(data):
    with pytest.raises(InvalidInput):
        understood(data)


def test_counts_of_others_are_told():
    found = made(looked(fresh(owners={OWN: 1, "manual": 2, OTHER: 3})))
    assert "1 by hand" not in text(found, Terminal())
    assert "2 by hand, 3 of others" in text(found, Terminal())
