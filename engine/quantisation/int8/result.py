"""What became of each layer, and the program that computes in int8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engine.errors import NothingQuantised
from engine.torchscript.program import Program
from engine.torchscript.slim_archive import slimmed

Form = Literal["int8", "int8_weight", "float"]


@dataclass(frozen=True)
class LayerQuantised:
    """One operator that reads a weight, or has an int8 form.

    Attributes:
        name: of the layer.
        op: the operator, such as `linear` or `conv2d`.
        form: `int8` computes with integers; `int8_weight` stores its weight as integers and
            computes in floating point; `float` is as it was.
        reason: why it does not compute with integers; empty where it does.
    """

    name: str
    op: str
    form: Form
    reason: str = ""


@dataclass(frozen=True)
class Int8Result:
    """A quantised program.

    Attributes:
        program: runs on a CPU; to save, to run and to time, not to prune or train further.
        layers: in the order in which they run.
    """

    program: Program
    layers: tuple[LayerQuantised, ...]

    def to_bytes(self) -> bytes:
        """The TorchScript file, without the records that only error messages would read."""
        return slimmed(self.program.to_bytes())


def require_some(layers: Sequence[LayerQuantised], where: str) -> None:
    """Refuse a result that is what came in.

    Raises:
        NothingQuantised: every layer stays in floating point.
    """
    if any(layer.form != "float" for layer in layers):
        return
    reasons = dict.fromkeys(f"{layer.name} ({layer.op}): {layer.reason}" for layer in layers)
    listed = "; ".join(list(reasons)[:5])
    raise NothingQuantised(
        "no layer of the model can be quantised to int8",
        hint=listed
        or "it has no linear, convolution, recurrent or embedding layer whose weight "
        "is the same for every input",
        where=where,
    )
