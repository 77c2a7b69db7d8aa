"""A program whose weights are stored small: made when they are read, or when it is loaded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor

from engine.torchscript.attributes import Attributes, joined, modules_of
from engine.torchscript.decoders import decode_reads, forget_sources, redirect_reads
from engine.torchscript.own_classes import with_own_classes
from engine.torchscript.program import Program
from engine.torchscript.stored_state import (
    buffer_holder,
    can_store,
    store_state,
    storing,
    weight_holder,
)


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """A weight and how it is stored.

    Attributes:
        names: under which the program holds it: more than one where it is tied.
        parts: stored tensors by name, in the order in which the decoder takes them.
        decoder: TorchScript source, see `engine.quantisation.encoding.Encoding.decoder`.
    """

    names: tuple[str, ...]
    parts: Mapping[str, Tensor]
    decoder: str


def stores_weights(program: Program) -> bool:
    """Whether it has weights that are written small and decoded when it is loaded."""
    return bool(storing(program._c))


def decoded_at_use(program: Program, weights: Sequence[StoredWeight]) -> Program:
    """A program that makes weights each time it needs them.

    Args:
        program: a fresh copy over the same weights; used up.
        weights: to be taken out of it.
    """
    taken = set(program.attributes())
    added: dict[str, dict[str, Any]] = defaultdict(dict)
    buffers: dict[str, Tensor] = {}
    decoders: dict[str, tuple[Sequence[str], str]] = {}
    for weight in weights:
        place = _free(program, weight.names[0], taken)
        owner, _, inner = place.rpartition(".")
        added[owner][inner] = buffer_holder(weight.parts)
        paths = [joined(place, part) for part in weight.parts]
        buffers |= zip(paths, weight.parts.values(), strict=True)
        decoders |= dict.fromkeys(weight.names, (tuple(paths), weight.decoder))
    for method in program._c._method_names():
        decode_reads(program.graph_of_method(method), decoders)
    packed = _remade(program, decoders, added)
    for path, tensor in buffers.items():
        packed._put(path, tensor)
    return packed


def decoded_at_load(program: Program, weights: Sequence[StoredWeight]) -> Program:
    """A program that has its weights, and whose file has their parts.

    Args:
        program: a fresh copy over the same weights; used up.
        weights: to be stored.
    """
    held = program.attributes()
    taken = set(held)
    moved: dict[str, str] = {}
    of_owner: dict[str, dict[str, StoredWeight]] = defaultdict(dict)
    added: dict[str, dict[str, Any]] = defaultdict(dict)
    for weight in weights:
        name = weight.names[0]
        owner, _, attribute = name.rpartition(".")
        # The program's own module has methods of its own, to which none may be added.
        if owner and can_store(_module_at(program._c, owner)):
            of_owner[owner][attribute] = weight
            moved |= dict.fromkeys(weight.names[1:], name)
            continue
        place = _free(program, name, taken)
        inner = place.rpartition(".")[2]
        added[owner][inner] = weight_holder(held[name])
        of_owner[place]["weight"] = weight
        moved |= dict.fromkeys(weight.names, f"{place}.weight")
    for method in program._c._method_names():
        redirect_reads(program.graph_of_method(method), moved)
    changes = {
        owner: tuple(
            (name, one.decoder, held[one.names[0]].requires_grad) for name, one in stored.items()
        )
        for owner, stored in of_owner.items()
        if not moved.keys() & _first(stored)
    }
    packed = _remade(program, moved, added, changes)
    for owner, stored in of_owner.items():
        for attribute, weight in stored.items():
            packed._put(joined(owner, attribute), held[weight.names[0]])
        store_state(
            _module_at(packed._c, owner),
            {name: (one.decoder, list(one.parts.values())) for name, one in stored.items()},
            {name: held[one.names[0]].requires_grad for name, one in stored.items()},
        )
    return packed


def _first(stored: Mapping[str, StoredWeight]) -> set[str]:
    return {weight.names[0] for weight in stored.values()}


def _remade(
    program: Program,
    gone: Iterable[str],
    added: Mapping[str, Mapping[str, Any]],
    changes: Mapping[str, Hashable] = MappingProxyType({}),
) -> Program:
    """The program without some tensors, and with classes of their own where those were."""
    held = program.attributes()
    removed = defaultdict(list)
    for name in gone:
        owner, _, attribute = name.rpartition(".")
        removed[owner].append(attribute)
    with program._without_weights(held):
        made = with_own_classes(
            program._c,
            {*removed, *added, *changes},
            removed=removed,
            added=added,
            changes=changes,
        )
    # What tells where code came from would be as large as the weights of a small program.
    for module in modules_of(made).values():
        for method in module._method_names():
            forget_sources(module._get_method(method).graph)
    there = Attributes(made)
    for name in held.keys() - set(gone):
        there[name] = held[name]
    return Program(made, program.device, program.calls)


def _free(program: Program, weight: str, taken: set[str]) -> str:
    """Where a module for a weight can be: `<weight>_stored`, or with underscores behind it."""
    owner, _, name = weight.rpartition(".")
    module = _module_at(program._c, owner)
    name += "_stored"
    while joined(owner, name) in taken or module.hasattr(name):
        name += "_"
    taken.add(joined(owner, name))
    return joined(owner, name)


def _module_at(module: Any, path: str) -> Any:
    for name in path.split(".") if path else []:
        module = module.getattr(name)
    return module
