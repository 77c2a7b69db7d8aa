from __future__ import annotations

import contextlib
import json
import os
import signal
import time

import psutil
import pytest
import torch
from torch import nn

from engine.errors import CertificateFailed
from engine.pipeline.fork_server import ForkServer
from engine.pipeline.reload import check_reload
from engine.torchscript.program import Program
from tests.engine.digits import save_scripted

INPUTS = (torch.linspace(-1, 1, 8).reshape(2, 4),)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    return save_scripted(nn.Linear(4, 3).eval(), tmp_path / "m.pt")


def test_the_same_file_computes_the_same(saved, tmp_path):
    assert check_reload(Program.load(saved), saved, INPUTS, tmp_path) < 1e-5
    assert not (tmp_path / "reload.pt").exists()


def test_another_weight_is_found(saved, tmp_path):
    program = Program.load(saved)
    with torch.no_grad():
        program.parameters()["weight"][0, 0] += 0.05
    with pytest.raises(CertificateFailed, match="outputs differ"):
        check_reload(program, saved, INPUTS, tmp_path)


def test_a_file_that_does_not_load_is_found(saved, tmp_path):
    program = Program.load(saved)
    saved.write_bytes(saved.read_bytes()[:500])
    with pytest.raises(CertificateFailed, match="fails in a fresh process") as caught:
        check_reload(program, saved, INPUTS, tmp_path)
    assert caught.value.where == "compact.pt"
    assert not (tmp_path / "reload.pt").exists()


class Leaves(nn.Module):
    """Computes another number than before once something has been loaded into its process."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand(1)


def test_every_file_has_a_process_of_its_own(saved, tmp_path):
    def seen(name):
        server.run(tmp_path / name, tmp_path / "reload.pt", tmp_path / "answer.json", 60)
        return json.loads((tmp_path / "answer.json").read_text())["relative_error"]

    server = ForkServer()
    save_scripted(Leaves().eval(), tmp_path / "random.pt")
    torch.manual_seed(0)
    with torch.no_grad():
        expected = Leaves()(*INPUTS)
    exchange = {"inputs": list(INPUTS), "expected": expected, "device": "cpu", "threads": 1}
    torch.save(exchange, tmp_path / "reload.pt")
    try:
        assert [seen("random.pt"), seen("random.pt")] == [0.0, 0.0]
        assert seen("m.pt") == float("inf"), "other shapes"
        assert seen("random.pt") == 0.0
    finally:
        server.close()


class Endless(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while bool(x.sum() < 1e9):
            x = x * 1
        return x


def test_a_model_that_never_returns_is_ended_and_the_next_one_runs(saved, tmp_path):
    server = ForkServer()
    save_scripted(Endless().eval(), tmp_path / "endless.pt")
    exchange = {"inputs": list(INPUTS), "expected": None, "device": "cpu", "threads": 1}
    torch.save(exchange, tmp_path / "reload.pt")
    answer = tmp_path / "answer.json"
    try:
        server.start()
        group = server._process.pid
        assert list(running(group))
        with pytest.raises(TimeoutError):
            server.run(tmp_path / "endless.pt", tmp_path / "reload.pt", answer, 4)
        assert not answer.exists()
        deadline = time.monotonic() + 30  # a killed process takes a moment to go
        while list(running(group)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not list(running(group)), "nothing goes on"
        assert server.run(saved, tmp_path / "reload.pt", answer, 60)[0] == 0
    finally:
        server.close()


def running(group):
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def test_a_model_that_crashes_the_process_is_told_by_its_signal(saved, tmp_path):
    server = ForkServer()
    (tmp_path / "reload.pt").write_bytes(b"")
    try:
        status, said = server.run(saved, tmp_path / "reload.pt", tmp_path / "answer.json", 60)
        assert status == 1
        assert "Error" in said
        server.start()
        os.kill(server._process.pid, signal.SIGKILL)
        status, _ = server.run(saved, tmp_path / "reload.pt", tmp_path / "answer.json", 60)
        assert status in {1, -signal.SIGKILL}
    finally:
        server.close()


def test_no_room_for_the_answer_is_no_fault_of_the_file(saved, tmp_path):
    (tmp_path / "reload.json").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        check_reload(Program.load(saved), saved, INPUTS, tmp_path)


class Loud(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(20_000):
            print("words words words words")  # noqa: T201 - models print
        raise ValueError("the weather is wrong")
        return x


def test_what_a_model_prints_blocks_nothing(tmp_path):
    server = ForkServer()
    save_scripted(Loud().eval(), tmp_path / "loud.pt")
    exchange = {"inputs": list(INPUTS), "expected": None, "device": "cpu", "threads": 1}
    torch.save(exchange, tmp_path / "reload.pt")
    try:
        status, said = server.run(
            tmp_path / "loud.pt", tmp_path / "reload.pt", tmp_path / "answer.json", 60
        )
    finally:
        server.close()
    assert status == 1
    assert "the weather is wrong" in said
