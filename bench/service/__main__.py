"""All parts, one after the other, each in a process of its own: `python -m bench.service`."""

from __future__ import annotations

import subprocess
import sys

PARTS = ("upload", "polling", "queue", "overhead")


def main() -> int:
    """Run every part; 0 when all targets are met."""
    missed: list[str] = []
    for part in PARTS:
        print(f"\n== {part} ==", flush=True)
        done = subprocess.run([sys.executable, "-m", f"bench.service.{part}"], check=False)
        if done.returncode != 0:
            missed.append(part)
    print(f"\nmissed targets: {', '.join(missed)}" if missed else "\nall targets met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
