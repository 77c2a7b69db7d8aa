"""Which submodule's code an instruction is from.

Inlining keeps the stack of calls of every node, and with it the name under which each caller holds
the module that it calls: `layer2(Sequential).1(Block).relu(ReLU)`. A file that was saved after
inlining (the output of a job, a frozen module) has no such stacks left.
"""

from __future__ import annotations

import re

from engine.torchscript.instructions import Instruction

_CALL = re.compile(r"([^.()]+)\(([^()]*)\)")
# A method of the module itself, a plain function, or a module that no attribute names.
_NO_MODULE = frozenset({"SELF", "UNKNOWN_INSTANCE", "INSTANCE_NAME_UNKNOWN", "top"})


def module_path(instruction: Instruction) -> str:
    """Dotted path of the innermost module whose code it is; empty for that of the program."""
    stack: str = instruction.node.getModuleHierarchy()
    if not stack:
        return ""
    return ".".join(name for name, _ in _CALL.findall(stack) if name not in _NO_MODULE)
