"""One job through the engine; every way it can fail becomes an error message."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any, BinaryIO

import torch

from engine.errors import EngineError
from engine.inspection import inspect
from engine.job import JobInput, ProducedArtifact
from engine.pipeline import compress, score
from engine.pipeline.compress import ResultBreaksConstraint
from engine.pipeline.score import short_result
from engine.planning import plan
from reporting import html, score_html
from reporting.sensitivity_plot import sensitivity_figure
from workers.instructions import Instructions
from workers.messages import Failure, Produced, Result
from workers.runner.sending import LineListener

_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")


def execute(instructions: Instructions, events: BinaryIO) -> None:
    """Run the job and send its artifacts and its result, or its error."""
    listener = LineListener(events, instructions.workdir)
    torch.set_num_threads(instructions.threads)
    try:
        result = _run(instructions, listener)
    except EngineError as error:
        if isinstance(error, ResultBreaksConstraint):
            page = html.render(error.report)
            _send_result_files(instructions, listener, error.artifacts, page)
        listener.send(
            Failure(
                type=error.type,
                title=error.title[:10_000],
                hint=error.hint[:10_000],
                where=error.where[:1000],
                retryable=error.retryable,
            )
        )
    except Exception as error:
        # the trace goes to the job's log (stderr); the user is told what can be said
        traceback.print_exc()
        listener.send(_unexpected(error))
    else:
        listener.send(Result(result=result))


def _run(instructions: Instructions, listener: LineListener) -> dict[str, Any]:
    if instructions.type == "inspect":
        return inspect(instructions.model).model_dump(mode="json")
    if instructions.recipe is None:
        raise ValueError(f"a {instructions.type} job needs a recipe")
    job = JobInput(
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
    if instructions.type == "plan":
        return plan(job)
    if instructions.type == "score":
        return _score(instructions, job, listener)
    done = compress(job, listener)
    _send_result_files(instructions, listener, done.artifacts, html.render(done.report))
    return done.report.verdict.model_dump(mode="json")


def _score(instructions: Instructions, job: JobInput, listener: LineListener) -> dict[str, Any]:
    done = score(job, listener)
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


def _unexpected(error: Exception) -> Failure:
    text = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        sign in text for sign in _OUT_OF_MEMORY
    ):
        return Failure(
            type="out-of-memory",
            title="The job ran out of memory.",
            hint="Try a smaller batch size, fewer samples, or a machine with more memory.",
            retryable=True,
        )
    return Failure(
        type="internal-error",
        title=f"The engine failed unexpectedly ({type(error).__name__}).",
        hint="The trace is at the end of the job's log; please report it with the recipe.",
    )
