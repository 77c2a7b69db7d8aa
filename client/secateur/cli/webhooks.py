"""`secateur webhooks`: have the server tell a URL when jobs end."""

from __future__ import annotations

import itertools
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from secateur.cli.console import err, out
from secateur.cli.lists import AsJson, Limit, Url, dump_json
from secateur.client import Secateur

webhooks = typer.Typer(no_args_is_help=True, help="Make, try, list and delete webhooks.")


@webhooks.command("create")
def create_webhook(
    receiver: Annotated[str, typer.Argument(help="Where messages go: https://...")],
    event: Annotated[
        list[str] | None, typer.Option(help="Only this type; may be given several times.")
    ] = None,
    description: str = "",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Make a webhook and print its secret, which is not shown again."""
    with Secateur(url) as client:
        made = client.webhooks.create(
            receiver,
            event_types=event or [],  # type: ignore[arg-type]  # the server knows the types
            description=description,
        )
    if as_json:
        dump_json(made)
        return
    err.print(f"{made.id} tells {escape(made.url)}; its secret, shown this once:")
    out.print(made.secret)


@webhooks.command("list")
def list_webhooks(limit: Limit = 20, url: Url = None, as_json: AsJson = False) -> None:
    """List webhooks, newest first."""
    with Secateur(url) as client:
        found = list(itertools.islice(client.webhooks.list(), limit))
    if as_json:
        dump_json(found)
        return
    table = Table("id", "state", "events", "url", "failing since", box=None)
    table.columns[0].no_wrap = True
    for hook in found:
        failing = f"{hook.failing_since:%Y-%m-%d %H:%M:%S}" if hook.failing_since else ""
        events = ", ".join(hook.event_types) or "all"
        table.add_row(hook.id, "on" if hook.enabled else "off", events, escape(hook.url), failing)
    out.print(table if found else "no webhooks")


@webhooks.command("delete")
def delete_webhook(webhook_id: str, url: Url = None) -> None:
    """Delete a webhook; it is told nothing more."""
    with Secateur(url) as client:
        client.webhooks.delete(webhook_id)
    out.print(f"{webhook_id} is deleted")


@webhooks.command("test")
def send_test(webhook_id: str, url: Url = None, as_json: AsJson = False) -> None:
    """Have a test message sent."""
    with Secateur(url) as client:
        sent = client.webhooks.test(webhook_id)
    if as_json:
        dump_json(sent)
    else:
        out.print(f"{sent.id} is {sent.status}; see `secateur webhooks deliveries {webhook_id}`")


@webhooks.command("deliveries")
def list_deliveries(
    webhook_id: str,
    status: Annotated[str | None, typer.Option(help="pending, delivered or failed")] = None,
    limit: Limit = 20,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the messages of a webhook, newest first, and what came of them."""
    with Secateur(url) as client:
        found = list(itertools.islice(client.webhooks.deliveries(webhook_id, status=status), limit))
    if as_json:
        dump_json(found)
        return
    table = Table("id", "event", "status", "attempts", "last answer", box=None)
    table.columns[0].no_wrap = True
    for message in found:
        last = message.attempts[-1] if message.attempts else None
        answer = "" if last is None else last.error or str(last.status_code)
        count = str(len(message.attempts))
        table.add_row(message.id, message.event_type, message.status, count, escape(answer))
    out.print(table if found else "no messages")


@webhooks.command("redeliver")
def redeliver(webhook_id: str, delivery_id: str, url: Url = None, as_json: AsJson = False) -> None:
    """Send a message again."""
    with Secateur(url) as client:
        sent = client.webhooks.redeliver(webhook_id, delivery_id)
    if as_json:
        dump_json(sent)
    else:
        out.print(f"{sent.id} is {sent.status}")


@webhooks.command("rotate")
def rotate_secret(
    webhook_id: str,
    grace_seconds: Annotated[
        int, typer.Option(min=0, help="How long the old secret signs as well.")
    ] = 86_400,
    url: Url = None,
) -> None:
    """Replace the secret and print the new one, which is not shown again."""
    with Secateur(url) as client:
        rotated = client.webhooks.rotate_secret(webhook_id, grace_seconds=grace_seconds)
    out.print(rotated.secret)
