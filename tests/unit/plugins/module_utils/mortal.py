# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A login to Kubernetes that dies, for tests that kill a run at each of its requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.restorepoint.core.plugins.module_utils.kube import KubeClient


class Killed(BaseException):
    """What becomes of a run that is killed: nothing of it is carried out any more."""


class Mortal(KubeClient):
    """Dies before its nth request, or after it without having heard the answer. ``more`` is for KubeClient."""

    def __init__(self, options: Mapping[str, Any], last: int | None = None, heard: bool = False, **more: Any) -> None:
        super().__init__(options, **more)
        self._last = last
        self._heard = heard

    def _send(self, call: Any, timeout: float) -> Any:
        if self._last is not None and self.requests >= self._last:
            # A watch changes nothing, so it makes no difference whether its answer was heard.
            if self._heard and self.requests == self._last and call.verb != "watch":
                super()._send(call, timeout)
            raise Killed
        return super()._send(call, timeout)
