# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action restorepoint.core.restore_point_gate: looks at what all hosts of the play have told, between steps of a role.

An action and no module, because only the control node knows all hosts. `core/restore_points.py` decides; here is what
has to be asked of Ansible. Documented in plugins/modules/restore_point_gate.py.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.restorepoint.core.plugins.module_utils.core import restore_points as points
from ansible_collections.restorepoint.core.plugins.module_utils.core.names import stamp
from ansible_collections.restorepoint.core.plugins.module_utils.core.snapshot import parse_timestamp

#: Strategies in which hosts do not wait for each other.
_OUT_OF_STEP = ("free", "host_pinned")
_GROUPS, _REPORTS, _FAULT = "__restore_point_groups", "__restore_point_reports", "__restore_point_hook_fault"
_STEPS = ("start", "taking", "returning", "reports", "hooks")


class ActionModule(ActionBase):
    """What Ansible asks for."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Judge one step. Fails with one message for all hosts, or with ``fail: false`` returns it."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _unused, options = self.validate_argument_spec(
            {
                "step": {"type": "str", "choices": list(_STEPS), "required": True},
                "name": {"type": "str", "default": ""},
                "attempt": {"type": "str", "required": True},
                "stands": {"type": "str", "default": "Nothing was touched."},
                "fail": {"type": "bool", "default": True},
                "replace": {"type": "bool", "default": False},
                "partial": {"type": "bool", "default": False},
                "once": {"type": "str", "default": ""},
            }
        )
        play = Play(task_vars, self._task)
        problems, facts = getattr(play, options["step"])(options)
        result.update(facts, ok=not problems, problems=list(problems), changed=False)
        result["message"] = points.told(options["attempt"], problems, options["stands"]) if problems else ""
        if problems and options["fail"]:
            raise AnsibleActionFail(result["message"], result=result)
        return result


class Play:
    """All hosts of a play, as they are now. Each step returns problems, and what else there is to tell."""

    def __init__(self, task_vars: Mapping[str, Any], task: Any) -> None:
        self._vars = task_vars
        self._task = task
        self._all: list[str] = list(task_vars["ansible_play_hosts_all"])
        self._here: list[str] = list(task_vars["ansible_play_hosts"])
        self._told: Mapping[str, Any] = task_vars["hostvars"]

    @property
    def missing(self) -> list[str]:
        return [host for host in self._all if host not in self._here]

    def _with_targets(self) -> list[str]:
        return [host for host in self._all if self._of(host, _GROUPS)]

    def _of(self, host: str, variable: str) -> Any:
        return self._told[host].get(variable) if host in self._told else None

    # -- the steps -----------------------------------------------------------------------------------------------------

    def start(self, options: Mapping[str, Any]) -> tuple[Sequence[str], dict[str, Any]]:
        """See to it that all hosts are here and go in step; make a token for this run."""
        problems = points.faults_of((), self.missing)
        out_of_step = self._out_of_step()
        problems += out_of_step
        # Hosts that go their own ways may come yet.
        absent = [] if out_of_step else [host for host in self._here if self._of(host, _GROUPS) is None]
        problems += [
            f"{host}: it does not take part (is there a when or run_once around the role? "
            "give such a host an empty restore_point_targets instead)"
            for host in absent
        ]
        hosts = self._with_targets()
        if not problems and not hosts:
            problems.append("no host has any restore_point_targets")
        token = f"{stamp(int(time.time()))}-{secrets.token_hex(3)}"
        return problems, {"token": token, "hosts": points.digest_of(hosts), "members": hosts, "notes": _notes(hosts)}

    def _out_of_step(self) -> list[str]:
        found = []
        strategy = str(getattr(self._play(), "strategy", "") or "")
        if strategy.rpartition(".")[2].replace("mitogen_", "") in _OUT_OF_STEP:
            found.append(f"with strategy: {strategy} hosts do not wait for each other (use linear)")
        left_out = [host for host in self._here if host not in self._vars["ansible_play_batch"]]
        if left_out:
            found.append(
                f"with serial, {', '.join(left_out)} would come later (leave serial out of a play with restore points)"
            )
        return found

    def _play(self) -> Any:
        parent = self._task
        while parent is not None:
            play = getattr(parent, "_play", None)
            if play is not None:
                return play
            parent = getattr(parent, "_parent", None)
        return None

    def taking(self, options: Mapping[str, Any]) -> tuple[Sequence[str], dict[str, Any]]:
        """Judge what all hosts have told before a restore point is taken."""
        reports = self._reports()
        verdict = points.judge_taking(
            reports, self._silent(reports), options["once"], options["name"], options["replace"]
        )
        return verdict.problems, _as_facts(verdict)

    def returning(self, options: Mapping[str, Any]) -> tuple[Sequence[str], dict[str, Any]]:
        """Judge what all hosts have told before a return."""
        start, reports = self._vars["__restore_point_start"], self._reports()
        verdict = points.judge_returning(
            reports, self._silent(reports), start["hosts"], start["token"], options["once"], options["partial"]
        )
        return verdict.problems, _as_facts(verdict)

    def reports(self, options: Mapping[str, Any]) -> tuple[Sequence[str], dict[str, Any]]:
        """Collect what all hosts have done."""
        raw = {host: _items(self._of(host, _REPORTS)) for host in self._with_targets()}
        results = _of_each(raw, "results")
        every = [each for several in results.values() for each in several]
        facts = {
            "results": results,
            "parts": _of_each(raw, "parts"),
            "spread_seconds": points.spread_of(points.instants_of(every, parse_timestamp)),
            "reboot": sorted(
                host for host, several in results.items() if any(each.get("reboot_required") for each in several)
            ),
            "any_changed": any(bool(each.get("changed")) for each in every),
        }
        reports = self._reports()
        return points.faults_of(reports, self._silent(reports)), facts

    def hooks(self, options: Mapping[str, Any]) -> tuple[Sequence[str], dict[str, Any]]:
        """Collect which hooks failed, and where."""
        problems = points.faults_of((), self.missing)
        for host in self._here:
            fault = self._of(host, _FAULT)
            problems += [f"{host}: {fault}"] if fault else []
        return problems, {}

    # -- what hosts have told ------------------------------------------------------------------------------------------

    def _reports(self) -> list[points.Report]:
        found = []
        for host in self._with_targets():
            own = [report_of(host, item) for item in _items(self._of(host, _REPORTS))]
            if host in self.missing:
                # What it told last is no more than its end: it says nothing of this step.
                own = [each for each in own if each.fault is not None]
            elif not own:
                own = [points.Report(host, fault="it has told nothing")]
            found += own
        return found

    def _silent(self, reports: Sequence[points.Report]) -> list[str]:
        """Return the hosts that are missing and have not told why."""
        told = {each.host for each in reports if each.fault is not None}
        return [host for host in self.missing if host not in told]


def report_of(host: str, item: Mapping[str, Any]) -> points.Report:
    """Return what one call of the module restore_point told."""
    group = item.get("item")
    via = group.get("delegate_to") if isinstance(group, Mapping) else None
    fault = None
    words = " ".join(str(item.get("msg") or "it failed without a word").split()).removeprefix("Task failed: ")
    if item.get("unreachable"):
        fault = f"{'it' if via in (None, host) else via} is unreachable: {words}"
    elif item.get("failed"):
        fault = words.removeprefix("Module failed: ").removesuffix("; nothing was changed.")
    parts = tuple(points.Part(**each) for each in item.get("parts") or ())
    results = item.get("results") or ()
    actions = tuple(str(each.get("action")) for each in results)
    return points.Report(host, fault, parts, actions, any(each.get("changed") for each in results))


def _of_each(raw: Mapping[str, Sequence[Mapping[str, Any]]], key: str) -> dict[str, list[Any]]:
    """Return what all calls on each host have under this key."""
    return {host: [each for item in items for each in item.get(key) or ()] for host, items in raw.items()}


def _items(report: Any) -> list[Mapping[str, Any]]:
    """Return the results of a task with a loop, or the one that it has as a whole."""
    if not isinstance(report, Mapping) or report.get("skipped"):
        return []
    items = report.get("results")
    if isinstance(items, Sequence) and items and all(isinstance(each, Mapping) and "item" in each for each in items):
        return list(items)
    return [report] if report.get("failed") or report.get("unreachable") else []


def _as_facts(verdict: points.Verdict) -> dict[str, Any]:
    return {
        "token": verdict.token,
        "go": verdict.go,
        "anew": verdict.anew,
        "finish_only": verdict.finish_only,
        "resumed": verdict.resumed,
        "notes": list(verdict.notes),
    }


def _notes(hosts: Sequence[str]) -> list[str]:
    forks = int(
        C.config.get_config_value("DEFAULT_FORKS") if context.CLIARGS.get("forks") is None else context.CLIARGS["forks"]
    )
    if len(hosts) <= forks:
        return []
    return [f"{len(hosts)} hosts are taken by {forks} forks, in turns: raise forks to have them closer together"]
