"""Every function that reads or changes rows says whose they are, or is named here with its reason.

A function says so by a `tenant_id`, or by taking what can only be had with one: a record that was
found by its owner, a keyed request, the claim or the standing of a job. A new function of
`persistence` that does neither fails here until somebody has written down why it may.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy.orm import Session

import persistence

SERVICE = Path(__file__).parents[2] / "service"
PROOF = re.compile(
    r"(Sequence|Iterable|Collection)?\[?"
    r"(Claim|Standing|KeyedRequest|Drift|(?!Tenant|Worker)[A-Z]\w*Record)\]?"
)

WORKER_SIDE = {
    # whoever calls holds a job's row or its claim, or works for every tenant
    "job_queue.claims.claim",
    "job_queue.clocks.standing",
    "job_queue.completion.settle",
    "job_queue.history.append_event",
    "job_queue.history.close_stages",
    "job_queue.outbox.any_unsent",
    "job_queue.outbox.forget_settled",
    "job_queue.outbox.mark_sent",
    "job_queue.outbox.poke",
    "job_queue.outbox.take_pokes",
    "job_queue.outbox.unsent",
    "job_queue.recovery.charge_running",
    "job_queue.recovery.reconcile",
    "job_queue.retries.forget_checkpoints",
    "job_queue.shares.any_waiting",
    "job_queue.shares.drifts",
    "job_queue.shares.next_tenant",
    "job_queue.shares.write_changes",
    "job_queue.trials.live_search",
    "job_queue.trials.trials",
    "job_queue.turns.claim_next",
    "job_queue.turns.poke_again",
    "job_queue.turns.poke_next",
    "job_queue.turns.queue_of",
    "webhooks.announcements.announce_end",
    "webhooks.deliveries.any_due",
    "webhooks.deliveries.forget_old",
    "webhooks.deliveries.note_attempt",
    "webhooks.deliveries.take_due",
    "workers.leave",
    "workers.report",
    # what is kept for a time only
    "audit.forget",
    "idempotency.forget",
    "uploads.expired",
    "uploads.forget_ended",
}
"""Called by dispatcher, workers and other functions here; the API may not."""

WITHOUT_A_TENANT = {
    "api_keys.find": "tells whose a secret is",
    "api_keys.verify": "tells whose a secret is",
    "blobs.is_referenced": "bytes are shared by content; answers yes or no for the sweep",
    "blobs.lock": "bytes are shared by content; reads nothing",
    "job_queue.clocks.database_time": "reads no row",
    "jobs.get_many": "takes pairs of tenant and job",
    "jobs.marks_of": "takes pairs of tenant and job",
    "paging.page": "takes the query of its caller, which is here as well",
    "tenants.get_or_create": "makes the tenant of embedded mode",
    "uploads.release": "takes the secret token of the request that claimed the upload",
    "uploads.renew": "takes the secret token of the request that claimed the upload",
    "workers.living": "workers are no tenant's",
}
"""Open to the API, and why it shows nobody what is another's."""


def functions() -> Iterator[tuple[str, Callable[..., object]]]:
    for module in pkgutil.walk_packages(persistence.__path__, "persistence."):
        loaded = importlib.import_module(module.name)
        for name, function in vars(loaded).items():
            if inspect.isfunction(function) and function.__module__ == module.name:
                yield f"{module.name.removeprefix('persistence.')}.{name}", function


def touches_rows(function: Callable[..., object]) -> bool:
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    return any(one.annotation is Session for one in parameters)


def says_whose(function: Callable[..., object]) -> bool:
    parameters = inspect.signature(function).parameters
    return "tenant_id" in parameters or any(
        PROOF.fullmatch(str(one.annotation)) for one in parameters.values()
    )


def test_every_query_says_whose_rows_it_means_or_why_not() -> None:
    open_ended = {
        name
        for name, function in functions()
        if not name.rpartition(".")[2].startswith("_")
        and touches_rows(function)
        and not says_whose(function)
    }
    assert len(WORKER_SIDE & WITHOUT_A_TENANT.keys()) == 0
    assert open_ended == WORKER_SIDE | WITHOUT_A_TENANT.keys()


def test_the_api_calls_nothing_of_the_workers() -> None:
    called = set()
    for file in SERVICE.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        modules = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("persistence"):
                inside = (node.module or "").removeprefix("persistence").removeprefix(".")
                for name in node.names:
                    modules[name.asname or name.name] = f"{inside}.{name.name}".removeprefix(".")
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in modules:
                called.add(modules[node.id])
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in modules
            ):
                called.add(f"{modules[node.value.id]}.{node.attr}")
    # packages show the functions of their modules under shorter names
    short = {re.sub(r"^(job_queue|webhooks)\.\w+\.", r"\1.", name): name for name in WORKER_SIDE}
    assert "job_queue.enqueue" in called
    assert {short.get(name, name) for name in called} & WORKER_SIDE == set()
