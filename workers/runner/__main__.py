"""`python -m workers.runner --job job.json --events-fd N --parent PID`.

Exit status: 0 when the job succeeded or failed in a way that was said on the events descriptor,
143 when a SIGTERM ended it, anything else when the runner itself is at fault.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from engine.parent_death import die_with_parent
from workers.instructions import Instructions

_TERMINATED = 128 + signal.SIGTERM


def main() -> int:
    """Run the job; the guardian that started this process has put up the fences."""
    parser = argparse.ArgumentParser(prog="python -m workers.runner")
    parser.add_argument("--job", type=Path, required=True, help="instructions, a JSON file")
    parser.add_argument("--events-fd", type=int, required=True, help="where JSON lines go")
    parser.add_argument("--parent", type=int, required=True, help="pid of the supervisor")
    arguments = parser.parse_args()
    # SystemExit unwinds Python code, so that temporary files go; a program that never comes back
    # to Python is killed after the grace time
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    die_with_parent(arguments.parent)
    instructions = Instructions.model_validate_json(arguments.job.read_bytes())
    # imported late: this brings in torch
    from workers.runner.execution import execute  # noqa: PLC0415

    with open(arguments.events_fd, "wb", buffering=0) as events:  # noqa: PTH123 (a descriptor)
        execute(instructions, events)
    return 0


if __name__ == "__main__":
    sys.exit(main())
