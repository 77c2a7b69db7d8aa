"""`secateur compress`: a model in, a smaller model and its report out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from secateur.cli.console import byte_size, err, out
from secateur.cli.progress import ProgressDisplay
from secateur.cli.tables import before_after, certificate_line, tournaments
from secateur.cli.uploads import shown_upload
from secateur.client import Secateur
from secateur.errors import ApiError, SecateurError
from secateur.recipe_file import RecipeFile, RecipeInvalid, read_recipe
from secateur.recipe_initial import initial_fault
from secateur.recipe_objective_fit import module_faults
from secateur.report import Report
from secateur.resources import TERMINAL, Job, Model
from secateur.results import save_failed_report, save_results

JOB_FAILED = 1
INTERRUPTED = 130
CANCEL_SECONDS = 30
INSPECTION_SECONDS = 20


def compress(  # noqa: PLR0917 - the options of a command line
    model: Annotated[Path, typer.Argument(help="TorchScript file.")],
    recipe: Annotated[Path, typer.Option(help="Recipe, YAML or JSON.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the results.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Dataset, tensors, images or a table; needed to train or validate."),
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option(
            help="TorchScript file of MODEL before it was trained; for lottery tickets, which go "
            "back to its weights."
        ),
    ] = None,
    loss: Annotated[
        Path | None,
        typer.Option(help="TorchScript file of the loss, for `objective.loss: module`."),
    ] = None,
    metric: Annotated[
        Path | None,
        typer.Option(help="TorchScript file of the metric, for `objective.metric: module`."),
    ] = None,
    export: Annotated[
        list[str] | None,
        typer.Option(
            help="Format of the result beside TorchScript, such as onnx; again for each more. "
            "Added to `exports` of the recipe."
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Server; by default the one running on this machine.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the job.")] = "",
) -> None:
    """Compress MODEL as the recipe says.

    Writes compact.pt, report.json, report.html and recipe.yaml to the output folder, all or none,
    the exports that could be made beside them, and exits 0 only if the job succeeded.
    """
    files = Files(model, data, initial, loss, metric)
    recipe_file = read_inputs(files, recipe, out_dir).with_exports(export or [])
    if recipe_file.recipe.scans:
        raise recipe_file.mistakes({"stages.0.stage": "a scan makes no model: `secateur score`"})
    if recipe_file.recipe.search is not None:
        raise recipe_file.mistakes({"search": "tries many recipes: `secateur search`"})
    with Secateur(url) as client:
        job = run_job(client, files, recipe_file, name)
        if job.status != "succeeded":
            explain(client, job, out_dir)
            raise typer.Exit(JOB_FAILED)
        _save(client, job, out_dir)


@dataclass(frozen=True)
class Files:
    """What is uploaded."""

    model: Path
    data: Path | None
    initial: Path | None = None
    loss: Path | None = None
    metric: Path | None = None

    @property
    def modules(self) -> dict[str, Path]:
        """Those that are no model, by what they are."""
        found = {"loss": self.loss, "metric": self.metric}
        return {role: path for role, path in found.items() if path is not None}


def read_inputs(files: Files, recipe: Path, out_dir: Path) -> RecipeFile:
    """The recipe, once everything that is wrong with the command is ruled out."""
    for path in (files.model, files.data, files.initial, *files.modules.values()):
        if path is not None and not path.is_file():
            raise SecateurError(f"{path} is not a file", hint="check the path")
    if out_dir.exists() and not out_dir.is_dir():
        raise SecateurError(f"--out {out_dir} is a file", hint="name a folder")
    recipe_file = read_recipe(recipe)
    needed_by = recipe_file.recipe.needs_dataset()
    if needed_by is not None and files.data is None:
        raise recipe_file.mistakes({needed_by: "needs a dataset: add --data FILE"})
    if recipe_file.recipe.inputs is None and files.data is None:
        shapes = "give the shapes, such as `[{shape: [1, 3, 224, 224]}]`, or add --data FILE"
        raise recipe_file.mistakes({"inputs": shapes})
    fault = None if files.initial is None else initial_fault(recipe_file.recipe)
    if fault is not None:
        field, message = fault
        raise recipe_file.mistakes({field: f"{message} (--initial)"})
    for role, message in module_faults(recipe_file.recipe, files.modules):
        raise recipe_file.mistakes({f"objective.{role}": f"{message} (--{role})"})
    return recipe_file


def run_job(client: Secateur, files: Files, recipe_file: RecipeFile, name: str) -> Job:
    """Upload, create the job, and show it until it has ended."""
    data = files.data
    with ProgressDisplay(err) as display:
        uploaded = _upload(client, display, files.model)
        initial = None if files.initial is None else _upload(client, display, files.initial)
        modules = {role: _upload(client, display, path) for role, path in files.modules.items()}
        dataset = None
        if data is not None:
            dataset = shown_upload(display, data, client.upload_dataset)
            splits = ", ".join(f"{count} {split}" for split, count in dataset.splits.items())
            display.done(f"uploaded {data.name}: {byte_size(dataset.bytes)}, {splits} samples")
        try:
            job = client.create_job(
                uploaded,
                recipe_file.recipe,
                dataset=dataset,
                initial=initial,
                loss=modules.get("loss"),
                metric=modules.get("metric"),
                name=name or files.model.stem,
            )
        except ApiError as error:
            raise _located(error, recipe_file) or error from error
        display.done(f"created {job.id}")
        try:
            return client.wait(job, on_event=display.on_event)
        except KeyboardInterrupt:
            _cancel(client, job)
            raise typer.Exit(INTERRUPTED) from None


def _upload(client: Secateur, display: ProgressDisplay, file: Path) -> Model:
    uploaded = shown_upload(display, file, client.upload_model)
    display.done(f"uploaded {file.name}: {byte_size(uploaded.bytes)}, {uploaded.id}")
    display.start("inspecting it")
    _refuse_rejected(client, uploaded)
    return uploaded


def _located(error: ApiError, recipe_file: RecipeFile) -> RecipeInvalid | None:
    """What the server found wrong with the recipe, by the lines of its file."""
    faults = error.problem.errors
    if not faults or not all(fault.field.startswith("recipe.") for fault in faults):
        return None
    return recipe_file.mistakes(
        {fault.field.removeprefix("recipe."): fault.message for fault in faults}
    )


def _refuse_rejected(client: Secateur, uploaded: Model) -> None:
    try:
        uploaded = client.wait_until_inspected(uploaded, timeout=INSPECTION_SECONDS)
    except TimeoutError:
        return  # the worker is busy with other jobs; a rejection will fail the job instead
    if uploaded.error is not None:
        raise SecateurError(
            f"the server rejected {uploaded.name}: {uploaded.error.title}",
            hint=uploaded.error.hint,
        )


def _cancel(client: Secateur, job: Job) -> None:
    """The first Ctrl-C cancels the job, a second one leaves it as it is."""
    err.print(f"\ncanceling {job.id} (Ctrl-C again leaves it running)")
    try:
        job = client.cancel(job)
        if job.status not in TERMINAL:
            job = client.wait(job, timeout=CANCEL_SECONDS)
        err.print(f"{job.id} is {job.status}")
    except (KeyboardInterrupt, TimeoutError):
        err.print(f"{job.id} goes on; `secateur jobs show {job.id}` tells how")


def explain(client: Secateur, job: Job, out_dir: Path) -> None:
    """Say why a job did not succeed, and keep the report if it has one."""
    err.print(f"[bold red]job {job.id} {job.status}[/]")
    if job.error is not None:
        err.print(f"[bold red]error:[/] {escape(job.error.title)} ({escape(job.error.type)})")
        if job.error.where:
            err.print(f"[bold]where:[/] {escape(job.error.where)}")
        if job.error.hint:
            err.print(f"[bold]hint:[/] {escape(job.error.hint)}")
    saved = save_failed_report(client, job, out_dir)
    if saved:
        names = ", ".join(path.name for path in saved)
        err.print(
            f"the result was refused; what was measured is in {escape(str(out_dir))}: {names}"
        )


def _save(client: Secateur, job: Job, out_dir: Path) -> None:
    files = save_results(client, job, out_dir)
    report = Report.model_validate_json((out_dir / "report.json").read_bytes())
    for part in tournaments(report):
        out.print(part)
    out.print(before_after(report))
    out.print(escape(certificate_line(report)))
    out.print(escape(report.verdict.summary))
    for warning in report.verdict.warnings:
        out.print(f"[yellow]warning:[/] {escape(warning)}")
    out.print(f"wrote {escape(str(out_dir))}: {', '.join(path.name for path in files)}")
