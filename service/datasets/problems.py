"""Why a dataset is refused."""

from __future__ import annotations

from secateur.resources import FieldProblem

from service.problems import ProblemError

LAYOUT = (
    "Name tensors `train/inputs/0`, `train/targets/0`, `validation/inputs/0`, "
    "`validation/targets/0`: the index of the forward argument or its name, and for a nested "
    "argument the keys below it (`train/inputs/0/image`). The first dimension counts samples."
)


class DatasetRefused(ProblemError):
    """The file is no dataset, is damaged, or its tensors do not make one."""

    status = 422
    type = "dataset-invalid"
    title = "The file is not a usable dataset"

    def __init__(self, detail: str, *, tensor: str | None = None, hint: str = LAYOUT) -> None:
        errors = [] if tensor is None else [FieldProblem(field=tensor, message=detail)]
        super().__init__(detail, hint=hint, errors=errors)
