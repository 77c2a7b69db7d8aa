"""Uploads made by the benchmark, and recipes carried out by the engine in this process.

A recipe runs as a job of the service runs it, from a TorchScript file, a dataset file and a
validated recipe. By default the job measures on the test part: its report then has test figures of
everything it trained, tickets and controls included. So that the part decides nothing, every
training must keep its last epoch (`keep: last`); a recipe that would choose by it is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from secateur.recipe import Recipe
from secateur.report import Report
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bench.papers.digits import Part, Split, load_splits
from bench.papers.networks import Network
from engine.job import JobInput
from engine.pipeline import compress

BATCH = 64
_QUICK = {"batch_sizes": [1], "runs": 5}


@dataclass(frozen=True)
class Scale:
    """How much work a run takes.

    Attributes:
        most_epochs: of any training; None for the numbers of the claim.
        most_samples: of any part of the data; None for all.
        measured_on: part that the figures are of: `validation` while settings are being chosen.
    """

    most_epochs: int | None = None
    most_samples: int | None = None
    measured_on: Part = "test"

    def epochs(self, wanted: int) -> int:
        """As many as the claim wants, or the limit."""
        return wanted if self.most_epochs is None else min(wanted, self.most_epochs)

    def splits(self, size: int) -> dict[Part, Split]:
        """The data for images of this side."""
        splits = load_splits(size)
        if self.most_samples is None:
            return splits
        return {part: split.first(self.most_samples) for part, split in splits.items()}


FULL = Scale()
TINY = Scale(most_epochs=1, most_samples=64)
"""For tests: every step of a claim, none of its figures."""


@dataclass(frozen=True)
class Outcome:
    """What a job gave.

    Attributes:
        report: its accuracies are of the part that the job measured on.
        module: the compact model, read from its file.
        masks: of single weights, by parameter name; empty where there are none.
    """

    report: Report
    module: torch.jit.ScriptModule
    masks: dict[str, Tensor]


class Bystander:
    """A listener that is told everything and keeps nothing: the report has what counts."""

    def stage_started(self, index: int, name: str) -> None: ...

    def stage_finished(self, index: int, name: str, measurement: Any) -> None: ...

    def progress(self, current: int, total: int, unit: str) -> None: ...

    def metric(self, name: str, value: float, step: int, stage: str) -> None: ...

    def log(self, message: str, **_: Any) -> None: ...

    def checkpoint(self, path: Path, training: Path | None = None) -> None: ...


def training(scale: Scale, epochs: int, **options: Any) -> dict[str, Any]:
    """Fields of a training in a recipe: AdamW without decay unless told, the last epoch kept."""
    optimizer = {"kind": "adamw", "lr": 2e-3, "weight_decay": 0.0}
    common = {"batch_size": BATCH, "optimizer": optimizer, "keep": "last"}
    return common | options | {"epochs": scale.epochs(epochs)}


def train_dense(
    network: Network,
    seed: int,
    scale: Scale = FULL,
    *,
    epochs: int,
    lr: float = 2e-3,
    weight_decay: float = 0.0,
) -> nn.Module:
    """A network trained by plain torch, as users train theirs: AdamW, cosine to zero."""
    model = network.initial(seed).train()
    split = scale.splits(network.size)["train"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    steps = scale.epochs(epochs) * ceil(len(split.digits) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.Generator().manual_seed(seed)
    for _ in range(scale.epochs(epochs)):
        for rows in torch.randperm(len(split.digits), generator=order).split(BATCH):
            loss = cross_entropy(model(split.images[rows]), split.digits[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, network: Network, scale: Scale = FULL) -> float:
    """Share of right answers on the part that is measured on."""
    split = scale.splits(network.size)[scale.measured_on]
    return float((model(split.images).argmax(1) == split.digits).double().mean())


def run_recipe(
    network: Network,
    upload: nn.Module,
    recipe: Mapping[str, Any],
    *,
    seed: int,
    scale: Scale = FULL,
    initial: Mapping[str, Tensor] | None = None,
) -> Outcome:
    """Script the model, carry the recipe out on it, and read the result back.

    Args:
        network: tells the images.
        upload: the model, trained or not; stays as it is.
        recipe: its `seed` and `measure` are filled in.
        seed: of the run.
        scale: tells the data, and the part that the job takes for its validation split.
        initial: a state dict of the weights before training, for schedules that rewind.

    Raises:
        ValueError: the job measures on the test part, and a training chooses its epoch by it.
        EngineError: the job failed.
    """
    checked = Recipe.model_validate(
        {"version": 1, "measure": _QUICK} | dict(recipe) | {"seed": seed}
    )
    if scale.measured_on == "test" and any(item.keep != "last" for item in checked.trainings()):
        raise ValueError("give every training `keep: last`: the test part must not choose epochs")
    with TemporaryDirectory() as scratch, _one_thread():
        folder = Path(scratch)
        (folder / "work").mkdir()
        _save_scripted(upload, folder / "upload.pt")
        _save_data(scale.splits(network.size), scale.measured_on, folder / "digits.safetensors")
        if initial is not None:
            save_file({name: tensor.clone() for name, tensor in initial.items()},
                      folder / "initial.safetensors")  # fmt: skip
        job = JobInput(
            model=folder / "upload.pt",
            recipe=checked,
            workdir=folder / "work",
            dataset=folder / "digits.safetensors",
            initial=None if initial is None else folder / "initial.safetensors",
        )
        result = compress(job, Bystander())
        files = {item.kind: item.path for item in result.artifacts}
        module = torch.jit.load(str(files["model"]))
        masks = _masks(files["masks"]) if "masks" in files else {}
    return Outcome(result.report, module, masks)


def _save_scripted(model: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(deepcopy(model).eval()).save(str(path))


def _save_data(splits: Mapping[Part, Split], measured_on: Part, path: Path) -> None:
    parts = {"train": splits["train"], "validation": splits[measured_on]}
    tensors = {}
    for name, split in parts.items():
        tensors[f"{name}/inputs/0"] = split.images
        tensors[f"{name}/targets/0"] = split.digits
    save_file(tensors, path)


def _masks(path: Path) -> dict[str, Tensor]:
    return {name: mask.bool() for name, mask in load_file(path).items()}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Networks this small lose by a second thread; jobs set their own number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
