"""The table of a tournament: what every criterion made of the model at the same cost."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.report import MetricReport, TournamentReport
from secateur.report_base import CLASSIFICATION

from reporting import formatting
from reporting.formatting import MISSING
from reporting.metric import shown

_UNITS = {"macs": "MACs", "nonzero_parameters": "weights that are not masked"}


@dataclass(frozen=True)
class ContestantRow:
    """One criterion; only `reason` says something where it could not compete."""

    criterion: str
    won: bool
    reason: str
    amount: str = MISSING
    macs: str = MISSING
    parameters: str = MISSING
    nonzero: str = MISSING
    loss_before: str = MISSING
    before: str = MISSING
    loss: str = MISSING
    after: str = MISSING
    took: str = MISSING


def contestant_rows(
    report: TournamentReport, metric: MetricReport = CLASSIFICATION.decides
) -> list[ContestantRow]:
    """In the order of the recipe, as the ties are broken."""
    rows = []
    for one in report.contestants:
        if one.amount is None or one.macs is None or one.parameters is None:
            rows.append(ContestantRow(one.criterion, False, one.reason or ""))
            continue
        rows.append(
            ContestantRow(
                criterion=one.criterion,
                won=one.criterion == report.winner,
                reason="" if one.matched else "single steps are too coarse to match: it has less",
                amount=formatting.percent(one.amount),
                macs=formatting.short(one.macs),
                parameters=formatting.short(one.parameters),
                nonzero=formatting.short(one.nonzero_parameters or 0),
                loss_before=formatting.loss(one.loss_before),
                before=shown(metric, one.metric_before, one.accuracy_before),
                loss=formatting.loss(one.loss),
                after=shown(metric, one.metric, one.accuracy),
                took=formatting.elapsed((one.seconds or 0.0) * 1000),
            )
        )
    return rows


def tournament_words(report: TournamentReport) -> str:
    """At what cost they were compared, and how they recovered."""
    unit = _UNITS[report.matched_by]
    recovery = "without recovery"
    if report.recovery_steps is not None:
        recovery = f"after a recovery of at most {report.recovery_steps:,} steps"
    elif report.recovery_epochs:
        epochs = "epoch" if report.recovery_epochs == 1 else "epochs"
        recovery = f"after a recovery of {report.recovery_epochs:,} {epochs}"
    return (
        f"Every criterion brought the model from {report.before:,} to {report.target:,} {unit} "
        f"(within {formatting.percent(report.tolerance)}) and was judged on the validation split "
        f"{recovery}. The best one judges in stage {report.stage_index + 1}, which prunes by its "
        "own amount."
    )
