"""Prune trained networks, recover them with and without a teacher, and keep the figures.

    python -m bench.recovery                        # all that has no record yet
    python -m bench.recovery --task digits_vgg --seeds 1
    python -m bench.recovery --task language --variant dense --variant 'mixed*' --again

Every run adds a record to `bench/recovery/results.jsonl`; runs that have one are left out. Dense
networks are kept in `build/recovery`. The page is written by `python -m bench.recovery.table`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

import torch

from bench.machine import description
from bench.recovery.dense import KEPT, judged, trained
from bench.recovery.jobs import recover
from bench.recovery.records import RESULTS, Record, append, load
from bench.recovery.task import Part, Task
from bench.recovery.tasks import TASKS, variants_of
from bench.recovery.variants import Variant

SEEDS = 3
_VALIDATION = "`validation` to choose settings on, with results in a file of their own"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for and has no record, seed by seed."""
    parser = argparse.ArgumentParser(prog="python -m bench.recovery")
    parser.add_argument("--task", action="append", choices=list(TASKS))
    parser.add_argument("--variant", action="append", help="pattern over names, or `dense`")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="also what has a record")
    parts = ("test", "validation")
    parser.add_argument("--measured-on", choices=parts, default="test", help=_VALIDATION)
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args(arguments)
    if chosen.measured_on != "test" and chosen.results == RESULTS:
        parser.error("figures of the validation part are no results: name a file by `--results`")
    torch.set_num_threads(1)
    finished = [] if chosen.again else load(chosen.results)
    for seed in range(chosen.first_seed, chosen.first_seed + chosen.seeds):
        for task in TASKS.values():
            if chosen.task is None or task.name in chosen.task:
                for variant in pending(task, seed, finished, chosen.variant or ["*"]):
                    started = time.process_time()
                    record = run(task, variant, seed, measured_on=chosen.measured_on)
                    append(record, chosen.results)
                    print(line_of(record, time.process_time() - started), flush=True)


def pending(
    task: Task, seed: int, finished: Sequence[Record], patterns: Sequence[str] = ("*",)
) -> Iterator[Variant | None]:
    """Variants without a record, the dense network (None) first."""
    there = {record.key for record in finished}
    for variant in (None, *variants_of(task)):
        name = "dense" if variant is None else variant.name
        wanted = any(fnmatch(name, pattern) for pattern in patterns)
        if wanted and (task.name, name, seed) not in there:
            yield variant


def run(
    task: Task,
    variant: Variant | None,
    seed: int,
    *,
    measured_on: Part = "test",
    folder: Path = KEPT,
) -> Record:
    """The record of one run; of the dense network where there is no variant."""
    dense, seconds = trained(task, seed, folder)
    if variant is None:
        figures = judged(dense, task, measured_on)
        figures |= {"epochs": task.dense.epochs, "training_seconds": seconds}
        return Record(task.name, "dense", seed, figures, description("scikit-learn"))
    outcome = recover(task, variant, dense, seed=seed, measured_on=measured_on)
    before, after = outcome.report.before, outcome.report.after
    figures = outcome.figures | {
        "epochs": variant.epochs(task),
        "training_seconds": outcome.recovery_seconds,
        "parameters_before": before.parameters,
        "parameters": after.parameters,
        "macs_before": before.macs,
        "macs": after.macs,
        "file_bytes_before": before.file_bytes,
        "file_bytes": after.file_bytes,
    }
    return Record(task.name, variant.name, seed, figures, description("scikit-learn"))


def line_of(record: Record, seconds: float) -> str:
    """What is printed for a run."""
    shown = {name: record.figures[name] for name in record.figures if "bytes" not in name}
    figures = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
    return f"{record.task} {record.variant} seed {record.seed}  {seconds:.1f} s  {figures}"


if __name__ == "__main__":
    main()
