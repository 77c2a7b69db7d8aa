"""Uploads that load, and that the engine refuses at once, with a reason.

1. A weight that is no plain tensor: sparse or quantized ones cannot be emptied, measured or cut
   like others.
2. A name that script modules have themselves (`graph`, `code`): what stands under it can be read
   by the program, but not by its path.
3. Decisions in decisions hundreds deep, which no walk over the program could follow to the end.
"""

from __future__ import annotations

from typing import Any

import torch

from engine.errors import NotTorchScript, UnsupportedOperator

_DEEPEST = 100


def refuse_odd(module: torch.jit.ScriptModule) -> None:
    """Look at a loaded program before anything is done with it.

    Raises:
        UnsupportedOperator: a weight is sparse or quantized, or decisions are nested too deep.
        NotTorchScript: a submodule or weight has a name of torch's own.
    """
    seen: set[str] = set()
    for path, owner in module.named_modules(remove_duplicate=False):
        _refuse_names(path, owner)
        name = owner._c._type().qualified_name()
        if name not in seen:
            seen.add(name)
            for method in owner._c._method_names():
                refuse_depth(owner._c._get_method(method).graph)
    for kind, named in (("parameter", module.named_parameters), ("buffer", module.named_buffers)):
        for name, tensor in named():
            if tensor.layout != torch.strided:
                layout = str(tensor.layout).removeprefix("torch.")
                raise UnsupportedOperator(
                    f"the {kind} `{name}` is a sparse tensor ({layout})",
                    where=name,
                    hint="keep it as a dense tensor, or keep its indices and values as buffers "
                    "and build the sparse tensor in forward",
                )
            if tensor.is_quantized:
                raise UnsupportedOperator(
                    f"the {kind} `{name}` is a quantized tensor ({tensor.dtype})",
                    where=name,
                    hint="upload the float model from before quantization, and quantize the result",
                )


def refuse_depth(graph: Any) -> None:
    """Raise where blocks are nested too deep; a graph is walked without recursion."""
    level, depth = [graph], 0
    while level:
        level = [inner for block in level for node in block.nodes() for inner in node.blocks()]
        depth += bool(level)
    if depth > _DEEPEST:
        raise UnsupportedOperator(
            f"decisions are nested {depth} deep (`elif` counts, at most {_DEEPEST} are followed)",
            where="forward",
            hint="keep the choices in a list or a table and index it",
        )


def _refuse_names(path: str, owner: torch.jit.ScriptModule) -> None:
    own = [*owner._modules.keys(), *(name for name, _ in owner.named_parameters(recurse=False))]
    own += [name for name, _ in owner.named_buffers(recurse=False)]
    for name in own:
        # Found on the class, before the program's own attributes are asked.
        if hasattr(type(owner), name):
            whole = f"{path}.{name}" if path else name
            raise NotTorchScript(
                f"`{whole}` has the name of something that every script module has",
                where=whole,
                hint=f"rename `{name}` and export again",
            )
