from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.data import batches as module
from engine.data.batches import batches, shuffled
from engine.data.columns import Column
from engine.data.prefetch import prefetched
from engine.data.splits import Split


class Counted(Column):
    """Rows with their own number, and who asked for them."""

    def __init__(self, samples, broken=()):
        self._samples = samples
        self.asked = []
        self.threads = set()
        self._broken = set(broken)

    @property
    def samples(self):
        return self._samples

    @property
    def dtype(self):
        return torch.float32

    def take(self, rows, draw=None):  # noqa: ARG002
        self.threads.add(threading.current_thread().name)
        self.asked.append(rows.tolist())
        if self._broken & set(rows.tolist()):
            raise ValueError("row cannot be read")
        return rows.to(torch.float32).unsqueeze(1)


def split_of(column):
    return Split("train", (column,), ("x",), torch.arange(column.samples), "y")


def test_items_come_in_order_and_the_thread_ends():
    before = threading.active_count()
    assert list(prefetched(iter(range(20)))) == list(range(20))
    assert threading.active_count() == before


def test_an_error_comes_after_the_items_before_it():
    def source():
        yield 1
        yield 2
        raise OSError("gone")

    items = prefetched(source())
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(OSError, match="gone"):
        next(items)


def test_whoever_stops_early_leaves_no_thread():
    before = threading.active_count()
    made = []

    def source():
        for number in range(1000):
            made.append(number)
            yield number

    items = prefetched(source(), ahead=2)
    assert next(items) == 0
    items.close()
    assert threading.active_count() == before
    assert len(made) <= 5


def test_a_column_is_read_in_the_thread_and_ahead_of_use():
    column = Counted(10)
    found = list(batches(split_of(column), 2, device="cpu"))
    assert column.threads == {"prefetch"}
    assert torch.cat([batch.inputs[0] for batch in found]).flatten().tolist() == list(range(10))


def test_the_error_of_a_row_reaches_the_reader():
    read = batches(split_of(Counted(10, broken=[5])), 2, device="cpu")
    assert [next(read).size, next(read).size] == [2, 2]
    with pytest.raises(ValueError, match="cannot be read"):
        next(read)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 99), st.booleans())
def test_a_thread_changes_neither_order_nor_bits(samples, size, seed, merge):
    order = shuffled(samples, torch.Generator().manual_seed(seed))
    tensor = torch.randn(samples, 3, generator=torch.Generator().manual_seed(seed))
    split = Split("train", (tensor,), ("x",), torch.arange(samples), "y")
    plain = list(batches(split, size, device="cpu", order=order, merge_last=merge))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_WORTH_A_THREAD", 0)
        ahead = list(batches(split, size, device="cpu", order=order, merge_last=merge))
    assert len(plain) == len(ahead)
    for one, other in zip(plain, ahead, strict=True):
        assert torch.equal(one.inputs[0], other.inputs[0])
        assert torch.equal(one.targets, other.targets)


def test_batches_left_out_at_the_start_are_not_read():
    column = Counted(10)
    found = list(batches(split_of(column), 2, device="cpu", first=3))
    assert [batch.targets.tolist() for batch in found] == [[6, 7], [8, 9]]
    assert column.asked == [[6, 7], [8, 9]]
