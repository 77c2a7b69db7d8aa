"""The result in one place: ratios, a sentence, and what to warn of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secateur.recipe import Recipe
from secateur.report import Measurement, Verdict

_POINT = 0.01
NOISE = 0.05
"""Medians of turn-by-turn runs on a shared machine scatter by a few percent: a result counts as
slower when it takes more than this share longer."""


@dataclass(frozen=True)
class BrokenConstraint:
    """A limit of the recipe that the result does not keep."""

    field: str
    text: str


def broken_constraints(
    recipe: Recipe, before: Measurement, after: Measurement
) -> list[BrokenConstraint]:
    """Which limits the result breaks."""
    broken = []
    limit = recipe.constraints.max_accuracy_drop
    change = accuracy_change(before, after)
    if limit is not None and change is not None and -change > limit + 1e-12:
        broken.append(
            BrokenConstraint(
                "recipe.constraints.max_accuracy_drop",
                f"top-1 fell by {-change:.2%}, at most {limit:.2%} is allowed",
            )
        )
    wanted = recipe.constraints.min_speedup
    if wanted is not None:
        size, speedup = next(iter(speedups(before, after).items()))
        if speedup < wanted:
            broken.append(
                BrokenConstraint(
                    "recipe.constraints.min_speedup",
                    f"the speed-up at batch {size} is {speedup:.2f}, at least {wanted:g} is asked",
                )
            )
    return broken


def accuracy_change(before: Measurement, after: Measurement) -> float | None:
    """Top-1 after minus before."""
    if before.accuracy is None or after.accuracy is None:
        return None
    return after.accuracy.top1 - before.accuracy.top1


def speedups(before: Measurement, after: Measurement) -> dict[str, float]:
    """Median latency before / after, by batch size, in the order measured."""
    return {
        str(dense.batch_size): dense.p50 / max(small.p50, 1e-9)
        for dense, small in zip(before.latency_ms, after.latency_ms, strict=True)
    }


def judge(
    before: Measurement,
    after: Measurement,
    broken: Sequence[BrokenConstraint],
    remarks: Sequence[str],
    *,
    exceeded: Sequence[str] = (),
    nonzero_macs: int | None = None,
) -> Verdict:
    """The verdict; `remarks` are warnings from earlier in the job.

    Args:
        exceeded: targets that the result does not keep.
        nonzero_macs: of the result without zeros in weights, where they could be counted.
    """
    change = accuracy_change(before, after)
    faster = speedups(before, after)
    warnings = [*(item.text for item in broken), *exceeded]
    for size, speedup in faster.items():
        if speedup < 1 - NOISE:
            warnings.append(
                f"SLOWER than the original at batch {size}: {1 / speedup:.2f} times the time; "
                "odd channel counts can be slow, try `round_to: 8`"
            )
    if change is not None and change < -_POINT:
        warnings.append(f"top-1 accuracy fell by {-change:.2%}, more than one point")
    if after.nonzero_parameters >= before.nonzero_parameters:
        warnings.append("the result has as many non-zero parameters as the original")
    faults = len(warnings)
    if after.nonzero_parameters < after.parameters and after.macs == before.macs:
        warnings.append(
            "single weights were zeroed, which dense kernels do not skip: the file and the "
            "latency stay as they were; `granularity: channel` makes them smaller"
        )
    warnings.extend(remarks)
    return Verdict(
        ok=faults == 0,
        summary=_summary(before, after, change, faster),
        warnings=warnings,
        compression_ratio=before.parameters / max(after.nonzero_parameters, 1),
        file_ratio=before.file_bytes / after.file_bytes,
        theoretical_speedup=before.macs / after.macs if after.macs else 1.0,
        nonzero_theoretical_speedup=before.macs / nonzero_macs if nonzero_macs else None,
        measured_speedup=faster,
        accuracy_change=change,
        constraints_met=not broken,
    )


def _summary(
    before: Measurement, after: Measurement, change: float | None, faster: dict[str, float]
) -> str:
    parts = [
        f"{before.parameters:,} to {after.nonzero_parameters:,} non-zero parameters "
        f"({before.parameters / max(after.nonzero_parameters, 1):.1f} times fewer)",
        f"file {after.file_bytes / before.file_bytes - 1:+.0%}",
    ]
    if before.macs:
        parts.append(f"MACs {after.macs / before.macs - 1:+.0%}")
    if before.accuracy is not None and after.accuracy is not None and change is not None:
        parts.append(
            f"top-1 {before.accuracy.top1:.2%} to {after.accuracy.top1:.2%} ({change:+.2%})"
        )
    parts.extend(f"{value:.2f} times as fast at batch {size}" for size, value in faster.items())
    return ", ".join(parts)
