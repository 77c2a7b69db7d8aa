"""`secateur retry`: a job that failed, was canceled or expired, once more."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from secateur.cli.compress import JOB_FAILED, explain
from secateur.cli.console import err, out
from secateur.cli.progress import ProgressDisplay
from secateur.client import Secateur
from secateur.results import save_results


def retry(  # noqa: PLR0917 - typer's options
    job_id: Annotated[str, typer.Argument(help="A job that ended without success.")],
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Wait for the new job and write its results here."),
    ] = None,
    deadline: Annotated[
        datetime | None,
        typer.Option(help="When the new job must have ended, in this machine's time zone."),
    ] = None,
    max_wait: Annotated[
        int | None, typer.Option(help="Seconds it may wait for a worker.", min=1)
    ] = None,
    max_run: Annotated[int | None, typer.Option(help="Seconds it may run.", min=1)] = None,
    url: Annotated[
        str | None, typer.Option(help="Server; by default the one running on this machine.")
    ] = None,
) -> None:
    """Try a job again that failed, was canceled or expired, from its last checkpoint.

    Prints the id of the new job. With --out it is followed to its end, and the exit status is 0
    only if it succeeded.
    """
    given = {
        "deadline": None if deadline is None else deadline.astimezone(),
        "max_wait_seconds": max_wait,
        "max_run_seconds": max_run,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    with Secateur(url) as client:
        job = client.retry(job_id, **changes)
        out.print(job.id)
        if out_dir is None:
            return
        with ProgressDisplay(err) as display:
            job = client.wait(job, on_event=display.on_event)
        if job.status != "succeeded":
            explain(client, job, out_dir)
            raise typer.Exit(JOB_FAILED)
        files = save_results(client, job, out_dir)
        out.print(f"wrote {escape(str(out_dir))}: {', '.join(path.name for path in files)}")
