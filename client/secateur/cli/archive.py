"""`secateur pack` and `secateur unpack`: a TorchScript file in few bytes, and back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from secateur.cli.console import byte_size, out
from secateur.errors import SecateurError

SUFFIX = ".secateur"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_Target = Annotated[
    Path | None, typer.Option("--output", "-o", help="File to write; by default beside FILE.")
]
_Force = Annotated[bool, typer.Option(help="Overwrite the output file.")]


def unpack(
    file: Annotated[Path, typer.Argument(help="Archive, such as model.secateur.")],
    output: _Target = None,
    force: _Force = False,
    limit: Annotated[
        str, typer.Option(help="Largest file to write, such as 500MB or 8GB.")
    ] = "4GB",
) -> None:
    """Unpack the archive FILE to the TorchScript file it was made of.

    The file is written whole and with the SHA-256 that the archive names, or not at all.
    """
    # numpy and zstandard take their time, which other commands need not wait for.
    from secateur.archive import unpack as unpack_archive  # noqa: PLC0415

    target = output or file.with_suffix(".pt")
    size = unpack_archive(file, target, limit=_bytes(limit), overwrite=force)
    _say(target, size, file)


def pack(
    file: Annotated[Path, typer.Argument(help="TorchScript file.")],
    output: _Target = None,
    force: _Force = False,
) -> None:
    """Pack the TorchScript file FILE for download; `secateur unpack` gives it back."""
    from secateur.archive import pack as pack_archive  # noqa: PLC0415

    target = output or file.with_suffix(SUFFIX)
    packed = pack_archive(file, target, overwrite=force)
    _say(target, packed.size, file)


def _say(target: Path, size: int, source: Path) -> None:
    before = byte_size(source.stat().st_size)
    out.print(f"wrote {escape(str(target))}: {byte_size(size)} from {before}")


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)b?", text.strip().lower())
    if found is None:
        raise SecateurError(f"--limit {text} is no size", hint="such as 500MB or 8GB")
    return int(float(found[1]) * _UNITS[found[2]])
