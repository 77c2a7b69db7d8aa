"""Which operators have an int8 form, and how each is written.

1. *Convolutions and matrix products* with a constant weight read int8 always: that is what the
   scheme is for. A relu after them is done by the same operator.
2. *Sums, products and concatenations* of tensors compute in int8 where one operand already is.
3. *Operators that move or select values*, pooling and relu among them, take the integers as they
   are: what comes out has the scale of what went in.
4. *hardswish and leaky_relu* need a range for what they give. A sigmoid stays in floating point:
   qnnpack gives it in 8 bits alone, and then sums could be cut off elsewhere (see `REDUCED`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from engine.quantisation.int8.result import LayerQuantised
from engine.torchscript.int8.lowering import Lowering, Rule, Site, Twin
from engine.torchscript.int8.operands import UNKNOWN
from engine.torchscript.int8.packed import Convolution, Packed, PackedConvolution
from engine.torchscript.int8.products import PRODUCTS, bias_of, product_layer, product_weight
from engine.torchscript.int8.rewriting import Refused, argument, called, layer_of

_MOVING = (
    "relu", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean", "flatten", "view", "reshape",
    "unflatten", "permute", "transpose", "t", "squeeze", "unsqueeze", "contiguous", "slice",
    "select", "detach", "clone", "expand", "alias", "hardtanh", "relu6", "upsample_nearest2d",
)  # fmt: skip
"""Operators of torch that take quantised tensors by the same name, and keep their scale."""

_PASSED_BY = ("dropout", "feature_dropout", "alpha_dropout")


def convolution(lowering: Lowering, node: Any) -> bool:
    """A convolution; transposed ones have no int8 form with a scale for each channel."""
    rewriting = lowering.rewriting
    layer = layer_of(rewriting, node, 1)
    _require_included(lowering, layer)
    weight = rewriting.weight(node.inputsAt(1))
    spatial = weight.tensor.dim() - 2
    kind: Convolution | None = {1: "conv1d", 2: "conv2d", 3: "conv3d"}.get(spatial)  # type: ignore[assignment]
    if kind is None:
        raise Refused(f"its weight has {weight.tensor.dim()} dimensions")
    geometry = _geometry(lowering, node, spatial)
    bias = bias_of(rewriting, node.inputsAt(2), len(weight.tensor))

    def make() -> Packed:
        return PackedConvolution(kind, rewriting.store.code(weight), bias, *geometry)

    last, place, given, fused = lowering.result(node)
    twin = lowering.twin(node, 0)
    _require_dims(lowering, twin, spatial + 2)
    tensors = [weight.tensor, *([] if bias is None else [bias])]
    number = rewriting.store.place((kind, geometry), tensors, make)
    operands = [twin.value, rewriting.read(number, node)]
    operands += [lowering.number(item, node) for item in (given.scale, given.zero_point)]
    made = rewriting.append(f"quantized::{kind}{'_relu' * fused}", operands, node)
    _done(lowering, node, layer, twin, place)
    lowering.give(node, made, place, last)
    return True


def _geometry(
    lowering: Lowering, node: Any, spatial: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]:
    """Stride, padding, dilation and groups."""
    plain = lowering.rewriting.operands.plain
    if node.kind() in {"aten::_convolution", "aten::convolution"} and (
        plain(argument(node, "transposed")) is not False
    ):
        raise Refused("torch has no int8 transposed convolution with a scale for each channel")
    named = {name: plain(argument(node, name)) for name in ("stride", "padding", "dilation")}
    groups = plain(argument(node, "groups"))
    if UNKNOWN in [groups, *named.values()]:
        raise Refused("its stride or padding is computed while it runs")
    if isinstance(named["padding"], str):
        if named["padding"] != "valid":
            raise Refused("its padding is `same`, which may differ from side to side")
        named["padding"] = [0]
    stride, padding, dilation = (
        tuple(named[name] * spatial if len(named[name]) == 1 else named[name])
        for name in ("stride", "padding", "dilation")
    )
    return stride, padding, dilation, groups


def product(lowering: Lowering, node: Any) -> bool:
    """A matrix product with a weight."""
    rewriting = lowering.rewriting
    layer = product_layer(rewriting, node)
    if layer is None:
        return False
    _require_included(lowering, layer)
    value, number = product_weight(rewriting, node)
    last, place, given, fused = lowering.result(node)
    position = 1 if node.kind() == "aten::addmm" else 0
    twin = lowering.twin(node, position, value)
    dims = lowering.range(twin.place).dims
    if dims is not None and dims < 2:
        raise Refused("its input has no batch dimension")
    operands = [twin.value, rewriting.read(number, node)]
    operands += [lowering.number(item, node) for item in (given.scale, given.zero_point)]
    made = rewriting.append(f"quantized::linear{'_relu' * fused}", operands, node)
    _done(lowering, node, layer, twin, place)
    lowering.give(node, made, place, last)
    return True


def both(lowering: Lowering, node: Any) -> bool:
    """A sum or product of two tensors that int8 operators gave.

    Rounding a tensor to 7 bits for it would cost more accuracy than a sum is worth: residual
    streams of transformers stay in floating point.
    """
    kind = called(node)
    twins = [lowering.known(node.inputsAt(position)) for position in (0, 1)]
    if twins[0] is None or twins[1] is None or twins[0].rounded or twins[1].rounded:
        return False
    if kind == "add" and lowering.rewriting.operands.plain(argument(node, "alpha")) != 1:
        raise Refused("its second operand is scaled")
    last, place, given, fused = lowering.result(node)
    operands = [twins[0].value, twins[1].value]
    operands += [lowering.number(item, node) for item in (given.scale, given.zero_point)]
    name = f"quantized::{kind}{'_relu' * fused}"
    made = lowering.rewriting.append(name, operands, node)
    lowering.layers.append(LayerQuantised(lowering.name(node), kind, "int8"))
    lowering.give(node, made, place, last)
    return True


def concatenation(lowering: Lowering, node: Any) -> bool:
    """A concatenation of listed tensors that are all quantised already."""
    listed = node.inputsAt(0).node()
    if listed.kind() != "prim::ListConstruct":
        return False
    if any(use.user.kind() != "aten::cat" for use in listed.output().uses()):
        return False  # what else has the list may change it
    twins = [lowering.known(value) for value in listed.inputs()]
    items = [twin.value for twin in twins if twin is not None]
    if not items or len(items) < len(twins):
        return False
    place = lowering.name(node)
    given = lowering.range(place)
    rewriting = lowering.rewriting
    items = rewriting.listed(items, node)
    operands = [items, node.inputsAt(1)]
    operands += [lowering.number(item, node) for item in (given.scale, given.zero_point)]
    made = rewriting.append("quantized::cat", operands, node)
    lowering.layers.append(LayerQuantised(place, "cat", "int8"))
    lowering.give(node, made, place)
    return True


def moving(lowering: Lowering, node: Any) -> bool:
    """An operator that keeps the scale of what it reads."""
    twin = lowering.known(node.inputsAt(0))
    if twin is None:
        return False
    kind, operands = node.kind(), [twin.value, *list(node.inputs())[1:]]
    if kind == "aten::relu6":
        kind = "aten::hardtanh"
        operands += [lowering.number(item, node) for item in (0.0, 6.0)]
    made = lowering.rewriting.append(kind, operands, node)
    made.output().setType(torch._C.TensorType.get())
    lowering.stand_for(node.output(), Twin(made.output(), twin.place, twin.rounded), node)
    node.destroy()
    return True


def parted(lowering: Lowering, node: Any) -> bool:
    """A tensor cut in several; each keeps its scale."""
    twin = lowering.known(node.inputsAt(0))
    uses = list(node.output().uses())
    if twin is None or len(uses) != 1 or uses[0].user.kind() != "prim::ListUnpack":
        return False
    unpack = uses[0].user
    rewriting = lowering.rewriting
    parts = rewriting.append(node.kind(), [twin.value, *list(node.inputs())[1:]], unpack)
    parts.output().setType(node.output().type())
    made = rewriting.append("prim::ListUnpack", [parts.output()], unpack, unpack.outputsSize())
    for old, new in zip(unpack.outputs(), made.outputs(), strict=True):
        new.setType(old.type())
        lowering.stand_for(old, Twin(new, twin.place, twin.rounded), unpack)
    return True


def passed_by(lowering: Lowering, node: Any) -> bool:
    """Dropout, which does nothing in evaluation mode."""
    twin = lowering.known(node.inputsAt(0))
    off = lowering.rewriting.operands.plain(argument(node, "train")) is False
    if twin is None or not off:
        return False
    node.output().replaceAllUsesWith(node.inputsAt(0))
    node.destroy()
    return True


def table(lowering: Lowering, node: Any) -> bool:
    """An activation by a table of 256 entries."""
    twin = lowering.known(node.inputsAt(0))
    if twin is None:
        return False
    place = lowering.name(node)
    given = lowering.range(place)
    operands = [twin.value]
    if called(node) == "leaky_relu":
        operands += [node.inputsAt(1), lowering.number(False, node)]
    operands += [lowering.number(item, node) for item in (given.scale, given.zero_point)]
    made = lowering.rewriting.append(f"quantized::{called(node)}", operands, node)
    lowering.layers.append(LayerQuantised(place, called(node), "int8"))
    lowering.give(node, made, place)
    return True


def _require_included(lowering: Lowering, layer: str) -> None:
    if layer in lowering.rewriting.excluded:
        raise Refused("the recipe excludes it")


def _require_dims(lowering: Lowering, twin: Twin, dims: int) -> None:
    found = lowering.range(twin.place).dims
    if found is not None and found != dims:
        raise Refused("its input has no batch dimension")


def _done(lowering: Lowering, node: Any, layer: str, twin: Twin, place: str) -> None:
    lowering.layers.append(LayerQuantised(layer, called(node), "int8"))
    lowering.sites[lowering.name(node)] = Site(layer, twin.place, place)


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        [f"aten::{name}" for name in ("conv1d", "conv2d", "conv3d", "_convolution", "convolution")],
        convolution,
    ),
    **dict.fromkeys(sorted(PRODUCTS), product),
    "aten::add": both,
    "aten::mul": both,
    "aten::cat": concatenation,
    **dict.fromkeys(["aten::chunk", "aten::split", "aten::split_with_sizes"], parted),
    **dict.fromkeys([f"aten::{name}" for name in _MOVING], moving),
    **dict.fromkeys([f"aten::{name}" for name in _PASSED_BY], passed_by),
    **dict.fromkeys(["aten::hardswish", "aten::leaky_relu"], table),
}
"""By operator."""
