# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files with passwords: whoever else can read them, they are refused, and never shown."""

from __future__ import annotations

import os

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils import secret_files
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import InvalidInput


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "secret"
    path.write_text("word")
    path.chmod(0o600)
    return path


def test_a_file_of_our_own_is_read(file):
    secret_files.check(str(file), "log in")
    assert secret_files.read(str(file), "log in") == "word"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o777])
def test_a_file_that_others_can_reach_is_refused(file, mode):
    file.chmod(mode)
    with pytest.raises(InvalidInput) as caught:
        secret_files.read(str(file), "log in")
    assert f"{mode:04o}" in str(caught.value)
    assert "chmod 0600" in str(caught.value)
    assert "word" not in str(caught.value)


def test_what_is_missing_or_no_file_is_said(file, tmp_path):
    for path, words in ((tmp_path / "none", "No such file"), (tmp_path, "no regular file")):
        with pytest.raises(InvalidInput, match=words):
            secret_files.check(str(path), "log in")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    with pytest.raises(InvalidInput, match="no regular file"):
        secret_files.check(str(pipe), "log in")


def test_what_is_no_text_is_not_shown(file):
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="cannot be read as text"):
        secret_files.read(str(file), "log in")
