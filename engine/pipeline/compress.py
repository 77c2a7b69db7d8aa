"""Run a recipe on an upload: prune, fine-tune, certify, measure, report.

After every step, and while training as often as pays, a checkpoint says where the job stands; a
job that starts from it goes on as if it had never stopped, to the bit on a CPU. The result exists
only when every certificate passed and the saved file computed the same in a fresh process.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from secateur.report import ExportReport, Measurement, Report, StageReport

from engine.errors import ConstraintUnmet
from engine.job import JobInput, Listener, ProducedArtifact
from engine.masks import save_masks
from engine.measure.distribution import start_distribution
from engine.measure.latency import compare_latency
from engine.measure.size import weights_of
from engine.pipeline.checkpoint import JobState, load_checkpoint
from engine.pipeline.checkpointing import CheckpointWriter, TrainingNotes
from engine.pipeline.deployment import memory_deployed, write_deployed
from engine.pipeline.device_memory import out_of_memory_explained
from engine.pipeline.distributed import train_together
from engine.pipeline.durable import full_disk_explained
from engine.pipeline.element_target import note_masked, with_amount
from engine.pipeline.exporting import Result, export_all, with_exports
from engine.pipeline.fork_server import SERVER
from engine.pipeline.masked import measure_masks_beside
from engine.pipeline.measuring import measure
from engine.pipeline.pruning import prune
from engine.pipeline.quantize import quantize_step
from engine.pipeline.recalibration import recalibrate_step
from engine.pipeline.reload import check_reload
from engine.pipeline.report import build_report, fingerprint_of, write_recipe
from engine.pipeline.setup import Workbench, prepare
from engine.pipeline.stage_states import distribution_after, stage_name, state_after
from engine.pipeline.steps import (
    PruneStep,
    QuantizeStep,
    RecalibrateStep,
    TournamentStep,
    TrainStep,
    steps_of,
)
from engine.pipeline.target_verdict import timed_targets
from engine.pipeline.tickets import begin_stage, note, note_pruned
from engine.pipeline.tournament import hold_tournament, with_winner
from engine.pipeline.training import Together, train_step
from engine.pipeline.verdict import broken_constraints
from engine.torchscript.precision import comparison_tolerance
from engine.torchscript.program import Program


@dataclass(frozen=True)
class CompressResult:
    """What a job produced."""

    artifacts: list[ProducedArtifact]
    report: Report


class ResultBreaksConstraint(ConstraintUnmet):
    """The result exists and breaks a constraint; `artifacts` and `report` are worth keeping."""

    def __init__(self, title: str, *, hint: str, where: str, result: CompressResult) -> None:
        super().__init__(title, hint=hint, where=where)
        self.artifacts = result.artifacts
        self.report = result.report


def compress(job: JobInput, listener: Listener) -> CompressResult:
    """Carry out a compress job.

    Raises:
        EngineError: anything the user can act on.
        ResultBreaksConstraint: the result is there, in `artifacts`, and breaks the recipe's limits.
    """
    with out_of_memory_explained(), full_disk_explained(job.workdir):
        return _Job(job, listener).run()


class _Job:
    def __init__(self, job: JobInput, listener: Listener) -> None:
        self._job = job
        self._listener = listener
        self._fingerprint = fingerprint_of(job)
        self._checkpoints = CheckpointWriter(job, listener, self._fingerprint)
        self._written: tuple[Program, bytes] | None = None

    def run(self) -> CompressResult:
        SERVER.start()  # it has imported torch by the time there is a file to load
        bench = prepare(self._job)
        steps = steps_of(bench.recipe, initial_given=self._job.initial is not None)
        state = self._begin(bench)
        for position in range(state.next_step, len(steps)):
            step = with_amount(bench, state, steps[position])
            if isinstance(step, TournamentStep):
                self._tournament(bench, state, step)
            else:
                self._step(bench, state, step, position)
        return self._finish(bench, state)

    def _begin(self, bench: Workbench) -> JobState:
        if self._job.checkpoint is not None:
            state = load_checkpoint(
                self._job.checkpoint, bench.original, fingerprint=self._fingerprint
            )
            self._checkpoints.resume(self._job.checkpoint, state)
            return state
        self._listener.stage_started(0, "measure the original")
        before = measure(bench, bench.original, file_bytes=self._job.model.stat().st_size)
        weights = start_distribution(weights_of(bench.original))
        state = JobState(program=bench.original, before=before, weights=weights)
        if before.macs == 0:
            state.warnings.append(
                "no convolution, matrix product or attention ran in the model: MACs are 0 and the "
                "theoretical speed-up says nothing"
            )
        if bench.validation is None:
            state.warnings.append(
                "no validation split with targets: the "
                f"{_judged_by(bench)} of the result is unknown"
            )
        for remark in bench.remarks:
            state.warnings.append(remark)
            self._listener.log(remark)
        if bench.dataset is not None and bench.dataset.classes:
            named = ", ".join(bench.dataset.classes)
            self._listener.log(f"classes of the dataset, numbered from 0: {named}")
        self._listener.stage_finished(0, "measure the original", before)
        self._save(bench, state)
        return state

    def _tournament(self, bench: Workbench, state: JobState, step: TournamentStep) -> None:
        self._listener.stage_started(step.stage_index, step.label)
        hold_tournament(bench, state, step, self._listener, lambda: self._save(bench, state))
        state.next_step += 1
        self._listener.stage_finished(step.stage_index, step.label, None)
        self._save(bench, state)

    def _step(
        self,
        bench: Workbench,
        state: JobState,
        step: PruneStep | TrainStep | RecalibrateStep | QuantizeStep,
        position: int,
    ) -> None:
        if isinstance(step, PruneStep):
            step = with_winner(step, state)
        self._listener.stage_started(step.stage_index, step.label)
        started = time.monotonic() - state.elapsed_ms / 1000
        begin_stage(bench, state, step)
        removed, layers, aside = 0, list[str](), False
        if isinstance(step, PruneStep):
            given = state.program
            removed, layers = prune(bench, state, step, self._listener)
            program = state.program
            if step.stage.granularity in ("element", "n_m"):
                state.masked = measure_masks_beside(bench, given, state.masks, step, self._listener)
        elif isinstance(step, QuantizeStep):
            quantize_step(bench, state, step, self._listener)
            program = state.program
        elif isinstance(step, RecalibrateStep):
            program = recalibrate_step(bench, state, step, self._listener)
        else:
            notes = TrainingNotes(
                self._checkpoints,
                self._listener,
                state,
                step.label,
                started=started,
                save_step=partial(self._save, bench, state),
            )
            program, removed = train_step(
                *(bench, state, step, notes, self._listener),
                pace=self._checkpoints.pace,
                together=self._together(bench, state, position),
            )
            aside = step.aside
        note_masked(state, step.stage_index)
        measurement = self._measured(bench, state, program)
        masked, state.masked = state.masked, None
        # What was measured of the masked model is not the step's own time.
        started += 0.0 if masked is None else masked.elapsed_ms / 1000
        if isinstance(step, PruneStep):
            note_pruned(state, step, measurement, removed)
        elif not isinstance(step, RecalibrateStep | QuantizeStep):
            note(bench, state, step, measurement)
        if not aside:
            state.reports.append(
                StageReport(
                    **measurement.model_dump(),
                    state=state_after(step, state, measurement),
                    masked=masked,
                    stage=stage_name(step, removed),
                    label=step.label,
                    stage_index=step.stage_index,
                    round=step.shown_round,
                    removed=removed,
                    removed_layers=layers,
                    elapsed_ms=(time.monotonic() - started) * 1000,
                )
            )
            state.weights = distribution_after(bench, state, position)
        state.next_step, state.training, state.elapsed_ms = position + 1, None, 0.0
        self._listener.stage_finished(step.stage_index, step.label, measurement)
        self._save(bench, state)

    def _finish(self, bench: Workbench, state: JobState) -> CompressResult:
        index = len(bench.recipe.stages)
        self._listener.stage_started(index, "verify and measure")
        model = self._job.workdir / "compact.pt"
        self._write_result(state, model)
        try:
            # A lowered program computes other numbers: its file is held against itself.
            stands_for = (
                state.program.twin()
                if state.quantised.lowering is None
                else Program.as_uploaded(model, device=self._job.device)
            )
            error = check_reload(stands_for, model, bench.inputs, self._job.workdir)
        except BaseException:
            model.unlink()
            raise
        # Files as they lie, in graphs that the optimiser has not yet fitted to other shapes.
        comparison = compare_latency(
            Program.as_uploaded(self._job.model, device=self._job.device),
            Program.as_uploaded(model, device=self._job.device),
            bench.inputs,
            # Targets in milliseconds are measured again at their own batch sizes.
            batch_sizes=[*bench.recipe.measure.batch_sizes, *timed_targets(bench.recipe)],
            runs=bench.recipe.measure.runs,
        )
        report = build_report(bench, state, comparison, model)
        self._listener.stage_finished(index, "verify and measure", report.after)
        broken = broken_constraints(
            bench.recipe, report.before, report.after, report.objective.decides
        )
        exported: list[ProducedArtifact] = []
        if not broken:
            tolerance = comparison_tolerance(state.program)
            exports, exported = self._export(
                state, Result(model, bench.inputs, error, tolerance), first_index=index + 1
            )
            report = with_exports(report, exports)
        artifacts = [*self._write(state, report, model), *exported]
        result = CompressResult(artifacts=artifacts, report=report)
        if broken:
            raise ResultBreaksConstraint(
                "the result breaks a constraint: " + "; ".join(item.text for item in broken),
                hint="the model and its report are kept; prune less, fine-tune longer, or relax "
                "the constraint",
                where=broken[0].field,
                result=result,
            )
        return result

    def _export(
        self, state: JobState, result: Result, *, first_index: int
    ) -> tuple[list[ExportReport], list[ProducedArtifact]]:
        """The result in the other formats of the recipe."""
        with TemporaryDirectory(dir=self._job.workdir) as folder:
            if state.quantised and self._job.recipe.exports != ["torchscript"]:
                # Other formats know nothing of decoders; what they make of encodings is their own.
                whole = Path(folder) / "float.pt"
                self._on_cpu(state.program).save(whole)
                plain = state.quantised.to_plain()
                result = replace(
                    result,
                    program_file=whole,
                    encodings=plain["encodings"],
                    lowering=plain["lowering"],
                )
            return export_all(
                self._job.recipe.exports,
                result,
                workdir=self._job.workdir,
                threads=self._job.threads,
                listener=self._listener,
                first_index=first_index,
            )

    def _together(self, bench: Workbench, state: JobState, position: int) -> Together | None:
        """Training by several processes, where the recipe asks for it."""
        if bench.recipe.devices == 1:
            return None
        # They begin with what the checkpoint says, whatever it stood at.
        self._save(bench, state)
        job = replace(self._job, checkpoint=self._checkpoints.path)
        return partial(train_together, job=job, position=position)

    def _write(self, state: JobState, report: Report, model: Path) -> list[ProducedArtifact]:
        folder = self._job.workdir
        report_file, recipe_file = folder / "report.json", folder / "recipe.yaml"
        report_file.write_text(report.model_dump_json(indent=2))
        write_recipe(self._job.recipe, recipe_file)
        artifacts = [
            ProducedArtifact("model", model, "application/octet-stream"),
            ProducedArtifact("report_json", report_file, "application/json"),
            ProducedArtifact("recipe", recipe_file, "application/yaml"),
        ]
        if state.masks:
            masks_file = folder / "masks.safetensors"
            save_masks(state.masks, masks_file)
            artifacts.append(ProducedArtifact("masks", masks_file, "application/octet-stream"))
        return artifacts

    def _file_of(self, program: Program) -> bytes:
        """The file of a program, written once however often it is asked for."""
        if self._written is None or self._written[0] is not program:
            self._written = None
            # By way of the disk: in memory torch holds the file three times while it is written.
            with TemporaryDirectory(dir=self._job.workdir) as folder:
                file = Path(folder) / "model.pt"
                program.save(file)
                self._written = (program, file.read_bytes())
        return self._written[1]

    def _measured(self, bench: Workbench, state: JobState, program: Program) -> Measurement:
        """A program after a step, as its file will be."""
        if not state.quantised or program is not state.program:
            return measure(bench, program, file_bytes=len(self._file_of(program)))
        with TemporaryDirectory(dir=self._job.workdir) as folder:
            file = Path(folder) / "model.pt"
            write_deployed(self._on_cpu(program), state.quantised, file)
            runs = None
            if state.quantised.lowering is not None:
                runs = Program.as_uploaded(file, device=self._job.device)
            measured = measure(bench, program, file_bytes=file.stat().st_size, runs=runs)
        measured.memory_bytes = memory_deployed(program, state.quantised)
        return measured

    def _write_result(self, state: JobState, path: Path) -> None:
        """Write the file from the CPU: it must load on machines without a GPU."""
        if state.quantised:
            write_deployed(self._on_cpu(state.program), state.quantised, path)
        elif self._job.device == "cpu":
            path.write_bytes(self._file_of(state.program))
        else:
            self._on_cpu(state.program).save(path)

    def _on_cpu(self, program: Program) -> Program:
        if self._job.device == "cpu":
            return program
        return Program.load(self._file_of(program))

    def _save(self, bench: Workbench, state: JobState) -> None:
        # The upload itself is at hand whenever a job resumes.
        file = None if state.program is bench.original else self._file_of(state.program)
        self._checkpoints.step_ended(state, file)


def _judged_by(bench: Workbench) -> str:
    decides = bench.objective.report().decides
    return "accuracy" if decides.name == "accuracy" else decides.title
