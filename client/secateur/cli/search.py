"""`secateur search`: a model and a space of recipes in, the best of the models out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from secateur.cli.compress import JOB_FAILED, Files, explain, read_inputs, run_job
from secateur.cli.console import out
from secateur.cli.search_tables import print_search
from secateur.client import Secateur
from secateur.report_search import SearchReport
from secateur.results import save_results


def search(  # noqa: PLR0917 - the options of a command line
    model: Annotated[Path, typer.Argument(help="TorchScript file.")],
    recipe: Annotated[Path, typer.Option(help="Recipe with a `search`, YAML or JSON.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the results.")],
    data: Annotated[
        Path | None, typer.Option(help="Dataset, safetensors or npz; needed to train or validate.")
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option(help="TorchScript file of MODEL before it was trained; for lottery tickets."),
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
    """Try the recipe with many values and keep the best model.

    Writes compact.pt, recipe.yaml (of the result, makes it again), report.json and report.html (of
    the search), front.svg, result-report.json and result-report.html (of the result, with its
    certificate) to the output folder, all or none, and exits 0 only if the search succeeded.
    """
    files = Files(model, data, initial, loss, metric)
    recipe_file = read_inputs(files, recipe, out_dir)
    if recipe_file.recipe.search is None:
        raise recipe_file.mistakes({"": "has no `search`: `secateur compress`"})
    with Secateur(url) as client:
        job = run_job(client, files, recipe_file, name)
        if job.status != "succeeded":
            if any(artifact.kind == "report_json" for artifact in job.artifacts):
                print_search(client.search_report(job))
            explain(client, job, out_dir)
            raise typer.Exit(JOB_FAILED)
        written = save_results(client, job, out_dir)
    report = SearchReport.model_validate_json((out_dir / "report.json").read_bytes())
    print_search(report)
    out.print(escape(report.summary))
    for warning in report.warnings:
        out.print(f"[yellow]warning:[/] {escape(warning)}")
    out.print(f"wrote {escape(str(out_dir))}: {', '.join(path.name for path in written)}")
