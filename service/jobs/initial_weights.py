"""Initial weights of a job: what can be known wrong from the inspections of both uploads.

The runner compares tensor by tensor; names of layers and the count of parameters are known here.
"""

from __future__ import annotations

from collections.abc import Iterator

from secateur.recipe_initial import initial_fault
from secateur.resources import FieldProblem, JobCreate

from persistence.records import ModelRecord

_FIELD = "initial_model_id"


def initial_faults(
    request: JobCreate, model: ModelRecord, initial: ModelRecord
) -> Iterator[FieldProblem]:
    """Every fault of the initial weights, at the field that causes it."""
    fault = initial_fault(request.recipe)
    if fault is not None:
        field, message = fault
        yield FieldProblem(field=f"recipe.{field}", message=f"{message} (`{_FIELD}`).")
    if initial.id == model.id:
        yield FieldProblem(
            field=_FIELD,
            message="It is the model itself. Upload the same model as it was before training, or "
            "leave the field out: the job then trains the upload and keeps its weights.",
        )
        return
    difference = _difference(model, initial)
    if difference is not None:
        yield FieldProblem(
            field=_FIELD,
            message=f"{difference}; initial weights come from an export of the same model, made "
            "in the same way.",
        )


def _difference(model: ModelRecord, initial: ModelRecord) -> str | None:
    if not model.info or not initial.info:
        return None  # not inspected yet: the engine will look
    own, found = model.info["layers"], initial.info["layers"]
    for layers, others, lacking in ((own, found, initial), (found, own, model)):
        missing = [layer for layer in layers if layer not in set(others)]
        if missing:
            more = f" and {len(missing) - 1} more layers" if len(missing) > 1 else ""
            other = model if lacking is initial else initial
            return f"`{lacking.id}` lacks the layer `{missing[0]}`{more} of `{other.id}`"
    if model.info["parameters"] != initial.info["parameters"]:
        return (
            f"`{initial.id}` has {initial.info['parameters']:,} parameters and `{model.id}` "
            f"{model.info['parameters']:,}"
        )
    return None
