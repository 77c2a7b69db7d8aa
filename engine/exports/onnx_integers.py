"""Weights of an ONNX file as the integers that they are rounded to.

Torch writes a rounded weight as QuantizeLinear and DequantizeLinear on a constant in floating
point. Here the first is carried out and the integers are stored, a byte each:

    y = saturate(round_half_even(x / s) + z)

(ONNX operator QuantizeLinear-13, with a scale for each index of `axis`). What only transposes such
a weight is carried out as well, so that runtimes meet DequantizeLinear right in front of the
operator that computes, which is what they look for to compute in integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

Array = np.ndarray[Any, Any]


def store_integers(model: ModelProto) -> int:
    """Store the integers of constants that are quantised, and drop what nothing reads then.

    Args:
        model: is changed.

    Returns:
        How many tensors are stored as integers.
    """
    graph = model.graph
    held = {one.name: one for one in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    stored = 0
    for node in list(graph.node):
        if node.op_type == "QuantizeLinear":
            stored += _quantise(graph, node, held, makers)
        elif node.op_type == "Transpose":
            _transpose(graph, node, held, makers)
    _drop_unread(graph)
    return stored


def _quantise(
    graph: GraphProto, node: NodeProto, held: dict[str, Any], makers: dict[str, NodeProto]
) -> bool:
    values, scale, zero = (_constant(name, held, makers) for name in node.input)
    if values is None or scale is None or zero is None:
        return False
    axis = next((one.i for one in node.attribute if one.name == "axis"), 1)
    if scale.ndim:
        shape = [1] * values.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    limits = np.iinfo(zero.dtype)
    codes = np.rint(values / scale) + zero.astype(np.float32)
    integers = np.clip(codes, limits.min, limits.max).astype(zero.dtype)
    name = f"{node.input[0]}_quantized"
    while name in held:
        name += "_"
    _store(graph, name, integers, held)
    for reader in graph.node:
        for position, read in enumerate(reader.input):
            if read == node.output[0]:
                reader.input[position] = name
    graph.node.remove(node)
    return True


def _transpose(
    graph: GraphProto, node: NodeProto, held: dict[str, Any], makers: dict[str, NodeProto]
) -> None:
    """Transpose the integers in the place of the decoded weight."""
    decode = makers.get(node.input[0])
    if decode is None or decode.op_type != "DequantizeLinear" or decode.input[0] not in held:
        return
    codes = numpy_helper.to_array(held[decode.input[0]])
    order = next((list(one.ints) for one in node.attribute if one.name == "perm"), None)
    order = list(range(codes.ndim))[::-1] if order is None else order
    name = f"{decode.input[0]}_transposed"
    while name in held:
        name += "_"
    _store(graph, name, np.ascontiguousarray(codes.transpose(order)), held)
    axis = next((one.i for one in decode.attribute if one.name == "axis"), 1)
    made = onnx.helper.make_node(
        "DequantizeLinear",
        [name, *decode.input[1:]],
        [node.output[0]],
        name=f"{decode.name}_transposed",
        axis=order.index(axis % codes.ndim),
    )
    graph.node.insert(list(graph.node).index(node), made)
    graph.node.remove(node)
    makers[node.output[0]] = made


def _store(graph: GraphProto, name: str, array: Array, held: dict[str, Any]) -> None:
    graph.initializer.append(numpy_helper.from_array(array, name))
    held[name] = graph.initializer[-1]


def _constant(name: str, held: dict[str, Any], makers: dict[str, NodeProto]) -> Array | None:
    """The value of a constant, or None."""
    if name in held:
        return numpy_helper.to_array(held[name])
    maker = makers.get(name)
    if maker is None:
        return None
    if maker.op_type == "Constant" and maker.attribute[0].name == "value":
        return numpy_helper.to_array(maker.attribute[0].t)
    if maker.op_type in {"Cast", "Identity"}:
        inner = _constant(maker.input[0], held, makers)
        if inner is None or maker.op_type == "Identity":
            return inner
        return inner.astype(onnx.helper.tensor_dtype_to_np_dtype(maker.attribute[0].i))
    return None


def _drop_unread(graph: GraphProto) -> None:
    """Drop constants, casts and decoders whose results nothing reads."""
    while True:
        read = {one.name for one in graph.output} | set(_read(graph))
        unread = [node for node in graph.node if not read & set(node.output)]
        if not unread:
            break
        for node in unread:
            graph.node.remove(node)
    kept = [one for one in graph.initializer if one.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _read(graph: GraphProto) -> Iterator[str]:
    """Names that nodes read, those in inner graphs included."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _read(attribute.g)
                yield from (one.name for one in attribute.g.output)
