"""What the command line prints: results on stdout, everything else on stderr.

On a terminal there are colours and bars; in a pipe or a log there is one plain line per step.
"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape

from secateur.errors import SecateurError

UNLIMITED = 1000
"""Columns where nobody looks at a terminal: a table in a pipe must not be cut."""


def console(*, stderr: bool = False) -> Console:
    """A console that never cuts or wraps what it prints into a pipe."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else UNLIMITED
    return Console(stderr=stderr, soft_wrap=True, highlight=False, width=width)


out = console()
err = console(stderr=True)


def print_error(error: SecateurError) -> None:
    """An error for a person: what is wrong, then what to do."""
    text = str(error)
    if error.hint and error.hint in text:
        text = text.replace(error.hint, "").rstrip()
    err.print(f"[bold red]error:[/] {escape(text)}")
    if error.hint:
        err.print(f"[bold]hint:[/] {escape(error.hint)}")


def print_json(text: str) -> None:
    """JSON on stdout, exactly as given."""
    sys.stdout.write(text + "\n")


def byte_size(count: int) -> str:
    """Bytes as a person reads them."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def magnitude(count: int) -> str:
    """A large count as a person reads it: `61,706`, `4.1 M`, `1.8 G`."""
    if count < 1_000_000:
        return f"{count:,}"
    return f"{count / 1e6:.1f} M" if count < 1_000_000_000 else f"{count / 1e9:.2f} G"
