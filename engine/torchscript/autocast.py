"""Autocast regions of scripted programs.

Scripting keeps `with torch.autocast(...)` as an object that is entered and left, and torch inserts
the casts when it compiles the graph. A region that is switched off does nothing and is taken out.
One that is switched on makes the numbers depend on the device the program runs on, and its casts
are in no graph that could be analysed: such programs are refused. Traced programs hold the casts
themselves and no region.

Around a whole program autocast is fine: the interpreter dispatches every operator, and autocast
with it. Only the convolution that tracing writes is not on its list for the CPU.
"""

from __future__ import annotations

from typing import Any

from engine.errors import UnsupportedOperator

_REGION = ".autocast_mode.autocast"


def leave_autocast(graph: Any) -> bool:
    """Take regions that are switched off out of an inlined graph; tells whether there were any.

    Raises:
        UnsupportedOperator: a region is switched on, or may be.
    """
    made = [
        node
        for node in graph.findAllNodes("prim::CreateObject")
        if node.output().type().annotation_str.endswith(_REGION)
    ]
    for node in made:
        readers = [use.user for use in node.output().uses()]
        enabled = [
            user.inputsAt(1).toIValue()
            for user in readers
            if user.kind() == "prim::SetAttr" and user.s("name") == "_enabled"
        ]
        inner = {"prim::SetAttr", "prim::Enter", "prim::Exit"}
        entered = [user.output() for user in readers if user.kind() == "prim::Enter"]
        if (
            enabled != [False]
            or any(user.kind() not in inner for user in readers)
            or any(value.uses() for value in entered)
        ):
            raise UnsupportedOperator(
                "the program switches autocast on for a part of itself",
                where="torch.autocast",
                hint="trace the model under autocast, or convert its weights (`model.half()`), so "
                "that the casts are part of the program",
            )
        for user in readers:
            user.destroy()
        node.destroy()
    return bool(made)


def show_convolutions(graph: Any) -> None:
    """Write traced convolutions in the form that autocast knows on every device.

    `aten::_convolution` ends with `allow_tf32` since torch 1.7; autocast on a CPU lists the form
    without it, which takes that setting from torch's own.
    """
    for node in graph.findAllNodes("aten::_convolution"):
        if node.inputsSize() == 13:
            node.removeInput(12)
