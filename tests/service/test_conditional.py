"""`ETag` and `If-None-Match` of JSON: the tag changes exactly when the body does."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event

from persistence import job_queue
from tests.service.conftest import Api


def tag_of(api: Api, path: str) -> str:
    response = api.client.get(path)
    assert response.status_code == 200, response.text
    tag = response.headers["ETag"]
    assert tag.removeprefix("W/")[0] == tag[-1] == '"'
    same = api.client.get(path, headers={"If-None-Match": f'"other", {tag}'})
    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", tag)
    assert "Content-Type" not in same.headers
    assert api.client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    head = api.client.head(path)
    assert (head.status_code, head.headers["ETag"], head.content) == (200, tag, b"")
    assert api.client.head(path, headers={"If-None-Match": tag}).status_code == 304
    return str(tag)


def test_every_json_resource_has_a_tag(api: Api, model_file: bytes, dataset_file: bytes) -> None:
    model = api.client.post("/v1/models", content=model_file).headers["Location"]
    dataset = api.client.post("/v1/datasets", content=dataset_file).headers["Location"]
    upload = api.client.post("/v1/uploads", json={"kind": "model"}).headers["Location"]
    [key] = api.client.get("/v1/api-keys").json()["data"]
    [job] = api.client.get("/v1/jobs").json()["data"]
    api.client.post(f"/v1/jobs/{job['id']}/cancel")  # its clocks stand still
    paths = [model, dataset, upload, f"/v1/api-keys/{key['id']}", f"/v1/jobs/{job['id']}"]
    paths += ["/v1/methods", "/v1/limits", "/v1/jobs", f"/v1/jobs/{job['id']}/events"]
    tags = [tag_of(api, path) for path in paths]
    assert len(set(tags)) == len(tags)
    assert not any(tag.startswith("W/") for tag in tags)
    api.client.put(f"{upload}/parts/1", content=b"x")
    assert tag_of(api, upload) != tags[2]
    for problem in ("/v1/models/mdl_none", "/v1/nothing"):
        response = api.client.get(problem, headers={"If-None-Match": "*"})
        assert (response.status_code, "ETag" in response.headers) == (404, False)
    stream = api.client.get(f"/v1/jobs/{job['id']}/logs")
    assert "ETag" not in stream.headers


def test_the_tag_of_a_job_moves_with_its_body(
    sql_api: Api, model_file: bytes, recipe: dict[str, Any]
) -> None:
    api = sql_api
    model = api.client.post("/v1/models", content=model_file).json()
    body = {"model_id": model["id"], "recipe": recipe}
    made = [api.client.post("/v1/jobs", json=body).json()["id"] for _ in range(2)]
    path = f"/v1/jobs/{made[1]}"
    seen: dict[str, str] = {}

    def look() -> None:
        tag, job = tag_of(api, path), api.client.get(path).json()
        live = job["status"] in ("queued", "running")
        assert tag.startswith("W/") == live
        clocks = ("waited_seconds", "ran_seconds") if live else ()
        shown = str({name: value for name, value in job.items() if name not in clocks})
        assert seen.setdefault(tag, shown) == shown
        assert list(seen.values()).count(shown) == 1

    look()
    api.client.post(f"/v1/jobs/{made[0]}/cancel")  # moves the other one up
    look()
    assert len(seen) == 2  # its place in the queue
    with api.backend.database.session() as session:
        held = job_queue.claim(session, made[1], "worker", 60)
    assert held is not None
    steps: list[Any] = [
        lambda s: job_queue.start_stage(s, held, 0, "prune"),
        lambda s: job_queue.set_progress(
            s, held, {"current": 1, "total": 2, "unit": "batch"}, event=False
        ),
        lambda s: job_queue.finish(s, held, "succeeded", result={"a": 1}),
    ]
    for step in steps:
        look()
        with api.backend.database.session() as session:
            assert step(session)
    look()
    assert len(seen) == 6
    assert list(seen)[-1].startswith(f'"{made[1]}.')


def test_a_poll_that_finds_nothing_new_is_one_narrow_query(api: Api, model_file: bytes) -> None:
    api.client.post("/v1/models", content=model_file)
    [job] = api.client.get("/v1/jobs").json()["data"]
    path = f"/v1/jobs/{job['id']}"
    api.client.post(f"{path}/cancel")
    tag = tag_of(api, path)
    asked: list[str] = []
    event.listen(
        api.backend.database.engine,
        "before_cursor_execute",
        lambda _c, _k, statement, *_: asked.append(statement),
    )
    assert api.client.get(path, headers={"If-None-Match": tag}).status_code == 304
    of_jobs = [statement for statement in asked if "FROM jobs" in statement]
    assert len(of_jobs) == 1
    assert "recipe" not in of_jobs[0]
    assert not any("artifacts" in statement for statement in asked)
    assert api.stranger.get(path, headers={"If-None-Match": tag}).status_code == 404
