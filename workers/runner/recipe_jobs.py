"""Jobs that follow a recipe: plan, score and compress, and the files of their results.

What draws reports is imported when there is a report: a job that fails before needs none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.job import JobInput, ProducedArtifact
from engine.pipeline import compress, score
from engine.pipeline.compress import ResultBreaksConstraint
from engine.pipeline.durable import full_disk_explained
from engine.pipeline.score import short_result
from engine.planning import plan
from workers.instructions import Instructions
from workers.messages import Produced
from workers.runner.sending import LineListener


def run(instructions: Instructions, listener: LineListener) -> dict[str, Any]:
    """Do the job and send its artifacts; returns its result.

    Raises:
        EngineError: what the user can do something about. When a result breaks a constraint of
            its recipe, its files have been sent.
    """
    job = _job_input(instructions)
    # pages and plots are written here, and matplotlib keeps files of its own
    with full_disk_explained(instructions.workdir):
        if instructions.type == "plan":
            return plan(job)
        if instructions.type == "score":
            return _score(instructions, job, listener)
        return _compress(instructions, job, listener)


def _job_input(instructions: Instructions) -> JobInput:
    if instructions.recipe is None:
        raise ValueError(f"a {instructions.type} job needs a recipe")
    return JobInput(
        model=instructions.model,
        recipe=instructions.recipe,
        workdir=instructions.workdir,
        dataset=instructions.dataset,
        device=instructions.device,
        threads=instructions.threads,
        checkpoint=instructions.checkpoint,
        initial=instructions.initial,
        loss=instructions.loss,
        metric=instructions.metric,
    )


def _compress(instructions: Instructions, job: JobInput, listener: LineListener) -> dict[str, Any]:
    try:
        done = compress(job, listener)
    except ResultBreaksConstraint as error:
        from reporting import html  # noqa: PLC0415 - see the module's first lines

        page = html.render(error.report)
        _send_result_files(instructions, listener, error.artifacts, page)
        raise
    from reporting import html  # noqa: PLC0415

    _send_result_files(instructions, listener, done.artifacts, html.render(done.report))
    return done.report.verdict.model_dump(mode="json")


def _score(instructions: Instructions, job: JobInput, listener: LineListener) -> dict[str, Any]:
    done = score(job, listener)
    from reporting import score_html  # noqa: PLC0415
    from reporting.sensitivity_plot import sensitivity_figure  # noqa: PLC0415

    plot = instructions.workdir / "sensitivity.svg"
    plot.write_text(sensitivity_figure(done.report), encoding="utf-8")
    artifacts = [*done.artifacts, ProducedArtifact("plot", plot, "image/svg+xml")]
    _send_result_files(instructions, listener, artifacts, score_html.render(done.report))
    return short_result(done.report)


def _send_result_files(
    instructions: Instructions,
    listener: LineListener,
    artifacts: Sequence[ProducedArtifact],
    written: str,
) -> None:
    page = instructions.workdir / "report.html"
    page.write_text(written, encoding="utf-8")
    for artifact in [*artifacts, ProducedArtifact("report_html", page, "text/html")]:
        if artifact.kind == "checkpoint":
            raise ValueError("checkpoints are told while the job runs, not as its artifacts")
        path = listener.relative(artifact.path)
        listener.send(Produced(artifact=artifact.kind, path=path, media_type=artifact.media_type))
