from __future__ import annotations

import dataclasses
import io
import warnings

import pytest
import torch
from pydantic import ValidationError
from secateur.recipe import FinetuneOptions, Optimizer
from torch import Tensor, nn

from engine.data.splits import Split
from engine.errors import InputsDoNotFit, NothingToTrain, TrainingDiverged, UnsupportedOperator
from engine.masks import apply_masks
from engine.objective.classes import cross_entropy
from engine.torchscript.program import Program
from engine.training.denormals import zero_subnormal
from engine.training.evaluation import evaluate
from engine.training.finetune import finetune
from engine.training.optimizer import build_optimizer, learning_rate
from engine.training.run import TrainingRun
from engine.training.state import Best, TrainingState
from tests.engine.digits import digits, save_scripted


class Observer:
    def __init__(self):
        self.metrics = []
        self.states = []
        self.steps = []

    def progress(self, current, total, unit):
        self.steps.append((current, total, unit))

    def metric(self, name, value, step):
        self.metrics.append((name, value, step))

    def epoch_finished(self, state):
        # As a checkpoint would: what the state holds now, not what it will hold later.
        plain = state.to_plain()
        plain["optimizer"] = torch.load(_round_trip(plain["optimizer"]), weights_only=True)
        self.states.append(TrainingState.from_plain(plain))

    def values(self, name):
        return [value for metric, value, _ in self.metrics if metric == name]


def _round_trip(data):
    buffer = io.BytesIO()
    torch.save(data, buffer)
    buffer.seek(0)
    return buffer


def splits(samples=256):
    data = digits()
    return tuple(
        Split(
            name,
            (data[f"{name}/inputs/0"][:samples],),
            (f"{name}/inputs/0",),
            data[f"{name}/targets/0"][:samples],
            f"{name}/targets/0",
        )
        for name in ("train", "validation")
    )


def options(**changes):
    return FinetuneOptions.model_validate(
        {"epochs": 2, "optimizer": {"lr": 0.05, "weight_decay": 1e-4}} | changes
    )


def run_of(opts=None, masks=None, seed=0, validation=True):
    train, held_out = splits()
    return TrainingRun(
        options=opts or options(),
        train=train,
        validation=held_out if validation else None,
        masks=masks or {},
        seed=seed,
        purpose="test",
        field="recipe.stages.0",
    )


class Small(nn.Module):
    """BatchNorm and dropout, to see that training mode reaches them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.3)
        self.linear = nn.Linear(6 * 36, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.drop(torch.relu(self.norm(self.conv(x))).flatten(1)))


def make_program(path, module=None, *, traced=False):
    torch.manual_seed(0)
    module = (module or Small()).eval()
    if not traced:
        return Program.load(save_scripted(module, path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module, torch.zeros(2, 1, 8, 8)), path)
    return Program.load(path)


def weights(program):
    return {name: tensor.detach().clone() for name, tensor in program.attributes().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("traced", [False, True])
def test_learns_and_moves_the_running_statistics(tmp_path, traced):
    program = make_program(tmp_path / "m.pt", traced=traced)
    before = weights(program)
    observer = Observer()
    result = finetune(program, run_of(options(epochs=4)), observer)
    after = weights(result)
    assert same(before, weights(program))  # the program given is not touched
    assert evaluate(result, splits()[1], device="cpu").accuracy.top1 > 0.7
    assert not torch.equal(before["norm.running_mean"], after["norm.running_mean"])
    losses = observer.values("train/loss")
    assert losses[-1] < losses[0]
    assert observer.steps[-1] == (4 * 8, 4 * 8, "steps")
    assert len(observer.values("validation/accuracy")) == 4
    assert observer.values("lr")[0] == pytest.approx(0.05)
    assert not result.module.training


def test_traced_and_scripted_train_alike(tmp_path):
    scripted = make_program(tmp_path / "s.pt")
    traced = make_program(tmp_path / "t.pt", traced=True)
    run = run_of(options(epochs=1))
    one, other = (weights(finetune(p, run, Observer())) for p in (scripted, traced))
    torch.testing.assert_close(one["conv.weight"], other["conv.weight"], rtol=0, atol=1e-6)


def test_frozen_batch_norm_keeps_its_statistics(tmp_path):
    for traced in (False, True):
        program = make_program(tmp_path / "m.pt", traced=traced)
        before = weights(program)
        after = weights(finetune(program, run_of(options(batch_norm="frozen")), Observer()))
        assert torch.equal(before["norm.running_var"], after["norm.running_var"])
        assert not torch.equal(before["norm.weight"], after["norm.weight"])


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path):
    program = make_program(tmp_path / "m.pt")
    one, same_seed, other = (
        weights(finetune(program, run_of(seed=seed), Observer())) for seed in (1, 1, 2)
    )
    assert same(one, same_seed)
    assert not same(one, other)


@pytest.mark.parametrize(
    "optimizer",
    [
        {"kind": "sgd", "lr": 0.05},
        {"kind": "adam", "lr": 0.003},
        {"kind": "adamw", "lr": 0.003},
    ],
)
def test_resuming_after_any_epoch_gives_the_same_bits(tmp_path, optimizer):
    program = make_program(tmp_path / "m.pt")
    run = run_of(options(epochs=3, optimizer=optimizer))
    observer = Observer()
    whole = weights(finetune(program, run, observer))
    assert len(observer.states) == 3
    for state in observer.states:
        torch.rand(7)  # a resumed process has another random state
        resumed = weights(finetune(program, run, Observer(), resume=state))
        assert same(whole, resumed)


def test_masked_weights_stay_zero(tmp_path):
    program = make_program(tmp_path / "m.pt")
    masks = {"linear.weight": torch.rand(10, 216, generator=torch.Generator().manual_seed(0)) > 0.8}
    apply_masks(program.parameters(), masks)
    adamw = {"kind": "adamw", "lr": 0.003, "weight_decay": 0.1}
    for optimizer in ({"kind": "sgd", "weight_decay": 0.01}, adamw):
        result = finetune(program, run_of(options(optimizer=optimizer), masks), Observer())
        trained = result.parameters()["linear.weight"]
        assert torch.count_nonzero(trained[~masks["linear.weight"]]) == 0
        assert not torch.equal(trained, program.parameters()["linear.weight"])


def test_best_epoch_is_kept_and_last_when_asked(tmp_path):
    program = make_program(tmp_path / "m.pt")
    wild = {"epochs": 5, "lr_schedule": "constant", "optimizer": {"lr": 1.0, "momentum": 0.9}}
    observer = Observer()
    best = finetune(program, run_of(options(**wild)), observer)
    accuracies = observer.values("validation/accuracy")
    assert accuracies[-1] < max(accuracies)  # otherwise best and last could not be told apart
    assert evaluate(best, splits()[1], device="cpu").accuracy.top1 == max(accuracies)
    last = finetune(program, run_of(options(**wild, keep="last")), Observer())
    assert evaluate(last, splits()[1], device="cpu").accuracy.top1 == accuracies[-1]


def test_divergence_names_the_learning_rate(tmp_path):
    program = make_program(tmp_path / "m.pt")
    run = run_of(options(optimizer={"kind": "sgd", "lr": 10.0}, lr_schedule="constant", epochs=5))
    with torch.no_grad():
        program.parameters()["linear.weight"].mul_(1e38)
    with pytest.raises(TrainingDiverged) as caught:
        finetune(program, run, Observer())
    assert caught.value.where == "recipe.stages.0.optimizer.lr"


def test_parameters_without_gradients_are_trained_too(tmp_path):
    module = Small().requires_grad_(False)
    program = make_program(tmp_path / "m.pt", module)
    before = weights(program)
    assert not torch.equal(
        before["conv.weight"], weights(finetune(program, run_of(), Observer()))["conv.weight"]
    )


class NoWeights(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10]


def test_nothing_to_train(tmp_path):
    with pytest.raises(NothingToTrain) as caught:
        finetune(make_program(tmp_path / "m.pt", NoWeights()), run_of(), Observer())
    assert caught.value.where == "recipe.stages.0"


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.view(4, 64))


def test_a_refused_batch_size_names_its_field(tmp_path):
    program = make_program(tmp_path / "m.pt", FixedBatch())
    with pytest.raises(InputsDoNotFit) as caught:
        finetune(program, run_of(options(batch_size=32)), Observer())
    assert caught.value.where == "recipe.stages.0.batch_size"


class NotDifferentiable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)).detach()


def test_a_program_without_gradient_says_so(tmp_path):
    program = make_program(tmp_path / "m.pt", NotDifferentiable())
    with pytest.raises(UnsupportedOperator, match="cannot be trained") as caught:
        finetune(program, run_of(), Observer())
    assert caught.value.where == "recipe.stages.0"


def test_evaluation_by_hand_and_with_a_fixed_batch(tmp_path):
    program = make_program(tmp_path / "m.pt", FixedBatch())
    _, validation = splits()
    some = Split("validation", (validation.inputs[0][:10],), ("v",), validation.targets[:10], "t")
    got = evaluate(program, some, device="cpu", example_batch=4)
    with torch.no_grad():
        linear = program.module.linear
        logits = linear(some.inputs[0].flatten(1))
        loss = nn.functional.cross_entropy(logits, some.targets)
    assert got.loss == pytest.approx(float(loss), rel=1e-5)
    assert got.accuracy.correct == int((logits.argmax(1) == some.targets).sum())
    assert got.accuracy.total == 10


def test_label_smoothing_by_hand():
    # p = (3/4, 1/4); L = -(1 - e) log p_0 - e/2 (log p_0 + log p_1)
    logits = torch.tensor([[3.0, 1.0]]).log()
    expected = -0.8 * torch.tensor(0.75).log() - 0.1 * torch.tensor([0.75, 0.25]).log().sum()
    got = cross_entropy(logits, torch.tensor([0]), label_smoothing=0.2)
    assert float(got) == pytest.approx(float(expected), rel=1e-6)


def test_cosine_by_hand():
    opts = options(optimizer={"lr": 0.4})
    assert [learning_rate(opts, step, 4) for step in range(4)] == pytest.approx(
        [0.4, 0.4 * 0.8535534, 0.2, 0.4 * 0.1464466]
    )
    assert learning_rate(options(lr_schedule="constant"), 3, 4) == 0.05


def test_step_and_warm_up_by_hand():
    # 6 epochs of 2 steps; divided by 4 every 2 epochs
    step = options(
        epochs=6,
        optimizer={"lr": 0.4},
        lr_schedule="step",
        lr_step_epochs=2,
        lr_step_factor=0.25,
    )
    assert [learning_rate(step, number, 12) for number in (0, 3, 4, 7, 8, 11)] == pytest.approx(
        [0.4, 0.4, 0.1, 0.1, 0.025, 0.025]
    )
    # 1 of 3 epochs of 4 steps rises: 1/4, 2/4, 3/4, 4/4; the cosine fills the 8 steps after it
    warm = options(epochs=3, optimizer={"lr": 0.4}, warmup_epochs=1)
    assert [learning_rate(warm, number, 12) for number in (0, 1, 2, 3, 4, 8)] == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, 0.4, 0.2]
    )
    with pytest.raises(ValidationError, match="must be fewer than `epochs`"):
        options(epochs=3, warmup_epochs=3)


def test_leaving_out_the_first_epochs_of_a_schedule(tmp_path):
    program = make_program(tmp_path / "m.pt")
    run = dataclasses.replace(run_of(options(epochs=4, optimizer={"lr": 0.4})), first_epoch=2)
    observer = Observer()
    finetune(program, run, observer)
    # The cosine of 32 steps, from its middle on: 0.4 (1 + cos(pi / 2)) / 2, then 3 pi / 4
    assert observer.values("lr") == pytest.approx([0.2, 0.4 * 0.1464466])
    assert [state.epoch for state in observer.states] == [3, 4]


def test_optimizers_get_their_settings():
    weight = [nn.Parameter(torch.zeros(1))]
    sgd = build_optimizer(Optimizer(lr=0.1, momentum=0.8, nesterov=True), weight)
    adamw = build_optimizer(Optimizer(kind="adamw", lr=0.2, weight_decay=0.3), weight)
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.param_groups[0]["momentum"] == 0.8
    assert sgd.param_groups[0]["nesterov"]
    assert isinstance(adamw, torch.optim.AdamW)
    assert (adamw.param_groups[0]["lr"], adamw.param_groups[0]["weight_decay"]) == (0.2, 0.3)


def test_subnormal_weights_become_zero():
    tensors = {"w": torch.tensor([1e-40, -1e-42, 1e-30, 0.0]), "n": torch.tensor([1])}
    assert zero_subnormal(tensors) == 2
    assert tensors["w"].tolist() == pytest.approx([0.0, 0.0, 1e-30, 0.0])


def test_best_prefers_the_metric_then_the_loss():
    best = Best(epoch=1, metric=0.9, loss=0.5, tensors={})
    assert best.beaten_by(0.91, 0.9)
    assert best.beaten_by(0.9, 0.4)
    assert not best.beaten_by(0.9, 0.5)
    assert not best.beaten_by(0.89, 0.1)


class InPlace(nn.Module):
    """Standardises its input in place, as hand-written exports do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5).mul_(2.0)
        return self.linear(x.flatten(1))


def test_a_program_that_changes_its_input_leaves_the_dataset_alone(tmp_path):
    program = make_program(tmp_path / "m.pt", InPlace())
    train, validation = splits()
    before = train.inputs[0].clone(), validation.inputs[0].clone()
    first = evaluate(program, validation, device="cpu")
    assert evaluate(program, validation, device="cpu") == first
    run = dataclasses.replace(run_of(), train=train, validation=validation)
    finetune(program, run, Observer())
    assert torch.equal(train.inputs[0], before[0])
    assert torch.equal(validation.inputs[0], before[1])


def test_a_training_cut_at_a_step_goes_on_from_it(tmp_path):
    # 256 samples in batches of 32: 8 steps an epoch, cut in the middle of the second.
    plain = options(
        optimizer={"lr": 0.05, "momentum": 0.0}, lr_schedule="cosine", keep="last", epochs=3
    )
    program = make_program(tmp_path / "m.pt", nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    whole = weights(finetune(program, run_of(plain), Observer()))
    first, second = Observer(), Observer()
    until = finetune(program, dataclasses.replace(run_of(plain), stop_step=11), first)
    after = finetune(until, dataclasses.replace(run_of(plain), first_step=11), second)
    assert [state.epoch for state in first.states] == [1, 2]
    assert [state.epoch for state in second.states] == [2, 3]
    assert not torch.equal(weights(until)["1.weight"], whole["1.weight"])
    for name, tensor in weights(after).items():
        assert torch.equal(tensor, whole[name])
