"""A long queue: 100, 1,000 and 10,000 waiting jobs of twenty tenants on PostgreSQL.

At each size, timed as medians of many repetitions on one connection: the claim of the next job, and
a page of two of `GET /v1/jobs` (the first, one in the middle by its cursor, one filtered by status;
of a hundred jobs each tenant has five) and a
poll of a waiting job over HTTP. The peer for the claim is the queue that one would write in a
minute: a table of as many rows, `SELECT ... FOR UPDATE SKIP LOCKED LIMIT 1` by priority and age,
and an `UPDATE`. It has no tenants, no shares, no history. Claims are rolled back, so that every one
meets a queue of the same length.

Then the longest queue is emptied: four processes claim and finish until nothing waits, and it is
counted that every job was run once and how evenly the tenants were served meanwhile.

    python -m bench.service.queue [--runs 200] [--sizes 100 1000 10000]

Jobs are put in by the function that the API's `POST /v1/jobs` calls; workers do not run here.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
from matplotlib.figure import Figure
from sqlalchemy import Connection, select, text

from bench.service.jobs import filled
from bench.service.record import Check, keep, leave, machine
from bench.service.servers import Backend, WebServer, backend
from persistence.database import Database
from persistence.job_queue import claim_next, finish
from persistence.records import EventRecord, JobRecord

TENANTS = 20
PLOT = Path(__file__).parents[2] / "docs" / "images" / "queue-scaling.svg"
_CLAIMERS = 4
_EVEN = 40
"""Claims per tenant after which it is looked how evenly they were served."""

Row = dict[str, float]


class _Back(Exception):
    """Roll the transaction back."""


def _spread(seconds: Sequence[float]) -> tuple[float, float]:
    """Median and 99th percentile in milliseconds."""
    ordered = sorted(seconds)
    return (
        statistics.median(ordered) * 1e3,
        ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1e3,
    )


def _timed(action: Callable[[], Any], runs: int) -> tuple[float, float]:
    for _ in range(max(3, runs // 20)):
        action()
    taken = []
    for _ in range(runs):
        started = time.perf_counter()
        action()
        taken.append(time.perf_counter() - started)
    return _spread(taken)


def claim_and_forget(database: Database) -> None:
    """A claim by the real function, rolled back."""
    with suppress(_Back), database.session() as session:
        if claim_next(session, "cpu", "benchmark", 60.0) is None:
            raise RuntimeError("nothing waits")
        raise _Back


def a_peer_queue(connection: Connection, size: int) -> None:
    """A table of jobs as simple as it gets, with the index that its query wants."""
    connection.execute(text("DROP TABLE IF EXISTS peer_queue"))
    connection.execute(
        text(
            "CREATE TABLE peer_queue (id bigserial PRIMARY KEY, priority int NOT NULL, "
            "status text NOT NULL, owner text)"
        )
    )
    connection.execute(
        text("CREATE INDEX ON peer_queue (priority DESC, id) WHERE status = 'queued'")
    )
    connection.execute(
        text(
            "INSERT INTO peer_queue (priority, status) "
            "SELECT 0, 'queued' FROM generate_series(1, :size)"
        ),
        {"size": size},
    )
    connection.commit()
    connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE peer_queue"))


def peer_claim(connection: Connection) -> None:
    """Its claim, rolled back."""
    found = connection.execute(
        text(
            "SELECT id FROM peer_queue WHERE status = 'queued' ORDER BY priority DESC, id "
            "LIMIT 1 FOR UPDATE SKIP LOCKED"
        )
    ).scalar_one()
    connection.execute(
        text("UPDATE peer_queue SET status = 'running', owner = 'x' WHERE id = :id"), {"id": found}
    )
    connection.rollback()


def requests(server: WebServer, headers: dict[str, str], ids: list[str], runs: int) -> Row:
    """Medians and 99th percentiles of what a client asks, in milliseconds."""
    row: Row = {}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:

        def get(path: str) -> dict[str, Any]:
            answer = client.get(path)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            return found

        middle = f"/v1/jobs?limit=2&cursor={ids[len(ids) // 2]}"
        for name, path in (
            ("list_first", "/v1/jobs?limit=2"),
            ("list_middle", middle),
            ("list_queued", "/v1/jobs?limit=2&status=queued"),
            ("poll_of_the_last", f"/v1/jobs/{ids[-1]}"),
        ):
            row[f"{name}_ms"], row[f"{name}_p99_ms"] = _timed(partial(get, path), runs)
    return row


def at_size(world: Backend, tenants: list[tuple[str, dict[str, str]]], size: int, runs: int) -> Row:
    """All timings with so many jobs waiting."""
    with world.database.session() as session:
        session.execute(text("TRUNCATE jobs, queue_shares CASCADE"))
    ids = filled(world, [tenant for tenant, _ in tenants], size)
    world.analyse()
    row: Row = {"jobs": size}
    _, headers = tenants[0]
    own = ids[:: len(tenants)]
    with world.api() as server:
        row |= requests(server, headers, own, runs)
    with world.database.engine.connect() as connection:
        a_peer_queue(connection, size)
    with world.database.engine.connect() as connection:
        ours: list[float] = []
        peer: list[float] = []
        for turn in range(runs + 10):
            for taken, action in (
                (ours, partial(claim_and_forget, world.database)),
                (peer, partial(peer_claim, connection)),
            ):
                started = time.perf_counter()
                action()
                if turn >= 10:  # the first warm up
                    taken.append(time.perf_counter() - started)
    row["claim_ms"], row["claim_p99_ms"] = _spread(ours)
    row["peer_claim_ms"], row["peer_claim_p99_ms"] = _spread(peer)
    row["claim_over_peer"] = row["claim_ms"] / row["peer_claim_ms"]
    return row


def _drain(url: str, number: int, out: Any) -> None:
    """Claim and finish until nothing waits; sends (tenant, job) in the order of the claims."""
    database = Database(url)
    taken: list[tuple[float, str, str]] = []
    while True:
        with database.session() as session:
            held = claim_next(session, "cpu", f"claimer-{number}", 60.0)
        if held is None:
            break
        taken.append((time.time(), held.tenant_id, held.job_id))
        with database.session() as session:
            if not finish(session, held, "succeeded", result={}):
                raise RuntimeError("a claim was lost")
    database.dispose()
    out.put(taken)


def drained(world: Backend, url: str) -> dict[str, Any]:
    """Empty the queue with several processes; counts of what became of the jobs."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    claimers = [
        context.Process(target=_drain, args=(url, number, results)) for number in range(_CLAIMERS)
    ]
    started = time.perf_counter()
    for one in claimers:
        one.start()
    taken = sorted(one for _ in claimers for one in results.get(timeout=1200))
    for one in claimers:
        one.join(60)
    seconds = time.perf_counter() - started
    jobs = [job for _, _, job in taken]
    early = Counter(tenant for _, tenant, _ in taken[: TENANTS * _EVEN])
    with world.database.session(read_only=True) as session:
        status = Counter(session.scalars(select(JobRecord.status)))
        ended = session.scalars(select(EventRecord.job_id).where(EventRecord.type == "succeeded"))
        ends = Counter(ended)
    return {
        "claimers": _CLAIMERS,
        "seconds": round(seconds, 1),
        "jobs_per_second": round(len(jobs) / seconds, 1),
        "claimed": len(jobs),
        "claimed_twice": len(jobs) - len(set(jobs)),
        "succeeded": status["succeeded"],
        "left": sum(status.values()) - status["succeeded"],
        "ended_more_than_once": sum(count != 1 for count in ends.values()),
        "claims_of_each_tenant_of_the_first": {
            "of": TENANTS * _EVEN, "least": min(early.values()), "most": max(early.values()),
        },
    }  # fmt: skip


def plot(rows: list[Row]) -> str:
    """Milliseconds over the number of waiting jobs."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    sizes = [row["jobs"] for row in rows]
    for axes, title, lines in (
        (left, "the next job is claimed", {"claim": "ours", "peer_claim": "one table, no tenants"}),
        (
            right, "over HTTP",
            {"list_first": "first page", "list_middle": "page in the middle",
             "list_queued": "waiting ones", "poll_of_the_last": "one job"},
        ),
    ):  # fmt: skip
        for name, label in lines.items():
            axes.plot(sizes, [row[f"{name}_ms"] for row in rows], marker="o", label=label)
        axes.set(xscale="log", xlabel="waiting jobs", ylabel="ms, median", title=title)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
    written = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "queue"}):
        figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()


def main() -> bool:
    """Run it; whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10000])
    options, _ = parser.parse_known_args()
    facts = machine()
    random.seed(0)
    with backend() as world:
        tenants = [world.tenant(f"tenant-{number}") for number in range(TENANTS)]
        rows = []
        for size in options.sizes:
            rows.append(at_size(world, tenants, size, options.runs))
            print({name: round(value, 2) for name, value in rows[-1].items()}, flush=True)
        counts = drained(world, world.environment["SECATEUR_DATABASE_URL"])
        print(counts, flush=True)
    PLOT.write_text(plot(rows), encoding="utf-8")
    first, last = rows[0], rows[-1]
    growth = {
        name: last[f"{name}_ms"] / first[f"{name}_ms"]
        for name in ("claim", "peer_claim", "list_first", "list_middle", "list_queued")
    }
    figures = {
        "tenants": TENANTS,
        "runs": options.runs,
        "sizes": [{name: round(value, 3) for name, value in row.items()} for row in rows],
        "growth_from_first_to_last": {name: round(value, 2) for name, value in growth.items()},
        "drained": counts,
    }
    times = last["jobs"] / first["jobs"]
    lost = counts["left"] + counts["claimed_twice"] + counts["ended_more_than_once"]
    return keep(
        "queue",
        facts,
        figures,
        [
            Check("jobs lost, left or run twice", lost, 0, "at most", ""),
            # logarithmic growth would be 2 from a hundred to ten thousand; linear 100
            *(
                Check(f"growth of {name} over {times:.0f} times the jobs", value, 2, "at most", "x")
                for name, value in growth.items()
                if name != "peer_claim"
            ),
        ],
    )


if __name__ == "__main__":
    leave(main())
