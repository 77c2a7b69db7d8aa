"""Parameters and bytes of a program after a removal, worked out from shapes alone.

The coupling knows which indices of every tensor survive, and with them the shape of what is left of
it; a tensor that the run never read keeps its own. So a removal costs one pass over the tensors,
without a model being cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from torch import Tensor

from engine.compaction.survivors import Components, Survivors
from engine.coupling import Coupling
from engine.measure.size import weights_of
from engine.torchscript.program import Program, memory_of


class ParametersBySelection:
    """The parameters of one program for any removal of its components."""

    def __init__(self, coupling: Coupling, program: Program) -> None:
        self._coupling = coupling
        self._weights = weights_of(program)

    def after(self, removed: Components) -> int:
        """Parameters once these components are gone."""
        return sum(prod(shape) for shape in _shapes(self._coupling, removed, self._weights))


class BytesBySelection:
    """The bytes of one program's file for any removal of its components.

    A file holds the tensors, tied ones once, and code, whose size is taken to stay.
    """

    def __init__(self, coupling: Coupling, program: Program, file_bytes: float) -> None:
        """Of a program whose own file has `file_bytes`."""
        tensors = coupling.methods.join(program).tensors()
        read = {name: tensors[name] for name in coupling.tape.tensors if name in tensors}
        # By memory, those first whose shape after a removal is known.
        held = {memory_of(tensor): name for name, tensor in reversed((read | tensors).items())}
        self._coupling = coupling
        self._tensors = {name: tensors[name] for name in held.values()}
        self._code = file_bytes - self._memory([t.shape for t in self._tensors.values()])

    def after(self, removed: Components) -> float:
        """Bytes once these components are gone."""
        return self._code + self._memory(_shapes(self._coupling, removed, self._tensors))

    def _memory(self, shapes: list[tuple[int, ...]]) -> int:
        tensors = self._tensors.values()
        return sum(
            prod(shape) * tensor.element_size()
            for tensor, shape in zip(tensors, shapes, strict=True)
        )


def _shapes(
    coupling: Coupling, removed: Components, tensors: Mapping[str, Tensor]
) -> list[tuple[int, ...]]:
    survivors = Survivors(coupling, removed)
    values = coupling.tape.tensors
    return [
        survivors.shape(values[name].number, tuple(tensor.shape))
        if name in values
        else tuple(tensor.shape)
        for name, tensor in tensors.items()
    ]
