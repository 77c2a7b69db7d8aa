"""Values of a dataset that are no numbers: NaN and infinities, by tensor and row.

One of them in a batch makes the loss, and then every weight, NaN. Minus infinity in an input is let
through with a remark: additive attention masks say no by it.
"""

from __future__ import annotations

from torch import Tensor

from engine.data.batches import Batch
from engine.data.splits import Split
from engine.errors import DatasetInvalid
from engine.objective.reading import row_of
from engine.structure import tensors_in


class NumberCheck:
    """Looks at the rows of a split.

    Attributes:
        remarks: what was let through.
    """

    def __init__(self, split: Split) -> None:
        self._split = split
        self.remarks: list[str] = []

    def see(self, rows: Batch, start: int) -> None:
        """Some rows, the first of them with this number.

        Raises:
            DatasetInvalid: NaN or infinity; names the tensor and the row.
        """
        inputs = tensors_in(rows.inputs)
        for name, tensor in zip(self._split.input_names, inputs, strict=False):
            self._look(name, tensor, start, masks=True)
        for name, tensor in zip(self._split.target_names, tensors_in(rows.targets), strict=False):
            self._look(name, tensor, start, masks=False)

    def _look(self, name: str, tensor: Tensor, start: int, *, masks: bool) -> None:
        if not tensor.is_floating_point() or bool(tensor.isfinite().all()):
            return
        wrong = tensor.isnan() | tensor.isposinf() if masks else ~tensor.isfinite()
        if not bool(wrong.any()):
            row = row_of(tensor.isneginf(), start)
            if not any(f"`{name}`" in remark for remark in self.remarks):
                self.remarks.append(
                    f"`{name}` holds minus infinity, first in row {row}; that is right for an "
                    "additive mask and for little else"
                )
            return
        row = row_of(wrong, start)
        value = float(tensor[row - start][wrong[row - start]].flatten()[0])
        raise DatasetInvalid(
            f"`{name}` holds {'NaN' if value != value else value} in row {row}",  # noqa: PLR0124
            hint="every number of a dataset must be finite; correct the row or leave it out",
            where=name,
        )
