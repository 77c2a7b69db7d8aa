"""Convolutions fused with what follows them, taken apart.

`torch.jit.optimize_for_inference` on a GPU writes `relu(conv(x))` and `relu(conv(x) + alpha z)` as
one operator of cuDNN. It has no gradient and no implementation on other devices; the three plain
operators compute the same numbers up to rounding.
"""

from __future__ import annotations

from typing import Any

_KINDS = frozenset(
    f"aten::{library}_convolution{added}_relu"
    for library in ("cudnn", "miopen")
    for added in ("", "_add")
)


def split_convolutions(graph: Any) -> bool:
    """Edit a graph in place, branches and loops included; tells whether anything changed."""
    changed = False
    for kind in _KINDS:
        for node in graph.findAllNodes(kind):
            _split(graph, node, added="_add_" in kind)
            changed = True
    return changed


def _split(graph: Any, node: Any, *, added: bool) -> None:
    graph.setInsertPoint(node)
    value, weight, *between, bias, stride, padding, dilation, groups = node.inputs()
    no, zero = graph.insertConstant(False), graph.insertConstant([0])
    # One number stands for all spatial dimensions, whose count the file need not say.
    result = _append(
        graph,
        "aten::convolution",
        [value, weight, bias, stride, padding, dilation, no, zero, groups],
    )
    if added:
        other, alpha = between
        nothing = alpha.node().kind() == "prim::Constant" and alpha.toIValue() is None
        factor = graph.insertConstant(1) if nothing else alpha
        result = _append(graph, "aten::add", [result, other, factor])
    node.output().replaceAllUsesWith(_append(graph, "aten::relu", [result]))
    node.destroy()


def _append(graph: Any, kind: str, inputs: list[Any]) -> Any:
    node = graph.create(kind, inputs, 1)
    graph.insertNode(node)
    return node.output()
