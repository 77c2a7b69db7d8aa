"""docker-compose.yml: what it says, and a job through what it starts."""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from deploy import api_requirements
from tests import services
from tests.deploy.compose import ROOT, SERVERS, Deployment, MissingVariable, interpolate, load
from tests.workers import uploads
from tests.workers.worker_world import wait_until

SECRETS = {"POSTGRES_PASSWORD": "a:b", "REDIS_PASSWORD": "c"}


def test_it_names_the_services_and_our_programs() -> None:
    found = load()["services"]
    assert set(found) == SERVERS | {"migrate", "api", "dispatcher", "cpu-worker", "gpu-worker"}
    for name, service in found.items():
        assert isinstance(service.get("command", []), list), name
        if name != "migrate":
            assert "healthcheck" in service, name
        for needed in service.get("depends_on", {}):
            assert needed in found, (name, needed)
        for mount in service.get("volumes", []):
            assert mount.split(":")[0] in load()["volumes"], (name, mount)


def test_it_holds_no_secret_and_refuses_to_start_without_them() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for line in text.splitlines():
        if re.search(r"(?i)password|secret|requirepass", line):
            assert "${" in line or line.lstrip().startswith("#"), line
    with pytest.raises(MissingVariable, match="POSTGRES_PASSWORD"):
        interpolate(load(), {})
    interpolate(load(), SECRETS)
    listed = (ROOT / "deploy" / "example.env").read_text()
    assert set(re.findall(r"\$\{(\w+)", text)) == set(re.findall(r"(?m)^(\w+)=", listed))
    assert not re.search(r"(?m)^\w*PASSWORD=.+", listed)


def test_the_api_has_no_broker_and_the_workers_share_its_artifacts() -> None:
    services = load()["services"]
    assert "SECATEUR_BROKER_URL" not in services["api"]["environment"]
    for name in ("dispatcher", "cpu-worker", "gpu-worker"):
        assert services[name]["environment"]["SECATEUR_BROKER_URL"].startswith("redis://")
    folders = {
        name: services[name]["environment"]["SECATEUR_ARTIFACT_DIR"]
        for name in ("api", "dispatcher", "cpu-worker", "gpu-worker")
    }
    assert len(set(folders.values())) == 1
    for name, folder in folders.items():
        assert f"artifacts:{folder}" in services[name]["volumes"]


def test_the_images_are_there_and_run_as_a_user() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    targets = set(re.findall(r"(?m)^FROM \S+ AS (\w+)", text))
    for service in load()["services"].values():
        build = service.get("build")
        if build:
            assert build["dockerfile"] == "deploy/Dockerfile"
            assert build["target"] in targets
    for source in re.findall(r"(?m)^COPY (.+) \S+$", text):
        for name in source.split():
            assert (ROOT / name).exists(), name
    for target in ("api", "worker"):
        stage = text.split(f" AS {target}\n")[1].split("\nFROM ")[0]
        assert "\nUSER secateur\n" in stage


def imported(package: str) -> set[str]:
    names: set[str] = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.split(".")[0])
    return names


def test_the_api_image_leaves_out_only_what_the_api_does_not_import() -> None:
    used = imported("service") | imported("persistence") | imported("migrations")
    unneeded = api_requirements.LEFT_OUT - {"secateur"}
    assert not used & unneeded
    kept = "\n".join(api_requirements.requirements(ROOT / "pyproject.toml"))
    for name in ("torch", "matplotlib", "celery"):
        assert name not in kept
    for name in ("fastapi", "sqlalchemy", "psycopg", "alembic", "uvicorn"):
        assert name in kept


@pytest.fixture
def deployment(tmp_path: Path, postgres_service: services.Service, redis_url: str) -> Any:
    with services.postgres_database(postgres_service) as url:
        yield Deployment(
            folder=tmp_path,
            servers={"postgres": url, "redis": redis_url},
            port=services.free_port(),
            variables=SECRETS,
        )


@pytest.mark.exhaustive
def test_a_job_runs_through_the_deployment(deployment: Deployment) -> None:
    migrated = deployment.run("migrate", deployment.command("migrate"))
    assert migrated.returncode == 0, migrated.stderr
    made = deployment.run("api", deployment.command_of("deploy/create_key.py", "--tenant", "mine"))
    assert made.returncode == 0, made.stderr
    url, key = f"http://127.0.0.1:{deployment.port}", made.stdout.strip()
    with ExitStack() as stack:
        for name in ("api", "dispatcher", "cpu-worker"):
            stack.enter_context(deployment.start(name))
        for name in ("api", "dispatcher", "cpu-worker"):
            check = deployment.health_check(name)
            wait_until(lambda n=name, c=check: deployment.run(n, c).returncode == 0, 60)
        client = stack.enter_context(
            httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=90)
        )
        report, model = compress_a_model(client)
    assert report["after"]["parameters"] < report["before"]["parameters"]
    compact = torch.jit.load(io.BytesIO(model))
    assert compact(torch.zeros(3, 4)).shape == (3, 2)


def compress_a_model(client: httpx.Client) -> tuple[dict[str, Any], bytes]:
    """Upload, compress, download; the report and the smaller model."""
    data = uploads.scripted(uploads.Linear)
    assert zipfile.is_zipfile(io.BytesIO(data))
    uploaded = client.post("/v1/models", content=data)
    assert uploaded.status_code == 201, uploaded.text
    body = {"model_id": uploaded.json()["id"], "recipe": uploads.RECIPE}
    created = client.post("/v1/jobs", json=body)
    assert created.status_code == 202, created.text
    address = created.headers["location"]
    for _ in range(4):
        job = client.get(address, params={"wait": 30}).json()
        if job["finished_at"] is not None:
            break
    assert job["status"] == "succeeded", job
    contents = {
        artifact["kind"]: client.get(f"/v1/artifacts/{artifact['id']}/content")
        for artifact in job["artifacts"]
    }
    assert all(answer.status_code == 200 for answer in contents.values())
    return json.loads(contents["report_json"].content), contents["model"].content


def test_the_gpu_worker_needs_a_gpu_and_says_so(deployment: Deployment) -> None:
    command = deployment.command("gpu-worker")
    assert command[1:] == [
        "-m", "workers.worker", "--queues", "gpu", "--concurrency", "1", "--drain-seconds", "30",
    ]  # fmt: skip
    assert deployment.environment("gpu-worker")["SECATEUR_GPU_DEVICE"] == "0"
    # The first device that this machine does not have: number 0 where there is no GPU at all.
    absent = f"SECATEUR_GPU_DEVICE={torch.cuda.device_count()}"
    ended = deployment.run("gpu-worker", ["env", absent, *command])
    assert ended.returncode == 2
    assert f"{absent} cannot be used" in ended.stderr
    assert "sees no GPU" in ended.stderr
