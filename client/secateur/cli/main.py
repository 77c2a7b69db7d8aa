"""The commands put together, and the one place where errors become exit codes.

Exit codes: 0 success; 1 the job did not succeed; 2 wrong usage or a wrong recipe; 3 the server
refused or cannot be reached; 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Any

import typer

from secateur.cli.archive import pack, unpack
from secateur.cli.compress import compress
from secateur.cli.console import err, print_error
from secateur.cli.keys import keys
from secateur.cli.lists import jobs, methods, models
from secateur.cli.retry import retry
from secateur.cli.score import score
from secateur.cli.search import search
from secateur.cli.serve import serve
from secateur.cli.uploads import upload
from secateur.cli.webhooks import webhooks
from secateur.errors import (
    ApiError,
    DownloadCorrupt,
    SecateurError,
    ServerNotFound,
    ServerUnreachable,
    UnexpectedAnswer,
)

USAGE = 2
SERVER = 3
INTERRUPTED = 130


class App(typer.Typer):
    """A typer application that reports the SDK's errors instead of tracing them."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line; leaves with one of the exit codes above."""
        try:
            return super().__call__(*args, **kwargs)
        except (
            ApiError,
            ServerNotFound,
            ServerUnreachable,
            UnexpectedAnswer,
            DownloadCorrupt,
        ) as error:
            print_error(error)
            sys.exit(SERVER)
        except SecateurError as error:
            print_error(error)
            sys.exit(USAGE)
        except KeyboardInterrupt:
            err.print("interrupted")
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(0)


app = App(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make a TorchScript model physically smaller, with a report that proves it.",
)
app.command()(serve)
app.command()(compress)
app.command()(upload)
app.command()(score)
app.command()(search)
app.command()(retry)
app.command()(pack)
app.command()(unpack)
app.add_typer(jobs, name="jobs")
app.add_typer(models, name="models")
app.add_typer(methods, name="methods")
app.add_typer(webhooks, name="webhooks")
app.add_typer(keys, name="keys")
