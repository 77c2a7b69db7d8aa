"""`secateur score`: a model in, how sensitive each of its layers is out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from secateur.cli.compress import JOB_FAILED, Files, explain, read_inputs, run_job
from secateur.cli.console import out
from secateur.cli.scan_tables import print_scans
from secateur.client import Secateur
from secateur.report_score import ScoreReport
from secateur.results import save_results


def score(  # noqa: PLR0917 - the options of a command line
    model: Annotated[Path, typer.Argument(help="TorchScript file.")],
    recipe: Annotated[Path, typer.Option(help="Recipe of `stage: score`, YAML or JSON.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the results.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Dataset, tensors, images or a table; needed for all but a drift."),
    ] = None,
    loss: Annotated[
        Path | None,
        typer.Option(help="TorchScript file of the loss, for `objective.loss: module`."),
    ] = None,
    metric: Annotated[
        Path | None,
        typer.Option(help="TorchScript file of the metric, for `objective.metric: module`."),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Server; by default the one running on this machine.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the job.")] = "",
) -> None:
    """Scan how sensitive the layers of MODEL are, as the recipe says.

    Writes report.json, report.html, sensitivity.svg, scores.safetensors and recipe.yaml to the
    output folder, all or none, and exits 0 only if the job succeeded. No model is made.
    """
    uploads = Files(model, data, None, loss, metric)
    recipe_file = read_inputs(uploads, recipe, out_dir)
    if not recipe_file.recipe.scans:
        raise recipe_file.mistakes({"stages": "no `stage: score` among them: `secateur compress`"})
    with Secateur(url) as client:
        job = run_job(client, uploads, recipe_file, name)
        if job.status != "succeeded":
            explain(client, job, out_dir)
            raise typer.Exit(JOB_FAILED)
        files = save_results(client, job, out_dir)
    report = ScoreReport.model_validate_json((out_dir / "report.json").read_bytes())
    print_scans(report)
    out.print(escape(report.summary))
    for warning in report.warnings:
        out.print(f"[yellow]warning:[/] {escape(warning)}")
    out.print(f"wrote {escape(str(out_dir))}: {', '.join(path.name for path in files)}")
