r"""How strongly each input of a layer is driven: norms of its input features.

For a layer :math:`y = W x` the norm of input feature j over all samples and positions p is

.. math:: \lVert X_j \rVert_2 = \sqrt{\sum_{n, p} x_{n, j, p}^2}

Linear layers, matrix products with a weight on the right, and convolutions (grouped and transposed
ones too) have such inputs. A weight is known by its memory, so that one that is transposed on its
way is found as well; one that several layers read gets the inputs of all of them. Sums are in
float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.evidence.samples import Evidence
from engine.structure import map_tensors
from engine.torchscript.instructions import Instruction
from engine.torchscript.interpreter import Interpreter, PlainVisitor, run_operator
from engine.torchscript.program import Program

_CONVOLUTIONS = frozenset(
    f"aten::{name}"
    for name in (
        "conv1d", "conv2d", "conv3d", "_convolution", "_convolution_mode", "convolution",
        "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    )
)  # fmt: skip
_PRODUCTS = {
    "aten::matmul": ("self", "other"),
    "aten::mm": ("self", "mat2"),
    "aten::addmm": ("mat1", "mat2"),
}


def input_norms(program: Program, evidence: Evidence) -> dict[str, Tensor]:
    """For every weight whose inputs are known, their norms, in a shape that multiplies it.

    Returns:
        float64 tensors on the CPU by parameter name; they broadcast to the weight's shape.
    """
    own = program.twin()
    visitor = _Inputs(own.parameters())
    for _, batch in evidence.stream(program):
        placed = [map_tensors(value, Tensor.clone) for value in batch.inputs]
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            Interpreter(own, visitor).run(placed)
    return {name: squares.sqrt().cpu() for name, squares in visitor.squares.items()}


class _Inputs(PlainVisitor):
    def __init__(self, parameters: dict[str, Tensor]) -> None:
        self._weights = {_place(weight): (name, weight) for name, weight in parameters.items()}
        self.squares: dict[str, Tensor] = {}

    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        kind, operator = instruction.kind, instruction.operator
        if operator is not None and (
            kind == "aten::linear" or kind in _CONVOLUTIONS | {*_PRODUCTS}
        ):
            given = dict(zip(operator.arguments, arguments, strict=True))
            if kind in _PRODUCTS:
                left, right = _PRODUCTS[kind]
                self._product(given[left], given[right], row=0)
            elif kind == "aten::linear":
                self._product(given["input"], given["weight"], row=1)
            else:
                transposed = bool(given.get("transposed", "transpose" in kind))
                self._convolution(given, transposed=transposed)
        return run_operator(instruction, arguments)

    def _product(self, x: Tensor, weight: Tensor, *, row: int) -> None:
        """Args: row: the dimension of the weight that meets the last one of x."""
        found = self._weights.get(_place(weight))
        if found is None or weight.dim() != 2 or found[1].dim() != 2:
            return
        name, base = found
        if weight.stride() == base.stride():
            dim = row
        elif weight.stride() == base.stride()[::-1]:
            dim = 1 - row
        else:
            return
        squares = _squares(x, x.dim() - 1)
        self._add(name, squares[None, :] if dim == 1 else squares[:, None])

    def _convolution(self, given: dict[str, Any], *, transposed: bool) -> None:
        x, weight, groups = given["input"], given["weight"], int(given["groups"])
        found = self._weights.get(_place(weight))
        if found is None or weight.shape != found[1].shape:
            return
        name, base = found
        squares = _squares(x, x.dim() - (weight.dim() - 1))
        kernel = [1] * (weight.dim() - 2)
        if transposed:  # [in, out / groups, ...]
            self._add(name, squares.reshape(-1, 1, *kernel))
            return
        # [out, in / groups, ...]: the filters of a group read that group's inputs.
        rows = squares.reshape(groups, 1, -1).expand(-1, base.shape[0] // groups, -1)
        self._add(
            name,
            rows.reshape(base.shape[0], -1, *kernel)
            if groups > 1
            else squares.reshape(1, -1, *kernel),
        )

    def _add(self, name: str, squares: Tensor) -> None:
        known = self.squares.get(name)
        self.squares[name] = squares if known is None else known + squares


def _squares(x: Tensor, dim: int) -> Tensor:
    """Sum of squares along all other dimensions."""
    rows = x.detach().movedim(dim, 0).flatten(1)
    return rows.double().square().sum(dim=1)


def _place(tensor: Tensor) -> tuple[int, int, int]:
    """What a weight and its transposed views have in common."""
    return tensor.untyped_storage().data_ptr(), int(tensor.storage_offset()), tensor.numel()
