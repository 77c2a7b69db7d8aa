"""Matrix products with a weight, however they are written: what a linear layer is in a graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.torchscript.int8.operands import Operand
from engine.torchscript.int8.packed import Packed, PackedLinear
from engine.torchscript.int8.rewriting import Refused, Rewriting, argument, layer_of

PRODUCTS = frozenset({"aten::linear", "aten::addmm", "aten::matmul", "aten::mm"})


def product_layer(rewriting: Rewriting, node: Any) -> str | None:
    """The layer of a matrix product; None where neither factor is a weight."""
    found = rewriting.operands.tensor(node.inputsAt(2 if node.kind() == "aten::addmm" else 1))
    if found is None and node.kind() != "aten::linear":
        return None
    return layer_of(rewriting, node, 1) if found is None else found.layer


def product_weight(rewriting: Rewriting, node: Any) -> tuple[Any, int]:
    """The input of a matrix product, and the number of its packed weight.

    Raises:
        Refused: the weight is not a constant matrix, or the product is scaled.
    """
    kind = node.kind()
    if kind == "aten::linear":
        value, weight = node.inputsAt(0), rewriting.weight(node.inputsAt(1), 2)
        rows, bias_value = weight.tensor, node.inputsAt(2)
    elif kind == "aten::addmm":
        value, weight = node.inputsAt(1), rewriting.weight(node.inputsAt(2), 2)
        rows, bias_value = weight.tensor.t(), node.inputsAt(0)
        if [rewriting.operands.plain(argument(node, name)) for name in ("beta", "alpha")] != [1, 1]:
            raise Refused("its product is scaled")
    else:
        value, weight = node.inputsAt(0), rewriting.weight(node.inputsAt(1), 2)
        rows, bias_value = weight.tensor.t(), None
    bias = None if bias_value is None else bias_of(rewriting, bias_value, len(rows))
    tensors = [rows, *([] if bias is None else [bias])]

    def make() -> Packed:
        return PackedLinear(rewriting.store.code(Operand(weight.name, rows)), bias)

    return value, rewriting.store.place(("linear",), tensors, make)


def bias_of(rewriting: Rewriting, value: Any, channels: int) -> Tensor | None:
    """The bias that an operand is, or None where it is none.

    Raises:
        Refused: it is not one number for each output.
    """
    if rewriting.operands.plain(value) is None:
        return None
    found = rewriting.operands.tensor(value)
    if found is None or found.tensor.shape != (channels,) or found.tensor.dtype != torch.float32:
        raise Refused("its bias is not one float32 number for each output")
    return found.tensor
