"""Try the claims of papers on scikit-learn's digits.

    python -m bench.papers                       # all that has no record yet
    python -m bench.papers --only han --seeds 5
    python -m bench.papers --only han --variant 'lenet_5/*' --again

Every run adds a record to `bench/papers/results.jsonl`; runs that have one are left out. The page
is written by `python -m bench.papers.table`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from bench.machine import description
from bench.papers.claim import Claim
from bench.papers.claims import claims
from bench.papers.jobs import FULL, Scale
from bench.papers.records import RESULTS, Record, append, load

SEEDS = 5
_VALIDATION = "`validation` to choose settings on, with results in a file of their own"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for and has no record."""
    known = claims()
    parser = argparse.ArgumentParser(prog="python -m bench.papers")
    parser.add_argument("--only", action="append", choices=sorted(known), help="a claim")
    parser.add_argument("--variant", default="*", help="pattern over the claim's variants")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="0, 1 .. of every variant")
    parser.add_argument("--again", action="store_true", help="also what has a record")
    parts = ("test", "validation")
    parser.add_argument("--measured-on", choices=parts, default="test", help=_VALIDATION)
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args(arguments)
    if chosen.measured_on != "test" and chosen.results == RESULTS:
        parser.error("figures of the validation part are no results: name a file by `--results`")
    scale = Scale(measured_on=chosen.measured_on)
    for claim in known.values():
        if chosen.only is None or claim.name in chosen.only:
            work = pending(
                claim,
                seeds=chosen.seeds,
                pattern=chosen.variant,
                finished=[] if chosen.again else load(chosen.results),
            )
            for variant, seed in work:
                record = run(claim, variant, seed, scale)
                append(record, chosen.results)
                print(line_of(record), flush=True)


def pending(
    claim: Claim, *, seeds: int, finished: Sequence[Record], pattern: str = "*"
) -> Iterator[tuple[str, int]]:
    """Variants and seeds without a record, seed by seed: variants of a seed share trained networks.

    Args:
        claim: whose.
        seeds: how many.
        finished: records that there are.
        pattern: of the variants.
    """
    there = {record.key for record in finished}
    for seed in range(seeds):
        for variant in claim.variants:
            if fnmatch(variant, pattern) and (claim.name, variant, seed) not in there:
                yield variant, seed


def run(claim: Claim, variant: str, seed: int, scale: Scale = FULL) -> Record:
    """The record of one run."""
    started = time.monotonic()
    figures = claim.run(variant, seed, scale)
    seconds = round(time.monotonic() - started, 2)
    return Record(claim.name, variant, seed, figures, seconds, description("scikit-learn"))


def line_of(record: Record) -> str:
    """What is printed for a run."""
    figures = "  ".join(f"{name} {value:.4g}" for name, value in record.figures.items())
    head = f"{record.claim} {record.variant} seed {record.seed}"
    return f"{head:60s} {record.seconds:6.1f} s  {figures}"


if __name__ == "__main__":
    main()
