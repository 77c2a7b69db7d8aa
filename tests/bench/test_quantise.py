"""The benchmark of stored weights on a network of a moment."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.quantise.__main__ import latencies, sizes
from bench.quantise.latency import ratios
from bench.quantise.networks import Network
from bench.quantise.schemes import SCHEMES, stored

SMALL = Network(
    lambda: nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 4)),
    lambda batch: torch.randn(batch, 256),
)


def test_fewer_bits_make_smaller_files() -> None:
    found = sizes(SMALL)
    by_bits = [min(found[f"{name}"].values()) for name in list(SCHEMES)[:4]]
    assert by_bits == sorted(by_bits)
    assert by_bits[0] > 3


def test_small_layers_stay_as_they_are() -> None:
    rounded, packed = stored(SMALL.program(), SCHEMES["4 bits, groups of 64"], "at_load")
    before = SMALL.program().parameters()
    assert torch.equal(rounded.parameters()["2.bias"], before["2.bias"])
    assert not torch.equal(rounded.parameters()["0.weight"], before["0.weight"])
    small = Network(lambda: nn.Linear(8, 8), lambda batch: torch.randn(batch, 8))
    rounded, packed = stored(small.program(), SCHEMES["4 bits, groups of 64"], "at_load")
    assert torch.equal(packed.parameters()["weight"], small.program().parameters()["weight"])


def test_files_that_compute_something_else_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.quantise.latency._BLOCK_SECONDS", 0.001)
    found = latencies(SMALL, "4 bits, groups of 64", 2, 2)
    assert found["dense"] == 1
    assert found.keys() == {"dense", "dense again", "at_load", "at_use"}
    files = {"one": SMALL.program().to_bytes()}
    files["other"] = stored(SMALL.program(), SCHEMES["1 bit, groups of 64"], "at_use")[1].to_bytes()
    with pytest.raises(RuntimeError, match="other"):
        ratios(files, torch.randn(2, 256), 1)
