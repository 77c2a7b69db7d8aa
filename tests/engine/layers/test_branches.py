"""What counts as a residual branch, what it is called, and what must stay with which reason."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.errors import PatternMatchesNothing
from engine.layers.branches import find_branches
from tests import zoo
from tests.engine.core.programs import scripted, traced, uploaded
from tests.engine.layers.nets import Transformer, chain, scaling

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def names(program, inputs, exclude=()):
    return [branch.name for branch in find_branches(program, inputs, exclude).removable]


@pytest.mark.parametrize("how", [zoo.scripted, zoo.traced])
def test_resnet18(how):
    found = find_branches(uploaded(how("resnet18")), zoo.example_inputs("resnet18"))
    # The first block of the later stages projects its shortcut.
    assert [branch.name for branch in found.removable] == [
        "layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1",
    ]  # fmt: skip
    assert found.frozen == []
    first = found.removable[0]
    assert set(first.weights) == {
        "layer1.0.conv1.weight", "layer1.0.conv2.weight",
        *(f"layer1.0.bn{n}.{what}" for n in (1, 2)
          for what in ("weight", "bias", "running_mean", "running_var")),
    }  # fmt: skip
    assert first.convolves


@pytest.mark.parametrize("how", [zoo.scripted, zoo.traced])
def test_linear_bottlenecks(how):
    got = names(uploaded(how("mobilenet_v2")), zoo.example_inputs("mobilenet_v2"))
    # Blocks that change the width or the stride have no shortcut.
    assert got == [f"features.{n}.conv" for n in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)]


def test_pre_norm_transformer():
    tokens = torch.randint(30, (2, 7), generator=torch.Generator().manual_seed(0))
    for program in (traced(Transformer(), (tokens,)), scripted(Transformer())):
        found = find_branches(program, (tokens,))
        # Named for the matrices, without the norm before them.
        assert [branch.name for branch in found.removable] == [
            "blocks.0.qkv", "blocks.0.mlp", "blocks.1.qkv", "blocks.1.mlp",
        ]  # fmt: skip
        assert not found.removable[0].convolves


@pytest.mark.parametrize("how", [zoo.scripted, zoo.traced])
def test_post_norm_transformers(how):
    got = names(uploaded(how("bert_encoder")), zoo.example_inputs("bert_encoder"))
    assert got == [
        "layer.0.attention", "layer.0.intermediate", "layer.1.attention", "layer.1.intermediate",
    ]  # fmt: skip
    torchs = names(uploaded(how("transformer_encoder")), zoo.example_inputs("transformer_encoder"))
    assert torchs == [
        "encoder.layers.0.self_attn", "encoder.layers.0.linear1",
        "encoder.layers.1.self_attn", "encoder.layers.1.linear1",
    ]  # fmt: skip


class Forms(nn.Module):
    """One residual sum in the form that `kind` names."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.fc, self.narrow, self.last = nn.Linear(4, 4), nn.Linear(2, 2), nn.Linear(4, 4)
        self.gate = nn.Linear(4, 1)
        self.gamma = nn.Parameter(torch.full((4,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(getattr(self, self.kind)(x.sin()))

    def swapped(self, x):
        return torch.add(self.fc(x), x)

    def scaled(self, x):
        return x + self.gamma * self.fc(x)

    def alpha(self, x):
        return torch.add(x, self.fc(x), alpha=0.5)

    def broadcast(self, x):
        return x + self.gate(x)

    def through_a_view(self, x):
        seen = x.view(1, -1, 4)
        return (seen + self.fc(x)).squeeze(0)

    def into_f(self, x):
        return self.fc(x).add_(x)

    def into_x(self, x):
        return x.add_(self.fc(x))

    def of_x_in_place(self, x):
        f = self.fc(x.relu_())
        return x + f

    # from here on no branches
    def alpha_of_x(self, x):
        return torch.add(self.fc(x), x, alpha=0.5)

    def projected(self, x):
        return self.gamma * x + self.fc(x)

    def other_half(self, x):
        left, right = x.chunk(2, 1)
        return torch.cat([left + self.narrow(right), right], 1)

    def half_of_a_written_one(self, x):
        f = self.fc(x)
        x[:, :2] = 1.0
        return x.cos() + f

    def polynomial(self, x):
        return 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.044715 * x**3)))

    def position(self, x):
        return self.gamma + self.fc(self.gamma).sum() + 0 * x


@pytest.mark.parametrize(
    "kind",
    [
        "swapped", "scaled", "alpha", "broadcast", "through_a_view", "into_f", "into_x",
        "of_x_in_place",
    ],
)  # fmt: skip
def test_forms_of_a_residual_sum(kind):
    found = find_branches(traced(Forms(kind), (X,)), (X,))
    assert [branch.name for branch in found.removable] == ["gate" if kind == "broadcast" else "fc"]


@pytest.mark.parametrize(
    "kind",
    ["alpha_of_x", "projected", "other_half", "half_of_a_written_one", "polynomial", "position"],
)
def test_sums_that_are_none(kind):
    found = find_branches(traced(Forms(kind), (X,)), (X,))
    assert (found.removable, found.frozen) == ([], [])


def test_excluded_branches_stay():
    program = traced(chain(scaling(1.0), scaling(2.0)), (X[:, :2],))
    found = find_branches(program, (X[:, :2],), ["0.*"])
    assert [branch.name for branch in found.removable] == ["1.fc"]
    assert [(item.layer, item.reason) for item in found.frozen] == [
        ("0.fc", "excluded by the pattern `0.*`")
    ]
    with pytest.raises(PatternMatchesNothing, match=r"`2\.\*` matches no layer"):
        find_branches(program, (X[:, :2],), ["2.*"])


class Frozen(nn.Module):
    """Branches that must stay, in the way that `kind` names."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.fc, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "shared":
            x = x + self.fc(x)
            x = x + self.fc(x)
        elif self.kind == "loop":
            for _ in range(x.size(0)):
                x = x + self.fc(x)
        elif self.kind == "other_path":
            x = x + self.fc(x) if float(x.sum()) < 1e9 else self.fc(x)
        elif self.kind == "size":
            f = self.fc(x)
            x = (x + f) / f.size(1)
        else:
            x = x + self.fc(x)
        return self.last(x)


class WithMethod(Frozen):
    @torch.jit.export
    def embed(self, x: Tensor) -> Tensor:
        return self.fc(x)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("shared", "all weights that it reads are needed elsewhere too"),
        ("loop", "its sum stands in a loop"),
        ("other_path", "a path that the example does not take"),
        ("size", "something else in forward still reads its weights"),
        ("method", "the exported method `embed` reads its weights"),
    ],
)
def test_branches_that_must_stay(kind, reason):
    model = WithMethod(kind) if kind == "method" else Frozen(kind)
    found = find_branches(scripted(model), (X,))
    assert found.removable == []
    assert {item.layer for item in found.frozen} == {"fc"}
    assert all(reason in item.reason for item in found.frozen)


def test_paths_that_can_never_run_are_in_nobodys_way():
    class Net(nn.Module):
        def __init__(self, shortcut: bool):
            super().__init__()
            self.shortcut = shortcut
            self.fc, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = x + self.fc(x) if self.shortcut else self.fc(x)
            return self.last(y)

    assert names(scripted(Net(True)), (X,)) == ["fc"]
    assert names(scripted(Net(False)), (X,)) == []


def test_a_path_that_training_may_take_is_in_the_way():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.fc(x)
            return self.last(y if self.training else x + y)

    (frozen,) = find_branches(scripted(Net()), (X,)).frozen
    assert "a path that the example does not take" in frozen.reason


def test_a_model_without_shortcuts():
    found = find_branches(uploaded(zoo.traced("lenet5")), zoo.example_inputs("lenet5"))
    assert (found.removable, found.frozen) == ([], [])
