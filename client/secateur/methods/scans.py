"""What a sensitivity scan measures."""

from __future__ import annotations

from secateur.methods.schema import schema_of
from secateur.recipe import ScoreStage
from secateur.resources import Method

_FIELDS = [
    "granularity", "criterion", "aggregate", "scoring", "ratios", "split", "samples", "batch_size",
    "exclude",
]  # fmt: skip
_COST = "a run over the samples for each layer and ratio; nothing is trained or compacted"

SCANS: list[Method] = [
    Method(
        name="drift",
        kind="scan",
        summary=(
            "How far the outputs move when one layer alone loses its lowest units. Needs no "
            "targets, and without a dataset it is measured on the example."
        ),
        formula="D_l(r) = ||y_lr - y|| / ||y|| over all samples",
        source="measure: Secateur; scan: Han et al. 2015, figure 6; Li et al. 2017, section 3.2",
        data="none",
        cost=f"{_COST}; where the samples are several batches, a run of the whole model beside it",
        schema=schema_of(ScoreStage, _FIELDS, measure="drift"),
    ),
    Method(
        name="accuracy",
        kind="scan",
        summary=(
            "Top-1 accuracy that is left when one layer alone loses its lowest units, the curves "
            "of the papers. Without retraining, as there."
        ),
        formula="A_l(r) = right answers of y_lr / answers; sensitivity mean_r (A - A_l(r))",
        source="Han et al. 2015, figure 6; Li et al. 2017, section 3.2 and figure 2",
        data="labelled",
        cost=_COST,
        schema=schema_of(ScoreStage, _FIELDS, measure="accuracy"),
    ),
    Method(
        name="metric",
        kind="scan",
        summary=(
            "The job's own metric (`objective.metric`) that is left when one layer alone loses its "
            "lowest units."
        ),
        formula="M_l(r) = metric of y_lr; sensitivity mean_r of how much worse than M it is",
        source="measure: Secateur; scan: Han et al. 2015, figure 6; Li et al. 2017, section 3.2",
        data="labelled",
        cost=_COST,
        schema=schema_of(ScoreStage, _FIELDS, measure="metric"),
    ),
    Method(
        name="loss",
        kind="scan",
        summary=(
            "Average loss that is left when one layer alone loses its lowest units. Tells "
            "layers apart where the accuracy does not move yet."
        ),
        formula="L_l(r) = mean loss of y_lr; sensitivity mean_r (L_l(r) - L)",
        source="measure: Secateur; scan: Han et al. 2015, figure 6; Li et al. 2017, section 3.2",
        data="labelled",
        cost=_COST,
        schema=schema_of(ScoreStage, _FIELDS, measure="loss"),
    ),
]
