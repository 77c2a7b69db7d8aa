"""Hostile files sent to the API: each is refused with its reason, and nothing of it stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import migrations
from persistence.settings import Settings
from tests.attacks.archives import good
from tests.attacks.refused import CODES, OPERATORS, PICKLES, ZIPS, Attack
from tests.service.conftest import Api, serve

KINDS = {
    f"{kind}: {name}": attack
    for kind, attacks in (
        ("operator", OPERATORS),
        ("code", CODES),
        ("pickle", PICKLES),
        ("zip", ZIPS),
    )
    for name, attack in attacks.items()
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("door")
    migrations.upgrade(f"sqlite:///{folder / 'secateur.db'}")
    yield from serve(Settings(data_dir=folder))


@pytest.mark.parametrize("attack", KINDS.values(), ids=KINDS.keys())
def test_it_is_refused_with_its_reason(api: Api, attack: Attack) -> None:
    make, words = attack
    response = api.client.post("/v1/models", content=make())
    if response.status_code == 201:  # so that the next attack finds nothing of this one
        api.client.delete(f"/v1/models/{response.json()['id']}")
    assert response.status_code == 422, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    kinds = {"not-torchscript", "archive-refused", "operator-refused"}
    assert problem["type"].removeprefix("/problems/") in kinds
    text = problem["detail"]
    assert any(word in text for word in words.split("|")), text
    assert problem["hint"]
    assert text.isprintable()
    assert len(text) < 1000
    assert api.client.get("/v1/models").json()["data"] == []
    assert api.blobs() == []


def test_there_are_attacks_enough_and_a_good_file_passes(api: Api, tmp_path: Path) -> None:
    assert len(KINDS) >= 80
    assert not Path("/tmp/stolen.pt").exists()  # noqa: S108
    response = api.client.post("/v1/models", content=good())
    assert response.status_code == 201, response.text
    assert api.client.delete(f"/v1/models/{response.json()['id']}").status_code == 204
