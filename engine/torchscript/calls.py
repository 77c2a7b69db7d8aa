"""What forward gives the exported methods that it calls.

An example has inputs for forward only. What `encode` takes is known as well where forward calls
`self.encode`: a clone of the program, made before its calls are inlined, writes the arguments of
every such call to attributes that only the clone has. A run of the clone then shows them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from engine.calling import copies

if TYPE_CHECKING:
    from engine.torchscript.program import Program


class Calls:
    """Calls of exported methods in a program as it was uploaded.

    Args:
        program: a clone, over the same weights; it belongs to this object.
        arity: number of arguments by method.
        forwarding: methods that hand all of their own arguments on to forward, in order.
    """

    def __init__(self, program: Program, arity: dict[str, int], forwarding: set[str]) -> None:
        self._program = program
        self._arity = arity
        self.forwarding = frozenset(forwarding)

    @classmethod
    def of(cls, clone: Program) -> Calls | None:
        """Let a clone note its calls; None where there are none."""
        module = clone.module._c
        exported = set(clone.other_methods())
        arity: dict[str, int] = {}
        forwarding: set[str] = set()
        for name in module._method_names():
            graph = module._get_method(name).graph
            own, *taken = (value.unique() for value in graph.inputs())
            for node in list(_nodes(graph)):
                if node.kind() != "prim::CallMethod":
                    continue
                called, (receiver, *given) = node.s("name"), node.inputs()
                if receiver.unique() != own:
                    continue
                if called == "forward" and [value.unique() for value in given] == taken:
                    forwarding.add(name)
                elif called in exported and _note(module, graph, node, given):
                    arity[called] = len(given)
        return cls(clone, arity, forwarding) if arity or forwarding else None

    def arguments(self, inputs: Sequence[Any]) -> dict[str, list[Any]]:
        """Positional arguments of the methods that a run of forward called, by name.

        Of several calls of a method the last. Floats have the type that the upload computes in.

        Args:
            inputs: positional arguments of forward.

        Raises:
            RuntimeError, torch.jit.Error: forward fails on these inputs.
        """
        if not self._arity:
            return {}
        shadow = self._program.shadow()
        devices = [shadow.device] if shadow.device != "cpu" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            shadow.run(inputs)
        module: Any = shadow.module
        return {
            name: copies([getattr(module, _place(name, i)) for i in range(count)])
            for name, count in self._arity.items()
            if getattr(module, _mark(name))
        }


def _place(method: str, position: int) -> str:
    return f"_argument_{position}_of_{method}"


def _mark(method: str) -> str:
    return f"_called_{method}"


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _note(module: Any, graph: Any, call: Any, given: Sequence[Any]) -> bool:
    """Write arguments to attributes before a call; not for types an attribute cannot hold."""
    if any(value.type().kind() in {"ClassType", "InterfaceType"} for value in given):
        return False
    own = next(iter(graph.inputs()))
    name = call.s("name")
    graph.setInsertPoint(call)
    called = graph.insertConstant(True)
    flags = [(_mark(name), torch._C.BoolType.get(), False, called)]
    values = [
        (_place(name, i), _optional(value.type()), None, value) for i, value in enumerate(given)
    ]
    for attribute, kind, start, value in flags + values:
        if not module.hasattr(attribute):
            module._register_attribute(attribute, kind, start)
        node = graph.create("prim::SetAttr", [own, value], 0)
        node.s_("name", attribute)
        graph.insertNode(node)
    return True


def _optional(kind: Any) -> Any:
    """The type of an attribute that is empty at first."""
    return kind if kind.kind() in {"OptionalType", "NoneType"} else torch._C.OptionalType(kind)
