"""`secateur upload`, and how any upload is shown: what goes on, what was there already, and how to
go on after an interruption."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from secateur import part_upload
from secateur.cli.console import byte_size, err, out, print_json
from secateur.cli.progress import ProgressDisplay
from secateur.client import Secateur
from secateur.errors import SecateurError, ServerUnreachable
from secateur.resources import Dataset, Model, UploadKind

R = TypeVar("R", bound=Model | Dataset)
AGAIN = "the same command sends what is missing of {name}"


def shown_upload(display: ProgressDisplay, file: Path, send: Callable[..., R]) -> R:
    """Upload a file and show how far it is.

    Args:
        display: where.
        file: what.
        send: `upload_model` or `upload_dataset` of a client.
    """
    display.start(f"uploading {file.name}")

    def resumed(here: int, parts: int) -> None:
        display.done(f"going on with {file.name}: {here} of {parts} parts are there")
        display.start(f"uploading {file.name}")

    try:
        return send(file, progress=display.bytes, resumed=resumed)
    except KeyboardInterrupt:
        if _in_parts(file):
            err.print(AGAIN.format(name=file.name))
        raise
    except ServerUnreachable as error:
        if _in_parts(file):
            raise ServerUnreachable(
                error.title, hint=f"{error.hint}; {AGAIN.format(name=file.name)}"
            ) from error
        raise


def _in_parts(file: Path) -> bool:
    return file.stat().st_size > part_upload.IN_PARTS_ABOVE


def upload(
    file: Annotated[Path, typer.Argument(help="TorchScript file or dataset.")],
    kind: Annotated[
        str | None,
        typer.Option(help="`model` or `dataset`; by default .pt, .pth and .ts are models."),
    ] = None,
    name: Annotated[str, typer.Option(help="A name for people; the file's by default.")] = "",
    url: Annotated[
        str | None, typer.Option(help="Server; by default the one running on this machine.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Upload FILE and print its id.

    A large file goes in parts, several at once. Interrupted and started again, the command sends
    what is missing.
    """
    wanted = _kind(file, kind)
    with Secateur(url) as client, ProgressDisplay(err) as display:
        send = client.upload_model if wanted == "model" else client.upload_dataset
        made: Model | Dataset = shown_upload(
            display, file, lambda path, **shown: send(path, name=name, **shown)
        )
        display.done(f"uploaded {file.name}: {byte_size(made.bytes)}")
    if as_json:
        print_json(json.dumps(made.model_dump(mode="json"), indent=2, ensure_ascii=False))
    else:
        out.print(made.id)


def _kind(file: Path, given: str | None) -> UploadKind:
    if given in ("model", None) and (given or file.suffix in (".pt", ".pth", ".ts")):
        return "model"
    if given in ("dataset", None):
        return "dataset"
    raise SecateurError(f"--kind {given} is neither", hint="say `model` or `dataset`")
