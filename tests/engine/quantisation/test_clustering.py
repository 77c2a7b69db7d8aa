"""k-means and Gaussian mixtures over weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.errors import CodebookDoesNotFit, WeightsNotNumbers
from engine.quantisation.clustering import Histogram, Method, Start, cluster

METHODS: tuple[Method, ...] = ("kmeans", "gaussian_mixture")
STARTS: tuple[Start, ...] = ("linear", "density", "random")

SIXTEEN = torch.tensor(
    [
        [0.9, -0.5, 0.4, 0.0],
        [-0.6, 1.1, 0.1, 0.5],
        [0.3, 1.0, -0.7, -0.1],
        [0.0, 0.4, 1.0, -0.6],
    ]
)


def histogram(weight: Tensor) -> Histogram:
    values, counts = np.unique(weight.double().numpy(), return_counts=True)
    return Histogram(values, counts)


def decoded(weight: Tensor, **options: object) -> Tensor:
    codebook, indices = cluster(weight, **options)  # type: ignore[arg-type]
    return codebook[indices.long()]


def test_four_clusters_of_sixteen_weights() -> None:
    """From -0.7, -0.1, 0.5 and 1.1, each cluster gets its four weights in the first step."""
    codebook, indices = cluster(SIXTEEN, size=4, start="linear")

    torch.testing.assert_close(codebook, torch.tensor([-0.6, 0.0, 0.4, 1.0]))
    assert indices.tolist() == [[3, 0, 2, 1], [0, 3, 1, 2], [2, 3, 0, 1], [1, 2, 3, 0]]
    assert indices.dtype == torch.uint8


def test_a_linear_start_is_evenly_spaced_in_value() -> None:
    start = histogram(torch.tensor([-1.0, 0.0, 0.1, 0.2, 2.0])).start("linear", 4, 0)

    np.testing.assert_allclose(start, [-1, 0, 1, 2])


def test_a_density_start_is_evenly_spaced_in_rank() -> None:
    """Eight weights, F = 1/8, 3/8, 5/8, 7/8: the first, third, fifth and seventh."""
    spread = torch.tensor([8.0, 1.0, 2.0, 3.0, 100.0, 5.0, 6.0, 7.0])
    mostly_zero = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 2.0, 0.0, 0.0])

    np.testing.assert_allclose(histogram(spread).start("density", 4, 0), [1, 3, 6, 8])
    np.testing.assert_allclose(histogram(mostly_zero).start("density", 4, 0), [0, 0, 0, 1])


def test_a_random_start_draws_weights_by_its_seed() -> None:
    weight = histogram(torch.arange(100.0))

    draws = [weight.start("random", 8, seed) for seed in (0, 0, 1)]

    assert all(len(set(draw)) == 8 for draw in draws)
    assert set(draws[0]) <= set(weight.values)
    np.testing.assert_array_equal(draws[0], draws[1])
    assert set(draws[0]) != set(draws[2])


def test_a_random_start_takes_common_weights_more_often() -> None:
    weight = histogram(torch.tensor([0.0] * 98 + [1.0, 2.0]))

    first = [weight.start("random", 1, seed)[0] for seed in range(50)]

    assert first.count(0.0) > 40


def test_where_it_starts_is_where_it_ends() -> None:
    """Linear reaches the two outliers; by density all three clusters share out the bulk."""
    bulk = torch.linspace(-1, 1, 401)
    weight = torch.cat([bulk, torch.tensor([-4.0, 4.0])])

    linear, _ = cluster(weight, size=3, start="linear")
    density, _ = cluster(weight, size=3, start="density")

    torch.testing.assert_close(linear, torch.tensor([-4.0, 0.0, 4.0]))
    assert float(density.abs().max()) < 1


def test_a_mixture_gives_a_weight_to_the_component_that_likely_made_it() -> None:
    """2.5 is nearer to the mean of the narrow heap at 3, which would never make it."""
    wide = torch.linspace(-10, 10, 41)
    narrow = torch.linspace(2.99, 3.01, 401)
    weight = torch.cat([wide, narrow])
    place = wide.tolist().index(2.5)

    by_mean, nearest = cluster(weight, size=2, method="kmeans")
    by_likelihood, likeliest = cluster(weight, size=2, method="gaussian_mixture")

    assert nearest[place] == nearest[-1]
    assert likeliest[place] == likeliest[0] != likeliest[-1]
    # The wide component keeps all of its weights but the 3: their sum is -3.
    torch.testing.assert_close(by_likelihood, torch.tensor([-3 / 40, 3.0]))
    assert not torch.allclose(by_mean, by_likelihood, atol=0.1)


def test_pruned_weights_stay_zero_and_take_no_part() -> None:
    weight = torch.tensor([[5.0, 0.0, -1.0], [1.0, 0.0, -1.2]])
    keep = torch.tensor([[True, False, True], [True, False, True]])

    codebook, indices = cluster(weight, size=4, keep=keep)

    torch.testing.assert_close(codebook, torch.tensor([0.0, -1.1, 1.0, 5.0]))
    assert indices.tolist() == [[3, 0, 1], [2, 0, 1]]


def test_weights_that_are_pruned_are_read_nowhere() -> None:
    keep = torch.tensor([True, True, False, True])

    codebook, indices = cluster(torch.tensor([1.0, 2.0, 77.0, 3.0]), size=8, keep=keep)

    assert codebook.tolist() == [0, 1, 2, 3]
    assert indices.tolist() == [1, 2, 0, 3]


def test_nothing_kept_is_all_zero() -> None:
    codebook, indices = cluster(torch.ones(3), size=4, keep=torch.zeros(3, dtype=torch.bool))

    assert codebook.tolist() == [0.0]
    assert indices.tolist() == [0, 0, 0]


@pytest.mark.parametrize("method", METHODS)
def test_few_distinct_values_are_kept_as_they_are(method: Method) -> None:
    weight = torch.tensor([0.3, -0.1, 0.3, 7.0])

    codebook, indices = cluster(weight, size=16, method=method)

    assert codebook.tolist() == sorted(set(weight.tolist()))
    assert torch.equal(codebook[indices.long()], weight)


def test_values_that_the_codebook_cannot_tell_apart_share_an_entry() -> None:
    weight = torch.tensor([1.0, 1.0 + 2**-20, 2.0])

    codebook, indices = cluster(weight, size=4, dtype=torch.float16)

    assert codebook.dtype == torch.float16
    assert codebook.tolist() == [1.0, 2.0]
    assert indices.tolist() == [0, 0, 1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(WeightsNotNumbers, match="NaN or infinity"):
        cluster(torch.tensor([1.0, bad, 2.0]), size=2)


@pytest.mark.parametrize("size", [1, 257])
def test_a_size_beyond_a_byte_is_refused(size: int) -> None:
    with pytest.raises(CodebookDoesNotFit, match=str(size)):
        cluster(torch.zeros(4), size=size)


def test_a_value_beyond_the_type_of_the_codebook_is_refused() -> None:
    with pytest.raises(CodebookDoesNotFit, match="float16"):
        cluster(torch.tensor([1.0, 1e6]), size=2, dtype=torch.float16)


def test_clusters_without_weights_are_spent_where_weights_are_spread_most() -> None:
    """0, 25, .. 100 leave three over; 0 .. 0.9 is cut at 0.45, its halves at 0.15 and 0.75."""
    weight = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.6, 0.7, 0.8, 0.9, 100.0])

    codebook, _ = cluster(weight, size=5, start="linear")

    torch.testing.assert_close(codebook, torch.tensor([0.05, 0.25, 0.65, 0.85, 100.0]))


def test_kmeans_of_normal_weights_reaches_the_best_known_quantiser() -> None:
    """Max 1960, table I: 16 levels leave 0.009497 of the variance of a normal distribution."""
    weight = torch.randn(200_000)

    found = decoded(weight, size=16, start="density")

    assert float((found - weight).square().mean() / weight.var()) == pytest.approx(0.0095, rel=0.02)


def test_condensing_keeps_weights_and_their_sum() -> None:
    weight = histogram(torch.randn(5000).round(decimals=3))

    condensed = weight.condensed(64)

    assert len(condensed.values) <= 64
    assert condensed.counts.sum() == weight.counts.sum()
    total = condensed.values @ condensed.counts
    np.testing.assert_allclose(total, weight.values @ weight.counts, atol=1e-9)
    assert (np.diff(condensed.values) > 0).all()


weights = st.lists(
    st.floats(-1e4, 1e4, width=32) | st.floats(-1, 1, width=32) | st.sampled_from([0.0, 0.5]),
    min_size=1,
    max_size=60,
).map(torch.tensor)


@settings(deadline=None, max_examples=60)
@given(weight=weights, size=st.integers(2, 20), start=st.sampled_from(STARTS))
def test_kmeans_gives_each_weight_its_nearest_value(
    weight: Tensor, size: int, start: Start
) -> None:
    codebook, indices = cluster(weight, size=size, start=start)

    distances = (weight.double()[:, None] - codebook.double()).abs()
    own = distances.gather(1, indices.long()[:, None]).squeeze(1)
    assert (own <= distances.min(1).values).all()
    assert len(codebook) <= size
    assert (codebook.diff() > 0).all()


@settings(deadline=None, max_examples=60)
@given(weight=weights, size=st.integers(2, 12), start=st.sampled_from(STARTS))
def test_kmeans_is_no_worse_than_where_it_started(weight: Tensor, size: int, start: Start) -> None:
    before = histogram(weight)
    found = decoded(weight, size=size, start=start, seed=3)

    if len(before.values) > size:
        started = before.spread(np.unique(before.start(start, size, 3)))
        rounding = 1e-6 * float(weight.double().square().sum())
        assert float((found.double() - weight.double()).square().sum()) <= started + rounding
    else:
        assert torch.equal(found, weight)


@settings(deadline=None, max_examples=20)
@given(
    weight=weights,
    size=st.integers(2, 12),
    method=st.sampled_from(METHODS),
    start=st.sampled_from(STARTS),
    seed=st.integers(0, 9),
)
def test_the_same_again(weight: Tensor, size: int, method: Method, start: Start, seed: int) -> None:
    first, again = (
        cluster(weight, size=size, method=method, start=start, seed=seed) for _ in range(2)
    )

    assert torch.equal(first.codebook, again.codebook)
    assert torch.equal(first.indices, again.indices)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("start", STARTS)
def test_threads_do_not_change_the_result(method: Method, start: Start) -> None:
    weight = torch.randn(3000)
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(decoded(weight, size=9, method=method, start=start))
    finally:
        torch.set_num_threads(threads)

    assert torch.equal(*found)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_weights_are_clustered_alike(method: Method, scale: float) -> None:
    _, plain = cluster(SIXTEEN.double(), size=4, method=method)
    _, scaled = cluster(SIXTEEN.double() * scale, size=4, method=method)

    assert torch.equal(plain, scaled)
