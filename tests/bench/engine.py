# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the directory backend once, from the command line, as a module does but without Ansible: what is measured.

    engine.py present   TARGET STORE NAME
    engine.py rolled_back TARGET STORE NAME
    engine.py absent    TARGET STORE NAME

Prints one line of JSON: what was done, and the peak memory in KiB. Exits with 1, and the message, on a failure.
"""

from __future__ import annotations

import json
import resource
import sys
import time

from ansible_collections.restorepoint.core.plugins.module_utils.backends.hostpath.backend import HostpathBackend
from ansible_collections.restorepoint.core.plugins.module_utils.backends.hostpath.options import (
    HostpathOptions,
    HostTarget,
)
from ansible_collections.restorepoint.core.plugins.module_utils.core.backend import Desired
from ansible_collections.restorepoint.core.plugins.module_utils.core.errors import Blocked, RestorePointError
from ansible_collections.restorepoint.core.plugins.module_utils.core.plan import make_plan
from ansible_collections.restorepoint.core.plugins.module_utils.core.run import Run, RunFailed


def main() -> int:
    state, target, store, name = sys.argv[1:5]
    options = HostpathOptions(now=lambda: int(time.time()))
    backend = HostpathBackend([HostTarget(target)], store, options)
    desired = Desired(state=state, name=name)
    try:
        backend.check(desired)
        with backend.session(writing=True):
            situations = backend.situations(desired)
            plan = make_plan(desired, situations, options.now())
            if plan.blockers:
                raise Blocked(state, plan.blockers)
            run = Run(backend, lambda change, outcome: {}, time.monotonic, keep_partial=False)
            results = run.carry_out(plan)
    except (RestorePointError, RunFailed) as error:
        print(error, file=sys.stderr)
        return 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"actions": [each["action"] for each in results], "peak_kib": peak}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
