"""Whether a job can be let in: all that can be known wrong before a worker looks at it.

Each fault is reported at the field that causes it, and all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from secateur.recipe import PruneStage, RecalibrateStage, Recipe, ScoreStage
from secateur.recipe_exports import format_of
from secateur.resources import Device, FieldProblem, JobCreate
from secateur.search_space import blamed_path, named

from persistence.records import DatasetRecord, ModelRecord
from persistence.settings import Settings
from service.jobs.data_faults import data_faults
from service.jobs.initial_weights import initial_faults
from service.jobs.objective_modules import objective_module_faults
from service.jobs.objective_targets import target_faults
from service.jobs.problems import ModelRejected
from service.problems import RequestInvalid

_UNLABELLED = (
    " Trainings with `distillation: {alpha: 1}` learn from the upload alone and need no targets."
)


def choose_queue(device: Device, settings: Settings) -> str:
    """`gpu` or `cpu`."""
    if device != "auto":
        return "gpu" if device == "cuda" else "cpu"
    if settings.default_queue != "auto":
        return settings.default_queue
    return "gpu" if settings.gpu_device is not None else "cpu"


def admit(
    request: JobCreate,
    model: ModelRecord,
    dataset: DatasetRecord | None,
    initial: ModelRecord | None = None,
    modules: Sequence[ModelRecord | None] = (),
    *,
    offered: frozenset[str] | None = None,
    faults: Sequence[FieldProblem] = (),
) -> None:
    """Let the job in or say why not.

    Args:
        request: for the job.
        model: to compress.
        dataset: or None.
        initial: the upload with the initial weights, if any.
        modules: the uploaded loss and metric, if any.
        offered: formats of exports that the workers can make; None for all.
        faults: found already, to be told with the others.

    Raises:
        ModelRejected: the model, or an upload beside it, failed its inspection.
        RequestInvalid: the recipe does not fit the model, the dataset or the initial weights.
    """
    for upload in (model, initial, *modules):
        if upload is not None and upload.status == "rejected":
            error = upload.error or {}
            raise ModelRejected(
                f"The model `{upload.id}` was rejected: {error.get('title', 'no reason was kept')}",
                hint=error.get("hint") or "Upload a model that loads.",
            )
    faults = [
        *faults,
        *_dataset_faults(request.recipe, dataset),
        *_layer_faults(request.recipe, model),
        *([] if initial is None else initial_faults(request, model, initial)),
        *objective_module_faults(request),
        *_export_faults(request.recipe, offered),
    ] or list(_corner_faults(request.recipe, model, dataset))
    if faults:
        raise RequestInvalid(faults)


def _export_faults(recipe: Recipe, offered: frozenset[str] | None) -> Iterator[FieldProblem]:
    for index, export in enumerate(recipe.exports):
        name = format_of(export)
        if offered is None or name == "torchscript" or name in offered:
            continue
        others = ", ".join(f"`{one}`" for one in sorted(offered | {"torchscript"}))
        yield FieldProblem(
            field=f"recipe.exports.{index}",
            message=f"The workers of this server do not make `{name}`; they make {others}. For "
            "others install `secateur-server[exports]` on them and set SECATEUR_EXPORT_FORMATS.",
        )


def _corner_faults(
    recipe: Recipe, model: ModelRecord, dataset: DatasetRecord | None
) -> Iterator[FieldProblem]:
    """What only some values of a search make wrong, each fault once."""
    told: set[str] = set()
    for point, corner in recipe.corners():
        for fault in (*_dataset_faults(corner, dataset), *_layer_faults(corner, model)):
            if fault.message not in told:
                told.add(fault.message)
                if not fault.field.startswith("recipe."):
                    message = f"With {named(point)}: {fault.message}"
                    yield FieldProblem(field=fault.field, message=message)
                    continue
                location = fault.field.removeprefix("recipe.").split(".")
                path = blamed_path(point, location, fault.message)
                yield FieldProblem(field=f"recipe.search.space.{path}", message=fault.message)


def _dataset_faults(recipe: Recipe, dataset: DatasetRecord | None) -> Iterator[FieldProblem]:
    needs = recipe.needs_dataset()
    if dataset is None:
        if needs is not None:
            yield FieldProblem(
                field="dataset_id",
                message=f"`recipe.{needs}` needs a dataset; upload one with `POST /v1/datasets` "
                "or take that field out.",
            )
        elif recipe.inputs is None:
            yield FieldProblem(
                field="recipe.inputs",
                message="Without a dataset the shapes of the inputs must be given, such as "
                "`[{shape: [1, 3, 224, 224]}]`.",
            )
        return
    tensors = {tensor["name"]: tensor for tensor in dataset.tensors}
    if not tensors or recipe.data.columns:
        return  # only the job can tell which columns there are
    yield from data_faults(recipe, tensors, files=dataset.format in ("zip", "tar"))
    trains = recipe.needs_targets()
    wanted = {
        "train/inputs": trains
        or recipe.needs_training()
        or _looks_at_inputs(recipe)
        or recipe.scanned_split("train", targets=False),
        "train/targets": trains,
        "validation/inputs": recipe.needs_validation()
        or recipe.scanned_split("validation", targets=False),
        "validation/targets": (
            recipe.needs_validation() or recipe.scanned_split("validation", targets=True)
        )
        if recipe.objective.needs_targets
        else None,
    }
    for role, field in wanted.items():
        if field is not None and not _has(role, tensors):
            taught = role == "train/targets" and recipe.needs_training() is not None
            remedy = _UNLABELLED if taught else ""
            yield FieldProblem(
                field="dataset_id",
                message=f"`recipe.{field}` needs `{role}/0`, which the dataset `{dataset.id}` "
                f"does not have.{remedy}",
            )
    yield from target_faults(recipe, trains or "stages", tensors)


def _has(role: str, tensors: dict[str, Any]) -> bool:
    """Whether a split has inputs or targets; a stream of tokens is both."""
    stream = f"{role.partition('/')[0]}/tokens"
    return stream in tensors or any(name.startswith(f"{role}/") for name in tensors)


def _looks_at_inputs(recipe: Recipe) -> str | None:
    """The first stage that reads samples without training on them."""
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage, RecalibrateStage):
            return f"stages.{index}"
        if isinstance(stage, PruneStage | ScoreStage) and stage.needs_samples:
            return f"stages.{index}.criterion"
    return None


def _layer_faults(recipe: Recipe, model: ModelRecord) -> Iterator[FieldProblem]:
    layers = (model.info or {}).get("layers")
    if not layers:
        return  # not inspected yet: the engine will look
    for field, patterns in recipe.layer_patterns():
        for number, pattern in enumerate(patterns):
            if not any(fnmatchcase(layer, pattern) for layer in layers):
                shown = ", ".join(f"`{layer}`" for layer in layers[:12])
                more = f" and {len(layers) - 12} more" if len(layers) > 12 else ""
                yield FieldProblem(
                    field=f"recipe.{field}.{number}",
                    message=f"`{pattern}` matches no layer of the model; its layers are "
                    f"{shown}{more}.",
                )
