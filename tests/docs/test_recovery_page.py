"""docs/recovery.md says what the committed records of the recoveries say."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.recovery import table
from bench.recovery.records import Record, load
from bench.recovery.tasks import TASKS, variants_of
from bench.recovery.variants import MAIN

RECORDS = load()
VGG = {"digits_vgg": TASKS["digits_vgg"]}


def _record(variant: str, seed: int, accuracy: float, **figures: float) -> Record:
    figures = {"loss": 0.25, "accuracy": accuracy, "epochs": 4, "training_seconds": 30.0} | figures
    return Record("digits_vgg", variant, seed, figures, "m")


def _made() -> list[Record]:
    sizes = {"parameters_before": 2000, "parameters": 500, "macs_before": 10, "macs": 3,
             "file_bytes_before": 4000, "file_bytes": 2000}  # fmt: skip
    found = []
    for seed in range(3):
        found += [
            _record("dense", seed, 1.0),
            _record("pruned", seed, 0.2, **sizes),
            # Shares of the 80 points: 50, 55 and 60 %; the teacher adds 5, 10 and 15.
            _record("labels", seed, 0.6 + 0.04 * seed),
            _record("mixed", seed, 0.64 + 0.08 * seed),
            _record("teacher", seed, 0.6 + 0.04 * (2 - seed)),
        ]
    return found


def test_page_is_what_the_generator_writes() -> None:
    assert table.PAGE.read_text(encoding="utf-8") == table.page(RECORDS), (
        "run `python -m bench.recovery.table`"
    )


def test_every_record_belongs_to_a_task() -> None:
    for record in RECORDS:
        names = {"dense", *(variant.name for variant in variants_of(TASKS[record.task]))}
        assert record.variant in names


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_three_seeds_of_every_recovery(name: str) -> None:
    seeds = Counter(record.variant for record in RECORDS if record.task == name)
    for variant in ("dense", *(variant.name for variant in MAIN)):
        assert seeds[variant] >= 3, variant


def test_a_page_of_records_by_hand() -> None:
    page = table.page(_made(), VGG)
    # 0.60, 0.64, 0.68 and 0.64, 0.72, 0.80: deviations 4 and 8 points.
    row = "100.0 ± 0.0 | 20.0 ± 0.0 | 64.0 ± 4.0 | 72.0 ± 8.0 | 64.0 ± 4.0 | 3 |"
    assert f"| [Digits, VGG](#digits-vgg) | accuracy, % | {row}" in page
    assert "| Digits, VGG | 55.0 % ± 5.0 | 65.0 % ± 10.0 | 55.0 % ± 5.0 |" in page
    # Differences 5, 10, 15: 10 - 2.92 * 5 / sqrt(3) = 1.6. And 10, 0, -10.
    even = "+0.0000, no clear difference"
    assert f"| Digits, VGG | +10.0, **better** | {even} | +0.0, no clear difference |" in page
    assert "| parameters | 2,000 | 500 | -75.0 % |" in page
    assert "| labels | 64.0 ± 4.0 | 0.2500 | 55.0 % ± 5.0 | 4 | 30.0 | 3 |" in page
    assert "15 runs with 8 minutes of training, on m." in page


def test_nothing_is_said_with_too_few_seeds() -> None:
    page = table.page([record for record in _made() if record.seed < 2], VGG)
    assert "Digits" not in page
    assert "in pairs, points" not in table.page(_made(), VGG)
    few = [_record("labels_ema", seed, 0.9) for seed in range(3)]
    assert "| in pairs, points | Digits, VGG |" in table.page(_made() + few, VGG)
    assert "in pairs, points" not in table.page(_made() + few[:2], VGG)


def test_a_teacher_that_does_harm_is_said_so() -> None:
    runs = table.of_task(_made(), "digits_vgg")
    assert table.verdict(VGG["digits_vgg"], runs, "labels", "mixed") == "-10.0, **worse**"
    assert table.verdict(VGG["digits_vgg"], runs, "labels", "labels_ema") == ""


def test_a_lower_loss_is_better() -> None:
    runs = {
        name: {seed: {"loss": loss + 0.01 * seed} for seed in range(3)}
        for name, loss in (("labels", 0.5), ("mixed", 0.4))
    }
    assert table.loss_verdict(runs, "mixed", "labels") == "-0.1000, **better**"
    assert table.loss_verdict(runs, "labels", "mixed") == "+0.1000, **worse**"
    assert table.loss_verdict(runs, "labels", "teacher") == ""


def test_perplexity_is_won_back_by_its_logarithm() -> None:
    task = TASKS["language"]
    runs = {
        name: {0: {"loss": loss, "perplexity": 2.0**loss}}
        for name, loss in (("dense", 1.0), ("pruned", 5.0), ("labels", 2.0))
    }
    assert table.won_back(task, runs, "labels") == {0: 0.75}
