"""Static int8: which places need a range, where they are in a program, and the lowering itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from engine.quantisation.int8.ranges import ActivationRange
from engine.quantisation.int8.result import LayerQuantised
from engine.torchscript.instructions import Instruction, walk
from engine.torchscript.int8.dynamic import rewrite
from engine.torchscript.int8.lowering import Look, Lowering, Site
from engine.torchscript.int8.operands import nodes_in
from engine.torchscript.int8.places import operand_place, operator_names
from engine.torchscript.int8.rewriting import Rewriting, WeightStore, finished
from engine.torchscript.int8.rules import RULES
from engine.torchscript.program import Program


@dataclass(frozen=True)
class Place:
    """Where an activation is seen.

    Attributes:
        instruction: index of the operator.
        position: of the operand; None for its output. Items of a listed operand are counted after
            all operands.
        value: its number in the program's block; None for an item of a list.
    """

    instruction: int
    position: int | None
    value: int | None


@dataclass(frozen=True)
class Plan:
    """What a program needs to be lowered.

    Attributes:
        places: by name, that need a range.
        sites: operators with weights that will compute in int8, by name.
    """

    places: Mapping[str, Place]
    sites: Mapping[str, Site]


def plan_static(prepared: Program, excluded: Collection[str] = ()) -> Plan:
    """Which activations a prepared program needs ranges of.

    Args:
        prepared: see `engine.torchscript.int8.preparing`; it is left as it is.
        excluded: layers that stay as they are.
    """
    asked: dict[str, None] = {}

    def look(place: str) -> ActivationRange:
        asked[place] = None
        return ActivationRange(1.0, 0)

    lowering = Lowering(prepared.copy(share=True), look, excluded, WeightStore())
    lowering.lower(RULES)
    listed = _places(prepared)
    return Plan({name: listed[name] for name in asked}, lowering.sites)


def _places(prepared: Program) -> dict[str, Place]:
    """Every place of a program."""
    instructions = list(walk(prepared.block))
    made = {output: one for one in instructions for output in one.outputs}
    found: dict[str, Place] = {}
    names = operator_names(one.kind for one in instructions)
    for one, name in zip(instructions, names, strict=True):
        if not name or not one.outputs:
            continue
        found[name] = Place(one.index, None, one.outputs[0])
        for position, value in enumerate(_with_items(one, made)):
            found[operand_place(name, position)] = Place(one.index, position, value)
    return found


def _with_items(one: Instruction, made: Mapping[int, Instruction]) -> list[int]:
    """The operands of an instruction, then the items of its first one where that is listed."""
    first = made.get(one.inputs[0]) if one.inputs else None
    items = first.inputs if first is not None and first.kind == "prim::ListConstruct" else ()
    return [*one.inputs, *items]


def lower(
    prepared: Program, look: Look, excluded: Collection[str] = ()
) -> tuple[Program, list[LayerQuantised]]:
    """The program in int8, and what became of each operator.

    Args:
        prepared: on a CPU; it is left as it is.
        look: gives the range of a place.
        excluded: layers that stay as they are.
    """
    store, program = WeightStore(), prepared.copy()
    lowering = Lowering(program, look, excluded, store)
    lowering.lower(RULES)
    layers, rewritings = lowering.layers, [lowering.rewriting]
    for method in program.other_methods():
        rewriting = Rewriting(program, program.graph_of_method(method), store, excluded)
        rewritings.append(rewriting)
        for node in list(nodes_in(rewriting.graph)):
            layers += rewrite(rewriting, node)
    layers = list(dict.fromkeys(layers))
    if not store.packed:
        return program, layers
    return finished(program, rewritings, store), layers
