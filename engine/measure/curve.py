r"""Accuracy against size over the rounds of a job (Blalock et al. 2020, figure 1).

For the prune round :math:`t`, the kept fraction is :math:`\|W_t\|_0 / |W|`: non-zero parameters
after the round over all parameters of the original. Two accuracies belong to it: right after the
pruning, and after the training that follows before the next round.
"""

from __future__ import annotations

from collections.abc import Sequence

from secateur.report import CurvePoint, Measurement, StageReport


def accuracy_curve(before: Measurement, stages: Sequence[StageReport]) -> list[CurvePoint]:
    """A point for each prune round, in the order of the job.

    Args:
        before: the original.
        stages: the steps of the job; training before the first prune round belongs to no point.
    """
    points: list[CurvePoint] = []
    for stage in stages:
        if stage.stage == "prune":
            points.append(
                CurvePoint(
                    stage_index=stage.stage_index,
                    label=stage.label,
                    kept_fraction=stage.nonzero_parameters / max(before.parameters, 1),
                    pruned=stage.accuracy,
                    pruned_metric=stage.deciding,
                    retrained=None,
                )
            )
        elif points and stage.stage == "finetune":
            points[-1] = points[-1].model_copy(
                update={"retrained": stage.accuracy, "retrained_metric": stage.deciding}
            )
    return points
