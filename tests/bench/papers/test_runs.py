"""Claims run and leave records: one seed, one epoch of every training, 64 samples."""

from __future__ import annotations

import pytest
import torch

from bench.papers import __main__ as runner
from bench.papers.claims import claims
from bench.papers.digits import load_splits
from bench.papers.jobs import TINY, run_recipe, training
from bench.papers.networks import LENET_300_100
from bench.papers.records import Record, append, load

CLAIMS = claims()


def test_parts_share_no_sample_and_are_stratified() -> None:
    splits = load_splits()
    assert {name: len(split.digits) for name, split in splits.items()} == {
        "train": 1078,
        "validation": 179,
        "test": 540,
    }
    rows = torch.cat([split.images.flatten(1) for split in splits.values()])
    assert len(rows.unique(dim=0)) == 1797
    for split in splits.values():
        counts = split.digits.bincount(minlength=10)
        assert counts.min() >= 0.9 * len(split.digits) / 10
    assert load_splits(28)["test"].images.shape == (540, 1, 28, 28)
    assert torch.equal(load_splits(28)["test"].digits, splits["test"].digits)


RUN_HERE = [
    ("han", "lenet_300_100/scratch"),
    ("han", "regularised/l1/95"),
    ("lottery", "reinitialised/5"),
    ("supermask", "learned_rescaled"),
    ("rethinking", "channels_50/scratch_b"),
    ("slimming", "scratch"),
    ("channel_criteria", "scratch"),
]
"""Each carries out a whole job of its claim, controls included."""


def test_every_claim_is_tried_here() -> None:
    assert {claim for claim, _ in RUN_HERE} == set(CLAIMS)


@pytest.mark.parametrize(("claim", "variant"), RUN_HERE)
def test_a_run_makes_a_record(claim: str, variant: str) -> None:
    record = runner.run(CLAIMS[claim], variant, 0, TINY)
    assert record.key == (claim, variant, 0)
    assert 0.0 <= record.figures["accuracy"] <= 1.0
    assert set(record.figures) & set(CLAIMS[claim].columns)
    assert f"torch {torch.__version__}" in record.machine


def test_runs_with_a_record_are_left_out(tmp_path) -> None:
    claim, results = CLAIMS["supermask"], tmp_path / "results.jsonl"
    append(Record("supermask", "learned", 1, {"accuracy": 0.5}, 1.0, "here"), results)
    append(Record("lottery", "learned", 0, {"accuracy": 0.5}, 1.0, "here"), results)
    left = list(runner.pending(claim, seeds=2, finished=load(results), pattern="learned*"))
    assert left == [("learned", 0), ("learned_rescaled", 0), ("learned_rescaled", 1)]


def test_the_last_record_of_a_run_counts(tmp_path) -> None:
    results = tmp_path / "results.jsonl"
    for figure in (0.5, 2 / 3):
        append(Record("c", "v", 0, {"accuracy": figure, "weights": 1234567}, 1.0, "here"), results)
    assert len(results.read_text().splitlines()) == 2
    assert load(results) == [
        Record("c", "v", 0, {"accuracy": 0.666667, "weights": 1234567}, 1.0, "here")
    ]
    assert load(tmp_path / "none.jsonl") == []


def test_the_test_part_may_not_choose_an_epoch() -> None:
    stage = {"stage": "prune", "granularity": "element", "allocation": {"amount": 0.5}}
    chosen = {"stage": "finetune"} | training(TINY, 1, keep="best")
    with pytest.raises(ValueError, match="keep: last"):
        run_recipe(
            LENET_300_100, LENET_300_100.initial(0), {"stages": [stage, chosen]}, seed=0, scale=TINY
        )


def test_figures_of_the_validation_part_are_no_results() -> None:
    with pytest.raises(SystemExit):
        runner.main(["--only", "supermask", "--seeds", "0", "--measured-on", "validation"])
