"""The command line: usage, recipe mistakes, exit codes, and the catalogue of a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from secateur.methods import METHODS

import migrations
from tests.service.live_server import LiveServer, live_server
from tests.services import free_port

RECIPE = "version: 1\nstages:\n  - stage: prune\n    allocation: {amount: 0.5}\n"
SHAPED = "inputs: [{shape: [1]}]\n" + RECIPE


def secateur(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process, with no server to be found."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SECATEUR_")}
    return subprocess.run(
        [str(Path(sys.executable).with_name("secateur")), *arguments],
        cwd=folder, env=clean | {"XDG_STATE_HOME": str(folder / "state")} | environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.pt").write_bytes(b"anything")
    (tmp_path / "recipe.yaml").write_text(SHAPED)
    return tmp_path


COMPRESS = ("compress", "model.pt", "--recipe", "recipe.yaml", "--out", "out")


def check(done: subprocess.CompletedProcess[str], code: int, *expected: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    for text in expected:
        assert text in done.stderr


def test_no_server(folder: Path) -> None:
    check(secateur(folder, *COMPRESS), 3, "no server was named", "secateur serve")
    assert not (folder / "out").exists()


def test_server_that_does_not_answer(folder: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    check(secateur(folder, "jobs", "list", "--url", url), 3, f"no answer from {url}")


def test_recipe_mistake_is_found_before_looking_for_a_server(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(RECIPE.replace("0.5", "1.5"))
    check(secateur(folder, *COMPRESS), 2, "line 4: stages.0.allocation.amount: ", "hint:")


def test_recipe_that_needs_a_dataset(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(RECIPE + "  - stage: finetune\n")
    check(secateur(folder, *COMPRESS), 2, "line 5: stages.1: needs a dataset: add --data FILE")


def test_recipe_without_input_shapes(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(RECIPE)
    check(secateur(folder, *COMPRESS), 2, "line 1: inputs: give the shapes")


def test_absent_files(folder: Path) -> None:
    check(secateur(folder, "compress", "no.pt", *COMPRESS[2:]), 2, "no.pt is not a file")
    check(secateur(folder, *COMPRESS, "--data", "no.npz"), 2, "no.npz is not a file")
    check(secateur(folder, *COMPRESS[:2], "--recipe", "no.yaml", "--out", "o"), 2, "no.yaml")


def test_out_that_is_a_file(folder: Path) -> None:
    (folder / "out").write_text("")
    check(secateur(folder, *COMPRESS), 2, "--out out is a file")


def test_wrong_usage(folder: Path) -> None:
    check(secateur(folder, "compress"), 2, "Usage")
    check(secateur(folder, "serve", "--port", "0"), 2, "--port")


def test_client_without_server_distribution(folder: Path) -> None:
    """`serve` in a Python that has the client alone says what to install."""
    script = (
        "import importlib.util as u, sys; find = u.find_spec;"
        "u.find_spec = lambda name, *rest: None if name == 'service' else find(name, *rest);"
        "from secateur.cli import app; sys.argv = ['secateur', 'serve']; app()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )
    check(done, 2, "the client only", "secateur-server")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("catalogue")
    migrations.upgrade(f"sqlite:///{folder / 'secateur.db'}")
    with live_server(folder) as server:
        yield server


def ask(running: LiveServer, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    key = running.headers["Authorization"].removeprefix("Bearer ")
    done = secateur(folder, *arguments, SECATEUR_URL=running.url, SECATEUR_API_KEY=key)
    assert done.returncode == 0, done.stderr
    return done


def test_methods_as_json_are_the_answer_of_the_server(running: LiveServer, folder: Path) -> None:
    answer = httpx.get(f"{running.url}/v1/methods", headers=running.headers).json()
    for command in (("methods", "--json"), ("methods", "list", "--json")):
        printed = json.loads(ask(running, folder, *command).stdout)
        assert printed == answer
        assert list(printed) == list(answer)
    names = [method["name"] for method in answer["data"]]
    assert names == [method.name for method in METHODS]
    assert all(method["schema"] for method in answer["data"])


def test_methods_are_listed_and_shown(running: LiveServer, folder: Path) -> None:
    listed = ask(running, folder, "methods").stdout
    assert listed == ask(running, folder, "methods", "list").stdout
    lines = [line.split() for line in listed.splitlines()]
    assert lines[0] == ["kind", "name", "summary", "data"]
    assert [line[:2] for line in lines[1:]] == [[one.kind, one.name] for one in METHODS]
    assert "Li" in ask(running, folder, "methods", "show", "l1_norm").stdout


def test_methods_with_options_in_the_wrong_place(folder: Path) -> None:
    check(secateur(folder, "methods", "--json", "show", "l1_norm"), 2, "methods show ... --json")
    check(secateur(folder, "methods"), 3, "no server was named")
