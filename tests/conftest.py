"""Fixtures of every test folder, and the line that says what the tests ran against."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import services
from tests.s3_fault_proxy import S3FaultProxy, s3_fault_proxy
from tests.s3_server import S3Server, s3_server

# The same examples on every run, so that a red run can be repeated; make fuzz explores new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=200)
settings.load_profile(os.environ.get("SECATEUR_HYPOTHESIS", "repeatable"))

NAMES = ("PostgreSQL", "Redis", "RabbitMQ")
_used = pytest.StashKey[dict[str, set[str]]]()


def _record(config: pytest.Config, service: services.Service) -> services.Service:
    config.stash[_used].setdefault(service.name, set()).add(str(service))
    return service


@pytest.fixture(scope="session")
def postgres_service(request: pytest.FixtureRequest) -> Iterator[services.Service]:
    """A PostgreSQL server on which databases can be made."""
    with services.postgres_server() as service:
        yield _record(request.config, service)


@pytest.fixture(scope="session")
def postgres_url(postgres_service: services.Service) -> Iterator[str]:
    """One fresh database for the whole session."""
    with services.postgres_database(postgres_service) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty numbered Redis database."""
    with services.redis_server() as service:
        yield _record(request.config, service).url


@pytest.fixture(scope="session")
def rabbitmq_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A RabbitMQ virtual host."""
    with services.rabbitmq_server() as service:
        yield _record(request.config, service).url


@pytest.fixture(scope="session")
def s3_service() -> Iterator[S3Server]:
    """A server that speaks S3, for the whole session; make a bucket of your own."""
    with s3_server() as server:
        yield server


@pytest.fixture
def s3_proxy(s3_service: S3Server) -> Iterator[S3FaultProxy]:
    """A proxy in front of it that fails on demand."""
    with s3_fault_proxy(s3_service.port) as proxy:
        yield proxy


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh, empty database for this test alone: once on SQLite, once on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'test.db'}"
        return
    with services.postgres_database(request.getfixturevalue("postgres_service")) as url:
        yield url


def pytest_configure(config: pytest.Config) -> None:
    """Start the record of what the tests run against."""
    config.stash[_used] = {}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist hands its record to the main process."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["services"] = {k: sorted(v) for k, v in session.config.stash[_used].items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Collect the record of a pytest-xdist worker."""
    config: pytest.Config = node.config  # type: ignore[attr-defined]
    for name, lines in getattr(node, "workeroutput", {}).get("services", {}).items():
        config.stash[_used].setdefault(name, set()).update(lines)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say which servers the tests ran against, and which none asked for."""
    used = config.stash[_used]
    for name in NAMES:
        for line in sorted(used.get(name, ())):
            terminalreporter.write_line(f"ran against: {line}")
        if name not in used:
            terminalreporter.write_line(f"ran against: no {name} (no selected test asked for it)")
