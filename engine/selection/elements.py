"""Which single weights go: the lowest scores of each weight tensor, or of all together.

At least one element of every tensor stays, so that no layer goes dead by a rounding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from secateur.recipe import Allocation, Schedule
from torch import Tensor

from engine.selection.schedule import removed_after, removed_of


def select_elements(
    scores: Mapping[str, Tensor],
    allocation: Allocation,
    *,
    round_number: int = 1,
    rounds: int = 1,
    totals: Mapping[str, int] | None = None,
    schedule: Schedule | None = None,
) -> dict[str, Tensor]:
    """Masks by tensor name: True where the weight stays.

    The totals include what is masked already: give those elements a score below all others.

    Args:
        scores: one tensor of scores per weight, on the CPU.
        allocation: how much, over what.
        round_number: this round, from 1.
        rounds: all rounds.
        totals: what each weight loses in the whole stage, where its size alone does not say.
        schedule: how the amount grows over them.
    """

    def gone_of(units: int) -> int:
        return removed_after(allocation, units, round_number, rounds, schedule)

    flat = {name: score.reshape(-1).double() for name, score in scores.items()}
    if totals is not None:
        counts = {
            name: removed_of(totals[name], score.numel(), round_number, rounds, schedule)
            for name, score in flat.items()
        }
    elif allocation.scope == "local":
        counts = {name: gone_of(score.numel()) for name, score in flat.items()}
    else:
        counts = _global(flat, gone_of(sum(score.numel() for score in flat.values())))
    return {
        name: _mask(score, min(counts[name], score.numel() - 1)).reshape(scores[name].shape)
        for name, score in flat.items()
    }


def _mask(score: Tensor, count: int) -> Tensor:
    mask = torch.ones(score.numel(), dtype=torch.bool)
    mask[torch.argsort(score, stable=True)[:count]] = False
    return mask


def _global(flat: Mapping[str, Tensor], total: int) -> dict[str, int]:
    # Each tensor's best element takes no part in the ranking.
    ranked = [torch.sort(score, stable=True).values[:-1] for score in flat.values()]
    owner = torch.repeat_interleave(
        torch.arange(len(ranked)), torch.tensor([score.numel() for score in ranked])
    )
    chosen = torch.argsort(torch.cat(ranked), stable=True)[:total]
    counts = torch.bincount(owner[chosen], minlength=len(ranked)).tolist()
    return dict(zip(flat, counts, strict=True))
