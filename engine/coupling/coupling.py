"""Couple: from a tape to the channels that can be removed and what each of them consists of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from secateur.report import Frozen

import engine.coupling.rules  # noqa: F401  registers the rules
from engine.coupling.components import number_components
from engine.coupling.decisions import freeze_decisions
from engine.coupling.draws import freeze_draws
from engine.coupling.exclusion import match_layers
from engine.coupling.frozen import frozen_channels
from engine.coupling.groups import Components, Group, groups_of
from engine.coupling.heads import head_dimensions
from engine.coupling.labels import Dimension, Labels, Reason, distinct
from engine.coupling.methods import Methods, freeze_other_methods, understand
from engine.coupling.size_flow import SizeFlow
from engine.coupling.sizes import freeze_sizes
from engine.coupling.slices import Slices
from engine.coupling.tracker import Tracker
from engine.errors import InputsDoNotFit
from engine.structure import samples_in
from engine.tape import Tape, record
from engine.torchscript.program import Program


@dataclass(eq=False)
class Coupling:
    """What can be removed.

    Attributes:
        component_count: components are numbered 0 .. component_count - 1.
        slices: every labelled dimension of every tensor.
        groups: a partition of the components.
        frozen: channels that cannot be removed, by layer, operator and reason.
        mixed_by: `layer (operator)` of operators that mix removable channels.
        tape: the run this was found on.
        labels: component of every index of every dimension of every tensor of the tape, -1 where
            fixed; None for dimensions in which nothing is removable.
        methods: exported methods that are pruned along; the tape is one of forward and these.
        example: what it was recorded on: arguments of forward, then of the methods.
    """

    component_count: int
    slices: list[Slices]
    groups: list[Group]
    frozen: list[Frozen]
    mixing: list[tuple[str, Components]]
    tape: Tape
    labels: dict[int, list[Dimension]] = field(default_factory=dict)
    methods: Methods = field(default_factory=Methods)
    example: list[Any] = field(default_factory=list)

    @property
    def mixed_by(self) -> list[str]:
        """Operators that mix channels which could be removed."""
        return list(dict.fromkeys(name for name, components in self.mixing if components.size))

    def mixed_by_removed(self, removed: Components) -> list[str]:
        """Operators that mix channels of this removal."""
        gone = np.zeros(self.component_count, bool)
        gone[removed] = True
        return list(dict.fromkeys(name for name, own in self.mixing if gone[own].any()))


def couple(
    program: Program,
    inputs: Sequence[Any],
    *,
    exclude: Sequence[str] = (),
    granularity: Literal["channel", "head"] = "channel",
) -> Coupling:
    """Find the coupled channels of a program on an example.

    Exported methods are analysed along with forward where they can be (see `Methods`).

    Args:
        inputs: positional arguments of forward.
        exclude: glob patterns over layer names; the outputs of matching layers stay whole.
        granularity: `channel`, or `head` for whole attention heads and nothing else.

    Raises:
        InputsDoNotFit: the example holds no samples, or too few or too many inputs.
        PatternMatchesNothing: a pattern matches no layer.
        ModelRaised: the model refuses these inputs.
    """
    if samples_in(inputs) == 0:
        raise InputsDoNotFit(
            "the example holds no samples: the first dimension of its first tensor is 0",
            hint="give inputs of one sample or more",
            where="inputs",
        )
    excluded = match_layers(program.layer_names(), exclude)
    methods = understand(program, inputs)
    joint = methods.join(program)
    example = methods.inputs(program, inputs)
    tape = record(joint, example)
    tracker = _tracked(tape, whole_heads=granularity == "head")
    freeze_other_methods(tracker, program, methods)
    flow = SizeFlow(joint, tape)
    freeze_decisions(tracker, joint, flow, sizes=methods.guessed(joint))
    freeze_sizes(tracker, joint, flow)
    freeze_draws(tracker)
    _freeze_excluded(tracker, excluded)
    return _resolve(tracker, methods, example)


def _tracked(tape: Tape, *, whole_heads: bool) -> Tracker:
    """Labels carried along the tape; a second time where heads had to be found first."""
    first = Tracker(tape)
    first.run()
    if not whole_heads and not first.cuts.probes:  # type: ignore[union-attr]  # it had to find
        return first
    tracker = Tracker(tape, heads=head_dimensions(first), whole_heads=whole_heads)
    tracker.run()
    return tracker


def _freeze_excluded(tracker: Tracker, excluded: dict[str, str]) -> None:
    for item in tracker.space.ranges:
        layer = item.tensor.rpartition(".")[0]
        if item.tensor and layer in excluded and tracker.roles.get(item.start, "vector") != "input":
            labels = np.arange(item.start, item.start + item.size, dtype=np.int64)
            text = f"excluded by the pattern `{excluded[layer]}`"
            tracker.space.freeze(labels, Reason("exclude", text))


def _resolve(tracker: Tracker, methods: Methods, example: list[Any]) -> Coupling:
    resolution = tracker.space.resolve()
    number = number_components(tracker, resolution)
    slices = [
        Slices(
            tensor=item.tensor,
            dim=item.dim,
            role=tracker.roles.get(item.start, "vector"),
            component=number[item.start : item.start + item.size],
        )
        for item in tracker.space.ranges
        if item.tensor
    ]
    slices = [item for item in slices if item.component.max(initial=-1) >= 0]
    count = int(number.max(initial=-1)) + 1
    return Coupling(
        component_count=count,
        slices=slices,
        groups=groups_of(slices, count),
        frozen=frozen_channels(tracker, resolution),
        mixing=[(name, _removable(number[own])) for name, own in tracker.mixing],
        tape=tracker.tape,
        labels=_numbered(tracker, number),
        methods=methods,
        example=example,
    )


def _removable(components: Labels) -> Labels:
    return distinct(components[components >= 0])


def _numbered(tracker: Tracker, number: Labels) -> dict[int, list[Dimension]]:
    """Components in the place of labels; what was one array stays one."""
    known: dict[int, Dimension] = {}

    def numbered(own: Dimension) -> Dimension:
        if own is None:
            return None
        if id(own) not in known:
            found = number[own]
            known[id(own)] = found if found.max(initial=-1) >= 0 else None
        return known[id(own)]

    return {value: [numbered(own) for own in dims] for value, dims in tracker.all_labels().items()}
