"""Products really run in the lower type, everything else stays what it is."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from engine.errors import TrainingRuleUnmet
from engine.masks import apply_masks
from engine.training.evaluation import evaluate
from engine.training.finetune import finetune
from engine.training.precision import precision_of
from tests.engine.training.test_finetune import (
    InPlace,
    Observer,
    make_program,
    options,
    run_of,
    same,
    splits,
    weights,
)

PRODUCTS = ("convolution", "addmm", "mm.", "bmm")


class Types(TorchDispatchMode):
    """Notes the type that every product, and every step of the optimiser, gives."""

    def __init__(self) -> None:
        super().__init__()
        self.products: dict[str, set[torch.dtype]] = {}
        self.moved: set[torch.dtype] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = str(function)
        if any(product in name for product in PRODUCTS):
            first = next(one for one in _flat(result) if one is not None)
            self.products.setdefault(name, set()).add(first.dtype)
        if "foreach_add_" in name or "addcdiv_" in name or name.startswith("aten.add_."):
            self.moved |= {one.dtype for one in _flat(args[0]) if isinstance(one, Tensor)}
        return result


def _flat(value):
    return value if isinstance(value, tuple | list) else [value]


def short(**changes):
    return options(epochs=1, batch_size=64, **changes)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(("kind", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_every_product_of_a_loaded_program_runs_in_the_lower_type(tmp_path, traced, kind, dtype):
    program = make_program(tmp_path / "m.pt", traced=traced)
    observer = Observer()
    run = run_of(short(precision=kind, keep="last"), validation=False)
    with Types() as seen:
        result = finetune(program, run, observer)
    assert {name.split(".")[1] for name in seen.products} >= {
        "convolution_backward",
        "addmm",
        "mm",
    }
    assert all(found == {dtype} for found in seen.products.values()), seen.products
    assert seen.moved <= {torch.float32, torch.float64, torch.int64}
    assert all(one.dtype == torch.float32 for one in result.parameters().values())
    state = observer.states[-1]
    momenta = [held["momentum_buffer"].dtype for held in state.optimizer["state"].values()]
    assert set(momenta) == {torch.float32}
    # The program given, and the one that comes out, compute in float32 as before.
    with Types() as after, torch.no_grad():
        evaluate(result, splits()[1], device="cpu")
    assert all(found == {torch.float32} for found in after.products.values())


def test_float32_is_what_it_was(tmp_path):
    program = make_program(tmp_path / "m.pt")
    with Types() as seen:
        one = finetune(program, run_of(short()), Observer())
    assert all(found == {torch.float32} for found in seen.products.values())
    auto = finetune(program, run_of(short(precision="auto")), Observer())
    assert same(weights(one), weights(auto))  # on a CPU


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_it_learns_about_as_well(tmp_path, kind):
    program = make_program(tmp_path / "m.pt")
    reached = {
        precision: evaluate(
            finetune(program, run_of(options(epochs=4, precision=precision)), Observer()),
            splits()[1],
            device="cpu",
        ).loss
        for precision in ("float32", kind)
    }
    assert reached[kind] == pytest.approx(reached["float32"], rel=0.1)
    assert reached[kind] != reached["float32"]


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_resuming_gives_the_same_bits(tmp_path, kind):
    program = make_program(tmp_path / "m.pt")
    run = run_of(options(epochs=3, precision=kind, ema={"decay": 0.9}))
    observer = Observer()
    whole = weights(finetune(program, run, observer))
    resumed = weights(finetune(program, run, Observer(), resume=observer.states[0]))
    assert same(whole, resumed)


def test_masks_clipping_and_accumulation_hold(tmp_path):
    program = make_program(tmp_path / "m.pt")
    masks = {"linear.weight": torch.rand(10, 216, generator=torch.Generator().manual_seed(0)) > 0.8}
    apply_masks(program.parameters(), masks)
    before = weights(program)["linear.weight"]
    moved = {}
    # One step of plain descent at rate 1: the clipped gradient's length is the way it goes.
    plain = {"kind": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    for kind in ("bf16", "fp16"):
        chosen = short(precision=kind, clip_norm=0.01, accumulate=4, optimizer=plain, keep="last")
        result = weights(finetune(program, run_of(chosen, masks), Observer()))
        assert torch.count_nonzero(result["linear.weight"][~masks["linear.weight"]]) == 0
        names = program.parameters()
        start = weights(program)
        way = torch.cat([(result[name] - start[name]).flatten() for name in names])
        moved[kind] = float(way.norm())
        assert not torch.equal(result["linear.weight"], before)
    # Scaling by 65,536 must be undone before the norm is held against its limit.
    assert moved == {"bf16": pytest.approx(0.01, rel=1e-3), "fp16": pytest.approx(0.01, rel=1e-3)}


class Steep(nn.Module):
    """Gradients that overflow float16 at the first scales and fit at lower ones."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)) * 8.0


def test_steps_that_overflow_are_left_out_and_counted(tmp_path):
    program = make_program(tmp_path / "m.pt", Steep())
    chosen = short(precision="fp16", keep="last", optimizer={"lr": 1e-4})
    observer = Observer()
    result = finetune(program, run_of(chosen, validation=False), observer)
    skipped = observer.values("train/skipped_steps")
    assert len(skipped) == 1
    assert 0 < skipped[0] < 4  # of 4 steps
    kept = observer.states[-1].precision
    assert kept["skipped"] == skipped[0]
    assert kept["scale"] == 65536 / 2 ** skipped[0]
    assert all(bool(one.isfinite().all()) for one in result.parameters().values())
    assert not same(weights(program), weights(result))


def test_the_teacher_computes_in_its_own_type(tmp_path):
    program = make_program(tmp_path / "m.pt")
    chosen = short(precision="bf16", distillation={"alpha": 1.0})
    run = dataclasses.replace(run_of(chosen), teacher=program)
    observer = Observer()
    with Types() as seen:
        finetune(program, run, observer)
    assert seen.products["aten.convolution.default"] == {torch.bfloat16, torch.float32}
    assert seen.products["aten.convolution_backward.default"] == {torch.bfloat16}
    assert observer.values("train/distillation")[0] < 1


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
@pytest.mark.parametrize("own", [torch.float64, torch.bfloat16])
def test_weights_of_another_type_are_refused(kind, own):
    held = {"conv.weight": torch.zeros(2, 2), "linear.bias": torch.zeros(2, dtype=own)}
    with pytest.raises(TrainingRuleUnmet, match=r"`linear.bias` is (float64|bfloat16)") as caught:
        precision_of(options(precision=kind), held, device="cpu", field="recipe.stages.1")
    assert caught.value.where == "recipe.stages.1.precision"
    auto = precision_of(options(precision="auto"), held, device="cpu", field="f")
    assert not auto.lowered


class Gathering(nn.Module):
    """Adds rows to a table of float32, as graph networks do; both must be of one type."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        table, rows = torch.zeros(x.shape[0], 10), torch.arange(x.shape[0])
        return table.index_add(0, rows, self.linear(x.flatten(1)))


def test_a_program_that_cannot_run_in_the_lower_type_says_so(tmp_path):
    program = make_program(tmp_path / "m.pt", Gathering())
    finetune(program, run_of(short()), Observer())
    with pytest.raises(TrainingRuleUnmet, match="runs in float32 and not in bf16") as caught:
        finetune(program, run_of(short(precision="bf16")), Observer())
    assert caught.value.where == "recipe.stages.0.precision"


def test_programs_that_write_to_their_input_do_not_reach_the_dataset(tmp_path):
    program = make_program(tmp_path / "m.pt", InPlace())
    run = run_of(short(precision="bf16"))
    before = run.train.inputs[0].clone()
    finetune(program, run, Observer())
    assert torch.equal(run.train.inputs[0], before)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValidationError, match="precision"):
        options(precision="int8")
    assert options(precision="bf16").precision == "bf16"
