# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The door to a Kubernetes API: ask, change, watch, and turn every failure into one sentence.

Logging in is kube_login.py's. Objects come and go as plain dicts, as the API has them. Reads are repeated when the
server is busy, restarting or away for a moment; writes where that is safe. Imports the core and the login; called by
kube_claims.py and the csi backend.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, NoReturn, TypeVar

from . import kube_resources as api
from .kube_login import KubeError, Login, log_in

#: Seconds to wait for a connection, and for an answer to go on.
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 30.0
#: Requests are repeated after these pauses (seconds) when the server is busy, restarting, or away for a moment.
PAUSES = (0.2, 0.5, 1.0, 2.0)
_LONGEST_RETRY_AFTER = 5.0
_TRANSIENT = (429, 500, 502, 503, 504)
#: What urllib3 and kube_http.py call it, in their errors.
_UNREACHABLE = {"NewConnectionError", "ProtocolError", "ConnectionResetError", "RemoteDisconnected", "Unreachable"}
#: How many objects a list takes at a time.
_PAGE = 500
#: The longest that one watch lasts (seconds): a connection that died in silence costs no more than this.
WATCH_SECONDS = 60.0
#: Annotation with the run that made an object: after a lost answer, a create knows its own object by it.
RUN = "restorepoint.core/run"
_Result = TypeVar("_Result")


class Gone(KubeError):
    """What was watched from, or listed on from, is too old for the server: list anew."""


@dataclass(frozen=True)
class Listing:
    """Objects, and the resourceVersion from which a watch goes on."""

    items: tuple[dict[str, Any], ...]
    version: str


@dataclass(frozen=True)
class Access:
    """One thing a caller may need to be allowed: a verb on a kind, in a namespace or everywhere, of a name or any."""

    verb: str
    resource: api.Resource
    namespace: str | None = None
    name: str | None = None
    subresource: str | None = None

    def __str__(self) -> str:
        what = self.resource.full_name + (f"/{self.subresource}" if self.subresource else "")
        return f"{self.verb} on {what}" + (f" in namespace {self.namespace}" if self.namespace else "")


class KubeClient:
    """One login to one API server.

    ``requests`` counts what was sent, repetitions included. ``run`` is a mark of this client's own, for the annotation
    RUN of what it creates.

    Args:
        options: the connection options, named as in bridge/kubernetes.py; absent and None mean the same.
        timeout: seconds to wait for an answer.
        sleep: waits for so many seconds between two attempts.
        patience: seconds of pauses in all for which a request is repeated; None for the few of PAUSES.
        log_in: logs in as the options say; the agent has a way of its own.

    Raises:
        MissingLibrary, InvalidInput (options that cannot be right), KubeError (no usable login).
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        timeout: float = READ_TIMEOUT,
        sleep: Callable[[float], None] = time.sleep,
        patience: float | None = None,
        log_in: Callable[[Mapping[str, Any]], Login] = log_in,
    ) -> None:
        login = log_in(options)
        self.host = login.host
        self.requests = 0
        self.run = uuid.uuid4().hex[:12]
        self.patience = patience
        self._timeout = timeout
        self._sleep = sleep
        self._secrets = login.secrets
        self._client = login.client

    # Reading

    def get(
        self,
        attempt: str,
        resource: api.Resource,
        namespace: str | None = None,
        name: str = "",
        subresource: str | None = None,
    ) -> dict[str, Any]:
        """Return one object.

        Args:
            attempt: what this is for, for the message of a failure: ``look up claim shop/data``.

        Raises:
            KubeError: for everything that is not an answer; its ``status`` is 404 when there is no such object.
        """
        call = _Call("get", resource, namespace, name, subresource=subresource)
        return self._repeated(attempt, call, lambda: self._ask(call))

    def find(
        self, attempt: str, resource: api.Resource, namespace: str | None = None, name: str = ""
    ) -> dict[str, Any] | None:
        """Return one object, None where there is none. See get."""
        try:
            return self.get(attempt, resource, namespace, name)
        except KubeError as error:
            if error.status != 404:
                raise
        return None

    def list_objects(
        self,
        attempt: str,
        resource: api.Resource,
        namespace: str | None = None,
        selector: str | None = None,
        fields: str | None = None,
    ) -> Listing:
        """Return the objects of a namespace, or of all, that match a label selector and a field selector.

        Raises:
            KubeError: for everything that is not a list.
        """
        try:
            return self._pages(attempt, resource, namespace, selector, fields, _PAGE)
        except Gone:  # the list changed for longer than the server remembers: take it in one piece
            return self._pages(attempt, resource, namespace, selector, fields, None)

    def _pages(
        self,
        attempt: str,
        resource: api.Resource,
        namespace: str | None,
        selector: str | None,
        fields: str | None,
        limit: int | None,
    ) -> Listing:
        items: list[dict[str, Any]] = []
        following = None
        while True:
            query = {"labelSelector": selector, "fieldSelector": fields, "limit": limit, "continue": following}
            call = _Call("list", resource, namespace, query=query)
            answer = self._repeated(attempt, call, lambda call=call: self._ask(call))  # type: ignore[misc]
            page = answer.get("items")
            if not isinstance(page, list) or not all(isinstance(each, dict) for each in page):
                reason = f"{self.host} did not answer with a list"
                raise KubeError(attempt, reason, "check that host is a Kubernetes API")
            items += page
            metadata = answer.get("metadata") or {}
            following = metadata.get("continue")
            if not following:
                return Listing(tuple(items), str(metadata.get("resourceVersion") or ""))

    def watch(
        self,
        attempt: str,
        resource: api.Resource,
        version: str,
        seconds: float,
        namespace: str | None = None,
        selector: str | None = None,
        fields: str | None = None,
    ) -> Generator[tuple[str, dict[str, Any]], None, None]:
        """Yield (ADDED, MODIFIED, DELETED or BOOKMARK, object) of what changes after a resourceVersion.

        It ends by itself when the seconds are over (at most WATCH_SECONDS), when the server closes it, and when the
        connection is lost: go on from the last resourceVersion seen, bookmarks included, or list anew.

        Raises:
            Gone: the server does not remember that version.
            KubeError: refused; its ``transient`` says whether it may go better in a moment.
        """
        seconds = max(1.0, min(seconds, WATCH_SECONDS))
        query = {
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": int(seconds),
            "allowWatchBookmarks": "true",
            "labelSelector": selector,
            "fieldSelector": fields,
        }
        call = _Call("watch", resource, namespace, query=query)
        try:
            # The server ends it in time; a server that does not is given little longer.
            answer = self._send(call, seconds + 5)
        except Exception as error:
            self._raise(attempt, call, _failure(error))
        try:
            for line in _lines(answer):
                yield self._event(attempt, call, line)
        except _CutOff:
            return
        finally:
            answer.close()
            answer.release_conn()

    def _event(self, attempt: str, call: _Call, line: bytes) -> tuple[str, dict[str, Any]]:
        event = _parsed(line)
        word, item = event.get("type"), event.get("object")
        if not isinstance(word, str) or not isinstance(item, dict):
            raise KubeError(
                attempt, f"{self.host} sent an event of no known form", "check that host is a Kubernetes API"
            )
        if word == "ERROR":
            status = int(item.get("code") or 0)
            said = _short(item.get("message") or "no reason given")
            self._raise(attempt, call, _Failure(status, said, 0.0, ValueError(said), str(item.get("reason") or "")))
        return word, item

    def serves(self, group: str) -> tuple[str, ...]:
        """Return the versions of an API group that the server has, the preferred one first; none for no such group."""
        call = _Call("get", api.Resource(group, "", "", "", namespaced=False), path=f"/apis/{group}")
        try:
            answer = self._repeated(f"find API group {group}", call, lambda: self._ask(call))
        except KubeError as error:
            if error.status == 404:
                return ()
            raise
        versions = [str(each.get("version")) for each in answer.get("versions") or []]
        preferred = (answer.get("preferredVersion") or {}).get("version")
        return tuple(sorted(versions, key=lambda each: each != preferred))

    def find_kind(self, attempt: str, api_version: str, kind: str) -> api.Resource | None:
        """Return the resource that has objects of a kind; None where the server has no such kind.

        Raises:
            KubeError: the server cannot be asked.
        """
        group, slash, version = api_version.partition("/")
        group, version = (group, version) if slash else ("", group)
        path = f"/apis/{group}/{version}" if group else f"/api/{version}"
        call = _Call("get", api.Resource(group, version, "", kind, namespaced=False), path=path)
        try:
            answer = self._repeated(attempt, call, lambda: self._ask(call))
        except KubeError as error:
            if error.status == 404:
                return None
            raise
        for each in answer.get("resources") or []:
            if each.get("kind") == kind and "/" not in str(each.get("name")):
                return api.Resource(group, version, str(each["name"]), kind, bool(each.get("namespaced")))
        return None

    def denied(self, wanted: Sequence[Access]) -> list[Access]:
        """Return those of the wanted things that this login is not allowed. One request for each."""
        return [each for each in dict.fromkeys(wanted) if not self._allowed(each)]

    def _allowed(self, wanted: Access) -> bool:
        attributes = {
            "verb": wanted.verb,
            "group": wanted.resource.group,
            "resource": wanted.resource.plural,
            "subresource": wanted.subresource,
            "namespace": wanted.namespace,
            "name": wanted.name,
        }
        body = {
            "apiVersion": api.REVIEWS.api_version,
            "kind": api.REVIEWS.kind,
            "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
        }
        call = _Call("create", api.REVIEWS, body=body)
        answer = self._repeated("look up what is allowed", call, lambda: self._ask(call))
        return bool((answer.get("status") or {}).get("allowed"))

    # Writing

    def create(
        self, attempt: str, resource: api.Resource, namespace: str | None, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Create an object and return it.

        Where an answer was lost and the object is there at the next attempt, it counts as created when its annotation
        RUN is that of ``body``.

        Raises:
            KubeError: ``status`` 409 and ``word`` AlreadyExists where there is one of that name that is not ours.
        """
        call = _Call("create", resource, namespace, body=body)
        lost = _Lost()
        try:
            return self._repeated(attempt, call, lambda: self._ask(call), lost)
        except KubeError as error:
            if not lost.answer or error.word != "AlreadyExists":
                raise
            found = self.get(attempt, resource, namespace, str(body["metadata"]["name"]))
            ours = _run_of(body)
            if ours is None or _run_of(found) != ours:
                raise
            return found

    def patch(
        self,
        attempt: str,
        resource: api.Resource,
        namespace: str | None,
        name: str,
        body: Mapping[str, Any],
        subresource: str | None = None,
    ) -> dict[str, Any]:
        """Merge ``body`` into an object (None removes a member) and return the object.

        With ``metadata.resourceVersion`` inside the body, an object that has changed since is left alone.

        Raises:
            KubeError: ``status`` 409 (Conflict) for an object that has changed, 404 for none.
        """
        call = _Call("patch", resource, namespace, name, body=body, subresource=subresource)
        lost = _Lost()
        try:
            return self._repeated(attempt, call, lambda: self._ask(call), lost)
        except KubeError as error:
            if not lost.answer or error.status != 409:
                raise
            found = self.get(attempt, resource, namespace, name)  # perhaps it is our own patch that stands in the way
            wanted = {**body, "metadata": {**(body.get("metadata") or {}), "resourceVersion": None}}
            wanted["metadata"].pop("resourceVersion")
            if not merged_already(found, wanted):
                raise
            return found

    def delete(
        self,
        attempt: str,
        resource: api.Resource,
        namespace: str | None,
        name: str,
        uid: str,
        propagation: str = "Background",
    ) -> dict[str, Any] | None:
        """Ask for the removal of the object of that uid, and of no other of its name.

        Returns what the server answered, or None when that object is already gone. It may linger behind finalizers:
        wait for it.
        """
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": propagation,
        }
        call = _Call("delete", resource, namespace, name, body=body)
        try:
            return self._repeated(attempt, call, lambda: self._ask(call))
        except KubeError as error:
            if error.status in (404, 409):  # 409: another object has that name by now
                return None
            raise

    # Requests

    def _repeated(self, attempt: str, call: _Call, ask: Callable[[], _Result], lost: _Lost | None = None) -> _Result:
        """Return the answer to a request that may be repeated; note in ``lost`` that one may have been done."""
        pauses = self._pauses()
        while True:
            try:
                return ask()
            except Exception as error:
                failure = _failure(error)
            pause = next(pauses, None)
            if pause is None or not failure.transient:
                self._raise(attempt, call, failure)
            if lost is not None and failure.status != 429:
                lost.answer = True
            self._sleep(min(max(pause, failure.retry_after), _LONGEST_RETRY_AFTER))

    def _pauses(self) -> Iterator[float]:
        total = 0.0
        for pause in PAUSES:
            if self.patience is not None and total >= self.patience:
                return
            total += pause
            yield pause
        while self.patience is not None and total < self.patience:
            total += PAUSES[-1]
            yield PAUSES[-1]

    def _ask(self, call: _Call) -> dict[str, Any]:
        return _parsed(self._send(call, self._timeout).data)

    def _send(self, call: _Call, timeout: float) -> Any:
        self.requests += 1
        more: dict[str, Any] = {}
        if call.body is not None:
            more["body"] = dict(call.body)
        if call.verb == "patch":
            more["content_type"] = "application/merge-patch+json"
        query = [(name, value) for name, value in (call.query or {}).items() if value is not None]
        # A pair of timeouts, because packages before 28 drop one that is a single float.
        pair = (min(CONNECT_TIMEOUT, timeout), timeout)
        return self._client.request(
            _METHODS[call.verb], call.url, query_params=query, serialize=False, _request_timeout=pair, **more
        )

    def _raise(self, attempt: str, call: _Call, failure: _Failure) -> NoReturn:
        for secret in (*self._secrets, *getattr(self._client, "secrets", ())):
            failure.message = failure.message.replace(secret, "***")
        reason, remedy = _explain(failure, self.host, call.asked, self._timeout)
        kind = Gone if failure.status == 410 else KubeError
        raise kind(attempt, reason, remedy, failure.status, failure.word, failure.transient or failure.slow) from None


_METHODS = {"get": "get", "list": "get", "watch": "get", "create": "post", "patch": "patch", "delete": "delete"}


@dataclass(frozen=True)
class _Call:
    """One request, in the words of Kubernetes."""

    verb: str
    resource: api.Resource
    namespace: str | None = None
    name: str | None = None
    subresource: str | None = None
    query: Mapping[str, Any] | None = None
    body: Mapping[str, Any] | None = None
    path: str | None = None

    @property
    def url(self) -> str:
        return self.path or self.resource.path(self.namespace, self.name, self.subresource)

    @property
    def asked(self) -> str:
        if self.path:
            return f"{self.verb} on {self.path}"
        return str(Access(self.verb, self.resource, self.namespace, subresource=self.subresource))


@dataclass
class _Lost:
    """Whether a request that is repeated may have been carried out, its answer lost."""

    answer: bool = False


class _CutOff(Exception):
    """A watch ended in the middle: the connection is lost, or has been silent for too long."""


def _lines(answer: Any) -> Iterator[bytes]:
    """Yield the whole lines of a streamed answer; raise _CutOff when the connection goes."""
    rest = b""
    chunks = answer.stream(amt=None, decode_content=False)
    while True:
        try:
            chunk = next(chunks, None)
        except Exception as error:
            failure = _failure(error)
            if failure.transient or failure.slow or "IncompleteRead" in failure.names:
                raise _CutOff from None
            raise
        if chunk is None:
            return  # what is left over is half a line: the object will be seen again
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line.strip())


def _run_of(item: Mapping[str, Any]) -> str | None:
    run = ((item.get("metadata") or {}).get("annotations") or {}).get(RUN)
    return None if run is None else str(run)


def merged_already(found: Any, patch: Mapping[str, Any]) -> bool:
    """Say whether merging a patch (RFC 7386) into an object would change nothing."""
    for name, value in patch.items():
        there = found.get(name) if isinstance(found, Mapping) else None
        if isinstance(value, Mapping):
            if not merged_already(there, value):
                return False
        elif there != value:
            return False
    return True


# Failures


class _Failure:
    """What went wrong with one request: an HTTP status and the server's message, or the error that came instead."""

    def __init__(self, status: int, message: str, retry_after: float, cause: BaseException, word: str = "") -> None:
        self.status = status
        self.word = word
        self.message = message
        self.retry_after = retry_after
        self.cause = cause
        self.names = {type(each).__name__ for each in _chain(cause)}

    @property
    def tls(self) -> bool:
        return "SSL" in self.message or any("SSL" in name or name == "CertificateError" for name in self.names)

    @property
    def slow(self) -> bool:
        return not self.status and bool(self.names & {"ReadTimeoutError", "ConnectTimeoutError", "NoAnswer"})

    @property
    def transient(self) -> bool:
        """Say whether the same question may be answered in a moment."""
        if self.status:
            return self.status in _TRANSIENT
        return not self.tls and not self.slow and bool(self.names & _UNREACHABLE)


def _failure(error: Exception) -> _Failure:
    status = getattr(error, "status", None) or 0
    headers = getattr(error, "headers", None) or {}
    try:
        retry_after = float(headers.get("Retry-After") or 0)
    except (TypeError, ValueError):
        retry_after = 0.0
    if not status:
        return _Failure(0, _message(error), retry_after, error)
    said = _status_object(error)
    # Never a whole page.
    message = _short(said.get("message") or getattr(error, "reason", None) or "no reason given")
    return _Failure(int(status), message, retry_after, error, str(said.get("reason") or ""))


def _status_object(error: Exception) -> Mapping[str, Any]:
    """Return the Status object in an answer, or nothing."""
    try:
        parsed = json.loads(getattr(error, "body", None) or "")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _message(error: BaseException) -> str:
    """Return the words of the innermost error: the outer ones repeat it with the addresses of objects."""
    innermost = list(_chain(error))[-1]
    reason = getattr(innermost, "reason", None)
    return _short(getattr(innermost, "strerror", None) or (reason if isinstance(reason, str) else str(innermost)))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those it was made from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        context = None if current.__suppress_context__ else current.__context__
        inner = (getattr(current, "reason", None), *current.args, current.__cause__, context)
        current = next((each for each in inner if isinstance(each, BaseException)), None)


def _short(text: Any) -> str:
    return " ".join(str(text).split())[:300]


def _explain(failure: _Failure, host: str, asked: str, timeout: float) -> tuple[str, str]:
    """Return the reason and the remedy for a failed request."""
    said = failure.message
    if failure.status == 401:
        return f"{host} does not accept the credentials ({said})", "renew the token or certificate, or log in again"
    if failure.status == 403:
        return f"{host} forbids it: {said}", f"allow {asked} to this user (a Role or ClusterRole and its binding)"
    if failure.status == 404:
        return f"{host} has no such object: {said}", "check the names and that host is a Kubernetes API"
    if failure.status == 409:
        remedy = "try again, or choose another name" if failure.word == "AlreadyExists" else "try again"
        return f"{host} answered 409: {said}", remedy
    if failure.status:
        remedy = "try again when the API server is well" if failure.status in _TRANSIENT else "correct the request"
        return f"{host} answered {failure.status}: {said}", remedy
    if "ProxyError" in failure.names:
        return f"the proxy to {host} does not connect ({said})", "check proxy, or list the host in no_proxy"
    if failure.tls:
        remedy = "give the CA of its certificate as ca_cert, and a host that the certificate names"
        return f"no trusted connection to {host} ({said})", remedy
    if failure.slow:
        return f"no answer from {host} within {timeout:g} s", "check the API server's load and the network"
    return f"{host} cannot be reached or understood ({said})", "check host, proxy and that the API server runs"


def _parsed(data: bytes) -> dict[str, Any]:
    """Return an answer as JSON; raise ValueError for anything but an object."""
    try:
        parsed = json.loads(data)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise ValueError("its answer is not a JSON object, as those of a Kubernetes API are")
    return parsed
