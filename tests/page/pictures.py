# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes the pictures of docs/report.md: the page on a desk and on a phone, light and dark, and the terminal.

Called by ``make pictures``. What they show is made up in `samples`, so they change only with what is shown.
"""

from __future__ import annotations

import html
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterator

from ansible_collections.restorepoint.core.plugins.module_utils.core.report_page import page
from ansible_collections.restorepoint.core.plugins.module_utils.core.report_text import Look, text
from ansible_collections.restorepoint.core.tests.page import samples
from ansible_collections.restorepoint.core.tests.page.devtools import CHECKOUT, Devtools, running

sys.path.insert(0, str(CHECKOUT / "tools"))

from chromium import browser

PICTURES = CHECKOUT / "docs" / "pictures"
#: What colours a terminal of today has for the codes that the report uses.
_COLOURS = {"1": "bold", "2": "#8b98a5", "32": "#7fd1a0", "33": "#e9c46a", "35": "#c3b1fa", "1;31": "#ff8f85"}
_TERMINAL = """<!DOCTYPE html><meta charset="utf-8"><style>body{margin:0;padding:20px 24px;background:#161b20;
color:#dfe5ea}pre{margin:0;white-space:pre-wrap;font:14px/1.45 "DejaVu Sans Mono",monospace}</style><pre>%s</pre>"""


def pictures(devtools: Devtools, folder: pathlib.Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name of each picture, and its content."""
    found = samples.usual()
    shown, fleet, terminal = folder / "report.html", folder / "fleet.html", folder / "terminal.html"
    shown.write_text(page([found], found["generated"]), encoding="utf-8")
    fleet.write_text(page(samples.fleet(), found["generated"], "Restore points of all hosts"), encoding="utf-8")
    terminal.write_text(_TERMINAL % _coloured(text(found, Look(96, colour=True))), encoding="utf-8")
    for scheme in ("light", "dark"):
        devtools.show(shown, 1440, 1360, scheme)
        yield f"report-desk-{scheme}", devtools.screenshot()
        devtools.show(shown, 360, 780, scheme, 2)
        place = "document.querySelectorAll('article')[2].scrollIntoView()"
        devtools.evaluate(place if scheme == "dark" else "0")
        yield f"report-phone-{scheme}", devtools.screenshot()
    devtools.show(fleet, 1440, 1000, "light")
    yield "report-fleet", devtools.screenshot()
    devtools.show(terminal, 880, 600, "dark")
    yield "report-terminal", devtools.screenshot(whole=True)


def _coloured(written: str) -> str:
    """Return what a terminal was sent as HTML."""
    parts = re.split(r"\x1b\[([0-9;]+)m", written)
    found = [html.escape(parts[0])]
    for code, part in zip(parts[1::2], parts[2::2]):
        colour = _COLOURS.get(code, "")
        style = "font-weight:bold" if colour == "bold" else f"color:{colour}"
        found.append(f'<span style="{style}">{html.escape(part)}</span>' if colour else html.escape(part))
    return "".join(found)


def main() -> None:
    """Make them all."""
    with tempfile.TemporaryDirectory() as work:
        folder = pathlib.Path(work)
        with running(browser(), folder) as devtools:
            for name, content in pictures(devtools, folder):
                (PICTURES / f"{name}.png").write_bytes(content)
                print(f"docs/pictures/{name}.png: {len(content)} bytes")


if __name__ == "__main__":
    main()
