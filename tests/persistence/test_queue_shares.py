"""The counts of waiting and running jobs are those of the jobs, whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import update
from structlog.testing import CapturingLogger

from persistence.identifiers import new_id
from persistence.job_queue import (
    Claim,
    claim,
    claim_next,
    database_time,
    finish,
    reconcile,
    release,
    request_cancel,
    shares,
)
from persistence.records import JobRecord, QueueShareRecord
from tests import services
from tests.persistence.queue_world import World, open_world
from workers.reconciler import reconcile_once

LEASE = 10.0
OUTCOMES = ("succeeded", "failed", "canceled", "expired")


class Queue(RuleBasedStateMachine):
    """Every transition of jobs of two tenants, in any order."""

    world: World
    jobs = Bundle("jobs")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.queue = new_id("q")[-8:]
        self.tenants = [self.world.another_tenant() for _ in range(2)]

    @rule(
        target=jobs,
        tenant=st.integers(0, 1),
        priority=st.integers(-1, 1),
        wait=st.sampled_from([None, 3, 1000]),
        type=st.sampled_from(["compress", "compress", "search"]),
    )
    def enqueue(self, tenant: int, priority: int, wait: int | None, type: str) -> str:
        return self.tenants[tenant].enqueue(
            queue=self.queue, priority=priority, max_wait_seconds=wait, type=type
        )

    @rule(target=claims)
    def claim_next(self) -> Any:
        with self.world.database.session() as session:
            held = claim_next(session, self.queue, "worker", LEASE)
        return multiple() if held is None else held

    @rule(target=claims, job=jobs)
    def claim(self, job: str) -> Any:
        with self.world.database.session() as session:
            held = claim(session, job, "worker", LEASE)
        return multiple() if held is None else held

    @rule(held=consumes(claims))
    def release(self, held: Claim) -> None:
        with self.world.database.session() as session:
            release(session, held, "test")

    @rule(held=claims, outcome=st.sampled_from(OUTCOMES))
    def finish(self, held: Claim, outcome: Any) -> None:
        with self.world.database.session() as session:
            finish(session, held, outcome)

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        with self.world.database.session() as session:
            request_cancel(session, session.get_one(JobRecord, job))

    @rule(seconds=st.sampled_from([0.0, 5.0, 20.0]))
    def pass_time(self, seconds: float) -> None:
        with self.world.database.session() as session:
            now = database_time(session) + timedelta(seconds=seconds)
            reconcile(session, now, max_attempts=2, requeue_after_seconds=60)

    @rule(job=jobs)
    def fail(self, job: str) -> None:
        """A transaction that is rolled back changes no count."""

        def claim_and_fail() -> None:
            with self.world.database.session() as session:
                claim(session, job, "worker", LEASE)
                raise RuntimeError

        with pytest.raises(RuntimeError):
            claim_and_fail()

    @invariant()
    def counts_are_true(self) -> None:
        with self.world.database.session(read_only=True) as session:
            assert shares.drifts(session) == []
            rows = session.query(QueueShareRecord).filter_by(queue=self.queue)
            assert all(row.waiting >= 0 and row.running >= 0 for row in rows)


def run_machine(world: World, examples: int, steps: int) -> None:
    machine = type("QueueOfWorld", (Queue,), {"world": world})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_counts_are_true_after_every_transition(tmp_path: Path) -> None:
    with open_world(f"sqlite:///{tmp_path / 'test.db'}") as world:
        run_machine(world, examples=6, steps=15)


def test_counts_are_true_after_every_transition_on_postgresql(
    postgres_service: services.Service,
) -> None:
    with services.postgres_database(postgres_service) as url, open_world(url) as world:
        run_machine(world, examples=2, steps=15)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with open_world(database_url) as world:
        yield world


def test_the_reconciler_mends_counts_that_are_wrong_and_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # where lines of logs go depends on what else this process has configured
    log = CapturingLogger()
    monkeypatch.setattr("workers.reconciler.log", log)
    world.enqueue()
    running = world.enqueue()
    world.claim(running)
    lost = world.another_tenant()
    job_id = lost.enqueue()
    with world.database.session() as session:
        session.execute(update(QueueShareRecord).values(waiting=5, running=0))
        session.query(QueueShareRecord).filter_by(tenant_id=lost.tenant_id).delete()
    reconcile_once(world.database, world.settings)
    mended = [call for call in log.calls if call.method_name == "warning"]
    assert {call.args for call in mended} == {("the counts of a share were wrong; mended",)}
    assert {call.kwargs["tenant_id"] for call in mended} == {world.tenant_id, lost.tenant_id}
    with world.database.session(read_only=True) as session:
        assert shares.drifts(session) == []
        mine = session.get_one(QueueShareRecord, (world.tenant_id, "cpu"))
        assert (mine.waiting, mine.running) == (1, 1)
    held = lost.claim(job_id)
    assert held.tenant_id == lost.tenant_id
    reconcile_once(world.database, world.settings)
    assert [call for call in log.calls if call.method_name == "warning"] == mended, "once"
