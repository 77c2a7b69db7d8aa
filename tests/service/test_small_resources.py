"""API keys, methods, limits and health."""

from __future__ import annotations

import shutil
from datetime import timedelta

import psycopg
from secateur.methods import METHODS
from secateur.resources import Method
from sqlalchemy import make_url, select

import migrations
from persistence import workers
from persistence.records import ApiKeyRecord, WorkerRecord
from persistence.settings import Settings
from tests import services
from tests.service.conftest import Api, serve


def test_a_key_opens_until_it_is_revoked(sql_api: Api) -> None:
    response = sql_api.client.post("/v1/api-keys", json={"name": "ci"})
    assert response.status_code == 201
    assert response.headers["Cache-Control"] == "no-store"
    key = response.json()
    assert key["secret"].startswith("sk_")
    assert key["secret"].startswith(key["prefix"])
    with sql_api.backend.database.session() as session:
        rows = session.scalars(select(ApiKeyRecord)).all()
        assert all(key["secret"] not in str(vars(row)) for row in rows)
    mine = {"Authorization": f"Bearer {key['secret']}"}
    assert sql_api.anonymous.get("/v1/models", headers=mine).status_code == 200
    listed = sql_api.client.get("/v1/api-keys").json()["data"]
    assert [one["name"] for one in listed] == ["ci", "test"]
    assert {one["secret"] for one in listed} == {None}
    path = f"/v1/api-keys/{key['id']}"
    assert sql_api.stranger.get(path).status_code == 404
    assert sql_api.stranger.delete(path).status_code == 404
    assert sql_api.client.delete(path).status_code == 204
    assert sql_api.anonymous.get("/v1/models", headers=mine).status_code == 401
    revoked_at = sql_api.client.get(path).json()["revoked_at"]
    assert revoked_at is not None
    assert sql_api.client.delete(path).status_code == 204
    assert sql_api.client.get(path).json()["revoked_at"] == revoked_at


def test_unknown_fields_of_a_key_are_refused(api: Api) -> None:
    response = api.client.post("/v1/api-keys", json={"nmae": "ci"})
    assert response.status_code == 422
    assert response.json()["errors"] == [
        {
            "field": "nmae",
            "message": "`nmae` is not a field here; valid are `name`, `scopes`, `expires_at`. "
            "Did you mean `name`?",
        }
    ]


def test_methods_are_the_catalogue(api: Api) -> None:
    page = api.client.get("/v1/methods").json()
    assert [Method.model_validate(one) for one in page["data"]] == list(METHODS)
    assert not page["has_more"]


def test_limits_are_the_settings(api_settings: Settings) -> None:
    for api in serve(api_settings.model_copy(update={"max_model_bytes": 123})):
        limits = api.client.get("/v1/limits").json()
        assert limits["max_model_bytes"] == 123
        assert limits["max_job_seconds"] == api_settings.max_job_seconds
        page = api.client.get(f"/v1/models?limit={limits['page_size_max']}")
        assert page.status_code == 200


def test_health_needs_no_key(sql_api: Api) -> None:
    assert sql_api.anonymous.get("/healthz").json() == {"status": "ok"}
    assert sql_api.anonymous.get("/readyz").json() == {"status": "ok", "workers": []}
    assert sql_api.blobs() == []


def test_readiness_lists_the_workers_that_live_and_what_contains_them(sql_api: Api) -> None:
    sandbox = {"level": "kernel", "contained": True, "landlock_abi": 7, "refused": {"read": True}}
    with sql_api.backend.database.session() as session:
        workers.report(session, "host:1", ["cpu"], sandbox)
        workers.report(session, "host:2", ["gpu"], {"level": "limits", "contained": False})
    with sql_api.backend.database.session() as session:
        session.get_one(WorkerRecord, "host:2").seen_at -= timedelta(seconds=61)
    answer = sql_api.anonymous.get("/readyz")
    assert answer.json()["workers"] == [{"queues": ["cpu"], "level": "kernel", "contained": True}]
    assert "host" not in answer.text
    with sql_api.backend.database.session() as session:
        workers.report(session, "host:1", ["cpu"], sandbox)
    with sql_api.backend.database.session(read_only=True) as session:
        assert [row.id for row in session.query(WorkerRecord)] == ["host:1"], "the dead are swept"


def test_a_lost_store_is_not_ready(api: Api) -> None:
    shutil.rmtree(api.backend.settings.resolved_artifact_dir)
    response = api.anonymous.get("/readyz")
    assert response.status_code == 503
    assert response.json()["type"] == "/problems/not-ready"
    assert "SECATEUR_ARTIFACT_DIR" in response.json()["hint"]
    assert api.anonymous.get("/healthz").status_code == 200


def test_a_database_without_tables_is_not_ready(tmp_path, migrated_sqlite) -> None:
    shutil.copy(migrated_sqlite, tmp_path / "secateur.db")
    for api in serve(Settings(data_dir=tmp_path)):
        with api.backend.database.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE alembic_version")
        response = api.anonymous.get("/readyz")
        assert response.status_code == 503
        assert "python -m migrations" in response.json()["hint"]


def test_a_database_that_is_away_is_told_with_when_to_come_again(
    tmp_path, postgres_service: services.Service
) -> None:
    with services.postgres_database(postgres_service) as url:
        migrations.upgrade(url)
        settings = Settings(data_dir=tmp_path, database_url=url)  # type: ignore[arg-type]
        for api in serve(settings):
            assert api.client.get("/v1/models").status_code == 200
            name = make_url(url).database
            with psycopg.connect(postgres_service.url, autocommit=True) as admin:
                admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    [name],
                )
                response = api.client.get("/v1/models")
                admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
            assert response.status_code == 503
            assert response.headers["Retry-After"] == "1"
            assert response.json()["type"] == "/problems/database-unavailable"
            assert "Idempotency-Key" in response.json()["hint"]
            assert name not in response.text
            assert api.client.get("/v1/models").status_code == 200
