"""Which coupled channels go.

Local: every group loses the same share (or count) of its own channels, the lowest scores first,
or its own share where the allocation gives it one.
Global: one ranking over all groups. Either way the wanted totals are counted against the original
network, so that rounds add up exactly, and every group keeps at least one channel. With
`round_to`, the layers that lose channels end up a multiple of that many wide, rounded up: rounding
never removes more than was asked.

Ties are broken by position (group order, then component order), so a plan depends on nothing but
its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from secateur.recipe import Allocation, Schedule

from engine.coupling import Coupling, Group
from engine.scores.groups import group_keys
from engine.selection.schedule import removed_after, removed_of

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Originals:
    """Channels of the network before the stage's first round, by group."""

    by_group: Mapping[str, int]

    @classmethod
    def of(cls, groups: Sequence[Group]) -> Originals:
        """Count the groups as they are now."""
        return cls(
            {
                key: len(group.components)
                for key, group in zip(group_keys(groups), groups, strict=True)
            }
        )

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.by_group.values())


@dataclass(frozen=True)
class Target:
    """What is asked of one round.

    Attributes:
        allocation: how much in the end, over what.
        originals: channels before the stage, which the amounts refer to.
        round_number: this round, from 1.
        rounds: all rounds.
        totals: channels each group loses in the whole stage, where that differs from group to
            group by more than their sizes (see `engine.selection.by_layer`).
        schedule: how the amount grows over them.
    """

    allocation: Allocation
    originals: Originals
    round_number: int = 1
    rounds: int = 1
    totals: Mapping[str, int] | None = None
    schedule: Schedule | None = None

    def gone_of(self, units: int) -> int:
        """How many of `units` original channels are gone after this round."""
        return removed_after(self.allocation, units, self.round_number, self.rounds, self.schedule)

    def gone_of_group(self, key: str, units: int) -> int:
        """The same of one group, by its key."""
        if self.totals is None:
            return self.gone_of(units)
        done = self.totals.get(key, 0)
        return removed_of(done, units, self.round_number, self.rounds, self.schedule)


@dataclass(frozen=True)
class ChannelPlan:
    """Component ids to remove, and how many of each group (by `group_keys`)."""

    removed: Indices
    by_group: dict[str, int]


def select_channels(
    coupling: Coupling,
    scores: NDArray[np.float64],
    target: Target,
    *,
    round_to: int | None = None,
) -> ChannelPlan:
    """Choose the components of this round.

    Args:
        coupling: components and groups of the program as it is now.
        scores: one per component, NaN for those that must stay.
        target: what is asked of this round.
        round_to: keep multiples of this many channels.
    """
    order = [_ranked(group.components, scores) for group in coupling.groups]
    limits = _limits(coupling, round_to)
    most = [limit.removal(len(ranked)) for limit, ranked in zip(limits, order, strict=True)]
    if target.allocation.scope == "local":
        wanted = _local(coupling.groups, target)
    else:
        wanted = _global(coupling.groups, order, most, scores, target)
    counts = [
        min(limit.removal(want), largest)
        for limit, want, largest in zip(limits, wanted, most, strict=True)
    ]
    chosen = [ranked[:count] for ranked, count in zip(order, counts, strict=True)]
    removed = np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)
    return ChannelPlan(
        removed=removed.astype(np.int64),
        by_group=dict(zip(group_keys(coupling.groups), counts, strict=True)),
    )


def _ranked(components: Indices, scores: NDArray[np.float64]) -> Indices:
    """Components by rising score, without those that have none."""
    scored = components[~np.isnan(scores[components])]
    return scored[np.argsort(scores[scored], kind="stable")]


@dataclass(frozen=True)
class _Limit:
    """How many components of one group may go.

    Attributes:
        present: components of the group.
        round_to: the recipe's.
        widths: for each layer dimension the group produces, the channels that one component
            stands for, and the channels of that dimension that cannot be removed.
    """

    present: int
    round_to: int
    widths: frozenset[tuple[int, int]]

    def removal(self, want: int) -> int:
        """The largest removal up to `want` that leaves whole multiples, and one component."""
        least = max(self.present - want, 1)
        # Remainders repeat after `round_to` components at the latest.
        for kept in range(least, min(self.present, least + self.round_to)):
            if self._fits(kept):
                return self.present - kept
        return 0

    def _fits(self, kept: int) -> bool:
        return all((kept * width + fixed) % self.round_to == 0 for width, fixed in self.widths)

    def solvable(self) -> bool:
        """Whether any number of components makes multiples everywhere."""
        return any(self._fits(kept) for kept in range(1, self.round_to + 1))


def _limits(coupling: Coupling, round_to: int | None) -> list[_Limit]:
    """The limit of every group.

    A component may hold several channels of one layer (one index in each attention head), and a
    layer may have channels that cannot be removed: what is rounded is the width of the layer.
    """
    present = [len(group.components) for group in coupling.groups]
    if round_to is None or round_to == 1:
        return [_Limit(count, 1, frozenset()) for count in present]
    found = _widths(coupling)
    limits = [
        _Limit(count, round_to, frozenset(widths or [(1, 0)]))
        for count, widths in zip(present, found, strict=True)
    ]
    return [
        limit
        if limit.solvable()
        # No number of survivors suits all layers of the group: round what can be removed.
        else _Limit(limit.present, round_to, frozenset((width, 0) for width, _ in limit.widths))
        for limit in limits
    ]


def _widths(coupling: Coupling) -> list[set[tuple[int, int]]]:
    """For every group (channels of a component, channels that stay) of each dimension it makes."""
    owner = np.full(coupling.component_count, -1, dtype=np.int64)
    for number, group in enumerate(coupling.groups):
        owner[group.components] = number
    found: list[set[tuple[int, int]]] = [set() for _ in coupling.groups]
    for item in coupling.slices:
        if item.role != "output":
            continue
        live = item.component[item.component >= 0]
        fixed = len(item.component) - len(live)
        per_component = np.bincount(live, minlength=coupling.component_count)
        for number in np.unique(owner[live]):
            own = per_component[coupling.groups[int(number)].components]
            # Several groups in one dimension: the first makes up for what is fixed.
            found[int(number)].add((int(np.gcd.reduce(own)) or 1, fixed))
            fixed = 0
    return found


def _local(groups: Sequence[Group], target: Target) -> list[int]:
    wanted = []
    for key, group in zip(group_keys(groups), groups, strict=True):
        present = len(group.components)
        original = target.originals.by_group.get(key, present)
        gone = max(original - present, 0)
        wanted.append(max(target.gone_of_group(key, original) - gone, 0))
    return wanted


def _global(
    groups: Sequence[Group],
    order: Sequence[Indices],
    most: Sequence[int],
    scores: NDArray[np.float64],
    target: Target,
) -> list[int]:
    keys = set(group_keys(groups))
    # A group of one channel cannot lose it and is no longer listed, but the channel is there.
    alone = sum(key not in keys for key in target.originals.by_group)
    present = sum(len(group.components) for group in groups) + alone
    gone = max(target.originals.total - present, 0)
    more = max(target.gone_of(target.originals.total) - gone, 0)
    # Only what a group may lose takes part in the ranking: its best channels are safe.
    candidates = [ranked[:limit] for ranked, limit in zip(order, most, strict=True)]
    owner = np.repeat(np.arange(len(groups)), [len(ranked) for ranked in candidates])
    flat = np.concatenate(candidates) if candidates else np.empty(0, dtype=np.int64)
    chosen = np.argsort(scores[flat], kind="stable")[:more]
    return [int(count) for count in np.bincount(owner[chosen], minlength=len(groups))]
