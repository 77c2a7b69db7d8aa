"""`criterion: tournament`, from the recipe to the report."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from engine.errors import CriterionDoesNotFit, DatasetInvalid, NothingPruned
from engine.pipeline import channel_contest, compress
from engine.planning import plan
from tests.engine.digits import Recorder, digits, save_scripted
from tests.engine.pipeline.conftest import prune
from tests.engine.pipeline.test_resume import tensors_of

SHORT = {"recovery_steps": 3}
NONE = {"recovery": None}


def tournament(*criteria, granularity="channel", allocation=None, schedule=None, **fields):
    stage = prune(criterion="tournament", granularity=granularity)
    stage["allocation"] = allocation or {"amount": 0.5}
    if schedule is not None:
        stage["schedule"] = schedule
    stage["tournament"] = {"criteria": list(criteria) or "all", **fields}
    return {"seed": 5, "stages": [stage]}


class Gate(nn.Module):
    """Tells positive from negative by a neuron of small weights; the large one is never read."""

    def __init__(self):
        super().__init__()
        self.neurons, self.classes = nn.Linear(1, 2), nn.Linear(2, 2)
        with torch.no_grad():
            self.neurons.weight.copy_(torch.tensor([[0.1], [5.0]]))
            self.neurons.bias.zero_()
            self.classes.weight.copy_(torch.tensor([[0.0, 0.0], [100.0, 0.0]]))
            self.classes.bias.copy_(torch.tensor([0.0, -5.0]))

    def forward(self, x):
        return self.classes(torch.relu(self.neurons(x)))


SIGNS = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
LABELS = torch.tensor([1, 0, 1, 0])


@pytest.fixture
def gate(tmp_path):
    return save_scripted(Gate().eval(), tmp_path / "gate.pt")


@pytest.fixture
def signs(tmp_path):
    def write(**changes):
        tensors = {
            "train/inputs/0": SIGNS,
            "train/targets/0": LABELS,
            "validation/inputs/0": SIGNS.clone(),
            "validation/targets/0": LABELS.clone(),
        } | {name.replace("_", "/"): tensor for name, tensor in changes.items()}
        path = tmp_path / "signs.safetensors"
        save_file({name: t for name, t in tensors.items() if t is not None}, path)
        return path

    return write


def test_by_hand_the_criterion_that_keeps_what_is_read_wins(run, gate, signs):
    done = run(gate, tournament("l1_norm", "l2_norm", "synflow", "taylor", **NONE), signs())
    [held] = done.result.report.tournaments
    # 1 x 2 + 2 x 2 products; one neuron less leaves 1 x 1 + 1 x 2.
    assert (held.matched_by, held.before, held.target) == ("macs", 6, 3)
    by_name = {one.criterion: one for one in held.contestants}
    right, wrong = math.log1p(math.exp(-5)), math.log1p(math.exp(5))
    for name in ("l1_norm", "l2_norm"):  # the neuron of 0.1 goes: every answer is class 0
        assert by_name[name].accuracy.correct == 2
        assert by_name[name].loss == pytest.approx((right + wrong) / 2, rel=1e-6)
    for name in ("synflow", "taylor"):  # no path and no gradient goes through the neuron of 5
        assert by_name[name].accuracy.correct == 4
        assert by_name[name].loss == pytest.approx(right, rel=1e-4)
    for one in held.contestants:
        assert (one.amount, one.removed, one.matched, one.macs) == (0.5, 1, True, 3)
        assert one.parameters == 2 + 2 + 2  # a weight and a bias, two weights, two biases
        assert one.loss == one.loss_before
        assert one.accuracy == one.accuracy_before
        assert one.reason is None
        assert one.seconds > 0
    assert held.winner == "synflow", "as good as taylor, and before it"
    result = torch.jit.load(done.result.artifacts[0].path)
    assert result.neurons.weight.tolist() == [[pytest.approx(0.1)]]
    assert done.result.report.after.accuracy.correct == 4


def test_equals_are_told_apart_by_their_order(run, gate, signs):
    for names in (("l2_norm", "l1_norm"), ("l1_norm", "l2_norm")):
        report = run(gate, tournament(*names, **NONE), signs()).result.report
        assert report.tournaments[0].winner == names[0]


def test_recovery_is_trained_and_shown_beside_what_was_before(run, gate, signs):
    options = {"epochs": 30, "batch_size": 4, "keep": "last", "optimizer": {"lr": 1.0}}
    recipe = tournament("l1_norm", "random", recovery=options)
    one = run(gate, recipe, signs()).result.report.tournaments[0].contestants[0]
    assert one.accuracy_before.correct == 2
    assert one.loss < one.loss_before
    # The neuron that is left is not read yet, and can be.
    assert one.accuracy.correct == 4


def test_who_cannot_compete_is_listed(run, gate, signs):
    recipe = tournament("bn_scale", "taylor", "l1_norm", "random", **NONE)
    done = run(gate, recipe, signs(train_targets_0=None))
    [held] = done.result.report.tournaments
    reasons = {one.criterion: one.reason for one in held.contestants}
    assert "can judge no channel" in reasons["bn_scale"]
    assert "`train` split has no targets" in reasons["taylor"]
    assert "train/targets/0" in reasons["taylor"]
    assert reasons["l1_norm"] is reasons["random"] is None
    unknown = held.contestants[0].model_dump(exclude={"criterion", "reason"})
    assert set(unknown.values()) == {None}
    assert held.winner in ("l1_norm", "random")
    assert any("`bn_scale` cannot compete" in message for message, _ in done.heard.logs)


def test_nobody_is_left(make_job, gate, signs):
    job = make_job(gate, tournament("bn_scale", "taylor", **NONE), signs(train_targets_0=None))
    with pytest.raises(CriterionDoesNotFit) as caught:
        compress(job, Recorder())
    assert caught.value.where == "recipe.stages.0.tournament.criteria"
    assert "`bn_scale`: " in caught.value.title
    assert "`taylor`: " in caught.value.title
    assert "`l1_norm` needs none" in caught.value.hint


def test_splits_that_are_missing(make_job, gate, signs):
    for changes, recipe, missing in (
        ({"validation_targets_0": None}, tournament(**NONE), "`validation` split has no targets"),
        ({"train_targets_0": None}, tournament(), "`train` split has no targets"),
    ):
        with pytest.raises(DatasetInvalid, match=missing):
            compress(make_job(gate, recipe, signs(**changes)), Recorder())
    nothing = {"train_inputs_0": None, "train_targets_0": None}
    done = compress(
        make_job(gate, tournament("l1_norm", "synflow", "apoz", **NONE), signs(**nothing)),
        Recorder(),
    )
    last = done.report.tournaments[0].contestants[-1]
    assert "no `train` split" in last.reason
    with pytest.raises(DatasetInvalid, match="needs a dataset"):
        compress(make_job(gate, {**tournament(), "inputs": [{"shape": [1, 1]}]}, None), Recorder())


def test_amounts_that_round_to_nothing(make_job, gate, signs):
    small = {"scope": "global", "amount": 0.01}
    for granularity in ("channel", "element"):
        recipe = tournament(granularity=granularity, allocation=small)
        with pytest.raises(NothingPruned, match="no cost to compare at") as caught:
            compress(make_job(gate, recipe, signs()), Recorder())
        assert caught.value.where == "recipe.stages.0.allocation"


def test_all_criteria_meet_the_same_macs(make_job, lenet, little_data, monkeypatch):
    coupled = []

    def counted(*arguments, **options):
        coupled.append(1)
        return original(*arguments, **options)

    original = channel_contest.couple
    monkeypatch.setattr(channel_contest, "couple", counted)
    heard = Recorder()
    recipe = tournament(
        allocation={"scope": "global", "amount": 0.5}, macs=0.4, tolerance=0.03, **SHORT
    )
    report = compress(make_job(lenet, recipe, little_data), heard).report
    assert len(coupled) == 1
    [held] = report.tournaments
    assert held.before == report.before.macs == 466920
    assert held.target == round(0.4 * 466920)
    took_part = [one for one in held.contestants if one.reason is None]
    assert {one.criterion for one in held.contestants} - {one.criterion for one in took_part} == {
        "bn_scale"
    }
    assert len(took_part) == 15
    for one in took_part:
        assert one.macs <= 1.03 * held.target
        assert one.matched == (abs(one.macs - held.target) <= 0.03 * held.target)
    assert sum(one.matched for one in took_part) >= 12
    assert len({one.amount for one in took_part}) > 5, "amounts differ where MACs do not"
    # The stage itself prunes by its own amount.
    assert report.stages[0].removed == 137
    assert [step for step in heard.steps if step[2] == "contestants"] == [
        (number, 16, "contestants") for number in range(17)
    ]
    assert heard.started[1] == (0, "tournament")
    told = {stage for name, *_, stage in heard.metrics if name == "tournament/accuracy"}
    assert told == {f"tournament: {one.criterion}" for one in took_part}


def test_a_stage_runs_as_if_the_recipe_named_the_winner(run, lenet, little_data):
    iterative = {"kind": "iterative", "rounds": 2, "finetune": {"epochs": 1}}
    recipe = tournament("random", "geometric_median", "lamp", schedule=iterative, **SHORT)
    held = run(lenet, recipe, little_data)
    [table] = held.result.report.tournaments
    named = {"seed": 5, "stages": [prune(criterion=table.winner, schedule=iterative)]}
    plain = run(lenet, named, little_data)
    one, other = (
        torch.jit.load(done.result.artifacts[0].path).state_dict() for done in (held, plain)
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert [stage.removed for stage in held.result.report.stages] == [
        stage.removed for stage in plain.result.report.stages
    ]


def outcomes(report):
    return [one.model_dump(exclude={"seconds"}) for one in report.contestants]


@pytest.mark.parametrize("granularity", ["channel", "element"])
def test_every_checkpoint(make_job, lenet, little_data, tmp_path, granularity, *, points):
    recipe = tournament("l1_norm", "taylor", "random", granularity=granularity, **SHORT)
    kept = tmp_path / "kept"
    kept.mkdir()
    job, heard = make_job(lenet, recipe, little_data), Recorder(keep=kept)
    report = compress(job, heard).report
    # the original; 3 contestants; the winner; the pruned model
    assert heard.checkpoints == 6
    final, expected = tensors_of(kept / "6.pt", job)
    for number in points(range(1, 6)):
        again = make_job(lenet, recipe, little_data, kept / f"{number}.pt")
        resumed = Recorder(stop_at=6 - number)
        with pytest.raises(KeyboardInterrupt):
            compress(again, resumed)
        state, got = tensors_of(again.workdir / "checkpoint.pt", again)
        assert outcomes(state.tournaments[0]) == outcomes(final.tournaments[0])
        assert state.tournaments[0].winner == report.tournaments[0].winner
        assert got.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in got.items()), number
        competed = [message for message, _ in resumed.logs if "competed" in message]
        assert len(competed) == max(0, 4 - number), "no contestant competes twice"


def test_a_criterion_that_knows_part_of_the_model(run, tmp_path, signs):
    """Channels without BatchNorm stay, so others lose more until the MACs are the same."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Linear(1, 40), nn.BatchNorm1d(40)
            self.second, self.last = nn.Linear(40, 40), nn.Linear(40, 2)
            nn.init.uniform_(self.norm.weight)

        def forward(self, x):
            x = torch.relu(self.norm(self.first(x)))
            return self.last(torch.relu(self.second(x)))

    model = save_scripted(Mixed().eval(), tmp_path / "mixed.pt")
    whole = 40 + 1600 + 80
    ranked = {"scope": "global", "amount": 0.5}
    recipe = tournament("l1_norm", "bn_scale", allocation=ranked, macs=0.6, **NONE)
    report = run(model, recipe, signs()).result.report
    plain, scale = report.tournaments[0].contestants
    assert (plain.matched, scale.matched) == (True, True)
    # Of n neurons before the second layer alone: n + 40 n + 80 = 0.6 x 1720, so n = 23.
    assert scale.macs == 23 * 41 + 80 == 1023
    assert abs(plain.macs - 0.6 * whole) <= 0.02 * 0.6 * whole
    assert scale.removed == 17
    assert scale.parameters == 2 * 23 + 2 * 23 + 40 * 23 + 40 + 82  # the second layer is whole
    recipe = tournament("l1_norm", "bn_scale", allocation=ranked, macs=0.05, **NONE)
    plain, scale = run(model, recipe, signs()).result.report.tournaments[0].contestants
    assert "down to 121 and no further" in scale.reason  # one neuron: 41 + 80
    assert plain.macs <= 0.05 * 1720 * 1.02


def test_recurrent_layers_are_searched_on_models_that_are_cut(run, tmp_path):
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells, self.head = nn.LSTM(3, 32, batch_first=True), nn.Linear(32, 2)

        def forward(self, x):
            return self.head(self.cells(x)[0][:, -1])

    model = save_scripted(Reader().eval(), tmp_path / "reader.pt")
    data = tmp_path / "series.safetensors"
    save_file(
        {
            f"{split}/{kind}/0": tensor.clone()
            for split in ("train", "validation")
            for kind, tensor in (
                ("inputs", torch.randn(16, 5, 3)), ("targets", torch.arange(16) % 2)
            )
        },
        data,
    )  # fmt: skip
    recipe = tournament("l1_norm", "random", macs=0.5, tolerance=0.05, **NONE)
    [held] = run(model, recipe, data).result.report.tournaments
    for one in held.contestants:
        # h cells: 5 steps of 4 h (3 + h), then 2 h; h = 22 is nearest to half.
        assert one.macs == 5 * 4 * 22 * (3 + 22) + 2 * 22
        assert one.matched


def test_single_weights_meet_at_equally_many(run, lenet, data):
    recipe = tournament(
        "l1_norm", "lamp", "random", granularity="element",
        allocation={"scope": "global", "amount": 0.9}, **NONE,
    )  # fmt: skip
    report = run(lenet, recipe, data).result.report
    [held] = report.tournaments
    weights = 150 + 2400 + 48000 + 10080 - 210  # five layers without their biases
    assert held.matched_by == "nonzero_parameters"
    assert held.target == held.before - round(0.9 * held.before)
    assert {one.removed for one in held.contestants} == {held.before - held.target}
    assert {one.macs for one in held.contestants} == {report.before.macs}
    assert held.before == weights
    assert held.winner == "lamp"
    random = held.contestants[2]
    assert random.accuracy.correct < held.contestants[1].accuracy.correct


def test_weights_that_a_criterion_cannot_judge(run, tmp_path, signs):
    class Offset(nn.Module):
        def __init__(self):
            super().__init__()
            self.offset = nn.Parameter(torch.randn(10, 10))
            self.first, self.last = nn.Linear(1, 50), nn.Linear(50, 2)

        def forward(self, x):
            return self.last(torch.relu(self.first(x))) + self.offset.mean()

    model = save_scripted(Offset().eval(), tmp_path / "offset.pt")
    recipe = tournament("l1_norm", "wanda", granularity="element", **NONE)
    plain, wanda = run(model, recipe, signs()).result.report.tournaments[0].contestants
    # Of 100 + 50 + 100 weights half; wanda sees the 150 that read an input.
    assert plain.removed == 125
    assert wanda.matched
    assert abs(wanda.removed - 125) <= 0.02 * 125


def test_heads(run, make_job, tmp_path):
    torch.manual_seed(3)

    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(8, 16) for _ in range(3))
            self.out, self.head = nn.Linear(16, 8), nn.Linear(8, 2)

        def forward(self, x):
            shape = (x.shape[0], x.shape[1], 4, 4)
            q = self.q(x).view(shape).transpose(1, 2)
            k = self.k(x).view(shape).transpose(1, 2)
            v = self.v(x).view(shape).transpose(1, 2)
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            return self.head((x + self.out(y.transpose(1, 2).flatten(2))).mean(1))

    model = save_scripted(Words().eval(), tmp_path / "words.pt")
    data = tmp_path / "words.safetensors"
    x, y = torch.randn(12, 5, 8), torch.arange(12) % 2
    save_file(
        {
            "train/inputs/0": x, "train/targets/0": y,
            "validation/inputs/0": x.clone(), "validation/targets/0": y.clone(),
        },
        data,
    )  # fmt: skip
    recipe = tournament("l1_norm", "taylor", granularity="head", recovery={"epochs": 1})
    report = run(model, recipe, data).result.report
    [held] = report.tournaments
    # 5 tokens: 4 products of 8 x 4 h, scores and sums of 5 x 4 h each; 2 x 8 at the end.
    assert held.before == 5 * 4 * 8 * 16 + 2 * 5 * 5 * 16 + 16
    assert held.target == 5 * 4 * 8 * 8 + 2 * 5 * 5 * 8 + 16
    assert [(one.removed, one.macs) for one in held.contestants] == [(2, held.target)] * 2
    # One head of four stays: 5 x 4 x 8 x 4 + 2 x 5 x 5 x 4 + 16 = 856 of 3376 products.
    recipe = tournament(granularity="head", macs=0.2, **NONE)
    with pytest.raises(CriterionDoesNotFit, match=r"macs: 0.2` cannot be reached.*0\.254 of") as no:
        compress(make_job(model, recipe, data), Recorder())
    assert no.value.where == "recipe.stages.0.tournament.macs"


def test_planning_shows_the_first_that_can_compete(make_job, lenet, data):
    planned = plan(make_job(lenet, tournament("l2_norm", "random"), data))
    assert planned["criterion"] == "l2_norm"
    named = plan(make_job(lenet, {"seed": 5, "stages": [prune(criterion="l2_norm")]}, data))
    assert planned == named


def test_a_diverging_recovery_is_a_reason(run, lenet, tmp_path):
    tensors = {name: tensor[:64].clone() for name, tensor in digits().items()}
    path = tmp_path / "few.safetensors"
    save_file(tensors, path)
    # Every step multiplies the weights by 1 - 10 x 20.
    wild = {"epochs": 20, "optimizer": {"kind": "sgd", "lr": 10}, "penalty": {"l2": 10}}
    recipe = tournament("l1_norm", "random", recovery=wild)
    with pytest.raises(CriterionDoesNotFit, match=r"the loss became .* lower the learning rate"):
        run(lenet, recipe, path)


def test_earlier_masks_go_with_every_contestant(run, lenet, little_data):
    recipe = tournament("l1_norm", "random", **SHORT)
    masked = prune(granularity="element", allocation={"scope": "global", "amount": 0.5})
    recipe["stages"].insert(0, masked)
    report = run(lenet, recipe, little_data).result.report
    [held] = report.tournaments
    assert held.stage_index == 1
    weights = report.stages[0].removed + report.stages[0].nonzero_parameters
    assert weights == report.before.parameters
    for one in held.contestants:
        assert one.reason is None
        assert one.nonzero_parameters < 0.9 * one.parameters
    assert [stage.stage_index for stage in report.stages] == [0, 1]
