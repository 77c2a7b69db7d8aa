r"""A program as int8 takes it: in evaluation mode for good, without writes in place, and
with BatchNorm folded into the layer before it.

A BatchNorm with running statistics is an affine map of each channel. After a convolution or linear
layer with weight :math:`W` and bias :math:`b`, and with
:math:`a = \gamma / \sqrt{\sigma^2 + \epsilon}`,

.. math:: a (W x + b - \mu) + \beta = (a W) x + a (b - \mu) + \beta

which is the same layer with other numbers (Jacob et al. 2018, section 3.2). They are written into
the program's own tensors: the weight keeps its name, and so does the bias; a layer without a bias
reads the BatchNorm's from then on. A layer whose weight has another reader is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.torchscript.batch_norms import BATCH_NORMS
from engine.torchscript.int8.operands import Operands, nodes_in
from engine.torchscript.int8.rewriting import argument, readers
from engine.torchscript.program import Program, memory_of

_FOLDED_INTO = frozenset(
    f"aten::{name}"
    for name in ("conv1d", "conv2d", "conv3d", "_convolution", "convolution", "linear")
)


def prepared(program: Program) -> Program:
    """A copy that computes the same in evaluation mode, to calibrate and to lower.

    Its graph is settled: reading it from a file gives the same operators in the same order.
    """
    fresh = program.copy()
    graph = fresh.graph
    operands = Operands(fresh, graph)
    for node in list(nodes_in(graph)):
        if node.kind() != "prim::GetAttr":
            continue
        value = False if node.s("name") == "training" else operands.plain(node.output())
        if isinstance(value, bool | int | float):
            graph.setInsertPoint(node)
            node.output().replaceAllUsesWith(graph.insertConstant(value))
    torch._C._jit_pass_constant_propagation(graph)
    torch._C._jit_pass_remove_mutation(graph)
    torch._C._jit_pass_dce(graph)
    _fold(fresh, graph)
    torch._C._jit_pass_dce(graph)
    fresh.edited()
    return fresh


@dataclass(frozen=True)
class _Norm:
    """A BatchNorm that can be folded.

    Attributes:
        layer: the node before it.
        weight: name of that layer's weight.
        bias: name of its bias, or None.
        factor, shift: a and beta of the derivation; float64, one a channel.
        mean: float64, one a channel.
        held: name of a tensor of one number a channel that has no reader once this is folded.
        reads: the node that reads it.
    """

    layer: Any
    weight: str
    bias: str | None
    factor: Tensor
    shift: Tensor
    mean: Tensor
    held: str
    reads: Any


def _fold(program: Program, graph: Any) -> None:
    operands = Operands(program, graph)
    counts = _readers(program, operands, graph)
    for node in [item for item in nodes_in(graph) if item.kind() in BATCH_NORMS]:
        norm = _foldable(program, operands, counts, node)
        if norm is None:
            continue
        held = program.attributes()
        weight = held[norm.weight].detach().double()
        bias = 0.0 if norm.bias is None else held[norm.bias].detach().double()
        factor = norm.factor.reshape(-1, *[1] * (weight.dim() - 1))
        program.set_tensor(norm.weight, (weight * factor).float())
        program.set_tensor(
            norm.bias or norm.held, (norm.factor * (bias - norm.mean) + norm.shift).float()
        )
        if norm.bias is None:
            norm.layer.replaceInput(2, _read_again(graph, norm.reads, norm.layer))
        node.outputsAt(0).replaceAllUsesWith(norm.layer.output())


def _foldable(
    program: Program, operands: Operands, counts: dict[Any, int], node: Any
) -> _Norm | None:
    layer = node.inputsAt(0).node()
    if (
        layer.kind() not in _FOLDED_INTO
        or len(readers(node.inputsAt(0))) != 1
        or any(list(output.uses()) for output in list(node.outputs())[1:])
        or operands.plain(argument(node, "training")) is not False
        or (layer.kind() in {"aten::_convolution", "aten::convolution"}
            and operands.plain(argument(layer, "transposed")) is not False)
    ):  # fmt: skip
        return None
    named = {
        name: operands.tensor(argument(node, name))
        for name in ("weight", "bias", "running_mean", "running_var")
    }
    mean, var = named["running_mean"], named["running_var"]
    weight, bias = operands.tensor(layer.inputsAt(1)), operands.tensor(layer.inputsAt(2))
    if mean is None or var is None or weight is None:
        return None
    if bias is None and operands.plain(layer.inputsAt(2)) is not None:
        return None
    read = [item for item in (weight, bias, *named.values()) if item is not None]
    tensors = program.attributes()
    if any(
        item.name not in tensors
        or item.tensor.dtype != torch.float32
        or memory_of(item.tensor) != memory_of(tensors[item.name])
        or counts[item.tensor.untyped_storage().data_ptr()] != 1
        for item in read
    ):
        return None
    eps = float(operands.plain(argument(node, "eps")))
    factor = (var.tensor.double() + eps).rsqrt()
    if named["weight"] is not None:
        factor = factor * named["weight"].tensor.double()
    shift = torch.zeros_like(factor)
    spare, place = named["bias"], "bias"
    if spare is not None:
        shift = spare.tensor.double()
    else:
        spare, place = mean, "running_mean"
    return _Norm(
        layer=layer,
        weight=weight.name,
        bias=None if bias is None else bias.name,
        factor=factor,
        shift=shift,
        mean=mean.tensor.double(),
        held=spare.name,
        reads=argument(node, place).node(),
    )


def _readers(program: Program, operands: Operands, graph: Any) -> dict[Any, int]:
    """How often each tensor's memory is read, by forward and by the other methods."""
    graphs = [graph, *(program.graph_of_method(name) for name in program.other_methods())]
    counts: dict[Any, int] = {}
    for other in graphs:
        itself = operands if other is graph else Operands(program, other)
        for node in nodes_in(other):
            found = None
            if node.kind() == "prim::GetAttr":
                path = itself.path(node.output())
                found = program.attributes().get(path) if path else None
            if found is not None:
                start = found.untyped_storage().data_ptr()
                counts[start] = counts.get(start, 0) + len(list(node.output().uses()))
    return counts


def _read_again(graph: Any, read: Any, before: Any) -> Any:
    """The value of an attribute, read in front of another node."""
    owner = read.inputsAt(0)
    if owner.node().kind() == "prim::GetAttr":
        owner = _read_again(graph, owner.node(), before)
    made = graph.create("prim::GetAttr", [owner], 1)
    made.s_("name", read.s("name"))
    made.output().setType(read.output().type())
    made.insertBefore(before)
    return made.output()
