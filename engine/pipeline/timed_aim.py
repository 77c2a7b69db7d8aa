"""The removal that brings a model down to a measured time.

Candidates are really cut, saved and loaded as they would be by whoever downloads them, and each is
timed in turns with the model as it is, so that a slow spell of the machine hits both. A share of
the time is held against the other model's median of the same turns, and a time in milliseconds
against the candidate's own (see `engine.costs.timed` for the search).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from secateur.recipe_target import CostTarget
from secateur.report import Latency

from engine.costs.timed import within_time
from engine.errors import InputsDoNotFit, NothingPruned
from engine.measure.latency import compare_latency
from engine.pipeline.search import P, Search, amount_of, unreachable
from engine.structure import samples_in
from engine.torchscript.program import Program

SECONDS = 20.0
"""Budget for one measurement; where it runs out, fewer calls are made."""
Units = tuple[Any, ...]


@dataclass(frozen=True)
class Times:
    """Medians of one measurement, in milliseconds.

    Attributes:
        present: of the model before the stage.
        candidate: of the smaller one.
        batch_size: samples per call; the example's own where the model takes no other.
    """

    present: float
    candidate: float
    batch_size: int


class TimedAim:
    """Milliseconds of one call. They depend on shapes alone, so one search serves all rounds."""

    whole_stage = True

    def __init__(
        self, target: CostTarget, *, batch_size: int, runs: int, device: str, folder: Path
    ) -> None:
        """What is aimed at, and how it is measured.

        Args:
            target: of the stage.
            batch_size: samples per call, where the target names none.
            runs: calls of each model in one measurement.
            device: it runs on.
            folder: for the files of candidates.
        """
        self._target, self._runs = target, runs
        self._batch_size = target.batch_size or batch_size
        self._device, self._folder = device, folder
        self.chosen: Times | None = None
        self.measured = 0

    def find(self, search: Search[P]) -> P:
        """The least removal that was measured within the target twice.

        Raises:
            TargetUnreachable: the largest removal takes longer.
            NothingPruned: the model is that fast as it is.
            InputsDoNotFit: it does not take the batch size that the target names.
        """
        present = self._reloaded(search.program)
        if self._target.at_most is not None:
            self._refuse_what_is_there(self._times(search, present, search.program))
        plans: dict[Units, P] = {}
        taken: dict[Units, Times] = {}

        def units(plan: P) -> Units:
            key = search.units(plan)
            plans[key] = plan
            return key

        def aligned(amount: int) -> Units | None:
            plan = search.aligned(amount)
            return None if plan is None else units(plan)

        def measure(key: Units) -> float:
            if not key:
                return float("inf")  # the model as it is; noise must not let it pass
            times = taken[key] = self._times(search, present, search.cut(plans[key]))
            return self._held(times)

        found = within_time(
            lambda amount: units(search.plan(amount)),
            aligned,
            measure,
            search.most,
            self._limit,
            tolerance=self._target.tolerance,
        )
        if found.candidate is None:
            nothing = self._times(search, present, search.program) if not taken else None
            times = nothing or min(taken.values(), key=self._held)
            share = self._target.share
            raise unreachable(
                "latency_ms",
                times.candidate,
                self._limit if share is None else share * times.present,
                search,
                then=f" (medians at batch size {times.batch_size}; the model takes "
                f"{times.present:.4g} ms as it is, on a machine that may be busy)",
            )
        self.chosen = taken[found.candidate]
        return plans[found.candidate]

    @property
    def _limit(self) -> float:
        return self._target.share or self._target.at_most or 0.0

    def _held(self, times: Times) -> float:
        """What is held against the limit."""
        share = times.candidate / times.present
        return times.candidate if self._target.share is None else share

    def _times(self, search: Search[P], present: Program, candidate: Program) -> Times:
        self.measured += 1
        found = compare_latency(
            present,
            self._reloaded(candidate),
            search.inputs,
            batch_sizes=[self._batch_size],
            runs=self._runs,
            seconds=SECONDS,
        )
        before, after = found.original[0], found.compact[0]
        if self._target.batch_size not in (None, after.batch_size):
            raise InputsDoNotFit(
                f"the time at batch size {self._target.batch_size} cannot be measured: "
                f"{found.warnings[0]}",
                hint=f"leave `target.batch_size` out, or give {samples_in(search.inputs)}",
                where="allocation.target.batch_size",
            )
        return _medians(before, after)

    def _refuse_what_is_there(self, times: Times) -> None:
        if times.present > self._limit:
            return
        raise NothingPruned(
            f"the plan removes nothing: the model takes {amount_of('latency_ms', times.present)} "
            f"at batch size {times.batch_size} as it is, and the target is "
            f"{amount_of('latency_ms', self._limit)}",
            hint="ask for less, or for a `share` of the present time",
            where="allocation.target",
        )

    def _reloaded(self, program: Program) -> Program:
        with TemporaryDirectory(dir=self._folder) as place:
            file = Path(place) / "model.pt"
            program.save(file)
            return Program.as_uploaded(file, device=self._device)


def _medians(present: Latency, candidate: Latency) -> Times:
    return Times(present.p50, candidate.p50, candidate.batch_size)
