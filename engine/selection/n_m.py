r"""N:M sparsity: of every m neighbours along a layer's inputs, n are kept.

For a weight whose inputs run along one dimension, the m weights
:math:`w_{o, gm}, \dots, w_{o, gm + m - 1}` that one output reads from m neighbouring inputs make a
group, and the n of highest score stay (Mishra et al. 2021, "Accelerating Sparse Deep Neural
Networks": 2:4 keeps 2 of every 4). A convolution is taken as the matrix product it is computed
by: the groups run along the input channels at every output channel and place of the kernel,
[out, in, kh, kw] seen as [out kh kw, in / m, m].

On the way there a schedule of rounds takes equally many from every group, q of m after a round. A
ramp (`agp`) has more growths than a group has weights: its total R over G groups is spread so that

    every group has lost floor(R / G),

and one more is gone from the R mod G groups whose next weight has the lowest score. At the end of
the ramp R = (m - n) G, and every group keeps n. A group never gets back what it lost: what is
masked already has a score below all others.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from secateur.recipe import Agp, Schedule
from torch import Tensor

from engine.selection.schedule import removed_of


def select_pattern(
    scores: Mapping[str, Tensor],
    dimensions: Mapping[str, int],
    *,
    kept: int,
    group: int,
    round_number: int = 1,
    rounds: int = 1,
    schedule: Schedule | None = None,
) -> dict[str, Tensor]:
    """Masks by tensor name: True where the weight stays. Of equal scores the first goes.

    Args:
        scores: one tensor of scores per weight, on the CPU.
        dimensions: along which the groups of each lie; its size is a multiple of `group`.
        kept: n, in the end.
        group: m.
        round_number: this round, from 1; 0 is the start of a ramp.
        rounds: all rounds.
        schedule: whether they follow a ramp.
    """
    masks = {}
    for name, score in scores.items():
        rows = _groups(score, dimensions[name], group)
        if isinstance(schedule, Agp):
            units, final = rows.numel(), (group - kept) * len(rows)
            total = removed_of(final, units, round_number, rounds, schedule)
        else:
            total = removed_of(group - kept, group, round_number, rounds) * len(rows)
        mask = _without_lowest(rows, total)
        moved = score.movedim(dimensions[name], -1)
        masks[name] = mask.reshape(moved.shape).movedim(-1, dimensions[name]).contiguous()
    return masks


def _without_lowest(rows: Tensor, total: int) -> Tensor:
    """Masks of [groups, m] scores without `total` of them, as evenly as that goes."""
    even, more = divmod(total, len(rows))
    order = torch.argsort(rows, dim=1, stable=True)
    mask = torch.ones_like(rows, dtype=torch.bool)
    mask.scatter_(1, order[:, :even], value=False)
    if more:
        following = order[:, even]
        lowest = torch.argsort(rows.gather(1, following[:, None])[:, 0], stable=True)[:more]
        mask[lowest, following[lowest]] = False
    return mask


def broken_groups(weight: Tensor, dim: int, *, kept: int, group: int) -> int:
    """Groups with more than n weights that are not zero; those cut short by the edge too."""
    whole = weight.shape[dim] // group * group
    rows = _groups(weight.narrow(dim, 0, whole), dim, group)
    broken = int(((rows != 0).sum(dim=1) > kept).sum())
    cut_short = weight.numel() // weight.shape[dim] if whole < weight.shape[dim] else 0
    return broken + cut_short


def _groups(tensor: Tensor, dim: int, group: int) -> Tensor:
    return tensor.movedim(dim, -1).reshape(-1, group)
