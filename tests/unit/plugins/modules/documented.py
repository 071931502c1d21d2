# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module's documentation says of its options and its result. For the tests beside it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import yaml

FRAGMENTS = "ansible_collections.restorepoint.core.plugins.doc_fragments."
TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
}
#: What Ansible itself adds to a result.
OF_ANSIBLE = {"changed", "failed", "msg", "invocation", "warnings", "deprecations", "exception"}


def options(module: ModuleType) -> dict[str, Any]:
    """Return the documented options of a module, those of its fragments too."""
    own = yaml.safe_load(module.DOCUMENTATION)
    found: dict[str, Any] = {}
    for name in own.get("extends_documentation_fragment", []):
        file, _unused, part = name.replace("restorepoint.core.", "", 1).partition(".")
        fragment = importlib.import_module(FRAGMENTS + file).ModuleDocFragment
        text = getattr(fragment, (part or "documentation").upper())
        found.update(yaml.safe_load(text).get("options") or {})
    return {**found, **own["options"]}


def differences(spec: Mapping[str, Any], documented: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Yield how the options of an argument spec differ from those that are documented."""
    for name in sorted(set(spec) ^ set(documented)):
        yield f"{where}{name} is {'not documented' if name in spec else 'no option'}"
    for name in sorted(set(spec) & set(documented)):
        option, words = spec[name], documented[name]
        for member, unset in (("type", "str"), ("elements", None), ("choices", None), ("default", None),
                              ("required", False), ("aliases", None)):  # fmt: skip
            is_, said = option.get(member, unset), words.get(member, unset)
            if (is_ or None) != (said or None):
                yield f"{where}{name}: {member} is {is_!r}, and documented as {said!r}"
        yield from differences(option.get("options") or {}, words.get("suboptions") or {}, f"{where}{name}.")


def faults(result: Mapping[str, Any], documented: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Yield what a result holds that its documentation does not say."""
    for name, value in result.items():
        if not where and name in OF_ANSIBLE:
            continue
        if name not in documented:
            yield f"{where}{name} is not documented: {value!r}"
        elif value is not None:
            yield from _value_faults(value, documented[name], where + name)


def _value_faults(value: Any, words: Mapping[str, Any], where: str) -> Iterator[str]:
    kind: str = words["type"]
    known: Any = value
    if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
        yield f"{where} is no {kind}: {value!r}"
    elif kind == "list":
        for each in known:
            yield from _value_faults(each, {**words, "type": words["elements"]}, f"{where}[]")
    elif kind == "dict" and "contains" in words:
        yield from faults(known, words["contains"], f"{where}.")


def missing(result: Mapping[str, Any], documented: Mapping[str, Any]) -> list[str]:
    """Return what is documented to be always there, and is not."""
    return [name for name, words in documented.items() if words["returned"] == "always" and name not in result]
