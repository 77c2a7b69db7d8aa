"""Programs whose path, sizes or state hang on what the tensors hold.

Annotations are evaluated here: torch.jit.script reads some of them as types.
"""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.coupling import couple
from engine.errors import EngineError, NothingPruned, UnsupportedOperator
from engine.pipeline.prune import plan_channels
from engine.torchscript.program import Program
from tests.engine.core.programs import scripted, traced
from tests.engine.core.test_odd_uploads import (
    STAGE,
    Three,
    frozen_by,
    on,
    pruned,
    removed_of,
    rows,
)

BRANCH = "data decides whether another branch runs, which the example does not show"
LOOP = "carried around a loop that runs until data says so"


# Sizes that depend on data


class Nonzero(Three):
    def forward(self, x: Tensor) -> Tensor:
        kept = torch.nonzero(x[:, 0] > 0).flatten()
        return self.c(self.b(self.a(x).relu()[kept]).relu())


class Detector(Three):
    """Keeps the rows that the network itself likes: fewer or more of them once it is pruned."""

    def forward(self, x: Tensor) -> Tensor:
        scores = self.c(self.b(self.a(x).relu()).relu())
        kept = torch.nonzero(scores[:, 0] > 0).squeeze(1)
        return torch.cat([scores[kept], scores[kept.numel() :]])


class MaskedRows(Three):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x)[x[:, 0] > 0]).relu())


class Positive(Three):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.c(self.b(h).relu()) * h[h > 0].mean() + torch.masked_select(h, h < 0).sum()


class Unique(Three):
    def forward(self, x: Tensor) -> Tensor:
        values, places = torch.unique((x * 2).round(), return_inverse=True)
        return self.c(self.b(self.a(x)).relu()) + places.float().mean() + values.sum()


class Where(Three):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.c(self.b(h).relu()) + torch.where(h > 0)[0].float().mean()


class Counted(Three):
    def forward(self, x: Tensor) -> Tensor:
        count = int((x[:, 0] > 0).sum().item())
        return self.c(self.b(self.a(x) + torch.ones(count + 1, 8).sum(0)).relu())[: count + 1]


class Repeated(Three):
    def forward(self, x: Tensor) -> Tensor:
        times = (x[:, 0] > 0).long() + 1
        return self.c(self.b(torch.repeat_interleave(self.a(x), times, dim=0)).relu())


class Averaged(Three):
    """The mean of a pruned tensor scales another; no constant may take its place."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.b(self.a(x[x[:, 0] > -9]).relu())
        return self.c(h.relu()) * self.c(h).abs().mean()


@pytest.mark.parametrize(
    ("model", "gone"),
    [
        (Nonzero, {"a": 4, "b": 4}),
        (Detector, {"a": 4, "b": 4}),
        (MaskedRows, {"a": 4, "b": 4}),
        (Positive, {"b": 4}),
        (Unique, {"a": 4, "b": 4}),
        (Where, {"b": 4}),
        (Counted, {"a": 4, "b": 4}),
        (Repeated, {"a": 4, "b": 4}),
        (Averaged, {"a": 4, "b": 4}),
    ],
)
def test_sizes_that_depend_on_data(model: Any, gone: dict[str, int]) -> None:
    program = scripted(model())
    planned, certificate = pruned(program, [rows()])
    assert removed_of(planned) == gone
    assert certificate.batch_sizes == [4, 5]
    for seed in range(2, 8):  # every one has another number of rows, values or repeats
        assert on(program, planned, [rows(9, seed)]).passed


@pytest.mark.parametrize("model", [Nonzero, Detector, MaskedRows, Positive, Where, Repeated])
def test_traced_sizes_that_depend_on_data(model: Any) -> None:
    program = traced(model(), [rows()])
    planned, _ = pruned(program, [rows()])
    for seed in range(2, 5):
        assert on(program, planned, [rows(9, seed)]).passed


class Cut(Three):
    """A part of the channels, up to a number computed from data or given by the caller."""

    def forward(self, x: Tensor, stop: int = 8) -> Tensor:
        count = int(x.abs().sum().item()) % 8 + 1
        h, other = self.a(x), self.b(self.a(x))
        return self.c(other.relu()) + h[:, :count].sum() + other[:, :stop].sum()


def test_parts_with_computed_bounds_stay_whole() -> None:
    program = scripted(Cut())
    with pytest.raises(NothingPruned) as caught:
        pruned(program, [rows()])
    assert "its bounds are computed from data" in caught.value.hint


# Paths that data chooses


class Chooses(Three):
    """Two ways: through `b`, or past it."""

    def __init__(self) -> None:
        super().__init__()
        self.d, self.before = nn.Linear(6, 10), nn.Linear(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(self.d(x).relu())
        h = self.a(x)
        h = self.b(h) if bool(x.sum() > 0) else h * 2
        return self.c(h.relu())


def test_the_branch_that_was_not_taken_finds_everything_as_it_was() -> None:
    program = scripted(Chooses())
    planned, _ = pruned(program, [rows()])
    assert removed_of(planned) == {"d": 5, "before": 3}
    assert frozen_by(planned, "prim::If") == {"a": BRANCH}
    assert planned.compacted is not None
    assert planned.compacted.attributes()["b.weight"].shape == (8, 8)  # the example passes it by
    taken = set()
    for seed in range(2, 12):
        inputs = [5 * rows(4, seed)]
        taken.add(tuple(way for _, way in couple(program, inputs).tape.branches))
        assert on(program, planned, inputs).passed
    assert taken == {(0,), (1,)}


class Refuses(Three):
    def forward(self, x: Tensor) -> Tensor:
        if bool(x.max() > 100):
            raise ValueError("too large")
        return self.c(self.b(self.a(x)).relu())


def test_a_branch_that_raises_freezes_nothing() -> None:
    planned, _ = pruned(scripted(Refuses()), [rows()])
    assert removed_of(planned) == {"a": 4, "b": 4}


class RefusesFive(Three):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 5:
            raise ValueError("five is right out")
        return self.c(self.b(self.a(x)).relu())


def test_a_model_that_raises_at_another_batch_size_is_certified_at_its_own() -> None:
    assert pruned(scripted(RefusesFive()), [rows()])[1].batch_sizes == [4]


class Settles(Three):
    """Goes around until what it carries is small."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8)
        self.norm = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        h, rounds = self.a(x), 0
        while bool(h.abs().sum() > 2.0) and rounds < 20:
            h = 0.5 * self.narrow(self.norm(self.wide(h)).relu()).tanh()
            h = h * 0.8**rounds
            rounds += 1
        return self.c(self.b(h).relu())


def test_what_a_loop_carries_stays_whole_and_what_is_inside_goes() -> None:
    program = scripted(Settles())
    planned, certificate = pruned(program, [rows()])
    assert removed_of(planned) == {"wide": 8, "b": 4}
    assert frozen_by(planned, "prim::Loop")["a"] == LOOP
    assert certificate.kind == "approximate"  # the loop holds a norm
    # As often as it takes, on inputs that take more rounds and fewer.
    rounds = set()
    for scale in (0.1, 1.0, 30.0):
        inputs = [scale * rows(3, 5)]
        rounds.add(len(couple(program, inputs).tape.steps))
        assert on(program, planned, inputs).passed
    assert len(rounds) > 1


class Once(Three):
    """The example goes around once: nothing shows that `b` feeds itself."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        for _ in range(int(x[0, 0].item())):
            h = self.b(h).relu()
        return self.c(h)


def test_a_loop_that_ran_once_may_run_twice() -> None:
    program = scripted(Once())
    example = rows()
    for first in (0.0, 1.0):
        example[0, 0] = first
        with pytest.raises(NothingPruned) as caught:
            plan_channels(program, STAGE, [example], seed=0)
        assert LOOP in caught.value.hint


class Endless(Three):
    rounds: int

    def __init__(self) -> None:
        super().__init__()
        self.rounds = 10**9

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        for _ in range(self.rounds):
            h = self.b(h)
        return self.c(h)


class Counts(Endless):
    def forward(self, x: Tensor) -> Tensor:
        count = 0
        while count < self.rounds:
            count += 1
        return self.c(self.a(x)) * count


@pytest.mark.parametrize("model", [Endless, Counts])
def test_a_loop_without_an_end_in_sight_is_refused(model: Any) -> None:
    program = scripted(model())
    with pytest.raises(UnsupportedOperator, match="more than 20,000 rounds") as caught:
        couple(program, [rows()])
    assert "test_decisions.py" in caught.value.where
    assert "whole tensor" in caught.value.hint


def chained(depth: int, folder: Path) -> Program:
    """As many `elif`, which TorchScript nests one in the other."""
    lines = ["from torch import Tensor", "from tests.engine.core.test_odd_uploads import Three", ""]
    lines += [
        "class Chained(Three):",
        "    def forward(self, x: Tensor) -> Tensor:",
        "        y = x",
    ]
    for number in range(1, depth + 1):
        word = "if" if number == 1 else "elif"
        lines += [f"        {word} x.shape[0] == -{number}:", f"            y = x * {number}"]
    lines += ["        return self.c(self.b(self.a(y).relu()).relu())", ""]
    file = folder / f"chained_{depth}.py"  # scripting reads the source from its file
    file.write_text("\n".join(lines))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return scripted(module.Chained())


def test_deep_nesting_is_followed_or_refused(tmp_path: Path) -> None:
    assert removed_of(pruned(chained(50, tmp_path), [rows()])[0]) == {"a": 4, "b": 4}
    with pytest.raises(UnsupportedOperator, match="nested 150 deep") as caught:
        chained(150, tmp_path)
    assert caught.value.where == "forward"
    assert "table" in caught.value.hint


# State and chance


class Counter(Three):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        h = self.a(x)
        self.mean += h.mean(0)
        return self.c(self.b(h - self.mean).relu()) * self.calls


class CounterAndNorm(Counter):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.c(self.norm(self.b(self.a(x))).relu()) * self.calls


@pytest.mark.parametrize("model", [Counter, CounterAndNorm])
@pytest.mark.parametrize("way", ["scripted", "traced"])
def test_analysis_and_certificate_leave_no_trace_in_a_counter(model: Any, way: str) -> None:
    program = scripted(model()) if way == "scripted" else traced(model(), [rows()])
    at_first = float(program.attributes()["calls"])
    planned, _ = pruned(program, [rows()])
    assert planned.compacted is not None
    for own in (program, planned.compacted):
        assert float(own.attributes()["calls"]) == at_first
    first, second = (planned.compacted.run([rows()]) for _ in range(2))
    assert not torch.equal(first, second)  # it still counts


class Writes(Three):
    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        h = self.a(x)
        h.add_(1)
        return self.c(self.b(h).relu()) + x.sum()


def test_a_model_that_writes_to_its_input_gets_a_copy() -> None:
    example = rows()
    planned, _ = pruned(scripted(Writes()), [example])
    assert removed_of(planned) == {"a": 4, "b": 4}
    assert torch.equal(example, rows())


class Random(Three):
    def forward(self, x: Tensor) -> Tensor:
        h = F.dropout(self.a(x + torch.randn_like(x)), 0.5, training=True)
        return self.c(F.dropout(self.b(h).relu(), 0.5, training=False))


@pytest.mark.parametrize("way", ["scripted", "traced"])
def test_what_random_numbers_are_drawn_for_stays_whole(way: str) -> None:
    program = scripted(Random()) if way == "scripted" else traced(Random(), [rows()])
    planned, certificate = pruned(program, [rows()])
    assert removed_of(planned) == {"b": 4}
    assert frozen_by(planned, "aten::dropout")["a"] == "random numbers are drawn for it"
    assert certificate.kind == "exact"
    # May be no error at all: it depends on how a processor adds. That there was something to
    # compare does not.
    assert certificate.max_relative_error < 1e-9
    torch.manual_seed(1)
    first = program.run([rows()])
    assert float((program.run([rows()]) - first).abs().max()) > 0.01


class Untraceable(Three):
    def forward(self, x: Tensor) -> list[list[float]]:
        values: list[list[float]] = self.c(self.b(self.a(x))).tolist()
        return values


def test_lists_of_numbers_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedOperator, match="prim::tolist") as caught:
        couple(scripted(Untraceable()), [rows()])
    assert "return or use the tensor" in caught.value.hint


def test_without_the_frozen_region_the_other_branch_goes_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The checks above can fail."""
    monkeypatch.setattr("engine.coupling.coupling.freeze_decisions", lambda *_, **__: None)
    program = scripted(Chooses())
    planned, _ = pruned(program, [rows()])
    assert removed_of(planned)["a"] == 4
    both_ways = [5 * torch.cat([rows(1, seed)] * 4) for seed in range(2, 12)]
    with pytest.raises(EngineError, match="fails at batch size 4 where the original runs"):
        [on(program, planned, [inputs]) for inputs in both_ways]


class Shifted(Three):
    """Like Swin: a copied list of the module's own numbers is written to, then decided on."""

    shift: list[int]

    def __init__(self) -> None:
        super().__init__()
        self.shift = [1, 1]

    def forward(self, x: Tensor) -> Tensor:
        shift = self.shift.copy()
        if x.shape[1] <= 4:
            shift[0] = 0
        h = self.a(x)
        h = h.roll(1, 0) if sum(shift) > 0 else h * 2
        return self.c(self.b(h).relu())


def test_a_copy_of_numbers_that_is_written_to_is_no_data() -> None:
    planned, _ = pruned(scripted(Shifted()), [rows()])
    assert removed_of(planned) == {"a": 4, "b": 4}
