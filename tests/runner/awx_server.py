# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small AWX of our own: the part of its API v2 that setting it up asks for, over HTTPS. It runs no job.

It keeps what the modules of awx.awx 24.6.1 send, with AWX's own fields: what AWX does not know it drops as well, so
that a misspelt field is seen by a second run. It checks what AWX checks of surveys, rrules, playbooks and relations;
the rules are those of AWX's views and serializers (awx/api). It is no AWX: tests that pass here say that the requests
are well-formed and lead to a lasting state, not more.
"""

from __future__ import annotations

import http.server
import json
import pathlib
import re
import ssl
import threading
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.restorepoint.core.tests.pve_server.certificate import certificate

TOKEN = "a-token-of-awx-that-nobody-may-see"
API = "/api/v2/"
#: Fields that AWX stores of each kind, with its defaults. A field that ends with ``*`` names an object of that kind.
_NAMED = {"name": "", "description": ""}
_TEMPLATE = {
    **_NAMED,
    "organization": None,
    "inventory": None,
    "limit": "",
    "scm_branch": "",
    "extra_vars": "---",
    "survey_enabled": False,
    "allow_simultaneous": False,
    "ask_inventory_on_launch": False,
    "ask_limit_on_launch": False,
    "ask_variables_on_launch": False,
}
FIELDS: Mapping[str, Mapping[str, Any]] = {
    "organizations": _NAMED,
    "credential_types": {**_NAMED, "kind": "cloud", "inputs": {}, "injectors": {}, "managed": False},
    "credentials": {**_NAMED, "organization": None, "credential_type": None},
    "execution_environments": {**_NAMED, "organization": None, "image": "", "pull": "", "credential": None},
    "projects": {
        **_NAMED,
        "organization": None,
        "scm_type": "",
        "scm_url": "",
        "scm_branch": "",
        "scm_update_on_launch": False,
        "default_environment": None,
    },
    "inventories": {**_NAMED, "organization": None, "kind": "", "host_filter": None, "variables": ""},
    "inventory_sources": {
        **_NAMED,
        "inventory": None,
        "source": "",
        "source_path": "",
        "source_project": None,
        "overwrite": False,
        "overwrite_vars": False,
        "update_on_launch": False,
    },
    "job_templates": {
        **_TEMPLATE,
        "project": None,
        "playbook": "",
        "job_type": "run",
        "become_enabled": False,
        "diff_mode": False,
        "execution_environment": None,
        "ask_job_type_on_launch": False,
        "ask_credential_on_launch": False,
        "ask_diff_mode_on_launch": False,
    },
    "workflow_job_templates": _TEMPLATE,
    "workflow_job_template_nodes": {
        "identifier": "",
        "workflow_job_template": None,
        "unified_job_template": None,
        "extra_data": {},
        "all_parents_must_converge": False,
    },
    "schedules": {**_NAMED, "unified_job_template": None, "rrule": "", "extra_data": {}, "enabled": True},
}
UNIFIED = ("job_templates", "projects", "inventory_sources")
RELATIONS = {
    "organization": ("organizations",),
    "credential_type": ("credential_types",),
    "execution_environment": ("execution_environments",),
    "default_environment": ("execution_environments",),
    "project": ("projects",),
    "source_project": ("projects",),
    "inventory": ("inventories",),
    "unified_job_template": UNIFIED,
    "workflow_job_template": ("workflow_job_templates",),
}
_NODES = "workflow_job_template_nodes"
#: Lists of associations, and of which kind their members are.
SUBLISTS = {
    "credentials": "credentials",
    **dict.fromkeys(("success_nodes", "failure_nodes", "always_nodes"), _NODES),
}
_SURVEY_TYPES = {
    **dict.fromkeys(("text", "textarea", "password", "multiplechoice"), str),
    "multiselect": (str, list),
    "integer": int,
    "float": (int, float),
}
_RRULE = re.compile(
    r"DTSTART(;TZID=[A-Za-z_]+/[A-Za-z_]+:\d{8}T\d{6}|:\d{8}T\d{6}Z) RRULE:FREQ=(YEARLY|MONTHLY|WEEKLY|DAILY|HOURLY)"
    r"(;[A-Z]+=[^;\s]+)+"
)


class Refused(Exception):
    """What AWX answers with a status of 400 and more."""

    def __init__(self, status: int, answer: Mapping[str, Any]) -> None:
        super().__init__(f"{status}: {answer}")
        self.status, self.answer = status, answer


@dataclass
class State:
    """What this AWX holds: objects by kind and id, associations, surveys; and each request that changed something."""

    playbooks: frozenset[str]
    objects: dict[str, dict[int, dict[str, Any]]] = field(default_factory=lambda: {kind: {} for kind in FIELDS})
    links: dict[tuple[str, int, str], list[int]] = field(default_factory=dict)
    surveys: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    last: int = 0

    def named(self, kind: str, name: str) -> dict[str, Any]:
        """Return the one object of that name."""
        (found,) = [each for each in self.objects[kind].values() if each["name"] == name]
        return found

    def add(self, kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a new object, as AWX would show it. Raises Refused."""
        self.last += 1
        made = {**FIELDS[kind], **{name: value for name, value in given.items() if name in FIELDS[kind]}}
        if made.get("name") == "":
            raise Refused(400, {"name": ["This field is required."]})
        self._check(kind, made)
        made.update(id=self.last, type=kind[:-1].replace("inventorie", "inventory"), url=f"{API}{kind}/{self.last}/")
        self.objects[kind][self.last] = made
        return made

    def change(self, kind: str, number: int, given: Mapping[str, Any]) -> dict[str, Any]:
        """Change an object. Raises Refused."""
        made = {**self.objects[kind][number], **{name: given[name] for name in given if name in FIELDS[kind]}}
        self._check(kind, made)
        self.objects[kind][number] = made
        return made

    def _check(self, kind: str, made: Mapping[str, Any]) -> None:
        for name, kinds in RELATIONS.items():
            value = made.get(name)
            if value is not None and not any(value in self.objects[each] for each in kinds):
                raise Refused(400, {name: [f'Invalid pk "{value}" - object does not exist.']})
        if kind == "job_templates" and made["playbook"] not in self.playbooks:
            raise Refused(400, {"playbook": ["Playbook not found for project."]})
        if kind == "schedules" and not (_RRULE.fullmatch(made["rrule"]) and "INTERVAL=" in made["rrule"]):
            raise Refused(400, {"rrule": ["rrule parsing failed validation"]})
        if made.get("extra_data"):
            self._check_answers(made)

    def _check_answers(self, made: Mapping[str, Any]) -> None:
        """Refuse what the survey of a template does not ask for, as AWX does."""
        spec = self.surveys.get(("job_templates", made["unified_job_template"]), {}).get("spec", [])
        questions = {question["variable"]: question for question in spec}
        for name, value in made["extra_data"].items():
            question = questions.get(name)
            if question is None:
                raise Refused(400, {"extra_data": [f"Variables {name} are not allowed on launch."]})
            if "choices" in question and value not in question["choices"]:
                raise Refused(400, {"variables_needed_to_start": [f"Value {value} for '{name}' expected to be one of"]})
            if question["type"] == "integer" and not isinstance(value, int):
                raise Refused(
                    400, {"variables_needed_to_start": [f"Value {value} for '{name}' expected to be an integer."]}
                )

    def survey(self, kind: str, number: int, spec: dict[str, Any]) -> None:
        """Keep a survey. Raises Refused, with the reasons of AWX's JobTemplateSurveySpec."""
        reason = fault_of_survey(spec)
        if reason:
            raise Refused(400, {"error": reason})
        self.surveys[kind, number] = spec


def fault_of_survey(spec: Mapping[str, Any]) -> str:
    """Return why AWX would refuse a survey, and empty text where it would not."""
    if not all(
        isinstance(spec.get(name), kind) for name, kind in (("name", str), ("description", str), ("spec", list))
    ):
        return "A field is missing from survey spec, or of another type."
    seen: set[str] = set()
    for number, item in enumerate(spec["spec"]):
        if not all(isinstance(item.get(name), str) for name in ("type", "question_name", "variable")):
            return f"A text is missing from survey question {number}"
        if not isinstance(item.get("required"), bool):
            return f"'required' in survey question {number} expected to be boolean."
        if item["variable"] in seen:
            return f"'variable' '{item['variable']}' duplicated in survey question {number}."
        seen.add(item["variable"])
        if item["type"] not in _SURVEY_TYPES:
            return f"'{item['type']}' in survey question {number} is not one of the allowed question types."
        default = item.get("default", "")
        if default != "" and (isinstance(default, bool) or not isinstance(default, _SURVEY_TYPES[item["type"]])):  # type: ignore[arg-type]
            return f"Default value {default} in survey question {number} expected to be {item['type']}."
        if any(item.get(key) is not None and not isinstance(item[key], int) for key in ("min", "max")):
            return f"The limit in survey question {number} expected to be integer."
        if item["type"] == "multiplechoice" and default not in item.get("choices", []):
            return "Default choice must be answered from the choices listed."
    return "" if seen else "'spec' doesn't contain any items."


class AwxServer:
    """Serves a State over HTTPS on loopback while it is open."""

    def __init__(self, playbooks: Iterable[str]) -> None:
        self.state = State(frozenset(playbooks))
        self.state.add("organizations", {"name": "Default"})
        files = certificate("awx-test")
        self.ca: pathlib.Path = files.certificate
        handler = type("Handler", (Handler,), {"state": self.state})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> AwxServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    """One request: /api/v2/KIND/, /api/v2/KIND/ID/, or /api/v2/KIND/ID/PART/."""

    state: State

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}") if length else {}
        try:
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise Refused(401, {"detail": "Authentication credentials were not provided."})
            with self.state.lock:
                status, answer = self._answer(body)
        except Refused as refused:
            status, answer = refused.status, refused.answer
        sent = b"" if status == 204 else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("X-API-Product-Name", "AWX")
        self.send_header("X-API-Product-Version", "24.6.1")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_POST = do_PATCH = do_DELETE = _serve

    def _answer(self, body: dict[str, Any]) -> tuple[int, Any]:
        path, _mark, query = self.path.partition("?")
        words = path.removeprefix(API).strip("/").split("/")
        if self.command != "GET":
            self.state.changes.append(f"{self.command} {path}")
        kind = words[0]
        if len(words) == 1:
            return self._collection(kind, dict(urllib.parse.parse_qsl(query)), body)
        number = int(words[1])
        if number not in self.state.objects.get(kind, {}):
            raise Refused(404, {"detail": "Not found."})
        if len(words) == 2:
            if self.command == "PATCH":
                self.state.change(kind, number, body)
            elif self.command != "GET":
                raise Refused(405, {"detail": f'Method "{self.command}" not allowed.'})
            return 200, self._shown(kind, number)
        return self._part(kind, number, words[2], body)

    def _collection(self, kind: str, query: Mapping[str, str], body: Mapping[str, Any]) -> tuple[int, Any]:
        kinds = UNIFIED if kind == "unified_job_templates" else (kind,)
        if any(each not in FIELDS for each in kinds):
            raise Refused(404, {"detail": "Not found."})
        if self.command == "POST" and kind in FIELDS:
            return 201, self._shown(kind, self.state.add(kind, body)["id"])
        shown = [self._shown(each, number) for each in kinds for number in self.state.objects[each]]
        return 200, self._list([each for each in shown if _fits(each, query)])

    def _part(self, kind: str, number: int, part: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        if part == "survey_spec" and kind in ("job_templates", "workflow_job_templates"):
            if self.command == "POST":
                self.state.survey(kind, number, dict(body))
            return 200, self.state.surveys.get((kind, number), {})
        if part not in SUBLISTS:
            raise Refused(404, {"detail": "Not found."})
        ids = self.state.links.setdefault((kind, number, part), [])
        other = SUBLISTS[part]
        if self.command == "GET":
            return 200, self._list([self._shown(other, each) for each in ids])
        if body["id"] not in self.state.objects[other]:
            raise Refused(404, {"detail": "Not found."})
        if body.get("disassociate"):
            ids.remove(body["id"])
        elif body["id"] not in ids:
            ids.append(body["id"])
        return 204, None

    def _list(self, found: list[Any]) -> dict[str, Any]:
        return {"count": len(found), "next": None, "previous": None, "results": found}

    def _shown(self, kind: str, number: int) -> dict[str, Any]:
        each = self.state.objects[kind][number]
        related = {"survey_spec": f"{each['url']}survey_spec/"}
        return {**each, "related": related, "summary_fields": {}, "scm_revision": ""}


def _fits(each: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    either = [
        str(each.get(name.removeprefix("or__"))) == value for name, value in query.items() if name.startswith("or__")
    ]
    every = [str(each.get(name)) == value for name, value in query.items() if not name.startswith("or__")]
    return all(every) and (not either or any(either))
