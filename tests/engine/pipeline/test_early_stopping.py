"""A run that ends early says so, and so does one that is resumed after its last epoch."""

from __future__ import annotations

from engine.pipeline import compress
from tests.engine.digits import Recorder
from tests.engine.pipeline.conftest import prune

RECIPE = {
    "stages": [
        prune(),
        {
            "stage": "finetune",
            "epochs": 30,
            "optimizer": {"lr": 1e-6},
            "early_stopping": {"patience": 2, "min_delta": 0.9},
        },
    ],
}


def stops(heard):
    return [text for text, *_ in heard.logs if "stopped early" in text]


def test_an_event_says_so(make_job, lenet, little_data, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    heard = Recorder(keep=kept)
    compress(make_job(lenet, RECIPE, little_data), heard)
    (said,) = stops(heard)
    expected = (
        "finetune: stopped early after epoch 3 of 30: validation accuracy did not rise by more "
        "than 0.9 in 2 epochs; it was "
    )
    assert said.startswith(expected)
    # original, pruned, three epochs, fine-tuned: the fifth checkpoint is after the last epoch
    assert heard.checkpoints == 6
    again = Recorder()
    compress(make_job(lenet, RECIPE, little_data, kept / "5.pt"), again)
    assert stops(again) == [said]
