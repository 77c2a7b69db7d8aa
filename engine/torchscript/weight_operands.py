"""Where a graph reads constants as weights.

Which operands are weights follows from the operator: by the names of its arguments (`weight`,
`running_mean`), or by their side in a matrix product. A constant may be reshaped on its way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from engine.torchscript.instructions import operator_of

_BY_NAME = frozenset(
    f"aten::{name}"
    for name in (
        "conv1d", "conv2d", "conv3d", "_convolution", "convolution", "_convolution_mode",
        "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear", "bilinear",
        "batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training",
        "cudnn_batch_norm", "instance_norm", "layer_norm", "native_layer_norm", "group_norm",
        "native_group_norm", "rms_norm", "_fused_rms_norm", "embedding", "embedding_bag", "prelu",
        "_prelu_kernel", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell",
    )
)  # fmt: skip
"""Operators whose argument names say what is a weight."""

_ARGUMENTS = {
    "weight": "weight", "bias": "bias", "running_mean": "running_mean",
    "running_var": "running_var", "w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih",
    "b_hh": "bias_hh",
}  # fmt: skip

_PRODUCTS = {
    "aten::matmul": {"other": "weight"},
    "aten::mm": {"mat2": "weight"},
    "aten::bmm": {"mat2": "weight"},
    "aten::addmm": {"mat2": "weight", "self": "bias"},
    "aten::baddbmm": {"batch2": "weight", "self": "bias"},
}
"""What stands on the right of a product is its weight."""

_RECURRENT = frozenset({"aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu"})

_PASSING = frozenset(
    f"aten::{name}"
    for name in (
        "t", "transpose", "permute", "view", "reshape", "flatten", "unflatten", "squeeze",
        "unsqueeze", "chunk", "split", "slice", "select", "to", "contiguous", "detach", "clone",
        "expand",
    )
) | {"prim::ListUnpack"}  # fmt: skip
"""A weight may pass through these on its way into an operand."""


@dataclass(frozen=True)
class WeightOperand:
    """A weight operand fed by a constant.

    Attributes:
        reader: number of the value that the operator gives.
        layer: what the operator is called, such as `conv2d`.
        name: of the weight in its layer.
        user: the node that reads the constant: the operator, or the first on the way to it.
        position: where the user reads it.
        constant: the value.
    """

    reader: int
    layer: str
    name: str
    user: Any
    position: int
    constant: Any

    @property
    def tensor(self) -> Tensor:
        """The constant's value."""
        tensor: Tensor = self.constant.toIValue()
        return tensor


def weight_operands(nodes: Iterator[Any]) -> Iterator[WeightOperand]:
    """Every weight operand of some nodes, and of the blocks inside them, fed by a constant."""
    for node in nodes:
        for reader, name, user, position in _slots(node):
            found = _source(user, position)
            if found is not None:
                yield WeightOperand(reader.outputsAt(0).unique(), _called(reader), name, *found)
        for block in node.blocks():
            yield from weight_operands(block.nodes())


def _slots(node: Any) -> Iterator[tuple[Any, str, Any, int]]:
    """Operator, name, node and position of everything in a weight's place."""
    kind = node.kind()
    if kind in _BY_NAME or kind in _PRODUCTS:
        known = _PRODUCTS.get(kind, _ARGUMENTS)
        for position, argument in enumerate(operator_of(node.schema()).arguments):
            if argument in known:
                yield node, known[argument], node, position
    elif kind in _RECURRENT:
        arguments = operator_of(node.schema()).arguments
        weights = node.inputsAt(arguments.index("params")).node()
        if weights.kind() == "prim::ListConstruct":
            both = node.inputsAt(arguments.index("bidirectional")).toIValue()
            layers = node.inputsAt(arguments.index("num_layers")).toIValue()
            for position, name in enumerate(_recurrent(weights.inputsSize(), layers, both)):
                yield node, name, weights, position
    elif kind in {"aten::add", "aten::add_"}:
        # A linear layer taken apart: product, then bias.
        product = node.inputsAt(0).node()
        right = list(_slots(product)) if product.kind() in _PRODUCTS else []
        if any(_source(user, position) for _, _, user, position in right):
            yield product, "bias", node, 1


def _recurrent(count: int, layers: int, both: bool) -> list[str]:
    """The names torch.nn gives to the weights of a recurrent layer, in order."""
    each = {
        2: ("weight_ih", "weight_hh"),
        3: ("weight_ih", "weight_hh", "weight_hr"),
        4: ("weight_ih", "weight_hh", "bias_ih", "bias_hh"),
        5: ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"),
    }
    ends = ("", "_reverse") if both else ("",)
    kinds = each[count // (layers * len(ends))]
    return [f"{kind}_l{layer}{end}" for layer in range(layers) for end in ends for kind in kinds]


def _source(user: Any, position: int) -> tuple[Any, int, Any] | None:
    """The constant that feeds an operand: who reads it, where, and its value."""
    value = user.inputsAt(position)
    producer = value.node()
    if producer.kind() == "prim::Constant":
        constant = value.toIValue()
        baked = isinstance(constant, Tensor) and constant.is_floating_point() and constant.dim() > 0
        return (user, position, value) if baked and not constant.is_mkldnn else None
    return _source(producer, 0) if producer.kind() in _PASSING else None


def _called(node: Any) -> str:
    """The operator without the marks of its variants: `_convolution` is `conv2d`."""
    kind = str(node.kind()).partition("::")[2]
    for prefix in ("_fused_", "native_", "_native_", "cudnn_", "_"):
        kind = kind.removeprefix(prefix)
    if not kind.startswith("convolution"):
        return kind.removesuffix("_legit_no_training").removesuffix("_kernel")
    arguments = operator_of(node.schema()).arguments
    weight = node.inputsAt(1).toIValue()
    rank = weight.dim() - 2 if isinstance(weight, Tensor) else 2
    if "transposed" in arguments and node.inputsAt(arguments.index("transposed")).toIValue():
        return f"conv_transpose{rank}d"
    return f"conv{rank}d"
