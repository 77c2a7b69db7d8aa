"""Channels last: other places in memory, the same numbers by index."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from engine.errors import TrainingRuleUnmet
from engine.training.finetune import finetune
from engine.training.memory_format import laid_out, memory_format_of
from engine.training.student import begin
from tests.engine.training.test_finetune import (
    Observer,
    make_program,
    options,
    run_of,
    same,
    weights,
)


class Convolutions(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3),
            nn.Flatten(),
            nn.Linear(128, 10),
        )


class Viewing(nn.Module):
    """What only runs on channels that lie apart."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3))
        self.linear = nn.Linear(8 * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.linear(y.view(y.size(0), -1))


class Separable(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 3),
            nn.Conv2d(8, 8, 3, groups=8),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 8, 3, groups=8),
            nn.Flatten(),
            nn.Linear(32, 10),
        )


class Layouts(TorchDispatchMode):
    """Notes whether each convolution of several channels gives them last."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[bool] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if str(function) == "aten.convolution.default" and args[1].shape[1] > 1:
            self.found.append(result.is_contiguous(memory_format=torch.channels_last))
        return result


def asked(choice, **changes):
    return run_of(options(epochs=1, batch_size=64, channels_last=choice, **changes))


def test_a_tensor_of_four_dimensions_by_hand():
    tensor = torch.arange(12).reshape(1, 3, 2, 2)
    made = laid_out(tensor)
    assert torch.equal(made, tensor)
    # the three channels of the first place, then those of the next
    assert made.as_strided((12,), (1,)).tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    flat = torch.ones(3, 4)
    assert laid_out(flat) is flat


def test_convolutions_run_in_it_and_the_result_does_not_keep_it(tmp_path):
    program = make_program(tmp_path / "net.pt", Convolutions())
    with Layouts() as seen:
        trained = finetune(program, asked(True), Observer())
    # 4 steps, and the validation of the result, which lies as it was uploaded
    assert seen.found[:4] == [True] * 4
    assert not any(seen.found[5:])
    plain = finetune(program, asked(False), Observer())
    for name, weight in weights(trained).items():
        torch.testing.assert_close(weight, weights(plain)[name], rtol=1e-4, atol=1e-5)
        assert weight.is_contiguous()


def test_masks_hold_and_a_resumed_run_has_the_same_bits(tmp_path):
    program = make_program(tmp_path / "net.pt", Convolutions())
    mask = torch.rand(8, 8, 3, 3, generator=torch.Generator().manual_seed(1)) < 0.5
    run = run_of(
        options(batch_size=64, channels_last=True, optimizer={"kind": "adamw", "lr": 0.01}),
        masks={"3.weight": mask},
    )
    heard = Observer()
    whole = finetune(program, run, heard)
    assert bool((weights(whole)["3.weight"][~mask] == 0).all())
    resumed = finetune(program, run, Observer(), resume=heard.states[0])
    assert same(weights(whole), weights(resumed))


def test_tied_weights_stay_tied(tmp_path):
    class Twice(Convolutions):
        def __init__(self) -> None:
            super().__init__()
            self[3] = nn.Conv2d(8, 8, 3, padding=1)
            self.insert(4, nn.Conv2d(8, 8, 3))
            self[4].weight = self[3].weight

    program = make_program(tmp_path / "net.pt", Twice())
    student = begin(program, asked(True)).program.attributes()
    assert student["3.weight"].data_ptr() == student["4.weight"].data_ptr()


@pytest.mark.parametrize(
    ("module", "expected"), [(Convolutions, False), (Separable, True), (Viewing, False)]
)
def test_auto_on_a_cpu_is_for_depthwise_convolutions(tmp_path, module, expected):
    program = make_program(tmp_path / "net.pt", module())
    assert memory_format_of(program, asked("auto")).channels_last is expected


def test_what_does_not_run_in_it_is_said(tmp_path):
    program = make_program(tmp_path / "net.pt", Viewing())
    with pytest.raises(TrainingRuleUnmet, match="does not run with channels last") as caught:
        finetune(program, asked(True), Observer())
    assert caught.value.where == "recipe.stages.0.channels_last"
    flat = make_program(tmp_path / "flat.pt", nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    with pytest.raises(TrainingRuleUnmet, match="the program has none"):
        finetune(flat, asked(True), Observer())
