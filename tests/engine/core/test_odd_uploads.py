"""Odd uploads at the engine's core: each a clear error or a frozen region with its reason.

Annotations are evaluated here: torch.jit.script reads some of them as types.
"""

import io
import math
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from secateur.recipe import PruneStage
from secateur.report import Certificate
from torch import Tensor, nn
from torch.nn import functional as F

from engine.certify import certify
from engine.comparison import failure, unlike
from engine.errors import (
    CertificateFailed,
    InputsDoNotFit,
    NothingPruned,
    NotTorchScript,
    UnsupportedOperator,
)
from engine.pipeline.prune import PlannedChannels, certified, plan_channels
from engine.torchscript.program import Program
from tests.engine.core.programs import scripted, traced, uploaded

STAGE = PruneStage.model_validate({"stage": "prune", "allocation": {"amount": 0.5}})


class Three(nn.Module):
    """Three layers; `a` and `b` can lose channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x).relu()).relu())


def rows(count: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


def pruned(program: Program, inputs: list[Any]) -> tuple[PlannedChannels, Certificate]:
    """Half of every group gone, and certified."""
    planned = plan_channels(program, STAGE, inputs, seed=0)
    certificate = certified(program, planned, inputs)
    assert certificate is not None
    assert certificate.passed
    return planned, certificate


def on(program: Program, planned: PlannedChannels, inputs: list[Any]) -> Certificate:
    """The certificate on other inputs than the plan was made for."""
    assert planned.compacted is not None
    removed = planned.plan.removed
    return certify(program, planned.compacted, planned.coupling, removed, inputs)


def frozen_by(planned: PlannedChannels, operator: str) -> dict[str, str]:
    return {item.layer: item.reason for item in planned.frozen if item.op == operator}


def removed_of(planned: PlannedChannels) -> dict[str, int]:
    return {name: count for name, count in planned.plan.by_group.items() if count}


# Operators of others


def test_an_operator_unknown_here_is_named(tmp_path: Path) -> None:
    code = """
        import sys, torch
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        library.impl("nms", lambda boxes, scores, threshold: scores.argsort()[:2], "CPU")
        class Boxes(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.head = torch.nn.Linear(6, 5)
            def forward(self, x):
                y = self.head(x)
                return y[torch.ops.torchvision.nms(y[:, :4], y[:, 4], 0.5)]
        torch.jit.save(torch.jit.script(Boxes()), sys.argv[1])
    """
    model, script = tmp_path / "boxes.pt", tmp_path / "boxes.py"
    script.write_text(textwrap.dedent(code))  # scripting reads the source from its file
    subprocess.run([sys.executable, "-W", "ignore", str(script), str(model)], check=True)
    with pytest.raises(UnsupportedOperator) as caught:
        Program.load(model)
    assert "calls torchvision::nms, which" in caught.value.title
    assert caught.value.where == "torchvision::nms"
    assert "custom operators" in caught.value.hint


ODD = torch.library.Library("odd_uploads", "DEF")
ODD.define("mirror(Tensor x) -> Tensor")
ODD.impl("mirror", lambda x: x.flip(-1) * 2, "CPU")
ODD.define("single(Tensor x) -> Tensor")
ODD.impl("single", lambda x: x.float() * 2, "CPU")


class Mirrored(Three):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(torch.ops.odd_uploads.mirror(self.a(x))).relu())


class Single(Three):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(torch.ops.odd_uploads.single(self.a(x))).relu())


@pytest.mark.parametrize("export", [scripted, lambda model: traced(model, [rows()])])
def test_a_custom_operator_without_a_rule_freezes_what_it_reads(export: Any) -> None:
    planned, _ = pruned(export(Mirrored()), [rows()])
    assert removed_of(planned) == {"b": 4}
    reason = frozen_by(planned, "odd_uploads::mirror")["a"]
    assert reason == "no rule for operator odd_uploads::mirror"


def test_an_operator_of_one_precision_is_named() -> None:
    with pytest.raises(UnsupportedOperator, match="float64") as caught:
        pruned(scripted(Single()), [rows()])
    assert "odd_uploads::single" in caught.value.hint
    assert caught.value.where == "certificate"


def quantized(model: nn.Module, *, static: bool) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the quantization of torch announces its successor
        if not static:
            return torch.ao.quantization.quantize_dynamic(model.eval(), {nn.Linear})
        wrapped = torch.ao.quantization.QuantWrapper(model).eval()
        wrapped.qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
        torch.ao.quantization.prepare(wrapped, inplace=True)
        wrapped(rows(20))
        return torch.ao.quantization.convert(wrapped, inplace=True)


class HalfQuantized(nn.Module):
    def __init__(self, *, static: bool) -> None:
        super().__init__()
        self.outer, self.inner = Three(), quantized(Three(), static=static)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(x) + self.inner(x)


@pytest.mark.parametrize(
    ("static", "operator"), [(False, "quantized::linear_dynamic"), (True, "quantized::linear")]
)
def test_quantized_uploads_are_refused_by_the_operators_name(static: bool, operator: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = scripted(HalfQuantized(static=static))
    with pytest.raises(UnsupportedOperator, match="float64") as caught:
        pruned(program, [rows()])
    assert operator in caught.value.hint
    assert "upload the model from before quantization" in caught.value.hint


class Holding(Three):
    """A table beside the layers."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(torch.mm(self.table, self.a(x))).relu())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: torch.eye(4).to_sparse(), "sparse tensor (sparse_coo)"),
        (lambda: torch.eye(4).to_sparse_csr(), "sparse tensor (sparse_csr)"),
        (
            lambda: torch.quantize_per_tensor(torch.eye(4), 0.1, 0, torch.qint8),
            "quantized tensor (torch.qint8)",
        ),
    ],
)
def test_a_table_that_is_no_plain_tensor_is_refused_by_name(make: Any, says: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # compressed rows are in beta, quantized tensors leave
        with pytest.raises(UnsupportedOperator) as caught:
            scripted(Holding(make()))
    assert caught.value.where == "table"
    assert f"the buffer `table` is a {says}" in caught.value.title
    assert caught.value.hint


class SparseMade(Three):
    def forward(self, x: Tensor) -> Tensor:
        places = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
        graph = torch.sparse_coo_tensor(places, torch.ones(4), [4, 4])
        return self.c(self.b(torch.sparse.mm(graph, self.a(x))).relu())


def test_a_sparse_product_freezes_what_it_reads() -> None:
    planned, certificate = pruned(scripted(SparseMade()), [rows()])
    assert removed_of(planned) == {"b": 4}
    assert "_sparse_mm" in frozen_by(planned, "aten::_sparse_mm")["a"]
    assert certificate.batch_sizes == [4]


# Complex numbers


class ComplexWeights(Three):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(8, dtype=torch.complex64))
        self.mix = nn.Parameter(torch.randn(8, 8, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        z = torch.matmul(self.a(x).to(torch.complex64) * self.scale, self.mix)
        return self.c(self.b(z.real.contiguous()).relu())


class Fourier(Three):
    """As in FNet: positions and channels are mixed by a transform."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = h + torch.fft.irfft(torch.fft.rfft(h), n=8)
        return self.c(self.b(h).relu())


class Pairs(Three):
    def forward(self, x: Tensor) -> Tensor:
        z = torch.view_as_complex(self.a(x).reshape(x.shape[0], 4, 2))
        return self.c(self.b(torch.view_as_real(z * z).flatten(1)).relu())


@pytest.mark.parametrize(
    ("model", "operator"),
    [(ComplexWeights, "aten::mul"), (Fourier, "aten::fft_rfft"), (Pairs, "aten::view_as_complex")],
)
@pytest.mark.parametrize("way", ["scripted", "traced"])
def test_complex_numbers_freeze_what_they_are_made_of(model: Any, operator: str, way: str) -> None:
    program = scripted(model()) if way == "scripted" else traced(model(), [rows()])
    planned, certificate = pruned(program, [rows()])
    assert removed_of(planned) == {"b": 4}
    assert "a" in frozen_by(planned, operator)
    assert certificate.max_relative_error < 1e-13  # complex128, or it would be 1e-7
    before, after = program.attributes(), planned.compacted.attributes()  # type: ignore[union-attr]
    assert all(
        after[name].dtype == tensor.dtype and torch.equal(after[name], tensor)
        for name, tensor in before.items()
        if tensor.is_complex()
    )


# Weights that are no usual weights


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class Integers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(12).reshape(6, 2), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.float()


@pytest.mark.parametrize("model", [Nothing, Integers])
def test_without_weights_that_count_there_is_nothing_to_prune(model: Any) -> None:
    with pytest.raises(NothingPruned, match="no channel of the model can be removed") as caught:
        pruned(scripted(model()), [rows()])
    assert "no weights" in caught.value.hint


class Spoilt(Three):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.a.weight.data[5, 0] = value


class Roots(Three):
    def forward(self, x: Tensor) -> Tensor:
        return self.c((self.b(self.a(x).relu()) - 1e3).sqrt())


def test_a_model_of_nan_is_refused_by_the_weights_name() -> None:
    with pytest.raises(CertificateFailed) as caught:
        pruned(scripted(Spoilt(float("nan"))), [rows()])
    assert "gives NaN on the example, first in the weight `a.weight`" in caught.value.title
    assert "inf" not in caught.value.title
    assert caught.value.where == "certificate"


@pytest.mark.parametrize("way", ["scripted", "traced"])
def test_the_operator_that_first_gives_nan_is_named(way: str) -> None:
    program = scripted(Roots()) if way == "scripted" else traced(Roots(), [rows()])
    with pytest.raises(CertificateFailed) as caught:
        pruned(program, [rows()])
    assert "gives NaN on the example, first in the result of aten::sqrt" in caught.value.title
    assert "test_odd_uploads.py" in caught.value.title
    assert "inf" not in caught.value.title


def test_a_compact_model_that_gives_nan_is_no_drift() -> None:
    class Spread(Three):
        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.a(x).relu()).relu()) + self.b(self.a(x)).std(1, keepdim=True)

    stage = PruneStage.model_validate({"stage": "prune", "allocation": {"amount": 0.9}})
    program = scripted(Spread())
    planned = plan_channels(program, stage, [rows()], seed=0)
    assert planned.plan.by_group["b"] == 7  # the deviation of one value is 0 / 0
    with pytest.raises(CertificateFailed, match="first in the result of aten::std"):
        certified(program, planned, [rows()])


def test_an_example_of_nan_is_named_as_such() -> None:
    with pytest.raises(CertificateFailed, match="first in the inputs"):
        pruned(scripted(Three()), [torch.full((4, 6), float("nan"))])


def test_infinities_at_equal_places_can_be_compared_inside() -> None:
    class Masked(Three):
        def forward(self, x: Tensor) -> Tensor:
            y = self.c(self.b(self.a(x).relu()).relu()).masked_fill(x[:, :3] > 0, float("-inf"))
            return y.argmax(1)

    planned, certificate = pruned(scripted(Masked()), [rows()])
    assert removed_of(planned) == {"a": 4, "b": 4}
    assert "all inner tensors were compared" in certificate.detail


@pytest.mark.parametrize(
    ("expected", "found", "said"),
    [
        ((torch.ones(2, 3), 4), (torch.ones(2, 3), 5), "an output is 5 and should be 4"),
        (torch.ones(2, 3), torch.ones(2), "an output has shape (2,) and should have (2, 3)"),
        (torch.tensor([1]), torch.tensor([2]), "an output of integers differs"),
        (
            torch.tensor([1.0, 2.0]),
            torch.tensor([1.0, math.nan]),
            "outputs hold NaN where they should",
        ),
        (torch.tensor([math.inf]), torch.tensor([1.0]), "outputs hold infinity at other places"),
        ([torch.ones(1), "a"], [torch.ones(1), torch.ones(1)], "an output is a tensor and should"),
        ({"a": 1.5}, {"a": 2.5}, ""),
    ],
)
def test_outputs_without_a_distance_are_told_apart_in_words(
    expected: Any, found: Any, said: str
) -> None:
    told = unlike(expected, found)
    assert (said in told) if said else told == ""


def test_a_failed_certificate_without_a_distance_says_what_differs() -> None:
    made = Certificate(
        passed=False, kind="exact", max_relative_error=math.inf, mixed_by=[], batch_sizes=[4],
        reloaded_in_fresh_process=False, detail="an output is 5 and should be 4",
    )  # fmt: skip
    assert failure("they differ", made).title == "they differ: an output is 5 and should be 4"
    near = made.model_copy(update={"max_relative_error": 2e-3, "detail": "at most 1e-9"})
    assert failure("they differ", near).title == "they differ: relative error 0.002"


def test_an_infinite_weight_does_not_hide_the_others() -> None:
    finite, spoilt = Three(), Spoilt(float("inf"))
    for model in (finite, spoilt):
        model.a.weight.data[[1, 3, 4, 7]] *= 0.01
    planned, _ = pruned(scripted(spoilt), [rows()])
    assert planned.compacted is not None
    kept = planned.compacted.attributes()["a.weight"]
    assert torch.equal(kept, spoilt.a.weight[[0, 2, 5, 6]])


class Sizes(Three):
    """Empty, single and shared parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.none = nn.Parameter(torch.zeros(0, 8))
        self.also_none = nn.Parameter(torch.zeros(0))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.twin, self.third = nn.Linear(8, 8), nn.Linear(8, 8)
        self.twin.weight = self.third.weight = self.b.weight

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cat([self.a(x), self.none]) * self.scale + self.also_none.sum()
        return self.c(self.third(self.twin(self.b(h).relu()).relu()).relu())


@pytest.mark.parametrize("way", ["scripted", "traced"])
def test_empty_single_and_shared_parameters(way: str) -> None:
    program = scripted(Sizes()) if way == "scripted" else traced(Sizes(), [rows()])
    planned, _ = pruned(program, [rows()])
    assert planned.compacted is not None
    after = planned.compacted.attributes()
    assert after["none"].shape == (0, 4)
    assert after["also_none"].shape == (0,)
    assert after["scale"].shape == ()
    shared = {after[f"{layer}.weight"].data_ptr() for layer in ("b", "twin", "third")}
    assert len(shared) == 1
    assert after["b.weight"].shape == (4, 4)


# Names


class Named(nn.Module):
    def __init__(self, *names: str) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        for name in names:
            self.add_module(name, nn.Linear(8, 8))
        self.names = names

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        for name in self.names:
            x = self._modules[name](x).relu()
        return self.last(x)


@pytest.mark.parametrize("name", ["graph", "code", "original_name", "inlined_graph"])
def test_a_name_of_torchs_own_is_refused(name: str) -> None:
    with pytest.raises(NotTorchScript) as caught:
        traced(Named(name), [rows()])
    assert caught.value.where == name
    assert f"`{name}`" in caught.value.title
    assert f"rename `{name}`" in caught.value.hint


def test_odd_names_are_layers_like_others() -> None:
    names = ["a#2", "first#2", "run", "items", "weight", "x-1", "copy", "_private"]
    planned, _ = pruned(traced(Named(*names), [rows()]), [rows()])
    assert removed_of(planned) == dict.fromkeys(["first", *names], 4)


class Gated(nn.Module):
    """One layer of two groups, `a` and `a#2`, beside a layer that has the second name."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.left, self.right = nn.Linear(6, 16), nn.Linear(8, 8), nn.Linear(8, 8)
        self.add_module("a#2", nn.Linear(8, 8))
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        h = self.left(h[:, :8]) + self.right(h[:, 8:])
        return self.out(self._modules["a#2"](h.relu()).relu())


def test_group_keys_never_collide() -> None:
    program = traced(Gated(), [rows()])
    planned, _ = pruned(program, [rows()])
    assert len(planned.plan.by_group) == len(planned.coupling.groups) == 4
    assert sum(planned.plan.by_group.values()) == planned.plan.removed.size == 16


# Inputs


class TwoInputs(Three):
    def forward(self, x: Tensor, y: Tensor, times: int = 3) -> Tensor:
        return self.c(self.b(self.a(x + times * y)).relu())


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([], "nothing is given for argument `x`"),
        ([rows()], "nothing is given for argument `y`"),
        ([rows(), rows(), 3, 4], "4 inputs are given, and forward takes 3"),
        ([rows(0), rows(0)], "the example holds no samples"),
    ],
)
def test_inputs_of_the_wrong_number_are_counted(inputs: list[Any], says: str) -> None:
    with pytest.raises(InputsDoNotFit) as caught:
        pruned(scripted(TwoInputs()), inputs)
    assert says in caught.value.title
    assert caught.value.where == "inputs"
    assert "`times: int = 3`" in caught.value.hint or "one sample" in caught.value.hint


def test_inputs_of_another_type_are_told_from_a_lack_of_precision() -> None:
    with pytest.raises(InputsDoNotFit, match="same dtype") as caught:
        pruned(scripted(Three()), [torch.ones(4, 6, dtype=torch.int64)])
    assert "int64[4, 6]" in caught.value.hint


# Outputs that tell nothing


class Silent(Three):
    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.c.weight)
        nn.init.zeros_(self.c.bias)


class Classes(Three):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x).relu()).relu()).argmax(1)


class NoBox(Three):
    def forward(self, x: Tensor) -> Tensor:
        scores = self.c(self.b(self.a(x).relu()).relu())
        return scores[(scores > 1000).any(1)]


@pytest.mark.parametrize("model", [Silent, Classes, NoBox])
def test_silent_outputs_are_certified_by_what_is_inside(model: Any) -> None:
    program = scripted(model())
    planned, certificate = pruned(program, [rows()])
    assert removed_of(planned) == {"a": 4, "b": 4}
    assert "all inner tensors were compared" in certificate.detail
    assert planned.compacted is not None
    with torch.no_grad():
        planned.compacted.parameters()["b.weight"].mul_(1.01)
    wrong = on(program, planned, [rows()])
    assert not wrong.passed


def test_outputs_that_speak_need_no_look_inside() -> None:
    assert pruned(scripted(Three()), [rows()])[1].detail == ""


class Sized(Three):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        h = self.a(x)
        return self.c(self.b(h).relu()), h.shape[1]


def test_a_size_among_the_outputs_is_no_silent_change() -> None:
    planned, _ = pruned(scripted(Sized()), [rows()])
    assert removed_of(planned) == {"b": 4}
    assert frozen_by(planned, "size") == {"a": "its size is an output of the model"}


def test_a_damaged_archive_is_no_program() -> None:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Three()), buffer)
    with pytest.raises(NotTorchScript):
        Program.load(buffer.getvalue()[:-500])


class Guarded(Three):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = self.a(x)
        return self.c(self.b(F.relu(h)))


def test_a_guard_of_gradients_is_passed_by() -> None:
    planned, _ = pruned(uploaded(torch.jit.script(Guarded().eval())), [rows()])
    assert removed_of(planned) == {"a": 4, "b": 4}
