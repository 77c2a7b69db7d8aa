"""`python -m service.embedded --port P --data-dir D`: an embedded server in the foreground."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from service.embedded.problems import CannotStart
from service.embedded.supervisor import Supervisor


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Serve until stopped; 1 when it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m service.embedded", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--data-dir", type=Path, default=Path(".secateur"))
    arguments = parser.parse_args()
    if not 0 <= arguments.port <= 65535:
        parser.error("--port must lie between 0 and 65535")
    try:
        Supervisor(arguments.data_dir, arguments.port, _say).run()
    except CannotStart as error:
        sys.stderr.write(f"secateur: {error.reason}\n{error.hint}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
