# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stops the workloads that use claims, and brings them back. Called by the csi backend; decides nothing itself.

What is to be stopped is found by using.py, what is to be patched by changes.py. A PATCH that meets a changed object is
worked out anew. What this run has stopped, it brings back when stopping fails; what a killed run has stopped is found
by the next one, with what it had.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from .... import kube_resources as api
from ....core.errors import InvalidInput, RestorePointError
from ....deadline import Deadline
from ....kube import Access, KubeClient
from ....kube_login import KubeError
from ..watching import Waiter
from .changes import GONE, STARTED, NotOurs, to_start, to_stop
from .kinds import OWNERS, SCALED_OBJECTS, SCALERS, WAYS, replicas_of
from .pods import describe, keeps, uses
from .records import Record, Terms, is_run, read
from .using import Seen, Users, Workload, merged, users_of
from .waiting import OwnGone, PodsGone, selector_of

#: So often a change is worked out anew when the object has changed meanwhile: controllers write statuses all the time.
_ATTEMPTS = 20
#: Seconds after its deadline in which a run may still be tidying up. Then it is dead, and any other may take over.
MARGIN = 600.0


@dataclass
class Stopped:
    """What was stopped, each with what it had, and which finished pods were removed."""

    workloads: list[Workload] = field(default_factory=list)
    removed_pods: list[str] = field(default_factory=list)

    def report(self) -> list[dict[str, Any]]:
        """Return it for results."""
        return [_report(each) for each in self.workloads]


def _report(workload: Workload) -> dict[str, Any]:
    had = workload.record.had if workload.record else {}
    return {
        "kind": workload.resource.kind,
        "namespace": workload.namespace,
        "name": workload.name,
        "had": dict(had),
        "targets": list(workload.targets),
    }


class Workloads:
    """The workloads that use claims.

    Args:
        client: the login.
        run: the id of what is done meanwhile, the same for the successor of a killed run; valid as a label's value.
        deadline: until when pods may take to end.
        sleep: waits for so many seconds.
        now: returns seconds since the epoch.
        takes_over: other runs whose workloads this one may bring back.
        resumes: targets whose unfinished return this run goes on with or ends: what was stopped for them alone is its.

    Raises:
        InvalidInput: ``run`` cannot be a label.
    """

    def __init__(
        self,
        client: KubeClient,
        run: str,
        deadline: Deadline,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
        takes_over: Collection[str] = (),
        resumes: Collection[str] = (),
    ) -> None:
        if not is_run(run):
            raise InvalidInput("stop workloads", f"{run!r} cannot be a label", "use letters, digits, '-', '_' and '.'")
        self._client = client
        self._run = run
        self._deadline = deadline
        self._sleep = sleep
        self._now = now
        self._takes_over = frozenset(takes_over)
        self._resumes = frozenset(resumes)
        self._serves_keda: bool | None = None

    def _terms(self) -> Terms:
        now = self._now()
        until = now + self._deadline.left() + MARGIN
        return Terms(self._run, now, until, self._takes_over, self._resumes)

    # Finding

    def users(self, targets: Sequence[str]) -> Users:
        """Return who uses the claims, and what stands in the way of stopping them. Touches nothing.

        Args:
            targets: ``namespace/claim`` each.

        Raises:
            KubeError: the pods cannot be listed. Workloads that may not be listed are a warning, or blockers where a
                pod belongs to one.
        """
        parts = []
        for namespace, claims in _by_namespace(targets).items():
            seen = self._seen(namespace, (api.PODS, *OWNERS))
            found = users_of(seen, claims, self._terms())
            if found.workloads:
                scalers = [each for each in SCALERS if each != SCALED_OBJECTS or self._has_keda()]
                more = self._seen(namespace, scalers)
                seen = Seen(namespace, seen.pods, {**seen.objects, **more.objects}, seen.unseen | more.unseen)
                found = users_of(seen, claims, self._terms())
            parts.append(found)
        return merged(parts)

    def _seen(self, namespace: str, resources: Iterable[api.Resource]) -> Seen:
        found: dict[api.Resource, Sequence[Mapping[str, Any]]] = {}
        unseen = set()
        for resource in resources:
            attempt = f"list the {resource.plural} of namespace {namespace}"
            try:
                found[resource] = self._client.list_objects(attempt, resource, namespace).items
            except KubeError as error:
                if resource == api.PODS or error.status not in (403, 404):
                    raise
                if error.status == 403:
                    unseen.add(resource)
        return Seen(namespace, found.pop(api.PODS, ()), found, frozenset(unseen))

    def _has_keda(self) -> bool:
        if self._serves_keda is None:
            try:
                self._serves_keda = SCALED_OBJECTS.version in self._client.serves(SCALED_OBJECTS.group)
            except KubeError as error:
                if error.status != 403:
                    raise
                self._serves_keda = False
        return self._serves_keda

    # Stopping

    def stop(self, users: Users) -> Stopped:
        """Stop the workloads, and wait until no pod keeps any of the claims.

        Raises:
            RestorePointError: a workload cannot be stopped, or pods are still there when the time is over. What was
                stopped has been brought back by then; the message says where that failed.
        """
        stopped = Stopped()
        try:
            for workload in users.workloads:
                self._stop(workload, stopped)
            self._wait(users, stopped)
        except BaseException as error:
            failed = self._bring_back(stopped.workloads)[1]
            if failed and isinstance(error, RestorePointError):
                reason = "; ".join([error.reason, *(str(each) for each in failed)])
                raise RestorePointError(error.attempt, reason, error.remedy) from error
            raise
        return stopped

    def stop_one(self, resource: api.Resource, namespace: str, name: str) -> Stopped:
        """Stop the workload of that name, whatever it uses, and wait until its pods are gone.

        Raises:
            RestorePointError: it is not there, cannot be stopped, or its pods stay. It has been brought back by then.
        """
        stopped = Stopped()
        workload = self._named(f"stop {resource.kind} {namespace}/{name}", resource, namespace, name)
        try:
            self._stop(workload, stopped)
            waiting = OwnGone(self._client, namespace, selector_of(workload.object), self._deadline, self._sleep)
            staying = waiting.wait()
            if staying:
                reason = "; ".join(describe(pod) for pod in staying)
                remedy = "see that their nodes are up and remove what holds them, or give more time"
                raise RestorePointError(f"stop {workload.title} in time", reason, remedy)
        except BaseException as error:
            failed = self._bring_back(stopped.workloads)[1]
            if failed and isinstance(error, RestorePointError):
                reason = "; ".join([error.reason, *(str(each) for each in failed)])
                raise RestorePointError(error.attempt, reason, error.remedy) from error
            raise
        return stopped

    def start_one(self, resource: api.Resource, namespace: str, name: str) -> str:
        """Bring back what this run has stopped by that name; return what became of it, in words.

        Raises RestorePointError.
        """
        try:
            workload = self._named(f"start {resource.kind} {namespace}/{name} again", resource, namespace, name)
        except KubeError as error:
            if error.status == 404:
                return GONE
            raise
        return self._start(workload)

    def _named(self, attempt: str, resource: api.Resource, namespace: str, name: str) -> Workload:
        found = self._client.get(attempt, resource, namespace, name)
        record = read(resource, found)
        return Workload(
            resource, found, str(found["metadata"]["uid"]), record=record if isinstance(record, Record) else None
        )

    def _stop(self, workload: Workload, stopped: Stopped) -> None:
        """Stop one workload. It is on the list before it is touched: an answer can be lost."""
        place = len(stopped.workloads)
        stopped.workloads.append(workload)
        resource, current = workload.resource, workload.object
        attempt = f"stop {workload.title}"
        for _unused in range(_ATTEMPTS):
            patch = to_stop(resource, current, self._terms(), workload.targets)
            if patch is None:
                del stopped.workloads[place]
                return
            try:
                current = self._client.patch(attempt, resource, workload.namespace, workload.name, patch)
            except KubeError as error:
                if error.status != 409:
                    raise
                current = self._fresh(attempt, workload)
                continue
            record = read(resource, current)
            if not isinstance(record, Record) or record.run != self._run:
                reason = "what was written on it is not there: something changes it on the way"
                raise RestorePointError(attempt, reason, "look for an admission webhook that removes labels")
            stopped.workloads[place] = _seen_again(workload, current, record)
            return
        raise RestorePointError(attempt, "something else changes it all the time", "find out what does, and try again")

    def _fresh(self, attempt: str, workload: Workload) -> dict[str, Any]:
        current = self._client.get(attempt, workload.resource, workload.namespace, workload.name)
        if current["metadata"].get("uid") != workload.uid:
            raise NotOurs(attempt, "it was removed and made anew meanwhile", "try again")
        return current

    def _wait(self, users: Users, stopped: Stopped) -> None:
        for namespace, claims in _by_namespace(users.targets).items():
            waiting = PodsGone(self._client, namespace, claims, self._deadline, self._sleep)
            try:
                staying = waiting.wait()
            finally:
                stopped.removed_pods += [f"{namespace}/{name}" for name in waiting.removed]
            if staying:
                raise self._staying(namespace, claims, staying, stopped)

    def _staying(
        self, namespace: str, claims: Sequence[str], pods: Sequence[Mapping[str, Any]], stopped: Stopped
    ) -> RestorePointError:
        """Return the error for pods that do not go, with what is known of the reason."""
        reasons = [describe(pod) for pod in pods]
        for workload in stopped.workloads:
            try:
                current = self._client.get(f"look at {workload.title}", *_address(workload))
            except RestorePointError:
                continue
            if WAYS[workload.resource].active(current):
                count = f" ({replicas_of(current)} replicas)" if "replicas" in (current.get("spec") or {}) else ""
                reasons.append(f"somebody has started {workload.title} again{count}")
        attempt = f"free {', '.join(f'{namespace}/{claim}' for claim in claims)} in time"
        remedy = "see that their nodes are up and remove what holds them, or give more time"
        return RestorePointError(attempt, "; ".join(reasons), remedy)

    # Bringing back

    def start_again(self, stopped: Stopped | Sequence[Workload], wait_ready: float = 0.0) -> list[dict[str, Any]]:
        """Bring back what was stopped, all of it, in the opposite order.

        Args:
            stopped: what ``stop`` has returned, or ``Users.left``.
            wait_ready: seconds to wait until they are ready.

        Returns a report for each: what it had, ``outcome`` in words, and ``ready`` where that was waited for and
        can be told.

        Raises:
            RestorePointError: names each that could not be brought back, after all have been tried.
        """
        workloads = stopped.workloads if isinstance(stopped, Stopped) else list(stopped)
        outcomes, failed = self._bring_back(workloads)
        if failed:
            reason = "; ".join(str(each).rstrip(".") for each in failed)
            raise RestorePointError("start again what was stopped", reason, "run this again, which tries it again")
        reports = [{**_report(each), "outcome": outcomes[each.uid]} for each in workloads]
        if wait_ready > 0:
            ready = self._ready([each for each in workloads if outcomes[each.uid] == STARTED], wait_ready)
            for each, report in zip(workloads, reports):
                if each.uid in ready:
                    report["ready"] = ready[each.uid]
        return reports

    def _bring_back(self, workloads: Sequence[Workload]) -> tuple[dict[str, str], list[RestorePointError]]:
        """Return what became of each, by its uid, and the errors of those that could not be brought back."""
        outcomes: dict[str, str] = {}
        failed: list[RestorePointError] = []
        for workload in reversed(workloads):
            try:
                outcomes[workload.uid] = self._start(workload)
            except RestorePointError as error:
                failed.append(error)
        return outcomes, failed

    def _start(self, workload: Workload) -> str:
        attempt = f"start {workload.title} again"
        for _unused in range(_ATTEMPTS):
            try:
                current = self._client.get(attempt, *_address(workload))
                if current["metadata"].get("uid") != workload.uid:
                    return GONE
                start = to_start(workload.resource, current, self._terms())
                if start.patch is None:
                    return start.word
                self._client.patch(attempt, *_address(workload), start.patch)
                return start.word
            except KubeError as error:
                if error.status == 404:
                    return GONE
                if error.status != 409:
                    raise
        raise RestorePointError(attempt, "something else changes it all the time", self._by_hand(workload))

    def _by_hand(self, workload: Workload) -> str:
        had = workload.record.had if workload.record else None
        if had is None:
            return "look at it"
        return f"kubectl -n {workload.namespace} {WAYS[workload.resource].command(workload.name, had)}"

    def _ready(self, workloads: Sequence[Workload], seconds: float) -> dict[str, bool]:
        """Wait until workloads are ready; say of each whether it is, where that can be looked at."""
        waiter = Waiter(self._client, Deadline(seconds), self._sleep)
        groups: dict[tuple[str, api.Resource], list[Workload]] = {}
        for each in workloads:
            groups.setdefault((each.namespace, each.resource), []).append(each)
        ready: dict[str, bool] = {}
        for (namespace, resource), members in groups.items():
            way = WAYS[resource]
            # One that is gone by now is not waited for.
            wanted = {each.name: lambda found, way=way: found is None or way.ready(found) for each in members}
            attempt = f"wait until the {resource.plural} of namespace {namespace} are ready"
            try:
                watched = waiter.wait(attempt, resource, namespace, wanted)
            except KubeError:
                continue  # they are started, which is what counts; whether they are ready cannot be told
            for each in members:
                ready[each.uid] = each.name not in watched.waiting and watched.objects[each.name] is not None
        return ready


def _seen_again(workload: Workload, current: Mapping[str, Any], record: Record) -> Workload:
    return Workload(workload.resource, current, workload.uid, workload.targets, workload.pods, record)


def _address(workload: Workload) -> tuple[api.Resource, str, str]:
    return workload.resource, workload.namespace, workload.name


def _by_namespace(targets: Sequence[str]) -> dict[str, list[str]]:
    """Return the claims of each namespace."""
    found: dict[str, list[str]] = {}
    for target in dict.fromkeys(targets):
        namespace, _unused, claim = target.partition("/")
        found.setdefault(namespace, []).append(claim)
    return found


def pods_of(client: KubeClient, targets: Sequence[str]) -> dict[str, list[str]]:
    """Return for each target which pods keep it, in words. One list for each namespace.

    Raises:
        KubeError: the pods cannot be listed.
    """
    found: dict[str, list[str]] = {}
    for namespace, claims in _by_namespace(targets).items():
        pods = client.list_objects(f"list the pods of namespace {namespace}", api.PODS, namespace).items
        keeping = [pod for pod in pods if keeps(pod)]
        for claim in claims:
            found[f"{namespace}/{claim}"] = [describe(pod) for pod in keeping if uses(pod, claim)]
    return found


def permissions(namespace: str, stop: bool) -> list[Access]:
    """Return what a login must be allowed for users(), and for stop() and start_again() as well."""
    wanted = [Access("list", api.PODS, namespace)]
    if stop:
        wanted += [Access("watch", api.PODS, namespace), Access("delete", api.PODS, namespace)]
        wanted += [Access("list", each, namespace) for each in (*OWNERS, api.AUTOSCALERS)]
        wanted += [Access(verb, each, namespace) for each in WAYS for verb in ("get", "patch")]
    return wanted
