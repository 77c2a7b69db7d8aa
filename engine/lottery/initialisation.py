"""Fresh weights for a program without its source, each by the role it plays in the graph.

The scratch controls (Liu et al. 2019, "Rethinking the Value of Network Pruning", ICLR) train the
pruned architecture from new random weights. Which distribution a tensor is drawn from follows from
the operator that reads it, as torch.nn initialises the layer of that operator (Kaiming uniform
with a = sqrt(5), He et al. 2015):

    weight and bias of a convolution or matrix product:   U(-1/sqrt(n), 1/sqrt(n)), n = fan in
    weights of a recurrent layer:                          U(-1/sqrt(h), 1/sqrt(h)), h = hidden
    normalisation:                                         scale 1, shift 0, mean 0, variance 1
    embedding:                                             N(0, 1), the padding row 0
    prelu:                                                 0.25

What is read in another way (a bare parameter: positions, class tokens, layer scales) is drawn
from the normal distribution with the mean and deviation that it has; those are named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import torch
from torch import Tensor

from engine.calling import copies
from engine.seeds import generator
from engine.tape import Step, TensorValue, record
from engine.torchscript.program import Program

Draw = Callable[[Tensor, torch.Generator], Tensor]
"""The tensor as it is (float32, CPU) and a generator to its fresh values."""

_NORMS = frozenset(
    f"aten::{name}"
    for name in (
        "batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training",
        "cudnn_batch_norm", "instance_norm", "layer_norm", "native_layer_norm", "group_norm",
        "native_group_norm", "rms_norm", "_fused_rms_norm",
    )
)  # fmt: skip
_PRODUCTS = {
    "aten::matmul": "other", "aten::mm": "mat2", "aten::bmm": "mat2", "aten::addmm": "mat2",
    "aten::baddbmm": "batch2",
}  # fmt: skip
_SHIFTED = frozenset({"aten::addmm", "aten::baddbmm"})
_LOOKED_UP = frozenset({"aten::embedding", "aten::embedding_bag"})
_PRELU = frozenset({"aten::prelu", "aten::_prelu_kernel"})
_AT_REST = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
_RECURRENT = {"aten::lstm": 4, "aten::gru": 3, "aten::rnn_tanh": 1, "aten::rnn_relu": 1}
_CELLS = {
    "aten::lstm_cell": 4, "aten::gru_cell": 3, "aten::rnn_tanh_cell": 1, "aten::rnn_relu_cell": 1,
}  # fmt: skip
_PASSING = frozenset(
    f"aten::{name}"
    for name in ("t", "transpose", "permute", "view", "reshape", "flatten", "to", "contiguous",
                 "detach", "clone", "unsqueeze", "squeeze")
)  # fmt: skip
"""A weight may pass through these on its way into an operand."""


@dataclass(frozen=True)
class Fresh:
    """A program with fresh weights.

    Attributes:
        program: over the same graph.
        by_distribution: names of tensors whose role the graph does not tell.
    """

    program: Program
    by_distribution: list[str]


@torch.no_grad()
def reinitialise(program: Program, inputs: Sequence[Any], *, seed: int) -> Fresh:
    """Draw every parameter anew, and reset the statistics of normalisations.

    Args:
        program: stays as it is.
        inputs: example inputs, to see what reads what.
        seed: every tensor draws by its own name.
    """
    roles = _Roles()
    for step in record(program, copies(inputs)).steps:
        roles.see(step)
    fresh = program.twin()
    own, unknown = fresh.attributes(), []
    parameters = fresh.parameters()
    for name, tensor in {**parameters, **{name: own[name] for name in roles.of}}.items():
        if not tensor.is_floating_point():
            continue
        draw = roles.of.get(name)
        if draw is None:
            if name not in roles.read:
                continue
            unknown.append(name)
            draw = _as_it_is_spread
        values = draw(tensor.float().cpu(), generator(seed, "scratch", name))
        tensor.copy_(values)
    for name, tensor in own.items():
        if name.rpartition(".")[2] == "num_batches_tracked":
            tensor.zero_()
    return Fresh(fresh, unknown)


class _Roles:
    """How each named tensor is drawn, by the first operator that tells."""

    def __init__(self) -> None:
        self.of: dict[str, Draw] = {}
        self.read: set[str] = set()
        self._names: dict[int, str] = {}
        self._fans: dict[int, int] = {}

    def see(self, step: Step) -> None:
        """Learn from one operator of the run."""
        for value in step.tensors():
            name = self._name(value)
            if name is not None:
                self.read.add(name)
        for kinds, handle in (
            (_PASSING, self._pass_on),
            (_NORMS, self._norm),
            (_LOOKED_UP, self._looked_up),
            (_RECURRENT, self._recurrent),
            (_CELLS, self._cell),
            (_PRODUCTS, self._product),
        ):
            if step.kind in kinds:
                handle(step)
                return
        if step.kind == "aten::add":
            self._shift_after_product(step)
        else:
            self._by_weight(step)

    def _norm(self, step: Step) -> None:
        for argument, value in _AT_REST.items():
            self._play(step.argument(argument), _constant(value))

    def _looked_up(self, step: Step) -> None:
        self._play(step.argument("weight"), _embedding(step.argument("padding_idx", -1)))

    def _recurrent(self, step: Step) -> None:
        weights = step.argument("params")
        for weight in weights:
            self._play(weight, _uniform(weights[1].shape[0] // _RECURRENT[step.kind]))

    def _cell(self, step: Step) -> None:
        hidden = step.argument("w_hh").shape[0] // _CELLS[step.kind]
        for argument in ("w_ih", "w_hh", "b_ih", "b_hh"):
            self._play(step.argument(argument), _uniform(hidden))

    def _product(self, step: Step) -> None:
        weight = step.argument(_PRODUCTS[step.kind])
        fan = weight.shape[-2] if len(weight.shape) > 1 else weight.shape[0]
        self._weigh(step, weight, fan)
        if step.kind in _SHIFTED:
            self._play(step.argument("self"), _uniform(fan))

    def _by_weight(self, step: Step) -> None:
        """Convolutions, linear and bilinear layers; prelu."""
        weight = step.argument("weight")
        if not isinstance(weight, TensorValue):
            return
        if step.kind in _PRELU:
            self._play(weight, _constant(0.25))
        elif len(weight.shape) > 1:
            # As torch counts it, for transposed convolutions and bilinear layers too.
            kernel = () if step.kind == "aten::bilinear" else weight.shape[2:]
            fan = weight.shape[1] * prod(kernel)
            self._weigh(step, weight, fan)
            self._play(step.argument("bias"), _uniform(fan))

    def _name(self, value: Any) -> str | None:
        if not isinstance(value, TensorValue):
            return None
        return value.name or self._names.get(value.number)

    def _pass_on(self, step: Step) -> None:
        name = self._name(step.arguments[0])
        for output in step.outputs:
            if name is not None and isinstance(output, TensorValue):
                self._names[output.number] = name

    def _play(self, value: Any, draw: Draw) -> None:
        name = self._name(value)
        if name is not None:
            self.of.setdefault(name, draw)

    def _weigh(self, step: Step, weight: TensorValue, fan: int) -> None:
        if self._name(weight) is None:
            return
        self._play(weight, _uniform(fan))
        for output in step.outputs:
            if isinstance(output, TensorValue):
                self._fans[output.number] = fan

    def _shift_after_product(self, step: Step) -> None:
        """A linear layer taken apart: product, then bias."""
        both = step.tensors()
        for product, bias in (both, both[::-1]) if len(both) == 2 else ():
            if product.number in self._fans and len(bias.shape) == 1:
                self._play(bias, _uniform(self._fans[product.number]))


def _uniform(fan: int) -> Draw:
    bound = 1 / sqrt(max(fan, 1))
    return lambda tensor, noise: torch.rand(tensor.shape, generator=noise) * 2 * bound - bound


def _constant(value: float) -> Draw:
    return lambda tensor, _: torch.full_like(tensor, value)


def _embedding(padding: int) -> Draw:
    def draw(tensor: Tensor, noise: torch.Generator) -> Tensor:
        values = torch.randn(tensor.shape, generator=noise)
        if 0 <= padding < len(values):
            values[padding] = 0.0
        return values

    return draw


def _as_it_is_spread(tensor: Tensor, noise: torch.Generator) -> Tensor:
    spread = tensor.std(correction=0)
    return tensor.mean() + spread * torch.randn(tensor.shape, generator=noise)
