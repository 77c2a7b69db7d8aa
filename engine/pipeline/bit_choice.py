"""A format for each weight of a quantise stage, chosen on the job's samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from secateur.recipe_bit_budget import LossLimit
from secateur.recipe_quantize import Codebook, MixedPrecision, StoredOptions, WeightOnly
from secateur.report import BitAllocation, WeightFormats
from torch import Tensor

from engine.calling import call, plain_execution
from engine.errors import DatasetInvalid, EngineError
from engine.job import Listener
from engine.pipeline.checkpoint import JobState
from engine.pipeline.encoders import Encoder, encoder_in, formats_of
from engine.pipeline.setup import Workbench
from engine.pipeline.steps import QuantizeStep
from engine.quantisation.bit_allocation import Budget, Format
from engine.quantisation.encoding import Encoding
from engine.quantisation.mixed_precision import (
    Candidates,
    Chosen,
    candidates,
    choose_formats,
)
from engine.quantisation.packaging import bigger
from engine.quantisation.quantisable import quantisable
from engine.quantisation.sensitivity import KEEP, Limit, Quantity
from engine.scan.layers import forward_of
from engine.scan.measuring import Judge, drawn
from engine.seeds import derive
from engine.structure import tensors_in
from engine.torchscript.program import Program

_QUANTITIES: dict[str, Quantity] = {
    "max_drift": "drift",
    "max_accuracy_drop": "accuracy",
    "max_metric_drop": "metric",
    "max_loss_increase": "loss",
}


class NothingToJudgeBy(EngineError):
    """The outputs hold no fractions, so that nothing shows what quantisation changes."""

    type = "nothing-to-judge-by"


@dataclass(frozen=True)
class BitChoice:
    """The formats of a stage.

    Attributes:
        encode: gives each weight what was chosen for it.
        notes: by weight, why it has more bits than the stage asked for.
        report: how they were chosen.
        warnings: worth telling.
    """

    encode: Encoder
    report: BitAllocation
    notes: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def rule_of(stage: StoredOptions) -> tuple[str, LossLimit] | None:
    """What a stage chooses formats by, with the name of its field; None where it does not."""
    if isinstance(stage, MixedPrecision):
        return "budget", stage.budget
    if isinstance(stage, WeightOnly | Codebook) and stage.fall_back is not None:
        return "fall_back", stage.fall_back
    return None


def choose_bits_of(
    bench: Workbench, state: JobState, step: QuantizeStep, listener: Listener
) -> BitChoice | None:
    """Choose a format for each weight; None where the stage has one for all.

    Raises:
        BudgetOutOfReach: no choice keeps the budget or limit.
        DatasetInvalid: there is no validation split to measure on.
        NothingToJudgeBy: the drift of outputs without fractions is asked for.
    """
    stage = step.stage
    assert isinstance(stage, StoredOptions)  # noqa: S101  callers pass stages that store weights
    found = rule_of(stage)
    if found is None:
        return None
    name, rule = found
    place = f"{step.field}.{name}"
    weights, _ = quantisable(state.program, stage.exclude)
    offered = candidates(
        {
            name: weight.detach().cpu()
            for name, weight in weights.items()
            if name not in state.quantised.encodings
        },
        formats_of(stage),
        lambda name, weight, form: _encoded(bench, state, stage, (name, weight, form)),
    )
    by = stage.sensitivity if isinstance(stage, MixedPrecision) else "drift"
    samples = _Samples(bench, state.program, rule, place)
    (given,) = rule.given
    limit = _rule(bench, rule, given, offered)
    if by == "drift":
        samples.refuse_blind()
    chosen = choose_formats(
        state.program,
        offered,
        samples.judge,
        limit,
        by=by,
        field=f"{place}.{given}",
        advanced=lambda done, total: listener.progress(done, total, "measurement"),
    )
    report = _report(
        chosen,
        offered,
        given,
        limit.limit if isinstance(limit, Budget) else limit.most,
        by=by,
        samples=samples.count,
    )
    notes = {} if isinstance(stage, MixedPrecision) else _notes(chosen, formats_of(stage)[0], given)
    return BitChoice(
        _given(offered, chosen),
        report,
        notes,
        [f"`{name}` {note}" for name, note in notes.items()],
    )


def _encoded(
    bench: Workbench,
    state: JobState,
    stage: StoredOptions,
    wanted: tuple[str, Tensor, Format],
) -> Encoding | str:
    name, weight, form = wanted
    made = encoder_in(stage, form, bench.recipe.seed)(name, weight, state.masks.get(name))
    return made if isinstance(made, str) else bigger(made, stage.decode) or made


def _rule(bench: Workbench, rule: LossLimit, given: str, offered: Candidates) -> Budget | Limit:
    value = getattr(rule, given)
    if given == "bytes":
        return Budget("bytes", value if value > 1 else value * offered.whole)
    return Limit(
        _QUANTITIES[given], float(value), higher_is_better=bench.objective.decides.higher_is_better
    )


class _Samples:
    """What formats are judged on: samples of the validation split, or the example."""

    def __init__(self, bench: Workbench, program: Program, rule: LossLimit, place: str) -> None:
        self._bench = bench
        self._program = program
        self._place = place
        data = bench.dataset
        self._split = None
        if data is not None and data.validation is not None:
            seed = derive(bench.recipe.seed, "bits", 0)
            self._split = drawn(data.validation, rule.samples, seed)

    @property
    def count(self) -> int:
        """How many."""
        return self._bench.example_batch if self._split is None else self._split.samples

    def judge(self, quantity: Quantity) -> Judge:
        """Who measures a quantity on them.

        Raises:
            DatasetInvalid: it needs targets, and there are none.
        """
        bench = self._bench
        if quantity != "drift" and (self._split is None or bench.validation is None):
            raise DatasetInvalid(
                "what formats lose is measured on a validation split with targets, and the job "
                "has none",
                hint="send a dataset with `validation/inputs/0` and `validation/targets/0`, or "
                "limit `max_drift`, which needs no labels",
                where=self._place,
            )
        return Judge(
            forward_of(self._program),
            bench.inputs if self._split is None else self._split,
            quantity=quantity,
            example_batch=bench.example_batch,
            device=bench.job.device,
            objective=bench.objective,
        )

    def refuse_blind(self) -> None:
        """A drift of whole numbers says nothing.

        Raises:
            NothingToJudgeBy: the outputs are whole numbers alone.
        """
        with plain_execution():
            outputs = call(self._program.shadow().module, self._bench.inputs)
        if not any(one.is_floating_point() for one in tensors_in([outputs])):
            raise NothingToJudgeBy(
                "the model gives whole numbers, whose drift says nothing of what formats lose",
                hint="upload a model that returns scores instead of classes, or choose by "
                "`sensitivity: loss` under a limit of the loss",
                where=self._place,
            )


def _given(offered: Candidates, chosen: Chosen) -> Encoder:
    def encode(name: str, _weight: Tensor, _mask: Tensor | None) -> Encoding | str:
        form = chosen.allocation.formats[name]
        made = offered.encodings[name][form]
        if made is not None:
            return made
        return offered.reasons.get(name, "chosen to keep its bits: in fewer it loses too much")

    return encode


def _notes(chosen: Chosen, asked: Format, given: str) -> dict[str, str]:
    """Weights that fell back, with what they lose alone in the format the stage asks for."""
    notes = {}
    for name, form in chosen.allocation.formats.items():
        alone = chosen.sensitivities[name].get(asked)
        if form == asked or alone is None:
            continue
        drift = "outputs that are not finite" if math.isinf(alone) else f"{math.sqrt(alone):.2g}"
        kept = "keeps its bits" if form == KEEP else f"has {form} bits"
        notes[name] = (
            f"{kept} to keep `{given}`: alone in {_called(asked)} it lets the outputs drift by "
            f"{drift}"
        )
    return notes


def _called(form: Format) -> str:
    return f"{form} bits" if form.isdigit() else f"a {form}"


def _report(
    chosen: Chosen,
    offered: Candidates,
    given: str,
    limit: float,
    *,
    by: str,
    samples: int,
) -> BitAllocation:
    def alone(value: float) -> float | None:
        if math.isinf(value):
            return None
        return math.sqrt(value) if by == "drift" else value

    sizes = offered.bytes
    return BitAllocation(
        rule=given,
        limit=limit,
        measure="drift" if by == "drift" else "loss",
        samples=samples,
        bytes=chosen.allocation.bytes,
        bytes_before=offered.whole,
        predicted=chosen.predicted,
        measured=chosen.measured if math.isfinite(chosen.measured) else None,
        lost=chosen.lost,
        tried=len(chosen.trials),
        weights=[
            WeightFormats(
                name=name,
                chosen=form,
                bytes=sizes[name],
                loss={one: alone(value) for one, value in chosen.sensitivities[name].items()},
            )
            for name, form in chosen.allocation.formats.items()
        ],
    )
