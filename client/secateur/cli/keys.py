"""`secateur keys`: make, list, rotate and revoke API keys."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from secateur.cli.console import err, out
from secateur.cli.lists import AsJson, Limit, Url, dump_json
from secateur.client import Secateur
from secateur.resources import ApiKey

keys = typer.Typer(no_args_is_help=True, help="Make, list, rotate and revoke API keys.")


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What it is called in lists.")] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="read, write or admin; may be given several times. Yours when left out."),
    ] = None,
    days: Annotated[
        float | None, typer.Option(min=0.001, help="How long it lives; for ever when left out.")
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print its secret, which is not shown again."""
    end = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with Secateur(url) as client:
        made = client.keys.create(
            name,
            scopes=scope,  # type: ignore[arg-type]  # the server knows the scopes
            expires_at=end,
        )
    _show_secret(made, as_json=as_json)


@keys.command("list")
def list_keys(limit: Limit = 20, url: Url = None, as_json: AsJson = False) -> None:
    """List keys, newest first, without their secrets."""
    with Secateur(url) as client:
        found = list(itertools.islice(client.keys.list(), limit))
    if as_json:
        dump_json(found)
        return
    table = Table("id", "name", "begins with", "scopes", "state", box=None)
    table.columns[0].no_wrap = True
    for key in found:
        table.add_row(key.id, escape(key.name), key.prefix, ", ".join(key.scopes), _state(key))
    out.print(table if found else "no keys")


@keys.command("rotate")
def rotate_key(
    key_id: str,
    grace_seconds: Annotated[
        int, typer.Option(min=0, help="How long the old secret still opens.")
    ] = 86_400,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Make a key in place of this one and print its secret, which is not shown again."""
    with Secateur(url) as client:
        made = client.keys.rotate(key_id, grace_seconds=grace_seconds)
    _show_secret(made, as_json=as_json)


@keys.command("revoke")
def revoke_key(
    key_id: str,
    force: Annotated[
        bool, typer.Option("--force", help="Even if it is the last that can manage keys.")
    ] = False,
    url: Url = None,
) -> None:
    """Revoke a key: it opens nothing any more."""
    with Secateur(url) as client:
        client.keys.revoke(key_id, force=force)
    out.print(f"{key_id} is revoked")


def _show_secret(key: ApiKey, *, as_json: bool) -> None:
    if as_json:
        dump_json(key)
        return
    err.print(f"{key.id} may {', '.join(key.scopes)}; its secret, shown this once:")
    out.print(key.secret, soft_wrap=True)  # one line, however narrow the terminal


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d %H:%M}"
    if key.expires_at is not None:
        ends = "expired" if key.expires_at <= datetime.now(UTC) else "until"
        return f"{ends} {key.expires_at:%Y-%m-%d %H:%M}"
    return "open"
