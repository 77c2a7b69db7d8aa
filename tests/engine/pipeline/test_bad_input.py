"""Faults of a job that only the engine can see: each is named with what to do."""

from __future__ import annotations

import dataclasses
import re
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine import errors
from engine.inspection import inspect
from engine.pipeline import compress
from engine.planning import plan
from tests.engine.digits import Recorder, digits, save_scripted
from tests.engine.pipeline.conftest import prune

IMAGES = [{"shape": [1, 1, 8, 8]}]
FINETUNE = {"stage": "finetune"}


@pytest.fixture
def refused(make_job):
    def refused(kind, model, recipe, dataset=None):
        job = make_job(model, recipe, dataset)
        with pytest.raises(kind) as caught:
            compress(job, Recorder())
        assert type(caught.value).type != "engine-error"
        assert caught.value.hint
        left = {path.name for path in job.workdir.iterdir()}
        assert left <= {"checkpoint.pt"}  # nothing half-written
        return caught.value

    return refused


def dataset(tmp_path, **changes):
    tensors = {name: tensor[:40].clone() for name, tensor in digits().items()}
    for name, tensor in changes.items():
        split, role = name.split("_")
        tensors[f"{split}/{role}/0"] = tensor
    path = tmp_path / "d.safetensors"
    save_file(tensors, path)
    return path


def test_not_a_torchscript_file(refused, tmp_path):
    (tmp_path / "m.pt").write_bytes(b"not a model")
    error = refused(
        errors.NotTorchScript, tmp_path / "m.pt", {"inputs": IMAGES, "stages": [prune()]}
    )
    assert error.where == "model"
    torch.save({"w": torch.zeros(1)}, tmp_path / "state.pt")
    refused(errors.NotTorchScript, tmp_path / "state.pt", {"inputs": IMAGES, "stages": [prune()]})
    with pytest.raises(errors.NotTorchScript):
        inspect(tmp_path / "m.pt")


def test_truncated_model(refused, lenet, tmp_path):
    (tmp_path / "m.pt").write_bytes(lenet.read_bytes()[:-1000])
    refused(errors.NotTorchScript, tmp_path / "m.pt", {"inputs": IMAGES, "stages": [prune()]})


def test_pattern_without_a_layer_names_its_place(refused, lenet):
    error = refused(
        errors.PatternMatchesNothing,
        lenet,
        {"inputs": IMAGES, "stages": [prune(), prune(exclude=["conv1", "encoder.*"])]},
    )
    assert error.where == "recipe.stages.1.exclude.1"
    assert "encoder.*" in error.title
    assert "conv" in error.hint or "fc" in error.hint


def test_inputs_of_the_recipe_do_not_fit(refused, lenet):
    error = refused(
        errors.InputsDoNotFit, lenet, {"inputs": [{"shape": [1, 3, 8, 8]}], "stages": [prune()]}
    )
    assert error.where == "recipe.inputs"
    assert "float32[1, 3, 8, 8]" in error.hint
    error = refused(
        errors.InputsDoNotFit, lenet, {"inputs": [*IMAGES, *IMAGES], "stages": [prune()]}
    )
    assert error.title == "2 inputs are given, and forward takes 1"
    assert error.where == "recipe.inputs.1"


def test_inputs_of_the_dataset_do_not_fit(refused, lenet, tmp_path):
    path = dataset(
        tmp_path, train_inputs=torch.zeros(40, 3, 8, 8), validation_inputs=torch.zeros(40, 1, 8, 8)
    )
    error = refused(errors.InputsDoNotFit, lenet, {"stages": [prune(), FINETUNE]}, path)
    assert error.where == "train/inputs/0"


def test_no_inputs_at_all(refused, lenet):
    error = refused(errors.InputsDoNotFit, lenet, {"stages": [prune()]})
    assert error.where == "recipe.inputs"


@pytest.mark.parametrize(
    "fault",
    [
        ({"train_targets": torch.zeros(40)}, "train/targets/0", "dtype float32"),
        ({"train_targets": torch.full((40,), 10)}, "train/targets/0", "class 10"),
        ({"validation_targets": torch.full((40,), -1)}, "validation/targets/0", "class -1"),
        ({"train_inputs": torch.zeros(0, 1, 8, 8)}, "train/inputs/0", "empty"),
        ({"train_inputs": torch.zeros(39, 1, 8, 8)}, "train/targets/0", "40 samples"),
    ],
)
def test_dataset_faults_name_the_tensor(refused, lenet, tmp_path, fault):
    changes, where, says = fault
    path = dataset(tmp_path, **changes)
    error = refused(errors.DatasetInvalid, lenet, {"stages": [prune(), FINETUNE]}, path)
    assert error.where == where
    assert says in error.title


def test_missing_dataset_and_missing_split(refused, lenet, tmp_path):
    stages = {"inputs": IMAGES, "stages": [prune(), FINETUNE]}
    assert refused(errors.DatasetInvalid, lenet, stages).where == "recipe.stages.1"
    data = digits()
    save_file({"train/inputs/0": data["train/inputs/0"]}, tmp_path / "d.safetensors")
    error = refused(errors.DatasetInvalid, lenet, stages, tmp_path / "d.safetensors")
    assert error.where == "train/targets/0"
    limited = {"stages": [prune()], "constraints": {"max_accuracy_drop": 0.01}}
    error = refused(errors.DatasetInvalid, lenet, limited, tmp_path / "d.safetensors")
    assert error.where == "validation/inputs/0"


@pytest.mark.parametrize(
    "fault",
    [
        (prune(allocation={"amount": 0.001}), "allocation.amount", "rounds to none"),
        (prune(round_to=256), "round_to", "`round_to: 256` takes back all"),
        (prune(exclude=["*"]), "exclude", "no channel of the model can be removed"),
        (prune(granularity="element", exclude=["*"]), "exclude", "no weight can be masked"),
        (
            prune(granularity="element", allocation={"amount": 0.00001}),
            "allocation",
            "rounds to no weight",
        ),
    ],
)
def test_a_plan_that_removes_nothing_says_why(refused, make_job, lenet, fault):
    stage, where, says = fault
    recipe = {"inputs": IMAGES, "stages": [stage]}
    error = refused(errors.NothingPruned, lenet, recipe)
    assert error.where == f"recipe.stages.0.{where}"
    assert says in error.title
    with pytest.raises(errors.NothingPruned, match=re.escape(says)) as planned:
        plan(make_job(lenet, recipe))
    assert planned.value.where == error.where


@pytest.mark.parametrize("scope", ["local", "global"])
def test_too_small_an_amount_is_told_what_would_be_enough(refused, lenet, scope):
    stage = prune(allocation={"amount": 0.0001, "scope": scope})
    error = refused(errors.NothingPruned, lenet, {"inputs": IMAGES, "stages": [stage]})
    channels = 120 if scope == "local" else 20 + 50 + 120 + 84  # of the widest layer, of all
    assert f"of {channels} channels" in error.title
    assert f"one channel is {1 / channels:.2g}" in error.hint
    assert ("`scope: global`" in error.hint) == (scope == "local")


def test_excluding_everything_lists_the_frozen_layers(refused, lenet):
    recipe = {"inputs": IMAGES, "stages": [prune(exclude=["*"])]}
    assert "excluded by the pattern `*`" in refused(errors.NothingPruned, lenet, recipe).hint


class OneChannel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 1)
        self.second = nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def test_one_channel_left(refused, tmp_path):
    model = save_scripted(OneChannel().eval(), tmp_path / "m.pt")
    error = refused(
        errors.NothingPruned, model, {"inputs": [{"shape": [1, 4]}], "stages": [prune()]}
    )
    assert "removes nothing" in error.title


class Raises(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 4:
            raise ValueError("the moon is in the wrong phase")
        return self.linear(x)


def test_a_model_that_raises_is_quoted(refused, tmp_path):
    model = save_scripted(Raises().eval(), tmp_path / "m.pt")
    error = refused(errors.ModelRaised, model, {"inputs": [{"shape": [1, 4]}], "stages": [prune()]})
    assert error.title == "the model raised: the moon is in the wrong phase"
    assert "RaiseException" in error.where


class Mapping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.linear(x.flatten(1))
        return {"mean": y, "deviation": y}


def test_an_output_without_logits(refused, tmp_path):
    model = save_scripted(Mapping().eval(), tmp_path / "m.pt")
    error = refused(errors.ModelRaised, model, {"stages": [prune(), FINETUNE]}, dataset(tmp_path))
    assert error.where == "forward"
    assert "`mean`, `deviation`" in error.title


class Doubles(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.inv(self.linear(x).to(torch.bfloat16))


def test_an_operator_that_cannot_run_here(refused, tmp_path):
    model = save_scripted(Doubles().eval(), tmp_path / "m.pt")
    refused(errors.UnsupportedOperator, model, {"inputs": [{"shape": [4, 4]}], "stages": [prune()]})


def test_an_operator_that_this_torch_lacks(refused, lenet, tmp_path):
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(lenet) as source, zipfile.ZipFile(path, "w") as target:
        for item in source.infolist():
            content = source.read(item)
            if b"torch.flatten" in content:
                content = content.replace(b"torch.flatten", b"ops.acme.whirl")
            target.writestr(item, content)
    error = refused(errors.UnsupportedOperator, path, {"inputs": IMAGES, "stages": [prune()]})
    assert "acme" in error.title


def test_a_device_that_is_not_there(make_job, lenet):
    job = make_job(lenet, {"inputs": IMAGES, "stages": [prune()]})
    missing = f"cuda:{torch.cuda.device_count()}"
    job = dataclasses.replace(job, device=missing)
    with pytest.raises(errors.EngineError) as caught:
        compress(job, Recorder())
    assert caught.value.type == "device-unavailable"
    assert caught.value.where == "device"
