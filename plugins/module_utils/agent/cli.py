# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line of the agent, `restorepoint.pyz`. docs/agent.md describes it, and its exit codes, for people.

Reads policies, asks at a terminal, prints, and turns outcomes into exit codes. What is done is in `running`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, TextIO

from ..core.errors import Blocked, InvalidInput, LockTimeout, RestorePointError
from ..core.units import format_size
from .offsite_options import add_options as add_offsite

if TYPE_CHECKING:
    from ..engine.policy import Policy
    from .exporting import Exporting
    from .running import Running
    from .state import State

#: Exit codes. A failure is never 0.
OK, FAILED, USAGE, BLOCKED, BUSY, FAULTS, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
_CODES = {
    "done": OK,
    "unchanged": OK,
    "failed": FAILED,
    "blocked": BLOCKED,
    "busy": BUSY,
    "interrupted": INTERRUPTED,
}
#: What each exit code means, for the manual page.
EXITS = {
    OK: "Done, or nothing was to be done. Never after a failure.",
    FAILED: "It failed. What was begun is undone, or the message says what stands.",
    USAGE: "The command line, the policies, or what they name is wrong. Nothing was touched.",
    BLOCKED: "Something stands in the way. Nothing was changed.",
    BUSY: "Another run of the policy is under way.",
    FAULTS: "verify, or a drill, has found faults.",
    INTERRUPTED: "It was interrupted.",
}
#: Shells for which there is completion, and what their scripts ask for.
SHELLS = ("bash", "zsh", "fish")
ASKED = ("policies", "names", "targets")
#: A moment of the schedule that is so near is waited for.
_SOON_SECONDS = 5
#: How long a return by hand waits for another run on the same storage, in seconds: a person sits and waits for it.
_PATIENCE = 60
POLICIES = "/etc/restorepoint/policies.json"
STATE = "/var/lib/restorepoint"


def main(argv: Sequence[str] | None = None, out: TextIO | None = None, clock: Callable[[], float] = time.time) -> int:
    """Run one command; return its exit code. What it says goes to ``out``, troubles go to stderr."""
    options = parser().parse_args(argv)
    agent = Agent(options, out or sys.stdout, lambda: int(clock()))
    try:
        return int(getattr(agent, {"import": "import_"}.get(options.command, options.command))())
    except Blocked as error:
        return _trouble(error, BLOCKED)
    except LockTimeout as error:
        return _trouble(error, BUSY)
    except InvalidInput as error:
        return _trouble(error, USAGE)
    except RestorePointError as error:
        return _trouble(error, FAILED)
    except OSError as error:
        return _trouble(error, FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED


def _trouble(error: object, code: int) -> int:
    faults = getattr(error, "faults", None)
    for line in faults or (error,):
        complain(str(line))
    return code


def complain(line: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(f"restorepoint: {line}\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="restorepoint", description="Restore points by policies, on this host.")
    top.add_argument(
        "--policies",
        default=os.environ.get("RESTOREPOINT_POLICIES", POLICIES),
        metavar="FILE",
        help=f"the policies, in JSON ({POLICIES})",
    )
    top.add_argument(
        "--state",
        default=os.environ.get("RESTOREPOINT_STATE", STATE),
        metavar="DIRECTORY",
        help=f"the folder of the journal and of locks ({STATE})",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, words: str, policy: str | None = None) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=words, description=words)
        if policy is not None:
            number: dict[str, Any] = {} if policy == "1" else {"nargs": policy}
            made.add_argument("policy", help="the name of a policy", **number)
        made.add_argument("--json", action="store_true", help="print JSON")
        return made

    def changing(name: str, words: str) -> argparse.ArgumentParser:
        made = command(name, words, "1")
        made.add_argument(
            "--wait", type=float, default=0.0, metavar="SECONDS", help="wait so long for another run of the policy"
        )
        return made

    run = changing("run", "take what the policy asks for, and prune")
    run.add_argument(
        "--if-due", action="store_true", help="only if a moment of its schedule has passed since the last run"
    )
    create = changing("create", "take a restore point by hand; no keep rule removes it")
    create.add_argument("--name", help="how it is called; manual-{UTC time} where this is missing")
    create.add_argument("--description", help="written into each snapshot, in place of the policy's")
    prune = changing("prune", "remove what the keep rules do not keep")
    prune.add_argument("--dry-run", action="store_true", help="only say what stays and what goes, and why")
    rollback = changing("rollback", "return targets to a restore point")
    rollback.add_argument("name", help="the restore point")
    rollback.add_argument("--target", action="append", default=[], help="only this one; may be repeated")
    rollback.add_argument("--yes", action="store_true", help="do not ask; needed where there is no terminal")
    rollback.add_argument("--destroy-newer", action="store_true", help="let newer snapshots go where they must")
    rollback.add_argument("--ignore-users", action="store_true", help="even where somebody uses the target")
    rollback.add_argument("--stop-workloads", action="store_true", help="of claims: stop what uses them meanwhile")
    keep = rollback.add_mutually_exclusive_group()
    keep.add_argument("--keep-current", dest="keep", action="store_true", default=None, help="keep what is there aside")
    keep.add_argument("--discard-current", dest="keep", action="store_false", help="let what is there go")
    listing = command("list", "show the restore points of policies", "*")
    listing.add_argument("--tree", action="store_true", help="as a tree")
    verify = command("verify", "say whether snapshots are as they were taken", "1")
    verify.add_argument("--name", help="only those of that name")
    drill = command("drill", "restore the newest restore points beside their targets, check them, take that away", "*")
    drill.add_argument("--wait", type=float, default=600.0, metavar="SECONDS", help="for another run of a policy (600)")
    drill.add_argument(
        "--if-due", action="store_true", help="only if a moment of its schedule has passed since the last drill"
    )
    drill.add_argument("--dry-run", action="store_true", help="only say what would be restored, and where")
    command("due", "name the policies that missed a moment of a schedule: for a run, a drill or an export", "*")
    command("check", "check the policies, and name every fault")
    annotations = command("annotations", "take the snapshots that annotations of claims and pods ask for, and prune")
    annotations.add_argument("--namespace", action="append", default=[], help="only there; may be repeated")
    annotations.add_argument("--snapshot-class", metavar="NAME", help="not the default one of the claim's driver")
    annotations.add_argument("--timezone", default="UTC", help="in which days, weeks and months begin")
    annotations.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="for one namespace")
    annotations.add_argument("--kubeconfig", metavar="FILE", help="in a pod its account is used without it")
    annotations.add_argument("--context", help="of the kubeconfig")
    annotations.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="for another run")
    annotations.add_argument("--dry-run", action="store_true", help="only say what is asked for, and what is due")
    command("recover", "end what a killed run has left, hooks above all", "1")
    completion = commands.add_parser("completion", help="print the completion for a shell")
    completion.description = "print the completion for a shell, or what its script asks for"
    completion.add_argument("what", choices=(*SHELLS, *ASKED), help="a shell, or what its script asks for")
    completion.add_argument("policy", nargs="?", help="whose restore points or targets are asked for")
    commands.add_parser("man", help="print the manual page", description="print the manual page, in roff")
    _add_watching(commands)
    add_offsite(commands)
    return top


def _comes_due(running: Running | Exporting) -> bool:
    """Say whether a policy is due, or in a moment: then wait for it.

    What was missed is looked for at any time. A timer that fires while that look still lasts would start nothing.
    """
    for _unused in range(5 * _SOON_SECONDS):
        if running.is_due() or not running.is_due(_SOON_SECONDS):
            break
        time.sleep(0.2)
    return running.is_due()


def _add_watching(commands: Any) -> None:
    """Add the commands whose options are in modules of their own, which import only what they need."""
    from . import metric_options, report_options

    words = "show what there is to watch, for Prometheus"
    metric_options.add_options(commands.add_parser("metrics", help=words, description=words))
    words = "show what there is and what is wrong; ends with 0 (ok), 1 (warning), 2 (critical) or 3 (unknown)"
    report_options.add_options(commands.add_parser("report", help=words, description=words))


class Agent:
    """The commands, each a method that returns its exit code."""

    def __init__(self, options: argparse.Namespace, out: TextIO, now: Callable[[], int]) -> None:
        self._options = options
        self._out = out
        self._now = now

    def _say(self, *lines: str) -> None:
        for line in lines:
            self._out.write(f"{line}\n")

    def _say_json(self, what: Any) -> None:
        self._say(json.dumps(what, default=str, sort_keys=True))

    # -- what the commands need ----------------------------------------------------------------------------------------

    def _policies(self) -> list[Policy]:
        from ..engine.policy import parse_policies

        path = self._options.policies
        remedy = "name the file with --policies, as docs/policies.md describes it"
        try:
            with open(path, encoding="utf-8") as stream:
                data = json.load(stream)
        except OSError as error:
            raise InvalidInput(f"read the policies in {path}", str(error.strerror), remedy) from error
        except ValueError as error:
            raise InvalidInput(f"read the policies in {path}", f"it is no JSON: {error}", remedy) from error
        return parse_policies(data)

    def _named(self, names: Sequence[str]) -> list[Policy]:
        known = {each.name: each for each in self._policies()}
        for name in names:
            if name not in known:
                raise InvalidInput(f"use policy {name}", "there is none", f"name one of {', '.join(known)}")
        return [known[name] for name in names] if names else list(known.values())

    def _state(self) -> State:
        from .state import State

        return State(self._options.state)

    def _running(self, policy: Policy, kind: Any = None) -> Any:
        from ..interrupts import Interrupts
        from . import progress
        from .running import Running

        interrupts = Interrupts()
        interrupts.install()
        return (kind or Running)(self._state(), policy, self._now, interrupts, progress.on(sys.stderr))

    # -- commands that change something --------------------------------------------------------------------------------

    def run(self) -> int:
        """Run a policy."""
        (policy,) = self._named([self._options.policy])
        running = self._running(policy)
        if self._options.if_due and not self._is_due(policy, running):
            return OK
        return self._finished(running, running.run(self._options.wait, self._options.if_due))

    def _is_due(self, policy: Policy, running: Running | Exporting) -> bool:
        """Say whether it comes due; where not, tell so."""
        due = _comes_due(running)
        if not due and not self._options.json:
            self._say(f"{policy.name}: not due")
        return due

    def create(self) -> int:
        """Take a restore point by hand."""
        (policy,) = self._named([self._options.policy])
        running = self._running(policy)
        options = self._options
        return self._finished(running, running.create(options.name, options.description, options.wait))

    def prune(self) -> int:
        """Prune, or say what would go."""
        (policy,) = self._named([self._options.policy])
        running = self._running(policy)
        record = running.prune(self._options.dry_run, self._options.wait)
        if self._options.json:
            self._say_json({**record, "decisions": running.decisions})
            return self._warned(running, record)
        for each in running.decisions:
            self._say(f"{'keep  ' if each['keep'] else 'remove'} {each['target']} {each['name']}: {each['reason']}")
        if self._options.dry_run:
            return self._warned(running, record)
        return self._finished(running, record)

    def rollback(self) -> int:
        """Return to a restore point, once the person has typed the target's name, or said --yes."""
        from ..core.backend import Desired
        from .running import chosen

        options = self._options
        (policy,) = self._named([options.policy])
        targets = chosen(policy, options.target)
        self._confirmed(policy, options.target)
        names = ("destroy_newer", "ignore_users", "stop_workloads")
        lifted = {name: getattr(options, name) for name in names}
        desired = Desired(
            state="rolled_back",
            name=options.name,
            owner=policy.name,
            destroy_newer=options.destroy_newer,
            allowed=frozenset(name for name, given in lifted.items() if given),
        )
        running = self._running(policy)
        given = {
            "ignore_users": options.ignore_users,
            "stop_workloads": options.stop_workloads,
            "lock_timeout": _PATIENCE,
        }
        record = running.rollback(desired, targets, options.wait, keep_current=options.keep, **given)
        return self._finished(running, record)

    def _confirmed(self, policy: Policy, named: Sequence[str]) -> None:
        """Raise InvalidInput unless the person means it."""
        attempt = f"return to {self._options.name}"
        if self._options.yes:
            return
        if not sys.stdin.isatty():
            raise InvalidInput(attempt, "there is no terminal at which to ask", "say --yes if it is meant")
        word = named[0] if len(named) == 1 else policy.name
        what = "target" if len(named) == 1 else "policy"
        question = f"{word} will be returned to {self._options.name}. Type the name of the {what} to go on: "
        sys.stderr.write(question)
        sys.stderr.flush()
        if sys.stdin.readline().strip() != word:
            raise InvalidInput(attempt, f"what was typed is not {word}", "nothing was changed; type it as it is shown")

    def _finished(self, running: Running, record: Mapping[str, Any]) -> int:
        """Say what a run has done; return its exit code."""
        if self._options.json:
            self._say_json(record)
        else:
            done = ", ".join(f"{count} {action}" for action, count in record.get("done", {}).items())
            words = [f"{record['policy']}: {record['outcome']}", record["name"] or "", done, record.get("reason", "")]
            self._say("; ".join(word for word in words if word))
        return self._warned(running, record)

    def _warned(self, running: Running, record: Mapping[str, Any]) -> int:
        for warning in dict.fromkeys(running.warnings):
            complain(f"warning: {warning}")
        return _CODES[record["outcome"]]

    def recover(self) -> int:
        """End what a killed run left. The policy need not be there any more: the run's mark has all."""
        name = self._options.policy
        state = self._state()
        exported = (state.mark(f"{name}.export").read() or {}).get("record") is not None
        if not exported and state.mark(name).read() is None and state.drilled(name).read() is None:
            return self._recovered(name, False)
        from ..core.retention import RetentionPolicy
        from ..engine.policy import Policy
        from .drilling import Drilling
        from .exporting import Exporting

        policy = Policy(name, (), RetentionPolicy())
        exported = exported and self._running(policy, Exporting).recover()
        if state.mark(name).read() is None and state.drilled(name).read() is None:
            return self._recovered(name, exported)
        running = self._running(policy, Drilling)
        try:
            with state.lock(name, 0.0):
                running.recover()
                running.clear()
        except LockTimeout:
            # Its holder has done this at its beginning.
            return self._recovered(name, exported)
        for warning in running.warnings:
            complain(warning)
        return FAILED if running.warnings else self._recovered(name, True)

    def _recovered(self, name: str, done: bool) -> int:
        if self._options.json:
            self._say_json({"policy": name, "recovered": done})
        elif done:
            self._say(f"{name}: what a killed run has left is brought to an end")
        return OK

    def annotations(self) -> int:
        """Take what annotations ask for."""
        from ..interrupts import Interrupts
        from .annotating import Annotating, CsiOptions, KubeClient, log_in_alone, parse_policy

        options, interrupts = self._options, Interrupts()
        interrupts.install()
        parse_policy(None, timezone=options.timezone)  # a time zone that is none is said before anything is asked
        login = {"kubeconfig": options.kubeconfig, "context": options.context}
        annotating = Annotating(
            lambda patience: KubeClient(login, patience=patience, log_in=log_in_alone),
            options.namespace,
            CsiOptions(snapshot_class=options.snapshot_class, timeout=options.timeout),
            options.timezone,
            self._now,
            interrupts.held,
        )
        if options.dry_run:
            return self._planned(annotating.plan())
        record = annotating.run(self._state(), options.wait)
        if options.json:
            self._say_json(record)
        else:
            done = ", ".join(f"{count} {action}" for action, count in record["done"].items())
            words = ("annotations", record["outcome"], done, record.get("reason"))
            self._say("; ".join(word for word in words if word))
        for warning in dict.fromkeys(annotating.warnings):
            complain(f"warning: {warning}")
        return _CODES[record["outcome"]]

    def _planned(self, found: Sequence[Mapping[str, Any]]) -> int:
        if self._options.json:
            self._say_json(found)
        for each in found if not self._options.json else ():
            kept = "all" if each["retention"] is None else each["retention"]
            self._say(f"{each['claim']} {each['frequency']}, {kept} kept{', due' if each['due'] else ''}")
        return OK

    # -- off-site ------------------------------------------------------------------------------------------------------

    def export(self) -> int:
        """Bring restore points elsewhere. The worst that became of a policy is the exit code."""
        from .exporting import Exporting

        options = self._options
        policies = self._named(options.policy)
        policies = policies if options.policy else [each for each in policies if each.exports]
        if not policies:
            raise InvalidInput("export", "no policy has the key export", "give one that key: see docs/offsite.md")
        codes, records = [OK], []
        for policy in policies:
            exporting = self._running(policy, Exporting)
            if options.if_due and not self._is_due(policy, exporting):
                continue
            if options.dry_run:
                record, warnings = self._foreseen(policy)
            else:
                record = exporting.export(options.destination, options.force, options.wait, options.if_due)
                record, warnings = {**record, "results": exporting.results}, exporting.warnings
            records.append(record)
            codes.append(_CODES[record["outcome"]])
            if not options.json:
                self._exported(record)
            for warning in dict.fromkeys(warnings):
                complain(f"warning: {warning}")
            if record["outcome"] == "interrupted":
                break
        if options.json:
            self._say_json(records)
        return max(codes)

    def _foreseen(self, policy: Policy) -> tuple[dict[str, Any], list[str]]:
        """Return what an export would do, and warnings."""
        from .foreseeing import Foreseeing

        foreseeing = Foreseeing(policy, self._now)
        return foreseeing.foresee(self._options.destination, self._options.force), foreseeing.warnings

    def _exported(self, record: Mapping[str, Any]) -> None:
        for each in record["results"]:
            words = [f"{each['destination']}: {each['target']} {each['action']}", each.get("name"), each.get("reason")]
            self._say("; ".join(word for word in words if word))
        for each in record.get("decisions", ()):
            if each["keep"]:
                self._say(f"{each['destination']}: {each['target']} kept; {each['name']}; {each['reason']}")
        reason = record.get("reason", "") if not record["results"] else ""
        freed = record.get("freed_bytes")
        size = f"{'would free' if record.get('dry_run') else 'freed'} {format_size(freed)}" if freed else ""
        told = f"{record['policy']}: {record['outcome']}{' (dry run)' if record.get('dry_run') else ''}"
        self._say("; ".join(word for word in (told, size, reason) if word))

    def import_(self) -> int:
        """Show what a destination holds, or restore from it."""
        from ..interrupts import Interrupts
        from .importing import Importing

        options, interrupts = self._options, Interrupts()
        (policy,) = self._named([options.policy])
        importing = Importing(self._state(), policy, options.destination, self._now)
        given = [options.target, options.name, options.into]
        if not any(given):
            found = importing.holdings()
            if options.json:
                self._say_json(found)
            for each in found if not options.json else ():
                self._say(f"{each['created'] or '-'} {each['target']} {each['name']}")
            return OK
        if not all(given):
            raise InvalidInput("import", "--target, --name and --into go together", "give all of them")
        interrupts.install()
        record = importing.restore(options.target, options.name, options.into, interrupts)
        if options.json:
            self._say_json(record)
        else:
            words = [
                f"{policy.name}: {record['outcome']}",
                f"{options.name} is in {options.into}",
                record.get("reason"),
            ]
            self._say("; ".join(str(each) for each in words if each and (each is not words[1] or not words[2])))
        return _CODES[record["outcome"]]

    # -- commands that look --------------------------------------------------------------------------------------------

    def list(self) -> int:
        """Show what there is."""
        from ..core.snapshot import as_tree
        from .running import look

        found, warnings, code = [], [], OK
        policies = self._named(self._options.policy)
        for policy in policies:
            try:
                situations, more = look(policy, policy.targets, self._now)
            except RestorePointError as error:
                if len(policies) == 1:
                    raise
                # Who looks for a way back has to see what the others have.
                code = _trouble(f"{policy.name}: {error}", FAILED)
                continue
            warnings += more
            found += [each for situation in situations for each in (*situation.snapshots, *situation.asides)]
        found = list({(each.target, each.name): each for each in found}.values())
        if self._options.json:
            self._say_json(as_tree(found) if self._options.tree else [each.as_result() for each in found])
        elif self._options.tree:
            for target, nodes in as_tree(found).items():
                self._say(target)
                self._branches(nodes, "")
        else:
            for each in sorted(found, key=lambda each: (each.target, each.order)):
                shown = each.as_result()
                state = "" if each.ready else " not usable"
                self._say(f"{shown['created']} {each.target} {each.name} owner={each.owner or '-'}{state}")
        for warning in dict.fromkeys(warnings):
            complain(f"warning: {warning}")
        return code

    def _branches(self, nodes: Sequence[Mapping[str, Any]], indent: str) -> None:
        for number, node in enumerate(nodes):
            last = number == len(nodes) - 1
            state = "" if node["ready"] else " (not usable)"
            self._say(f"{indent}{'`-- ' if last else '|-- '}{node['name']} {node['created']}{state}")
            self._branches(node["children"], indent + ("    " if last else "|   "))

    def verify(self) -> int:
        """Say whether snapshots are as they were taken."""
        from .running import verify
        from .verifying import verified

        (policy,) = self._named([self._options.policy])
        name = self._options.name
        results = verify(policy, name, self._now) if name else verified(self._state(), policy, self._now)
        if self._options.json:
            self._say_json(results)
        else:
            for each in results:
                faults = [f"{fault['path']} {fault['fault']}" for fault in each.get("faults") or []]
                if not each["ok"] and each.get("fault"):
                    faults.append(str(each["fault"]))
                words = f"ok ({each['proof']})" if each["ok"] else f"FAULT: {'; '.join(faults[:5])}"
                self._say(f"{each['target']} {each['name']}: {words}")
        if not results:
            raise InvalidInput(
                f"verify policy {policy.name}", "there is no such snapshot", "look at what there is with list"
            )
        return OK if all(each["ok"] for each in results) else FAULTS

    def drill(self) -> int:
        """Drill policies: those that are named, or all that have the key ``drill``."""
        from .drilling import Drilling, check

        named = self._named(self._options.policy)
        policies = named if self._options.policy else [each for each in named if each.drill is not None]
        for policy in policies:
            check(policy)
        if not policies:
            raise InvalidInput("drill", "no policy has the key drill", "name a policy, or give one that key")
        records, code = [], OK
        for policy in policies:
            running = self._running(policy, Drilling)
            if self._options.if_due and not self._is_due(policy, running):
                continue
            if self._options.dry_run:
                records += running.foretell()
            else:
                record = running.drill(self._options.wait, self._options.if_due)
                records.append(record)
                ended = FAULTS if record.get("faults") else _CODES[record["outcome"]]
                code = code or ended
                self._drilled(record)
            for warning in dict.fromkeys(running.warnings):
                complain(f"warning: {warning}")
            if not self._options.dry_run and records[-1]["outcome"] == "interrupted":
                break
        if self._options.json:
            self._say_json(records)
        elif self._options.dry_run:
            self._say(*(f"{each['target']} {each['name'] or 'no restore point'}: {each['place']}" for each in records))
        return code

    def _drilled(self, record: Mapping[str, Any]) -> None:
        """Say how a drill went, a line for each target."""
        if self._options.json:
            return
        for each in record.get("drills", ()):
            counted = f", {each['files']} files, {each['bytes']} bytes" if "files" in each else ""
            fared = f"ok ({each.get('seconds')} s{counted})" if each["ok"] else f"FAULT: {each['fault']}"
            self._say(f"{each['target']} {each.get('name') or ''}: {fared}")
        reason = record.get("reason") if not record.get("faults") else None
        self._say(f"{record['policy']}: {record['outcome']}{f'; {reason}' if reason else ''}")

    def due(self) -> int:
        """Name the policies that missed a moment of a schedule: for a run, a drill or an export."""
        from ..core.snapshot import timestamp
        from .drilling import Drilling
        from .exporting import Exporting
        from .running import Running

        found = []
        kinds = (
            ("run", Running, "last_due"),
            ("drill", Drilling, "drill_due"),
            ("export", Exporting, "export_due"),
        )
        for policy in self._named(self._options.policy):
            for command, kind, last_due in kinds:
                if self._running(policy, kind).is_due():
                    since = timestamp(getattr(policy, last_due)(self._now()) or 0)
                    found.append({"policy": policy.name, "command": command, "since": since})
        if self._options.json:
            self._say_json(found)
        for each in found if not self._options.json else ():
            what = "" if each["command"] == "run" else f" {each['command']}"
            self._say(f"{each['policy']}{what} due since {each['since']}")
        return OK

    def check(self) -> int:
        """Check the policies."""
        found = self._policies()
        if self._options.json:
            self._say_json([each.name for each in found])
        else:
            self._say(*(f"{each.name}: sound" for each in found))
        return OK

    def metrics(self) -> int:
        """Write or serve metrics."""
        from .metrics import command

        return command(self._options, self._policies, self._now, self._out, complain)

    def report(self) -> int:
        """Show a report."""
        from .reporting import command

        return command(self._options, self._policies, self._now, self._out)

    # -- for shells and people -----------------------------------------------------------------------------------------

    def completion(self) -> int:
        """Print a shell's completion, or the names that its script asks for."""
        what = self._options.what
        if what in SHELLS:
            from .completion import script

            self._say(script(what, parser()).rstrip("\n"))
        elif what == "policies":
            self._say(*(each.name for each in self._policies()))
        elif self._options.policy is None:
            raise InvalidInput(f"name the {what} of a policy", "no policy is given", "give the name of one")
        else:
            (policy,) = self._named([self._options.policy])
            self._say(*(self._names_of(policy) if what == "names" else self._targets_of(policy)))
        return OK

    def _names_of(self, policy: Policy) -> Sequence[str]:
        from .running import look

        situations, _unused = look(policy, policy.targets, self._now)
        return sorted({each.name for situation in situations for each in situation.snapshots if each.ready})

    @staticmethod
    def _targets_of(policy: Policy) -> Sequence[str]:
        from ..engine.policy import TARGET_OPTION

        return [name for each in policy.targets for name in each.params[TARGET_OPTION[each.backend]] or ()]

    def man(self) -> int:
        """Print the manual page."""
        from .manual import page

        self._say(page(parser(), EXITS, POLICIES, STATE).rstrip("\n"))
        return OK
