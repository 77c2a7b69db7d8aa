"""Removed branches are gone from the file, and what is left computes what it should."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn

from engine.comparison import failure
from engine.layers.branches import find_branches
from engine.layers.certificate import certify_removal
from engine.layers.removal import remove_branches
from engine.measure.size import parameter_count, weights_of
from engine.torchscript.program import Program
from tests import zoo
from tests.engine.core.programs import scripted, traced, uploaded
from tests.engine.layers.nets import Transformer, chain, scaling

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def without(program, inputs, *names):
    """The program without the named branches (all when none is named), certified."""
    found = find_branches(program, inputs).removable
    assert set(names) <= {branch.name for branch in found}
    chosen = [branch for branch in found if not names or branch.name in names]
    removal = remove_branches(program, chosen, inputs)
    certificate = certify_removal(program, removal.program, chosen, inputs)
    assert certificate.passed, certificate
    assert certificate.kind == "exact"
    assert len(certificate.batch_sizes) == 2
    return removal


@pytest.mark.parametrize("how", [zoo.scripted, zoo.traced])
def test_a_branch_of_resnet18_leaves_the_file(how):
    inputs = zoo.example_inputs("resnet18")
    program = uploaded(how("resnet18"))
    before = program.to_bytes()
    removal = without(program, inputs, "layer3.1")

    # Two 3x3 convolutions of 256 channels, two norms.
    gone = 2 * 256 * 256 * 9 + 4 * 256
    assert (
        parameter_count(weights_of(program)) - parameter_count(weights_of(removal.program)) == gone
    )
    after = removal.program.to_bytes()
    assert len(before) - len(after) > 4 * gone
    model = Program.load(after)
    assert all(model.attributes()[name].numel() == 0 for name in removal.emptied)
    assert "layer3.1.bn1.num_batches_tracked" in removal.emptied
    assert {name.rpartition(".")[0] for name in removal.emptied} == {
        f"layer3.1.{layer}" for layer in ("conv1", "bn1", "conv2", "bn2")
    }
    assert model.attributes().keys() == program.attributes().keys()

    eager = zoo.build("resnet18")
    eager.layer3[1] = nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(model.module(*inputs), eager(*inputs))


@pytest.mark.parametrize(
    "how", [pytest.param(zoo.scripted, marks=pytest.mark.exhaustive), zoo.traced]
)
@pytest.mark.parametrize("name", ["mobilenet_v2", "bert_encoder", "transformer_encoder"])
def test_all_branches_at_once(how, name):
    inputs = zoo.example_inputs(name)
    removal = without(uploaded(how(name)), inputs)
    assert "clone" not in str(removal.program.module.code)


def test_a_pre_norm_transformer_without_a_half_of_each_block():
    tokens = torch.randint(30, (2, 7), generator=torch.Generator().manual_seed(0))
    model = Transformer().eval()
    removal = without(traced(model, (tokens,)), (tokens,), "blocks.0.qkv", "blocks.1.mlp")
    with torch.no_grad():
        x = model.embedding(tokens)
        first, second = model.blocks
        x = x + first.mlp(first.ln_2(x))
        x = x + second.attention(second.ln_1(x))
        expected = model.head(model.norm(x))
    torch.testing.assert_close(removal.program.run((tokens,)), expected)


class InPlace(nn.Module):
    """Sums in place and writes after them; `kind` says which."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.stem, self.fc, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, images: Tensor) -> Tensor:
        return getattr(self, self.kind)(images)

    def into_f(self, x):
        x = self.stem(x)
        return self.last(self.fc(x).add_(x))

    def into_x(self, x):
        x = self.stem(x)
        seen_before = x.view(-1, 2)
        x += self.fc(x)
        return self.last(x) + seen_before.sum()

    def left_alone(self, x):
        x = self.stem(x).relu_()
        return self.last(x + self.fc(x))

    # here the sum and its shortcut go different ways, and need memory of their own
    def written_and_kept_for_gradients(self, x):
        x = self.stem(x).relu()
        return self.last((x + self.fc(x)).relu_())

    def written_while_x_lives(self, x):
        x = self.stem(x)
        y = (x + self.fc(x)).mul_(2.0)
        return self.last(y) - x

    def written_through_a_view(self, x):
        x = self.stem(x)
        y = x + self.fc(x)
        y[:, :2] = 0.0
        return self.last(y) - x

    def x_is_written(self, x):
        x = self.stem(x)
        y = x + self.fc(x)
        x.zero_()
        return self.last(y) - x

    def the_argument(self, x):
        return x + self.fc(x)

    def both_are_outputs(self, x):
        x = self.stem(x)
        return x, x + self.fc(x)


@pytest.mark.parametrize(
    ("kind", "clones"),
    [
        ("into_f", 0),
        ("into_x", 0),
        ("left_alone", 0),
        ("written_and_kept_for_gradients", 1),
        ("written_while_x_lives", 1),
        ("written_through_a_view", 1),
        ("x_is_written", 1),
        ("the_argument", 1),
        ("both_are_outputs", 1),
    ],
)
def test_x_is_copied_where_its_memory_would_be_shared(kind, clones):
    program = traced(InPlace(kind), (X,))
    removal = without(program, (X,), "fc")
    assert str(removal.program.module.code).count("torch.clone(") == clones


def test_what_is_left_can_be_trained():
    program = traced(InPlace("written_and_kept_for_gradients"), (X,))
    left = without(program, (X,), "fc").program
    left.run((X,)).sum().backward()
    assert left.parameters()["stem.weight"].grad.abs().sum() > 0


def test_the_argument_is_not_handed_back():
    removal = without(traced(InPlace("the_argument"), (X,)), (X,))
    given = X.clone()
    result = removal.program.module(given)
    result.zero_()
    assert torch.equal(given, X)


def test_removing_the_outer_branch_takes_the_inner_along():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter, self.inner, self.leave = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            h = self.enter(x)
            return (x + self.leave(h + self.inner(h))).cos()

    program = traced(Net(), (X,))
    found = find_branches(program, (X,)).removable
    assert [(branch.name, len(branch.inside)) for branch in found] == [("inner", 0), ("enter", 1)]
    removal = remove_branches(program, found, (X,))
    assert parameter_count(weights_of(removal.program)) == 0
    torch.testing.assert_close(removal.program.run((X,)), X.cos())


def test_weights_that_two_removed_branches_share_go_with_the_last():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared, self.one, self.two = (nn.Linear(4, 4, bias=False) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.one(self.shared(x))
            return (x + self.two(self.shared(x))).cos()

    program = traced(Net(), (X,))
    assert set(without(program, (X,), "one").emptied) == {"one.weight"}
    both = without(program, (X,), "one", "two")
    assert set(both.emptied) == {"one.weight", "two.weight", "shared.weight"}


def test_checks_and_lists_of_the_branch_go_with_it():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            assert x.dim() == 2, "rows"
            f = self.fc(x)
            if f.size(1) != 4:
                raise ValueError("four columns")
            parts: list[Tensor] = []
            for column in f.unbind(1):
                parts.append(column)
            x = x + torch.stack(parts, 1)
            return self.last(x)

    program = scripted(Net())
    removal = without(program, (X,), "fc")
    code = str(Program.load(removal.program.to_bytes()).module.code)
    assert "four columns" not in code
    assert "append" not in code
    with pytest.raises(torch.jit.Error, match="rows"):
        removal.program.module(X[0])


def test_an_if_that_always_goes_the_same_way_gives_place():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.shortcut = True
            self.fc, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            assert x.dim() == 2, "rows"
            y = self.fc(x)
            if self.shortcut:
                y += x
            return self.last(y)

    removal = without(scripted(Net()), (X,), "fc")
    read = Program.load(removal.program.to_bytes())
    assert "shortcut" not in str(read.module.code)
    torch.testing.assert_close(read.run((X,)), read.module.last(X))
    with pytest.raises(torch.jit.Error, match="rows"):
        read.module(X[0])


def test_tuples_that_calls_leave_behind_are_no_obstacle():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.fc(x), x * 2.0

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair, self.last = Pair(), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            f, doubled = self.pair(x)
            return self.last(x + f) + doubled

    program = traced(Net(), (X,))
    removal = without(program, (X,), "pair.fc")
    assert set(removal.emptied) == {"pair.fc.weight", "pair.fc.bias"}
    last = removal.program.module.last
    torch.testing.assert_close(removal.program.run((X,)), last(X) + 2 * X)


class RandomNet(nn.Module):
    """Residual sums, writes in place, views and values kept for later, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = random.Random(seed)  # noqa: S311
        self.plan = [
            draw.choice(["add", "into_f", "into_x", "relu_", "view", "keep", "part", "mul_"])
            for _ in range(12)
        ]
        self.fcs = nn.ModuleList(nn.Linear(4, 4) for _ in self.plan)
        self.last = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x, kept = x + 0.0, []
        for step, fc in zip(self.plan, self.fcs, strict=True):
            if step == "add":
                x = x + fc(x)
            elif step == "into_f":
                f = torch.relu_(fc(x))
                f += x
                x = f
            elif step == "into_x":
                x += fc(x)
            elif step == "relu_":
                x = torch.relu_(x)
            elif step == "view":
                x = x.view(-1, 2, 2).transpose(1, 2).reshape(-1, 4)
            elif step == "keep":
                kept.append(x)
            elif step == "part":
                x[:, 1:] *= 1.5
            else:
                x = x.mul_(0.7)
        return self.last(x) + sum(kept, torch.zeros(()))


@pytest.mark.parametrize("seed", range(24))
def test_random_networks(seed):
    torch.manual_seed(seed)
    program = traced(RandomNet(seed), (X,))
    found = find_branches(program, (X,)).removable
    draw = random.Random(seed)  # noqa: S311
    for chosen in (draw.sample(found, len(found) // 2), found):
        removal = remove_branches(program, chosen, (X,))
        certificate = certify_removal(program, removal.program, chosen, (X,))
        assert certificate.passed, removal.program.module.code
        read = Program.load(removal.program.to_bytes())
        left = find_branches(read, (X,)).removable
        assert len(left) == len(found) - len(chosen)
    assert len(found) == sum(step in {"add", "into_f", "into_x"} for step in RandomNet(seed).plan)


def test_what_is_left_can_be_pruned_again():
    program = traced(chain(scaling(1.0), scaling(2.0), scaling(3.0)), (X[:, :2],))
    once = without(program, (X[:, :2],), "0.fc").program
    twice = without(once, (X[:, :2],), "2.fc").program
    assert [branch.name for branch in find_branches(twice, (X[:, :2],)).removable] == ["1.fc"]
    torch.testing.assert_close(twice.run((X[:, :2],)), 3 * X[:, :2])


class Classes(nn.Module):
    """Gives the class itself: the same integers, whatever was removed."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.a(x).relu()).argmax(1)


def test_outputs_of_integers_certify_no_removal() -> None:
    program, x = scripted(Classes()), torch.randn(4, 6)
    (branch,) = find_branches(program, [x], []).removable
    removal = remove_branches(program, [branch], [x])
    certificate = certify_removal(program, removal.program, [branch], [x])
    assert not certificate.passed
    assert "proves nothing" in certificate.detail
    error = failure("they differ", certificate)
    assert error.title == certificate.detail
    assert "returns scores" in error.hint
