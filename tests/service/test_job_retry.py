"""Limits on a job's time at the door, and `POST /v1/jobs/{id}/retry`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from persistence import job_queue
from persistence.artifact_store import StoredBlob
from persistence.job_queue import Claim
from persistence.records import JobRecord
from tests.service.conftest import Api


@pytest.fixture
def model_id(sql_api: Api, model_file: bytes) -> str:
    return str(sql_api.client.post("/v1/models", content=model_file).json()["id"])


def post(api: Api, path: str, body: Any = None, **headers: str) -> Any:
    return api.client.post(
        path, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def make(api: Api, model_id: str, recipe: Any, **fields: Any) -> dict[str, Any]:
    answer = post(api, "/v1/jobs", {"model_id": model_id, "recipe": recipe, **fields})
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def end(api: Api, job_id: str, status: Any, **outcome: Any) -> Claim:
    """Claim the job, leave a checkpoint, and end it."""
    with api.backend.store.open_writer() as writer:
        writer.write(b"half way")
        blob: StoredBlob = writer.commit()
    with api.backend.database.session() as session:
        held = job_queue.claim(session, job_id, "worker", 600)
        assert held is not None
        job_queue.add_artifact(
            session, held, kind="checkpoint", name="checkpoint", media_type="x/y", blob=blob
        )
        assert job_queue.finish(session, held, status, **outcome)
    return held


def in_an_hour() -> str:
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat()


def test_limits_are_taken_and_shown(sql_api: Api, model_id: str, recipe: Any) -> None:
    deadline = in_an_hour()
    job = make(
        sql_api, model_id, recipe,
        priority=7, deadline=deadline, max_wait_seconds=60, max_run_seconds=3600,
    )  # fmt: skip
    shown = sql_api.client.get(f"/v1/jobs/{job['id']}").json()
    assert (shown["priority"], shown["max_wait_seconds"], shown["max_run_seconds"]) == (7, 60, 3600)
    assert datetime.fromisoformat(shown["deadline"]) == datetime.fromisoformat(deadline)
    assert (shown["waited_seconds"], shown["ran_seconds"]) == (0, 0)
    assert shown["clock_started_at"] is not None


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"deadline": "2020-01-01T00:00:00Z"}, "deadline", "This time has passed"),
        ({"deadline": "2999-01-01T00:00:00"}, "deadline", "timezone"),
        ({"deadline": "soon"}, "deadline", "valid datetime"),
        ({"max_run_seconds": 86401}, "max_run_seconds", "86400 seconds on this server"),
        ({"max_run_seconds": 0}, "max_run_seconds", "greater than or equal to 1"),
        ({"max_wait_seconds": -5}, "max_wait_seconds", "greater than or equal to 1"),
        ({"max_wait_seconds": 10**12}, "max_wait_seconds", "less than or equal to"),
        ({"priority": 101}, "priority", "less than or equal to 100"),
        ({"priority": -101}, "priority", "greater than or equal to -100"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused_by_its_field(
    api: Api, model_file: bytes, recipe: Any, *, fields: dict[str, Any], field: str, said: str
) -> None:
    model_id = api.client.post("/v1/models", content=model_file).json()["id"]
    answer = post(api, "/v1/jobs", {"model_id": model_id, "recipe": recipe, **fields})
    assert answer.status_code == 422
    [fault] = answer.json()["errors"]
    assert fault["field"] == field
    assert said in fault["message"]


@pytest.mark.parametrize("status", ["failed", "canceled", "expired"])
def test_a_retry_is_the_same_job_with_the_old_checkpoint(
    sql_api: Api, model_id: str, recipe: Any, status: str
) -> None:
    old = make(
        sql_api, model_id, recipe,
        name="mine", metadata={"team": "a"}, priority=3, max_run_seconds=50,
    )  # fmt: skip
    error = {"type": "runner-killed", "title": "t", "hint": "", "where": "", "retryable": True}
    end(sql_api, old["id"], status, error=error)
    answer = post(sql_api, f"/v1/jobs/{old['id']}/retry", {"max_run_seconds": 99})
    assert answer.status_code == 202, answer.text
    new = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{new['id']}"
    same = ("type", "model_id", "recipe", "name", "metadata", "device", "queue", "priority")
    assert [new[name] for name in same] == [old[name] for name in same]
    assert (new["retry_of_id"], new["status"], new["attempt"]) == (old["id"], "queued", 0)
    assert new["max_run_seconds"] == 99
    [kept] = new["artifacts"]
    assert kept["kind"] == "checkpoint"
    events = sql_api.client.get(f"/v1/jobs/{new['id']}/events").json()["data"]
    assert [event["type"] for event in events] == ["queued", "retry"]
    assert events[1]["data"] == {"of": old["id"], "resumes": True}
    ended = sql_api.client.get(f"/v1/jobs/{old['id']}").json()
    assert (ended["status"], len(ended["artifacts"])) == (status, 1)


def test_a_retry_that_is_repeated_makes_one_job(sql_api: Api, model_id: str, recipe: Any) -> None:
    old = make(sql_api, model_id, recipe)
    end(sql_api, old["id"], "canceled")
    path = f"/v1/jobs/{old['id']}/retry"
    first, second = (post(sql_api, path, None, Idempotency_Key="once") for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["Idempotent-Replayed"] == "true"
    another = post(sql_api, path)
    assert another.json()["id"] != first.json()["id"]


def test_a_deadline_that_passed_is_not_taken_over(sql_api: Api, model_id: str, recipe: Any) -> None:
    old = make(sql_api, model_id, recipe, deadline=in_an_hour())
    end(sql_api, old["id"], "failed", error=None)
    path = f"/v1/jobs/{old['id']}/retry"
    assert post(sql_api, path).json()["deadline"] == old["deadline"]
    with sql_api.backend.database.session() as session:
        session.get_one(JobRecord, old["id"]).deadline = datetime.now(UTC) - timedelta(seconds=1)
    assert post(sql_api, path).json()["deadline"] is None
    refused = post(sql_api, path, {"deadline": "2020-01-01T00:00:00Z"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "deadline")


def test_what_cannot_be_retried_is_refused_with_a_hint(
    sql_api: Api, model_id: str, recipe: Any
) -> None:
    def refusal(job_id: str) -> tuple[int, str, str]:
        answer = post(sql_api, f"/v1/jobs/{job_id}/retry")
        body = answer.json()
        return answer.status_code, body["type"], body["detail"] + body["hint"]

    job = make(sql_api, model_id, recipe)
    status, type, said = refusal(job["id"])
    assert (status, type) == (409, "/problems/job-not-retryable")
    assert "is queued" in said
    assert "/cancel" in said
    end(sql_api, job["id"], "succeeded")
    assert "/artifacts" in refusal(job["id"])[2]
    space = {"space": {"stages.0.allocation.amount": [0.2, 0.4]}, "objectives": ["params"]}
    search = make(sql_api, model_id, recipe | {"search": space})
    post(sql_api, f"/v1/jobs/{search['id']}/cancel")
    assert "parent_id=" in refusal(search["id"])[2]
    assert refusal("job_absent")[0] == 404
    gone = make(sql_api, model_id, recipe)
    assert post(sql_api, f"/v1/jobs/{gone['id']}/cancel").json()["status"] == "canceled"
    assert sql_api.stranger.post(f"/v1/jobs/{gone['id']}/retry").status_code == 404
    for one in sql_api.client.get("/v1/jobs", params={"status": "queued"}).json()["data"]:
        post(sql_api, f"/v1/jobs/{one['id']}/cancel")
    assert sql_api.client.delete(f"/v1/models/{model_id}").status_code == 204
    status, type, said = refusal(gone["id"])
    assert (status, type) == (409, "/problems/inputs-deleted")
    assert model_id in said


def test_expired_is_an_end_to_everybody_who_waits(sql_api: Api, model_id: str, recipe: Any) -> None:
    job = make(sql_api, model_id, recipe)
    error = {
        "type": "deadline-passed",
        "title": "t",
        "hint": "h",
        "where": "deadline",
        "retryable": True,
    }
    end(sql_api, job["id"], "expired", error=error)
    shown = sql_api.client.get(f"/v1/jobs/{job['id']}", params={"wait": 30}).json()
    assert (shown["status"], shown["error"]["type"]) == ("expired", "deadline-passed")
    stream = sql_api.client.get(
        f"/v1/jobs/{job['id']}/events", headers={"Accept": "text/event-stream"}
    ).text
    assert "event: expired" in stream
    listed = sql_api.client.get("/v1/jobs", params={"status": "expired"}).json()["data"]
    assert [one["id"] for one in listed] == [job["id"]]
    report = sql_api.client.get(f"/v1/jobs/{job['id']}/report")
    assert (report.status_code, report.json()["hint"]) == (409, "h")
    assert post(sql_api, f"/v1/jobs/{job['id']}/cancel").json()["status"] == "expired"
