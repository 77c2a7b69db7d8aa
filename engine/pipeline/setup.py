"""What every job starts with: the program, the dataset and the example, held against each other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from secateur.recipe import ImpRewind, PruneStage, RecalibrateStage, Recipe

from engine.calling import call, plain_execution
from engine.certify import relative_error
from engine.coupling.exclusion import match_layers
from engine.coupling.method_inputs import run_method
from engine.coupling.methods import understand
from engine.data.arguments import arrange_split, fit_inputs, without_dataset
from engine.data.examples import example_inputs, source_of_examples, values_of
from engine.data.fit import check_split
from engine.data.opening import open_dataset
from engine.data.splits import Dataset, Split
from engine.deterministic import choose_kernels
from engine.errors import CertificateFailed, DatasetInvalid, EngineError, WeightsNotNumbers
from engine.job import JobInput
from engine.lottery.initial import load_initial
from engine.objective.objective import Objective, resolve
from engine.pipeline.features import follow_features
from engine.structure import samples_in
from engine.torchscript.arguments import arguments_of
from engine.torchscript.precision import comparison_tolerance
from engine.torchscript.program import Program
from engine.training.recalibration import require_statistics


class DeviceUnavailable(EngineError):
    """The device of the job does not exist here."""

    type = "device-unavailable"
    retryable = True


@dataclass(frozen=True)
class Workbench:
    """Inputs of a job, checked.

    Attributes:
        job: as given.
        original: the upload as the engine reads it (see `Program.load`).
        inputs: example inputs, on the device.
        dataset: or None.
        objective: the loss and the metrics.
        remarks: on the dataset, worth a warning.
    """

    job: JobInput
    original: Program
    inputs: tuple[Any, ...]
    dataset: Dataset | None
    objective: Objective
    remarks: tuple[str, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.job.recipe

    @property
    def example_batch(self) -> int:
        """Samples in the example."""
        return samples_in(self.inputs)

    @property
    def validation(self) -> Split | None:
        """The validation split, where the objective can judge by it."""
        split = self.dataset.validation if self.dataset is not None else None
        if split is None or (split.targets is None and self.objective.needs_targets):
            return None
        return split


def prepare(job: JobInput) -> Workbench:
    """Load and check everything before any work is spent.

    Raises:
        EngineError: any of the faults of the inputs, naming the field, layer or tensor.
    """
    _check_device(job.device, job.recipe.devices)
    torch.set_num_threads(job.threads)
    choose_kernels(deterministic=job.recipe.deterministic)
    original = Program.load(job.model, device=job.device)
    _check_numbers(original)
    _check_patterns(job.recipe, original.layer_names())
    for index, stage in enumerate(job.recipe.stages):
        if isinstance(stage, RecalibrateStage):
            require_statistics(original, f"recipe.stages.{index}")
    dataset = _dataset_for(original, job)
    _check_splits(job.recipe, dataset)
    if job.initial is not None:
        load_initial(job.initial, original)
    inputs = example_inputs(job.recipe.inputs, dataset, seed=job.recipe.seed, device=job.device)
    if job.recipe.inputs is not None:
        inputs = fit_inputs(arguments_of(original), inputs)
    follow_features(original, job.recipe, inputs)
    upload = Program.as_uploaded(job.model, device=job.device)
    _check_reading(upload, original, inputs, source_of_examples(job.recipe.inputs, dataset))
    objective = resolve(
        job.recipe.objective, loss=job.loss, metric_module=job.metric, device=job.device
    )
    bench = Workbench(
        job=job, original=original, inputs=inputs, dataset=dataset, objective=objective
    )
    return replace(bench, remarks=tuple(_check_data(bench, upload)))


def _check_numbers(program: Program) -> None:
    """NaN spreads to every output, and no score ranks it. Infinity may be meant."""
    for name, weight in program.parameters().items():
        # a sum over all, which NaN survives, and no tensor as large as the weight
        if weight.is_floating_point() and weight.numel() and bool(weight.sum().isnan()):
            count = int(weight.isnan().sum())
            if count:
                raise WeightsNotNumbers(
                    f"the weight `{name}` holds NaN in {count} of {weight.numel()} places",
                    where=name,
                    hint="the model computes no numbers; upload one whose training did not diverge",
                )


def _check_data(bench: Workbench, upload: Program) -> Iterator[str]:
    """Hold every split against the model and every loss of the job; what is worth a warning."""
    if bench.dataset is None:
        return
    losses = {bench.objective.loss: bench.objective}
    for _, options in bench.recipe.all_trainings():
        trained = bench.objective.trained_by(options)
        losses.setdefault(trained.loss, trained)
    for split in bench.dataset.splits:
        found: list[str] = []
        for objective in losses.values() if split.name == "train" else [bench.objective]:
            found += check_split(
                upload.module,
                split,
                device=bench.job.device,
                samples=bench.example_batch,
                objective=objective,
            )
        if _uses(bench.recipe, split):
            yield from dict.fromkeys(found)


def _uses(recipe: Recipe, split: Split) -> bool:
    """Whether the job looks at a split at all; what it lacks is of no interest elsewhere."""
    if split.name != "train":
        return True
    asked = recipe.needs_training() or recipe.needs_targets()
    return (asked or recipe.scanned_split("train", targets=False)) is not None


def _dataset_for(program: Program, job: JobInput) -> Dataset | None:
    """The dataset, with nested arguments as the program takes them."""
    if job.dataset is None:
        return None
    arguments = arguments_of(program)
    opened = open_dataset(
        job.dataset,
        [argument.name for argument in arguments],
        without_dataset(arguments, values_of(job.recipe.inputs)),
        data=job.recipe.data,
        scratch=job.workdir / "dataset",
    )
    arranged = {split.name: arrange_split(arguments, split) for split in opened.splits}
    return replace(
        opened,
        train=arranged.get("train"),
        validation=arranged.get("validation"),
        unlabelled=arranged.get("unlabelled"),
    )


@torch.no_grad()
def _check_reading(upload: Program, original: Program, inputs: Sequence[Any], where: str) -> None:
    """The program as the engine reads it must compute what the uploaded file computes.

    So must every exported method that is pruned along.
    """
    with plain_execution():
        torch.manual_seed(0)
        expected = call(upload.module, inputs, where=where)
        torch.manual_seed(0)
        # On a twin: a program may write to its own buffers, and the original is analysed next.
        found = call(original.twin().module, inputs, where=where)
    _compare_reading(original, expected, found)
    taken = understand(original, inputs).inputs_by_name(original, inputs)
    for method, arguments in taken.items():
        torch.manual_seed(0)
        expected = run_method(upload, method, arguments)
        torch.manual_seed(0)
        _compare_reading(original, expected, run_method(original, method, arguments))


def _compare_reading(original: Program, expected: Any, found: Any) -> None:
    error = relative_error(expected, found)
    if not error <= comparison_tolerance(original):
        raise CertificateFailed(
            f"the program as read differs from the uploaded file by {error:.2g} of its output",
            hint="nothing was done; the file that shows this is worth a report",
            where="model",
        )


def file_sha256(path: Path) -> str:
    """Hash of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_device(device: str, devices: int) -> None:
    wanted = torch.device(device)
    if wanted.type != "cuda":
        return
    there = torch.cuda.device_count()
    if (wanted.index or 0) >= there:
        raise DeviceUnavailable(
            f"the job asks for `{device}`, and there are {there} CUDA devices",
            hint="choose `device: cpu` or `auto`, or run on a GPU worker",
            where="device",
        )
    if devices > there:
        raise DeviceUnavailable(
            f"the recipe asks for {devices} devices, and the worker has {there}",
            hint="lower `devices`, or run on a worker with more GPUs",
            where="recipe.devices",
        )


def _check_patterns(recipe: Recipe, layers: Sequence[str]) -> None:
    for field, patterns in recipe.layer_patterns():
        match_layers(layers, patterns, field=f"recipe.{field}")


def _check_splits(recipe: Recipe, dataset: Dataset | None) -> None:
    needing = recipe.needs_dataset()
    if needing is None:
        return
    if dataset is None:
        raise DatasetInvalid(
            f"`{needing}` needs a dataset, and the job has none",
            hint="send a dataset with `train/inputs/0`, `train/targets/0` and a validation split",
            where=f"recipe.{needing}",
        )
    labelled, trains = recipe.needs_targets(), recipe.needs_training()
    if labelled is not None:
        dataset.require("train", labelled)
    elif trains is not None:
        if dataset.unlabelled is None:  # a teacher can do with that alone
            dataset.require_inputs("train", trains)
    elif recipe.scans:
        pass  # each scan asks for its own
    elif needing != recipe.needs_validation():
        dataset.require_inputs("train", needing)
    for index, stage in enumerate(recipe.stages):
        schedule = stage.schedule if isinstance(stage, PruneStage) else None
        if isinstance(schedule, ImpRewind) and schedule.copies > 1:
            needed = recipe.objective.needs_targets
            dataset.require("validation", f"stages.{index}.schedule.copies", targets=needed)
    judged = recipe.needs_validation()
    if judged is not None:
        dataset.require("validation", judged, targets=recipe.objective.needs_targets)
