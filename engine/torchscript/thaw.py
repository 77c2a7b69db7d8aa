"""Frozen uploads, thawed: weights that `torch.jit.freeze` baked into the graph are weights again.

Freezing turns parameters and buffers into tensor constants and drops every attribute that forward
does not read, the `training` flag of the modules included. Every other export has that flag, so
its absence tells a frozen program from one that merely contains a constant. In a frozen program

1. a floating constant in a weight operand (of a convolution, a matrix product, a normalisation,
   an embedding, a recurrent layer ...) becomes a parameter, running statistics become buffers;
   what is added, multiplied or indexed elsewhere stays a constant: it may be a table;
2. weights are grouped in submodules named for the operator and its number among its kind, in the
   order of the graph: `conv2d_3.weight`. The same file always gives the same names;
3. a constant with several readers becomes one parameter, except where all of its elements are
   equal: saving merges constants of equal value, so zero biases and unit scales of unrelated
   layers are found shared, and must part again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from engine.torchscript.private_methods import is_private
from engine.torchscript.weight_operands import WeightOperand, weight_operands

_STATISTICS = frozenset({"running_mean", "running_var"})
_LOOK = 64
"""Elements that tell most tensors from a uniform one."""

Layers = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class _Weight:
    """An operand and the weight it reads.

    Attributes:
        alone: no other operand reads this weight.
        key: equal for operands that read one and the same weight.
    """

    operand: WeightOperand
    alone: bool
    key: tuple[Any, ...]

    @classmethod
    def of(cls, operand: WeightOperand) -> _Weight:
        """Told by memory; where all elements are equal, by the place it is read at."""
        tensor = operand.tensor
        if _uniform(tensor):
            place = (operand.user.outputsAt(0).unique(), operand.position)
            return cls(operand, alone=True, key=place)
        memory = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        return cls(operand, alone=False, key=(*memory, operand.name in _STATISTICS))


def thaw(module: torch.jit.ScriptModule) -> bool:
    """Edit an inlined program in place; tells whether anything changed."""
    modules: list[Any] = list(module.modules())
    if all(inner._c.hasattr("training") for inner in modules):
        return False
    forward: Any = module.forward
    weights = [_Weight.of(operand) for operand in weight_operands(forward.graph.nodes())]
    layers, places = _arrange(module, weights)
    for name, tensors in layers.items():
        made = _submodule(tensors)
        module._c._register_attribute(name, made._c._type(), made)
        module._modules[name] = made
    _read(module, forward.graph, weights, places)
    for method in module._c._method_names():
        if method != "forward" and not is_private(method):
            graph = module._c._get_method(method).graph
            others = [_Weight.of(operand) for operand in weight_operands(graph.nodes())]
            _read(module, graph, [item for item in others if not item.alone], places)
    return bool(weights)


Places = dict[tuple[Any, ...], tuple[str, str]]


def _arrange(module: torch.jit.ScriptModule, weights: Iterable[_Weight]) -> tuple[Layers, Places]:
    """The weights by layer and name, and for each key its layer and name."""
    layers: Layers = {}
    places: Places = {}
    called: dict[int, str] = {}
    for weight in weights:
        operand = weight.operand
        if weight.key in places:
            continue
        if operand.reader not in called:
            layer = _free_name(module, layers, operand.layer)
            called[operand.reader], layers[layer] = layer, {}
        layer = called[operand.reader]
        name, number = operand.name, 1
        while name in layers[layer]:
            name, number = f"{operand.name}_{number}", number + 1
        tensor = operand.tensor.detach()
        # Tensors that saving merged are views of one memory; each gets its own.
        layers[layer][name] = tensor.clone() if weight.alone else tensor
        places[weight.key] = (layer, name)
    return layers, places


def _free_name(module: torch.jit.ScriptModule, layers: Layers, kind: str) -> str:
    number = 0
    while (name := f"{kind}_{number}") in layers or module._c.hasattr(name):
        number += 1
    return name


def _uniform(tensor: Tensor) -> bool:
    flat = tensor.reshape(-1)
    return bool((flat[:_LOOK] == flat[:1]).all()) and bool((flat == flat[:1]).all())


@cache
def _class_for(title: str) -> type[nn.Module]:
    """One class for each set of names: its name in TorchScript never depends on other uploads."""
    return type(title, (nn.Module,), {"__module__": __name__})


def _submodule(tensors: dict[str, Tensor]) -> Any:
    made = _class_for("_".join(["Layer", *tensors]))()
    for name, tensor in tensors.items():
        if name in _STATISTICS:
            made.register_buffer(name, tensor)
        else:
            made.register_parameter(name, nn.Parameter(tensor))
    return torch.jit.script(made.eval())


def _read(
    module: torch.jit.ScriptModule, graph: Any, weights: Iterable[_Weight], places: Places
) -> None:
    """Let operands read attributes where they read constants."""
    attributes = _Attributes(module, graph)
    for weight in weights:
        if weight.key not in places:
            continue  # of another method alone
        value = attributes.value(*places[weight.key])
        if weight.alone or weight.operand.name in _STATISTICS:
            weight.operand.user.replaceInput(weight.operand.position, value)
        else:
            weight.operand.constant.replaceAllUsesWith(value)
    _drop_unused(graph.nodes())
    attributes.lower()


def _drop_unused(nodes: Iterator[Any]) -> None:
    for node in list(nodes):
        for block in node.blocks():
            _drop_unused(block.nodes())
        if node.kind() == "prim::Constant" and not node.hasUses():
            node.destroy()


class _Attributes:
    """Reads of submodules' weights, each written once."""

    def __init__(self, module: torch.jit.ScriptModule, graph: Any) -> None:
        self._module = module
        self._graph = graph
        self._first = next(iter(graph.nodes()), graph.return_node())
        self._known: dict[tuple[str, ...], Any] = {(): next(iter(graph.inputs()))}

    def value(self, *path: str) -> Any:
        """The value of the attribute at a path."""
        if path not in self._known:
            owner = self.value(*path[:-1])
            self._graph.setInsertPoint(self._first)
            node = self._graph.create("prim::GetAttr", [owner], 1)
            node.s_("name", path[-1])
            self._graph.insertNode(node)
            if len(path) == 1:
                node.output().setType(self._module._c.getattr(path[0])._type())
            self._known[path] = node.output()
        return self._known[path]

    def lower(self) -> None:
        """Move the reads, made at the start of the graph, to where they are first needed.

        Who runs the graph and converts what it reads has one weight in memory then, and not all.
        """
        waiting = {
            value.unique(): value.node() for path, value in self._known.items() if len(path) > 1
        }
        for node in list(self._graph.nodes()):
            for value in _needed(node):
                if value in waiting:
                    waiting.pop(value).moveBefore(node)


def _needed(node: Any) -> Iterator[int]:
    """Values a node uses, those of its inner blocks included."""
    yield from (value.unique() for value in node.inputs())
    for block in node.blocks():
        yield from (value.unique() for value in block.outputs())
        for inner in block.nodes():
            yield from _needed(inner)
