"""Where a worker begins: CONTROL_FD SUPERVISOR_PID LOG_FD CRASH_FD CONFINEMENT.

The sandbox comes before everything else, NumPy and what it may start included: Landlock binds the thread that asks for
it and those that come later.
"""

from __future__ import annotations

import os
import sys

from predictd.server.launch.sandbox.confinement import confinement_from_json
from predictd.server.launch.sandbox.enter import enter


def main() -> None:
    """Enter the sandbox, then work."""
    confinement = confinement_from_json(sys.argv[5])
    if confinement is not None:
        failed = enter(confinement, os.environ)
        for reason in failed:
            print(f"the sandbox is not complete: {reason}", file=sys.stderr)  # noqa: T201 - the supervisor logs it
        if failed and confinement.required:
            sys.exit("a complete sandbox is required (worker_sandbox)")
    from predictd.server.worker.main import main as work

    work()


if __name__ == "__main__":
    main()
