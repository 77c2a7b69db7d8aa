"""Progress of uploads, stages and downloads: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from secateur.cli.console import byte_size, magnitude
from secateur.recipe_objective import METRICS
from secateur.resources import Event


class ProgressDisplay:
    """Shows what happens now, and leaves one line for everything that is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("[cyan]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._measured = ""
        self._live: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self._bars.stop()

    def start(self, description: str) -> None:
        """Something new goes on."""
        self._clear()
        self._task = self._bars.add_task(escape(description), total=None, detail="")

    def advance(self, current: int, total: int, detail: str) -> None:
        """How far it is."""
        if self._task is not None:
            self._bars.update(self._task, completed=current, total=total or None, detail=detail)

    def bytes(self, done: int, total: int) -> None:
        """How far a transfer is."""
        self.advance(done, total, f"{byte_size(done)} of {byte_size(total)}")

    def done(self, line: str) -> None:
        """It is done: leave a line."""
        self._clear()
        self._console.print(escape(line))

    def _clear(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None

    def on_event(self, event: Event) -> None:
        """Show an event of a job."""
        data = event.data
        if event.type == "queued":
            self.start("waiting for a worker")
        elif event.type == "started":
            self.start("starting")
        elif event.type == "stage_started":
            self._measured, self._live = "", {}
            self.start(str(data.get("name", "")))
        elif event.type == "progress":
            current, total = int(data.get("current", 0)), int(data.get("total", 0))
            detail = f"{current}/{total} {data.get('unit', '')}"
            self.advance(current, total, f"{detail}  {self._measured}".rstrip())
        elif event.type == "metric":
            name, value = str(data.get("name", "")), float(data.get("value", 0))
            if name.startswith("live/"):
                self._live[name] = value
                self._measured = live_line(self._live)
            else:
                self._measured = f"{name} {value:.4g}"
        elif event.type == "stage_finished":
            self.done(stage_line(data))
        elif event.type == "trial_finished":
            self.done(trial_line(data))
        elif event.type == "retry":
            how = (
                "goes on from the last checkpoint of" if data.get("resumes") else "starts over from"
            )
            self.done(f"{how} {data.get('of', '')}")
        elif event.type == "requeued":
            self.done("the worker stopped; the job is queued again")
        elif event.type == "lease_expired":
            self.done("the worker was lost; the job is queued again")


def live_line(values: Mapping[str, float]) -> str:
    """How training is now, from the newest `live/...` metrics."""
    shown: dict[str, Callable[[float], str]] = {
        "live/loss": lambda value: f"loss {value:.4g}",
        "live/lr": lambda value: f"lr {value:.3g}",
        "live/gradient_norm": lambda value: f"gradient {value:.3g}",
        "live/samples_per_second": lambda value: f"{value:,.0f} samples/s",
        "live/memory_bytes": lambda value: byte_size(int(value)),
    }
    return "  ".join(show(values[name]) for name, show in shown.items() if name in values)


def trial_line(data: dict[str, Any]) -> str:
    """One line about a trial of a search that has ended."""
    values = ", ".join(f"{name} {value:.4g}" for name, value in data.get("values", {}).items())
    told = "; ".join(part for part in (str(data.get("reason", "")), values) if part)
    return f"trial {data.get('number', '')} {data.get('state', '')}: {told or 'done'}"


def stage_line(data: dict[str, Any]) -> str:
    """One line about a finished stage."""
    measured = data.get("measurement") or {}
    parts = []
    if "parameters" in measured:
        parts.append(f"{magnitude(measured['parameters'])} parameters")
    if "macs" in measured:
        parts.append(f"{magnitude(measured['macs'])} MACs")
    if measured.get("accuracy"):
        parts.append(f"top-1 {100 * measured['accuracy']['top1']:.2f} %")
    for name, value in (measured.get("metrics") or {}).items():
        if name != "accuracy" and value is not None:
            parts.append(f"{METRICS[name].title if name in METRICS else name} {value:.4g}")
    name = str(data.get("name", "stage"))
    if not parts and name.endswith(" failed"):
        return name
    return f"{name}: {', '.join(parts) or 'done'}"
