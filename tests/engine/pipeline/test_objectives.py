"""Jobs of every kind of objective: regression, language, segmentation, labels, uploaded modules."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import DatasetInvalid, OutputNotFound
from engine.objective.uploaded import ObjectiveModuleInvalid
from engine.pipeline import compress, score
from engine.pipeline.setup import prepare
from tests.engine.digits import Recorder, save_scripted
from tests.engine.pipeline.conftest import Done, prune

TRAINED = {"stage": "finetune", "epochs": 2, "optimizer": {"lr": 0.01}}


class Regressor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.last = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


class Language(nn.Module):
    def __init__(self, vocabulary: int = 7) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, 12)
        self.mix = nn.Conv1d(12, 16, 2)
        self.last = nn.Linear(16, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        x = functional.pad(self.table(ids).transpose(1, 2), [1, 0])
        return self.last(torch.relu(self.mix(x)).transpose(1, 2))


class Segmenter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.last(torch.relu(self.first(x)))
        return {"aux": found.mean(), "out": found}


class Mean(nn.Module):
    """An absolute error of its own."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).abs().mean()


class Weighted(nn.Module):
    """Of two outputs and two targets."""

    def forward(self, outputs: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
        first = (outputs[0] - targets[0]).square().mean()
        return first + 0.5 * functional.cross_entropy(outputs[1], targets[1])


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 16)
        self.values = nn.Linear(16, 2)
        self.classes = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.body(x))
        return self.values(x), self.classes(x)


def both(train: dict[str, Tensor], validation: dict[str, Tensor]) -> dict[str, Tensor]:
    named = {f"train/{name}": value for name, value in train.items()}
    named |= {f"validation/{name}": value for name, value in validation.items()}
    return {name: value.contiguous() for name, value in named.items()}


def regression(samples=48):
    x = torch.randn(samples, 6, generator=torch.Generator().manual_seed(1))
    y = torch.stack([x[:, 0] - x[:, 1], x[:, 2] * x[:, 3]], dim=1)
    return x, y


def cut(**tensors):
    """The first two thirds train, the rest validate."""
    names = {name.replace("_", "/"): value for name, value in tensors.items()}
    rows = len(next(iter(names.values()))) * 2 // 3
    return both(
        {name: value[:rows] for name, value in names.items()},
        {name: value[rows:] for name, value in names.items()},
    )


@pytest.fixture
def start(make_job, tmp_path):
    """Runs a recipe on a network and data."""

    def start(network, tensors, recipe, *, loss=None, metric=None, run=compress):
        model, data = tmp_path / "model.pt", tmp_path / "data.safetensors"
        save_scripted(network.eval(), model)
        save_file(tensors, data)
        modules = {}
        for role, module in (("loss", loss), ("metric", metric)):
            if module is not None:
                modules[role] = save_scripted(module, tmp_path / f"{role}.pt")
        if run is score:
            recipe = {"measure": {}} | recipe
        job = dataclasses.replace(make_job(model, recipe, data), **modules)
        heard = Recorder()
        return Done(run(job, heard), heard, job.workdir)

    return start


def told(done, name):
    return [value for metric, value, *_ in done.heard.metrics if metric == name]


def test_a_regression(start):
    x, y = regression()
    network = Regressor()
    recipe = {
        "stages": [prune(), TRAINED],
        "objective": {"loss": "mse", "metrics": ["mae", "rmse"]},
        "baselines": [{"kind": "scratch_e"}],
    }
    done = start(network, cut(inputs_0=x, targets_0=y), recipe)
    report = done.result.report
    error = network(x[32:]) - y[32:]
    assert report.before.accuracy is None
    assert report.before.loss == pytest.approx(float(error.square().mean()), rel=1e-5)
    assert report.before.metrics["mse"] == pytest.approx(report.before.loss, rel=1e-5)
    assert report.before.metrics["mae"] == pytest.approx(float(error.abs().mean()), rel=1e-5)
    assert report.before.metrics["rmse"] == pytest.approx(math.sqrt(report.before.loss), rel=1e-5)
    assert [metric.name for metric in report.objective.metrics] == ["mse", "mae", "rmse"]
    assert not report.objective.decides.higher_is_better
    assert report.verdict.accuracy_change is None
    assert report.verdict.metric == "mse"
    assert "top-1" not in report.verdict.summary
    assert f"mean squared error {report.before.loss:.4g} to" in report.verdict.summary
    assert report.baselines[0].metric == pytest.approx(report.baselines[0].loss, rel=1e-5)
    # The better of two epochs is the lower one.
    kept = report.stages[-1].metrics["mse"]
    assert kept == pytest.approx(min(told(done, "validation/mse")[:2]), rel=1e-5)
    assert told(done, "validation/accuracy") == told(done, "train/accuracy") == []
    assert len(told(done, "train/mse")) == 4


def test_a_language_model_needs_no_targets(start):
    ids = torch.randint(0, 7, (30, 9), generator=torch.Generator().manual_seed(2))
    network = Language()
    recipe = {
        "stages": [
            prune(criterion="taylor", scoring={"samples": 8}),
            TRAINED | {"early_stopping": {"patience": 1}},
        ],
        "objective": {"loss": "next_token", "metrics": ["accuracy"]},
        "constraints": {"max_metric_drop": {"relative": 10}},
    }
    done = start(network, cut(inputs_0=ids), recipe)
    report = done.result.report
    own = ids[20:]
    logits = network(own)[:, :-1]
    nll = functional.cross_entropy(logits.transpose(1, 2), own[:, 1:])
    assert report.before.loss == pytest.approx(float(nll), rel=1e-5)
    assert report.before.metrics["perplexity"] == pytest.approx(math.exp(nll), rel=1e-5)
    right = int((logits.argmax(-1) == own[:, 1:]).sum())
    assert (report.before.accuracy.correct, report.before.accuracy.total) == (right, 80)
    assert report.objective.decides.name == "perplexity"
    assert told(done, "validation/perplexity")[0] == pytest.approx(
        math.exp(told(done, "validation/loss")[0])
    )


def test_a_segmentation_with_pixels_that_do_not_count(start):
    images = torch.randn(18, 1, 6, 5)
    masks = torch.randint(0, 3, (18, 6, 5), dtype=torch.uint8)
    masks[:, 0] = 255
    network = Segmenter()
    recipe = {
        "stages": [prune(), TRAINED],
        "objective": {
            "loss": "segmentation", "output": "out", "ignore_index": 255, "metrics": ["accuracy"],
        },
    }  # fmt: skip
    report = start(network, cut(inputs_0=images, targets_0=masks), recipe).result.report
    found, given = network(images[12:])["out"].argmax(1)[:, 1:], masks[12:, 1:].long()
    shares = [
        float(((found == k) & (given == k)).sum() / ((found == k) | (given == k)).sum())
        for k in range(3)
    ]
    assert report.before.metrics["miou"] == pytest.approx(sum(shares) / 3)
    assert report.before.accuracy.total == 6 * 25
    assert report.before.accuracy.correct == int((found == given).sum())


def test_many_labels_at_once_in_every_part_of_a_job(start):
    x = torch.randn(36, 6)
    labels = (x[:, :2] > 0).float()
    recipe = {
        "stages": [
            prune(
                criterion="tournament",
                tournament={"criteria": ["l1_norm", "taylor"], "recovery": {"epochs": 1}},
            ),
            TRAINED,
        ],
        "objective": {"loss": "bce_with_logits"},
        "tradeoff": {
            "ratios": [0.3], "lines": [{"penalty": "none"}], "retraining": {"epochs": 1},
        },
    }  # fmt: skip
    network = Regressor()
    report = start(network, cut(inputs_0=x, targets_0=labels), recipe).result.report
    hits = float(((network(x[24:]) > 0) == (labels[24:] > 0.5)).float().mean())
    assert report.before.metrics == {"binary_accuracy": pytest.approx(hits)}
    assert all(one.metric is not None for one in report.tournaments[0].contestants)
    assert report.tournaments[0].winner is not None
    curve = report.tradeoff.curves[0]
    assert curve.dense is None
    assert curve.dense_metric == pytest.approx(hits)
    assert curve.points[0].retrained_metric is not None


def test_a_scan_by_the_metric(start):
    x, y = regression()
    recipe = {
        "stages": [{"stage": "score", "measure": "metric", "ratios": [0.5]}],
        "objective": {"loss": "l1"},
    }
    report = start(Regressor(), cut(inputs_0=x, targets_0=y), recipe, run=score).result.report
    scan = report.scans[0]
    point = scan.layers[0].points[0]
    assert report.objective.decides.name == "mae"
    # Lower is better: what is lost is how much it rose.
    assert scan.layers[0].sensitivity == pytest.approx(point.metric - scan.metric)


def test_an_uploaded_loss_is_what_it_computes(start):
    x, y = regression()
    recipe = {
        "stages": [prune(), TRAINED],
        "objective": {"loss": "module", "metrics": ["mae"]},
        "constraints": {"max_loss_increase": {"relative": 100}},
    }
    network = Regressor()
    done = start(network, cut(inputs_0=x, targets_0=y), recipe, loss=Mean())
    report = done.result.report
    assert report.objective.loss == "module"
    expected = float((network(x[32:]) - y[32:]).abs().mean().detach())
    assert report.before.loss == pytest.approx(expected, rel=1e-5)
    # A mean over elements of equal samples is the built-in one, and training descends on it.
    assert report.after.metrics["mae"] == pytest.approx(report.after.loss, rel=1e-5)
    assert report.after.loss < report.stages[0].loss
    assert report.before.metrics["loss"] == report.before.loss
    assert len(report.provenance.loss_sha256) == 64
    assert report.provenance.metric_sha256 is None


def test_a_module_of_two_outputs_and_two_targets_and_a_metric_of_its_own(start):
    x, y = regression()
    classes = (x[:, 4] > 0).long() + (x[:, 5] > 0).long()
    recipe = {
        "stages": [prune(), TRAINED],
        "objective": {"loss": "module", "metric": "module", "higher_is_better": False},
    }
    network = TwoHeads()
    tensors = cut(inputs_0=x, targets_0=y, targets_1=classes)
    report = start(network, tensors, recipe, loss=Weighted(), metric=Weighted()).result.report
    expected = Weighted()(network(x[32:]), (y[32:], classes[32:]))
    assert report.before.metrics["module"] == pytest.approx(float(expected.detach()), rel=1e-5)
    assert report.before.loss == pytest.approx(float(expected.detach()), rel=1e-5)


class NotScalar(nn.Module):
    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).abs()


class Whole(nn.Module):
    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs > targets).sum()


class Flat(nn.Module):
    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.detach() - targets).abs().mean()


class Broken(nn.Module):
    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).mean() / (targets - targets).mean()


class Rooted(nn.Module):
    """Its value is finite where its gradient is not."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - outputs.detach()).square().sum(1).sqrt().mean() + 0.0 * targets.mean()


class Other(nn.Module):
    def forward(self, outputs: list[Tensor], targets: Tensor) -> Tensor:
        return outputs[0].mean() + targets.mean()


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (NotScalar(), r"`NotScalar` returns float32\[1, 2\], and no scalar"),
        (Whole(), "returns int64.*no float"),
        (Flat(), "no gradient towards the model's output"),
        (Broken(), "returns (nan|inf|-inf) on the first samples"),
        (Rooted(), "gradient that is NaN"),
        (Other(), "the loss module `Other` fails"),
    ],
)
def test_a_module_that_is_no_loss(start, module, says):
    x, y = regression(6)
    recipe = {"stages": [prune(), TRAINED], "objective": {"loss": "module"}}
    with pytest.raises(ObjectiveModuleInvalid, match=says) as caught:
        start(Regressor(), cut(inputs_0=x, targets_0=y), recipe, loss=module)
    assert caught.value.where == "loss_model_id"
    assert caught.value.hint


def test_a_path_that_leads_nowhere_lists_what_there_is(start):
    tensors = cut(inputs_0=torch.randn(6, 1, 6, 5), targets_0=torch.zeros(6, 6, 5).long())
    recipe = {"stages": [prune()], "objective": {"loss": "segmentation", "output": "logits"}}
    with pytest.raises(OutputNotFound, match=r"`objective\.output: logits` is nothing") as caught:
        start(Segmenter(), tensors, recipe)
    assert "`aux` float32[], `out` float32[1, 3, 6, 5]" in caught.value.hint


def test_missing_classes_are_a_warning(start):
    images, masks = torch.randn(9, 1, 6, 5), torch.zeros(9, 6, 5).long()
    masks[0, 0, 0] = 2
    recipe = {"stages": [prune(), TRAINED], "objective": {"loss": "segmentation", "output": "out"}}
    tensors = cut(inputs_0=images, targets_0=masks)
    bench = start(Segmenter(), tensors, recipe, run=lambda job, _: prepare(job)).result
    # A split that the job does not look at may lack what it likes.
    unused = start(
        Segmenter(), tensors, recipe | {"stages": [prune()]}, run=lambda job, _: prepare(job)
    )
    assert list(unused.result.remarks) == list(bench.remarks)[1:]
    assert list(bench.remarks) == [
        "`train/targets/0` has no target of class 1: the train split says nothing of it",
        "`validation/targets/0` has no target of classes 1, 2: the validation split says nothing "
        "of them",
    ]


def test_targets_of_a_wrong_kind_are_refused_before_work(start):
    x, y = regression(6)
    recipe = {"stages": [prune()], "objective": {"loss": "mse"}}
    with pytest.raises(DatasetInvalid, match="does not fit the model's output"):
        start(Regressor(), cut(inputs_0=x, targets_0=y[:, :1]), recipe)
