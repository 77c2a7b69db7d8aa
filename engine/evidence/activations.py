r"""Statistics of activations, for every component that has any.

Along the tape every tensor knows which components its indices belong to. A statistic f (is it
zero, how large is it) is averaged over samples and positions at each place where the component
can be seen,

.. math:: s(c, t) = E_{n, p}\, f(x^t_{n, c, p})

where the places t are the outputs of pointwise nonlinearities (relu, gelu, silu, ...). A component
that passes none, such as the residual stream of a transformer, is seen at the outputs of the
layers that produce it. Sums are in float64, so memory does not grow with the samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.coupling import Coupling
from engine.evidence.samples import Evidence
from engine.structure import map_tensors
from engine.tape import Step, TensorValue, flatten
from engine.torchscript.instructions import Instruction
from engine.torchscript.interpreter import Interpreter, PlainVisitor, run_operator
from engine.torchscript.program import Program

Statistic = Callable[[Tensor], Tensor]
"""Of every element of an activation; same shape, any dtype."""

_NONLINEAR = frozenset(
    f"aten::{name}"
    for name in (
        "relu", "relu6", "hardtanh", "leaky_relu", "rrelu", "prelu", "_prelu_kernel", "elu",
        "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign", "sigmoid", "hardsigmoid",
        "hardswish", "tanh", "log_sigmoid", "threshold", "clamp", "clamp_min", "clip", "square",
    )
)  # fmt: skip
_PRODUCING = frozenset(
    f"aten::{name}"
    for name in (
        "conv1d", "conv2d", "conv3d", "_convolution", "convolution", "conv_transpose1d",
        "conv_transpose2d", "conv_transpose3d", "linear", "bilinear", "matmul", "mm", "bmm",
        "addmm", "baddbmm", "einsum", "embedding", "lstm", "gru", "rnn_tanh", "rnn_relu",
    )
)  # fmt: skip


@dataclass
class Place:
    """One dimension of one tensor of the run.

    Attributes:
        output: position among the tensors that the operator gives.
        dim: the dimension.
        component: int64, one per index (or a row of them for each of several); -1 for none.
        total: float64 sum of the statistic for each index; None until something was seen.
        count: how many values each sum is of.
    """

    output: int
    dim: int
    component: npt.NDArray[np.int64]
    total: Tensor | None = None
    count: int = 0

    def see(self, tensor: Tensor, statistic: Statistic) -> None:
        """Add a batch."""
        if tensor.dim() <= self.dim or tensor.shape[self.dim] != self.component.shape[-1]:
            return  # another path through the program than the example's
        values = statistic(tensor).movedim(self.dim, 0).flatten(1)
        added = values.sum(dim=1, dtype=torch.float64)
        self.total = added if self.total is None else self.total + added
        self.count += values.shape[1]

    def means(self) -> npt.NDArray[np.float64] | None:
        """The average for each index."""
        if self.total is None or self.count == 0:
            return None
        found: npt.NDArray[np.float64] = (self.total / self.count).cpu().numpy()
        return found


@dataclass
class Places:
    """All places, by instruction and by how often it had run before."""

    by_run: dict[tuple[int, int], list[Place]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Place]:
        for places in self.by_run.values():
            yield from places


def places_of(coupling: Coupling) -> Places:
    """Where every component can be seen."""
    steps = _numbered(coupling.tape.steps)
    found = Places()
    covered = np.zeros(coupling.component_count, dtype=bool)
    for kinds in (_NONLINEAR, _PRODUCING):
        before = covered.copy()
        for run, step in steps:
            if step.kind in kinds:
                for place in _places(coupling, step, without=before):
                    found.by_run.setdefault(run, []).append(place)
                    covered[place.component[place.component >= 0]] = True
    return found


def activation_means(
    program: Program, coupling: Coupling, evidence: Evidence, statistic: Statistic
) -> list[Place]:
    """Every place with its statistic, averaged over the samples.

    Raises:
        EngineError: the program does not run on the samples.
    """
    places = places_of(coupling)
    joint = coupling.methods.join(program.twin())
    for _, batch in evidence.stream(program):
        inputs = coupling.methods.inputs(program, batch.inputs)
        placed = [map_tensors(value, Tensor.clone) for value in inputs]
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            Interpreter(joint, _Watch(places, statistic)).run(placed)
    return list(places)


def _numbered(steps: list[Step]) -> list[tuple[tuple[int, int], Step]]:
    runs: Counter[int] = Counter()
    numbered = []
    for step in steps:
        numbered.append(((step.instruction.index, runs[step.instruction.index]), step))
        runs[step.instruction.index] += 1
    return numbered


def _places(coupling: Coupling, step: Step, *, without: npt.NDArray[np.bool_]) -> Iterator[Place]:
    for position, value in enumerate(_tensors(step)):
        for dim, labels in enumerate(coupling.labels.get(value.number, ())):
            if labels is None:
                continue
            live = (labels >= 0) & ~without[labels]
            if live.any():
                yield Place(position, dim, np.where(live, labels, -1))


def _tensors(step: Step) -> list[TensorValue]:
    return list(flatten(step.outputs))


class _Watch(PlainVisitor):
    def __init__(self, places: Places, statistic: Statistic) -> None:
        self._places = places
        self._statistic = statistic
        self._runs: Counter[int] = Counter()

    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        outputs = run_operator(instruction, arguments)
        run = (instruction.index, self._runs[instruction.index])
        self._runs[instruction.index] += 1
        for place in self._places.by_run.get(run, ()):
            # Now, for later operators may write to it.
            place.see(_nth_tensor(outputs, place.output), self._statistic)
        return outputs


def _nth_tensor(outputs: Any, position: int) -> Tensor:
    listed = outputs if isinstance(outputs, tuple | list) else [outputs]
    tensors = [value for value in listed if isinstance(value, Tensor)]
    return tensors[position]
