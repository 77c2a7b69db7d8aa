"""How long controls train: the pruned architecture from new weights, or a random choice of units.

Liu et al. 2019, "Rethinking the Value of Network Pruning" (ICLR), section 3. For E epochs of
training and a network whose forward pass takes F multiply-accumulates before and f after:

    scratch_e:  E epochs
    scratch_b:  ceil(E F / f) epochs, the same computation

The random control (see `engine.pipeline.random_control`) trains E epochs. A masked network runs
all its multiply-accumulates: there both scratch controls are the same number of epochs.
"""

from __future__ import annotations

from dataclasses import dataclass

from secateur.recipe import Baseline, FinetuneOptions


@dataclass(frozen=True)
class BaselineStep:
    """The training run of one control.

    Attributes:
        stage_index: after the last stage.
        index: in the recipe's list.
        baseline: of the recipe.
        options: how it trains, before the epochs are counted.
    """

    stage_index: int
    index: int
    baseline: Baseline
    options: FinetuneOptions

    @property
    def label(self) -> str:
        """Human name."""
        return f"baseline {self.baseline.kind}"

    @property
    def field(self) -> str:
        """Path in the recipe."""
        return f"recipe.baselines.{self.index}"

    @property
    def purpose(self) -> str:
        """Names the run for its seeds."""
        return f"baseline/{self.baseline.kind}/{self.index}"

    @property
    def shown_round(self) -> int | None:
        """The round in reports."""
        return None

    @property
    def aside(self) -> bool:
        """Whether the job's program stays what it is."""
        return True


def epochs_of(baseline: Baseline, epochs: int, *, macs_before: int, macs_after: int) -> int:
    """How long a control trains.

    Args:
        baseline: which control.
        epochs: E.
        macs_before: of the upload, one sample.
        macs_after: of the pruned network, one sample; 0 where nothing was counted.
    """
    if baseline.kind != "scratch_b" or macs_after == 0:
        return epochs
    # In integers: 10 epochs at half the work are 20, whatever floating point makes of it.
    return -(-epochs * macs_before // macs_after)
