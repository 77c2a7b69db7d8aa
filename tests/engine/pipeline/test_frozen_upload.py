"""A frozen upload goes through a whole job like any other."""

from __future__ import annotations

import warnings

import torch

from tests.engine.pipeline.conftest import prune


def test_frozen_upload_is_pruned_and_fine_tuned(run, lenet, data, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frozen = torch.jit.freeze(torch.jit.load(lenet).eval())
        torch.jit.save(frozen, tmp_path / "frozen.pt")
    finetune = {"stage": "finetune", "epochs": 2, "optimizer": {"lr": 0.02}}
    recipe = {
        "stages": [
            prune(exclude=["conv2d_0"], allocation={"amount": 0.7}),
            finetune,
            prune(granularity="element", allocation={"amount": 0.5}),
            finetune,
        ]
    }
    done = run(tmp_path / "frozen.pt", recipe, data)
    report = done.result.report

    weights = dict(torch.jit.load(done.folder / "compact.pt").named_parameters())
    # 20 (excluded), 50, 120 and 84 channels, 70 % of each gone
    assert {name: list(tensor.shape) for name, tensor in weights.items()} == {
        "conv2d_0.weight": [20, 1, 5, 5],
        "conv2d_0.bias": [20],
        "conv2d_1.weight": [15, 20, 5, 5],
        "conv2d_1.bias": [15],
        "linear_0.weight": [36, 60],
        "linear_0.bias": [36],
        "linear_1.weight": [25, 36],
        "linear_1.bias": [25],
        "linear_2.weight": [10, 25],
        "linear_2.bias": [10],
    }
    assert report.certificate.passed
    assert report.certificate.kind == "exact"
    assert report.certificate.reloaded_in_fresh_process
    assert report.before.parameters == sum(p.numel() for p in torch.jit.load(lenet).parameters())
    assert report.after.parameters == sum(tensor.numel() for tensor in weights.values())
    assert report.after.nonzero_parameters == sum(
        int(torch.count_nonzero(tensor)) for tensor in weights.values()
    )
    assert report.after.nonzero_parameters < 0.55 * report.after.parameters
    assert {item.name for item in report.layers} == {n for n in weights if n.endswith("weight")}
    accuracy = [stage.accuracy.top1 for stage in report.stages]
    assert accuracy[1] > accuracy[0] + 0.1
    assert report.after.accuracy.top1 > report.before.accuracy.top1 - 0.1
