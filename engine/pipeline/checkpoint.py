"""Where a job stands, as a file; and beside it, where the training of its next step stands.

The first is written after every step and holds the model, masks, reports and all that later steps
look back to. Training only adds to it: what moves while a step trains goes into a second file,
which names the step it belongs to, so that the model is not written again with every checkpoint.
A second file of another step is left alone: the first is a complete checkpoint by itself.

Both are whole at any time (see `engine.pipeline.durable`). They hold plain data and tensors only
and are read with `weights_only=True`: a checkpoint cannot run code.
"""

from __future__ import annotations

import pickle
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from secateur.recipe import Allocation
from secateur.report import (
    BaselineReport,
    Certificate,
    Frozen,
    Masked,
    Measurement,
    QuantizationReport,
    StageReport,
    TargetReport,
    TournamentReport,
    WeightDistribution,
)
from secateur.report_training import TrainingCurves

from engine.errors import EngineError
from engine.lottery.state import LotteryState
from engine.masks import Masks
from engine.measure.tradeoff import TradeOffState
from engine.pipeline.durable import replaced
from engine.quantisation.quantised import Quantised
from engine.torchscript.program import Program
from engine.training.state import TrainingState
from engine.training.teacher_cache import KeptCache

_FORMAT = 2


class CheckpointUnusable(EngineError):
    """The checkpoint is damaged, or belongs to another job."""

    type = "checkpoint-unusable"


@dataclass
class JobState:
    """Everything the rest of a job depends on.

    Attributes:
        program: as it is now.
        before: measurement of the upload.
        next_step: index of the step to run next.
        masks: element masks that hold.
        originals: channels by group before each prune stage, by stage index.
        totals: units by group (or weight) that each prune stage removes in all, by stage index,
            where their sizes do not say (see `engine.selection.by_layer`).
        removed: units that each prune stage took, by stage index and group (`layers` for residual
            branches); single weights are counted by their masks.
        reports: one for each finished step.
        certificates: of the prune steps.
        frozen: channels that could not be removed, as the first prune step found them.
        warnings: what the verdict must say.
        lottery: of the stages that look for tickets.
        tournaments: outcomes so far, by index of the prune stage.
        targets: costs that prune stages aim at, by stage index, as their first rounds found them.
        amounts: what a target amounts to, where that is settled before the stage begins, by stage
            index.
        baselines: controls that are finished.
        training: of the step that is under way, or None.
        tradeoff: the curves so far.
        elapsed_ms: of the step that is under way.
        weights: how they were distributed so far; None in checkpoints of older versions.
        movement: of weights in the training before the next round of a prune stage that is judged
            by it, by stage index.
        curves: of the training runs that are finished.
        quantised: how the weights are stored in the file.
        quantization: one report for each stage that quantised.
        kept: the teacher's scores in a file of this attempt; not kept.
        masked: what the prune step under way measured before it took effect; not kept.
    """

    program: Program
    before: Measurement
    next_step: int = 0
    masks: Masks = field(default_factory=dict)
    originals: dict[int, dict[str, int]] = field(default_factory=dict)
    totals: dict[int, dict[str, int]] = field(default_factory=dict)
    removed: dict[int, dict[str, int]] = field(default_factory=dict)
    reports: list[StageReport] = field(default_factory=list)
    certificates: list[Certificate] = field(default_factory=list)
    frozen: list[Frozen] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    lottery: LotteryState = field(default_factory=LotteryState)
    tournaments: dict[int, TournamentReport] = field(default_factory=dict)
    targets: dict[int, TargetReport] = field(default_factory=dict)
    amounts: dict[int, Allocation] = field(default_factory=dict)
    baselines: list[BaselineReport] = field(default_factory=list)
    tradeoff: TradeOffState = field(default_factory=TradeOffState)
    training: TrainingState | None = None
    elapsed_ms: float = 0.0
    weights: WeightDistribution | None = None
    movement: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)
    curves: list[TrainingCurves] = field(default_factory=list)
    quantised: Quantised = field(default_factory=Quantised)
    quantization: list[QuantizationReport] = field(default_factory=list)
    kept: KeptCache | None = None
    masked: Masked | None = None


def save_checkpoint(state: JobState, path: Path, *, file: bytes | None, fingerprint: str) -> None:
    """Write the state, but for the training of its next step.

    Args:
        state: where the job stands.
        path: of the checkpoint.
        file: of the state's program; None while it is the upload.
        fingerprint: names the job's inputs.

    Raises:
        NotWritten: there is no room, or the disk refuses; the last checkpoint is untouched.
    """
    plain: dict[str, Any] = {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "program": None if file is None else _as_tensor(file),
        "before": state.before.model_dump_json(),
        "followed": None if state.program.followed is None else state.program.followed.to_plain(),
        "next_step": state.next_step,
        "masks": state.masks,
        "originals": state.originals,
        "totals": state.totals,
        "removed": state.removed,
        "reports": [report.model_dump_json() for report in state.reports],
        "certificates": [certificate.model_dump_json() for certificate in state.certificates],
        "frozen": [frozen.model_dump_json() for frozen in state.frozen],
        "warnings": state.warnings,
        "lottery": state.lottery.to_plain(),
        "tournaments": {
            index: report.model_dump_json() for index, report in state.tournaments.items()
        },
        "targets": {index: report.model_dump_json() for index, report in state.targets.items()},
        "amounts": {index: amount.model_dump_json() for index, amount in state.amounts.items()},
        "baselines": [baseline.model_dump_json() for baseline in state.baselines],
        "tradeoff": state.tradeoff.to_plain(),
        "elapsed_ms": 0.0,
        "weights": None if state.weights is None else state.weights.model_dump_json(),
        "movement": state.movement,
        "curves": [curves.model_dump_json() for curves in state.curves],
        "quantised": state.quantised.to_plain(),
        "quantization": [report.model_dump_json() for report in state.quantization],
    }
    with replaced(path) as target:
        torch.save(plain, target)


def save_training(state: JobState, path: Path, *, fingerprint: str) -> None:
    """Write the training of the next step, beside the checkpoint that was saved before that step.

    Args:
        state: where the job stands.
        path: of that checkpoint.
        fingerprint: names the job's inputs.

    Raises:
        NotWritten: there is no room, or the disk refuses; the last file is untouched.
    """
    plain: dict[str, Any] = {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "next_step": state.next_step,
        "training": None if state.training is None else state.training.to_plain(),
        "elapsed_ms": state.elapsed_ms,
    }
    with replaced(training_file(path)) as target:
        torch.save(plain, target)


def training_file(path: Path) -> Path:
    """Where the training lies that belongs to a checkpoint."""
    return path.with_name(f"{path.stem}.training.pt")


def load_checkpoint(path: Path, original: Program, *, fingerprint: str) -> JobState:
    """Read the state of a job with the same inputs.

    Args:
        path: of the checkpoint; the file of its training may lie beside it.
        original: the upload; its device is where the state's program goes.
        fingerprint: names the job's inputs.

    Raises:
        CheckpointUnusable: damaged, of another version, or of other inputs.
    """
    plain = _read(path)
    if plain["fingerprint"] != fingerprint:
        raise CheckpointUnusable(
            "the checkpoint belongs to another model, dataset or recipe",
            hint="resume with the inputs of the job that wrote it, or start anew",
            where=path.name,
        )
    # Checkpoints of older versions hold the training themselves.
    training, elapsed_ms = plain.get("training"), plain["elapsed_ms"]
    beside = training_file(path)
    if beside.exists():
        found = _read(beside)
        if (found["fingerprint"], found["next_step"]) == (fingerprint, plain["next_step"]):
            training, elapsed_ms = found["training"], found["elapsed_ms"]
    weights = plain.get("weights")
    program = original
    if plain["program"] is not None:
        program = Program.load(plain["program"].numpy().tobytes(), device=original.device)
        # The checkpoint's forward holds its methods' code and calls none.
        program.calls = original.calls
        if original.followed is not None:
            program.followed = original.followed.recalled(plain.get("followed"))
    return JobState(
        program=program,
        before=Measurement.model_validate_json(plain["before"]),
        next_step=plain["next_step"],
        masks=plain["masks"],
        originals=plain["originals"],
        totals=plain["totals"],
        removed=plain.get("removed", {}),
        reports=[StageReport.model_validate_json(text) for text in plain["reports"]],
        certificates=[Certificate.model_validate_json(text) for text in plain["certificates"]],
        frozen=[Frozen.model_validate_json(text) for text in plain["frozen"]],
        warnings=plain["warnings"],
        lottery=LotteryState.from_plain(plain["lottery"]),
        tournaments={
            index: TournamentReport.model_validate_json(text)
            # Checkpoints of older versions have none.
            for index, text in plain.get("tournaments", {}).items()
        },
        targets={
            index: TargetReport.model_validate_json(text)
            for index, text in plain.get("targets", {}).items()
        },
        amounts={
            index: Allocation.model_validate_json(text)
            for index, text in plain.get("amounts", {}).items()
        },
        baselines=[BaselineReport.model_validate_json(text) for text in plain["baselines"]],
        tradeoff=TradeOffState.from_plain(plain.get("tradeoff")),
        training=None if training is None else TrainingState.from_plain(training),
        elapsed_ms=elapsed_ms,
        weights=None if weights is None else WeightDistribution.model_validate_json(weights),
        movement=plain.get("movement", {}),
        curves=[TrainingCurves.model_validate_json(text) for text in plain.get("curves", [])],
        quantised=Quantised.from_plain(plain.get("quantised")),
        quantization=[
            QuantizationReport.model_validate_json(text) for text in plain.get("quantization", [])
        ],
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        plain = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointUnusable(
            f"the checkpoint cannot be read: {str(error).splitlines()[0]}",
            hint="start the job anew, without the checkpoint",
            where=path.name,
        ) from error
    if not isinstance(plain, dict) or plain.get("format") != _FORMAT:
        raise CheckpointUnusable(
            "the checkpoint was written by another version",
            hint="start the job anew, without the checkpoint",
            where=path.name,
        )
    return plain


def _as_tensor(file: bytes) -> torch.Tensor:
    with warnings.catch_warnings():
        # Only read, so that it need not be copied to writable memory.
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(file, dtype=torch.uint8)
