"""Jobs to fill a database with."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from bench.service.servers import Backend
from persistence.job_queue import enqueue
from persistence.records import ModelRecord

RECIPE = {"version": 1, "stages": [{"stage": "prune", "allocation": {"amount": 0.5}}]}
_TRANSACTION = 100


def a_model(world: Backend, tenant_id: str) -> str:
    """A row of a model whose file is not there; enough for a job that never reads it."""
    with world.database.session() as session:
        model = ModelRecord(
            tenant_id=tenant_id, sha256=secrets.token_hex(32), bytes=1, status="ready"
        )
        session.add(model)
        session.flush()
        return model.id


def filled(
    world: Backend, tenants: Sequence[str], number: int, type: str = "compress"
) -> list[str]:
    """Queue so many jobs, the tenants by turns; their ids."""
    models = {tenant: a_model(world, tenant) for tenant in tenants}
    ids: list[str] = []
    while len(ids) < number:
        with world.database.session() as session:
            for _ in range(min(_TRANSACTION, number - len(ids))):
                tenant = tenants[len(ids) % len(tenants)]
                job = enqueue(
                    session,
                    tenant_id=tenant,
                    type=type,
                    model_id=models[tenant],
                    recipe=RECIPE if type == "compress" else None,
                    queue="cpu",
                )
                ids.append(job.id)
    return ids
