"""One job from claim to end, around a runner process.

claim, copy the inputs, start the runner, write down what it says while a lease is kept, stop it
when it must stop, store what it made, and end the job in one fenced transaction. A supervisor
that lost its lease kills its runner and writes nothing.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import structlog
from sqlalchemy.exc import OperationalError

from persistence import blobs
from persistence.artifact_store import ArtifactStore, StoredBlob, StoreUnavailable, store_file
from persistence.database import Database
from persistence.job_queue import (
    Claim,
    add_artifact,
    claim_next,
    finish,
    poke_again,
    queue_of,
    release,
)
from persistence.settings import Settings
from workers import endings
from workers.bounds import bounds
from workers.draining import Drain
from workers.endings import Ending
from workers.inputs import NotStarted, prepare
from workers.instructions import Instructions
from workers.lease import LeaseKeeper
from workers.messages import Malformed, Produced
from workers.recording import Recorder
from workers.room import disk_is_full, lacks_room, room_as_outage
from workers.run_clock import RunClock
from workers.runner_process import RUNNER, RunnerProcess, runner_environment
from workers.sandbox.choice import Containment, contain
from workers.sandbox.launch import NotContained
from workers.scratch import NotAnArtifact, Scratch, scratch_folder, sweep
from workers.search.coordinator import advance
from workers.store_outage import patiently
from workers.usage import UsageWatch

log = structlog.get_logger()

Outcome = Literal[
    "succeeded",
    "failed",
    "canceled",
    "expired",
    "released",
    "lost",
    "not claimed",
    "search advanced",
]

_LISTEN_SECONDS = 0.1
_DRAIN_PIPES_SECONDS = 5.0
_RETRY_SECONDS = 0.5
_OF_FULL_DISKS = (-signal.SIGABRT, -signal.SIGBUS)
"""How a runner ends whose libraries write to a full disk: given up, or at a page that is not."""


@dataclass
class Supervisor:
    """Runs jobs on this worker, one `run` at a time per thread.

    Attributes:
        owner: name of the worker, unique among living ones.
        database: where the job is.
        store: where files are.
        settings: lease, limits, device.
        drain: the worker's wish to stop.
        command: the runner's command line; tests put misbehaving ones here.
        grace_seconds: time between SIGTERM and SIGKILL.
        containment: of runners; the best that the settings and the machine allow when left out.
    """

    owner: str
    database: Database
    store: ArtifactStore
    settings: Settings
    drain: Drain = field(default_factory=Drain)
    command: Sequence[str] = RUNNER
    grace_seconds: float = 3.0
    containment: Containment | None = None

    def run(self, job_id: str) -> Outcome:
        """Heed a poke: run the job whose turn it is in the queue of the job it names, and return
        how the attempt ended. If it names a search, that is carried on by as many steps as can be
        taken now."""
        if self.drain.requested:
            with self.database.session() as session:
                poke_again(session, job_id)  # this worker took the poke and will not use it
            return "not claimed"
        with self.database.session(read_only=True) as session:
            queue = queue_of(session, job_id)
        if queue is None:
            step = advance(self.database, self.store, job_id)
            return "not claimed" if step == "not a search" else "search advanced"
        with self.database.session() as session:
            held = claim_next(session, queue, self.owner, self.settings.lease_seconds)
        if held is None:
            return "not claimed"
        job_id, clock = held.job_id, RunClock(held, self.settings.max_job_seconds)
        log.info("job claimed", job=job_id, attempt=held.attempt)
        # a worker beside this one may have been killed, and none may start here for long
        sweep(self.settings.resolved_scratch_dir)
        with ExitStack() as stack:
            lease = stack.enter_context(
                LeaseKeeper(
                    self.database,
                    held,
                    lease_seconds=self.settings.lease_seconds,
                    heartbeat_seconds=self.settings.heartbeat_seconds,
                )
            )
            try:
                scratch = stack.enter_context(
                    scratch_folder(self.settings.resolved_scratch_dir, f"{job_id}.{held.attempt}")
                )
                recorder = Recorder(self.database, self.store, held, scratch)
                ending = self._attempt(clock, lease, scratch, recorder)
                outcome = self._conclude(held, lease, scratch, recorder, ending)
            except OperationalError as error:
                # the database restarted, say; nothing is wrong with the job
                log.warning("attempt given up", job=job_id, error=str(error))
                return self._end(held, lease, None, endings.RELEASED, [])
            except Exception as error:
                if isinstance(error, OSError) and lacks_room(error):
                    log.warning("attempt given up: the disk is full", job=job_id)
                    time.sleep(_RETRY_SECONDS)  # this worker may claim it again at once
                    return self._end(held, lease, None, endings.NO_ROOM, [])
                # the job must not wait for its lease to expire because of a fault in this code
                log.exception("supervisor failed", job=job_id)
                self._end(held, lease, None, endings.INTERNAL, [])
                raise
        log.info("job ended", job=job_id, attempt=held.attempt, outcome=outcome)
        return outcome

    def _attempt(
        self, clock: RunClock, lease: LeaseKeeper, scratch: Scratch, recorder: Recorder
    ) -> Ending:
        def stop() -> Ending | None:
            return self._reason_to_stop(lease, clock)

        try:
            instructions = self._prepare(clock.held, scratch, stop)
        except NotStarted as fault:
            return fault.ending
        early = stop()
        environment = runner_environment(
            scratch, threads=instructions.threads, cuda_device=self.settings.gpu_device
        )
        level = (self.containment or contain(self.settings.sandbox)).level
        limited = bounds(self.settings, instructions, level)
        early = early or endings.lacking(level, loopback=limited.loopback)
        if early is not None:
            return early
        with RunnerProcess(scratch, environment, limited, self.command) as runner:
            on_cpu = instructions.device == "cpu"
            usage = UsageWatch(self.settings, runner.pid, scratch.root, on_cpu=on_cpu)
            try:
                ending = self._watch(runner, lease, recorder, (clock, usage))
                if ending is endings.LOST:
                    return ending
                if ending is not None:
                    runner.terminate(self.grace_seconds)
                if not self._hear_the_rest(runner, recorder):
                    return endings.LOST
            except (Malformed, NotAnArtifact) as fault:
                return endings.misbehaved(str(fault))
            return ending or self._end_of(runner, recorder, scratch)

    @staticmethod
    def _end_of(runner: RunnerProcess, recorder: Recorder, scratch: Scratch) -> Ending:
        """What an ended runner's status and words amount to."""
        try:
            code = runner.exit_code()
        except NotContained as fault:
            return endings.not_contained(str(fault))
        if code in _OF_FULL_DISKS and disk_is_full(scratch.root):
            return endings.DISK_FULL
        return endings.from_exit(code, recorder.result, recorder.failure)

    def _prepare(
        self, held: Claim, scratch: Scratch, stop: Callable[[], Ending | None]
    ) -> Instructions:
        """The inputs in the scratch folder, waited for while the store is away."""

        def action() -> Instructions:
            with room_as_outage("the disk of running jobs is full"):
                return prepare(self.database, self.store, self.settings, held, scratch, stop=stop)

        try:
            return patiently(action, lambda: stop() is not None)
        except StoreUnavailable as error:
            raise NotStarted(stop() or endings.STORE_AWAY) from error

    def _watch(
        self,
        runner: RunnerProcess,
        lease: LeaseKeeper,
        recorder: Recorder,
        limits: tuple[RunClock, UsageWatch],
    ) -> Ending | None:
        """Listen until the runner ended by itself (None) or must be stopped."""
        while not runner.poll_end():
            stop = self._reason_to_stop(lease, limits[0]) or limits[1].excess()
            if stop is not None:
                return stop
            if not self._hear(runner, recorder):
                return endings.LOST
        return None

    def _hear_the_rest(self, runner: RunnerProcess, recorder: Recorder) -> bool:
        """Take what the pipes still hold; False when the claim is stale."""
        deadline = time.monotonic() + _DRAIN_PIPES_SECONDS
        while not runner.silent and time.monotonic() < deadline:
            if not self._hear(runner, recorder):
                return False
        return recorder.flush(last=True)

    def _reason_to_stop(self, lease: LeaseKeeper, clock: RunClock) -> Ending | None:
        if lease.lost:
            return endings.LOST
        if lease.canceling:
            return endings.CANCELED
        if self.drain.over:
            return endings.RELEASED
        return clock.over()

    @staticmethod
    def _hear(runner: RunnerProcess, recorder: Recorder) -> bool:
        if recorder.full:
            time.sleep(_LISTEN_SECONDS)  # the database does not answer; the runner waits as well
        else:
            heard = runner.listen(_LISTEN_SECONDS)
            recorder.take(heard.messages, heard.log)
        return recorder.flush() if recorder.due else True

    def _conclude(
        self,
        held: Claim,
        lease: LeaseKeeper,
        scratch: Scratch,
        recorder: Recorder,
        ending: Ending,
    ) -> Outcome:
        kept: list[tuple[Produced, StoredBlob]] = []
        if ending.keeps_artifacts and not lease.lost:
            try:
                for produced in recorder.produced.values():
                    blob = patiently(
                        partial(self._store, scratch, produced.path),
                        partial(self._must_not_wait, lease),
                    )
                    kept.append((produced, blob))
            except NotAnArtifact as fault:
                kept, ending = [], endings.misbehaved(str(fault))
            except StoreUnavailable:
                kept, ending = [], endings.STORE_AWAY
        outcome = self._end(held, lease, recorder, ending, kept)
        if outcome in ("succeeded", "failed", "canceled", "expired"):
            recorder.remove_checkpoints()
        return outcome

    def _store(self, scratch: Scratch, path: str) -> StoredBlob:
        with scratch.open_produced(path) as source:
            return store_file(self.store, source)

    def _must_not_wait(self, lease: LeaseKeeper) -> bool:
        return lease.lost or lease.canceling or self.drain.over

    def _end(
        self,
        held: Claim,
        lease: LeaseKeeper,
        recorder: Recorder | None,
        ending: Ending,
        kept: list[tuple[Produced, StoredBlob]],
    ) -> Outcome:
        """Write the end, again and again until the database answers or the lease is gone."""
        while ending.outcome != "lost" and not lease.lost:
            if recorder is not None and not recorder.flush():
                break
            try:
                if self._write_end(held, ending, kept):
                    return ending.outcome
                break
            except (OperationalError, StoreUnavailable) as error:
                log.warning("end not written yet", job=held.job_id, error=str(error))
                time.sleep(_RETRY_SECONDS)
        log.warning("lease lost; nothing written", job=held.job_id, attempt=held.attempt)
        return "lost"

    def _write_end(
        self, held: Claim, ending: Ending, kept: list[tuple[Produced, StoredBlob]]
    ) -> bool:
        with self.database.session() as session:
            # in one order everywhere, so that two jobs with the same files cannot deadlock
            for produced, blob in sorted(kept, key=lambda pair: pair[1].sha256):
                blobs.lock(session, blob.sha256)
                if not self.store.exists(blob.sha256):
                    # between storing it and this lock somebody deleted a row with the same bytes
                    raise FileNotFoundError(f"{produced.path} left the artifact store again")
                add_artifact(
                    session,
                    held,
                    kind=produced.artifact,
                    name=produced.path.rpartition("/")[2],
                    media_type=produced.media_type,
                    blob=blob,
                )
            match ending.outcome:
                case "released":
                    return release(session, held, ending.reason)
                case "succeeded" | "failed" | "canceled" | "expired" as status:
                    return finish(session, held, status, error=ending.error, result=ending.result)
                case _:
                    return False
