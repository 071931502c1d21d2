# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The key `export` of a policy: what its destinations mean, and every fault with its place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.retention import parse_policy
from ansible_collections.restorepoint.core.plugins.module_utils.engine.exports import RESTIC_KEEP
from ansible_collections.restorepoint.core.plugins.module_utils.engine.policy import InvalidPolicies, parse_policies

ZFS_TARGET = {"backend": "zfs", "dataset": ["tank/a"]}
HOST_TARGET = {"backend": "hostpath", "path": ["/srv/a"], "store": "/var/store"}
ZFS = {"kind": "zfs", "dataset": "vault/a"}
FILE = {"kind": "file", "path": "/mnt/nas"}
RESTIC = {"kind": "restic", "repository": "/mnt/restic", "password_file": "/etc/restorepoint/restic"}
SSH = {"host": "nas.example.org", "user": "backup", "port": 2222, "key_file": "/k", "known_hosts": "/h"}


SFTP = {**RESTIC, "repository": "sftp:backup@nas:/srv/restic"}


def parsed(*destinations, targets=(ZFS_TARGET,)):
    policies = [{"name": "nightly", "targets": list(targets), "export": list(destinations)}]
    return parse_policies({"policies": policies})[0].exports


def faults(*destinations, targets=(ZFS_TARGET,)):
    with pytest.raises(InvalidPolicies) as caught:
        parsed(*destinations, targets=targets)
    return {each.place: each.reason for each in caught.value.faults}


def test_a_destination_has_the_name_of_its_kind_takes_all_targets_and_gives_way_unless_it_says_otherwise():
    zfs, file, restic = parsed(ZFS, FILE, RESTIC)
    assert [each.name for each in (zfs, file, restic)] == ["zfs", "file", "restic"]
    assert {each.backends for each in (zfs, file, restic)} == {("zfs",)}
    assert {(each.bandwidth, each.idle) for each in (zfs, file, restic)} == {(None, True)}
    assert (zfs.params["properties"], zfs.params["newest_only"], zfs.params["ssh"]) == (True, False, None)
    assert (file.params["compression"], file.params["whole_after"], file.params["chains"]) == ("zstd", 30, 2)
    assert (restic.params["init"], restic.params["prune"], restic.params["keep"]) == (False, False, None)


def test_what_is_given_is_what_is_meant():
    given = {"name": "vault", "bandwidth_limit": "20M", "idle": False, "ssh": SSH, "newest_only": True}
    (found,) = parsed({**ZFS, **given})
    assert (found.kind, found.name, found.bandwidth, found.idle) == ("zfs", "vault", 20 << 20, False)
    assert found.params["ssh"] == SSH
    assert found.params["newest_only"] is True
    (found,) = parsed({**ZFS, "ssh": {"host": "nas"}})
    assert found.params["ssh"] == {"host": "nas", "user": None, "port": None, "key_file": None, "known_hosts": None}
    (found,) = parsed({**RESTIC, "password_file": None, "password_command": ["pass", "show", "x"]})
    assert found.params["password_command"] == ["pass", "show", "x"]


def test_a_zfs_destination_has_keep_rules_as_a_policy_has_in_the_time_zone_of_its_own():
    (without,) = parsed(ZFS)
    assert without.retention is None
    rules: dict[str, Any] = {"keep": {"daily": 7, "within": "36h"}, "min_keep": 2, "min_age": "1h", "max_delete": "20%"}
    rules["require_recent"] = "2d"
    policy = {"name": "nightly", "targets": [ZFS_TARGET], "timezone": "Europe/Paris", "export": [{**ZFS, **rules}]}
    ((found,),) = [each.exports for each in parse_policies({"policies": [policy]})]
    assert found.retention == parse_policy(timezone="Europe/Paris", **rules)


def test_a_time_zone_that_is_none_is_told_once():
    policy = {"name": "nightly", "targets": [ZFS_TARGET], "timezone": "Paris", "export": [{**ZFS, "keep": {"last": 1}}]}
    with pytest.raises(InvalidPolicies) as caught:
        parse_policies({"policies": [policy]})
    assert [each.place for each in caught.value.faults] == ["policies[0].timezone"]


@pytest.mark.parametrize(
    ("repository", "host", "user", "port"),
    [
        ("sftp:nas:/srv/restic", "nas", None, None),
        ("sftp:backup@nas.example.org:restic/with:colon", "nas.example.org", "backup", None),
        ("sftp://nas/restic", "nas", None, None),
        ("sftp://backup@192.0.2.7:2222//srv/a repository", "192.0.2.7", "backup", 2222),
    ],
)
def test_a_repository_over_sftp_names_its_host_as_restic_reads_it(repository, host, user, port):
    (found,) = parsed({**SFTP, "repository": repository, "ssh": {"key_file": "/k"}})
    assert found.params["sftp"] == {"host": host, "user": user, "port": port}
    assert found.params["ssh"] == {"key_file": "/k", "known_hosts": None}
    assert "sftp" not in parsed(RESTIC)[0].params


def test_two_destinations_of_one_kind_need_names():
    place = "policies[0].export[1].name"
    assert faults(ZFS, {**ZFS, "dataset": "vault/b"}) == {place: "another destination is called 'zfs' already"}
    assert [each.name for each in parsed(ZFS, {**ZFS, "name": "other"})] == ["zfs", "other"]


def test_no_target_is_left_out_in_silence():
    both = (ZFS_TARGET, HOST_TARGET)
    reason = faults(FILE, targets=both)["policies[0].export[0].backends"]
    assert "file does not take targets of hostpath" in reason
    assert "name the others with backends: zfs" in reason
    assert [each.backends for each in parsed({**FILE, "backends": "zfs"}, RESTIC, targets=both)] == [
        ("zfs",),
        ("zfs", "hostpath"),
    ]
    unknown = faults({**RESTIC, "backends": ["lvm"]}, targets=both)
    assert unknown == {"policies[0].export[0].backends": "the policy has no target of lvm"}


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"backend": "csi", "namespace": "shop"}, "restic in a pod"),
        ({"backend": "pve", "vmid": ["100"], "api_host": "pve", "credentials_file": "/c"}, "vzdump"),
    ],
)
def test_what_no_destination_takes_is_told_the_way_that_it_has(target, words):
    assert words in faults(RESTIC, targets=(target,))["policies[0].export[0].backends"]


@pytest.mark.parametrize(
    ("destination", "key", "words"),
    [
        ({"kind": "s3"}, "kind", "there is no kind 's3'; there are zfs, file, restic"),
        ({}, "kind", "it is missing"),
        ("vault", "", "has to be a mapping"),
        ({**ZFS, "path": "/mnt"}, "path", "no such key"),
        ({**FILE, "pth": "/mnt"}, "pth", "did you mean path?"),
        ({**ZFS, "name": "Vault"}, "name", "1 to 23 characters"),
        ({**ZFS, "bandwidth_limit": "fast"}, "bandwidth_limit", "not a size"),
        ({**ZFS, "bandwidth_limit": 1000}, "bandwidth_limit", "less than 1K"),
        ({**ZFS, "idle": "yes"}, "idle", "true or false"),
        ({"kind": "zfs"}, "dataset", "it is missing"),
        ({**ZFS, "dataset": "vault/a@b"}, "dataset", "names a snapshot"),
        ({**ZFS, "ssh": "nas"}, "ssh", "has to be a mapping"),
        ({**ZFS, "ssh": {"user": "backup"}}, "ssh.host", "it is missing"),
        ({**ZFS, "ssh": {**SSH, "host": "-oProxyCommand=x"}}, "ssh.host", "characters that no such name has"),
        ({**ZFS, "ssh": {**SSH, "user": "a b"}}, "ssh.user", "characters that no such name has"),
        ({**ZFS, "ssh": {**SSH, "port": "22"}}, "ssh.port", "a number"),
        ({**ZFS, "ssh": {**SSH, "port": True}}, "ssh.port", "a number"),
        ({**ZFS, "ssh": {**SSH, "key_file": "id"}}, "ssh.key_file", "absolute path"),
        ({**ZFS, "ssh": {**SSH, "known_hosts": "hosts"}}, "ssh.known_hosts", "absolute path"),
        ({**ZFS, "ssh": {**SSH, "pasword": "x"}}, "ssh.pasword", "no such key"),
        ({**ZFS, "keep": 7}, "keep", "has to be a mapping"),
        ({**ZFS, "keep": {}}, "keep", "leave it out to keep everything"),
        ({**ZFS, "keep": {"last": 0}}, "keep", "leave it out to keep everything"),
        ({**ZFS, "keep": {"dayly": 1}}, "keep.dayly", "did you mean daily?"),
        ({**ZFS, "keep": {"daily": "x"}}, "keep.daily", "not a number"),
        ({**ZFS, "keep": {"daily": 1}, "max_delete": "200%"}, "max_delete", "more than all"),
        ({**ZFS, "max_delete": 3}, "max_delete", "without keep nothing is ever removed"),
        ({**FILE, "keep": {"daily": 1}}, "keep", "no such key"),
        ({"kind": "file"}, "path", "it is missing"),
        ({**FILE, "path": "nas"}, "path", "absolute path"),
        ({**FILE, "compression": "xz"}, "compression", "'xz' is none of zstd, lz4, gzip, none"),
        ({**FILE, "chains": 0}, "chains", "1 or more"),
        ({**FILE, "whole_after": -1}, "whole_after", "0 or more"),
        ({"kind": "restic", "password_file": "/p"}, "repository", "it is missing"),
        ({**RESTIC, "password_file": None}, "", "one of password_file and password_command"),
        ({**RESTIC, "password_command": ["pass"]}, "", "one of password_file and password_command"),
        ({**RESTIC, "password_file": None, "password_command": []}, "password_command", "a program with its arguments"),
        ({**RESTIC, "password_file": "p"}, "password_file", "absolute path"),
        ({**RESTIC, "password_file": None, "password_command": ["p", "'\""]}, "password_command", "cannot read"),
        ({**RESTIC, "ssh": {"key_file": "/k"}}, "ssh", "not reached over ssh"),
        ({**SFTP, "ssh": {"host": "nas"}}, "ssh.host", "no such key; the keys are key_file, known_hosts"),
        ({**SFTP, "ssh": {"key_file": "k"}}, "ssh.key_file", "absolute path"),
        ({**SFTP, "ssh": {"key_file": "/a b"}}, "ssh.key_file", "blanks or signs"),
        ({**SFTP, "repository": "sftp:-oProxyCommand=x:/a"}, "repository", "names no host"),
        ({**SFTP, "repository": "sftp:nas"}, "repository", "names no host"),
        ({**RESTIC, "environment_file": "e"}, "environment_file", "absolute path"),
        ({**RESTIC, "check": "some"}, "check", "5%, 1/10 or 500M"),
        ({**RESTIC, "prune": True}, "prune", "nothing to prune"),
        ({**RESTIC, "keep": {}}, "keep", "leave it out to keep everything"),
        ({**RESTIC, "keep": {"quarterly": 4}}, "keep.quarterly", "restic has no such rule"),
        ({**RESTIC, "keep": {"daily": 0}}, "keep.daily", "1 or more"),
        ({**RESTIC, "keep": {"daily": True}}, "keep.daily", "1 or more"),
        ({**RESTIC, "keep": {"within": "2 weeks"}}, "keep.within", "a span of restic's"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_place(destination, key, words):
    found = faults(destination)
    place = f"policies[0].export[0]{'.' if key else ''}{key}"
    assert list(found) == [place]
    assert words in found[place]


@examples(
    st.dictionaries(st.sampled_from([*RESTIC_KEEP, "x"]), st.one_of(st.integers(-1, 3), st.booleans(), st.text()))
)
def test_keep_rules_of_restic_are_taken_as_they_are_or_refused_one_by_one(rules):
    sound = {
        name
        for name, value in rules.items()
        if name in RESTIC_KEEP
        and name != "within"
        and isinstance(value, int)
        and not isinstance(value, bool)
        and value >= 1
    }
    try:
        (found,) = parsed({**RESTIC, "keep": rules})
    except InvalidPolicies as error:
        named = {each.place.rpartition(".")[2] for each in error.faults}
        assert (named == {"keep"}) if not rules else not named & sound
    else:
        assert found.params["keep"] == rules
        assert set(rules) - {"within"} == sound
