# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sphinx's settings for the site; ``make docs`` builds it and adds a page for each plugin under ``plugins/``."""

from __future__ import annotations

from sphinx.application import Sphinx

project = "restorepoint.core"
author = "the restorepoint.core authors"
copyright = author  # noqa: A001 - the name is Sphinx's

extensions = ["myst_parser", "sphinx_antsibull_ext"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
myst_heading_anchors = 4

# Every warning is an error, a link that leads nowhere included. What lies in Ansible's own documentation is named but
# not linked: nothing is fetched while the site is built.
nitpicky = True
nitpick_ignore_regex = [
    (r"std:ref", r"ansible_collections\.ansible\.builtin\..*"),
    (r"std:ref", r"ansible_configuration_settings|common_return_values|action_plugins"),
]

html_theme = "furo"
html_title = "restorepoint.core"
html_copy_source = False
html_show_sphinx = False
antsibull_ext_color_scheme = "default-autodark"


def without_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """Take the table of contents out of the plugins' pages: furo shows one beside each page, and refuses a second."""
    source[0] = source[0].replace(".. contents::\n   :local:\n   :depth: 1\n", "")


def setup(app: Sphinx) -> None:
    """Let Sphinx call what is above."""
    app.connect("source-read", without_contents)
