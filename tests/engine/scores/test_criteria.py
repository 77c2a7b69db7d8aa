"""Every criterion against numbers worked out by hand, and against every other.

`Chain` on x = (1, 2) with target 0: both logits are 5, so p = (1/2, 1/2) and dL/dz = (-1/2, 1/2).
With a = (3, -1, -1) the difference of fc2's rows, dL/dh = -a/2 = (-1.5, 0.5, 0.5), and for fc1

    g   = [[-1.5, -3], [0.5, 1], [0.5, 1]]
    g w = [[-4.5,  3], [0,   1], [0.5, 0]]
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from engine.coupling import couple
from engine.errors import CriterionDoesNotFit, UnsupportedOperator
from engine.evidence.inputs import input_norms
from engine.scores import criterion, element_saliency, element_scores, names, unscored
from tests.engine.scores.networks import (
    Activated,
    Chain,
    Normalised,
    Residual,
    evidence_of,
    linear,
    program_of,
    scores_of,
)

ONE = evidence_of([[1.0, 2.0]], [0])
TWO = evidence_of([[1.0, 2.0], [1.0, -1.0]], [0, 0])
"""The hidden layer is (1, 2, 1) and relu(4, -1, 1) = (4, 0, 1)."""
EXPECTED = {
    # distances between (3, -1), (0, 1), (1, 0): sqrt 13, sqrt 5, sqrt 2
    "geometric_median": [13**0.5 + 5**0.5, 13**0.5 + 2**0.5, 5**0.5 + 2**0.5],
    # squared norms 10, 1, 1; what remains: 10, 12, 11
    "lamp": [1.0, 1 / 12, 1 / 11],
    "apoz": [1.0, 0.5, 1.0],
    "mean_activation": [2.5, 1.0, 1.0],
    # |w| (1, 2)
    "wanda": [5.0, 2.0, 1.0],
    "gradient": [4.5, 1.5, 1.5],
    "taylor": [2.25, 1.0, 0.25],
    "hessian": [0.5 * (20.25 + 9), 0.5, 0.125],
    "snip": [7.5, 1.0, 0.5],
    # H g = x (L'' a (-1/2 S) + L' L' 2 h), L' = -1/2, L'' = 1/4, S = |a|^2 |x|^2 + 2 |h|^2 = 67;
    # the factors of x are (-24.625, 9.375, 8.875), and w x = h
    "grasp": [-24.625, 18.75, 8.875],
    # - g w, one step
    "movement": [1.5, -1.0, -0.5],
    # h = (4, 1, 1), column sums of |fc2| = (3, 3, 1)
    "synflow": [12.0, 3.0, 1.0],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_channels_by_hand(name):
    evidence = TWO if name in {"apoz", "mean_activation"} else ONE
    np.testing.assert_allclose(scores_of(name, Chain(), evidence), EXPECTED[name], rtol=1e-5)


ELEMENTS = {
    "lamp": [[1.0, 1 / 12], [0.0, 1 / 11], [1 / 10, 0.0]],
    "wanda": [[3.0, 2.0], [0.0, 2.0], [1.0, 0.0]],
    "gradient": [[1.5, 3.0], [0.5, 1.0], [0.5, 1.0]],
    "taylor": [[20.25, 9.0], [0.0, 1.0], [0.25, 0.0]],
    "hessian": [[10.125, 4.5], [0.0, 0.5], [0.125, 0.0]],
    "snip": [[4.5, 3.0], [0.0, 1.0], [0.5, 0.0]],
    # the factors above, times x, times w
    "grasp": [[-73.875, 49.25], [0.0, 18.75], [8.875, 0.0]],
    "movement": [[4.5, -3.0], [0.0, -1.0], [-0.5, 0.0]],
    # |w| times the column sum of |fc2|
    "synflow": [[9.0, 3.0], [0.0, 3.0], [1.0, 0.0]],
}


@pytest.mark.parametrize("name", ELEMENTS)
def test_elements_by_hand(name):
    program, judge = program_of(Chain()), criterion(name)
    maps = element_saliency(program, judge, ONE)
    scores = element_scores(
        "fc1.weight",
        program.parameters()["fc1.weight"],
        judge,
        normalize="none",
        seed=0,
        saliency=None if maps is None else maps["fc1.weight"],
    )
    np.testing.assert_allclose(scores.numpy(), ELEMENTS[name], rtol=1e-5)


COUPLED = {
    # On x = 1 with target 0: dL/dh = (-2, 0.5), g w = (-6, 0.5) in a and (4, 1.5) in b
    ("taylor", "sum"): [4.0, 4.0],
    ("snip", "sum"): [10.0, 2.0],
    ("snip", "max"): [6.0, 1.5],
    ("snip", "mean"): [5.0, 1.0],
    ("gradient", "sum"): [4.0, 1.0],
    # signs stay: 6 - 4 and -0.5 - 1.5
    ("movement", "sum"): [2.0, -2.0],
    ("movement", "max"): [6.0, -0.5],
    ("hessian", "sum"): [26.0, 1.25],
    # |a| + |b| = (5, 4), columns of fc (6, 3): R = 42
    ("synflow", "sum"): [30.0, 12.0],
    ("wanda", "sum"): [5.0, 4.0],
    ("wanda", "l2"): [13**0.5, 10**0.5],
    # one place: after the sum
    ("mean_activation", "sum"): [1.0, 4.0],
    # distances |3 - 1| and |-2 - 3|, the same for both
    ("geometric_median", "sum"): [7.0, 7.0],
    # squares 9, 1 and 4, 9
    ("lamp", "sum"): [1 + 4 / 13, 1 / 10 + 1],
}


@pytest.mark.parametrize(("name", "aggregate"), COUPLED)
def test_coupled_slices_by_hand(name, aggregate):
    scores = scores_of(name, Residual(), evidence_of([[1.0]], [0]), aggregate=aggregate)
    np.testing.assert_allclose(scores, COUPLED[name, aggregate], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "aggregate", "expected"),
    [
        # relu(3, 1) and relu(-2, 3) = (0, 3)
        ("mean_activation", "sum", [3.0, 4.0]),
        ("mean_activation", "max", [3.0, 3.0]),
        ("mean_activation", "mean", [1.5, 2.0]),
        ("apoz", "sum", [1.0, 2.0]),
    ],
)
def test_a_channel_is_seen_after_each_of_its_nonlinearities(name, aggregate, expected):
    scores = scores_of(name, Activated(), evidence_of([[1.0]]), aggregate=aggregate)
    np.testing.assert_allclose(scores, expected)


def test_batches_of_opposite_gradients():
    """Targets 0 and 1 on the same x have opposite gradients: their mean is zero, no square is."""
    apart = evidence_of([[1.0, 2.0], [1.0, 2.0]], [0, 1], batch_size=1)
    together = evidence_of([[1.0, 2.0], [1.0, 2.0]], [0, 1], batch_size=2)
    for name in ("gradient", "snip", "grasp"):
        np.testing.assert_allclose(scores_of(name, Chain(), apart), [0, 0, 0], atol=1e-6)
    for name in ("taylor", "hessian"):
        np.testing.assert_allclose(scores_of(name, Chain(), apart), EXPECTED[name], rtol=1e-5)
        np.testing.assert_allclose(scores_of(name, Chain(), together), [0, 0, 0], atol=1e-6)


def test_a_batch_of_equal_samples_counts_them_in_the_fisher_estimate():
    """B g_B^2 for two equal samples is 2 g^2."""
    pair = evidence_of([[1.0, 2.0], [1.0, 2.0]], [0, 0], batch_size=2)
    twice = 2 * np.array(EXPECTED["hessian"])
    np.testing.assert_allclose(scores_of("hessian", Chain(), pair), twice, rtol=1e-5)


def test_a_teacher_draws_labels_from_what_it_predicts():
    """p = (1/2, 1/2): whichever label is drawn, the squares are those of target 0."""
    program = program_of(Chain())
    drawn = evidence_of([[1.0, 2.0]], None, target="teacher", teacher=program)
    for name in ("taylor", "hessian"):
        np.testing.assert_allclose(scores_of(name, program, drawn), EXPECTED[name], rtol=1e-5)
    # A teacher that is sure draws what it is sure of. Here that is class 1; mean gradients of four
    # samples would cancel out if the draw were from (1/2, 1/2).
    sure = Chain()
    with torch.no_grad():
        sure.fc2.weight[1] *= 100
    other = evidence_of([[1.0, 2.0]] * 4, None, target="teacher", teacher=program_of(sure))
    np.testing.assert_allclose(scores_of("snip", program, other), EXPECTED["snip"], rtol=1e-5)


def test_bn_scale_reads_the_gammas_and_leaves_channels_without_one():
    program, evidence = program_of(Normalised()), evidence_of([[1.0, 2.0], [0.0, 1.0]])
    scores = scores_of("bn_scale", program, evidence)
    np.testing.assert_allclose(scores, [0.5, 2.0, 1.0, np.nan, np.nan])
    (frozen,) = unscored(couple(program, list(evidence.example)), scores, criterion("bn_scale"))
    assert (frozen.layer, frozen.op, frozen.channels) == ("fc2", "bn_scale", 2)
    assert "no BatchNorm with a scale" in frozen.reason


def test_bn_scale_without_batch_norm_names_the_layers_and_the_remedy():
    program = program_of(Chain())
    scores = scores_of("bn_scale", program, ONE)
    with pytest.raises(CriterionDoesNotFit, match=r"`fc1`.*no BatchNorm") as caught:
        unscored(couple(program, list(ONE.example)), scores, criterion("bn_scale"))
    assert "l1_norm" in caught.value.hint


def test_channels_without_a_nonlinearity_are_seen_where_they_are_made():
    model = nn.Sequential(linear([[3, -1], [0, 1], [1, 0]]), linear([[3, 1, 0], [0, 2, 1]]))
    # fc1 gives (1, 2, 1) and (4, -1, 1)
    np.testing.assert_allclose(scores_of("mean_activation", model, TWO), [2.5, 1.5, 1.0])


def test_positions_of_a_map_and_its_flattened_pixels_are_averaged():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 1, bias=False)
            self.fc = nn.Linear(4, 2)
            with torch.no_grad():
                self.conv.weight.copy_(torch.tensor([1.0, -2.0]).reshape(2, 1, 1, 1))

        def forward(self, x):
            return self.fc(torch.relu(torch.flatten(self.conv(x), 1)))

    # pixels (4, -1): channels (4, -1) and (-8, 2), after relu (4, 0) and (0, 2)
    image = torch.tensor([4.0, -1.0]).reshape(1, 1, 1, 2)
    evidence = evidence_of(image)
    # flattened, every pixel of a channel is a slice of its own
    np.testing.assert_allclose(scores_of("mean_activation", Net(), evidence), [4.0, 2.0])
    np.testing.assert_allclose(
        scores_of("mean_activation", Net(), evidence, aggregate="mean"), [2.0, 1.0]
    )
    np.testing.assert_allclose(scores_of("apoz", Net(), evidence, aggregate="mean"), [0.5, 0.5])


def test_apoz_is_refused_where_nothing_is_ever_zero():
    model = nn.Sequential(linear([[3, -1], [0, 1], [1, 0]]), nn.GELU(), linear([[3, 1, 0]]))
    with pytest.raises(CriterionDoesNotFit, match="tells no channel from another") as caught:
        scores_of("apoz", model, TWO)
    assert "mean_activation" in caught.value.hint


def test_input_norms_of_grouped_transposed_and_shared_weights():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.grouped = nn.Conv2d(4, 2, 1, groups=2, bias=False)
            self.transposed = nn.ConvTranspose2d(2, 3, 1, bias=False)
            self.square = nn.Parameter(torch.eye(3))
            with torch.no_grad():
                self.grouped.weight.copy_(torch.ones(2, 2, 1, 1))

        def forward(self, x):
            y = self.transposed(self.grouped(x)).flatten(1)
            return y @ self.square.t()

    model = Net()
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 0.0, 2.0]]).reshape(2, 4, 1, 1)
    norms = input_norms(program_of(model), evidence_of(x))
    roots = torch.tensor([5.0, 5.0, 9.0, 20.0], dtype=torch.float64).sqrt()
    torch.testing.assert_close(norms["grouped.weight"].flatten(1), roots.reshape(2, 2))
    # it gives (1 + 2, 3 + 4) and (2 + 1, 0 + 2)
    sums = torch.tensor([9.0 + 9.0, 49.0 + 4.0], dtype=torch.float64).sqrt()
    torch.testing.assert_close(norms["transposed.weight"].flatten(), sums)
    # y @ W^T meets the second dimension of W
    assert norms["square"].shape == (1, 3)


def test_weights_without_known_inputs_are_left_out_by_wanda():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place = nn.Parameter(torch.ones(1, 2))
            self.fc = linear([[3, -1], [0, 1]])

        def forward(self, x):
            return self.fc(x + self.place)

    maps = element_saliency(program_of(Net()), criterion("wanda"), ONE)
    assert set(maps) == {"fc.weight"}
    # inputs (2, 3)
    torch.testing.assert_close(
        maps["fc.weight"], torch.tensor([[6.0, 3.0], [0.0, 3.0]], dtype=torch.float64)
    )


def test_synflow_counts_batch_norm_as_its_scale():
    model = Normalised()
    with torch.no_grad():
        model.bn.running_mean.copy_(torch.tensor([5.0, -7.0, 9.0]))
        model.bn.running_var.copy_(torch.full((3,), 4.0 - 1e-5))
    # fc1 gives (4, 1, 1), times |gamma| / 2 = (1/4, 1, 1/2): (1, 1, 1/2);
    # columns of |fc2|, led on by those of |fc3| = (3, 3): (3, 3, 3) * 3
    scores = scores_of("synflow", model, evidence_of([[1.0, 2.0]]))
    # fc2: rows (1, 2, 3) and (2, 1, 0) of it give 4.5 and 3, times 3
    np.testing.assert_allclose(scores, [9.0, 9.0, 4.5, 13.5, 9.0], rtol=1e-5)


def test_samples_are_drawn_by_the_seed_and_no_more_than_asked():
    x = [[float(n), 1.0] for n in range(1, 9)]

    def seen(**changes):
        return scores_of("mean_activation", Chain(), evidence_of(x, **changes)).tolist()

    assert seen(samples=3, seed=1) == seen(samples=3, seed=1, batch_size=2)
    assert len({tuple(seen(samples=3, seed=seed)) for seed in range(5)}) > 1
    # fc1 gives 3 n - 1, 1, n; over all eight the mean of n is 4.5
    assert seen(samples=100, batch_size=3) == [12.5, 1.0, 4.5]


def test_a_baked_batch_size_is_kept():
    class Baked(Chain):
        def forward(self, x):
            return self.fc2(torch.relu(self.fc1(x)).view(2, 3))

    x = [[1.0, 2.0], [1.0, -1.0], [1.0, 2.0], [1.0, -1.0], [1.0, 2.0]]
    scores = scores_of("mean_activation", Baked(), evidence_of(x, batch_size=4))
    assert scores[0] in {1.0, 1.75, 2.5, 3.25}  # means over four of them
    alone = evidence_of([[1.0, 2.0]], example=(torch.ones(2, 2),))
    np.testing.assert_allclose(scores_of("mean_activation", Baked(), alone), [1.0, 2.0, 1.0])


def test_missing_targets_and_missing_gradients_are_said():
    with pytest.raises(CriterionDoesNotFit, match="has none") as caught:
        scores_of("taylor", Chain(), evidence_of([[1.0, 2.0]]))
    assert "target: teacher" in caught.value.hint

    class Detached(Chain):
        def forward(self, x):
            return self.fc2(torch.relu(self.fc1(x))).detach()

    with pytest.raises(UnsupportedOperator, match="cannot be differentiated"):
        scores_of("taylor", Detached(), ONE)
    with pytest.raises(CriterionDoesNotFit, match="loss on training samples is nan"):
        scores_of("snip", Chain(), evidence_of([[float("nan"), 2.0]], [0]))


def test_no_two_criteria_rank_a_network_alike():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 12, bias=False), nn.Linear(6, 12, bias=False)
            self.bn = nn.BatchNorm1d(12)
            self.fc = nn.Linear(12, 4)
            with torch.no_grad():
                self.b.weight.mul_(3)
                self.bn.weight.copy_(torch.randn(12))
                self.bn.running_mean.copy_(torch.randn(12))

        def forward(self, x):
            return self.fc(torch.relu(self.bn(self.a(x) + self.b(x))))

    torch.manual_seed(0)
    model = Net()
    x = torch.randn(64, 6) * torch.arange(1, 7)  # inputs of unequal size
    evidence = evidence_of(x, torch.randint(4, (64,)).tolist(), batch_size=8)
    program = program_of(model)
    judges = [criterion(name) for name in names()]
    channels = [judge.name for judge in judges if not judge.of_layers and judge.of_tickets is None]
    ranked = {
        name: tuple(np.argsort(scores_of(name, program, evidence), kind="stable").tolist())
        for name in channels
    }
    assert len(channels) == 16
    alike = [(a, b) for a, b in combinations(ranked, 2) if ranked[a] == ranked[b]]
    assert not alike

    weight = program.parameters()["a.weight"]
    elements = {}
    for name in channels:
        judge = criterion(name)
        if judge.saliency is None and judge.elements is None:
            continue
        maps = element_saliency(program, judge, evidence)
        scores = element_scores(
            "a.weight",
            weight,
            judge,
            normalize="none",
            seed=0,
            saliency=None if maps is None else maps["a.weight"],
        )
        elements[name] = tuple(scores.flatten().argsort(stable=True).tolist())
    # Within one tensor l1, l2 and lamp rank by magnitude; of a single weight both taylor and the
    # Fisher estimate are E[g^2] w^2.
    assert elements["l1_norm"] == elements["l2_norm"] == elements["lamp"]
    assert elements["taylor"] == elements["hessian"]
    equal = {"l2_norm", "lamp", "hessian"}
    distinct = {name: order for name, order in elements.items() if name not in equal}
    assert len(set(distinct.values())) == len(distinct) == 8
