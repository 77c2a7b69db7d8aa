"""`secateur jobs`, `models` and `methods`: look at what the server has."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.markup import escape
from rich.table import Table

from secateur.cli.console import byte_size, magnitude, out, print_json
from secateur.cli.scan_tables import print_scans
from secateur.cli.search_tables import print_search
from secateur.cli.tables import before_after, certificate_line, jobs_table, tournaments
from secateur.client import Secateur
from secateur.errors import SecateurError
from secateur.resources import Method, Page

Url = Annotated[
    str | None, typer.Option(help="Server; by default the one running on this machine.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(min=1, help="At most so many, newest first.")]

jobs = typer.Typer(no_args_is_help=True, help="List, show and cancel jobs.")
models = typer.Typer(no_args_is_help=True, help="List and show models.")
methods = typer.Typer(help="List and show what a recipe may say.")


def _dump(item: BaseModel) -> Any:
    return item.model_dump(mode="json", by_alias=True)


def dump_json(items: BaseModel | Sequence[BaseModel]) -> None:
    """Print resources as the API gives them."""
    data = _dump(items) if isinstance(items, BaseModel) else [_dump(item) for item in items]
    print_json(json.dumps(data, indent=2, ensure_ascii=False))


@jobs.command("list")
def list_jobs(
    status: Annotated[str | None, typer.Option(help="Only jobs with this status.")] = None,
    parent: Annotated[str | None, typer.Option(help="The trials of this search.")] = None,
    limit: Limit = 20,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first; the trials of a search with --parent only."""
    with Secateur(url) as client:
        listed = client.jobs(status=status, parent=parent)  # type: ignore[arg-type]
        found = list(itertools.islice(listed, limit))
    if as_json:
        dump_json(found)
    else:
        out.print(jobs_table(found) if found else "no jobs")


@jobs.command("show")
def show_job(job_id: str, url: Url = None, as_json: AsJson = False) -> None:
    """Show one job and, when it has one, the numbers of its report."""
    with Secateur(url) as client:
        job = client.job(job_id)
        if as_json:
            dump_json(job)
            return
        out.print(jobs_table([job]))
        if job.progress is not None:
            out.print(f"{job.progress.current} of {job.progress.total} {job.progress.unit}")
        if job.error is not None:
            out.print(f"[bold red]error:[/] {escape(job.error.title)} ({escape(job.error.type)})")
            out.print(f"where: {escape(job.error.where)}\nhint: {escape(job.error.hint)}")
        for artifact in job.artifacts:
            out.print(f"{artifact.id}  {artifact.name}  {byte_size(artifact.bytes)}")
        if any(artifact.kind == "report_json" for artifact in job.artifacts):
            if job.type == "score":
                print_scans(client.score_report(job))
                return
            if job.type == "search":
                print_search(client.search_report(job))
                return
            report = client.report(job)
            for part in tournaments(report):
                out.print(part)
            out.print(before_after(report))
            out.print(escape(certificate_line(report)))


@jobs.command("cancel")
def cancel_job(job_id: str, url: Url = None, as_json: AsJson = False) -> None:
    """Cancel a job; a finished one stays as it is."""
    with Secateur(url) as client:
        job = client.cancel(job_id)
    if as_json:
        dump_json(job)
    else:
        out.print(f"{job.id} is {job.status}")


@models.command("list")
def list_models(limit: Limit = 20, url: Url = None, as_json: AsJson = False) -> None:
    """List models, newest first."""
    with Secateur(url) as client:
        found = list(itertools.islice(client.models(), limit))
    if as_json:
        dump_json(found)
        return
    table = Table("id", "name", "status", "size", "parameters", "created", box=None)
    table.columns[0].no_wrap = True
    for model in found:
        parameters = magnitude(model.info.parameters) if model.info else ""
        created = f"{model.created_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(
            model.id, model.name, model.status, byte_size(model.bytes), parameters, created
        )
    out.print(table if found else "no models")


@models.command("show")
def show_model(model_id: str, url: Url = None, as_json: AsJson = False) -> None:
    """Show one model: what its forward takes and the layer names for recipes."""
    with Secateur(url) as client:
        model = client.model(model_id)
    if as_json:
        dump_json(model)
        return
    out.print(f"{model.id}  {escape(model.name)}  {model.status}  {byte_size(model.bytes)}")
    if model.error is not None:
        out.print(f"[bold red]error:[/] {escape(model.error.title)}")
        out.print(f"hint: {escape(model.error.hint)}")
    if model.info is not None:
        arguments = ", ".join(f"{a.name}: {a.type}" for a in model.info.arguments)
        out.print(f"forward({escape(arguments)})  {magnitude(model.info.parameters)} parameters")
        out.print("layers: " + escape(", ".join(model.info.layers)))


@methods.callback(invoke_without_command=True)
def catalogue(context: typer.Context, url: Url = None, as_json: AsJson = False) -> None:
    """List every name a recipe may use; `--json` prints what `GET /v1/methods` answers."""
    if context.invoked_subcommand is None:
        _print_catalogue(url, as_json=as_json)
    elif url is not None or as_json:
        raise SecateurError(
            "options stand after the name of the command",
            hint=f"write `secateur methods {context.invoked_subcommand} ... --json`",
        )


@methods.command("list")
def list_methods(url: Url = None, as_json: AsJson = False) -> None:
    """The same, by its own name."""
    _print_catalogue(url, as_json=as_json)


def _print_catalogue(url: str | None, *, as_json: bool) -> None:
    with Secateur(url) as client:
        found = client.methods()
    if as_json:
        dump_json(Page[Method](data=found))
        return
    table = Table("kind", "name", "summary", "data", box=None)
    for method in found:
        table.add_row(method.kind, method.name, escape(method.summary), method.data)
    out.print(table)


@methods.command("show")
def show_method(name: str, url: Url = None, as_json: AsJson = False) -> None:
    """Show one method: formula, source, cost and the schema of its options."""
    with Secateur(url) as client:
        found = [method for method in client.methods() if method.name == name]
    if not found:
        raise SecateurError(
            f"there is no method {name!r}", hint="`secateur methods list` lists them"
        )
    if as_json:
        dump_json(found)
        return
    for method in found:
        out.print(f"[bold]{escape(method.name)}[/] ({method.kind}): {escape(method.summary)}")
        out.print(f"formula: {escape(method.formula)}\nsource: {escape(method.source)}")
        out.print(f"data: {method.data}\ncost: {escape(method.cost)}")
        out.print(escape(json.dumps(method.schema_, indent=2)))
