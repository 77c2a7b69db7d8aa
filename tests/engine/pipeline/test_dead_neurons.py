"""Neurons without input or output, built by hand."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from secateur.recipe import PruneStage
from torch import Tensor, nn

from engine.pipeline.dead_neurons import remove_dead
from tests.engine.core.programs import scripted

STAGE = PruneStage.model_validate(
    {"stage": "prune", "granularity": "element", "allocation": {"amount": 0.5}, "remove_dead": True}
)
ROWS = [torch.randn(3, 4, generator=torch.Generator().manual_seed(1))]
IMAGE = [torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))]


def mlp(act=nn.ReLU):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), act(), nn.Linear(5, 6), act(), nn.Linear(6, 2)).eval()


def removed(model, inputs, masks=None, stage=STAGE):
    program = scripted(model)
    torch.manual_seed(0)
    expected = program.run(inputs)
    done = remove_dead(program, masks or {}, stage, inputs)
    torch.manual_seed(0)
    assert torch.allclose(done.program.run(inputs), expected, atol=1e-6)
    assert all(item.passed for item in done.certificates)
    shapes = {
        name: tuple(weight.shape)
        for name, weight in done.program.parameters().items()
        if weight.dim() > 1
    }
    return done, shapes


def test_nothing_is_dead():
    done, _ = removed(mlp(), ROWS)
    assert done.by_group == {}
    assert done.certificates == []


def test_a_neuron_that_nothing_reads_goes_whatever_it_holds():
    model = mlp(nn.Sigmoid)
    with torch.no_grad():
        model[2].weight[:, 3] = 0
    done, shapes = removed(model, ROWS)
    assert done.by_group == {"0": 1}
    assert done.folded == 0
    assert shapes == {"0.weight": (4, 4), "2.weight": (6, 4), "4.weight": (2, 6)}


def test_a_neuron_without_input_leaves_its_constant_in_the_next_bias():
    # relu(2) = 2; the bias of the next layer, b, becomes b + 2 W[:, 1].
    model = mlp()
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].bias[1] = 2.0
    expected = model[2].bias + 2 * model[2].weight[:, 1]
    done, shapes = removed(model, ROWS)
    assert done.by_group == {"0": 1}
    assert done.folded == 1
    assert shapes["2.weight"] == (6, 4)
    assert torch.allclose(done.program.parameters()["2.bias"], expected)


def test_a_sigmoid_without_input_and_bias_says_a_half():
    model = mlp(nn.Sigmoid)
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].bias[1] = 0.0
    expected = model[2].bias + 0.5 * model[2].weight[:, 1]
    done, _ = removed(model, ROWS)
    assert done.folded == 1
    assert torch.allclose(done.program.parameters()["2.bias"], expected)


def test_a_negative_bias_behind_relu_says_nothing():
    model = mlp()
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].bias[1] = -2.0
    expected = model[2].bias.clone()
    done, _ = removed(model, ROWS)
    assert done.by_group == {"0": 1}
    assert done.folded == 0
    assert torch.equal(done.program.parameters()["2.bias"], expected)


def test_a_dead_neuron_leaves_others_dead():
    # Neuron 2 of the second layer reads neuron 1 alone, which reads nothing.
    model = mlp()
    with torch.no_grad():
        model[0].weight[1] = 0
        model[2].weight[2] = 0
        model[2].weight[2, 1] = 1.0
    done, shapes = removed(model, ROWS)
    assert done.by_group == {"0": 1, "2": 1}
    assert shapes == {"0.weight": (4, 4), "2.weight": (5, 4), "4.weight": (2, 5)}
    assert len(done.certificates) == 2


def test_without_a_bias_to_move_into_the_neuron_stays():
    model = mlp()
    model[2] = nn.Linear(5, 6, bias=False)
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].bias[1] = 2.0
    done, _ = removed(model, ROWS)
    assert done.by_group == {}


def convnet(padding):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=padding),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    ).eval()  # fmt: skip
    with torch.no_grad():
        model[0].weight[2] = 0
        model[1].bias[2] = 3.0
    return model


def test_a_constant_map_moves_into_the_bias_of_a_convolution_without_padding():
    model = convnet(0)
    norm = model[1]
    held = norm.weight[2] * (model[0].bias[2] - norm.running_mean[2])
    held = (held / torch.sqrt(norm.running_var[2] + norm.eps) + norm.bias[2]).relu()
    expected = model[3].bias + held * model[3].weight[:, 2].sum((1, 2))
    done, shapes = removed(model, IMAGE)
    assert done.by_group == {"0": 1}
    assert shapes["3.weight"] == (4, 5, 3, 3)
    assert torch.allclose(done.program.parameters()["3.bias"], expected)


def test_behind_padding_a_constant_map_stays_and_a_zero_map_goes():
    done, _ = removed(convnet(1), IMAGE)
    assert done.by_group == {}
    model = convnet(1)
    with torch.no_grad():
        model[1].bias[2] = -3.0
    done, _ = removed(model, IMAGE)
    assert done.by_group == {"0": 1}


class Gated(nn.Module):
    """What reads the channels does so without a weight too, or data gets into them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        if self.kind == "sum":
            return self.b(y) + y.sum(1, keepdim=True)
        if self.kind == "scaled":
            return self.b(y * x.mean())
        if self.kind == "in place":
            y[:, 1:2].add_(x[:, :1])
        if self.kind == "noise":
            y = y + torch.randn(1)
        if self.kind == "noise in place":
            y[:, 1:2].normal_()
        return self.b(y.softmax(1) if self.kind == "softmax" else y)


@pytest.mark.parametrize(
    "kind", ["sum", "softmax", "scaled", "in place", "noise", "noise in place"]
)
def test_what_is_alive_in_another_way_stays(kind):
    torch.manual_seed(0)
    model = Gated(kind).eval()
    with torch.no_grad():
        model.a.weight[1] = 0
        model.a.bias[1] = 2.0
    done, _ = removed(model, ROWS)
    assert done.by_group == {}


@pytest.mark.parametrize("kind", ["sum", "softmax"])
def test_zero_columns_are_not_enough_where_something_else_reads(kind):
    torch.manual_seed(0)
    model = Gated(kind).eval()
    with torch.no_grad():
        model.b.weight[:, 1] = 0
    done, _ = removed(model, ROWS)
    assert done.by_group == {}


def test_excluded_layers_stay_whole():
    model = mlp()
    with torch.no_grad():
        model[2].weight[:, 3] = 0
    done, _ = removed(model, ROWS, stage=STAGE.model_copy(update={"exclude": ["0"]}))
    assert done.by_group == {}


def test_a_layer_that_is_dead_altogether_keeps_one_neuron():
    model = mlp()
    with torch.no_grad():
        model[2].weight[:] = 0
    _, shapes = removed(model, ROWS)
    assert shapes["0.weight"][0] == 1


def test_masks_go_along():
    model = mlp()
    with torch.no_grad():
        model[2].weight[:, 3] = 0
    masks = {"2.weight": model[2].weight.detach() != 0}
    done, _ = removed(model, ROWS, masks)
    assert done.masks["2.weight"].shape == (6, 4)
    assert done.masks["2.weight"].all()


class Bottleneck(nn.Module):
    """A residual sum behind batch norm, and a view that spreads channels over a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv, self.norm2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.fc1, self.fc2 = nn.Linear(6 * 16, 7), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.stem(x)).relu_()
        z = self.norm2(self.conv(y))
        z += y
        z = nn.functional.max_pool2d(z.relu(), 2)
        return self.fc2(self.fc1(z.flatten(1)).relu())


def test_a_residual_channel_is_dead_only_when_all_its_producers_are():
    torch.manual_seed(0)
    model = Bottleneck().eval()
    with torch.no_grad():
        model.stem.weight[2] = 0
        model.norm.bias[2] = -1.0
    done, _ = removed(model, IMAGE)
    assert done.by_group == {}  # the second convolution still produces it
    with torch.no_grad():
        model.conv.weight[2] = 0
        model.norm2.bias[2] = 0.5
    held = model.norm2.weight[2] * (model.conv.bias[2] - model.norm2.running_mean[2])
    held = (held / torch.sqrt(model.norm2.running_var[2] + model.norm2.eps) + 0.5).relu()
    expected = model.fc1.bias + held * model.fc1.weight[:, 32:48].sum(1)
    done, shapes = removed(model, IMAGE)
    assert done.by_group == {"stem": 1}
    assert shapes["conv.weight"] == (5, 5, 3, 3)
    assert shapes["fc1.weight"] == (7, 80)
    assert torch.allclose(done.program.parameters()["fc1.bias"], expected, atol=1e-6)


class Tied(nn.Module):
    """The table of an embedding reads the channels again."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mid = nn.Embedding(9, 6), nn.Linear(6, 6)
        self.out = nn.Linear(6, 9, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.mid(self.embed(tokens)).relu())


def test_a_tied_weight_that_reads_keeps_the_channel_alive():
    torch.manual_seed(0)
    model = Tied().eval()
    with torch.no_grad():
        model.mid.weight[:, 1] = 0
        model.mid.weight[1] = 0
        model.mid.bias[1] = 1.0
    done, _ = removed(model, [torch.arange(6).reshape(2, 3)])
    assert done.by_group == {}


def test_a_job_takes_out_dead_neurons_and_trains_on(run, lenet, little_data):
    stage = {
        "stage": "prune",
        "granularity": "element",
        "allocation": {"scope": "global", "amount": 0.97},
        "normalize": "none",
        "remove_dead": True,
        "schedule": {"kind": "iterative", "rounds": 2, "finetune": {"epochs": 1}},
    }
    done = run(
        lenet,
        {"stages": [stage], "measure": {"batch_sizes": [1], "runs": 5}},
        little_data,
    )
    report = done.result.report
    message, told = next(item for item in done.heard.logs if "dead neurons went" in item[0])
    count = sum(told["dead"].values())
    assert count > 0
    assert message.startswith(f"prune round 2 of 2: {count} dead neurons went")
    assert report.certificate.passed
    assert report.certificate.batch_sizes
    narrower = sum(
        item.shape_before[0] - item.shape_after[0]
        for item in report.layers
        if item.name.endswith("weight")
    )
    assert narrower == count
    weights = dict(torch.jit.load(done.folder / "compact.pt").named_parameters())
    masks = load_file(done.folder / "masks.safetensors")
    assert all(bool((weights[name][~mask] == 0).all()) for name, mask in masks.items())
    assert {name: mask.shape for name, mask in masks.items()} == {
        name: weights[name].shape for name in masks
    }
