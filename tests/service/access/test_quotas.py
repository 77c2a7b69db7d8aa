"""Quotas: what would be too much is not made, and `/v1/limits` shows what is used."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import migrations
from persistence import quotas
from persistence.records import DatasetRecord, ModelRecord
from persistence.settings import Settings
from tests.service.conftest import Api, serve

HOOK = {"url": "https://ci.example.com/"}


def give(api: Api, **own: int | None) -> None:
    with api.backend.database.session() as session:
        quotas.set_own(session, api.tenant_id, own)


def used(api: Api, name: str) -> int:
    shown = api.client.get("/v1/limits").json()["quotas"][name]
    return int(shown["used"])


def refused(response: Any, name: str, limit: int) -> None:
    assert response.status_code == 403, response.text
    problem = response.json()
    assert problem["type"] == "/problems/quota-exceeded"
    assert f"`{name}` is {limit}" in problem["detail"]
    assert "/v1/limits" in problem["hint"]


def test_without_quotas_everything_is_counted_and_nothing_refused(
    sql_api: Api, model_file: bytes, dataset_file: bytes, recipe: Any
) -> None:
    client = sql_api.client
    model = client.post("/v1/models", content=model_file).json()
    client.post("/v1/datasets", content=dataset_file)
    client.post("/v1/jobs", json={"model_id": model["id"], "recipe": recipe})
    client.post("/v1/webhooks", json=HOOK)
    upload = client.post("/v1/uploads", json={"kind": "model"}).json()["id"]
    client.put(f"/v1/uploads/{upload}/parts/1", content=b"x" * 1000)
    shown = client.get("/v1/limits").json()["quotas"]
    assert {one["limit"] for one in shown.values()} == {None}
    assert {name: one["used"] for name, one in shown.items()} == {
        "stored_bytes": model["bytes"] + len(dataset_file) + 1000,
        "models": 1,
        "datasets": 1,
        "live_jobs": 2,  # the inspection and the job
        "api_keys": 1,
        "webhooks": 1,
    }
    assert {
        one["used"] for one in sql_api.stranger.get("/v1/limits").json()["quotas"].values()
    } == {
        0,
        1,  # its key
    }


def test_each_quota_refuses_the_first_that_is_too_much(
    sql_api: Api, model_file: bytes, dataset_file: bytes, recipe: Any
) -> None:
    client = sql_api.client
    model = client.post("/v1/models", content=model_file).json()
    give(sql_api, models=1, datasets=0, live_jobs=1, api_keys=1, webhooks=0)
    refused(client.post("/v1/datasets", content=dataset_file), "datasets", 0)
    body = {"model_id": model["id"], "recipe": recipe}
    refused(client.post("/v1/jobs", json=body), "live_jobs", 1)
    refused(client.post("/v1/api-keys", json={}), "api_keys", 1)
    refused(client.post("/v1/webhooks", json=HOOK), "webhooks", 0)
    # the same bytes again make nothing
    assert client.post("/v1/models", content=model_file).status_code == 200
    give(sql_api, models=0, datasets=None)
    client.delete(f"/v1/models/{model['id']}")
    before = sql_api.blobs()
    refused(client.post("/v1/models", content=model_file), "models", 0)
    assert sql_api.blobs() == before, "what was refused leaves nothing behind"
    assert client.post("/v1/datasets", content=dataset_file).status_code == 201


def test_bytes_of_every_kind_count(api: Api, model_file: bytes, dataset_file: bytes) -> None:
    client = api.client
    client.post("/v1/datasets", content=dataset_file)
    have = used(api, "stored_bytes")
    give(api, stored_bytes=have + 100)
    refused(client.post("/v1/models", content=model_file), "stored_bytes", have + 100)
    upload = client.post("/v1/uploads", json={"kind": "model"}).json()["id"]
    assert client.put(f"/v1/uploads/{upload}/parts/1", content=b"x" * 100).status_code < 300
    refused(client.put(f"/v1/uploads/{upload}/parts/2", content=b"y"), "stored_bytes", have + 100)
    client.delete(f"/v1/uploads/{upload}")
    assert used(api, "stored_bytes") == have


@pytest.mark.parametrize("kind", [ModelRecord, DatasetRecord])
def test_a_setting_holds_for_every_tenant(
    kind: type[Any], api_settings: Settings, model_file: bytes, dataset_file: bytes
) -> None:
    name = "models" if kind is ModelRecord else "datasets"
    content = model_file if kind is ModelRecord else dataset_file
    strict = api_settings.model_copy(update={f"quota_{name}": 0})
    for api in serve(strict):
        refused(api.client.post(f"/v1/{name}", content=content), name, 0)
        give(api, **{name: 5})  # one of its own goes first
        assert api.client.post(f"/v1/{name}", content=content).status_code == 201
        assert api.stranger.post(f"/v1/{name}", content=content).status_code == 403


def test_requests_at_once_do_not_slip_past_together(postgres_url: str, tmp_path: Path) -> None:
    migrations.upgrade(postgres_url)
    settings = Settings(data_dir=tmp_path, database_url=postgres_url)  # type: ignore[arg-type]
    for api in serve(settings):
        give(api, webhooks=3)
        statuses: list[int] = []

        def create(client: TestClient = api.client, into: list[int] = statuses) -> None:
            into.append(client.post("/v1/webhooks", json=HOOK).status_code)

        threads = [threading.Thread(target=create) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(statuses) == [201] * 3 + [403] * 9


def test_the_operators_command(api: Api, api_settings: Settings) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "deploy.set_quotas", *arguments],
            env={"SECATEUR_DATA_DIR": str(api_settings.data_dir), "PATH": "/usr/bin"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    done = run("--tenant", "owner", "webhooks=0", "live_jobs=7")
    assert done.returncode == 0, done.stderr
    assert "webhooks: 0 of 0\n" in done.stdout
    assert "models: 0 of no limit\n" in done.stdout
    refused(api.client.post("/v1/webhooks", json=HOOK), "webhooks", 0)
    run("--tenant", "owner", "webhooks=default")
    assert api.client.post("/v1/webhooks", json=HOOK).status_code == 201
    assert run("--tenant", "nobody").returncode == 1
    for wrong in ("cheese=1", "models=many", "models"):
        assert run("--tenant", "owner", wrong).returncode == 2
