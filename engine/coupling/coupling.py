"""Couple: from a tape to the channels that can be removed and what each of them consists of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from secateur.report import Frozen

import engine.coupling.rules  # noqa: F401  registers the rules
from engine.coupling.decisions import freeze_decisions
from engine.coupling.draws import freeze_draws
from engine.coupling.exclusion import match_layers
from engine.coupling.heads import head_dimensions
from engine.coupling.labels import Dimension, Labels, Reason, Resolution, distinct
from engine.coupling.methods import Methods, freeze_other_methods, understand
from engine.coupling.size_flow import SizeFlow
from engine.coupling.sizes import freeze_sizes
from engine.coupling.tracker import Role, Tracker
from engine.errors import InputsDoNotFit
from engine.structure import samples_in
from engine.tape import Tape, record
from engine.torchscript.program import Program

Components = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Slices:
    """One dimension of one tensor, and the component each of its indices belongs to.

    Attributes:
        tensor: name of the parameter, buffer or `constant:<index>`.
        dim: the dimension.
        role: `output` (filters, neurons), `input` (what a weight reads) or `vector`.
        component: int64, one per index; -1 where the index cannot be removed.
    """

    tensor: str
    dim: int
    role: Role
    component: Components


@dataclass(frozen=True, eq=False)
class Group:
    """Components that stand for the same kind of channel and may be traded for each other.

    All of them have slices in the same dimensions of the same tensors. At least one must survive.
    """

    name: str
    components: Components


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
            tracker.space.freeze(labels, Reason(layer, "exclude", text))


def _resolve(tracker: Tracker, methods: Methods, example: list[Any]) -> Coupling:
    resolution = tracker.space.resolve()
    number = _number_components(tracker, resolution)
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
    count = int(number.max(initial=-1)) + 1
    return Coupling(
        component_count=count,
        slices=[item for item in slices if (item.component >= 0).any()],
        groups=_groups(slices, count),
        frozen=_frozen(tracker, resolution),
        mixing=[(name, _free(number[own])) for name, own in tracker.mixing],
        tape=tracker.tape,
        labels={
            value: [None if own is None else number[own] for own in dims]
            for value, dims in tracker.all_labels().items()
        },
        methods=methods,
        example=example,
    )


def _free(components: Labels) -> Labels:
    return distinct(components[components >= 0])


def _number_components(tracker: Tracker, resolution: Resolution) -> Labels:
    """For each label its component 0, 1, ... in order of first appearance; -1 when frozen.

    A component that fills a whole dimension by itself can never be removed.
    """
    free = resolution.reason < 0
    free[resolution.component[0]] = False
    for item in tracker.space.ranges:
        own = resolution.component[item.start : item.start + item.size]
        if item.tensor and own[0] == own[-1] and (own == own[0]).all():
            free[own[0]] = False
    if tracker.whole_heads:
        free &= _heads(tracker, resolution)
    # What only made tensors have in common is no channel of any weight.
    weighed = np.zeros(free.size, bool)
    for item in tracker.space.ranges:
        if item.tensor:
            weighed[resolution.component[item.start : item.start + item.size]] = True
    free &= weighed
    raw = np.where(free[resolution.component], resolution.component, -1)
    names, first = np.unique(raw, return_index=True)
    order = np.argsort(first[names >= 0], kind="stable")
    number = np.full(resolution.reason.size + 1, -1, np.int64)
    number[names[names >= 0][order]] = np.arange(order.size)
    return number[raw]


def _heads(tracker: Tracker, resolution: Resolution) -> npt.NDArray[np.bool_]:
    heads = np.zeros(resolution.reason.size, bool)
    for labels in tracker.head_labels:
        heads[resolution.component[labels]] = True
    return heads


def _groups(slices: list[Slices], count: int) -> list[Group]:
    """Components with slices in exactly the same dimensions form a group.

    Each dimension adds a random 64-bit number to the signature of the components it holds: equal
    signatures mean equal sets, but for a chance of about n^2 / 2^64.
    """
    signature = np.zeros(count, np.uint64)
    weights = np.random.default_rng(0).integers(1, 2**63, len(slices), dtype=np.uint64)
    owner = np.full(count, len(slices), np.int64)
    for index, item in enumerate(slices):
        present = _free(item.component)
        signature[present] += weights[index]
        rank = index if item.role == "output" else index + len(slices)
        owner[present] = np.where(
            owner[present] == len(slices), rank, np.minimum(owner[present], rank)
        )
    groups = []
    names, first, inverse = np.unique(signature, return_index=True, return_inverse=True)
    for position in np.argsort(first, kind="stable"):
        components = np.flatnonzero(inverse == position)
        holder = slices[int(owner[components[0]]) % max(len(slices), 1)]
        layer = holder.tensor.rpartition(".")[0] or holder.tensor
        groups.append(Group(name=layer, components=components))
    del names
    return groups


def _frozen(tracker: Tracker, resolution: Resolution) -> list[Frozen]:
    """Count frozen components once each, under the layer whose outputs they are."""
    counts: dict[tuple[str, str, str], int] = {}
    seen = np.zeros(resolution.reason.size, bool)
    ranges = sorted(
        (item for item in tracker.space.ranges if item.tensor),
        key=lambda item: tracker.roles.get(item.start) != "output",
    )
    for item in ranges:
        own = resolution.component[item.start : item.start + item.size]
        fresh = own[~seen[own] & (resolution.reason[own] >= 0)]
        if not fresh.size:
            continue
        fresh = distinct(fresh)
        seen[fresh] = True
        for index, number in zip(
            *np.unique(resolution.reason[fresh], return_counts=True), strict=True
        ):
            reason = resolution.reasons[int(index)]
            if reason.report:
                layer = item.tensor.rpartition(".")[0] or item.tensor
                key = (layer, reason.operator, reason.text)
                counts[key] = counts.get(key, 0) + int(number)
    return [
        Frozen(layer=layer, op=operator, reason=text, channels=channels)
        for (layer, operator, text), channels in counts.items()
    ]
