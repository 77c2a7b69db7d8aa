"""N:M patterns of a program: which weights can have one, and whether they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secateur.recipe import PruneStage
from secateur.report import Frozen, Pattern
from torch import Tensor

from engine.calling import copies
from engine.coupling.input_dimensions import input_dimensions
from engine.errors import NothingPruned
from engine.masks import maskable
from engine.selection.n_m import broken_groups
from engine.torchscript.program import Program


def pattern_of(stage: PruneStage) -> tuple[int, int]:
    """The n and m of a stage of granularity `n_m`."""
    if stage.n is None or stage.m is None:
        raise ValueError(f"granularity `{stage.granularity}` has no n and m")
    return stage.n, stage.m


def pattern_dimensions(
    program: Program, stage: PruneStage, inputs: Sequence[Any]
) -> tuple[dict[str, int], list[Frozen]]:
    """The weights that can have the stage's pattern, with their dimension of inputs.

    A weight whose inputs are no multiple of m is left whole: kernels that use the pattern need
    whole groups, and a rest of its own would not be n of m.

    Returns:
        The dimensions by weight, and the weights that are left whole, with the reason.

    Raises:
        NothingPruned: no weight can have the pattern.
    """
    kept, group = pattern_of(stage)
    reads = input_dimensions(program, copies(inputs))
    dimensions, frozen = {}, []
    for name, weight in maskable(program, stage.exclude).items():
        dim = reads.get(name)
        if dim is not None and weight.shape[dim] % group == 0:
            dimensions[name] = dim
            continue
        reason = (
            "the weight reads no inputs along a dimension (a table, a bare parameter, or one "
            "input to each output)"
            if dim is None
            else f"{weight.shape[dim]} inputs are no multiple of {group}"
        )
        layer = name.rpartition(".")[0] or name
        frozen.append(
            Frozen(
                layer=layer,
                op=f"{kept}:{group}",
                reason=f"left whole: {reason}",
                channels=weight.shape[1 if dim == 0 else 0],
            )
        )
    if not dimensions:
        listed = "; ".join(f"{item.layer}: {item.reason}" for item in frozen[:5])
        raise NothingPruned(
            f"no weight can have the pattern {kept}:{group}",
            hint=f"{listed}. Choose another `m`" if listed else "`exclude` leaves no weight",
            where="m" if listed else "exclude",
        )
    return dimensions, frozen


def held_patterns(
    stages: Sequence[PruneStage],
    original: Program,
    result: Program,
    masks: Mapping[str, Tensor],
    inputs: Sequence[Any],
) -> list[Pattern]:
    """What became of each pattern in the final weights.

    Args:
        stages: prune stages, in order.
        original: the upload, which says where a pattern was possible.
        result: whose weights are counted.
        masks: of the result; a weight without one has no pattern.
        inputs: the example.
    """
    asked = [stage for stage in stages if stage.granularity == "n_m"]
    found: list[Pattern] = []
    weights = result.parameters()
    for stage in asked:
        kept, group = pattern_of(stage)
        for name, dim in pattern_dimensions(original, stage, inputs)[0].items():
            if name not in masks or name not in weights:
                continue
            broken = broken_groups(weights[name].detach(), dim, kept=kept, group=group)
            found.append(
                Pattern(
                    weight=name, n=kept, m=group, dimension=dim, holds=not broken, broken=broken
                )
            )
    return found


def broken_patterns(patterns: Sequence[Pattern]) -> list[str]:
    """A warning for each pattern that later stages broke."""
    broken: dict[str, list[str]] = {}
    for item in patterns:
        if not item.holds:
            broken.setdefault(f"{item.n}:{item.m}", []).append(item.weight)
    return [
        f"the pattern {pattern} does not hold in {', '.join(names)}: a later stage removed inputs "
        "of it; put granularity `n_m` after the stages that remove channels"
        for pattern, names in broken.items()
    ]
