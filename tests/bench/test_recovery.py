"""The recovery benchmark: its data, a whole run at toy scale, and what it counts."""

from __future__ import annotations

from dataclasses import replace
from math import log, sqrt

import pytest
import torch
from torch import nn

from bench.recovery import __main__ as runner
from bench.recovery import digits, language, regression, segmentation
from bench.recovery.dense import judged, trained
from bench.recovery.jobs import hold_against_report
from bench.recovery.records import Record, append, load
from bench.recovery.task import Task, Training
from bench.recovery.tasks import TASKS, variants_of
from bench.recovery.variants import COOL, LONG, MAIN, PRUNE, STUDY, Variant

VARIANTS = {variant.name: variant for variant in (*MAIN, *STUDY, LONG, COOL)}


def toy(task: Task, samples: int = 64) -> Task:
    """The task with few samples and one epoch of everything."""
    small = {name: part.first(samples) for name, part in task.parts().items()}
    epoch = Training(1, 1e-2, 32)
    return replace(task, parts=lambda: small, dense=epoch, recovery=epoch)


def test_a_run_leaves_a_record(tmp_path) -> None:
    task = toy(digits.VGG)
    dense = runner.run(task, None, 0, folder=tmp_path)
    assert dense.key == ("digits_vgg", "dense", 0)
    assert dense.figures["epochs"] == 1
    taught = runner.run(task, VARIANTS["teacher"], 0, folder=tmp_path).figures
    # Widths 32, 32, 64, 64 are halved: weights, two of BatchNorm a channel, and the classifier.
    widths = [(1, 16), (16, 16), (16, 32), (32, 32)]
    by_hand = sum(9 * a * b + 2 * b for a, b in widths) + 4 * 32 * 10 + 10
    assert taught["parameters"] == by_hand
    assert taught["macs"] < 0.3 * taught["macs_before"]
    assert taught["file_bytes"] < taught["file_bytes_before"]
    assert taught["epochs"] == 1
    assert taught["training_seconds"] > 0
    assert taught["loss"] != dense.figures["loss"]


def test_a_dense_network_is_trained_once(tmp_path) -> None:
    task = toy(digits.VGG)
    first, seconds = trained(task, 3, tmp_path)
    again, same = trained(task, 3, tmp_path)
    assert seconds == same > 0
    assert judged(first, task, "test") == judged(again, task, "test")
    other, _ = trained(task, 4, tmp_path)
    assert judged(other, task, "test") != judged(first, task, "test")


def test_a_report_that_tells_another_loss_is_found_out() -> None:
    hold_against_report(0.50001, 0.5)
    for reported in (None, 0.51):
        with pytest.raises(ValueError, match=r"the file 0\.5"):
            hold_against_report(reported, 0.5)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("variant", ["pruned", "mixed", "teacher"])
def test_every_task_is_recovered_with_a_teacher(name: str, variant: str, tmp_path) -> None:
    task = toy(TASKS[name], 32)
    record = runner.run(task, VARIANTS[variant], 0, folder=tmp_path)
    assert record.figures["parameters"] < 0.6 * record.figures["parameters_before"]


def test_variants_say_what_they_train_by() -> None:
    task = TASKS["regression"]
    assert VARIANTS["pruned"].stages(task) == [dict(PRUNE)]
    assert "distillation" not in VARIANTS["labels"].stages(task)[1]
    assert VARIANTS["mixed"].stages(task)[1]["distillation"] == {"kind": "mse", "alpha": 0.9}
    assert VARIANTS["teacher"].stages(digits.VGG)[1]["distillation"] == {"alpha": 1.0}
    assert VARIANTS["labels_ema"].stages(task)[1]["ema"] == {"decay": 0.95}
    lr = VARIANTS["labels_slow"].stages(task)[1]["optimizer"]["lr"]
    assert lr == pytest.approx(task.recovery.lr / 10)
    few, short = VARIANTS["labels_few"], VARIANTS["labels_short"]
    assert few.epochs(task) == 10 * task.recovery.epochs
    assert short.epochs(task) == max(1, round(task.recovery.epochs / 4))
    taught = VARIANTS["mixed_cool"].stages(digits.RESNET)[1]["distillation"]
    assert taught == {"alpha": 0.9, "temperature": 1.0}
    assert VARIANTS["labels_long"].epochs(task) == 3 * task.recovery.epochs
    assert len(VARIANTS) == len(MAIN + STUDY) + 2
    assert variants_of(digits.VGG) == MAIN
    assert variants_of(digits.RESNET) == (*MAIN, *STUDY, COOL)


def test_figures_by_hand() -> None:
    # Pixels of classes 0 0 1 3, named 0 1 1 3: IoU 1/2, 1/2, 1; class 2 does not occur.
    targets = torch.tensor([[[0, 0], [1, 3]]])
    named = torch.tensor([[[0, 1], [1, 3]]])
    scores = nn.functional.one_hot(named, 4).permute(0, 3, 1, 2).float()
    found = segmentation.judge(scores, targets)
    assert found["mean_iou"] == pytest.approx(2 / 3)
    assert found["accuracy"] == pytest.approx(3 / 4)
    # Targets -1 and 1, answered 0 and 1: squares 1 of 2 in the first value, none in the others.
    told = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    answers = told.clone()
    answers[0, 0] = 0.0
    assert regression.judge(answers, told) == pytest.approx({"loss": 1 / 6, "r2": 1 - 0.5 / 3})
    # Even scores leave all characters alike.
    characters = torch.zeros(2, 5, dtype=torch.int64)
    even = language.judge(torch.zeros(2, 5, 96), characters)
    assert even["loss"] == pytest.approx(log(96))
    assert even["perplexity"] == pytest.approx(96)
    # The next character is foretold: scores at place 0 are for the character at place 1.
    codes = language.encode("abc").unsqueeze(0)
    shifted = 100.0 * nn.functional.one_hot(codes.roll(-1, 1), 96).float()
    assert language.judge(shifted, codes)["perplexity"] == pytest.approx(1.0)


def test_the_text_is_that_of_the_standard_library() -> None:
    parts = language.parts()
    assert {name: part.inputs.shape[1] for name, part in parts.items()} == dict.fromkeys(parts, 64)
    assert len(parts["train"].inputs) > 5000
    assert not set(language.FILES["train"]) & set(language.FILES["test"])
    codes = language.encode("def f():\n\treturn 'é'")
    assert "".join(language.ALPHABET[code] for code in codes) == "def f():\n?return '?'"
    start = "".join(language.ALPHABET[code] for code in parts["test"].inputs[0])
    assert start.startswith('"""Utility functions for copying')


def test_generated_samples_are_what_they_say() -> None:
    signals = regression.draw(2000, 5)
    assert signals.inputs.shape == (2000, 1, 64)
    assert signals.targets.mean(0).abs().max() < 0.1
    assert (signals.targets.std(0) - 1).abs().max() < 0.05
    assert float(signals.targets.abs().max()) <= sqrt(3)
    images = segmentation.draw(8, 5)
    assert images.targets.unique().tolist() == [0, 1, 2, 3]
    again = segmentation.draw(8, 5)
    assert torch.equal(images.inputs, again.inputs)
    assert torch.equal(images.targets, again.targets)
    assert not torch.equal(images.targets, segmentation.draw(8, 6).targets)


def test_networks_give_what_is_judged() -> None:
    images, codes = segmentation.draw(2, 0), language.parts()["test"].first(2)
    for task, samples in ((segmentation.TASK, images), (language.TASK, codes)):
        with torch.no_grad():
            outputs = task.initial(0).eval()(samples.inputs)
        assert task.measure.share in task.judge(outputs, samples.targets)


def test_a_decoder_sees_no_later_character() -> None:
    model = language.TASK.initial(0).eval()
    codes = language.parts()["test"].inputs[:1].clone()
    before = model(codes)
    codes[0, 40] = (codes[0, 40] + 1) % 96
    after = model(codes)
    torch.testing.assert_close(before[:, :40], after[:, :40])
    assert not torch.allclose(before[:, 40:], after[:, 40:])


def test_runs_with_a_record_are_left_out(tmp_path) -> None:
    results, task = tmp_path / "results.jsonl", digits.VGG
    append(Record("digits_vgg", "labels", 1, {"loss": 0.5}, "here"), results)
    append(Record("digits_resnet", "dense", 1, {"loss": 0.5}, "here"), results)
    left = list(runner.pending(task, 1, load(results), ["dense", "labels*", "mixed"]))
    assert left == [None, VARIANTS["mixed"]]
    assert Variant("labels", "labels") in runner.pending(task, 0, load(results))


def test_the_last_record_of_a_run_counts(tmp_path) -> None:
    results = tmp_path / "results.jsonl"
    for figure in (0.5, 2 / 3):
        append(Record("t", "v", 0, {"loss": figure, "macs": 1234567}, "here"), results)
    assert len(results.read_text().splitlines()) == 2
    assert load(results) == [Record("t", "v", 0, {"loss": 0.666667, "macs": 1234567}, "here")]
    assert load(tmp_path / "none.jsonl") == []


def test_figures_of_the_validation_part_are_no_results(capsys) -> None:
    with pytest.raises(SystemExit):
        runner.main(["--measured-on", "validation"])
    assert "no results" in capsys.readouterr().err
