"""Files are there whole or not at all, also where the disk is full for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.pipeline.durable import NotWritten, replaced


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with replaced(path) as target:
        target.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(KeyboardInterrupt):
        _left_halfway(path)
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def _left_halfway(path):
    with replaced(path) as target:
        target.write(b"half")
        raise KeyboardInterrupt


def test_no_room_is_told_with_the_path(tmp_path):
    with (
        pytest.raises(NotWritten, match=r"cannot be written: No such file") as caught,
        replaced(tmp_path / "nowhere" / "file"),
    ):
        pass
    assert str(tmp_path / "nowhere" / "file") in str(caught.value)


FULL = """
import json, os, resource, sys, torch
from pathlib import Path
from engine.pipeline.durable import NotWritten, replaced
path = Path(sys.argv[1])
limit = int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with replaced(path) as target:
        torch.save({"a": torch.arange(1 << 20)}, target)
except NotWritten as error:
    print(json.dumps({"said": str(error), "left": sorted(os.listdir(path.parent))}))
"""


def _filled(path: Path, *, limit: int) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(limit)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)


def test_a_limit_on_file_sizes(tmp_path):
    path = tmp_path / "file.pt"
    torch.save({"a": 1}, path)
    found = _filled(path, limit=1 << 20)
    assert found["left"] == ["file.pt"]
    assert f"no room for `{path}`" in found["said"]
    assert "MB are free there" in found["said"]
    assert torch.load(path, weights_only=True) == {"a": 1}
