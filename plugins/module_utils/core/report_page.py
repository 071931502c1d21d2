# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One page for a browser, of one report or of many: no script, and nothing from anywhere else. Pure.

What is wrong comes first. Every text that came from a name is escaped, and can neither change the direction of what
stands beside it nor look like a template to Ansible. Called by the agent, and by the filter report_page.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .report_style import STYLE
from .report_tree import branches
from .report_words import (
    OK,
    UNKNOWN,
    age,
    clock,
    count_words,
    keep_words,
    kind_of,
    longest_age,
    marks_of,
    reason_words,
    rule_words,
    run_words,
    runs_of,
    scaled,
    seconds_of,
    several,
    span,
    visible,
    worst,
)
from .units import format_size

#: So many are shown at once; the others can be opened.
_PROBLEMS, _TARGETS, _SNAPSHOTS = 20, 8, 12
_DEEPEST = 3
#: Ages at which a line of time has a mark.
_TICKS = ((3600, "1 h"), (6 * 3600, "6 h"), (86400, "1 d"), (7 * 86400, "1 w"), (30 * 86400, "1 mo"),
          (182 * 86400, "6 mo"), (365 * 86400, "1 y"), (5 * 365 * 86400, "5 y"))  # fmt: skip
_LEAST_DISTANCE = 0.13
_LEGEND = (("kept", "kept"), ("going", "goes when it is pruned next"), ("manual", "taken by hand"),
           ("other", "of somebody else"), ("broken", "cannot be returned to"))  # fmt: skip
#: What stands for restore points, drawn once and used everywhere.
_SHAPES = (
    '<svg width="0" height="0" aria-hidden="true"><defs>'
    '<circle id="kept" r="5"/><circle id="going" r="4.5"/><circle id="other" r="3.5"/>'
    '<path id="manual" d="M0-6 6 0 0 6-6 0z"/><path id="broken" d="M-4-4 4 4M4-4-4 4"/></defs></svg>'
)


def page(reports: Sequence[Mapping[str, Any]], generated: str, name: str = "") -> str:
    """Return the page.

    Args:
        reports: the reports of one host or of many, as core/report.py makes them.
        generated: when the page is made, in ISO 8601.
        name: what all hosts together are called, where there are many.
    """
    one = len(reports) == 1 and not name
    title = f"Restore points of {reports[0]['host']}" if one else name or "Restore points"
    policy = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    lines = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        f"style-src 'sha256-{policy}'; base-uri 'none'; form-action 'none'\">",
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="robots" content="noindex">',
        f'<link rel="icon" href="data:,"><title>{_e(title)}</title><style>{STYLE}</style></head><body>',
        _SHAPES,
        *_header(reports, generated, title),
        "<main>",
        *_problems(reports, one),
        *(_host(reports[0], "", 2) if one else _hosts(reports)),
        "</main>",
        f"<footer><p>Made {_e(clock(generated))} by restorepoint. Ages are as of the moment at which each host was "
        "looked at.</p></footer></body></html>\n",
    ]
    return "\n".join(lines)


def _e(text: Any) -> str:
    """Return a text as HTML. Line ends count as spaces, and no brace is left that a template could begin with."""
    return html.escape(visible(" ".join(str(text).split()))).replace("{", "&#123;")


def _foreign(text: Any, kind: str = "") -> str:
    """Return a text that came from a name: whatever its script, it keeps to itself."""
    return f'<bdi class="{kind}">{_e(text)}</bdi>' if kind else f"<bdi>{_e(text)}</bdi>"


def _pill(level: str, words: str = "") -> str:
    return f'<span class="pill {level}">{words or level}</span>'


def _time(moment: Any, now: int) -> str:
    if moment is None:
        return "never"
    return f'<time datetime="{_e(moment)}">{_e(clock(moment))}</time>, {age(moment, now)}'


# -- the top ----------------------------------------------------------------------------------------------------------


def _header(reports: Sequence[Mapping[str, Any]], generated: str, title: str) -> Iterator[str]:
    level = worst(each["status"] for each in reports)
    policies = [policy for each in reports for policy in each["policies"]]
    counts = [several(len(reports), "host")] if len(reports) != 1 else []
    counts += [
        several(len(policies), "policy", "policies"),
        several(sum(each["target_count"] for each in policies), "target"),
        several(sum(each["snapshot_count"] for each in policies), "restore point"),
    ]
    yield f'<header><div class="row"><h1>{_e(title)}</h1>{_pill(level)}</div>'
    yield f'<p class="lead quiet">{", ".join(counts)}. <time datetime="{_e(generated)}">{clock(generated)}</time></p>'
    yield "</header>"


def _problems(reports: Sequence[Mapping[str, Any]], one: bool) -> Iterator[str]:
    """Yield what is wrong anywhere, the worst first."""
    found = [(each, "" if one else report["host"]) for report in reports for each in report["problems"]]
    order = {"critical": 0, "unknown": 1, "warning": 2}
    found.sort(key=lambda each: order.get(each[0]["level"], 3))
    yield '<section aria-labelledby="wrong"><h2 id="wrong">What is wrong</h2>'
    if not found:
        yield '<p class="calm ok">Nothing is wrong.</p>'
    else:
        items = [_problem(each, host) for each, host in found]
        yield f'<ul class="problems">{"".join(items[:_PROBLEMS])}</ul>'
        yield _more(
            "more problems", [f'<ul class="problems">{"".join(items[_PROBLEMS:])}</ul>'], len(items) - _PROBLEMS
        )
    yield "</section>"


def _problem(each: Mapping[str, Any], host: str) -> str:
    place = [_foreign(part) for part in (host, each["policy"], each["target"]) if part]
    where = f"<b>{' · '.join(place)}</b><br>" if place else ""
    return f'<li class="{each["level"]}"><p>{_pill(each["level"])} {where}{_e(each["text"])}</p></li>'


def _more(words: str, lines: Sequence[str], count: int) -> str:
    """Return what can be opened; nothing where there is nothing more."""
    return f"<details><summary>{count} {words}</summary>{''.join(lines)}</details>" if count > 0 else ""


# -- hosts ------------------------------------------------------------------------------------------------------------


def _hosts(reports: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    order = ("critical", "unknown", "warning", "ok")
    sorted_ones = sorted(reports, key=lambda each: (order.index(each["status"]), each["host"]))
    yield '<section aria-labelledby="hosts"><h2 id="hosts">Hosts</h2><ul class="grid">'
    for number, each in enumerate(sorted_ones):
        name = f'<a href="#host-{number}">{_foreign(each["host"])}</a>' if each["policies"] else _foreign(each["host"])
        words = several(sum(policy["snapshot_count"] for policy in each["policies"]), "restore point")
        state = words if each["policies"] else each["summary"]
        yield f'<li class="card"><div class="row"><b>{name}</b>{_pill(each["status"], _state(each))}</div>'
        yield f'<p class="small quiet">{_e(state)}</p></li>'
    yield "</ul></section>"
    yield _legend()
    for number, each in enumerate(sorted_ones):
        if each["policies"]:
            yield from _one_of_many(each, number)


def _one_of_many(report: Mapping[str, Any], number: int) -> Iterator[str]:
    """Yield a host of several: one on which nothing is wrong can be opened, the others are."""
    opened = "" if report["status"] == OK else " open"
    yield f'<details class="host"{opened}><summary><h2 id="host-{number}">{_foreign(report["host"])}</h2> '
    yield f"{_pill(report['status'])} "
    yield f'<span class="small quiet">looked at {_e(clock(report["generated"]))}</span></summary>'
    yield from _host(report, f"-{number}", 3)
    yield "</details>"


def _state(report: Mapping[str, Any]) -> str:
    """Return the word for how a host is: one that was not reached is not merely unknown."""
    kinds = {each["kind"] for each in report["problems"]}
    return "unreachable" if "unreachable" in kinds else "no report" if "no-report" in kinds else report["status"]


def _host(report: Mapping[str, Any], mark: str, level: int) -> Iterator[str]:
    now = seconds_of(report["generated"]) or 0
    parts = []
    if report["storages"]:
        parts.append(("Storage", [f'<ul class="grid">{"".join(map(_storage, report["storages"]))}</ul>']))
    if report["policies"]:
        cards = [line for policy in report["policies"] for line in _policy(policy, now, level + 1)]
        parts.append(("Policies", [*([] if mark else [_legend()]), *cards]))
    for title, lines in parts:
        name = title.lower() + mark
        # Of many hosts each has these parts: as landmarks they would only be in the way.
        begin, end = ('<div class="part">', "</div>") if mark else (f'<section aria-labelledby="{name}">', "</section>")
        yield f'{begin}<h{level} id="{name}">{title}</h{level}>'
        yield from lines
        yield end


def _legend() -> str:
    signs = "".join(f"<li>{_sign(kind)}{words}</li>" for kind, words in _LEGEND)
    return f'<ul class="legend small quiet">{signs}</ul>'


def _storage(each: Mapping[str, Any]) -> str:
    part = f" {_e(each['part'])}" if each["backend"] == "lvm" else ""
    size = f" of {format_size(each['size_bytes'])}" if each["size_bytes"] else ""
    width = f"{min(100.0, max(0.0, each['fill'] * 100)):.1f}%"
    return (
        f'<li class="card"><div class="row"><b>{_foreign(each["storage"])}</b>'
        f'<span class="small quiet">{_e(each["backend"])}{part}</span></div>'
        f'<svg class="bar" width="100%" height="10" aria-hidden="true"><rect width="100%" height="10" rx="5"/>'
        f'<rect class="{each["status"]}" width="{width}" height="10" rx="5"/></svg>'
        f'<p class="small">{each["fill"]:.0%} full{size}</p></li>'
    )


# -- a policy ---------------------------------------------------------------------------------------------------------


def _policy(policy: Mapping[str, Any], now: int, level: int) -> Iterator[str]:
    yield f'<article class="card"><div class="row"><h{level}>{_foreign(policy["name"])}</h{level}>'
    yield f"{_pill(policy['status'])}</div>"
    if policy["description"]:
        yield f'<p class="quiet">{_foreign(policy["description"])}</p>'
    yield f'<dl class="facts">{"".join(_facts(policy, now))}</dl>'
    for each in policy["backends"]:
        if not each["up"]:
            yield f"<p>{_pill(UNKNOWN, 'not seen')} {_e(each['backend'])}: {_e(each['reason'])}</p>"
    targets = ["".join(_target(each, now, level + 1)) for each in policy["targets"]]
    wrong = sum(each["status"] != OK for each in policy["targets"])
    shown = max(_TARGETS, min(wrong, 5 * _TARGETS))
    yield "".join(targets[:shown])
    yield _more("more targets", targets[shown:], len(targets) - shown)
    missing = policy["target_count"] - len(targets)
    if missing > 0:
        yield f'<p class="quiet">{several(missing, "target")} more, of which nothing is shown.</p>'
    if policy["failures"]:
        yield "".join(_failures(policy["failures"], now))
    yield "</article>"


def _facts(policy: Mapping[str, Any], now: int) -> Iterator[str]:
    def fact(name: str, words: str) -> str:
        return f"<div><dt>{name}</dt><dd>{words}</dd></div>"

    lines = _e(", ".join(policy["schedule"])) + f' <span class="quiet">({_e(policy["timezone"])})</span>'
    yield fact("Schedule", lines if policy["schedule"] else "by hand")
    if policy["due"]:
        yield fact("Last due", _time(policy["due"], now))
    for command, run in runs_of(policy):
        words = _e(run_words(run, now))
        failed = run is not None and not run["succeeded"]
        if failed:
            words = _pill("warning", "failed") + words[len("failed") :]
        yield fact(f"Last {_e(command)}", words)
    yield fact("Keeps", _e(keep_words(policy["keep"])))
    totals = policy["totals"]
    words = f"{totals['created']} taken, {totals['removed']} removed"
    yield fact(
        "Until now", f"{words}, {format_size(totals['copied_bytes'])} copied" if totals["copied_bytes"] else words
    )


def _failures(failures: Sequence[Mapping[str, Any]], now: int) -> Iterator[str]:
    yield f'<details><summary>The last {several(len(failures), "run")} that failed</summary><ul class="problems">'
    for each in failures:
        targets = "".join(f"<br>{_foreign(one['target'])}: {_e(one['reason'])}" for one in each["targets"])
        yield f'<li class="warning"><p><b>{_e(each["command"])}</b> {_pill("warning", _e(each["outcome"]))} '
        yield f"{_time(each['at'], now)}<br>{_e(each['reason'])}{targets}</p></li>"
    yield "</ul></details>"


# -- a target ---------------------------------------------------------------------------------------------------------


def _target(target: Mapping[str, Any], now: int, level: int) -> Iterator[str]:
    pill = _pill(target["status"]) if target["status"] != OK else ""
    yield f'<div class="target"><div class="row"><h{level}>{_foreign(target["target"])}</h{level}>'
    yield f'<span class="small quiet">{_e(target["backend"])}</span>{pill}</div>'
    yield f'<p class="small">{_e(count_words(target, now))}</p>'
    if target["snapshots"]:
        yield _line_of_time(target, now)
    if target["keep"]:
        chips = "".join(f"<li>{_e(rule_words(each))}</li>" for each in target["keep"])
        yield f'<ul class="chips">{chips}</ul>'
    for note in target["notes"]:
        yield f'<p class="small">{_pill("warning", "note")} {_e(note)}</p>'
    if target["snapshots"]:
        yield from _tree(target, now)
    if target["asides"]:
        items = "".join(_aside(each, now) for each in target["asides"])
        yield f"<details><summary>{several(len(target['asides']), 'aside')}: what returns have set aside</summary>"
        yield f'<ul class="tree">{items}</ul></details>'
    yield "</div>"


def _tree(target: Mapping[str, Any], now: int) -> Iterator[str]:
    going = target["removals"]
    goes = f"{going} would go" if going else "none would go"
    count = len(target["snapshots"]) + target["omitted"]
    yield f"<details><summary>What stays, and why: {several(count, 'restore point')}, {goes}</summary>"
    items = [_snapshot(each, depth, now) for each, depth in branches(target["snapshots"])]
    yield f'<ul class="tree">{"".join(items[:_SNAPSHOTS])}</ul>'
    yield _more("older ones", [f'<ul class="tree">{"".join(items[_SNAPSHOTS:])}</ul>'], len(items) - _SNAPSHOTS)
    if target["omitted"]:
        yield f'<p class="small quiet">{target["omitted"]} more are not listed.</p>'
    yield "</details>"


def _snapshot(each: Mapping[str, Any], depth: int, now: int) -> str:
    kind = kind_of(each)
    names = [*([f"d{min(depth, _DEEPEST)}"] if depth else []), *(["gone"] if kind == "going" else [])]
    classes = f' class="{" ".join(names)}"' if names else ""
    branch = '<span class="hidden">on a branch: </span>' if depth else ""
    marks = "".join(f" {_pill('critical' if words.startswith('not') else OK, _e(words))}" for words in marks_of(each))
    size = f", {format_size(each['size_bytes'])}" if each["size_bytes"] else ""
    words = f'<br><span class="small quiet">{_foreign(each["description"])}</span>' if each["description"] else ""
    return (
        f"<li{classes}>{_sign(kind)}<div>{branch}{_foreign(each['name'], 'name')}{marks}<br>"
        f'<span class="small">{_e(reason_words(each))} · {_time(each["created"], now)}{size}</span>{words}</div></li>'
    )


def _aside(each: Mapping[str, Any], now: int) -> str:
    size = f", {format_size(each['size_bytes'])}" if each["size_bytes"] else ""
    words = f'<span class="small">{_time(each["created"], now)}{size}</span>'
    return f"<li><div>{_foreign(each['name'], 'name')}<br>{words}</div></li>"


def _sign(kind: str) -> str:
    return f'<svg class="sign" viewBox="-8 -8 16 16" aria-hidden="true"><use href="#{kind}" class="{kind}"/></svg>'


def _line_of_time(target: Mapping[str, Any], now: int) -> str:
    """Return a line on which each restore point is drawn at its age. It scales with the page, its signs do not."""
    longest = longest_age(target, now)
    marks = []
    for each in sorted(target["snapshots"], key=lambda each: kind_of(each) in ("going", "broken")):
        place = scaled(now - (seconds_of(each["created"]) or now), longest)
        marks.append(f'<use href="#{kind_of(each)}" class="{kind_of(each)}" x="{_along(place)}" y="12"/>')
    words = f"{several(len(target['snapshots']), 'restore point')} on a line of time, the oldest of {span(longest)} ago"
    return (
        f'<svg class="time" role="img" aria-label="{_e(words)}" width="100%" height="40">'
        f'<line x1="2%" y1="12" x2="98%" y2="12"/>{"".join(marks)}{"".join(_ticks(longest))}</svg>'
    )


def _along(place: float) -> str:
    return f"{2 + 96 * place:.1f}%"


def _ticks(longest: int) -> Iterator[str]:
    yield '<text x="98%" y="36" text-anchor="end">now</text>'
    last = 1.0
    for seconds, words in _TICKS:
        place = scaled(seconds, longest)
        if seconds < longest and last - place >= _LEAST_DISTANCE and place >= _LEAST_DISTANCE:
            yield f'<text x="{_along(place)}" y="36" text-anchor="middle">{words}</text>'
            last = place
    yield f'<text x="2%" y="36">{span(longest)}</text>'
