# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report's page in a real browser: it says nothing, asks nobody, fits on every screen, and axe finds no fault."""

from __future__ import annotations

import json
import pathlib
import sys
import time

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.core.report_page import page
from ansible_collections.restorepoint.core.plugins.module_utils.core.report_read import understood
from ansible_collections.restorepoint.core.tests.page import samples
from ansible_collections.restorepoint.core.tests.page.devtools import CHECKOUT, LONG, running

sys.path.insert(0, str(CHECKOUT / "tools"))

from chromium import Unavailable, browser

PHONE, DESK = (360, 740), (1440, 900)
SCREENS = [
    pytest.param(size, scheme, id=f"{size[0]}-{scheme}") for size in (PHONE, DESK) for scheme in ("light", "dark")
]
PAGES = ("calm", "usual", "hard", "fleet", "empty")
#: What is wider than the page, or is drawn beyond its edges. What a scrolling ancestor hides would be no overflow.
BEYOND = """
[...document.querySelectorAll('body *')].filter(each => {
  const box = each.getBoundingClientRect();
  return box.width && !each.closest('.hidden') && (box.left < -0.5 || box.right > innerWidth + 0.5);
}).map(each => each.outerHTML.slice(0, 200))
"""
AXE = """
axe.run(document, {resultTypes: ['violations', 'incomplete']}).then(found => ({
  passes: found.passes.length,
  rules: found.passes.map(each => each.id),
  violations: found.violations.map(each => [each.id, each.impact, each.nodes.map(node => node.html.slice(0, 200))]),
}))
"""


def reports(name):
    """The reports of a page, as another host has received them."""
    if name == "empty":
        made = [{**samples.calm(), "policies": [], "storages": []}]
    else:
        found = getattr(samples, name)()
        made = found if isinstance(found, list) else [found]
    return [understood(json.loads(json.dumps(each))) for each in made]


@pytest.fixture(scope="session")
def tools():
    """Chromium and axe-core. Where they cannot be had, this fails."""
    try:
        return browser()
    except Unavailable as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def devtools(tools, tmp_path_factory):
    """One browser for all tests."""
    with running(tools, tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """The pages, as files."""
    folder = tmp_path_factory.mktemp("pages")
    for name in PAGES:
        found = reports(name)
        text = page(found, found[0]["generated"], "Restore points of all hosts" if name == "fleet" else "")
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return folder


def opened(devtools):
    """Open all that can be opened."""
    return devtools.evaluate("[...document.querySelectorAll('details')].map(each => each.open = true).length")


def until(devtools, what):
    """Wait until a page has said something."""
    deadline = time.monotonic() + LONG
    while not what(devtools.complaints):
        assert time.monotonic() < deadline, devtools.complaints
        devtools.evaluate("new Promise(done => setTimeout(done, 20))")


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("size", "scheme"), SCREENS)
def test_a_page_says_nothing_fits_and_has_no_fault_that_axe_finds(devtools, tools, pages, name, size, scheme):
    devtools.show(pages / f"{name}.html", *size, scheme)
    for state in ("as it is", "all opened"):
        if state == "all opened":
            assert opened(devtools) or name == "empty"
        assert devtools.evaluate("document.documentElement.scrollWidth") == size[0], state
        assert devtools.evaluate(BEYOND) == [], state
        devtools.evaluate(f"{tools.axe}; 0")
        found = devtools.evaluate(AXE)
        assert {"color-contrast", "html-has-lang", "document-title"} <= set(found["rules"]), "axe has looked at nothing"
        assert found["violations"] == [], state
    assert devtools.complaints == []


def test_what_looks_like_markup_is_text_and_runs_nothing(devtools, pages):
    devtools.show(pages / "hard.html", *DESK, "light")
    opened(devtools)
    assert devtools.evaluate("document.scripts.length") == 0
    assert samples.HOSTILE in devtools.evaluate("document.body.textContent")
    assert devtools.evaluate("document.querySelectorAll('bdi').length") > 200


def test_the_policy_of_the_page_forbids_scripts_and_whatever_lies_elsewhere(devtools, pages, tmp_path):
    text = (pages / "calm.html").read_text(encoding="utf-8")
    smuggled = "<script>document.title = 'ran'</script><img src='http://127.0.0.1:9/x.png'><p style='color:red'>x</p>"
    (tmp_path / "smuggled.html").write_text(text.replace("</main>", f"{smuggled}</main>"), encoding="utf-8")
    devtools.show(tmp_path / "smuggled.html", *DESK, "light")
    assert devtools.evaluate("document.title") == "Restore points of db2.example.net"
    until(devtools, lambda said: sum("Content Security Policy" in each for each in said) == 3)
    until(devtools, lambda said: "refused: csp" in said)


def test_a_page_has_the_colours_of_the_scheme(devtools, pages):
    found = {}
    for scheme in ("light", "dark"):
        devtools.show(pages / "calm.html", *DESK, scheme)
        found[scheme] = devtools.evaluate("getComputedStyle(document.body).backgroundColor")
    assert found == {"light": "rgb(245, 247, 248)", "dark": "rgb(19, 24, 28)"}


def test_the_tests_see_an_overflow_and_a_fault_where_there_is_one(devtools, tools, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!DOCTYPE html><body><p style='width:2000px;color:#aaa;background:#fff'>pale words</p><img src=x></body>"
    )
    devtools.show(bad, *PHONE, "light")
    assert devtools.evaluate(BEYOND) != []
    devtools.evaluate(f"{tools.axe}; 0")
    found = [each[0] for each in devtools.evaluate(AXE)["violations"]]
    assert {"color-contrast", "image-alt"} <= set(found)
    until(devtools, lambda said: said != [])  # of the picture that is not there


def test_each_part_can_be_reached_by_its_link(devtools, pages):
    devtools.show(pages / "fleet.html", *DESK, "light")
    links = devtools.evaluate("[...document.querySelectorAll('a')].map(each => each.getAttribute('href'))")
    assert len(links) == 6
    assert devtools.evaluate("[...document.querySelectorAll('a')].every(a => document.querySelector(a.hash))")
    words = devtools.evaluate("document.querySelector('main').innerText")
    assert "No route to host" in words
    assert words.index("What is wrong") < words.index("Hosts") < words.index("Policies")
    assert pathlib.Path(pages / "fleet.html").stat().st_size < 400_000
