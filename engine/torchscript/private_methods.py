"""Private methods of a scripted program, which inlining leaves without a caller.

Scripting a module saves every method that forward calls: torchvision's networks call a
`_forward_impl`. Once forward holds their operators itself nobody calls them, yet they still read
the weights, with the shapes of the original. By Python's convention a leading underscore makes a
method an inner matter of the module, so their bodies are given up for an error that says so;
methods without the underscore belong to the interface and stay.
"""

from __future__ import annotations

from typing import Any

import torch


def is_private(method: str) -> bool:
    """A leading underscore, but none of Python's own `__names__`."""
    return method.startswith("_") and not method.startswith("__")


def inline_public_methods(module: torch.jit.ScriptModule) -> None:
    """Give every public method besides forward all that it calls."""
    for name in module._c._method_names():
        if name != "forward" and not is_private(name):
            torch._C._jit_pass_inline(module._c._get_method(name).graph)


def close_private_methods(module: torch.jit.ScriptModule) -> bool:
    """Replace the bodies of private methods by an error.

    They are inlined into the public ones already.

    Returns:
        Whether any body was replaced.
    """
    names = [name for name in module._c._method_names() if name != "forward"]
    graphs = {name: module._c._get_method(name).graph for name in names}
    private = [name for name in names if is_private(name)]
    if not private:
        return False
    changed = [_close(name, graphs[name]) for name in private]
    return any(changed)


def _close(name: str, graph: Any) -> bool:
    nodes = list(graph.nodes())
    if any(node.kind() == "prim::RaiseException" for node in nodes):
        return False
    kinds = [output.type() for output in graph.outputs()]
    graph.setInsertPoint(graph.return_node())
    text = graph.insertConstant(
        f"`{name}` is a private method of the original model; its code went into the methods "
        "that called it"
    )
    error = graph.insertConstant("builtins.RuntimeError")
    graph.insertNode(graph.create("prim::RaiseException", [text, error], 0))
    for position, kind in enumerate(kinds):
        nothing = graph.create("prim::Uninitialized", [], 1)
        graph.insertNode(nothing)
        nothing.output().setType(kind)
        graph.return_node().replaceInput(position, nothing.output())
    for node in reversed(nodes):
        node.destroy()
    return True
