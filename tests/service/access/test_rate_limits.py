"""Requests counted per key and per address, in the process and in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from persistence.settings import Settings
from service.access.rate_limits import RateLimits
from tests.service.conftest import Api, serve


@pytest.fixture
def limited(api_settings: Settings) -> Iterator[Api]:
    few = {"rate_limit_per_minute": 3, "failed_keys_per_minute": 2}
    for api in serve(api_settings.model_copy(update=few)):
        api.backend.rates._clock = lambda: 30.0  # the window does not end within the test
        yield api


def test_a_key_is_told_where_it_stands_and_stopped(limited: Api) -> None:
    left = []
    for _ in range(3):
        response = limited.client.get("/v1/models")
        assert response.status_code == 200
        assert response.headers["RateLimit-Policy"] == '"requests";q=3;w=60'
        left.append(response.headers["RateLimit"])
    assert left == [f'"requests";r={number};t=30' for number in (2, 1, 0)]
    stopped = limited.client.get("/v1/models")
    assert stopped.status_code == 429
    assert stopped.json()["type"] == "/problems/too-many-requests"
    assert stopped.headers["Retry-After"] == "30"
    assert stopped.headers["RateLimit"] == '"requests";r=0;t=30'
    assert limited.stranger.get("/v1/models").status_code == 200
    limited.backend.rates._clock = lambda: 60.0
    assert limited.client.get("/v1/models").status_code == 200


def test_an_address_that_guesses_is_stopped_but_no_key_that_opens(limited: Api) -> None:
    wrong = {"Authorization": "Bearer sk_wrong"}
    found = [limited.anonymous.get("/v1/models", headers=wrong).status_code for _ in range(4)]
    assert found == [401, 401, 429, 429]
    assert limited.client.get("/v1/models").status_code == 200
    assert limited.anonymous.get("/healthz").status_code == 200


def settings(tmp_path: Path, url: str, limit: int = 3) -> Settings:
    return Settings(data_dir=tmp_path, rate_limit_url=SecretStr(url), rate_limit_per_minute=limit)


def test_processes_share_what_they_count_in_redis(tmp_path: Path, redis_url: str) -> None:
    async def used() -> list[int]:
        processes = [RateLimits(settings(tmp_path, redis_url)) for _ in range(2)]
        for one in processes:
            one._clock = lambda: 90.0
        standings = [await one.of_key("key_shared") for one in processes * 2]
        return [standing.used for standing in standings if standing is not None]

    assert asyncio.run(used()) == [1, 2, 3, 4]


def test_a_redis_that_is_away_stops_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def used() -> list[int]:
        rates = RateLimits(settings(tmp_path, "redis://:hunter2hunter2@127.0.0.1:1/0"))
        rates._clock = lambda: 90.0
        standings = [await rates.of_key("key_alone") for _ in range(3)]
        return [standing.used for standing in standings if standing is not None]

    assert asyncio.run(used()) == [1, 2, 3]
    told = [record for record in caplog.records if "Redis is away" in record.getMessage()]
    assert len(told) == 1
    assert "hunter2" not in caplog.text


def test_no_limit_is_no_count(tmp_path: Path) -> None:
    async def standing() -> object:
        return await RateLimits(Settings(data_dir=tmp_path, rate_limit_per_minute=0)).of_key("key")

    assert asyncio.run(standing()) is None
