from __future__ import annotations

import torch

from engine.scores import criterion, element_scores

WEIGHT = torch.tensor([[1.0, -3.0], [0.5, 2.0]])


def scored(name: str, normalize: str = "none", tensor: str = "w", seed: int = 0) -> torch.Tensor:
    return element_scores(tensor, WEIGHT, criterion(name), normalize=normalize, seed=seed)


def test_magnitude():
    for name in ("l1_norm", "l2_norm"):
        assert scored(name).tolist() == [[1.0, 3.0], [0.5, 2.0]]


def test_normalised_by_mean_and_by_maximum():
    torch.testing.assert_close(scored("l1_norm", "mean"), WEIGHT.abs() / 1.625)
    torch.testing.assert_close(
        scored("l1_norm", "max"), torch.tensor([[1 / 3, 1.0], [0.5 / 3, 2 / 3]])
    )


def test_random_depends_on_seed_and_name_only():
    assert torch.equal(scored("random"), scored("random"))
    assert not torch.equal(scored("random"), scored("random", seed=1))
    assert not torch.equal(scored("random"), scored("random", tensor="v"))


def test_half_precision_is_summed_in_single():
    big = torch.full((2, 2), 60_000.0, dtype=torch.float16)
    scores = element_scores("w", big, criterion("l1_norm"), normalize="mean", seed=0)
    assert scores.tolist() == [[1.0, 1.0], [1.0, 1.0]]
