"""The report of a job: what was measured before, after each stage, and after.

All accuracies are fractions in [0, 1], latencies milliseconds, sizes bytes, MACs
multiply-accumulate operations of one sample (batch size 1).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

# Under their own names: these are types of the report like those below.
from secateur.report_base import CLASSIFICATION
from secateur.report_base import Accuracy as Accuracy  # noqa: PLC0414
from secateur.report_base import MetricReport as MetricReport  # noqa: PLC0414
from secateur.report_base import ObjectiveReport as ObjectiveReport  # noqa: PLC0414
from secateur.report_base import ReportModel as ReportModel  # noqa: PLC0414
from secateur.report_exports import ExportReport as ExportReport  # noqa: PLC0414
from secateur.report_quantize import BitAllocation as BitAllocation  # noqa: PLC0414
from secateur.report_quantize import QuantizationReport as QuantizationReport  # noqa: PLC0414
from secateur.report_quantize import QuantizedLayer as QuantizedLayer  # noqa: PLC0414
from secateur.report_quantize import WeightFormats as WeightFormats  # noqa: PLC0414
from secateur.report_target import TargetReport as TargetReport  # noqa: PLC0414
from secateur.report_tournament import Contestant as Contestant  # noqa: PLC0414
from secateur.report_tournament import TournamentReport as TournamentReport  # noqa: PLC0414
from secateur.report_tradeoff import TradeOffReport
from secateur.report_training import TrainingCurves


class Latency(ReportModel):
    """Wall-clock milliseconds of one forward pass at one batch size."""

    batch_size: int
    p50: float
    p90: float
    p99: float
    runs: int


class Measurement(ReportModel):
    """One state of the model."""

    file_bytes: int
    memory_bytes: int | None = None
    """Parameters, buffers and constants in memory, tied ones once; null in older reports."""
    parameters: int
    nonzero_parameters: int
    macs: int
    loss: float | None
    """Average validation loss; null without a dataset."""
    accuracy: Accuracy | None
    """Null without a dataset, and where the objective does not measure it."""
    metrics: dict[str, float | None] = Field(default={})
    """By name of the metric (see `objective`), the one that decides first; a value is null where
    it is no finite number. Empty without a dataset and in older reports."""
    evaluation_ms: float | None = None
    """Wall-clock milliseconds of the run over the validation split; null without a dataset and in
    older reports."""
    latency_ms: list[Latency]
    """Empty where latency was not measured (intermediate stages)."""

    @property
    def deciding(self) -> float | None:
        """The metric that decides; top-1 in older reports."""
        if self.metrics:
            return next(iter(self.metrics.values()))
        return None if self.accuracy is None else self.accuracy.top1


class Masked(Measurement):
    """What a prune step removes, only masked yet: the state before the step took effect."""

    form: Literal["mask_beside_weight", "zeroed_slices"]
    """`mask_beside_weight` (single weights): the weights are whole, and masks of their dtype are
    stored beside them and multiplied at each run, as `torch.nn.utils.prune` does; the non-zero
    parameters are those stored. `zeroed_slices` (channels and heads): zeros in the old shapes."""
    elapsed_ms: float
    """Making, saving and measuring this state; not part of the step's own time."""


class StageReport(Measurement):
    """State of the model after one step of one stage."""

    state: Literal["permanent", "compacted", "finetuned", "recalibrated", "quantized"] | None = None
    """What the step made of the model: zeros written into the weights, a smaller model, a
    trained one, one whose BatchNorm statistics were measured anew, or one with weights of fewer
    bits. Null in older reports."""
    masked: Masked | None = None
    """Measured at the last round of a prune stage; null elsewhere, for whole layers, for models
    over 2 GiB, and where the job's log says why not."""

    stage: str
    """`prune`, `finetune`, `recalibrate` or `quantize`."""
    label: str
    """Human name of the step, such as `prune round 2 of 4`."""
    stage_index: int
    round: int | None = None
    removed: int = 0
    """Channels (heads, layers or weights, by granularity) removed by this step."""
    removed_layers: list[str] = Field(default=[])
    """Names of the residual branches it removed, least important first."""
    elapsed_ms: float


class Certificate(ReportModel):
    """Equivalence of the compact model and the original with the removed channels zeroed, and
    the removed layers passed by."""

    passed: bool
    kind: Literal["exact", "approximate"]
    """`approximate` where an op mixes channels (see `mixed_by`)."""
    max_relative_error: float
    """Largest |compact - masked dense| over the largest |masked dense|, in float64."""
    restricted_error: float | None = None
    """The same against a reference whose mixing ops see only the surviving channels; this one
    must be zero to rounding for every model. Null when the kind is exact."""
    mixed_by: list[str]
    """Ops that mix channels and therefore drift, as `layer (op)`."""
    batch_sizes: list[int]
    reloaded_in_fresh_process: bool
    detail: str = ""


class Frozen(ReportModel):
    """Channels that could not be pruned, or a residual branch (as one), with the reason."""

    layer: str
    op: str
    reason: str
    channels: int


class Pattern(ReportModel):
    """An n:m pattern, counted in the final weights."""

    weight: str
    n: int
    """Weights that may be other than zero, of every `m`."""
    m: int
    dimension: int
    """Of the weight's inputs, along which the groups lie."""
    holds: bool
    broken: int
    """Groups with more than `n` weights that are not zero."""


class Histogram(ReportModel):
    """Weight distribution: `counts[i]` weights lie in `edges[i]..edges[i+1]`."""

    edges: list[float]
    counts: list[int]


class LayerHistogram(ReportModel):
    """Distribution of one weight tensor, or of all of them together."""

    name: str
    """Of the tensor; empty for all together."""
    counts: list[int]
    """`counts[i]` finite weights other than zero lie in `edges[i]..edges[i+1]`, the first and the
    last bin with everything beyond them."""
    zeros: int
    not_finite: int = 0
    """NaN and infinities."""


class DistributionState(ReportModel):
    """The weights at one point of the job."""

    state: Literal["original", "pruned", "retrained"]
    label: str
    """Of the step after which it was taken."""
    total: LayerHistogram
    layers: list[LayerHistogram]
    """The largest tensors of the original, in its order; those that are gone are left out."""


class WeightDistribution(ReportModel):
    """Weights of two or more dimensions before, after the last pruning and after the last
    retraining, all in the same bins."""

    edges: list[float]
    """Of equal bins, symmetric around zero."""
    states: list[DistributionState]
    """In the order of the job."""
    unlisted_layers: int = 0
    """Smaller tensors of the original that count in the total only."""


class CurvePoint(ReportModel):
    """One prune round on the curve of accuracy against size."""

    stage_index: int
    label: str
    kept_fraction: float
    """Non-zero parameters after the round over the parameters of the original."""
    pruned: Accuracy | None
    """After pruning, before any training; null without a dataset."""
    retrained: Accuracy | None
    """After the training that followed before the next round; null where none did."""
    pruned_metric: float | None = None
    """The metric that decides, after pruning; null in older reports."""
    retrained_metric: float | None = None
    """The same after the training."""


class LayerReport(ReportModel):
    """One weight tensor before and after."""

    name: str
    shape_before: list[int]
    shape_after: list[int]
    nonzero_after: int
    removed_fraction: float
    """1 - nonzero_after / elements before."""
    compression_ratio: float | None = None
    """Elements before / nonzero_after; null where nothing is left and in older reports."""


class TicketRound(ReportModel):
    """A network of a ticket stage, trained from the rewinding point."""

    round: int
    """Prune rounds before it; 0 is the dense network."""
    weights_left: int
    """Weights that no mask holds at zero, of those that the stage may mask."""
    share_left: float
    """The same as a fraction of all that the stage may mask."""
    loss: float | None
    accuracy: Accuracy | None
    metric: float | None = None
    """The metric that decides; null in older reports."""


class Barrier(ReportModel):
    """The line between two trained copies of a ticket."""

    first: int
    second: int
    """Copies, numbered from 1; the first is the result."""
    errors: list[float]
    """At a W_first + (1 - a) W_second for a = 0, 0.1 .. 1: 1 minus the metric that decides where it
    is a share (for accuracy the share of wrong answers), the metric itself where lower is better,
    minus it elsewhere."""
    barrier: float
    """Highest error minus the mean of both ends; about 0 where the network is stable."""


class TicketReport(ReportModel):
    """How a ticket was found."""

    stage_index: int
    schedule: str
    initial: Literal["job", "uploaded"]
    """Whether the job kept the initial weights itself or they came with it."""
    rewound_to_step: int
    """Optimiser steps of the weights gone back to."""
    rounds: list[TicketRound]
    copies: list[Accuracy]
    """Accuracy of every copy of the ticket, the result first; empty without copies, and where the
    objective measures none."""
    copies_metric: list[float | None] = Field(default=[])
    """The metric that decides, of the same; empty in older reports."""
    stability: list[Barrier]
    """Between every two copies."""


class BaselineReport(ReportModel):
    """A control: the result's architecture trained from new random weights, or from the upload's
    with other units removed."""

    kind: str
    epochs: int
    """That it trained for."""
    loss: float | None
    accuracy: Accuracy | None
    metric: float | None = None
    """The metric that decides; null in older reports."""
    drawn_by_distribution: list[str]
    """Tensors whose role the graph does not tell: drawn with the mean and deviation they had."""
    removed: dict[str, int] = Field(default={})
    """`random_pruning`: units gone by layer (channels by group, weights by tensor, residual
    branches as `layers`); the result lost as many of each."""
    nonzero_parameters: int | None = None
    """Null in older reports."""
    macs: int | None = None
    """Null in older reports."""


class Verdict(ReportModel):
    """The result in one place; `ok` is false when the job got slower, lost accuracy or broke a
    constraint."""

    ok: bool
    summary: str
    warnings: list[str]
    compression_ratio: float
    """Parameters before / non-zero parameters after (Blalock et al. 2020)."""
    file_ratio: float
    """File bytes before / after."""
    theoretical_speedup: float
    """MACs before / after, as dense kernels carry them out: weights set to zero are multiplied all
    the same."""
    nonzero_theoretical_speedup: float | None = None
    """MACs before / MACs after without those of zeros in weights, which only a kernel that skips
    every zero would save (Blalock et al. 2020); null where they could not be counted and in older
    reports."""
    measured_speedup: dict[str, float]
    """Median latency before / after, by batch size."""
    accuracy_change: float | None
    """Top-1 after minus before, as a fraction; null without a dataset, and where accuracy is not
    measured."""
    metric: str | None = None
    """Name of the metric that decides; null without a dataset and in older reports."""
    metric_before: float | None = None
    metric_after: float | None = None
    """Null where it is no finite number."""
    constraints_met: bool


class Provenance(ReportModel):
    """Enough to run the job again."""

    recipe: dict[str, Any]
    seed: int
    model_sha256: str
    dataset_sha256: str | None
    result_sha256: str
    loss_sha256: str | None = None
    """Of the uploaded loss; null without one."""
    metric_sha256: str | None = None
    """Of the uploaded metric; null without one."""
    versions: dict[str, str]
    device: str
    threads: int
    deterministic: bool


class Report(ReportModel):
    """The whole report."""

    version: Literal[1] = 1
    before: Measurement
    objective: ObjectiveReport = CLASSIFICATION
    """The loss and the metrics."""
    stages: list[StageReport]
    after: Measurement
    certificate: Certificate
    frozen: list[Frozen]
    layers: list[LayerReport]
    patterns: list[Pattern] = Field(default=[])
    """Of weights that a stage of granularity `n_m` masked."""
    histogram_before: Histogram
    histogram_after: Histogram
    weights: WeightDistribution | None = None
    """Null in older reports."""
    curve: list[CurvePoint] = Field(default=[])
    """Accuracy against size, a point for each prune round; empty in older reports."""
    training: list[TrainingCurves] = Field(default=[])
    """Curves of each training run of a stage, in order, controls included; empty in older
    reports."""
    tickets: list[TicketReport] = Field(default=[])
    """One for each stage that looked for a ticket."""
    tournaments: list[TournamentReport] = Field(default=[])
    """One for each stage whose criterion was decided by a tournament."""
    targets: list[TargetReport] = Field(default=[])
    """One for each stage that aims at a cost."""
    quantization: list[QuantizationReport] = Field(default=[])
    """One for each stage that quantised."""
    baselines: list[BaselineReport] = Field(default=[])
    """The controls the recipe asks for."""
    tradeoff: TradeOffReport | None = None
    """Accuracy against ratio with and without retraining; null where the recipe asks for none."""
    exports: list[ExportReport] = Field(default=[])
    """One for each format the recipe names; empty in older reports, and where the result breaks a
    constraint."""
    verdict: Verdict
    provenance: Provenance
