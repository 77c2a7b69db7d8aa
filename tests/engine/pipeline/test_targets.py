"""Stages that aim at a cost: found by hand, in rounds, resumed, and refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from secateur.recipe import PruneStage
from secateur.report import Latency

from engine.costs.exact import cost_of
from engine.coupling import couple
from engine.errors import NothingPruned, TargetUnreachable
from engine.measure.latency import LatencyComparison
from engine.pipeline import compress, timed_aim
from engine.pipeline.channel_plans import ChannelPlans
from engine.pipeline.search import CountedAim
from engine.planning import plan
from engine.selection.channels import Originals
from engine.selection.spread import Spread
from engine.torchscript.slim_archive import slimmed
from tests.engine.core.programs import scripted
from tests.engine.digits import Recorder, save_scripted
from tests.engine.pipeline.test_resume import tensors_of
from tests.engine.pipeline.tiny import (
    IN_ROUNDS,
    Tiny,
    macs,
    params,
    recipe,
    until_the_end,
    widths,
)


def left_by(planned):
    return tuple(group["kept"] for group in planned["groups"])


# Every layer loses the share f: 4 f and 20 f, halves up. Two channels go from f = 0.375, which
# takes 8 neurons; three from 0.625, with 13.
BY_HAND = [
    ({"of": "macs", "share": 0.5}, (2, 12), macs(2, 12), True),  # 1200 of 1212
    ({"of": "macs", "at_most": 1200}, (2, 12), 1200, True),
    ({"of": "macs", "at_most": 1199}, (2, 11), 1196, True),
    ({"of": "macs", "share": 0.4}, (1, 7), 597, False),  # of 969.6
    ({"of": "params", "share": 0.4}, (2, 11), params(2, 11), True),  # 62 of 62.4
    ({"of": "params", "at_most": 61}, (2, 10), 58, False),
]


@pytest.mark.parametrize("case", BY_HAND, ids=lambda case: str(list(case[0].values())))
def test_by_hand(make_job, tiny, case):
    target, left, reached, matched = case
    assert (macs(4, 20), params(4, 20)) == (2424, 156)
    planned = plan(make_job(tiny, recipe(target)))
    assert left_by(planned) == left
    predicted = planned["predicted"]
    assert (predicted["macs"], predicted["parameters"]) == (macs(*left), params(*left))
    before = {"macs": 2424, "params": 156}[target["of"]]
    found = planned["target"]
    assert found["asked"] == target.get("at_most", target.get("share", 0) * before)
    assert (found["before"], found["reached"], found["matched"]) == (before, reached, matched)


def test_a_report_says_what_was_asked_and_reached(run, tiny):
    report = run(tiny, recipe({"of": "macs", "share": 0.4})).result.report
    [found] = report.targets
    assert (report.after.macs, found.reached, found.matched) == (597, 597, False)
    assert (found.before, found.asked, found.share) == (2424, pytest.approx(969.6), 0.4)
    assert (found.measured, found.final, found.batch_size) == (0, None, None)
    [said] = [text for text in report.verdict.warnings if "NOT MATCHED" in text]
    assert "970 MACs was asked for and 597 MACs reached, 38.4% less" in said
    assert not [text for text in report.verdict.warnings if "NOT MET" in text]
    assert report.provenance.deterministic
    assert report.certificate.passed


def test_bytes_are_those_of_the_file(make_job, tmp_path):
    model = save_scripted(Tiny(500).eval(), tmp_path / "wide.pt")
    size = model.stat().st_size
    planned = plan(make_job(model, recipe({"of": "bytes", "at_most": size - 6000})))
    found = planned["target"]
    assert found["before"] == size
    assert found["reached"] <= size - 6000
    # The tables of source lines go in any case; the rest in numbers of 4 bytes, and some more for
    # the code that the engine writes.
    tables = size - len(slimmed(model.read_bytes()))
    gone = params(4, 500) - params(*left_by(planned))
    assert 6000 - tables <= 4 * gone < 6000 - tables + 2400
    for other in ("macs", "params"):
        share = {"of": other, "share": 1 - 6000 / size}
        assert left_by(plan(make_job(model, recipe(share)))) != left_by(planned)


def test_a_ranking_over_all_layers_stops_where_the_cost_is_met(make_job, tmp_path):
    model = Tiny(4)
    with torch.no_grad():
        model.conv.weight.copy_(torch.tensor([1.0, 3, 5, 7]).view(4, 1, 1, 1).expand(4, 1, 3, 3))
        model.hidden.weight.copy_(torch.tensor([2.0, 4, 6, 8]).view(4, 1).expand(4, 4) * 9 / 4)
    file = save_scripted(model.eval(), tmp_path / "ranked.pt")
    fields = {"allocation": {"scope": "global"}, "normalize": "none"}

    def removed(target):
        planned = plan(make_job(file, recipe(target, **fields)))
        return sum(group["removed"] for group in planned["groups"]), planned["target"]["reached"]

    # Rising: channel, neuron, channel, neuron, channel.
    costs = [macs(3, 4), macs(3, 3), macs(2, 3), macs(2, 2), macs(1, 2)]
    for count, cost in enumerate(costs, 1):
        assert removed({"of": "macs", "at_most": cost}) == (count, cost)
    assert removed({"of": "macs", "at_most": costs[1] - 1}) == (3, costs[2])
    # 60 parameters, then 47, 42 and 30; of 2328 MACs 1748, 1743 and 1164.
    assert removed({"of": "params", "share": 0.7}) == (2, 42)
    assert removed({"of": "macs", "share": 0.7}) == (3, costs[2])


@pytest.mark.parametrize(("of", "kind"), [("macs", "iterative"), ("params", "agp")])
def test_every_round_has_a_cost_of_its_own(make_job, tiny, images, of, kind):
    schedule = {"kind": kind, "rounds": 3, "finetune": {"epochs": 1}}
    asked = recipe(
        {"of": of, "share": 0.3}, dataset=True, allocation={"scope": "global"}, schedule=schedule
    )
    # Every round, its epoch and the end of its training.
    state = until_the_end(make_job(tiny, asked, images), 9)
    pruned = [stage for stage in state.reports if stage.stage == "prune"]
    costs = [stage.macs if of == "macs" else stage.parameters for stage in pruned]
    before, found = {"macs": 2424, "params": 156}[of], state.targets[0]
    way = (
        [before * 0.3 ** (number / 3) for number in (1, 2, 3)]
        if kind == "iterative"
        else [before * (1 - 0.7 * (1 - (1 - number / 3) ** 3)) for number in (1, 2, 3)]
    )
    assert all(cost <= limit + 1e-9 for cost, limit in zip(costs, way, strict=True))
    assert sum(stage.removed > 0 for stage in pruned) >= 2
    assert costs[-1] == found.reached <= found.asked == 0.3 * before
    assert sum(state.removed[0].values()) == sum(stage.removed for stage in pruned)


@pytest.mark.parametrize("distribution", ["erdos_renyi", "sensitivity"])
def test_an_amount_spread_over_layers_is_shared_out_by_rounds(make_job, tiny, images, distribution):
    target = {"of": "params", "share": 0.5}
    fields = {"dataset": True, "allocation": {"distribution": distribution}}
    planned = plan(make_job(tiny, recipe(target, **fields), images))
    in_rounds = recipe(target, **fields, schedule=IN_ROUNDS)
    state = until_the_end(make_job(tiny, in_rounds, images), 3)
    assert list(state.totals[0].values()) == [group["removed"] for group in planned["groups"]]
    assert state.removed[0] == state.totals[0]
    [*_, last] = state.reports
    assert state.targets[0].reached == last.parameters <= state.targets[0].asked == 78


def test_resumed_to_the_bit(make_job, tiny, images, tmp_path):
    schedule = {"kind": "iterative", "rounds": 2, "finetune": {"epochs": 1}}
    asked = recipe({"of": "macs", "share": 0.3}, dataset=True, schedule=schedule) | {"seed": 3}
    kept = tmp_path / "kept"
    kept.mkdir()
    whole = until_the_end(make_job(tiny, asked, images), 6, kept)
    for number in (2, 4):  # after a round; after its training
        again = make_job(tiny, asked, images, kept / f"{number}.pt")
        with pytest.raises(KeyboardInterrupt):
            compress(again, Recorder(stop_at=7 - number))
        state, got = tensors_of(again.workdir / "checkpoint.pt", again)
        assert state.targets == whole.targets
        expected = whole.program.attributes()
        assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


@pytest.fixture
def clock(monkeypatch):
    """Takes a tenth of a millisecond for every neuron of `hidden`, without looking at a watch."""
    asked = []

    def compare(present, candidate, inputs, *, batch_sizes, **_):
        times = [
            Latency(batch_size=batch_sizes[0], p50=t, p90=t, p99=t, runs=5)
            for t in (
                program.parameters()["hidden.weight"].shape[0] / 10
                for program in (present, candidate)
            )
        ]
        asked.append(times[1].p50)
        return LatencyComparison(times[:1], times[1:], [])

    monkeypatch.setattr(timed_aim, "compare_latency", compare)
    return asked


def test_milliseconds_by_a_clock_of_ours(make_job, tiny, clock):
    fields = {"round_to": 1}  # no wider plan
    planned = plan(make_job(tiny, recipe({"of": "latency_ms", "share": 0.5}, **fields)))
    # 10 neurons are 1 ms of 2, from f = 0.475 on; two of four channels are gone by then.
    assert left_by(planned) == (2, 10)
    found = planned["target"]
    assert (found["before"], found["asked"], found["reached"]) == (2.0, 1.0, 1.0)
    assert (found["batch_size"], found["matched"], found["measured"]) == (1, True, len(clock))
    planned = plan(make_job(tiny, recipe({"of": "latency_ms", "at_most": 0.7}, **fields)))
    assert left_by(planned)[1] == 7


def test_a_wider_model_that_is_as_fast_is_taken(make_job, tmp_path, clock):
    model = save_scripted(Tiny(24).eval(), tmp_path / "even.pt")
    planned = plan(make_job(model, recipe({"of": "latency_ms", "at_most": 1.6})))
    # 16 neurons leave 3 channels, which multiples of 8 round up to all four.
    assert left_by(planned) == (4, 16)


def test_a_resumed_job_keeps_what_the_clock_decided(make_job, tiny, images, clock, tmp_path):
    asked = recipe({"of": "latency_ms", "share": 0.5}, dataset=True, schedule=IN_ROUNDS)
    kept = tmp_path / "kept"
    kept.mkdir()
    first = until_the_end(make_job(tiny, asked, images), 3, kept)
    count = len(clock)
    report = compress(make_job(tiny, asked, images, kept / "2.pt"), Recorder()).report
    assert len(clock) == count, "nothing is timed again"
    assert report.targets[0].model_dump(exclude={"final"}) == first.targets[0].model_dump(
        exclude={"final"}
    )
    assert sum(stage.removed for stage in report.stages) == 4 + 20 - sum(widths(report))
    assert widths(report)[1] == 10
    assert report.targets[0].final == report.after.latency_ms[0].p50
    assert not report.provenance.deterministic


def test_milliseconds_by_the_watch(run, tmp_path):
    model = save_scripted(Tiny(100_000).eval(), tmp_path / "wide.pt")
    target = {"of": "latency_ms", "share": 0.99, "batch_size": 3}
    report = run(model, recipe(target)).result.report
    [found] = report.targets
    assert 0 < found.reached <= found.asked < found.before
    assert found.batch_size == 3
    assert found.measured >= 3
    assert [latency.batch_size for latency in report.after.latency_ms] == [1, 3]
    assert found.final == report.after.latency_ms[1].p50


@pytest.mark.parametrize(
    "case",
    [
        ({"of": "macs", "at_most": 578}, {}, TargetUnreachable, "down to 579 MACs"),
        ({"of": "params", "at_most": 11}, {}, TargetUnreachable, "down to 12 parameters"),
        (
            {"of": "macs", "share": 0.5},
            {"exclude": ["conv"]},
            TargetUnreachable,
            r"down to 2,310 MACs and no further, and 1,212 MACs is asked",
        ),
        ({"of": "macs", "at_most": 2424}, {}, NothingPruned, "has 2,424 MACs as it is"),
        ({"of": "params", "at_most": 500}, {}, NothingPruned, "has 156 parameters as it is"),
        ({"of": "latency_ms", "at_most": 1e6}, {}, NothingPruned, "ms at batch size 1 as it is"),
        ({"of": "latency_ms", "share": 1e-6}, {}, TargetUnreachable, "medians at batch size 1"),
    ],
)
def test_what_cannot_be_reached_says_what_can(make_job, tiny, case):
    target, fields, error, words = case
    for action in (plan, lambda job: compress(job, Recorder())):
        with pytest.raises(error, match=words) as caught:
            action(make_job(tiny, recipe(target, **fields)))
        assert caught.value.where == "recipe.stages.0.allocation.target"
        assert caught.value.hint
    if fields:
        assert "conv (4 channels)" in caught.value.hint


@settings(max_examples=15)
@given(
    st.sampled_from(["params", "macs", "bytes"]),
    st.floats(0.15, 0.95),
    st.booleans(),
    st.integers(0, 1000),
)
def test_never_above_the_target_and_one_step_less_would_be(
    tmp_path_factory, of, share, whole, seed
):
    folder = tmp_path_factory.mktemp("costs")
    program, inputs = scripted(Tiny(30).eval()), (torch.randn(2, 1, 8, 8),)
    coupling = couple(program, inputs)
    scores = torch.rand(
        coupling.component_count, generator=torch.Generator().manual_seed(seed)
    ).double()
    scope = {"scope": "global" if whole else "local"}
    [stage] = recipe({"of": of, "share": share}, allocation=scope)["stages"]
    spread = Spread(coupling, program.tensors(), Originals.of(coupling.groups), {})
    plans = ChannelPlans(program, PruneStage.model_validate(stage), inputs, spread)
    search = plans.search(scores.numpy(), [])

    def cost(amount):
        return cost_of(of, search.cut(search.plan(amount)), inputs, folder)

    limit = share * cost(0)
    if cost(search.most) > limit:
        with pytest.raises(TargetUnreachable):
            CountedAim(of, limit, folder).find(search)
        return
    found = CountedAim(of, limit, folder).find(search)
    wanted = search.units(found)
    amount = next(n for n in range(search.most + 1) if search.units(search.plan(n)) == wanted)
    assert cost(amount) <= limit < cost(amount - 1)
