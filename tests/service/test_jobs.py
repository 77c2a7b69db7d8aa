"""`/v1/jobs`: made, listed, waited for, cancelled, and what they leave behind."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import Response
from secateur.resources import Job, JobCreate
from sqlalchemy import select

from persistence import job_queue
from persistence.artifact_store import StoredBlob
from persistence.job_queue import Claim
from persistence.records import JobRecord, ModelRecord, OutboxRecord
from persistence.settings import Settings
from service.idempotency import Once
from service.jobs import service
from service.jobs.admission import choose_queue
from tests.service.conftest import Api, serve


@pytest.fixture
def model_id(api: Api, model_file: bytes) -> str:
    return str(api.client.post("/v1/models", content=model_file).json()["id"])


def make_job(api: Api, model_id: str, recipe: Any, **fields: Any) -> dict[str, Any]:
    response = api.client.post("/v1/jobs", json={"model_id": model_id, "recipe": recipe, **fields})
    assert response.status_code == 202, response.text
    return response.json()


def claim(api: Api, job_id: str) -> Claim:
    with api.backend.database.session() as session:
        held = job_queue.claim(session, job_id, "worker", 600)
    assert held is not None
    return held


def finish(api: Api, held: Claim, status: Any = "succeeded", **outcome: Any) -> None:
    with api.backend.database.session() as session:
        assert job_queue.finish(session, held, status, **outcome)


def store(api: Api, held: Claim, kind: str, media_type: str, content: bytes) -> None:
    name = {"model": "compact.pt"}.get(kind, kind)
    with api.backend.store.open_writer() as writer:
        writer.write(content)
        blob: StoredBlob = writer.commit()
    with api.backend.database.session() as session:
        assert job_queue.add_artifact(
            session, held, kind=kind, name=name, media_type=media_type, blob=blob
        )


def test_a_job_is_queued_with_its_poke(
    sql_api: Api, model_file: bytes, dataset_file: bytes, recipe: dict[str, Any]
) -> None:
    model = sql_api.client.post("/v1/models", content=model_file).json()
    dataset = sql_api.client.post("/v1/datasets", content=dataset_file).json()
    response = sql_api.client.post(
        "/v1/jobs",
        json={
            "model_id": model["id"],
            "dataset_id": dataset["id"],
            "recipe": recipe,
            "name": "half",
            "metadata": {"team": "vision"},
        },
    )
    assert response.status_code == 202, response.text
    job = response.json()
    assert response.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert (job["status"], job["type"], job["queue"]) == ("queued", "compress", "cpu")
    assert job["queue_position"] == 1  # behind the inspection
    assert job["metadata"] == {"team": "vision"}
    assert job["recipe"]["stages"][0]["criterion"] == "l1_norm"  # defaults are written out
    Job.model_validate(job)
    assert sql_api.client.get(f"/v1/jobs/{job['id']}").json() == job
    with sql_api.backend.database.session() as session:
        pokes = session.scalars(select(OutboxRecord.job_id)).all()
        assert job["id"] in pokes


def test_a_repeated_request_makes_one_job(
    sql_api: Api, model_file: bytes, recipe: dict[str, Any]
) -> None:
    """A client that lost the answer sends the same request with the same key again."""
    model = sql_api.client.post("/v1/models", content=model_file).json()
    body = {"model_id": model["id"], "recipe": recipe, "type": "plan"}
    url, headers = "/v1/jobs", {"Idempotency-Key": "3f1c"}
    first = sql_api.client.post(url, json=body, headers=headers)
    again = sql_api.client.post(url, json=body, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert again.headers["Location"] == first.headers["Location"]
    assert ("Idempotent-Replayed" in first.headers, "Idempotent-Replayed" in again.headers) == (
        False,
        True,
    )
    other = sql_api.client.post(url, json={**body, "name": "other"}, headers=headers)
    assert other.status_code == 409
    assert other.json()["type"] == "/problems/idempotency-key-reused"
    assert len(sql_api.client.get("/v1/jobs?type=plan").json()["data"]) == 1
    for without in ({}, {"Idempotency-Key": "another"}):
        assert (
            sql_api.client.post(url, json=body, headers=without).json()["id"] != first.json()["id"]
        )
    # another tenant's keys are its own
    theirs = sql_api.stranger.post("/v1/models", content=model_file).json()
    made = sql_api.stranger.post(url, json={**body, "model_id": theirs["id"]}, headers=headers)
    assert made.status_code == 202


def test_the_same_key_many_times_at_once(sql_api: Api, model_file: bytes, recipe: Any) -> None:
    model = sql_api.client.post("/v1/models", content=model_file).json()
    body = JobCreate(model_id=model["id"], recipe=recipe, type="plan")
    backend = sql_api.backend

    def send(_: int) -> str:
        once = Once(sql_api.tenant_id, "POST /v1/jobs", "key", Response(), backend.database)
        return service.create(backend, sql_api.tenant_id, body, once).id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(send, range(8)))) == 1


def test_lists_are_filtered_and_paged(sql_api: Api, model_file: bytes, recipe: Any) -> None:
    model = sql_api.client.post("/v1/models", content=model_file).json()
    jobs = [
        make_job(sql_api, model["id"], recipe, metadata={"run": str(n % 2), "team": "a b"})
        for n in range(4)
    ]
    sql_api.client.post(f"/v1/jobs/{jobs[0]['id']}/cancel")

    def ids(query: str) -> list[str]:
        response = sql_api.client.get(f"/v1/jobs?{query}")
        assert response.status_code == 200, response.text
        return [job["id"] for job in response.json()["data"]]

    newest_first = sorted((job["id"] for job in jobs), reverse=True)
    assert ids("type=compress") == newest_first
    assert len(ids("")) == 5
    assert ids("status=canceled") == [jobs[0]["id"]]
    assert len(ids("status=canceled&status=queued")) == 5
    assert set(ids("metadata.run=1")) == {jobs[1]["id"], jobs[3]["id"]}
    assert ids("metadata.run=1&metadata.team=a%20b&status=canceled") == []
    assert ids("metadata.none=1") == []
    assert len(ids(f"model_id={model['id']}")) == 5
    assert ids("model_id=mdl_other") == []
    first = sql_api.client.get("/v1/jobs?type=compress&limit=3").json()
    assert first["has_more"]
    assert ids(f"type=compress&limit=3&cursor={first['next_cursor']}") == newest_first[3:]


def test_another_tenants_job_is_not_there(api: Api, model_id: str, recipe: Any) -> None:
    job = make_job(api, model_id, recipe)
    path = f"/v1/jobs/{job['id']}"
    for suffix in ("", "?wait=1", "/events", "/metrics", "/logs", "/artifacts", "/report"):
        assert api.stranger.get(path + suffix).status_code == 404, suffix
    stream = api.stranger.get(path + "/events", headers={"Accept": "text/event-stream"})
    assert stream.status_code == 404
    assert api.stranger.post(path + "/cancel").status_code == 404
    assert api.stranger.get("/v1/jobs").json()["data"] == []
    response = api.stranger.post("/v1/jobs", json={"model_id": model_id, "recipe": recipe})
    assert response.status_code == 404
    assert response.json()["type"] == "/problems/model-not-found"


def test_cancel(api: Api, model_id: str, recipe: Any) -> None:
    waiting, running = make_job(api, model_id, recipe), make_job(api, model_id, recipe)
    response = api.client.post(f"/v1/jobs/{waiting['id']}/cancel")
    assert response.status_code == 202
    assert response.json()["status"] == "canceled"
    held = claim(api, running["id"])
    canceling = api.client.post(f"/v1/jobs/{running['id']}/cancel").json()
    assert canceling["status"] == "canceling"
    finish(api, held, "canceled")
    assert api.client.post(f"/v1/jobs/{running['id']}/cancel").json()["status"] == "canceled"
    types = [e["type"] for e in api.client.get(f"/v1/jobs/{running['id']}/events").json()["data"]]
    assert types == ["queued", "started", "canceling", "canceled"]


def test_waiting_ends_with_the_job(api: Api, model_id: str, recipe: Any) -> None:
    job = make_job(api, model_id, recipe)
    held = claim(api, job["id"])
    started = time.monotonic()
    assert api.client.get(f"/v1/jobs/{job['id']}?wait=0.6").json()["status"] == "running"
    assert 0.5 < time.monotonic() - started < 5

    def move() -> None:  # no end: whoever waits goes on waiting
        with api.backend.database.session() as session:
            job_queue.append_metric(session, held, name="loss", value=1.0, step=1, stage="x")

    def end() -> None:
        store(api, held, "plot", "image/svg+xml", b"<svg/>")
        finish(api, held, result={"layers": 1})

    timers = [threading.Timer(0.1, move), threading.Timer(0.6, end)]
    for timer in timers:
        timer.start()
    started = time.monotonic()
    ended = api.client.get(f"/v1/jobs/{job['id']}?wait=30").json()
    assert (ended["status"], ended["result"]) == ("succeeded", {"layers": 1})
    assert [one["kind"] for one in ended["artifacts"]] == ["plot"]
    assert time.monotonic() - started < 10
    for timer in timers:
        timer.join()
    assert api.client.get(f"/v1/jobs/{job['id']}?wait=30").json()["finished_at"]
    assert api.backend.changes.watched == 0


def test_events_metrics_and_logs_come_in_pages(
    sql_api: Api, model_file: bytes, recipe: Any
) -> None:
    model = sql_api.client.post("/v1/models", content=model_file).json()
    job = make_job(sql_api, model["id"], recipe)
    path = f"/v1/jobs/{job['id']}"
    held = claim(sql_api, job["id"])
    with sql_api.backend.database.session() as session:
        for step in range(5):
            for name in ("train/loss", "lr"):
                assert job_queue.append_metric(
                    session, held, name=name, value=step / 2, step=step, stage="finetune"
                )
        for line in range(250):
            assert job_queue.append_log(session, held, f"line {line}\n")
    events = sql_api.client.get(f"{path}/events?limit=4").json()
    assert [event["seq"] for event in events["data"]] == [1, 2, 3, 4]
    assert (events["has_more"], events["next_cursor"]) == (True, "4")
    rest = sql_api.client.get(f"{path}/events?cursor={events['next_cursor']}").json()
    assert [event["seq"] for event in rest["data"]] == list(range(5, 13))
    assert (rest["has_more"], rest["next_cursor"]) == (False, None)
    losses = sql_api.client.get(f"{path}/metrics?name=train/loss&limit=3").json()
    assert [metric["value"] for metric in losses["data"]] == [0.0, 0.5, 1.0]
    more = sql_api.client.get(f"{path}/metrics?name=train/loss&cursor={losses['next_cursor']}")
    assert [metric["value"] for metric in more.json()["data"]] == [1.5, 2.0]
    log = sql_api.client.get(f"{path}/logs")
    assert log.headers["Content-Type"].startswith("text/plain")
    assert log.text == "".join(f"line {line}\n" for line in range(250))


def test_a_stream_tells_everything_until_the_end(api: Api, model_id: str, recipe: Any) -> None:
    job = make_job(api, model_id, recipe)
    held = claim(api, job["id"])
    url = f"/v1/jobs/{job['id']}/events"
    headers = {"Accept": "text/event-stream"}
    timer = threading.Timer(0.6, finish, [api, held])
    timer.start()
    with api.client.stream("GET", url, headers=headers) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        lines = list(response.iter_lines())
    timer.join()
    assert [line for line in lines if line.startswith("event:")] == [
        "event: queued",
        "event: started",
        "event: succeeded",
    ]
    assert [line for line in lines if line.startswith("id:")] == ["id: 1", "id: 2", "id: 3"]
    resumed = api.client.get(url, headers={**headers, "Last-Event-ID": "2"})
    assert "event: succeeded" in resumed.text
    assert "event: started" not in resumed.text
    # nothing is left: 204 tells an EventSource to stay away
    assert api.client.get(url, headers={**headers, "Last-Event-ID": "3"}).status_code == 204
    assert api.client.get(f"{url}?after=3").json()["data"] == []
    assert api.client.get(url, headers={"Accept": "image/png"}).status_code == 406
    assert api.backend.changes.watched == 0


def test_a_quiet_stream_has_a_heartbeat(
    api: Api, model_id: str, recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.jobs.event_stream.HEARTBEAT_SECONDS", 0.2)
    job = make_job(api, model_id, recipe)
    held = claim(api, job["id"])
    timer = threading.Timer(1.0, finish, [api, held])
    timer.start()
    response = api.client.get(
        f"/v1/jobs/{job['id']}/events", headers={"Accept": "text/event-stream"}
    )
    timer.join()
    assert response.text.count(": ping\n\n") >= 2
    assert response.text.endswith("id: 3\n\n")


def test_the_report_comes_in_the_asked_format(api: Api, model_id: str, recipe: Any) -> None:
    job = make_job(api, model_id, recipe)
    url = f"/v1/jobs/{job['id']}/report"
    early = api.client.get(url)
    assert (early.status_code, early.json()["type"]) == (409, "/problems/job-unfinished")
    assert "wait=" in early.json()["hint"]
    held = claim(api, job["id"])
    store(api, held, "report_json", "application/json", b'{"version": 1}')
    store(api, held, "report_html", "text/html", b"<p>report</p>")
    assert api.client.get(url).status_code == 409  # not before the job has ended
    finish(api, held)
    plain = api.client.get(url)
    assert plain.headers["Content-Type"] == "application/json"
    assert plain.json() == {"version": 1}
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    for response in (
        api.client.get(url, headers={"Accept": browser}),
        api.client.get(f"{url}?format=html"),
    ):
        assert response.headers["Content-Type"].startswith("text/html")
        assert response.text == "<p>report</p>"
        assert response.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Accept" in plain.headers["Vary"]
    tag = {"If-None-Match": plain.headers["ETag"]}
    assert api.client.get(url, headers=tag).status_code == 304
    refused = api.client.get(url, headers={"Accept": "image/png"})
    assert (refused.status_code, refused.json()["type"]) == (406, "/problems/not-acceptable")
    assert api.client.get(f"{url}?format=pdf").status_code == 422


def test_a_failed_job_says_why_there_is_no_report(api: Api, model_id: str, recipe: Any) -> None:
    job = make_job(api, model_id, recipe)
    error = {"type": "nothing-pruned", "title": "The plan removes nothing.", "hint": "Ask more."}
    finish(api, claim(api, job["id"]), "failed", error=error)
    response = api.client.get(f"/v1/jobs/{job['id']}/report")
    assert response.status_code == 409
    assert response.json()["type"] == "/problems/report-missing"
    assert response.json()["detail"] == "The plan removes nothing."
    assert response.json()["hint"] == "Ask more."
    shown = api.client.get(f"/v1/jobs/{job['id']}").json()["error"]
    assert shown == {**error, "where": "", "retryable": False}


def test_an_inspection_has_no_report(api: Api, model_id: str) -> None:
    [job] = api.client.get(f"/v1/jobs?type=inspect&model_id={model_id}").json()["data"]
    info = {"arguments": [], "methods": ["forward"], "parameters": 3, "buffers": 0,
            "dtypes": ["float32"], "layers": ["fc"], "torchscript_bytes": 9}  # fmt: skip
    finish(api, claim(api, job["id"]), result=info)
    response = api.client.get(f"/v1/jobs/{job['id']}/report")
    assert (response.status_code, response.json()["type"]) == (409, "/problems/report-missing")
    model = api.client.get(f"/v1/models/{model_id}").json()
    assert (model["status"], model["info"]) == ("ready", info)


def test_artifacts_are_listed_and_downloaded(api: Api, model_id: str, recipe: Any) -> None:
    job = make_job(api, model_id, recipe)
    held = claim(api, job["id"])
    store(api, held, "model", "application/octet-stream", b"0123456789")
    finish(api, held)
    [artifact] = api.client.get(f"/v1/jobs/{job['id']}/artifacts").json()["data"]
    assert artifact == api.client.get(f"/v1/jobs/{job['id']}").json()["artifacts"][0]
    assert (artifact["kind"], artifact["bytes"]) == ("model", 10)
    url = f"/v1/artifacts/{artifact['id']}"
    assert api.client.get(url).json() == artifact
    whole = api.client.get(f"{url}/content")
    assert whole.content == b"0123456789"
    assert "compact.pt" in whole.headers["Content-Disposition"]
    part = api.client.get(f"{url}/content", headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")
    assert api.client.head(f"{url}/content").headers["Content-Length"] == "10"
    for path in (url, f"{url}/content"):
        response = api.stranger.get(path)
        assert (response.status_code, response.json()["type"]) == (
            404,
            "/problems/artifact-not-found",
        )


def test_a_files_bytes_stay_while_an_artifact_is_them(
    api: Api, model_id: str, recipe: Any, model_file: bytes
) -> None:
    job = make_job(api, model_id, recipe)
    held = claim(api, job["id"])
    store(api, held, "model", "application/octet-stream", model_file)
    finish(api, held)
    assert api.client.delete(f"/v1/models/{model_id}").status_code == 204
    [artifact] = api.client.get(f"/v1/jobs/{job['id']}/artifacts").json()["data"]
    content = api.client.get(f"/v1/artifacts/{artifact['id']}/content").content
    assert content == model_file


def test_formats_that_the_workers_lack_are_refused(
    api_settings: Settings, recipe: Any, model_file: bytes
) -> None:
    settings = api_settings.model_copy(update={"export_formats": "safetensors, pt2"})
    assert Settings().offered_exports is None
    for api in serve(settings):
        model = api.client.post("/v1/models", content=model_file).json()["id"]
        exports = ["safetensors", "torchscript", {"format": "onnx"}]
        body = {"model_id": model, "recipe": recipe | {"exports": exports}}
        response = api.client.post("/v1/jobs", json=body)
        assert response.status_code == 422
        (fault,) = response.json()["errors"]
        assert fault["field"] == "recipe.exports.2"
        assert "`pt2`, `safetensors`, `torchscript`" in fault["message"]
        assert "secateur-server[exports]" in fault["message"]


@pytest.mark.parametrize(
    ("device", "changes", "queue"),
    [
        ("cpu", {"default_queue": "gpu"}, "cpu"),
        ("cuda", {}, "gpu"),
        ("auto", {}, "cpu"),
        ("auto", {"gpu_device": "0"}, "gpu"),
        ("auto", {"default_queue": "cpu", "gpu_device": "0"}, "cpu"),
        ("auto", {"default_queue": "gpu"}, "gpu"),
    ],
)
def test_the_queue_follows_device_and_settings(
    device: Any, changes: dict[str, Any], queue: str
) -> None:
    assert choose_queue(device, Settings(**changes)) == queue


def test_a_rejected_model_takes_no_jobs(api: Api, model_id: str, recipe: Any) -> None:
    with api.backend.database.session() as session:
        model = session.get_one(ModelRecord, model_id)
        model.status = "rejected"
        model.error = {"type": "not-torchscript", "title": "It does not load.", "hint": "Fix it."}
    response = api.client.post("/v1/jobs", json={"model_id": model_id, "recipe": recipe})
    assert response.status_code == 409
    assert response.json()["type"] == "/problems/model-rejected"
    assert "It does not load." in response.json()["detail"]
    assert response.json()["hint"] == "Fix it."
    with api.backend.database.session() as session:
        assert session.scalars(select(JobRecord.type)).all() == ["inspect"]
