r"""Masks kept beside their weights, as `torch.nn.utils.prune` keeps them.

With a weight :math:`W` and a mask :math:`M` of zeros and ones the program computes with
:math:`W \odot M` each time it runs. Both tensors are stored, so pruning in this form makes a file
bigger; only making it permanent (:math:`W \leftarrow W \odot M`, the mask forgotten) or removing
what is zero brings the bytes back. As in torch the mask has the dtype of its weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from engine.torchscript.attributes import joined
from engine.torchscript.program import Program, memory_of


def with_masks_beside(program: Program, masks: Mapping[str, Tensor]) -> Program:
    """The program over the same weights, each masked one multiplied by a mask where it is read.

    Args:
        program: stays as it is.
        masks: booleans, True where the weight stays, by name of the parameter; shapes are those
            of the weights.

    Returns:
        A program to measure: `forward` and the other exported methods read masked weights, and
        the masks are buffers of its module.
    """
    fresh = program.copy(share=True)
    attributes = fresh.attributes()
    # A tied weight is masked under each of its names.
    by_memory = {memory_of(attributes[name]): name for name in masks}
    masked = {
        name: by_memory[memory_of(tensor)]
        for name, tensor in attributes.items()
        if memory_of(tensor) in by_memory
    }
    kept = nn.Module()
    buffers = {}
    for number, (name, mask) in enumerate(masks.items()):
        weight = attributes[name]
        # A dot cannot be in a name, and two names may differ in nothing else.
        buffers[name] = f"{name.replace('.', '_')}_mask_{number}"
        kept.register_buffer(buffers[name], mask.to(device=weight.device, dtype=weight.dtype))
    holder: Any = torch.jit.script(kept.eval())
    place = "masks"
    while fresh._c.hasattr(place):
        place += "_"
    fresh._c._register_attribute(place, holder._c._type(), holder)
    for method in ("forward", *fresh.other_methods()):
        _MaskedReads(fresh.graph_of_method(method), place, holder._c._type()).insert(
            masked, buffers
        )
    fresh.edited()
    # Whoever lists the tensors of the edited module must see the masks among them.
    return Program(fresh._c, fresh.device, fresh.calls)


class _MaskedReads:
    """Puts a product in the place of every read of a masked weight.

    Args:
        graph: of an inlined method.
        place: what the module calls the module that holds the masks.
        kind: type of that module.
    """

    def __init__(self, graph: Any, place: str, kind: Any) -> None:
        self._graph = graph
        self._place = place
        self._kind = kind

    def insert(self, masked: Mapping[str, str], buffers: Mapping[str, str]) -> None:
        """Edit the graph; names of weights lead to names of masks by way of both mappings."""
        itself = next(iter(self._graph.inputs()))
        paths: dict[int, str] = {itself.unique(): ""}
        for node in list(_nodes(self._graph)):
            owner = next(iter(node.inputs()), None)
            if node.kind() != "prim::GetAttr" or owner is None or owner.unique() not in paths:
                continue
            path = joined(paths[owner.unique()], node.s("name"))
            paths[node.output().unique()] = path
            if path in masked:
                self._multiply(itself, node, buffers[masked[path]])

    def _multiply(self, itself: Any, node: Any, mask: str) -> None:
        holder = self._read(itself, self._place, self._kind)
        read = self._read(holder.output(), mask, torch._C.TensorType.get())
        product = self._graph.create("aten::mul", [node.output(), read.output()], 1)
        product.output().setType(torch._C.TensorType.get())
        holder.insertAfter(node)
        read.insertAfter(holder)
        product.insertAfter(read)
        node.output().replaceAllUsesAfterNodeWith(product, product.output())

    def _read(self, owner: Any, name: str, kind: Any) -> Any:
        made = self._graph.create("prim::GetAttr", [owner], 1)
        made.s_("name", name)
        made.output().setType(kind)
        return made


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)
