"""The catalogue: every method a recipe can name, with its formula, source, needs and cost.

`GET /v1/methods` and `docs/methods.md` are made from it.
"""

from secateur.methods.allocations import ALLOCATIONS
from secateur.methods.criteria import CRITERIA
from secateur.methods.exports import EXPORTS
from secateur.methods.granularities import GRANULARITIES
from secateur.methods.lottery import BASELINES, LOTTERY_CRITERIA, LOTTERY_SCHEDULES
from secateur.methods.objectives import LOSSES, METRICS
from secateur.methods.quantization import QUANTIZATION
from secateur.methods.scans import SCANS
from secateur.methods.schedules import SCHEDULES
from secateur.methods.schema import schema_of
from secateur.methods.search import SAMPLERS
from secateur.methods.tournament import TOURNAMENTS
from secateur.methods.training import TRAINING
from secateur.methods.training_rules import TRAINING_RULES
from secateur.methods.training_steps import TRAINING_STEPS

METHODS = [
    *GRANULARITIES,
    *CRITERIA,
    *LOTTERY_CRITERIA,
    *TOURNAMENTS,
    *ALLOCATIONS,
    *SCHEDULES,
    *LOTTERY_SCHEDULES,
    *TRAINING,
    *TRAINING_RULES,
    *TRAINING_STEPS,
    *QUANTIZATION,
    *BASELINES,
    *SCANS,
    *SAMPLERS,
    *LOSSES,
    *METRICS,
    *EXPORTS,
]
"""In the order of a recipe: what is removed, how it is judged, how much, when, how it recovers;
then what is measured, and by what, and how the result is written."""

__all__ = ["METHODS", "schema_of"]
