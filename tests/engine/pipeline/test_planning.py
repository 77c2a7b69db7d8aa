from __future__ import annotations

from engine.inspection import inspect
from engine.planning import plan
from tests.engine.pipeline.conftest import prune

IMAGES = [{"shape": [1, 1, 8, 8]}]


def test_inspection(lenet):
    info = inspect(lenet)
    assert [(argument.name, argument.type) for argument in info.arguments] == [("images", "Tensor")]
    assert info.methods == ["forward"]
    assert info.parameters == 60704
    assert info.dtypes == ["float32"]
    assert info.layers == ["conv1", "conv2", "fc1", "fc2", "fc3"]
    assert info.torchscript_bytes == lenet.stat().st_size


def test_plan_of_channels_predicts_what_compress_gives(make_job, lenet):
    got = plan(make_job(lenet, {"inputs": IMAGES, "stages": [prune()]}))
    assert [(g["name"], g["channels"], g["removed"]) for g in got["groups"]] == [
        ("conv1", 20, 10),
        ("conv2", 50, 25),
        ("fc1", 120, 60),
        ("fc2", 84, 42),
    ]
    assert got["groups"][0]["members"] == [
        "conv1.weight (dimension 0, output)",
        "conv1.bias (dimension 0, vector)",
        "conv2.weight (dimension 1, input)",
    ]
    # 1 x 10, 10 x 25 filters of 5 x 5; 25 x 2 x 2 x 60, 60 x 42, 42 x 10, and biases
    assert got["predicted"]["parameters"] == 260 + 6275 + 6060 + 2562 + 430
    # conv1 on 8 x 8 outputs, conv2 on 4 x 4
    macs = 10 * 25 * 64 + 25 * 250 * 16 + 100 * 60 + 60 * 42 + 42 * 10
    assert got["predicted"]["macs"] == macs
    assert got["before"]["parameters"] == 60704
    assert got["frozen"][0]["layer"] == "fc3"


def test_plan_of_elements(make_job, lenet):
    stage = prune(granularity="element", allocation={"amount": 0.9})
    got = plan(make_job(lenet, {"inputs": IMAGES, "stages": [stage]}))
    assert got["groups"][0] == {
        "name": "conv1.weight", "weights": 500, "removed": 450, "kept": 50,
    }  # fmt: skip
    assert got["predicted"]["nonzero_parameters"] < 0.12 * got["before"]["nonzero_parameters"]
    assert got["predicted"]["macs"] == got["before"]["macs"]
