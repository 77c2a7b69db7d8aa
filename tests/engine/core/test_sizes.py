"""Sizes of pruned layers that are more than a shape.

Annotations are evaluated here: torch.jit.script reads some of them as types.
"""

import pytest
import torch
from torch import Tensor, nn

from engine.errors import NothingPruned
from engine.pipeline.prune import plan_channels
from engine.torchscript.program import Program
from tests.engine.core.programs import scripted, traced
from tests.engine.core.test_odd_uploads import STAGE, frozen_by, on, pruned, removed_of

RETURNED = "its size is an output of the model"
MIXED = "its size enters arithmetic on data, together with a size of the input"


class Pair(nn.Module):
    """`a` and `b` can lose channels; variants let the size of what `a` gives out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)
        self.c = nn.Conv2d(8, 2, 1)
        self.last = 0

    def _tail(self, h: Tensor) -> Tensor:
        return self.c(self.b(h).relu())


class Returned(Pair):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        h = self.a(x).relu()
        return self._tail(h), h.size(1)


class Computed(Pair):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        h = self.a(x).relu()
        return self._tail(h), 2 * h.shape[1] + 1


class Listed(Pair):
    def forward(self, x: Tensor) -> tuple[Tensor, list[int]]:
        h = self.a(x).relu()
        return self._tail(h), h.shape


class Named(Pair):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.a(x).relu()
        return {"y": self._tail(h), "width": torch.tensor(h.size(1))}


class Batch(Pair):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        h = self.a(x).relu()
        return self._tail(h), h.shape[0] * h.shape[-1]


class Elements(Pair):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        return self._tail(h) / h.numel()


class Scaled(Pair):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        return self._tail(h) / h.size(1)


class Filled(Pair):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        y = self._tail(h).masked_fill(x[:, :1, 2:, 2:] > 0, float(h.size(1)))
        return y * torch.full_like(y, h.size(1))


class Several(Pair):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        numbers = torch.tensor([h.size(1), h.size(1) + 1]).reshape(1, 2, 1, 1)
        return self._tail(h) * numbers


class Decides(Pair):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        y = self._tail(h)
        if h.numel() > 1000:
            y = y * 2
        return y


class Rounds(Pair):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        y = self._tail(h)
        for _ in range(h.size(1) * h.size(2) // 16):
            y = y * 2
        return y


class Best(Pair):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        return self._tail(h).flatten(2).topk(h.size(1) // 2, dim=2)[0]


class Remembered(Pair):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        self.last = h.size(1)
        return self._tail(h)


def image(size: int = 8) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def program_of(model: nn.Module, way: str) -> Program:
    return scripted(model) if way == "scripted" else traced(model, [image()])


WAYS = pytest.mark.parametrize("way", ["scripted", "traced"])


@pytest.mark.parametrize(
    ("model", "way"),
    [
        (Returned, "scripted"), (Returned, "traced"), (Computed, "scripted"),
        (Computed, "traced"), (Listed, "scripted"), (Listed, "traced"), (Named, "scripted"),
    ],
)  # fmt: skip
def test_channels_whose_size_the_model_returns_stay(model: type[Pair], way: str) -> None:
    planned, certificate = pruned(program_of(model(), way), [image()])
    assert certificate.kind == "exact"
    assert removed_of(planned) == {"b": 4}
    assert frozen_by(planned, "size") == {"a": RETURNED}


@WAYS
def test_a_returned_size_of_the_input_keeps_no_channels(way: str) -> None:
    planned, _ = pruned(program_of(Batch(), way), [image()])
    assert removed_of(planned) == {"a": 4, "b": 4}


@WAYS
@pytest.mark.parametrize("model", [Scaled, Filled])
def test_a_width_in_arithmetic_keeps_its_value(model: type[Pair], way: str) -> None:
    planned, certificate = pruned(program_of(model(), way), [image()])
    assert certificate.kind == "exact"
    assert removed_of(planned) == {"a": 4, "b": 4}


@WAYS
def test_a_width_times_a_size_of_the_input_keeps_the_channels(way: str) -> None:
    program = program_of(Elements(), way)
    planned, _ = pruned(program, [image()])
    assert removed_of(planned) == {"b": 4}
    assert frozen_by(planned, "aten::div") == {"a": MIXED}
    assert on(program, planned, [image(11)]).passed


def test_several_widths_in_one_tensor_keep_the_channels() -> None:
    planned, _ = pruned(scripted(Several()), [image()])
    assert removed_of(planned) == {"b": 4}
    text = "its size enters arithmetic on data as one of several numbers in a tensor"
    assert frozen_by(planned, "aten::mul")["a"] == text


@pytest.mark.parametrize(("model", "operator"), [(Decides, "prim::If"), (Rounds, "prim::Loop")])
def test_a_decision_on_a_width_and_the_image_falls_as_before(
    model: type[Pair], operator: str
) -> None:
    program = scripted(model())
    planned, _ = pruned(program, [image()])
    assert removed_of(planned) == {"b": 4}
    text = "a decision depends on its size together with a size of the input"
    assert frozen_by(planned, operator) == {"a": text}
    # Here the original decides otherwise than on the example; the compact program must follow.
    assert on(program, planned, [image(14)]).passed


@WAYS
def test_a_count_taken_from_a_width_is_found_and_frozen(way: str) -> None:
    planned, _ = pruned(program_of(Best(), way), [image()])
    assert removed_of(planned) == {"b": 4}
    (text,) = frozen_by(planned, "compact").values()
    assert "aten::topk" in text


def test_a_width_kept_in_an_attribute_keeps_the_channels() -> None:
    planned, _ = pruned(scripted(Remembered()), [image()])
    assert removed_of(planned) == {"b": 4}
    assert frozen_by(planned, "size") == {"a": "its size is kept in an attribute of the model"}


def test_a_model_whose_only_size_is_returned_says_so() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.c = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, int]:
            h = self.a(x)
            return self.c(h), h.size(1)

    with pytest.raises(NothingPruned) as caught:
        plan_channels(scripted(Alone()), STAGE, [torch.randn(2, 4)], seed=0)
    assert f"a (8 channels): {RETURNED}" in caught.value.hint
