"""Weights as indices into a table of shared values."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.errors import CodebookDoesNotFit, WeightsNotNumbers
from engine.quantisation.codebook import Codebook, codebook_of

WEIGHT = torch.tensor([[0.5, -1.0, 0.5, 2.0], [2.0, 0.5, -1.0, 0.5]])


def scripted(encoding: Codebook) -> Tensor:
    """What the decoder gives, run by TorchScript."""
    return torch.jit.CompilationUnit(encoding.decoder).decode(*encoding.parts.values())


def test_stored_by_hand() -> None:
    """Three values in 2 bits: -1 is 0, 0.5 is 1, 2 is 2; lowest bits first."""
    encoding = codebook_of("fc.weight", WEIGHT, size=4)

    assert encoding.parts["table"].tolist() == [[-1.0, 0.5, 2.0]]
    assert encoding.parts["indices"].tolist() == [0b10_01_00_01, 0b01_00_01_10]
    assert encoding.indices.tolist() == [[1, 0, 1, 2], [2, 1, 0, 1]]
    assert (encoding.width, encoding.groups, encoding.zero) == (2, 1, False)
    assert encoding.stored_bytes == 2 + 3 * 4
    assert encoding.saved_bytes == 8 * 4 - 14
    assert encoding.bits == 8 * 14 / 8
    assert torch.equal(encoding.decode(), WEIGHT)


def test_each_group_of_rows_has_its_own_table() -> None:
    """Five rows in two groups: rows 0 to 2, and 3 and 4, which have fewer values."""
    weight = torch.tensor([[1.0, 2.0], [3.0, 1.0], [1.0, 1.0], [7.0, 7.0], [7.0, 8.0]])

    encoding = codebook_of("fc.weight", weight, size=4, groups=2)

    assert encoding.table.tolist() == [[1, 2, 3], [7, 8, 8]]
    assert encoding.indices.tolist() == [[0, 1], [2, 0], [0, 0], [0, 0], [0, 1]]
    assert encoding.places.tolist() == [[0, 1], [2, 0], [0, 0], [3, 3], [3, 4]]
    assert torch.equal(encoding.decode(), weight)
    assert torch.equal(scripted(encoding), weight)


def test_groups_are_clustered_by_themselves() -> None:
    weight = torch.cat([torch.randn(8, 64) * 0.01, torch.randn(8, 64) * 10])

    errors = [
        float(
            (codebook_of("w", weight, size=4, groups=groups).decode() - weight)[:8].square().sum()
        )
        for groups in (1, 2)
    ]

    assert errors[1] < errors[0] / 5


def test_pruned_weights_stay_exactly_zero() -> None:
    weight = torch.randn(6, 10)
    keep = torch.rand(6, 10) < 0.3
    weight = weight * keep

    encoding = codebook_of("w", weight, size=8, keep=keep, groups=3)

    assert encoding.zero
    assert encoding.held.nonzero().flatten().tolist() == [0, 8, 16]
    assert torch.equal(encoding.indices == 0, ~keep)
    assert (encoding.decode()[~keep] == 0).all()
    assert torch.equal(encoding.with_table(torch.ones(3, 8)).decode(), keep.float())


def test_a_mask_that_keeps_everything_costs_no_entry() -> None:
    encoding = codebook_of("w", WEIGHT, size=3, keep=torch.ones_like(WEIGHT, dtype=torch.bool))

    assert not encoding.zero
    assert torch.equal(encoding.decode(), WEIGHT)


def test_shared_values_can_be_replaced() -> None:
    encoding = codebook_of("w", WEIGHT, size=4)

    moved = encoding.with_table(torch.tensor([-3.0, 0.0, 4.0]))

    assert moved.decode().tolist() == [[0, -3, 0, 4], [4, 0, -3, 0]]
    assert torch.equal(encoding.decode(), WEIGHT)


def test_a_table_in_half_precision() -> None:
    """Its weights have the values that the table can hold."""
    weight = torch.randn(5, 7)

    encoding = codebook_of("w", weight, size=256, dtype=torch.float16)

    assert encoding.table.dtype == torch.float16
    assert torch.equal(encoding.decode(), weight.half().float())
    assert torch.equal(scripted(encoding), encoding.decode())


def test_a_tiny_layer_costs_more_than_it_saves() -> None:
    assert codebook_of("w", torch.randn(4), size=4).saved_bytes == 16 - (1 + 16)
    assert codebook_of("w", torch.randn(4, 64), size=16).saved_bytes == 1024 - (128 + 64)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.lists(st.integers(1, 5), min_size=0, max_size=4),
    size=st.sampled_from([2, 3, 4, 5, 8, 11, 16, 32, 64, 100, 128, 200, 256]),
    groups=st.integers(1, 4),
    types=st.tuples(
        st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
        st.sampled_from([torch.float32, torch.float16]),
    ),
    pruned=st.booleans(),
)
def test_torchscript_decodes_bit_for_bit(
    shape: list[int], size: int, groups: int, types: tuple[torch.dtype, torch.dtype], pruned: bool
) -> None:
    dtype, table = types
    weight = torch.randn(shape).to(dtype)
    keep = torch.rand(shape) < 0.5 if pruned else None
    groups = min(groups, shape[0] if shape else 1)

    encoding = codebook_of("w", weight, size=size, groups=groups, dtype=table, keep=keep)
    decoded = encoding.decode()
    kept = Codebook.from_plain(encoding.to_plain())

    assert decoded.shape == weight.shape
    assert decoded.dtype == dtype
    assert torch.equal(scripted(encoding), decoded)
    assert torch.equal(kept.decode(), decoded)
    assert (kept.shape, kept.dtype, kept.zero) == (encoding.shape, dtype, encoding.zero)


def test_a_plain_encoding_is_data_and_tensors(tmp_path) -> None:  # type: ignore[no-untyped-def]
    encoding = codebook_of("w", WEIGHT, size=4)
    torch.save(encoding.to_plain(), tmp_path / "plain.pt")

    plain = torch.load(tmp_path / "plain.pt", weights_only=True)

    assert torch.equal(Codebook.from_plain(plain).decode(), WEIGHT)


def test_a_random_start_differs_from_weight_to_weight() -> None:
    weight = torch.randn(40, 40)

    tables = [codebook_of(name, weight, size=8, start="random").table for name in ("a", "a", "b")]

    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])


def test_errors_name_the_weight() -> None:
    with pytest.raises(WeightsNotNumbers, match=r"`fc\.weight` holds NaN") as caught:
        codebook_of("fc.weight", torch.tensor([1.0, float("nan")]), size=2)
    assert caught.value.where == "fc.weight"

    with pytest.raises(CodebookDoesNotFit) as beyond:
        codebook_of("fc.weight", torch.tensor([1.0, 1e6]), size=2, dtype=torch.float16)
    assert beyond.value.where == "fc.weight"


@pytest.mark.parametrize("groups", [0, 3])
def test_more_groups_than_rows_are_refused(groups: int) -> None:
    with pytest.raises(CodebookDoesNotFit, match="2 rows of `w`"):
        codebook_of("w", WEIGHT, size=2, groups=groups)


def test_a_table_of_another_type_is_refused() -> None:
    with pytest.raises(CodebookDoesNotFit, match="int8"):
        codebook_of("w", WEIGHT, size=2, dtype=torch.int8)
