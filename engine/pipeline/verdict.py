"""The result in one place: ratios, a sentence, and what to warn of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from secateur.recipe import Recipe
from secateur.report import Measurement, MetricReport, QuantizationReport, Verdict
from secateur.report_base import CLASSIFICATION

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
    recipe: Recipe,
    before: Measurement,
    after: Measurement,
    decides: MetricReport = CLASSIFICATION.decides,
) -> list[BrokenConstraint]:
    """Which limits the result breaks.

    Args:
        recipe: with its limits.
        before, after: measured.
        decides: the metric that `max_metric_drop` is about.
    """
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
    broken.extend(_worse(recipe, before, after, decides))
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


def _worse(
    recipe: Recipe, before: Measurement, after: Measurement, decides: MetricReport
) -> Iterator[BrokenConstraint]:
    """Limits on the metric and on the loss. A result that is no finite number breaks them."""
    limits = recipe.constraints
    for field, limit, name, rises, old, new in (
        (
            "max_metric_drop",
            limits.max_metric_drop,
            decides.title,
            decides.higher_is_better,
            before.deciding,
            after.deciding,
        ),
        ("max_loss_increase", limits.max_loss_increase, "the loss", False, before.loss, after.loss),
    ):
        if limit is None or old is None:
            continue
        allowed = limit.allowed(old)
        lost = inf if new is None or new != new else (old - new if rises else new - old)  # noqa: PLR0124
        if lost > allowed * (1 + 1e-9) + 1e-12:
            became = "no finite number" if lost == inf else f"{new:.6g}"
            yield BrokenConstraint(
                f"recipe.constraints.{field}",
                f"{name} went from {old:.6g} to {became}, "
                f"{'down' if rises else 'up'} by at most {allowed:.6g} is allowed",
            )


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
    decides: MetricReport = CLASSIFICATION.decides,
    nonzero_macs: int | None = None,
    quantization: Sequence[QuantizationReport] = (),
    prunes: bool = True,
) -> Verdict:
    """The verdict; `remarks` are warnings from earlier in the job.

    Args:
        exceeded: targets that the result does not keep.
        decides: the metric that decides.
        nonzero_macs: of the result without zeros in weights, where they could be counted.
        quantization: what the quantise stages did.
        prunes: whether the recipe has a stage that removes something.
    """
    change = accuracy_change(before, after)
    faster = speedups(before, after)
    warnings = [*(item.text for item in broken), *exceeded]
    for size, speedup in faster.items():
        if speedup < 1 - NOISE:
            warnings.append(
                f"SLOWER than the original at batch {size}: {1 / speedup:.2f} times the time; "
                f"{_why_slow(quantization)}"
            )
    if change is not None and change < -_POINT:
        warnings.append(f"top-1 accuracy fell by {-change:.2%}, more than one point")
    worse = None if decides.name == "accuracy" else _metric_warning(before, after, decides)
    if worse is not None:
        warnings.append(worse)
    if prunes and after.nonzero_parameters >= before.nonzero_parameters:
        warnings.append("the result has as many non-zero parameters as the original")
    if quantization and after.file_bytes >= before.file_bytes:
        warnings.append(
            f"the file is no smaller than the original's ({after.file_bytes:,} bytes after "
            f"{before.file_bytes:,})"
        )
    faults = len(warnings)
    if prunes and after.nonzero_parameters < after.parameters and after.macs == before.macs:
        stays = (
            "the latency stays as it was"
            if quantization
            else "the file and the latency stay as they were"
        )
        warnings.append(
            "single weights were zeroed, which dense kernels do not skip: "
            f"{stays}; `granularity: channel` makes them smaller"
        )
    warnings.extend(remarks)
    return Verdict(
        ok=faults == 0,
        summary=_summary(
            before, after, change, faster, decides, quantization=quantization, prunes=prunes
        ),
        warnings=warnings,
        compression_ratio=before.parameters / max(after.nonzero_parameters, 1),
        file_ratio=before.file_bytes / after.file_bytes,
        theoretical_speedup=before.macs / after.macs if after.macs else 1.0,
        nonzero_theoretical_speedup=before.macs / nonzero_macs if nonzero_macs else None,
        measured_speedup=faster,
        accuracy_change=change,
        metric=decides.name if before.deciding is not None else None,
        metric_before=before.deciding,
        metric_after=after.deciding,
        constraints_met=not broken,
    )


def _summary(
    before: Measurement,
    after: Measurement,
    change: float | None,
    faster: dict[str, float],
    decides: MetricReport,
    *,
    quantization: Sequence[QuantizationReport],
    prunes: bool,
) -> str:
    fewer = (
        f"{before.parameters:,} to {after.nonzero_parameters:,} non-zero parameters "
        f"({before.parameters / max(after.nonzero_parameters, 1):.1f} times fewer)"
    )
    parts = [
        *([fewer] if prunes else []),
        *(f"weights in {one.bits:.2g} bits" for one in quantization),
        f"file {after.file_bytes / before.file_bytes - 1:+.0%}",
    ]
    if before.macs and prunes:
        parts.append(f"MACs {after.macs / before.macs - 1:+.0%}")
    if before.accuracy is not None and after.accuracy is not None and change is not None:
        parts.append(
            f"top-1 {before.accuracy.top1:.2%} to {after.accuracy.top1:.2%} ({change:+.2%})"
        )
    if decides.name != "accuracy" and before.deciding is not None:
        parts.append(
            f"{decides.title} {_shown(before.deciding, decides)} to "
            f"{_shown(after.deciding, decides)}"
        )
    parts.extend(f"{value:.2f} times as fast at batch {size}" for size, value in faster.items())
    return ", ".join(parts)


def _why_slow(quantization: Sequence[QuantizationReport]) -> str:
    if any(one.decode == "at_use" for one in quantization):
        return (
            "weights are decoded at each use; `decode: at_load` decodes them once, when the file "
            "is loaded"
        )
    return "odd channel counts can be slow, try `round_to: 8`"


def _shown(value: float | None, metric: MetricReport) -> str:
    if value is None:
        return "no finite number"
    return f"{value:.2%}" if metric.fraction else f"{value:.4g}"


def _metric_warning(before: Measurement, after: Measurement, metric: MetricReport) -> str | None:
    """That the metric got worse by more than a point, or by more than a hundredth of itself."""
    old, new = before.deciding, after.deciding
    if old is None:
        return None
    if new is not None:
        lost = old - new if metric.higher_is_better else new - old
        if lost <= (_POINT if metric.fraction else _POINT * abs(old)):
            return None
    more = "one point" if metric.fraction else "one per cent of it"
    return (
        f"{metric.title} got worse, {_shown(old, metric)} to {_shown(new, metric)}: by more than "
        f"{more}"
    )
