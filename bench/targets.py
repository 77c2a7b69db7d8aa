"""Targets: what is asked of a prune stage and what it reaches, of every cost.

Two small networks are traced and brought to half of their parameters, multiply-accumulates, bytes
and milliseconds by whole jobs, in one shot without training. Milliseconds are asked as a share of
the dense model's median, several times, because a measured time is not the same twice: shown are
what the search itself measured of the candidate that it took (in turns with the dense model) and
what the job measured of its result at its end (again in turns).

    python -m bench.targets [--share 0.5] [--repeats 3] [--batch-size 8] [--runs 40]
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from secateur.recipe import Recipe
from secateur.report import Report, TargetReport

from bench.accuracy.networks import NETWORKS, SIDE
from bench.machine import description
from bench.papers.jobs import Bystander
from engine.job import JobInput
from engine.pipeline import compress

COUNTED = ("params", "macs", "bytes")
CHOSEN = ("vgg", "resnet")


def traced(name: str, folder: Path) -> Path:
    """The file of a network with random weights."""
    torch.manual_seed(0)
    network = NETWORKS[name].build().eval()
    file = folder / f"{name}.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(network, torch.randn(2, 1, SIDE, SIDE)), file)
    return file


def pruned(
    model: Path, target: dict[str, Any], folder: Path, options: argparse.Namespace
) -> Report:
    """The report of a job with this target."""
    recipe = Recipe.model_validate(
        {
            "inputs": [{"shape": [2, 1, SIDE, SIDE]}],
            "stages": [{"stage": "prune", "allocation": {"scope": "global", "target": target}}],
            "measure": {"batch_sizes": [options.batch_size], "runs": options.runs},
        }
    )
    with TemporaryDirectory(dir=folder) as workdir:
        job = JobInput(model=model, recipe=recipe, workdir=Path(workdir), threads=1)
        return compress(job, Bystander()).report


def counted(model: Path, of: str, folder: Path, options: argparse.Namespace) -> str:
    """A row of a cost that can be counted."""
    [target] = pruned(model, {"of": of, "share": options.share}, folder, options).targets
    reached = target.reached or 0.0
    return (
        f"{of} | {target.before:,.0f} | {target.asked:,.0f} | {reached:,.0f} | "
        f"{reached / target.before:.3f} | | |"
    )


def timed(model: Path, folder: Path, options: argparse.Namespace) -> str:
    """A row of milliseconds: medians of the repeats."""
    found: list[TargetReport] = []
    ends: list[float] = []
    seconds: list[float] = []
    for _ in range(options.repeats):
        started = time.monotonic()
        target = {"of": "latency_ms", "share": options.share, "batch_size": options.batch_size}
        report = pruned(model, target, folder, options)
        seconds.append(time.monotonic() - started)
        found.extend(report.targets)
        ends.append(report.after.latency_ms[0].p50 / report.before.latency_ms[0].p50)
    spread = ", ".join(f"{share:.3f}" for share in sorted(ends))
    return (
        f"latency_ms | {median(one.before for one in found):.3f} | "
        f"{median(one.asked for one in found):.3f} | "
        f"{median(one.reached or 0.0 for one in found):.3f} | "
        f"{median((one.reached or 0.0) / one.before for one in found):.3f} | "
        f"{median(ends):.3f} ({spread}) | "
        f"{median(one.measured for one in found):.0f} in {median(seconds):.0f} s |"
    )


def main() -> None:
    """Run it and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--runs", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | cost | before | asked | reached | share | at the end | measured |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    with TemporaryDirectory() as place:
        folder = Path(place)
        for name in CHOSEN:
            model = traced(name, folder)
            for of in COUNTED:
                print(f"| {name} | {counted(model, of, folder, options)}", flush=True)
            print(f"| {name} | {timed(model, folder, options)}", flush=True)
    print()
    print(
        f"batch size {options.batch_size}, {options.runs} runs, {options.repeats} repeats; "
        + description()
    )


if __name__ == "__main__":
    main()
