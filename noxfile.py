# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every check of the collection, as nox sessions. The Makefile is the human face of this file.

The sessions take their environments from the cache folder (tools/environments.py) instead of having nox build them, so
that several runs at once are safe and a second run starts at once. What antsibull-nox brings (licence and extra checks)
is set in antsibull-nox.toml.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import nox
from antsibull_nox import load_antsibull_nox_toml

sys.path.insert(0, str(pathlib.Path(__file__).parent / "tools"))

import cluster as clusters
from cores import CORES, Core, newest_core
from environments import CACHE, CHECKOUT, environment, locked
from guest import Guest, Unavailable
from pythons import clean_path, find_pythons, newest
from staging import INNER, linked, private_home, staged

# nox mentions at each start that uv is not there, which nothing here uses.
logging.getLogger().handlers[0].addFilter(lambda record: "uv binary" not in record.getMessage())
ROOT = os.geteuid() == 0
#: Units wait for deadlines more than they compute, so there are more processes than cores.
WORKERS = str(2 * (os.cpu_count() or 1))
#: No colours where nobody looks.
PLAIN = {} if sys.stdout.isatty() else {"NO_COLOR": "1", "PY_COLORS": "0", "ANSIBLE_NOCOLOR": "true"}

load_antsibull_nox_toml()


def requirements(path: str) -> list[str]:
    """Return the packages that a requirements file of the checkout names."""
    lines = (CHECKOUT / path).read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def unit_packages() -> list[str]:
    """Return what a Python needs to run the unit tests, on a controller or as a managed host's."""
    tools = ["mock", "pytest", "pytest-mock", "pytest-xdist", "pyyaml", "typing_extensions; python_version < '3.11'"]
    controller = ["jinja2", "packaging", "resolvelib<2"]
    return [
        *tools,
        *(f"{package}; python_version >= '3.10'" for package in controller),
        *requirements("tests/unit/requirements.txt"),
    ]


def core_called(series: str) -> Core:
    """Return the ansible-core of that series."""
    return next(core for core in CORES if core.series == series)


def ansible_with(label: str, *packages: str) -> pathlib.Path:
    """Return the programs of an environment with the newest ansible-core and these packages."""
    core, python = newest_core()
    return environment(label, python, [core.requirement, *packages])


def run(
    session: nox.Session,
    folder: pathlib.Path,
    tools: pathlib.Path,
    *command: str,
    silent: bool = False,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a program of an environment in a folder, with a home of our own and none of pyenv's shims on PATH.

    Returns what it printed where it is silent, and nothing where it is not.
    """
    session.log(" ".join(command))
    settings = {
        "PATH": os.pathsep.join([str(tools), clean_path()]),
        "HOME": str(private_home()),
        **PLAIN,
        **(env or {}),
    }
    with session.chdir(folder):
        program = str(tools / command[0])
        return str(session.run(program, *command[1:], external=True, log=False, silent=silent, env=settings))


def lint_tools() -> pathlib.Path:
    """Return the programs of the environment with ruff and yamllint."""
    return environment("lint", newest_core()[1], ["ruff", "yamllint"])


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Run ruff (rules and layout) and yamllint."""
    cache = str(CACHE / "ruff")
    run(session, CHECKOUT, lint_tools(), "ruff", "check", "--quiet", "--cache-dir", cache, ".")
    run(session, CHECKOUT, lint_tools(), "ruff", "format", "--quiet", "--diff", "--cache-dir", cache, ".")
    with staged() as collection:
        run(session, collection, lint_tools(), "yamllint", "--strict", ".")


@nox.session(name="format", venv_backend="none", default=False)
def layout(session: nox.Session) -> None:
    """Bring Python files into ruff's layout; arguments name the files, without any it is all of them."""
    files = session.posargs or ["."]
    run(session, CHECKOUT, lint_tools(), "ruff", "check", "--fix-only", "--quiet", "--no-cache", *files)
    run(session, CHECKOUT, lint_tools(), "ruff", "format", "--no-cache", *files)


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Run mypy, strict."""
    stubs = ["types-PyYAML", "types-jmespath", "pytest", "nox", "antsibull-nox"]
    tools = ansible_with("mypy", "mypy", *stubs, *requirements("tests/unit/requirements.txt"))
    top = linked()
    mypy = ["mypy", "--config-file", str(CHECKOUT / ".mypy.ini"), "--cache-dir", str(CACHE / "mypy" / top.name)]
    parts = [str(INNER / part) for part in ("plugins", "tests") if any((CHECKOUT / part).rglob("*.py"))]
    run(session, top, tools, *mypy, *parts, env={"MYPYPATH": f"{top}:{CHECKOUT / 'tools'}"})
    run(session, CHECKOUT, tools, *mypy, "noxfile.py", "tools", env={"MYPYPATH": "tools"})


def pytest(session: nox.Session, folder: str, *options: str, tools: pathlib.Path | None = None) -> None:
    """Run pytest on a folder, or on what the arguments name, on the newest ansible-core and Python there is."""
    tools = tools or ansible_with("pytest", *unit_packages())
    named = [word for word in session.posargs if not word.startswith("-") and (CHECKOUT / word.split("::")[0]).exists()]
    command = ["python", "-m", "pytest", "-q", "-rfEs", "-p", "no:cacheprovider", "--import-mode=importlib", *options]
    env = {
        "PYTHONPATH": str(linked()),
        "PYTHONPYCACHEPREFIX": str(CACHE / "pycache"),
        "XDG_CACHE_HOME": str(CACHE.parent),  # where the guest lies: HOME is another one here
        "RP_NEW_EXAMPLES": "1",
    }
    run(session, CHECKOUT, tools, *command, *([] if named else [folder]), *session.posargs, env=env)


@nox.session(venv_backend="none", default=False)
def units(session: nox.Session) -> None:
    """Run the unit tests at once, with pytest alone; arguments go to pytest."""
    pytest(session, "tests/unit")


@nox.session(venv_backend="none")
def lab(session: nox.Session) -> None:
    """Run the tests on real filesystems (root, loop devices), and the long ones of faults; arguments go to pytest.

    Faults are mostly waited for, so there is a process for each core, and one more. Files that share something costly
    are one process's: they say so by the mark xdist_group.
    """
    pytest(session, "tests/lab", f"-n{(os.cpu_count() or 1) + 1}", "--dist=loadgroup")


@nox.session(name="report-page", venv_backend="none")
def report_page(session: nox.Session) -> None:
    """Look at the report's page in headless Chromium, which tools/chromium.py gets; arguments go to pytest."""
    pytest(session, "tests/page")


@nox.session(venv_backend="none", default=False)
def pictures(session: nox.Session) -> None:
    """Make the pictures of docs/report.md anew, in the same browser."""
    env = {"PYTHONPATH": str(linked()), "XDG_CACHE_HOME": str(CACHE.parent)}
    run(session, CHECKOUT, ansible_with("pytest", *unit_packages()), "python", "tests/page/pictures.py", env=env)


@nox.session(name="guest-tests", venv_backend="none", default=False)
def guest_tests(session: nox.Session) -> None:
    """Run the tests in the guest, on real LVM and ZFS; arguments go to pytest. tools/run_nox.py adds it to the rest."""
    pytest(session, "tests/guest")


def runner_tools() -> pathlib.Path:
    """Return the programs of the environment with ansible-runner."""
    return ansible_with("runner", *unit_packages(), *requirements("tests/runner/requirements.txt"))


@nox.session(venv_backend="none")
def runner(session: nox.Session) -> None:
    """Run the playbooks under ansible-runner as AWX does, and check what AWX is set up with; arguments go to pytest."""
    pytest(session, "tests/runner", f"-n{os.cpu_count() or 1}", "--dist=loadfile", tools=runner_tools())


def ansible_tests() -> list[str]:
    """Return where the unit tests lie whose subjects import ansible; the layers test proves that the others do not."""
    plugins = CHECKOUT / "tests" / "unit" / "plugins"
    folders = [folder for folder in plugins.iterdir() if folder.name != "module_utils"]
    folders.append(plugins / "module_utils" / "bridge")
    return sorted(f"{folder.relative_to(CHECKOUT)}/" for folder in folders if any(folder.rglob("test_*.py")))


@nox.session(name="units-matrix", venv_backend="none")
@nox.parametrize("series", [nox.param(core.series, id=core.series) for core in CORES])
def units_matrix(session: nox.Session, series: str) -> None:
    """Run ansible-test units on one ansible-core.

    With the newest one all tests run on the oldest and the newest Python there is that it supports, and on those
    between only the tests whose subjects import ansible. With an older one only those do, on its oldest and its newest
    Python: to the others it makes no difference. What Pythons differ in shows at the ends.
    """
    core = core_called(series)
    if core.python is None:
        session.skip(f"ansible-core {core.series} needs Python {' or '.join(core.controllers)}, which is not there")
    tools = environment("units-" + core.series, core.python, [core.requirement, *unit_packages()])
    pythons = [each for each in find_pythons().values() if each.series in core.controllers + core.targets]
    others = [environment("units", each, unit_packages()) for each in pythons if each != core.python]
    path = os.pathsep.join([str(tools), *map(str, others), clean_path()])
    missing = [series for series in (*core.targets, *core.controllers) if series not in find_pythons()]
    if missing:
        session.log(f"left out, for they are not on this machine: Python {', '.join(missing)}")
    everything = core == newest_core()[0]
    with staged() as collection:
        ends = (pythons[0], pythons[-1])
        for python in pythons if everything or len(pythons) < 3 else ends:
            words, whole = f"ansible-core {core.series} with Python {python.series}", everything and python in ends
            session.log(f"{words}: {'all unit tests' if whole else 'the unit tests that need ansible'}")
            command = ["ansible-test", "units", "--local", "--python", python.series, "--num-workers", WORKERS]
            selected = session.posargs or ([] if whole else ansible_tests())
            run(session, collection, tools, *command, *selected, env={"PATH": path})


@nox.session(venv_backend="none")
@nox.parametrize("series", [nox.param(core.series, id=core.series) for core in CORES if core.sanity])
def sanity(session: nox.Session, series: str) -> None:
    """Run ansible-test sanity, without any ignore file; arguments go to it."""
    core = core_called(series)
    python = newest(core.sanity or "") or core.python
    if python is None:
        session.skip(f"ansible-core {core.series} needs Python {' or '.join(core.controllers)}, which is not there")
    tools = environment("ansible-" + core.series, python, [core.requirement])
    with locked("prime"):
        run(session, CHECKOUT, tools, "python", "tools/prime_ansible_test.py")
    with staged() as collection:
        folder = collection.parents[2] / "pythons"
        folder.mkdir()
        for other in find_pythons().values():
            (folder / f"python{other.series}").symlink_to(other.path)
        path = os.pathsep.join([str(tools), str(folder), clean_path()])
        run(session, collection, tools, "ansible-test", "sanity", "--local", *session.posargs, env={"PATH": path})


def booted_guest(session: nox.Session) -> Guest | None:
    """Return a guest that runs, clean at its beginning; None where there can be none. On CI there has to be one.

    Raises GuestFailed where there could be one.
    """
    guest = Guest()
    try:
        guest.start(fresh=True)
    except Unavailable as error:
        if os.environ.get("CI") == "true":
            session.error(str(error))
        session.log(str(error))
        return None
    return guest


def targets_on(place: str) -> list[str]:
    """Return the integration targets that act on the ``guest`` or the ``cluster``: they have it as an alias."""
    aliases = sorted((CHECKOUT / "tests" / "integration" / "targets").glob("*/aliases"))
    return [path.parent.name for path in aliases if place in path.read_text().splitlines()]


@nox.session(venv_backend="none")
def integration(session: nox.Session) -> None:
    """Run ansible-test integration; arguments name targets. Those that need root are left out without it.

    Targets with the alias ``guest`` or ``cluster`` get how to reach it in the variable of that name, from
    integration_config.yml.
    """
    tools = ansible_with("integration", "jmespath", "kubernetes", "proxmoxer", "requests")
    rights = ["--allow-root", "--allow-destructive"] if ROOT else []
    abroad = {place: targets_on(place) for place in ("guest", "cluster")}
    named = {word for word in session.posargs if not word.startswith("-")}
    wanted = {place for place, targets in abroad.items() if not named or named & set(targets)}
    with contextlib.ExitStack() as stack:
        reached: dict[str, Any] = {}
        guest = booted_guest(session) if "guest" in wanted else None
        if guest:
            reached["guest"] = guest.variables()
        cluster = stack.enter_context(running_cluster(session, "integration")) if "cluster" in wanted else None
        if cluster:
            reached["cluster"] = variables_of(cluster)
        lacking = [target for place, targets in abroad.items() if place not in reached for target in targets]
        left_out = [word for target in lacking for word in ("--exclude", target)]
        collection = stack.enter_context(staged())
        if reached:
            config = collection / "tests" / "integration" / "integration_config.yml"
            config.write_text(json.dumps(reached))
        run(session, collection, tools, "ansible-test", "integration", "--local", *rights, *left_out, *session.posargs)


def scenarios_on(group: str) -> list[str]:
    """Return the molecule scenarios that converge a group: ``storage`` is the guest, ``cluster`` the control plane."""
    plays = sorted((CHECKOUT / "molecule").glob("*/converge.yml"))
    return [path.parent.name for path in plays if f"hosts: {group}\n" in path.read_text()]


@contextlib.contextmanager
def running_cluster(session: nox.Session, purpose: str) -> Iterator[clusters.Cluster | None]:
    """Give a cluster of this session's own; None where none can be had, which is an error in CI."""
    reason = clusters.lack()
    if reason:
        if os.environ.get("CI") == "true":
            session.error(reason)
        session.log(reason)
        yield None
        return
    cluster = clusters.Cluster(f"{purpose}-{os.getpid()}")
    try:
        clusters.behind("guard", cluster.name, str(os.getpid()))
        cluster.start(fresh=True)
        yield cluster
    finally:
        cluster.remove()


@nox.session(venv_backend="none")
def molecule(session: nox.Session) -> None:
    """Run every molecule scenario, or ``-s NAME``, and see to it that each one really did something."""
    tools = ansible_with("molecule", "molecule", "jmespath", "kubernetes")
    abroad = {group: scenarios_on(group) for group in ("storage", "cluster")}
    wanted = {group for group, names in abroad.items() if set(names) & set(session.posargs or names)}
    with contextlib.ExitStack() as stack:
        found: dict[str, Any] = {}
        guest = booted_guest(session) if "storage" in wanted else None
        if guest:
            found["storage"] = guest.inventory()
        cluster = stack.enter_context(running_cluster(session, "molecule")) if "cluster" in wanted else None
        if cluster:
            found["cluster"] = inventory_of(cluster)
        left_out = [name for group, names in abroad.items() if group not in found for name in names]
        chosen = session.posargs or ["--all", *(word for name in left_out for word in ("--exclude", name))]
        collection = stack.enter_context(staged())
        for group, inventory in found.items():
            (collection / "molecule" / "inventory" / f"{group}.yml").write_text(json.dumps(inventory))
        log = collection.parents[2] / "ansible.log"
        env = {
            "ANSIBLE_COLLECTIONS_PATH": str(collection.parents[2]),
            "ANSIBLE_HOST_PATTERN_MISMATCH": "error",
            "ANSIBLE_LOG_PATH": str(log),
        }
        # Without a git checkout around it molecule does not find its shared settings by itself.
        command = ["molecule", "--base-config", str(collection / ".config" / "molecule" / "config.yml"), "test"]
        run(session, collection, tools, *command, *chosen, env=env)
        text = log.read_text()
    # playbooks/site.yml passes over groups that an inventory lacks; its plays are called so.
    meant = [play for play in text.split("PLAY [") if not play.startswith("Site: ")]
    for sign in ("no hosts matched", "provided hosts list is empty"):
        if any(sign in play for play in meant):
            session.error(f"Ansible said {sign!r}, so a scenario proved nothing: check its inventory.")
    plays = text.count("PLAY RECAP")
    idle = plays - len(re.findall(r" ok=[1-9]\d* ", text))
    session.log(f"{plays} plays ran")
    if not plays or idle > 0:
        session.error("A play ran no task, so a scenario proved nothing: look at its playbooks.")


def variables_of(cluster: clusters.Cluster) -> dict[str, str]:
    """Return how a play reaches the cluster, and where its volumes lie as folders."""
    return {
        "scenario_volumes": str(cluster.data / "volumes"),
        "scenario_kubeconfig": str(cluster.kubeconfig),
        "scenario_api": cluster.server,
        "scenario_token": cluster.token,
        "scenario_ca": str(cluster.ca),
        "scenario_crds": str(cluster.parts / "crds"),
    }


def inventory_of(cluster: clusters.Cluster) -> dict[str, Any]:
    """Return an inventory with one host, ``lab``, from which the cluster's API is spoken to."""
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        **variables_of(cluster),
    }
    return {"cluster": {"hosts": {"lab": variables}}}


#: A file of tests is one process's: some have a cluster of their own.
SHARED = (f"-n{os.cpu_count() or 1}", "--dist=loadfile")


@nox.session(name="cluster-tests", venv_backend="none", default=False)
def cluster_tests(session: nox.Session) -> None:
    """Run the tests on a real Kubernetes control plane; arguments go to pytest.

    Their time is mostly the controllers', so there is a process for each core. They share a cluster, and files that
    end its parts have one of their own. KUBECONFIG_LAB names another one, RP_CLUSTER one of ours that runs.
    """
    if os.environ.get("KUBECONFIG_LAB") or "RP_CLUSTER" in os.environ or clusters.lack():
        pytest(session, "tests/cluster", *SHARED, tools=runner_tools())
        return
    with running_cluster(session, "nox") as cluster:
        os.environ["RP_CLUSTER"] = cluster.name if cluster else ""
        try:
            pytest(session, "tests/cluster", *SHARED, tools=runner_tools())
        finally:
            del os.environ["RP_CLUSTER"]


@nox.session(name="ansible-lint", venv_backend="none")
def ansible_lint(session: nox.Session) -> None:
    """Run ansible-lint with its production profile."""
    tools = ansible_with("ansible-lint", "ansible-lint")
    with staged() as collection:
        top = collection.parents[2]
        # It installs the collection into the home folder, and takes one of this version that is there already for it.
        env = {"ANSIBLE_COLLECTIONS_PATH": str(top), "HOME": str(top / "home")}
        run(session, collection, tools, "ansible-lint", "--offline", "--strict", *session.posargs, env=env)


@nox.session(venv_backend="none")
def importer(session: nox.Session) -> None:
    """Build the collection and let galaxy-importer judge it as Galaxy would."""
    tools = ansible_with("importer", "galaxy-importer")
    with staged() as collection:
        top = collection.parents[2]
        run(session, collection, tools, "ansible-galaxy", "collection", "build", "--output-path", str(top))
        tarball = next(top.glob("restorepoint-core-*.tar.gz"))
        told = run(session, top, tools, "python", "-m", "galaxy_importer.main", tarball.name, silent=True)
    complaints = [line for line in told.splitlines() if line.startswith(("ERROR", "WARNING"))]
    print("\n".join(complaints or told.splitlines()[-1:]))
    if complaints:
        session.error("galaxy-importer would take it, but complains.")


@nox.session(name="changelog", venv_backend="none")
def changelog(session: nox.Session) -> None:
    """Check the changelog's fragments."""
    tools = ansible_with("docs", *DOCS_PACKAGES)
    with staged() as collection:
        run(session, collection, tools, "antsibull-changelog", "lint")


DOCS_PACKAGES = ("antsibull-docs", "antsibull-changelog", "sphinx", "myst-parser", "furo")


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """Check the plugins' documentation and build the site, with every option of every plugin, into docs/_build/html."""
    tools = ansible_with("docs", *DOCS_PACKAGES)
    with staged() as collection:
        top = collection.parents[2]
        env = {"ANSIBLE_COLLECTIONS_PATH": str(top)}
        check = ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs", "all"]
        run(session, collection, tools, *check, "--skip-rstcheck", ".", env=env)
        plugins = collection / "docs" / "plugins"
        generate = ["antsibull-docs", "collection", "--use-current", "--squash-hierarchy", "--fail-on-error"]
        plugins.mkdir()
        run(session, top, tools, *generate, "--dest-dir", str(plugins), "restorepoint.core", env=env)
        run(session, collection, tools, "sphinx-build", "-q", "-n", "-W", "--keep-going", "docs", str(top / "site"))
        target = CHECKOUT / "docs" / "_build" / "html"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(top / "site", target)
    session.log(f"the site is {target / 'index.html'}")


@nox.session(venv_backend="none", default=False)
def bench(session: nox.Session) -> None:
    """Measure side by side with what others do; arguments name files of tests/bench, without any all of them run.

    Other arguments are options of those files.
    """
    tools = ansible_with("pytest", *unit_packages())
    named = [word for word in session.posargs if (CHECKOUT / word).is_file()]
    options = [word for word in session.posargs if word not in named]
    env = {"PYTHONPATH": str(linked()), "XDG_CACHE_HOME": str(CACHE.parent)}
    for path in named or sorted(str(each) for each in (CHECKOUT / "tests" / "bench").glob("bench_*.py")):
        run(session, CHECKOUT, tools, "python", path, *options, env=env)


@nox.session(venv_backend="none")
def demo(session: nox.Session) -> None:
    """Run the demonstration, as ``make demo`` does."""
    session.run(sys.executable, "tools/demo.py", external=True, log=False)
