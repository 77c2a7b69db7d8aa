"""Mutated archives against the gate: it returns, or raises one of its problems, soon and small.

    python -m tests.attacks.fuzz --count 20000

What it lets through must be written anew to a file that it lets through to the same bytes. A
mutation is known by its number, so a finding is repeated with `--first N --count 1`.
"""

from __future__ import annotations

import argparse
import faulthandler
import resource
import sys
import tempfile
import time
from collections import Counter
from functools import cache
from pathlib import Path

from service.models.archive_gate import (
    ArchiveRefused,
    NotTorchScript,
    OperatorRefused,
    check_archive,
)
from service.uploads.zip_check import ZipLimits
from tests.attacks.archives import good, saved
from tests.attacks.let_in import Named
from tests.attacks.mutations import mutated

LIMITS = ZipLimits(entries=10_000, ratio=200, unpacked_bytes=2**28)
SECONDS = 20
MEMORY_BYTES = 2**30


@cache
def seeds() -> tuple[bytes, ...]:
    """What is mutated; names of layers among it that need `getattr`."""
    return good(), saved(Named().eval())


def outcome(number: int, folder: Path) -> str:
    """What the gate says of one mutation: `passed`, or the type of its problem.

    Raises:
        Exception: a defect of the gate.
    """
    upload, kept = folder / "upload.pt", folder / "kept.pt"
    upload.write_bytes(mutated(number, seeds()))
    copy, again = bytearray(), bytearray()
    try:
        check_archive(upload, LIMITS, copy.extend)
    except (ArchiveRefused, NotTorchScript, OperatorRefused) as problem:
        return problem.type
    kept.write_bytes(copy)
    check_archive(kept, LIMITS, again.extend)
    assert again == copy, "the copy of the copy is another"
    return "passed"


def run(first: int, count: int) -> tuple[Counter[str], float]:
    """Outcomes of a run of numbers, and the longest time one took; a stuck one ends the process."""
    counts: Counter[str] = Counter()
    longest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            began = time.process_time()
            try:
                counts[outcome(number, Path(folder))] += 1
            except BaseException:
                sys.stderr.write(f"mutation {number}\n")
                raise
            longest = max(longest, time.process_time() - began)
    faulthandler.cancel_dump_traceback_later()
    return counts, longest


def main() -> None:
    """Run and say what came."""
    parser = argparse.ArgumentParser(prog="python -m tests.attacks.fuzz")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=20_000)
    arguments = parser.parse_args()
    seeds()  # torch is large; what is measured is what the gate adds
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    counts, longest = run(arguments.first, arguments.count)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < MEMORY_BYTES
    told = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    sys.stdout.write(
        f"{sum(counts.values())} archives in {time.monotonic() - began:.0f} s: {told}. "
        f"Longest {longest:.2f} s of CPU, {grown / 1024:.0f} MiB more memory.\n"
    )


if __name__ == "__main__":
    main()
