"""Linear and recurrent layers that quantise their inputs when they run.

Each reader of a constant weight is replaced by torch's operator that reads a packed one: it finds
the smallest and largest value of its input, quantises the input to 7 bits between them, multiplies
integers and gives floating point back. So the operators around it stay as they are, and need not
be known. What torch has no such operator for keeps computing in floating point; where that is a
convolution or an embedding, its weight is still stored as integers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from engine.quantisation.int8.result import Form, LayerQuantised
from engine.torchscript.instructions import operator_of
from engine.torchscript.int8.operands import UNKNOWN, nodes_in
from engine.torchscript.int8.packed import REDUCED, Packed, PackedCell, PackedLinear
from engine.torchscript.int8.products import PRODUCTS, product_layer, product_weight
from engine.torchscript.int8.rewriting import (
    CONVOLUTIONS,
    Refused,
    Rewriting,
    WeightStore,
    argument,
    called,
    finished,
    layer_of,
    replace,
)
from engine.torchscript.program import Program

Step = Callable[[Rewriting, Any], tuple[Form, str]]
"""Rewrites a node; gives its form and the reason, or raises `Refused`."""


def lower_dynamic(
    program: Program, excluded: Collection[str]
) -> tuple[Program, list[LayerQuantised]]:
    """A program whose layers quantise their inputs at run time, and what became of each layer.

    Args:
        program: on a CPU; it is used up.
        excluded: layers that stay as they are.
    """
    store, layers, rewritings = WeightStore(), list[LayerQuantised](), list[Rewriting]()
    for method in ("forward", *program.other_methods()):
        rewriting = Rewriting(program, program.graph_of_method(method), store, excluded)
        rewritings.append(rewriting)
        for node in list(nodes_in(rewriting.graph)):
            layers += rewrite(rewriting, node)
    layers = list(dict.fromkeys(layers))
    if not store.packed:
        return program, layers
    return finished(program, rewritings, store), layers


def rewrite(rewriting: Rewriting, node: Any) -> list[LayerQuantised]:
    """Replace a node that reads a weight, where torch has an operator for it.

    Returns:
        What became of it; nothing where it is no layer.
    """
    found = _STEPS.get(node.kind())
    if found is None:
        return []
    find, step = found
    op, layer = called(node), find(rewriting, node)
    if layer is None:
        return []
    if layer in rewriting.excluded:
        return [LayerQuantised(layer, op, "float", "the recipe excludes it")]
    try:
        form, reason = step(rewriting, node)
    except Refused as refused:
        form, reason = "float", str(refused)
    return [LayerQuantised(layer, op, form, reason)]


def _linear(rewriting: Rewriting, node: Any) -> tuple[Form, str]:
    value, number = product_weight(rewriting, node)
    packed = rewriting.read(number, node)
    made = rewriting.append(
        "quantized::linear_dynamic",
        [value, packed, rewriting.constant(REDUCED, node)],
        node,
    )
    replace(node, made)
    return "int8", ""


def _recurrent_layer(rewriting: Rewriting, node: Any) -> str:
    params = argument(node, "params").node()
    whole = params.kind() == "prim::ListConstruct"
    return layer_of(rewriting, params if whole else node, 0)


def _at(position: int) -> Callable[[Rewriting, Any], str]:
    return lambda rewriting, node: layer_of(rewriting, node, position)


def _no_kernel(rewriting: Rewriting, node: Any) -> tuple[Form, str]:
    del rewriting
    raise Refused(f"torch has no int8 operator for {called(node)}")


def _store_only(position: int) -> Step:
    def step(rewriting: Rewriting, node: Any) -> tuple[Form, str]:
        weight = rewriting.weight(node.inputsAt(position))
        read = rewriting.read(rewriting.store.stored(weight), node)
        node.replaceInput(position, read)
        return "int8_weight", (
            f"torch has no operator for {called(node)} that quantises its input as it runs; "
            "its weight is stored as int8 and computes in floating point"
        )

    return step


def _recurrent(rewriting: Rewriting, node: Any) -> tuple[Form, str]:
    biases, both, layers = (
        rewriting.operands.plain(argument(node, name))
        for name in ("has_biases", "bidirectional", "num_layers")
    )
    if UNKNOWN in [biases, both, layers]:
        raise Refused("how many layers it has is computed while it runs")
    if rewriting.operands.plain(argument(node, "train")) is not False:
        raise Refused("it may run in training mode, with dropout between its layers")
    params = argument(node, "params").node()
    if params.kind() != "prim::ListConstruct":
        raise Refused("its weights are computed while it runs")
    listed = list(params.inputs())
    each = 4 if biases else 2
    if len(listed) != each * layers * (2 if both else 1):
        raise Refused("torch has no int8 operator for an LSTM with projections")
    cells = []
    for start in range(0, len(listed), each):
        number = _cell(rewriting, listed[start : start + each])
        cells.append(rewriting.read(number, node))
    packed = rewriting.listed(cells, node)
    names = operator_of(node.schema()).arguments
    inputs = [packed if name == "params" else node.inputsAt(at) for at, name in enumerate(names)]
    inputs[names.index("has_biases")] = rewriting.constant(True, node)
    if node.kind() == "aten::lstm":
        inputs += [rewriting.constant(None, node), rewriting.constant(True, node)]
    made = rewriting.append(
        node.kind().replace("aten::", "aten::quantized_"), inputs, node, node.outputsSize()
    )
    replace(node, made)
    return "int8", ""


def _cell(rewriting: Rewriting, values: list[Any]) -> int:
    weights = [rewriting.weight(value, 2) for value in values[:2]]
    given = [rewriting.weight(value, 1).tensor for value in values[2:]]
    biases = given or [weight.tensor.new_zeros(len(weight.tensor)) for weight in weights]

    def make() -> Packed:
        inner, hidden = (
            PackedLinear(rewriting.store.code(weight), bias)
            for weight, bias in zip(weights, biases, strict=True)
        )
        return PackedCell(inner, hidden)

    return rewriting.store.place(("cell",), [*(weight.tensor for weight in weights), *given], make)


_STEPS: dict[str, tuple[Callable[[Rewriting, Any], str | None], Step]] = {
    **dict.fromkeys(sorted(PRODUCTS), (product_layer, _linear)),
    **dict.fromkeys(["aten::lstm", "aten::gru"], (_recurrent_layer, _recurrent)),
    **dict.fromkeys(["aten::rnn_tanh", "aten::rnn_relu"], (_recurrent_layer, _no_kernel)),
    **dict.fromkeys(sorted(CONVOLUTIONS), (_at(1), _store_only(1))),
    "aten::embedding": (_at(0), _store_only(0)),
    "aten::bilinear": (_at(2), _no_kernel),
}
"""For each operator that reads weights how to find its layer, and what to do."""
