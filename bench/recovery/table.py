"""docs/recovery.md, from the committed records.

    python -m bench.recovery.table

The page is a function of `bench/recovery/results.jsonl` and the words of tasks and variants alone.

    won back = (recovered - pruned) / (dense - pruned)

of a run, by the figure that `Measure.share` names, and averaged over seeds. Recoveries of one seed
start from the same pruned network, so they are compared in pairs: with 95 % confidence (one-sided
paired t test) one is above the other, or nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill

from bench.papers.statistics import difference, summary
from bench.recovery.records import Record, load
from bench.recovery.task import Measure, Task
from bench.recovery.tasks import TASKS, variants_of
from bench.recovery.variants import COOL, LONG, MAIN, STUDY, Variant
from bench.recovery.words import ADVICE, COMPARED, INTRO

PAGE = Path(__file__).parents[2] / "docs" / "recovery.md"
FEWEST_SEEDS = 3
"""With fewer nothing is said about a task."""
_WIDTH = 120

Runs = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Figures of one task by variant and seed."""


def page(records: Iterable[Record], tasks: Mapping[str, Task] = TASKS) -> str:
    """The whole page."""
    kept = list(records)
    runs = {name: of_task(kept, name) for name in tasks}
    tasks = {name: task for name, task in tasks.items() if _complete(runs[name], MAIN)}
    lines = [INTRO, "## Results", "", *_summary(tasks, runs), "", "Share won back:", ""]
    lines += _won_back(tasks, runs)
    lines += [
        "",
        "Against labels alone, in pairs: points won back, and the loss on the test part:",
        "",
    ]
    lines += _teachers(tasks, runs)
    for task in tasks.values():
        lines += ["", *_section(task, runs[task.name])]
    further = (*STUDY, LONG, COOL)
    studied = {
        name: task
        for name, task in tasks.items()
        if any(_complete(runs[name], [variant]) for variant in further)
    }
    lines += ["", "## What to choose", "", ADVICE.rstrip()]
    if studied:
        lines += ["", *_studied(studied, runs)]
    lines += ["", _measured([record for record in kept if record.task in tasks])]
    return "\n".join(lines).rstrip() + "\n"


def of_task(records: Iterable[Record], task: str) -> Runs:
    """The figures of one task."""
    found: dict[str, dict[int, Mapping[str, float]]] = {}
    for record in records:
        if record.task == task:
            found.setdefault(record.variant, {})[record.seed] = record.figures
    return found


def won_back(task: Task, runs: Runs, variant: str) -> dict[int, float]:
    """By seed, the share of what pruning cost; seeds without a dense or pruned run have none."""
    name = task.measure.share
    shares = {}
    for seed, figures in runs.get(variant, {}).items():
        dense, pruned = runs.get("dense", {}).get(seed), runs.get("pruned", {}).get(seed)
        if dense is not None and pruned is not None:
            lost = dense[name] - pruned[name]
            shares[seed] = (figures[name] - pruned[name]) / lost
    return shares


def verdict(task: Task, runs: Runs, a: str, b: str) -> str:
    """A minus B in points of the share won back, and what that says."""
    one, other = won_back(task, runs, a), won_back(task, runs, b)
    if len(one.keys() & other.keys()) < FEWEST_SEEDS:
        return ""
    return f"{100 * difference(one, other).mean:+.1f}, {_word(one, other)}"


def loss_verdict(runs: Runs, a: str, b: str) -> str:
    """Loss of A minus that of B, and what that says: lower is better."""
    one, other = figure_of(runs, a, "loss"), figure_of(runs, b, "loss")
    if len(one.keys() & other.keys()) < FEWEST_SEEDS:
        return ""
    return f"{difference(one, other).mean:+.4f}, {_word(other, one)}"


def figure_of(runs: Runs, variant: str, name: str) -> dict[int, float]:
    """One figure of a variant, by seed."""
    return {seed: figures[name] for seed, figures in runs.get(variant, {}).items()}


def _word(a: Mapping[int, float], b: Mapping[int, float]) -> str:
    if difference(a, b).above:
        return "**better**"
    return "**worse**" if difference(b, a).above else "no clear difference"


def _complete(runs: Runs, variants: Sequence[Variant]) -> bool:
    names = ("dense", *(variant.name for variant in variants))
    return all(len(runs.get(name, {})) >= FEWEST_SEEDS for name in names)


def _summary(tasks: Mapping[str, Task], runs: Mapping[str, Runs]) -> list[str]:
    headings = [variant.words for variant in MAIN]
    lines = ["| task | figure | dense | " + " | ".join(headings) + " | seeds |"]
    lines.append("|---|---|---:|" + "---:|" * len(headings) + "---:|")
    for name, task in tasks.items():
        names = ["dense", *(variant.name for variant in MAIN)]
        cells = [_cell(runs[name].get(variant, {}), task.measure) for variant in names]
        seeds = len(runs[name].get("dense", {}))
        link = f"[{task.title}](#{_anchor(task.title)})"
        lines.append(f"| {link} | {task.measure.heading} | {' | '.join(cells)} | {seeds} |")
    return lines


def _won_back(tasks: Mapping[str, Task], runs: Mapping[str, Runs]) -> list[str]:
    recoveries = [variant for variant in MAIN if variant.trains]
    lines = ["| task | " + " | ".join(variant.words for variant in recoveries) + " |"]
    lines.append("|---|" + "---:|" * len(recoveries))
    for name, task in tasks.items():
        cells = [_shares(won_back(task, runs[name], variant.name)) for variant in recoveries]
        lines.append(f"| {task.title} | {' | '.join(cells)} |")
    return lines


def _teachers(tasks: Mapping[str, Task], runs: Mapping[str, Runs]) -> list[str]:
    lines = [
        "| task | teacher beside labels: won back | loss | teacher alone: won back | loss |",
        "|---|---|---|---|---|",
    ]
    for name, task in tasks.items():
        cells = []
        for taught in ("mixed", "teacher"):
            cells += [verdict(task, runs[name], taught, "labels")]
            cells += [loss_verdict(runs[name], taught, "labels")]
        lines.append(f"| {task.title} | {' | '.join(cells)} |")
    return lines


def _section(task: Task, runs: Runs) -> list[str]:
    dense, recovery = task.dense, task.recovery
    how = (
        f"Dense: {dense.epochs} epochs at {dense.lr:g}, batches of {dense.batch}. Recovery: "
        f"{recovery.epochs} {_epochs(recovery.epochs)} at {recovery.lr:g}, batches of "
        f"{recovery.batch}."
    )
    lines = [f"### {task.title}", "", _paragraph(f"{task.words} {how}"), ""]
    lines += _sizes(runs)
    lines += [
        f"| network | {task.measure.heading} | loss | won back | epochs | seconds | seeds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    words = {"dense": "dense"} | {item.name: item.words for item in variants_of(task)}
    for name, heading in words.items():
        those = runs.get(name, {})
        if len(those) >= FEWEST_SEEDS:
            losses = summary([figures["loss"] for figures in those.values()])
            seconds = summary([figures["training_seconds"] for figures in those.values()])
            epochs = next(iter(those.values()))["epochs"]
            trained = name not in ("dense", "pruned")
            cells = [
                _cell(those, task.measure),
                f"{losses.mean:.4f}",
                _shares(won_back(task, runs, name)) if trained else "",
                f"{epochs:.0f}",
                f"{seconds.mean:.1f}" if name != "pruned" else "",
                str(len(those)),
            ]
            lines.append(f"| {heading} | {' | '.join(cells)} |")
    return lines


def _sizes(runs: Runs) -> list[str]:
    pruned = runs.get("pruned", {})
    if not pruned:
        return []
    lines = ["| | before | after | |", "|---|---:|---:|---:|"]
    names = {"parameters": "parameters", "macs": "MACs", "file_bytes": "bytes of the file"}
    for name, heading in names.items():
        before = summary([figures[f"{name}_before"] for figures in pruned.values()]).mean
        after = summary([figures[name] for figures in pruned.values()]).mean
        lines.append(
            f"| {heading} | {before:,.0f} | {after:,.0f} | {100 * (after / before - 1):+.1f} % |"
        )
    return [*lines, ""]


def _studied(tasks: Mapping[str, Task], runs: Mapping[str, Runs]) -> list[str]:
    studied = list(tasks.values())
    lines = ["| share won back | " + " | ".join(task.title for task in studied) + " |"]
    lines.append("|---|" + "---:|" * len(studied))
    for variant in (*(item for item in MAIN if item.trains), *STUDY, LONG, COOL):
        cells = [
            _shares(shares) if len(shares) >= FEWEST_SEEDS else ""
            for shares in (won_back(task, runs[task.name], variant.name) for task in studied)
        ]
        lines.append(f"| {variant.words} | {' | '.join(cells)} |")
    lines += ["", "| in pairs, points | " + " | ".join(task.title for task in studied) + " |"]
    lines.append("|---|" + "---|" * len(studied))
    for words, (a, b) in COMPARED.items():
        cells = [verdict(task, runs[task.name], a, b) for task in studied]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return lines


def _cell(runs: Mapping[int, Mapping[str, float]], measure: Measure) -> str:
    if not runs:
        return ""
    found = summary([figures[measure.name] for figures in runs.values()])
    if measure.kind == "percent":
        return f"{100 * found.mean:.1f} ± {100 * found.deviation:.1f}"
    return f"{found.mean:.2f} ± {found.deviation:.2f}"


def _shares(shares: Mapping[int, float]) -> str:
    if not shares:
        return ""
    found = summary(list(shares.values()))
    return f"{100 * found.mean:.1f} % ± {100 * found.deviation:.1f}"


def _epochs(count: int) -> str:
    return "epoch" if count == 1 else "epochs"


def _measured(records: Sequence[Record]) -> str:
    machines = sorted({record.machine for record in records})
    minutes = sum(record.figures["training_seconds"] for record in records) / 60
    return _paragraph(
        f"{len(records)} runs with {minutes:.0f} minutes of training, on "
        f"{' and on '.join(machines)}."
    )


def _paragraph(text: str) -> str:
    return fill(text, width=_WIDTH, break_long_words=False, break_on_hyphens=False)


def _anchor(title: str) -> str:
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(load()), encoding="utf-8")


if __name__ == "__main__":
    main()
