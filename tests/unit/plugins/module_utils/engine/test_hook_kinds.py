# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keys of hooks for databases and workloads, and every way to get them wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.engine import hook_kinds
from ansible_collections.restorepoint.core.plugins.module_utils.engine.policy import InvalidPolicies, parse_policies

TARGETS = [{"backend": "zfs", "dataset": ["tank/shop"]}]


def hook_of(**keys):
    (found,) = parse_policies({"policies": [{"name": "shop", "targets": TARGETS, "hooks": [keys]}]})
    return found.hooks[0]


def test_a_hook_has_the_defaults_of_its_kind():
    found = hook_of(kind="postgresql")
    assert (found.params["database"], found.params["user"], found.timeout) == ("postgres", "postgres", 60)
    assert hook_of(kind="mariadb").params["lock"] == "backup"
    assert hook_of(kind="mysql", defaults_file="/etc/shop.cnf").params["lock"] == "tables"


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"kind": "postgresql", "passfile": "pass"}, "hooks[0].passfile: it has to be an absolute path"),
        ({"kind": "postgresql", "password": "x"}, "hooks[0].password: there is no such key"),
        ({"kind": "postgresql", "port": "5432"}, "hooks[0].port: it is a text, and has to be a number"),
        ({"kind": "mariadb", "port": 70000}, "hooks[0].port: there is no such port"),
        ({"kind": "mariadb", "lock": "none"}, "hooks[0].lock: 'none' is none of backup, tables"),
        ({"kind": "mysql", "lock": "backup"}, "hooks[0].lock: 'backup' is none of tables"),
        ({"kind": "mysql", "socket": "/a", "host": "b"}, "hooks[0].socket: name either the socket or the host"),
        ({"kind": "mysql", "user": "a\nb"}, "hooks[0].user: it holds characters that cannot be printed"),
        ({"kind": "workload", "workload": "deployment/web"}, "hooks[0].namespace: it is missing"),
        ({"kind": "workload", "namespace": "a b", "workload": "deployment/web"}, "hooks[0].namespace: that cannot be"),
        ({"kind": "workload", "namespace": "shop", "workload": "web"}, "hooks[0].workload: it has to be one of"),
        ({"kind": "workload", "namespace": "shop", "workload": "daemonset/web"}, "deployment/NAME, statefulset/NAME"),
        ({"kind": "mariadb", "path": "/srv"}, "hooks[0].path: there is no such key"),
    ],
)
def test_every_wrong_key_is_named(keys, fault):
    with pytest.raises(InvalidPolicies) as caught:
        hook_of(**keys)
    assert fault in str(caught.value)


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=2), max_size=2)


@given(st.data())
def test_whatever_a_hook_holds_it_is_understood_or_its_faults_are_named(data):
    kind = data.draw(st.sampled_from(sorted(hook_kinds.KINDS)))
    keys = data.draw(st.dictionaries(st.sampled_from(sorted(hook_kinds.KINDS[kind])), VALUES, max_size=4))
    try:
        found = hook_of(kind=kind, **keys)
    except InvalidPolicies as error:
        told = [each.place.rpartition(".")[2] for each in error.faults]
        assert set(told) <= {*keys, *(key for key, each in hook_kinds.KINDS[kind].items() if each.needed)}
    else:
        assert set(found.params) == set(hook_kinds.KINDS[kind])
        assert not list(hook_kinds.faults(found.params, hook_kinds.KINDS[kind]))
