"""`secateur pack` and `secateur unpack`."""

from __future__ import annotations

from pathlib import Path

import pytest
from secateur.cli.main import app
from typer.testing import CliRunner

from tests.client.archive.models import write_model


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(item) for item in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0
    return done.output


def test_there_and_back(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.pt")

    packed = run("pack", model)
    unpacked = run("unpack", tmp_path / "model.secateur", "-o", tmp_path / "back.pt")

    assert "model.secateur" in packed
    assert "back.pt" in unpacked
    assert (tmp_path / "model.secateur").stat().st_size < model.stat().st_size / 3
    with pytest.raises(Exception, match="exists already"):
        run("unpack", tmp_path / "model.secateur")
    run("unpack", tmp_path / "model.secateur", "--force")
    assert model.read_bytes() == (tmp_path / "back.pt").read_bytes()


@pytest.mark.parametrize(("limit", "says"), [("10kB", "10000 are allowed"), ("much", "no size")])
def test_limits(limit: str, says: str, tmp_path: Path) -> None:
    run("pack", write_model(tmp_path / "model.pt"))

    with pytest.raises(Exception, match=says):
        run("unpack", tmp_path / "model.secateur", "-o", tmp_path / "x.pt", "--limit", limit)
