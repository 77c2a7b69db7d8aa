"""Uploaded losses and metrics of a job: whether it names those that its recipe asks for.

What they compute is found out in the runner, which alone loads them.
"""

from __future__ import annotations

from collections.abc import Iterator

from secateur.recipe_objective_fit import module_faults
from secateur.resources import FieldProblem, JobCreate


def objective_module_faults(request: JobCreate) -> Iterator[FieldProblem]:
    """Every module that is missing, of no use, or the model itself."""
    given = {
        role: model_id
        for role, model_id in (
            ("loss", request.loss_model_id),
            ("metric", request.metric_model_id),
        )
        if model_id is not None
    }
    for role, message in module_faults(request.recipe, given):
        yield FieldProblem(field=f"{role}_model_id", message=message)
    for role, model_id in given.items():
        if model_id == request.model_id:
            yield FieldProblem(
                field=f"{role}_model_id",
                message="It is the model itself. Upload a TorchScript module that takes (outputs, "
                "targets) and returns one float.",
            )
