"""From the runner's messages to the database, in batches and in bounds.

A runner may say as much as it likes; what is kept of one attempt is limited, and the history says
where it was cut. Checkpoints are stored no more often than takes a tenth of the time: the newest
waits, and an attempt that ends without a result stores it at its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from persistence import blobs
from persistence.artifact_store import ArtifactStore, StoredBlob, StoreUnavailable, store_file
from persistence.database import Database
from persistence.job_queue import (
    Claim,
    add_artifact,
    append_event,
    append_log,
    append_metric,
    finish_stage,
    holds,
    set_progress,
    start_stage,
)
from workers.blob_sweep import remove_if_unneeded
from workers.messages import (
    AnyMessage,
    Checkpoint,
    Failure,
    Log,
    Metric,
    Produced,
    Progress,
    Result,
    StageFinished,
    StageStarted,
    TrainingState,
    storable_text,
)
from workers.scratch import Scratch

log = structlog.get_logger()

MAX_EVENTS = 20_000
MAX_METRICS = 100_000
MAX_LOG_CHARACTERS = 4 << 20
FLUSH_SECONDS = 0.25
FLUSH_WRITES = 500
_PROGRESS_EVENT_SECONDS = 1.0
_CHECKPOINT_SECONDS = 1.0
_CHECKPOINT_SHARE = 0.1

Write = Callable[[Session], bool]


class Recorder:
    """Keeps what one attempt says.

    Attributes:
        result: short result, once the runner sent it.
        failure: what went wrong, once the runner said it.
        produced: finished files, the last of each kind.
    """

    def __init__(
        self, database: Database, store: ArtifactStore, held: Claim, scratch: Scratch
    ) -> None:
        self._database = database
        self._store = store
        self._held = held
        self._scratch = scratch
        self._pending: list[Write] = []
        self._text: list[str] = []
        self._checkpoints: dict[str, list[str]] = {"checkpoint": [], "training_state": []}
        self._progress: Progress | None = None
        self._waiting: dict[str, str] = {}
        self._next_checkpoint = float("-inf")
        self._room = {"event": MAX_EVENTS, "metric": MAX_METRICS, "log": MAX_LOG_CHARACTERS}
        self._flushed = time.monotonic()
        self._progress_told = float("-inf")
        self.result: dict[str, Any] | None = None
        self.failure: Failure | None = None
        self.produced: dict[str, Produced] = {}

    @property
    def due(self) -> bool:
        """Whether it is time to flush."""
        return (
            len(self._pending) >= FLUSH_WRITES or time.monotonic() - self._flushed >= FLUSH_SECONDS
        )

    @property
    def full(self) -> bool:
        """Whether nothing more should be read before a flush succeeded."""
        return len(self._pending) >= 2 * FLUSH_WRITES

    def take(self, messages: list[AnyMessage], text: str = "") -> None:
        """Note messages and log text; written by the next flush."""
        held = self._held
        for message in messages:
            match message:
                case StageStarted(index=index, name=name):
                    self._settle_progress()
                    self._add("event", lambda s, i=index, n=name: start_stage(s, held, i, n))
                case StageFinished(index=index, name=name, measurement=measurement):
                    self._settle_progress()
                    data = None if measurement is None else measurement.model_dump(mode="json")
                    self._add(
                        "event", lambda s, i=index, n=name, m=data: finish_stage(s, held, i, n, m)
                    )
                case Progress():
                    self._progress = message
                case Metric():
                    values = message.model_dump(exclude={"kind"})
                    self._add("metric", lambda s, v=values: append_metric(s, held, **v))
                case Log(message=remark, data=data):
                    event = {"message": remark, "data": data}
                    self._add("event", lambda s, e=event: append_event(s, held, "log", e))
                case Checkpoint(path=path):
                    # it goes further than any training state before it
                    self._waiting = {"checkpoint": path}
                case TrainingState(path=path):
                    self._waiting["training_state"] = path
                case Produced(artifact=kind):
                    self.produced[kind] = message
                case Result(result=result):
                    self.result = result
                case Failure():
                    self.failure = message
        if text:
            self._take_text(storable_text(text))

    def flush(self, *, last: bool = False) -> bool:
        """Write what was noted, in one transaction.

        Args:
            last: the runner has ended, and will not say more.

        Returns:
            False when the claim is stale; nothing was written. When the database does not answer
            the notes are kept for the next flush.
        """
        self._flushed = time.monotonic()
        if self._text:
            text = "".join(self._text)
            self._text = []
            self._pending.append(lambda s: append_log(s, self._held, text))
        self._settle_progress()
        if time.monotonic() >= self._next_checkpoint or (last and self.result is None):
            self._store_checkpoint()
        if not self._pending:
            return True
        try:
            with self._database.session() as session:
                written = self.write(session)
        except OperationalError as error:
            log.warning("events not written yet", job=self._held.job_id, error=str(error))
            return True
        self._pending = []
        self._remove_replaced_checkpoints()
        return written

    def remove_checkpoints(self) -> None:
        """Remove the files of checkpoints unless a job still has them."""
        self._remove({one for stored in self._checkpoints.values() for one in stored})

    def write(self, session: Session) -> bool:
        """Write what is pending in the caller's transaction; False when the claim is stale."""
        return all(write(session) for write in self._pending)

    def _add(self, budget: str, write: Any) -> None:
        self._room[budget] -= 1
        if self._room[budget] >= 0:
            self._pending.append(write)
        elif self._room[budget] == -1:
            self._tell_cut(f"too many {budget}s: the rest is not kept")

    def _tell_cut(self, message: str) -> None:
        self._pending.append(lambda s: self._remark(s, message))

    def _take_text(self, text: str) -> None:
        room = self._room["log"]
        self._room["log"] = room - len(text)
        if room > 0:
            self._text.append(text[:room])
            if len(text) > room:
                self._text.append("\n[the log is too long: the rest is not kept]\n")

    def _settle_progress(self) -> None:
        """Only the last of several progress messages matters; a few become events."""
        if self._progress is None:
            return
        progress = self._progress.model_dump(exclude={"kind"})
        self._progress = None
        now = time.monotonic()
        event = now - self._progress_told >= _PROGRESS_EVENT_SECONDS and self._room["event"] > 0
        if event:
            self._progress_told = now
            self._room["event"] -= 1
        self._pending.append(lambda s: set_progress(s, self._held, progress, event=event))

    def _store_checkpoint(self) -> None:
        """Of several checkpoints since the last time the newest is stored."""
        if not self._waiting:
            return
        began = time.monotonic()
        for kind in list(self._waiting):
            path = self._waiting.pop(kind)
            with self._scratch.open_produced(path) as source:
                try:
                    blob = store_file(self._store, source)
                except OSError as error:
                    self._tell_not_stored(error)
                    self._waiting = {kind: path, **self._waiting}  # tried again when one is due
                    break
            self._pending.append(partial(self._attach_checkpoint, kind=kind, blob=blob))
        now = time.monotonic()
        self._next_checkpoint = now + max(_CHECKPOINT_SECONDS, (now - began) / _CHECKPOINT_SHARE)

    def _tell_not_stored(self, error: OSError) -> None:
        log.warning("checkpoint not stored", job=self._held.job_id, error=str(error))
        remark = (
            f"a checkpoint could not be stored ({error.strerror or type(error).__name__}); the job "
            "goes on, and would resume from the last one that was"
        )
        self._add("event", lambda s: self._remark(s, remark))

    def _remark(self, session: Session, message: str) -> bool:
        return append_event(session, self._held, "log", {"message": message, "data": {}})

    def _attach_checkpoint(self, session: Session, *, kind: str, blob: StoredBlob) -> bool:
        blobs.lock(session, blob.sha256)
        try:
            there = self._store.exists(blob.sha256)
        except StoreUnavailable:
            there = False
        if not there:
            return holds(session, self._held)  # deleted as unneeded meanwhile; the next one counts
        attached = add_artifact(
            session,
            self._held,
            kind=kind,
            name=kind,
            media_type="application/octet-stream",
            blob=blob,
        )
        if attached:
            self._checkpoints[kind].append(blob.sha256)
        return attached

    def _remove_replaced_checkpoints(self) -> None:
        kept = {stored[-1] for stored in self._checkpoints.values() if stored}
        self._remove({one for stored in self._checkpoints.values() for one in stored} - kept)
        self._checkpoints = {kind: stored[-1:] for kind, stored in self._checkpoints.items()}

    def _remove(self, blobs_unneeded: set[str]) -> None:
        for sha256 in blobs_unneeded:
            try:
                remove_if_unneeded(self._database, self._store, sha256, min_age_seconds=0)
            except (OperationalError, OSError) as error:  # no reason to harm the job
                log.warning("left to the sweep", sha256=sha256, error=str(error))
