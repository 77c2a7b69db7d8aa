"""A job in a real process, killed by SIGKILL again and again and taken up by another process, ends
with the bits of one that nobody disturbed, and reports the same numbers."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from secateur.recipe import Recipe

from engine.job import JobInput
from engine.pipeline import compress
from engine.pipeline.checkpoint import load_checkpoint
from engine.pipeline.report import fingerprint_of
from engine.torchscript.program import Program
from tests.engine.digits import digits
from tests.engine.training.test_finetune import make_program

TRAINING = {
    "epochs": 3,
    "batch_size": 16,
    "accumulate": 2,
    "optimizer": {"lr": 0.05, "momentum": 0.9, "nesterov": True},
    "ema": {"decay": 0.9},
    "early_stopping": {"patience": 2},
    "distillation": {"alpha": 0.5, "temperature": 2.0},
    "clip_norm": 1.0,
}
RECIPE = {
    "seed": 3,
    "checkpoint": {"steps": 1},
    "measure": {"batch_sizes": [1], "runs": 5},
    "stages": [
        {
            "stage": "prune",
            "granularity": "element",
            "allocation": {"scope": "global", "amount": 0.6},
            "schedule": {"kind": "agp", "rounds": 3, "every_steps": 4, "finetune": TRAINING},
        },
        {"stage": "prune", "allocation": {"amount": 0.3}},
        {
            "stage": "finetune",
            "epochs": 2,
            "keep": "last",
            "optimizer": {"kind": "adamw", "lr": 0.002},
        },
    ],
}
# Processes that have imported torch already; each job gets a fork that has run nothing yet.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.faults.warm"])


class Teller:
    """Tells every checkpoint through a pipe, and writes down every metric."""

    def __init__(self, told: Any, metrics: Path) -> None:
        self._told = told
        self._metrics = metrics

    def stage_started(self, index: int, name: str) -> None:
        del index
        if name == "verify and measure":
            sys.exit(0)  # all that a checkpoint holds is there; the rest is measuring

    def stage_finished(self, index: int, name: str, measurement: Any) -> None: ...

    def progress(self, current: int, total: int, unit: str) -> None: ...

    def metric(self, name: str, value: float, step: int, stage: str) -> None:
        if name.startswith("live/"):
            return  # by the clock
        with self._metrics.open("a") as file:
            file.write(json.dumps([name, step, stage, value]) + "\n")

    def log(self, message: str, **data: Any) -> None: ...

    def checkpoint(self, path: Path, training: Path | None = None) -> None:
        del path, training
        self._told.send_bytes(b"1")


def work(job: JobInput, told: Any, metrics: Path) -> None:
    torch.set_num_threads(1)
    compress(job, Teller(told, metrics))


class Attempts:
    """One job in processes of its own, one after another."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.metrics = folder / "metrics"
        self.metrics.touch()
        make_program(folder / "model.pt")
        self._data = folder / "data.safetensors"
        save_file({name: rows[:256].clone() for name, rows in digits().items()}, self._data)
        self._checkpoint: Path | None = None
        self.last: JobInput | None = None
        self.count = 0

    def run(self, until: Callable[[Any], bool]) -> None:
        """Go on from the last checkpoint; kill the process when `until` returns True."""
        self.count += 1
        workdir = self._folder / f"work{self.count}"
        workdir.mkdir()
        job = JobInput(
            model=self._folder / "model.pt",
            recipe=Recipe.model_validate(RECIPE),
            workdir=workdir,
            dataset=self._data,
            checkpoint=self._checkpoint,
        )
        heard, told = _context.Pipe(duplex=False)
        process = _context.Process(target=work, args=(job, told, self.metrics))
        process.start()
        told.close()
        killed = until(heard)
        if killed:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
        process.join(120)
        assert process.exitcode == (-signal.SIGKILL if killed else 0)
        if (workdir / "checkpoint.pt").exists():
            self._checkpoint = workdir / "checkpoint.pt"
        self.last = job


def undisturbed(heard: Any) -> bool:
    try:
        while True:
            heard.recv_bytes()
    except EOFError:
        return False


def ended(attempts: Attempts) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Weights and measurements after the last step."""
    job = attempts.last
    assert job is not None
    state = load_checkpoint(
        job.workdir / "checkpoint.pt", Program.load(job.model), fingerprint=fingerprint_of(job)
    )
    assert state.next_step == 3
    measured = {"label", "removed", "loss", "accuracy", "nonzero_parameters"}
    return (
        state.program.attributes() | {f"mask {name}": mask for name, mask in state.masks.items()},
        [report.model_dump(include=measured) for report in state.reports],
    )


@pytest.mark.timeout(900)
@pytest.mark.exhaustive  # `make test` has a short campaign against a whole installation
@pytest.mark.parametrize(("jobs", "kills"), [(1, 2), (5, 5)])
def test_the_same_bits_after_kills_at_random_moments(tmp_path: Path, jobs: int, kills: int) -> None:
    whole = Attempts(tmp_path / "whole")
    whole.run(undisturbed)
    expected, stages = ended(whole)
    told = set(whole.metrics.read_text().splitlines())
    chance = random.Random(kills)  # noqa: S311 (moments, not secrets)
    # 3 x 8 steps, 2 x 8, and some between them: 46 checkpoints in all. What a fast machine does
    # before the signal arrives must not be the rest of the job.
    share = 25 // kills

    def at_random(heard: Any) -> bool:
        for _ in range(chance.randint(1, share)):
            heard.recv_bytes()
        # anywhere in what follows: computing, writing, renaming
        time.sleep(chance.uniform(0, 0.03))
        return True

    for number in range(jobs):
        disturbed = Attempts(tmp_path / f"disturbed{number}")
        for _ in range(kills):
            disturbed.run(at_random)
        disturbed.run(undisturbed)
        found, reported = ended(disturbed)
        assert disturbed.count == kills + 1
        assert reported == stages
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), (number, name)
        assert set(disturbed.metrics.read_text().splitlines()) == told
