"""The trade-off curves of a report: accuracy against what is pruned away."""

from __future__ import annotations

from typing import Literal

from secateur.report_base import Accuracy, ReportModel


class TradeOffPoint(ReportModel):
    """One ratio of one curve."""

    ratio: float
    """Asked for: the share of weights, or of channels, to prune."""
    kept_fraction: float
    """Non-zero parameters after pruning over the parameters of the original."""
    pruned: Accuracy | None
    """Without retraining; null where the objective measures no accuracy."""
    pruned_metric: float | None = None
    """The metric that decides; null where it is no finite number, and in older reports."""
    pruned_loss: float
    """Average validation loss, without penalties."""
    retrained: Accuracy | None
    retrained_metric: float | None = None
    retrained_loss: float
    """Average validation loss, without penalties."""


class TradeOffCurve(ReportModel):
    """One line of the figure, without and with retraining."""

    penalty: Literal["none", "l1", "l2"]
    strength: float | None
    criterion: str
    iterative: bool
    dense: Accuracy | None
    """Before pruning: after training with the penalty, or of the upload where there was none."""
    dense_metric: float | None = None
    """The metric that decides, of the same."""
    points: list[TradeOffPoint]
    """By rising ratio."""


class TradeOffReport(ReportModel):
    """All lines."""

    granularity: Literal["element", "channel"]
    curves: list[TradeOffCurve]
