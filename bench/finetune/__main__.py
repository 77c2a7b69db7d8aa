"""Samples a second while fine-tuning, beside an eager loop, by turns in the same process.

On a CPU the clock is the processor time of the process, on one thread: other work on the machine
hardly shows in it. A block is an epoch of a few steps. What is inside a block of ours: the order of
the samples, batches, steps, the metrics of the epoch, the weights shown to the evaluation copy and
the state that a checkpoint would write. What is not: exporting and loading, and validation, on
both sides.

`python -m bench.finetune [--only resnet18] [--rounds 15] [--part masks]`. On a machine with CUDA it
also trains in mixed precision against the float32 loop; there the clock is wall time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.finetune import eager, ours
from bench.finetune.networks import NETWORKS, Network
from bench.finetune.turns import rounds
from bench.machine import description
from engine.training.finetune import finetune
from engine.training.state import TrainingState

# How often a job writes checkpoints within an epoch: see `engine.pipeline.pace`.
_LEAST_SECONDS, _SHARE = 10.0, 0.03
RESULTS = Path(__file__).parent / "results.json"


def compare(network: Network, number: int) -> dict[str, float]:
    """Figures of one network on the CPU."""
    torch.manual_seed(0)
    module = network.build()
    program = ours.program_of(module, "cpu")
    samples = network.steps * network.batch_size
    data = network.data(samples, torch.Generator().manual_seed(0))
    plain = (network, program, data, number + 2)
    found = rounds(
        {
            "ours": partial(ours.train, *plain, device="cpu"),
            "eager": partial(eager.train, network, module, data, number + 2, device="cpu"),
        },
        number,
    )
    ratio = statistics.median(one["eager"] / one["ours"] for one in found)
    taken = checkpoint_seconds(network)
    return {
        "ours": samples / statistics.median(one["ours"] for one in found),
        "eager": samples / statistics.median(one["eager"] for one in found),
        "ratio": ratio,
        "checkpoint_seconds": taken,
        "checkpoints_cost": taken / max(_LEAST_SECONDS, taken / _SHARE),
        "rounds": number,
        "block_seconds": statistics.median(one["ours"] for one in found),
    }


def masks_cost(network: Network, number: int) -> dict[str, Any]:
    """What half of the weights being masked costs, step by step in turn.

    Where the memory of a training happens to lie makes a per cent or two. So there are two of each
    kind, and how far the two without masks are apart tells what the figure is worth.
    """
    torch.manual_seed(0)
    program = ours.program_of(network.build(), "cpu")
    data = network.data(network.steps * network.batch_size, torch.Generator().manual_seed(0))
    train = partial(ours.train, network, program, data, number + 2, device="cpu", by_step=True)
    found = rounds(
        {
            "plain": train,
            "masked": partial(train, masked=True),
            "plain again": train,
            "masked again": partial(train, masked=True),
        },
        number,
        turns=network.steps,
    )
    costs = [
        (one["masked"] + one["masked again"]) / (one["plain"] + one["plain again"]) - 1
        for one in found
    ]
    return {
        "masks_cost": statistics.median(costs),
        "masks_cost_error": _error_of_median(costs),
        "masks_twins": statistics.median(one["plain again"] / one["plain"] for one in found) - 1,
        "masks_rounds": number,
        "masks_machine": description(),
    }


def _error_of_median(values: list[float]) -> float:
    """Standard error, from the middle half of the values, as if they were normally distributed."""
    low, _, high = statistics.quantiles(values, n=4)
    return 1.253 * (high - low) / 1.349 / math.sqrt(len(values))


class _Writing(ours.Pausing):
    """Writes the state after every step, as a checkpoint does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(lambda: None)
        self.seconds: list[float] = []
        self._file = folder / "checkpoint.pt"
        self._asked = 0.0

    def due_after_step(self) -> bool:
        self._asked = time.perf_counter()
        return True

    def due_after_epoch(self) -> bool:
        return False

    def step_finished(self, state: TrainingState) -> None:
        with self._file.open("wb") as target:
            torch.save(state.to_plain(), target)
            target.flush()
            os.fsync(target.fileno())
        self.seconds.append(time.perf_counter() - self._asked)


def checkpoint_seconds(network: Network) -> float:
    """Wall time to take the state of a training and write it to the disk."""
    torch.manual_seed(0)
    program = ours.program_of(network.build(), "cpu")
    data = network.data(4 * network.batch_size, torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        writing = _Writing(Path(folder))
        run = ours.run_of(network, program, data, 1, device="cpu")
        finetune(program, dataclasses.replace(run, pace=writing), writing)
    return statistics.median(writing.seconds)


def compare_on_gpu(network: Network, number: int) -> dict[str, float]:
    """Mixed precision and batches made ahead, against the float32 loop."""
    torch.manual_seed(0)
    module = network.build().cuda()
    program = ours.program_of(module, "cuda")
    data = network.data(64 * network.batch_size, torch.Generator().manual_seed(0))
    held_out = network.data(16 * network.batch_size, torch.Generator().manual_seed(0))
    trained: list[Any] = []

    def mixed(pause: Any) -> None:
        fast = {"precision": "auto"}
        trained.append(ours.train(network, program, data, number + 1, pause, device="cuda", **fast))

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    found = rounds(
        {
            "ours": mixed,
            "eager": partial(eager.train, network, module, data, number + 1, device="cuda"),
        },
        number,
        clock,
    )
    while not trained:
        time.sleep(0.01)
    return {
        "ratio": statistics.median(one["eager"] / one["ours"] for one in found),
        "accuracy": eager.accuracy(trained[0].module, held_out, "cuda"),
        "accuracy_eager": eager.accuracy(module, held_out, "cuda"),
    }


def _told(found: dict[str, Any], part: str | None) -> str:
    """The figures of one network that were measured now."""
    told = []
    if part != "masks":
        told += [
            f"{found['ours']:.1f} samples/s, eager {found['eager']:.1f}, "
            f"ratio {found['ratio']:.3f}",
            f"a checkpoint {found['checkpoint_seconds']:.2f} s, {found['checkpoints_cost']:.1%}",
        ]
    if part != "speed":
        told.append(
            f"masks cost {found['masks_cost']:+.1%} (+- {found['masks_cost_error']:.1%}, "
            f"twins {found['masks_twins']:+.1%} apart)"
        )
    return "; ".join(told)


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--part", choices=["speed", "masks"], help="without it, both")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [asked.only] if asked.only else list(NETWORKS)
    figures: dict[str, Any] = {"machine": description(), "cpu": {}, "cuda": {}}
    if RESULTS.exists():
        kept = json.loads(RESULTS.read_text(encoding="utf-8"))
        figures["cpu"], figures["cuda"] = kept["cpu"], kept["cuda"]
        if asked.part == "masks":
            figures["machine"] = kept["machine"]
    for name in chosen:
        measured = figures["cpu"].setdefault(name, {})
        if asked.part != "masks":
            measured.update(compare(NETWORKS[name], asked.rounds))
        if asked.part != "speed":
            measured.update(masks_cost(NETWORKS[name], asked.rounds))
        if asked.part != "masks" and torch.cuda.is_available():
            figures["cuda"][name] = compare_on_gpu(NETWORKS[name], asked.rounds)
        RESULTS.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(description())
    for name in chosen:
        print(f"{name}: {_told(figures['cpu'][name], asked.part)}")
    if asked.part == "masks":
        return
    if not torch.cuda.is_available():
        print("GPU: there is none; mixed precision against the float32 loop was not run")
        return
    for name in chosen:
        found = figures["cuda"][name]
        print(
            f"{name} on {torch.cuda.get_device_name()}: ratio {found['ratio']:.2f}, accuracy "
            f"{found['accuracy']:.4f}, eager {found['accuracy_eager']:.4f}"
        )


if __name__ == "__main__":
    main()
