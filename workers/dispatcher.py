"""`python -m workers.dispatcher [--only dispatch|reconcile|deliver]`: pokes go out, lost ones come
back, webhooks are told.

The reconciling part also deletes files that no row names any longer, once an hour.

The dispatcher publishes what the outbox holds and marks it sent afterwards: a crash in between
sends twice, never not at all. A broker that does not answer is asked again with a growing pause;
nothing is lost meanwhile, for the outbox is in the database.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections.abc import Callable

import structlog
from celery import Celery
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy.exc import DBAPIError

from persistence.artifact_store import artifact_store
from persistence.database import Database, database
from persistence.job_queue import Poke, any_unsent, mark_sent, unsent
from persistence.settings import settings
from workers.app import QUEUES, RUN_JOB, app
from workers.blob_sweep import sweep_blobs
from workers.expiry import expire_once
from workers.logs import configure_logs
from workers.reconciler import reconcile_once
from workers.webhooks.courier import Courier, forget_old_deliveries

log = structlog.get_logger()

_BATCH = 100
_LONGEST_PAUSE = 10.0
_SWEEP_SECONDS = 3600.0
_EXPIRE_SECONDS = 60.0


def dispatch_once(database: Database, celery: Celery) -> int:
    """Send one batch of pokes; returns how many were sent.

    Raises:
        BrokerError: the broker does not answer; pokes sent before that are marked.
    """
    with database.session(read_only=True) as session:
        if not any_unsent(session):
            return 0  # idle, which is nearly always: take no write lock
    failure: BrokerError | None = None
    sent: list[Poke] = []
    with database.session() as session:
        for poke in unsent(session, _BATCH):
            try:
                celery.send_task(
                    RUN_JOB,
                    args=(poke.job_id,),
                    queue=QUEUES[poke.queue],
                    retry=True,  # once: a pooled connection may have died with the broker
                    retry_policy={"max_retries": 1, "interval_start": 0},
                )
            except BrokerError as error:
                failure = error
                break
            sent.append(poke)
        if sent:
            mark_sent(session, sent)
    if failure is not None:
        raise failure
    return len(sent)


class Repeated:
    """Something done every `seconds`, with growing pauses while it fails."""

    def __init__(self, name: str, action: Callable[[], object], seconds: float) -> None:
        self._name = name
        self._action = action
        self._seconds = seconds
        self._failures = 0
        self.due_at = time.monotonic()

    def run(self) -> None:
        """Do it, and set the next time."""
        try:
            self._action()
        except (BrokerError, DBAPIError, OSError) as error:
            self._failures += 1
            pause = min(self._seconds * 2**self._failures, max(_LONGEST_PAUSE, self._seconds))
            log.warning(f"{self._name} failed", error=str(error), retry_in_seconds=pause)
            self.due_at = time.monotonic() + pause
        else:
            if self._failures:
                log.info(f"{self._name} works again", failures=self._failures)
            self._failures = 0
            self.due_at = time.monotonic() + self._seconds


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m workers.dispatcher")
    parser.add_argument(
        "--only",
        choices=["dispatch", "reconcile", "deliver"],
        help="do one part; all when left out",
    )
    only = parser.parse_args().only
    configure_logs()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    config, db = settings(), database()
    loop: list[Repeated] = []
    if only in (None, "dispatch"):
        loop.append(Repeated("dispatch", lambda: dispatch_once(db, app), config.dispatch_seconds))
    if only in (None, "reconcile"):
        loop.append(
            Repeated("reconcile", lambda: reconcile_once(db, config), config.reconcile_seconds)
        )
        loop.append(
            Repeated("expire", lambda: expire_once(db, artifact_store(), config), _EXPIRE_SECONDS)
        )
        loop.append(Repeated("sweep", lambda: sweep_blobs(db, artifact_store()), _SWEEP_SECONDS))
        loop.append(
            Repeated("forget deliveries", lambda: forget_old_deliveries(db, config), _SWEEP_SECONDS)
        )
    courier = Courier(db, config) if only in (None, "deliver") else None
    if courier is not None:
        courier.start()
    log.info("dispatcher ready", only=only)
    while not stop.is_set():
        now = time.monotonic()
        for task in loop:
            if task.due_at <= now:
                task.run()
        pause = min((task.due_at for task in loop), default=now + 60) - time.monotonic()
        stop.wait(max(pause, 0.01))
    if courier is not None:
        courier.stop()
    db.dispose()


if __name__ == "__main__":
    main()
