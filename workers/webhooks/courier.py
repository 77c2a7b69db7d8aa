"""The courier: takes what is due, sends it side by side, notes the results, and waits."""

from __future__ import annotations

import asyncio
import random
import threading
from datetime import timedelta

import httpx
import structlog
from sqlalchemy.exc import DBAPIError

from persistence.database import Database
from persistence.job_queue import database_time
from persistence.settings import Settings
from persistence.webhooks import deliveries
from persistence.webhooks.addresses import Network, networks
from persistence.webhooks.deliveries import Due
from workers.webhooks.sending import send, sender

log = structlog.get_logger()

_BATCH = 50
_HOLD_MARGIN_SECONDS = 30.0
_FAILED_PAUSE_SECONDS = 5.0


def deliver_due(database: Database, settings: Settings) -> int:
    """Send one batch of due deliveries; returns how many were tried."""
    with database.session(read_only=True) as session:
        if not deliveries.any_due(session, database_time(session)):
            return 0  # idle, which is nearly always: take no write lock
    timeout = settings.webhook_timeout_seconds
    with database.session() as session:
        batch = deliveries.take_due(
            session,
            database_time(session),
            limit=_BATCH,
            hold_seconds=timeout + _HOLD_MARGIN_SECONDS,
        )
    if batch:
        asyncio.run(_deliver(database, settings, batch))
    return len(batch)


async def _deliver(database: Database, settings: Settings, batch: list[Due]) -> None:
    allowed = networks(settings.webhook_allowed_networks)
    timeout = settings.webhook_timeout_seconds
    async with sender(timeout, settings.webhook_ca_file) as client:
        await asyncio.gather(*(_one(database, client, due, allowed, timeout) for due in batch))


async def _one(
    database: Database,
    client: httpx.AsyncClient,
    due: Due,
    allowed: tuple[Network, ...],
    timeout: float,
) -> None:
    attempt = await send(client, due, allowed=allowed, timeout_seconds=timeout)
    if attempt.error:
        log.info("webhook not delivered", delivery=due.id, webhook=due.webhook_id)
    await asyncio.to_thread(_note, database, due.id, attempt)


def _note(database: Database, delivery_id: str, attempt: deliveries.Attempt) -> None:
    with database.session() as session:
        deliveries.note_attempt(
            session,
            delivery_id,
            attempt,
            database_time(session),
            jitter=random.random(),  # noqa: S311 - spreads load, keeps no secret
        )


def forget_old_deliveries(database: Database, settings: Settings) -> int:
    """Drop settled deliveries that are older than the settings keep them."""
    with database.session() as session:
        before = database_time(session) - timedelta(days=settings.webhook_log_days)
        return deliveries.forget_old(session, before)


class Courier(threading.Thread):
    """Delivers in a thread of its own: a slow receiver must not keep pokes from the broker."""

    def __init__(self, database: Database, settings: Settings) -> None:
        super().__init__(name="webhook courier", daemon=True)
        self._database = database
        self._settings = settings
        self._stopping = threading.Event()

    def run(self) -> None:
        """Deliver until `stop`."""
        while not self._stopping.is_set():
            try:
                busy = deliver_due(self._database, self._settings) == _BATCH
            except DBAPIError as error:
                log.warning("webhooks not delivered", error=str(error))
                self._stopping.wait(_FAILED_PAUSE_SECONDS)
                continue
            if not busy:
                self._stopping.wait(self._settings.webhook_poll_seconds)

    def stop(self) -> None:
        """Take no further batch, and wait for the one under way."""
        self._stopping.set()
        self.join(self._settings.webhook_timeout_seconds + _HOLD_MARGIN_SECONDS)
