# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What restic is told, what it answers, and what nobody gets to see."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput, ToolError
from ansible_collections.restorepoint.core.plugins.module_utils.core.offsite import restic_line
from ansible_collections.restorepoint.core.plugins.module_utils.offsite.restic import (
    parse_environment,
    parse_forgotten,
    parse_snapshots,
    parse_summary,
    sftp_command,
    way_out,
)

ROW = {
    "id": "abc",
    "time": "2026-11-26T02:00:01.123456789Z",
    "paths": ["/run/restorepoint/off-site/hostpath/etc/shop"],
    "tags": ["restorepoint", "policy=shop", "target=hostpath:/etc/a%2Cb", "name=shop-1"],
}


def test_variables_are_read_as_they_stand():
    text = "# the bucket\nAWS_ACCESS_KEY_ID=id\n\nAWS_SECRET_ACCESS_KEY='a = b'\nEMPTY=\n"
    assert parse_environment(text, "f") == {
        "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "a = b", "EMPTY": "",
    }  # fmt: skip


def test_a_line_that_is_no_variable_is_named_by_its_number_and_not_shown():
    with pytest.raises(InvalidInput, match="line 2") as caught:
        parse_environment("A=1\nexport hunter2\n", "f")
    assert "hunter2" not in str(caught.value)


def test_snapshots_of_others_are_passed_over():
    rows = [ROW, {**ROW, "tags": ["somebody"]}, {**ROW, "tags": None}, {**ROW, "tags": ["restorepoint"]}]
    (found,) = parse_snapshots(json.dumps(rows), "list")
    assert (found.target, found.name, found.created) == ("hostpath:/etc/a,b", "shop-1", 1795658401)
    assert parse_snapshots("null", "list") == []


@pytest.mark.parametrize("text", ["", "{", '[{"tags": ["restorepoint", "policy=a", "target=b", "name=c"]}]', "[5]"])
def test_a_list_that_cannot_be_read_is_an_error_never_an_empty_one(text):
    with pytest.raises(ToolError):
        parse_snapshots(text, "list")


def test_the_summary_is_found_among_the_lines():
    summary = {"message_type": "summary", "snapshot_id": "abc", "total_bytes_processed": 10, "data_added": 5}
    text = '{"message_type":"status"}\n{"summary": broken\n' + json.dumps(summary) + "\n"
    assert parse_summary(text, "export") == summary
    with pytest.raises(ToolError):
        parse_summary('{"message_type":"status"}\n', "export")


def test_what_was_forgotten_is_counted_over_all_groups():
    assert parse_forgotten('[{"remove": [{}, {}]}, {"remove": null}]', "forget") == 2
    assert parse_forgotten("", "forget") == 0
    with pytest.raises(ToolError):
        parse_forgotten("nonsense", "forget")


SSH = "ssh does not get to SFTP on nas: "
OPEN = "`restic snapshots --json` failed with exit code 1: Fatal: unable to open config file: "
ASKED = "; Is there a repository at the following location?; ***"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (OPEN + "stat /mnt/nas/config: no such file or directory" + ASKED, "init: true"),
        (OPEN + "Lstat: file does not exist" + ASKED, "init: true"),
        (OPEN + "<config/> does not exist" + ASKED, "init: true"),
        (OPEN + "Stat: The specified key does not exist." + ASKED, "init: true"),
        (OPEN + "Stat: The specified bucket does not exist" + ASKED, "init: true"),
        ("`restic snapshots` failed with exit code 10: Fatal: repository does not exist", "init: true"),
        (OPEN + "Stat: The Access Key Id you provided does not exist in our records." + ASKED, "what it logs in with"),
        (OPEN + "Stat: The request signature we calculated does not match" + ASKED, "what it logs in with"),
        (OPEN + "Stat: Access Denied." + ASKED, "what it logs in with"),
        (OPEN + "unexpected HTTP response (401): 401 Unauthorized" + ASKED, "what it logs in with"),
        (OPEN + "Stat: Get ***: dial tcp 127.0.0.1:9: connect: connection refused" + ASKED, "see that the host is up"),
        (OPEN + "Stat: Get ***: dial tcp: lookup nas: no such host" + ASKED, "see that the host is up"),
        (SSH + "ssh: connect to host nas port 22: Connection timed out", "see that the host is up"),
        (SSH + "Host key verification failed.", "put it into known_hosts"),
        (SSH + "root@nas: Permission denied (publickey).", "into authorized_keys there"),
        ("`restic snapshots` failed with exit code 1: Fatal: wrong password or no key found", "put the repository's"),
    ],
)  # fmt: skip
def test_what_restic_complains_about_has_its_own_way_out_whatever_it_asks_afterwards(said, words):
    assert words in str(way_out(said))


def test_what_stands_in_the_command_is_no_complaint():
    assert way_out("`restic backup --tag name=connection-refused` failed with exit code 1: Fatal: it is broken") is None


def split_as_restic(text):
    """Return the words that restic makes of a command: its own rules, character by character."""
    words, begun, quote, last = [], -1, "", ""
    for number, sign in enumerate(text):
        splits = False
        if last != "\\" and quote and sign == quote:
            quote, splits = "", True
        elif last != "\\" and not quote and sign in "'\"":
            quote, splits = sign, True
        else:
            last = sign
            splits = not quote and (sign == "\\" or sign.isspace())
        if splits and begun >= 0:
            words.append(text[begun:number])
            begun = -1
        elif not splits and begun < 0:
            begun = number
    assert not quote
    return words + ([text[begun:]] if begun >= 0 else [])


@given(st.lists(st.text("ab/-=. \t'\"\\$", max_size=6), min_size=1, max_size=5))
def test_restic_reads_each_word_of_a_command_as_it_is_or_it_is_refused(words):
    try:
        line = restic_line(words)
    except InvalidInput:
        assert any(not word or {"'", '"'} <= set(word) or word.endswith("\\") or "\\" in word for word in words)
    else:
        assert split_as_restic(line) == words


def test_ssh_is_started_as_every_other_export_starts_it():
    params = {"ssh": {"key_file": "/k", "known_hosts": "/h"}, "sftp": {"host": "nas", "user": "backup", "port": 2222}}
    words = sftp_command(params)
    assert split_as_restic(restic_line(words)) == words
    assert words[0] == "ssh"
    assert words[-4:] == ["-s", "--", "nas", "sftp"]
    for given_words in (["-p", "2222"], ["-l", "backup"], ["-i", "/k"], ["-o", "UserKnownHostsFile=/h"]):
        assert given_words == words[words.index(given_words[1]) - 1 : words.index(given_words[1]) + 1]
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=30"} <= set(words)
    assert sftp_command({"ssh": None}) == []
