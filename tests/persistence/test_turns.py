"""Whose turn it is: tenants by what they used, priorities, positions, and the cost of a claim."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, event, insert, text, update

from persistence import models
from persistence.identifiers import new_id
from persistence.job_queue import (
    Claim,
    charge_running,
    claim_next,
    database_time,
    finish,
    poke_again,
    release,
    request_cancel,
    unsent,
)
from persistence.queue_position import queue_position, queue_positions
from persistence.records import JobRecord, OutboxRecord, QueueShareRecord, TenantRecord
from tests import services
from tests.persistence.queue_world import World, open_world


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with open_world(database_url) as world:
        yield world


def take(world: World, owner: str = "worker", queue: str = "cpu") -> Claim | None:
    with world.database.session() as session:
        return claim_next(session, queue, owner, 60)


def take_all(world: World) -> list[Claim]:
    return list(iter(lambda: take(world), None))


def end_after(world: World, held: Claim, seconds: float) -> None:
    """The job ends, having run so long."""
    with world.database.session() as session:
        began = database_time(session) - timedelta(seconds=seconds)
        session.execute(
            update(JobRecord).where(JobRecord.id == held.job_id).values(clock_started_at=began)
        )
        assert finish(session, held, "succeeded")


def share(world: World, tenant_id: str) -> QueueShareRecord:
    with world.database.session(read_only=True) as session:
        return session.get_one(QueueShareRecord, (tenant_id, "cpu"))


def test_within_a_tenant_the_highest_priority_and_then_the_oldest(world: World) -> None:
    low, first, second, high = (world.enqueue(priority=p) for p in (-5, 0, 0, 7))
    other = world.enqueue(queue="gpu", priority=100)
    assert [held.job_id for held in take_all(world)] == [high, first, second, low]
    on_gpu = take(world, queue="gpu")
    assert on_gpu is not None
    assert on_gpu.job_id == other


def test_jobs_of_two_tenants_alternate_however_many_one_has(world: World) -> None:
    other = world.another_tenant()
    mine = [world.enqueue() for _ in range(6)]
    theirs = [other.enqueue(), other.enqueue()]
    tenants = [held.tenant_id for held in take_all(world)]
    assert Counter(tenants[:4]) == {world.tenant_id: 2, other.tenant_id: 2}
    assert tenants[4:] == [world.tenant_id] * 4
    assert len(mine) + len(theirs) == len(tenants)


def test_what_a_job_used_is_charged_at_its_end_and_while_it_runs(world: World) -> None:
    world.enqueue()
    world.enqueue()
    held = take(world)
    assert held is not None
    assert share(world, world.tenant_id).used_seconds == 60, "in advance"
    end_after(world, held, 10)
    assert 10 <= share(world, world.tenant_id).used_seconds < 15
    running = take(world)
    assert running is not None
    with world.database.session() as session:
        charge_running(session, database_time(session) + timedelta(seconds=500))
    assert 510 <= share(world, world.tenant_id).used_seconds < 515
    with world.database.session() as session:
        charge_running(session, database_time(session) + timedelta(seconds=400))
    assert 510 <= share(world, world.tenant_id).used_seconds < 515, "once"
    end_after(world, running, 700)
    assert 710 <= share(world, world.tenant_id).used_seconds < 720


def test_who_was_idle_comes_back_without_saved_up_turns(world: World) -> None:
    other = world.another_tenant()
    for _ in range(5):
        world.enqueue()
        held = take(world)
        assert held is not None
        end_after(world, held, 1000)
    # everybody is idle now, and one comes that has used nothing
    other.enqueue()
    assert share(world, other.tenant_id).used_seconds >= 5000
    for _ in range(4):
        world.enqueue()
        other.enqueue()
    tenants = Counter(held.tenant_id for held in [take(world) for _ in range(4)] if held)
    assert tenants == {world.tenant_id: 2, other.tenant_id: 2}


def test_who_has_a_job_running_is_not_idle(world: World) -> None:
    """A tenant with one job at a time keeps its place although none waits at times."""
    other = world.another_tenant()
    world.enqueue()
    other.enqueue()
    first, second = take(world), take(world)
    assert first is not None
    assert second is not None
    end_after(world, first, 5000)
    world.enqueue()
    other.enqueue()
    assert share(world, other.tenant_id).used_seconds == 60, "it was not lifted"
    end_after(world, second, 10)
    held = take(world)
    assert held is not None
    assert held.tenant_id == other.tenant_id


@settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 5000)),
        min_size=5,
        max_size=10,
    )
)
def test_two_busy_tenants_are_served_alike_within_one_job(
    shared_world: World, rounds: list[tuple[int, int, int]]
) -> None:
    """Whatever the order in which jobs arrive and however long they run."""
    pair = [shared_world.another_tenant(), shared_world.another_tenant()]
    queue = new_id("q")[-8:]
    served = dict.fromkeys((one.tenant_id for one in pair), 0)
    waiting = dict.fromkeys(served, 0)
    longest = 0
    for *arrivals, seconds in rounds:
        for one, count in zip(pair, arrivals, strict=True):
            wanted = max(count, 2 - waiting[one.tenant_id])  # one is left while one runs
            for _ in range(wanted):
                one.enqueue(queue=queue)
            waiting[one.tenant_id] += wanted
        held = take(shared_world, queue=queue)
        assert held is not None
        end_after(shared_world, held, seconds)
        waiting[held.tenant_id] -= 1
        served[held.tenant_id] += seconds
        longest = max(longest, seconds)
        first, second = served.values()
        # the test's own time is on the clock, too
        assert abs(first - second) <= longest + 5


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("turns")
    with open_world(f"sqlite:///{folder / 'shared.db'}") as world:
        yield world


def test_threads_that_claim_at_once_spread_and_never_share_a_job(world: World) -> None:
    other = world.another_tenant()
    jobs = {one.enqueue() for _ in range(12) for one in (world, other)}
    barrier = threading.Barrier(6)
    won: list[Claim] = []

    def work(owner: str) -> None:
        barrier.wait(timeout=30)
        while (held := take(world, owner)) is not None:
            won.append(held)

    threads = [threading.Thread(target=work, args=(f"worker-{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(won) == len(jobs)
    assert {held.job_id for held in won} == jobs
    for tenant_id in (world.tenant_id, other.tenant_id):
        assert (share(world, tenant_id).waiting, share(world, tenant_id).running) == (0, 12)


def test_a_claim_passes_over_a_share_that_is_held_on_postgresql(
    postgres_service: services.Service,
) -> None:
    with services.postgres_database(postgres_service) as url, open_world(url) as world:
        other = world.another_tenant()
        world.enqueue()
        other.enqueue()
        with world.database.session() as first, world.database.session() as second:
            held = [claim_next(one, "cpu", "worker", 60) for one in (first, second)]
        assert {one.tenant_id for one in held if one} == {world.tenant_id, other.tenant_id}


def test_a_worker_that_stops_passes_the_poke_on_to_whatever_waits(world: World) -> None:
    poked, waiting = world.enqueue(), world.enqueue()
    world.claim(poked)
    with world.database.session() as session:
        session.query(OutboxRecord).delete()
        assert poke_again(session, poked)
        assert [poke.job_id for poke in unsent(session, 10)] == [waiting]
    world.claim(waiting)
    with world.database.session() as session:
        assert not poke_again(session, poked)
        assert not poke_again(session, "job_absent")


def test_the_position_is_the_number_of_jobs_taken_before(world: World) -> None:
    other = world.another_tenant()
    jobs = [one.enqueue(priority=p) for p in (0, 3, 0) for one in (world, other, world)]
    jobs += [other.enqueue(priority=-1) for _ in range(5)]
    search = world.enqueue(type="search")
    with world.database.session(read_only=True) as session:
        records = [session.get_one(JobRecord, job_id) for job_id in [*jobs, search]]
        found = queue_positions(session, records)
        assert queue_position(session, records[0]) == found[jobs[0]]
        assert queue_position(session, records[-1]) is None, "a search waits for no worker"
    taken = [held.job_id for held in take_all(world)]
    assert {job_id: taken.index(job_id) for job_id in jobs} == found


def test_the_position_counts_what_tenants_have_used(world: World) -> None:
    other = world.another_tenant()
    world.enqueue()
    other.enqueue()
    for seconds in (200, 5):
        held = take(world)
        assert held is not None
        end_after(world, held, seconds if held.tenant_id == world.tenant_id else 5)
    mine, *_ = [world.enqueue() for _ in range(3)]
    theirs = [other.enqueue() for _ in range(6)]
    with world.database.session(read_only=True) as session:
        position = queue_position(session, session.get_one(JobRecord, mine))
    taken = [held.job_id for held in take_all(world)]
    assert position == taken.index(mine)
    assert set(theirs) <= set(taken)


# The cost of a claim -------------------------------------------------------------------------


def fill(world: World, tenants: int, jobs_each: int, idle_tenants: int) -> None:
    """Tenants with waiting jobs, behind many that have used less and have none."""
    base = {"type": "compress", "model_id": world.model_id, "queue": "cpu", "metadata_": {}}
    with world.database.session() as session:
        many = tenants + idle_tenants
        owners = [{"id": new_id("tnt"), "name": f"tenant {n}"} for n in range(many)]
        session.execute(insert(TenantRecord), owners)
        busy = owners[:tenants]
        session.execute(
            insert(QueueShareRecord),
            [
                {
                    "tenant_id": owner["id"],
                    "queue": "cpu",
                    "waiting": jobs_each if n < tenants else 0,
                    "used_seconds": 1000.0 if n < tenants else 1.0,
                }
                for n, owner in enumerate(owners)
            ],
        )
        rows = [
            base | {"id": new_id("job"), "tenant_id": owner["id"], "priority": n % 3}
            for n in range(jobs_each)
            for owner in busy
        ]
        session.execute(insert(JobRecord), rows)
    with world.database.engine.begin() as connection:
        connection.execute(text("ANALYZE"))


def plans_of_a_claim(world: World) -> dict[str, str]:
    """How the database carries out each statement of a claim, by the statement."""
    seen: list[tuple[str, Any]] = []

    def note(_c: Connection, _u: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    engine = world.database.engine
    event.listen(engine, "before_cursor_execute", note)
    held = take(world)
    event.remove(engine, "before_cursor_execute", note)
    assert held is not None
    explain = "EXPLAIN QUERY PLAN " if world.database.is_sqlite else "EXPLAIN "
    plans = {}
    with engine.begin() as connection:
        for statement, parameters in seen:
            if statement.startswith(("SELECT", "UPDATE")) and "clock_timestamp" not in statement:
                rows = connection.exec_driver_sql(explain + statement, parameters).all()
                plans[statement] = "\n".join(str(row[-1]) for row in rows)
    return plans


def test_every_statement_of_a_claim_finds_its_row_by_an_index(world: World) -> None:
    fill(world, tenants=20, jobs_each=150, idle_tenants=1000)
    plans = plans_of_a_claim(world)
    assert len(plans) >= 5
    choices = [plan for statement, plan in plans.items() if "ORDER BY" in statement]
    assert any("ix_queue_shares_turn" in plan for plan in choices), choices
    assert any("ix_jobs_turn" in plan for plan in choices), choices
    for statement, plan in plans.items():
        for bad in ("Seq Scan", "Sort", "SCAN jobs", "SCAN queue_shares", "TEMP B-TREE"):
            assert bad not in plan, (statement, plan)


def test_an_expired_lease_and_a_cancel_leave_the_turn_to_others(world: World) -> None:
    first, second = world.enqueue(), world.enqueue()
    with world.database.session() as session:
        request_cancel(session, session.get_one(JobRecord, first))
    held = take(world)
    assert held is not None
    assert held.job_id == second
    with world.database.session() as session:
        assert release(session, held, "test")
    again = take(world)
    assert again is not None
    assert (again.job_id, again.attempt) == (second, 2)


def test_submitting_and_claiming_on_one_model_wait_for_no_circle(
    postgres_service: services.Service,
) -> None:
    """Who submits holds the model and waits for the tenant's share; who claims holds the share and,
    updating a job twice, has PostgreSQL look at the model. Found by killing things at random."""
    with services.postgres_database(postgres_service) as url, open_world(url) as world:
        world.enqueue()
        with world.database.session() as submitting:
            assert models.get_for_update(submitting, world.tenant_id, world.model_id) is not None
            with world.database.session() as claiming:
                claiming.execute(text("SET LOCAL lock_timeout = '5s'"))
                assert claim_next(claiming, "cpu", "worker", 60) is not None
