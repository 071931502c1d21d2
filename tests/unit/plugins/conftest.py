# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of plugins share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A self-signed certificate for loopback, with its key, for servers of the tests. To make one takes a while."""
    # Imported here: most tests need no server, nor the library that makes certificates.
    from ansible_collections.restorepoint.core.tests.unit.plugins.module_utils.fake_kube import make_certificate

    return make_certificate(tmp_path_factory.mktemp("tls"), "127.0.0.1", "localhost")
