"""The fixtures themselves: found servers, private ones, and what they leave behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager

import kombu
import psycopg
import pytest
import redis
import sqlalchemy

from tests import services


def reach(service: services.Service) -> None:
    """Connect to the service and use it."""
    if service.name == "PostgreSQL":
        with (
            services.postgres_database(service) as url,
            psycopg.connect(url.replace("+psycopg", "")) as connection,
        ):
            assert connection.execute("SELECT count(*) FROM pg_class").fetchone()
    elif service.name == "Redis":
        with redis.Redis.from_url(service.url) as client:
            assert client.set("key", "value")
    else:
        with kombu.Connection(service.url) as connection:
            queue = connection.SimpleQueue("queue")
            queue.put({"job": 1})
            assert queue.get(timeout=10).payload == {"job": 1}


SERVERS = [services.postgres_server, services.redis_server, services.rabbitmq_server]


@pytest.mark.parametrize("server", SERVERS)
def test_private_server(
    server: Callable[[], AbstractContextManager[services.Service]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "answers", lambda _port: False)
    monkeypatch.delenv("SECATEUR_TEST_POSTGRES", raising=False)
    with server() as service:
        assert service.port not in (5432, 6379, 5672)
        assert "private" in service.origin
        reach(service)
        port = service.port
    monkeypatch.undo()
    assert not services.answers(port)


def test_no_server_and_no_binary_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(services.ServiceUnavailable, match=re.escape("apt-get install pkg")):
        services.binary("no-such-server", "usr/nowhere", "pkg")


def test_database_url_is_empty_and_writable(database_url: str) -> None:
    engine = sqlalchemy.create_engine(database_url)
    with engine.begin() as connection:
        assert sqlalchemy.inspect(connection).get_table_names() == []
        connection.execute(sqlalchemy.text("CREATE TABLE t (x INTEGER)"))
    engine.dispose()


def test_postgres_database_is_dropped(postgres_service: services.Service) -> None:
    with services.postgres_database(postgres_service) as url:
        name = url.rpartition("/")[2]
    with psycopg.connect(postgres_service.url) as connection:
        rows = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        assert rows.fetchall() == []


def test_redis_and_rabbitmq(redis_url: str, rabbitmq_url: str) -> None:
    reach(services.Service("Redis", redis_url, "", 0, ""))
    reach(services.Service("RabbitMQ", rabbitmq_url, "", 0, ""))
