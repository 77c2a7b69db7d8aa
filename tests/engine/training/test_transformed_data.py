"""Training on images that are decoded and transformed: every run of a seed gives the same bits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from secateur.recipe_data import Data

from engine.data import batches as batching
from engine.data.opening import open_dataset
from engine.training.finetune import train
from tests.engine.data.files import npy, packed, png
from tests.engine.training.test_epoch import Every, Within
from tests.engine.training.test_finetune import (
    Observer,
    make_program,
    options,
    run_of,
    same,
    weights,
)

TRANSFORMS = [
    {"kind": "resize", "size": [9, 9]},
    {"kind": "random_crop", "size": [8, 8], "padding": 2},
    {"kind": "flip"},
    {"kind": "normalize", "mean": [0.5], "std": [0.25]},
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    rng = np.random.default_rng(0)
    files = {}
    for number in range(30):
        files[f"train/{number:02}.png"] = png(
            int(rng.integers(256)), (int(rng.integers(5, 12)), 10)
        )
        files[f"train/{number:02}.cls"] = str(number % 10).encode()
        files[f"train/{number:02}.extra.npy"] = npy(np.zeros(1))
    path = packed(tmp_path_factory.mktemp("data") / "data.tar", files)
    data = Data.model_validate({"transforms": {"x": TRANSFORMS}})
    return open_dataset(path, ["x"], data=data)


def run_on(dataset, seed=0, **changes):
    opts = options(epochs=2, batch_size=4)
    return dataclasses.replace(
        run_of(opts, seed=seed, validation=False), train=dataset.train, **changes
    )


def trained(dataset, path, **changes):
    return weights(train(make_program(path), run_on(dataset, **changes), Observer()).program)


def test_a_seed_decides_the_bits_and_threads_do_not(dataset, tmp_path, monkeypatch):
    first = trained(dataset, tmp_path / "m.pt")
    monkeypatch.setattr(batching, "_worth_a_thread", lambda *_: False)
    assert same(first, trained(dataset, tmp_path / "m.pt"))
    assert not same(first, trained(dataset, tmp_path / "m.pt", seed=1))


def test_a_run_left_in_the_middle_of_an_epoch_goes_on_with_the_same_bits(dataset, tmp_path):
    whole = trained(dataset, tmp_path / "m.pt")
    heard = Within()
    train(make_program(tmp_path / "m.pt"), run_on(dataset, pace=Every(3)), heard)
    assert len(heard.within) >= 2
    for state in heard.within:
        resumed = train(make_program(tmp_path / "m.pt"), run_on(dataset), Observer(), resume=state)
        assert same(whole, weights(resumed.program))
