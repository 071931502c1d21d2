# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pvesh, qm and pct of the test server: what they do, for the programs that programs.py offers.

How the real pvesh treats tasks (read in PVE/CLI/pvesh.pm of pve-manager 4d3822cc and 0abe2e03, in RESTEnvironment.pm's
fork_worker and tee_worker, RESTHandler.pm's handle and CLIFormatter.pm's print_api_result of pve-common 06885ac8):

- It runs the API's method in its own process, as root@pam, without permission checks on the way. Its environment is of
  type 'cli', and there fork_worker runs a worker in the foreground: pvesh ends when the task has ended.
- While that runs, what the worker prints (stdout and stderr alike) goes to pvesh's stdout and into the task's log.
  'TASK OK' is not printed. A task's error goes to stderr, without 'TASK ERROR: '. With warnings, stderr says 'Task
  finished with N warning(s)!'.
- After that, with ``--output-format json``, the UPID follows on stdout as a JSON string on a line of its own. So stdout
  of a create is not JSON: it is the log's lines, and then a line with the UPID. ``--quiet`` leaves out that line, not
  the log.
- The exit code is 0 although the task failed: the method returns the UPID alone, since it is called in scalar context.
  Whether it failed is in stderr's words, and for certain in ``get /nodes/N/tasks/UPID/status``.
- A worker that is killed ends as 'got unexpected control message:  ', not as 'unexpected status'. SIGINT and SIGTERM to
  pvesh are passed on to the worker ('received interrupt'). If pvesh itself is killed, its worker goes on until it next
  prints something: there is nobody who reads it then.
- ``start=1`` of a rollback calls the start's method within the worker, in the same environment: so there, other than
  over HTTPS, the start is part of the foreground, and the guest runs when pvesh has ended.
- A path of another node is called there with ``ssh root@ADDRESS pvesh --noproxy ... --output-format json``. All lines
  of its stdout are put together, without line ends, and decoded as one JSON value. In the versions named above that
  fails ('malformed JSON string, ...', exit code 255) whenever a worker has printed something, and for methods that
  return nothing, although the call was carried out. As far as we know, later ones return the text as it is where it is
  no JSON (not seen in the sources at hand). ``settings.pvesh_proxy`` chooses: 'strict' or 'lenient'.
- Refused parameters: '400 Parameter verification failed.', a line ``name: words`` for each, then the usage, on stderr.
  Other errors are Proxmox's own words on stderr. The exit code is that of Perl's die: errno, else 255; only that it is
  not 0 can be relied on. An unknown path: "No 'create' handler defined for '/x'", exit code 1.
- Lists and objects are printed canonically (sorted keys, no blanks, UTF-8), nothing for methods that return null.

So a client should call pvesh on the node where the guest is (or read the UPID out of any text), take the UPID from
stdout's last line that holds one, and ask for that task's status. Called by programs.py. Standard library only.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable
from typing import Any

from .access import ROOT
from .calls import ApiError, Call, RawJson
from .faults import Action
from .guests import Guest
from .https import Request, Site
from .tasks import Task

METHODS = {"get": "GET", "set": "PUT", "create": "POST", "delete": "DELETE"}
_FORMAT = ("output-format", "human-readable", "noborder", "noheader", "quiet", "noproxy")
#: May stand without a value.
_BOOLEAN = (*_FORMAT[1:], "force", "vmstate", "start", "skiplock", "errors")
_POLL_SECONDS = 0.01
#: Gets ``out`` or ``err``, and text.
Emit = Callable[[str, str], None]


class Failed(Exception):
    """The program ends with words on stderr and an exit code."""

    def __init__(self, words: str, code: int = 255) -> None:
        super().__init__(words)
        self.code = code


class Shell:
    """Runs one program on one node. ``watch`` is called now and then, to look for signals and for who reads."""

    def __init__(self, site: Site, node: str, emit: Emit, watch: Callable[[], None]) -> None:
        self.site, self.node, self.emit, self.watch = site, node, emit, watch
        self.task: Task | None = None

    def run(self, program: str, argv: list[str]) -> int:
        """Run a program and return its exit code."""
        runs = {"pvesh": self._pvesh, "qm": self._guest_tool, "pct": self._guest_tool}
        try:
            runs[program](argv)
        except Failed as error:
            self.emit("err", str(error))
            return error.code
        return 0

    def interrupt(self) -> None:
        """Pass a signal on to the worker."""
        with self.site.lock:
            if self.task:
                self.site.cluster.tasks.stop(self.task)

    def abandon(self) -> None:
        """Nobody reads the worker's output any more."""
        if self.task:
            self.task.output_lost = True

    def _guest_tool(self, argv: list[str]) -> None:
        """Do what ``unlock`` and ``listsnapshot`` of qm and pct do."""
        if len(argv) != 2 or argv[0] not in ("unlock", "listsnapshot") or not argv[1].isdigit():
            raise Failed(f"ERROR: unknown command '{' '.join(argv[:1])}'\n")
        with self.site.lock:
            self.site.cluster.tasks.advance()
            guest = self.site.cluster.guests.get(int(argv[1]))
            if guest is None or guest.node != self.node:
                raise Failed(f"Configuration file 'nodes/{self.node}/qemu-server/{argv[1]}.conf' does not exist\n", 2)
            if argv[0] == "unlock":
                self.site.cluster.unlock(guest.vmid)
            else:
                self.emit("out", snapshot_tree(guest))

    def _pvesh(self, argv: list[str]) -> None:
        before = {"--noproxy", "--nooutput"}
        while argv and argv[0] in before:
            argv = [*argv[1:], "--noproxy" if argv[0] == "--noproxy" else "--quiet"]
        if len(argv) < 2 or argv[0] not in METHODS:
            raise Failed("ERROR: unknown command\nUSAGE: pvesh <COMMAND> [ARGS] [OPTIONS]\n")
        method, path = METHODS[argv[0]], f"/{argv[1].strip('/')}"
        options, formats = _options(argv[2:])
        try:
            self.site.router.find(method, path)
        except ApiError as error:
            raise Failed(f"No '{argv[0]}' handler defined for '{argv[1]}'\n", 1) from error
        data = self._api(argv[0], method, path, options, "noproxy" in formats)
        if data is not None and "quiet" not in formats:
            self.emit("out", f"{_text(data, formats)}\n")

    def _api(self, command: str, method: str, path: str, options: dict[str, Any], noproxy: bool) -> Any:
        parts = path.split("/")
        node = parts[2] if len(parts) > 2 and parts[1] == "nodes" else "localhost"
        if node in ("localhost", self.node):
            return self._local(command, method, path.replace("/localhost", f"/{self.node}", 1), options)
        if noproxy:
            raise Failed("proxy loop detected - aborting\n")
        known = self.site.cluster.nodes.get(node)
        if known is None:
            raise Failed(f"hostname lookup '{node}' failed - failed to get address info for: {node}\n")
        return self._remote(command, method, path, options, node, known.online)

    def _remote(self, command: str, method: str, path: str, options: dict[str, Any], node: str, online: bool) -> Any:
        """Call pvesh on another node, and read its output as the real one does."""
        words = [f"--{key}={value}" for key, value in options.items()]
        told = ["ssh", "-o", "BatchMode=yes", f"root@{node}", "pvesh", "--noproxy", command, path]
        shown = " ".join(shlex.quote(each) for each in [*told, "--output-format", "json", *words])
        printed: list[str] = []

        def heard(kind: str, text: str) -> None:
            if kind == "out":
                printed.append(text)
            else:
                self.emit(kind, text)

        code = 255
        if online:
            there = Shell(self.site, node, heard, self.watch)
            code = there.run("pvesh", ["--noproxy", command, path, "--output-format", "json", *words])
        else:
            self.emit("err", f"ssh: connect to host {node} port 22: No route to host\n")
        if code:
            raise Failed(f"proxy handler failed: command '{shown}' failed: exit code {code}\n")
        return self._decoded("".join(printed).replace("\n", ""))

    def _decoded(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            if self.site.cluster.settings.pvesh_proxy == "lenient":
                return text or None
            before = f"{text[:20]}..." if text else "(end of string)"
            words = "neither tag, array, object, number, string or atom, at character offset 0"
            raise Failed(f'malformed JSON string, {words} (before "{before}") at pvesh.pm line 126.\n') from error

    def _local(self, command: str, method: str, path: str, options: dict[str, Any]) -> Any:
        site = self.site
        with site.lock:
            request = Request(len(site.calls) + 1, method, path, options, 0, ROOT)
            site.calls.append(request)
        actions = site.faults.meet(method, path)
        self._suffer(actions)
        with site.lock:
            site.cluster.tasks.advance()
            for action in actions:
                if action.change:
                    action.change(site.cluster)
            call = Call(method, path, dict(options), ROOT, [each.task for each in actions if each.task], True)
            try:
                data = site.router.handle(site.cluster, call)
            except ApiError as error:
                request.status = error.status
                raise _failed(error, command) from error
            request.status = 200
            self.task = call.task
        if self.task:
            self._follow(self.task)
        if any(action.answer for action in actions):
            raise Failed("", 137)
        return data

    def _suffer(self, actions: list[Action]) -> None:
        for action in actions:
            time.sleep(action.delay)
            if action.drop_before:
                raise Failed("", 137)
            if action.status:
                raise Failed(f"{action.message}\n")

    def _follow(self, task: Task) -> None:
        """Print what a worker prints, until it has ended."""
        printed = 0
        while True:
            with self.site.lock:
                self.site.cluster.tasks.advance()
                lines, status = list(task.log), task.status
            last = len(lines) - 1 if status not in (None, "unexpected status") else len(lines)
            for line in lines[printed:last]:
                self.emit("out", f"{line}\n")
            printed = last
            if status is not None:
                break
            self.watch()
            time.sleep(_POLL_SECONDS)
        if status == "unexpected status":
            status = task.status = "got unexpected control message:  "
            task.log.append(f"TASK ERROR: {status}")
        if status.startswith("WARNINGS: "):
            self.emit("err", f"Task finished with {status.split(': ')[1]} warning(s)!\n")
        elif status != "OK":
            self.emit("err", f"{status}\n")


def snapshot_tree(guest: Guest) -> str:
    """Return a guest's snapshots as ``qm listsnapshot`` prints them (GuestHelpers.pm, print_snapshot_tree).

    Siblings come in the order of their times, the present last; of a description only the first line is shown.
    """
    now = {"parent": guest.config.get("parent"), "description": "You are here!"}
    known: dict[str, dict[str, Any]] = {**guest.snapshots, "current": now}
    below: dict[str | None, list[str]] = {}
    for name, each in known.items():
        below.setdefault(each["parent"] if each.get("parent") in known else None, []).append(name)
    lines: list[str] = []

    def show(parent: str | None, prefix: str) -> None:
        for name in sorted(below.get(parent, ()), key=lambda name: known[name].get("snaptime", float("inf"))):
            taken = known[name].get("snaptime")
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(taken)) if taken else ""
            words = (known[name].get("description") or "no-description").split("\n")[0]
            lines.append(f"{prefix} {name:<{max(0, 30 - len(prefix))}} {when:<23} {words}\n")
            show(name, f" {prefix}")

    show(None, "`->")
    return "".join(lines)


def _options(argv: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters of the API, and the options of the output."""
    found: dict[str, Any] = {}
    words = list(argv)
    while words:
        option = re.fullmatch(r"--?([a-zA-Z][\w-]*)(?:=(.*))?", words.pop(0), re.DOTALL)
        if option is None:
            raise Failed("400 too many arguments\n")
        name, value = option[1], option[2]
        if value is None and name in _BOOLEAN and not (words and words[0] in ("0", "1")):
            value = "1"
        if value is None:
            if not words:
                raise Failed(f"Option {name} requires an argument\n400 unable to parse option\n")
            value = words.pop(0)
        found[name] = value
    formats = {name: found.pop(name) for name in _FORMAT if name in found}
    return found, formats


def _text(data: Any, formats: dict[str, Any]) -> str:
    """Return data as pvesh prints it: JSON where that was asked for, else something for people."""
    plain = json.loads(data) if isinstance(data, RawJson) else data
    if formats.get("output-format") == "json":
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if formats.get("output-format") == "json-pretty" or not isinstance(plain, str):
        return json.dumps(plain, sort_keys=True, indent=3, ensure_ascii=False)
    return plain


def _failed(error: ApiError, command: str) -> Failed:
    if error.errors:
        lines = "".join(f"{name}: {words.rstrip()}\n" for name, words in sorted(error.errors.items()))
        usage = f"pvesh {command} <api_path> [OPTIONS] [FORMAT_OPTIONS]"
        return Failed(f"{error.status} {error.message}\n{lines}\n{usage}\n")
    return Failed(f"{error.message}\n", 2 if "does not exist" in error.message else 255)
