"""The shell snippets of docs/api.md, run in order against a real server."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import torch

from tests import zoo
from tests.e2e.conftest import Server

PAGE = Path(__file__).parents[2] / "docs/api.md"


def test_every_snippet_of_the_api_page_works(server: Server, tmp_path: Path) -> None:
    for tool in ("bash", "curl", "python3"):
        assert shutil.which(tool), f"the API page is shell: install {tool}"
    # Where the page expects them: the data folder of `make serve`, the model of `make demo`.
    (tmp_path / ".secateur").symlink_to(server.folder)
    (tmp_path / "build/demo").mkdir(parents=True)
    torch.jit.script(zoo.lenet5(in_size=32)).save(str(tmp_path / "build/demo/original.pt"))
    snippets = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)

    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\necho; echo '---'\n".join(snippets)],  # noqa: S607
        cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "predicted" in ran.stdout
    assert "event: succeeded" in ran.stdout
    assert '"field":"recipe.stages.0.allocation.amount"' in ran.stdout
    assert "<!doctype html>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    compact = torch.jit.load(str(tmp_path / "compact.pt"))
    assert compact(torch.zeros(3, 1, 32, 32)).shape == (3, 10)
    assert compact.state_dict()["conv1.weight"].shape[0] == 10
