"""Gradients of shared weights, by hand and against finite differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.quantisation.codebook import Codebook, codebook_of
from engine.quantisation.shared_centroids import SegmentSums, SharedCentroids


def shared(centroids, assignment, *, zero=False, dtype=torch.float32):
    """A weight with one table."""
    table = centroids.float().unsqueeze(0)
    indices = assignment.to(torch.uint8)
    return SharedCentroids(Codebook.of_clusters(indices, table, dtype=dtype, zero=zero))


def test_a_centroid_follows_the_sum_of_its_members():
    # Han et al. 2016, figure 3, in small: centroids -1, 0 and 2
    rule = shared(torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([[2, 0, 2], [1, 0, 1]]))
    latents = rule.begin(torch.empty(2, 3), None)
    assert rule.value(latents).tolist() == [[2, -1, 2], [0, -1, 0]]
    gradient = torch.tensor([[1.0, 10.0, 100.0], [3.0, 0.5, -7.0]])
    found = rule.gradients(latents, gradient)
    assert found["centroids"].tolist() == [10.5, -4.0, 101.0]


def test_the_centroid_of_pruned_weights_gets_nothing():
    rule = shared(torch.tensor([0.0, 3.0]), torch.tensor([1, 0, 0, 1]), zero=True)
    latents = rule.begin(torch.empty(4), None)
    found = rule.gradients(latents, torch.ones(4))
    assert found["centroids"].tolist() == [0.0, 2.0]


def test_groups_of_rows_have_centroids_of_their_own():
    weight = torch.tensor([[1.0, 2.0], [2.0, 1.0], [5.0, 1.0]])
    rule = SharedCentroids(codebook_of("w", weight, size=2, groups=3))
    latents = rule.begin(torch.empty(3, 2), None)
    assert torch.equal(rule.value(latents), weight)
    found = rule.gradients(latents, torch.tensor([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]]))
    assert found["centroids"].tolist() == [1, 2, 8, 4, 32, 16]


def test_a_short_table_gives_what_it_will_store():
    weight = torch.tensor([0.1, 0.1, 0.7])
    rule = SharedCentroids(codebook_of("w", weight, size=2, dtype=torch.float16))
    latents = rule.begin(torch.empty(3), None)
    assert latents["centroids"].dtype == torch.float32
    latents["centroids"] += 1e-5  # smaller than a step of float16 at 0.7: it adds up behind it
    assert torch.equal(rule.encoding(latents).decode(), rule.value(latents))
    assert float(rule.value(latents)[2]) == float(torch.tensor(0.7).half())


def test_against_finite_differences():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    targets = torch.tensor([0, 3, 1, 2, 3])
    assignment = torch.randint(0, 4, (4, 6), generator=generator)
    centroids = torch.randn(4, generator=generator)
    rule = shared(centroids, assignment, dtype=torch.float64)
    latents = rule.begin(torch.empty(4, 6, dtype=torch.float64), None)

    def loss(weight):
        return nn.functional.cross_entropy(inputs @ weight.T, targets)

    weight = rule.value(latents).requires_grad_(True)
    loss(weight).backward()
    found = rule.gradients(latents, weight.grad)["centroids"]
    # The table of the file has the precision of float32; differences need more.
    assignment = assignment.flatten()
    step = 1e-6
    for j in range(4):
        moved = []
        for sign in (1, -1):
            other = latents["centroids"].clone()
            other[j] += sign * step
            moved.append(float(loss(other[assignment].reshape(4, 6))))
        assert float(found[j]) == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5000), st.integers(1, 40), st.integers(0, 2**31), st.booleans())
def test_sums_of_segments(elements, count, seed, few):
    generator = torch.Generator().manual_seed(seed)
    # `few`: one segment has nearly all, others none
    most = 1 if few else count
    segments = torch.randint(0, most, (elements,), generator=generator)
    values = torch.randn(elements, generator=generator)
    found = SegmentSums(segments, count).of(values)
    expected = torch.zeros(count, dtype=torch.float64).index_add_(0, segments, values.double())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-9)


def test_the_encoding_has_the_new_centroids():
    rule = shared(torch.tensor([1.0, 2.0]), torch.tensor([[0, 1], [1, 1]]))
    latents = rule.begin(torch.empty(2, 2), None)
    latents["centroids"] += 0.1
    assert torch.equal(rule.encoding(latents).decode(), rule.value(latents))
