"""Tables of the command line."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from secateur.cli.console import byte_size, magnitude
from secateur.report import Accuracy, Measurement, MetricReport, Report, TournamentReport
from secateur.report_base import CLASSIFICATION
from secateur.resources import Job

COLOURS = {"succeeded": "green", "failed": "red", "running": "cyan", "canceled": "yellow"}


def change(before: float, after: float) -> str:
    """Relative change, such as `-72.4 %`."""
    return "-" if before == 0 else f"{100 * (after - before) / before:+.1f} %"


def before_after(report: Report) -> Table:
    """The numbers of a report, before and after."""
    before, after = report.before, report.after
    table = Table("", "before", "after", "change", title="Before and after", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row(
        "file", byte_size(before.file_bytes), byte_size(after.file_bytes),
        change(before.file_bytes, after.file_bytes),
    )  # fmt: skip
    if before.memory_bytes is not None and after.memory_bytes is not None:
        table.add_row(
            "memory", byte_size(before.memory_bytes), byte_size(after.memory_bytes),
            change(before.memory_bytes, after.memory_bytes),
        )  # fmt: skip
    for label, name in (
        ("parameters", "parameters"),
        ("non-zero parameters", "nonzero_parameters"),
        ("MACs", "macs"),
    ):
        count, left = int(getattr(before, name)), int(getattr(after, name))
        table.add_row(label, magnitude(count), magnitude(left), change(count, left))
    if before.loss is not None and after.loss is not None:
        table.add_row("validation loss", f"{before.loss:.4f}", f"{after.loss:.4f}", "")
    if before.accuracy is not None and after.accuracy is not None:
        points = 100 * (after.accuracy.top1 - before.accuracy.top1)
        table.add_row("validation top-1", top1(before), top1(after), f"{points:+.2f} points")
    for one in report.objective.metrics:
        old, new = before.metrics.get(one.name), after.metrics.get(one.name)
        if one.name not in ("accuracy", "loss") and old is not None and new is not None:
            moved = f"{100 * (new - old):+.2f} points" if one.fraction else change(old, new)
            table.add_row(f"validation {one.title}", value(one, old), value(one, new), moved)
    for old_latency, new_latency in zip(before.latency_ms, after.latency_ms, strict=True):
        table.add_row(
            f"latency p50, batch {old_latency.batch_size}",
            f"{old_latency.p50:.3f} ms",
            f"{new_latency.p50:.3f} ms",
            f"{old_latency.p50 / new_latency.p50:.2f} x" if new_latency.p50 else "-",
        )
    return table


def value(metric: MetricReport, found: float | None) -> str:
    """A metric as `61.20 %` where it is a share, else as `12.13`."""
    if found is None:
        return "-"
    return f"{100 * found:.2f} %" if metric.fraction else f"{found:.4g}"


def top1(measurement: Measurement) -> str:
    """Accuracy as `97.50 % (351/360)`."""
    return _correct(measurement.accuracy)


def _correct(accuracy: Accuracy | None) -> str:
    if accuracy is None:
        return "-"
    return f"{100 * accuracy.top1:.2f} % ({accuracy.correct}/{accuracy.total})"


def contestants(report: TournamentReport, metric: MetricReport = CLASSIFICATION.decides) -> Table:
    """What every criterion of a tournament made of the model."""
    table = Table(
        "criterion", "amount", "MACs", "non-zero", "pruned", "recovered", "loss", "took",
        title=f"Tournament of stage {report.stage_index + 1}", title_justify="left",
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    for one in report.contestants:
        if one.amount is None or one.macs is None or one.nonzero_parameters is None:
            continue
        won = one.criterion == report.winner
        table.add_row(
            Text(f"{one.criterion} (winner)" if won else one.criterion, style="bold" * won),
            f"{100 * one.amount:.1f} %",
            magnitude(one.macs),
            magnitude(one.nonzero_parameters),
            _judged(metric, one.metric_before, one.accuracy_before),
            _judged(metric, one.metric, one.accuracy),
            "-" if one.loss is None else f"{one.loss:.4f}",
            f"{one.seconds or 0:.1f} s",
        )
    return table


def _judged(metric: MetricReport, found: float | None, accuracy: Accuracy | None) -> str:
    return _correct(accuracy) if metric.name == "accuracy" else value(metric, found)


def excluded(report: TournamentReport) -> list[str]:
    """Who could not compete and why, a line each."""
    return [
        f"{one.criterion} did not compete: {one.reason}"
        for one in report.contestants
        if one.reason is not None
    ]


def tournaments(report: Report) -> Iterator[Table | str]:
    """The tables of all tournaments, each followed by who could not compete."""
    for one in report.tournaments:
        yield contestants(one, report.objective.decides)
        yield from map(escape, excluded(one))


def certificate_line(report: Report) -> str:
    """What the certificate says, in one line."""
    certificate = report.certificate
    state = "passed" if certificate.passed else "FAILED"
    line = (
        f"certificate {state} ({certificate.kind}): largest relative error "
        f"{certificate.max_relative_error:.1e} against the masked original"
    )
    if certificate.mixed_by:
        line += f"; mixed by {', '.join(certificate.mixed_by)}"
    return line


def jobs_table(jobs: list[Job]) -> Table:
    """A list of jobs."""
    table = Table("id", "type", "status", "stage", "model", "created", "name", box=None)
    table.columns[0].no_wrap = True
    for job in jobs:
        table.add_row(
            job.id, job.type, Text(job.status, style=COLOURS.get(job.status, "")),
            job.stage or "", job.model_id, f"{job.created_at:%Y-%m-%d %H:%M:%S}", job.name,
        )  # fmt: skip
    return table
