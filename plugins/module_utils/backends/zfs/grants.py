# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `zfs allow` has granted on a dataset, read so that it can be granted again on another. Called by returning.

The form is that of zfs-allow(8) as OpenZFS prints it: a heading for each dataset, sections, and an indented line each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ...core.errors import ToolError
from .tool import Zfs

_HEADING = re.compile(r"---- Permissions on (?P<name>.+?) -+")
#: The options that grant again what stands in a section.
_SECTIONS = {
    "Permission sets:": None,
    "Create time permissions:": ("-c",),
    "Local permissions:": ("-l",),
    "Descendent permissions:": ("-d",),
    "Descendant permissions:": ("-d",),
    "Local+Descendent permissions:": (),
    "Local+Descendant permissions:": (),
}


def grants(text: str, dataset: str) -> Iterator[list[str]]:
    """Yield the arguments of `zfs allow`, without the dataset, for all that is granted on the dataset itself.

    Raises ToolError for a line that cannot be read.
    """
    here = False
    section: str | None = None
    for line in text.split("\n"):
        heading = _HEADING.fullmatch(line)
        if heading:
            here, section = heading.group("name") == dataset, None
        elif not here or not line.strip():
            continue
        elif line in _SECTIONS:
            section = line
        elif line.startswith("\t") and section is not None:
            yield _grant(section, line.strip().split(" "), line)
        else:
            raise _unreadable(line)


def _grant(section: str, words: Sequence[str], line: str) -> list[str]:
    options = _SECTIONS[section]
    if options is None:
        if len(words) == 2 and words[0].startswith("@"):
            return ["-s", *words]
    elif section.startswith("Create"):
        if len(words) == 1:
            return [*options, *words]
    elif words[0] == "everyone" and len(words) == 2:
        return [*options, "-e", words[1]]
    elif words[0] in ("user", "group") and len(words) >= 3:
        # A name that the system does not know any more is shown as "(unknown: 1234)"; its number serves as well.
        found = re.fullmatch(r"\(unknown: (\d+)\)", " ".join(words[1:-1]))
        return [*options, f"-{words[0][0]}", found.group(1) if found else " ".join(words[1:-1]), words[-1]]
    raise _unreadable(line)


def grant_again(zfs: Zfs, source: str, aim: str) -> None:
    """Grant on one dataset what is granted on another. Raises ToolError."""
    attempt = f"grant on {aim} what is granted on {source}"
    printed = zfs.run("allow", source, attempt=attempt).stdout
    for arguments in grants(printed, source):
        zfs.run("allow", *arguments, aim, attempt=attempt)


def _unreadable(line: str) -> ToolError:
    return ToolError(
        "read what zfs allow has granted", f"this line cannot be read: {line[:200]!r}", "look at it with `zfs allow`"
    )
