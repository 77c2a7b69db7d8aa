"""Recipes carried out by the engine in this process, as a job of the service carries them out.

The job is given the exported network, a file of its data and a validated recipe, and measures on
the test part, which decides nothing: every training keeps its last epoch. The file it leaves is
read back and judged here, by the same code as the dense network.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from secateur.recipe import Recipe
from secateur.report import Report
from torch import Tensor, nn

from bench.papers.jobs import Bystander
from bench.recovery.dense import judged
from bench.recovery.task import Figures, Part, Samples, Task
from bench.recovery.variants import Variant
from engine.job import JobInput
from engine.pipeline import compress

_QUICK = {"batch_sizes": [1], "runs": 5}


@dataclass(frozen=True)
class Outcome:
    """What a job gave.

    Attributes:
        report: of the job.
        figures: of its result on the test part.
        recovery_seconds: of the processor, for the stage that trains.
    """

    report: Report
    figures: Figures
    recovery_seconds: float


class Stopwatch(Bystander):
    """Processor seconds by the index of a stage."""

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}
        self._started = 0.0

    def stage_started(self, index: int, name: str) -> None:  # noqa: ARG002  protocol
        """The clock starts."""
        self._started = time.process_time()

    def stage_finished(self, index: int, name: str, measurement: Any) -> None:  # noqa: ARG002
        """The clock stops."""
        self.seconds[index] = time.process_time() - self._started


def recover(
    task: Task, variant: Variant, upload: nn.Module, *, seed: int, measured_on: Part = "test"
) -> Outcome:
    """Prune the network and recover it.

    Args:
        task: tells data and training.
        variant: tells how to recover.
        upload: the dense network, in evaluation mode; stays as it is.
        seed: of the job.
        measured_on: the part that figures are of, `validation` while settings are being chosen.

    Raises:
        EngineError: the job failed.
        ValueError: the report has another loss of the result than its file shows.
    """
    recipe = Recipe.model_validate(
        {
            "version": 1,
            "measure": _QUICK,
            "stages": variant.stages(task),
            "seed": seed,
        }
        | ({"objective": dict(task.objective)} if task.objective else {})
    )
    watch = Stopwatch()
    with TemporaryDirectory() as scratch, _one_thread():
        folder = Path(scratch)
        (folder / "work").mkdir()
        _export(task, upload, folder / "upload.pt")
        _save_data(task, variant, measured_on, folder / "data.safetensors")
        job = JobInput(
            model=folder / "upload.pt",
            recipe=recipe,
            workdir=folder / "work",
            dataset=folder / "data.safetensors",
        )
        result = compress(job, watch)
        file = next(item.path for item in result.artifacts if item.kind == "model")
        figures = judged(_callable(torch.jit.load(str(file))), task, measured_on)
    hold_against_report(result.report.after.loss, figures["loss"])
    return Outcome(result.report, figures, watch.seconds.get(1, 0.0) if variant.trains else 0.0)


def hold_against_report(reported: float | None, found: float) -> None:
    """Losses of the result, as the report has it and as its file gives it.

    Raises:
        ValueError: they differ by more than rounding.
    """
    if reported is None or not isclose(reported, found, rel_tol=1e-3, abs_tol=1e-5):
        raise ValueError(f"the report has a loss of {reported}, the file {found}")


def _export(task: Task, model: nn.Module, path: Path) -> None:
    still = deepcopy(model).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if task.form == "traced":
            example = task.parts()["train"].inputs[:2]
            torch.jit.trace(still, (example,)).save(str(path))
        else:
            torch.jit.script(still).save(str(path))


def _save_data(task: Task, variant: Variant, measured_on: Part, path: Path) -> None:
    parts = task.parts()
    train = parts["train"]
    kept = train.first(len(train.inputs) // variant.fraction)
    tensors = _named("train", kept, labelled=variant.teacher != "alone" and task.labelled)
    tensors |= _named("validation", parts[measured_on], labelled=task.labelled)
    save_file(tensors, path)


def _named(split: str, samples: Samples, *, labelled: bool) -> dict[str, Tensor]:
    named = {f"{split}/inputs/0": samples.inputs}
    return named | {f"{split}/targets/0": samples.targets} if labelled else named


def _callable(module: torch.jit.ScriptModule) -> Callable[[Tensor], Tensor]:
    def forward(inputs: Tensor) -> Tensor:
        outputs: Tensor = module(inputs)
        return outputs

    return forward


@contextmanager
def _one_thread() -> Iterator[None]:
    """Networks this small lose by a second thread; jobs set their own number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
