"""What replacing one residual sum by its shortcut means for the program."""

from __future__ import annotations

from dataclasses import dataclass

from engine.layers.dead_code import needed
from engine.layers.flow import Flow, FlowStep
from engine.layers.reading import still_read, unpacked, unreachable
from engine.measure.size import weights_of
from engine.tape import canonical_names
from engine.torchscript.instructions import Instruction
from engine.torchscript.program import Program


@dataclass(frozen=True)
class Consequences:
    """Of one removal.

    Attributes:
        own: parameters, buffers and constants that nobody else needs, in the order of the run.
        left: nodes of the flow that are still needed.
        kept: instructions that stay. Blocks that can never run and tuples taken apart at once may
            still name others, and have to be settled before those are deleted.
        dropped: parameters and buffers that nothing reads any more.
        obstacle: why the weights cannot be dropped, or None.
    """

    own: list[str]
    left: set[int]
    kept: set[Instruction]
    dropped: list[str]
    obstacle: str | None


def consequences(program: Program, flow: Flow, step: FlowStep, position: int) -> Consequences:
    """Without changing anything.

    Args:
        flow: of the program.
        step: the sum.
        position: of x among its operands.
    """
    before = flow.needed()
    left = flow.needed({step.gives[0].node: step.operands[position].node})
    named = flow.named(left)
    own = [
        flow.names[node]
        for node in sorted(before - left)
        if node in flow.names and flow.names[node] not in named
    ]
    goes = _attributes(program, set(own), flow.named(before))
    instruction = step.instruction
    closed = unreachable(program, flow)
    items = {
        item: value
        for taken_apart, made in unpacked(program.block).items()
        for item, value in zip(taken_apart.outputs, made.inputs, strict=True)
    }
    kept = needed(
        program.block,
        flow,
        instead=items | {instruction.outputs[0]: instruction.inputs[position]},
        dead=flow.dead_values(before, left).union(instruction.outputs),
        forgotten=goes,
        closed=closed,
    )
    read = still_read(program, kept, closed, items)
    weights = weights_of(program).keys()
    return Consequences(
        own=own,
        left=left,
        kept=kept,
        dropped=[name for name in goes if name not in read],
        obstacle=next(
            (read[name] for name, own in goes.items() if own in weights and name in read), None
        ),
    )


def needs_clone(flow: Flow, step: FlowStep, position: int, left: set[int]) -> bool:
    """Whether x must be copied, because it and the sum change or leave the program apart.

    A sum is memory of its own (but for `x.add_(f)`, where it is x already). With x in its place, a
    later write in place to one of them would reach the other, and what training has kept of x for
    its gradients.
    """
    x, total = step.operands[position], step.gives[0]
    if x.memory == total.memory:
        return False
    given = {content.memory for content in flow.outputs}
    if total.memory in given and (x.memory in given or x.memory in flow.lasting):
        return True
    return any(
        item.writes & {x.memory, total.memory}
        and any(content.node in left for content in item.gives)
        for item in flow.steps[flow.steps.index(step) + 1 :]
    )


def _attributes(program: Program, own: set[str], needed_before: set[str]) -> dict[str, str]:
    """Own attributes under all of their names, with the name they are known by.

    A layer that loses everything it read loses what it did not read too: a counter of batches.
    """
    canonical = canonical_names(program)
    layers = {name.rpartition(".")[0] for name in own}
    layers -= {name.rpartition(".")[0] for name in needed_before - own}
    return {
        name: known
        for name, known in canonical.items()
        if known in own or name.rpartition(".")[0] in layers
    }
