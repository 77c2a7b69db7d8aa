"""docs/accuracy.md, from the committed records.

    python -m bench.accuracy.table

The page is a function of `bench/accuracy/results.jsonl` alone. The candidate of each side is chosen
for every network and target by the mean loss on the validation parts of the first seeds, the
pilots; what is reported is its accuracy on the test parts of the other seeds.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student

from bench.accuracy.matching import TOLERANCE

RESULTS = Path(__file__).with_name("results.jsonl")
PAGE = Path(__file__).parents[2] / "docs" / "accuracy.md"
PILOTS = 1
"""The first seeds: candidates are chosen on them, and nothing of them is reported."""

Record = dict[str, Any]
Key = tuple[str, int, float, str, str]
Case = tuple[str, float, str]
"""Network, share of the MACs that is kept, side."""
Chosen = dict[Case, str]

_INTRO = """\
# Accuracy against Torch-Pruning

<!-- Generated from bench/accuracy/results.jsonl by `python -m bench.accuracy.table`. -->

Both sides prune copies of the same trained networks (a small VGG, ResNet, MobileNet and ViT) to
the same MACs, as one counter counts them, and fine-tune the result by the same loop: the same few
epochs ({epochs}), optimiser, learning rates and order of batches. The data are scikit-learn's
digits, 1,797 real scans, enlarged to 32 x 32 pixels and split anew for every seed into 1,150 for
training, 287 for validation and 360 for test.

Either side has {tries} candidates, a criterion and a scope each, `random` among them: the peer its
criteria with their default settings, ours a list drawn up after looking at the pilot seed
([bench/README.md](../bench/README.md#accuracy) says what was found there). For every network and
target the candidate is chosen by the mean loss on the validation part of {pilots} pilot seed(s).
Figures are accuracies on the test parts of other seeds, where only the chosen one ran: mean ±
standard deviation, in percent. `difference` is ours minus the peer's in points, seed by seed, with
the half width of its 95 % interval (Student's t). `MACs` is the ratio of what both kept.

The targets: at least equal in the mean with half of the MACs, better with a quarter.
"""


def key(record: Mapping[str, Any]) -> Key:
    """What names a run."""
    return (
        record["network"],
        record["seed"],
        record["keep"],
        record["side"],
        record["candidate"],
    )


def case_of(record: Mapping[str, Any]) -> Case:
    """What a candidate is chosen for."""
    return record["network"], record["keep"], record["side"]


def load(results: Path) -> dict[Key, Record]:
    """All records of a file by run, the last one of each."""
    if not results.exists():
        return {}
    records = (json.loads(line) for line in results.read_text(encoding="utf-8").splitlines())
    return {key(record): record for record in records}


def choose(records: Iterable[Record], pilots: Collection[int]) -> Chosen:
    """For every case the candidate of the least mean validation loss over the pilot seeds.

    One that was refused, or missed the target by more than the tolerance in the mean, is none.
    """
    runs: dict[Case, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record["seed"] in pilots:
            runs[case_of(record)][record["candidate"]].append(record)
    chosen = {}
    for case, candidates in runs.items():
        losses = {
            name: mean(run["validation_loss"] for run in found)
            for name, found in candidates.items()
            if len(found) == len(pilots) and _matched(found)
        }
        if losses:
            chosen[case] = min(losses, key=lambda name: losses[name])
    return chosen


def _matched(runs: list[Record]) -> bool:
    if any("refused" in run for run in runs):
        return False
    return abs(kept(runs) / runs[0]["keep"] - 1) <= TOLERANCE


def kept(runs: Iterable[Record]) -> float:
    """The mean share of the MACs that is left."""
    return mean(run["macs_after"] / run["macs_before"] for run in runs)


def page(records: Mapping[Key, Record]) -> str:
    """The whole page."""
    pilots = range(PILOTS)
    chosen = choose(records.values(), pilots)
    reported: dict[Case, dict[int, Record]] = defaultdict(dict)
    for record in records.values():
        if record["seed"] not in pilots and chosen.get(case_of(record)) == record["candidate"]:
            reported[case_of(record)][record["seed"]] = record
    everything = list(records.values())
    intro = _INTRO.format(
        epochs=" or ".join(sorted({str(item["epochs"]) for item in everything})),
        tries=" or ".join(sorted({str(count) for count in _tries(everything).values()})),
        pilots=len(pilots),
    )
    lines = [intro, *_results(reported, chosen), "", *_pilots(everything, chosen)]
    machines = sorted({item["measured_on"] for item in everything})
    lines += ["", f"{len(everything)} runs, on {' and on '.join(machines)}."]
    return "\n".join(lines) + "\n"


def _tries(records: Iterable[Record]) -> dict[str, int]:
    names: dict[str, set[str]] = defaultdict(set)
    for record in records:
        names[record["side"]].add(record["candidate"])
    return {side: len(found) for side, found in names.items()}


def _results(reported: Mapping[Case, Mapping[int, Record]], chosen: Chosen) -> list[str]:
    lines = [
        "## Results",
        "",
        "| kept | network | dense | ours | Torch-Pruning | difference | MACs | seeds |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    totals: dict[float, list[list[float]]] = defaultdict(list)
    for network, keep in _cases(chosen):
        ours, peer = reported[network, keep, "ours"], reported[network, keep, "peer"]
        seeds = sorted(ours.keys() & peer.keys())
        if not seeds:
            continue
        differences = [ours[seed]["test"] - peer[seed]["test"] for seed in seeds]
        totals[keep].append(differences)
        mine, theirs = [ours[seed] for seed in seeds], [peer[seed] for seed in seeds]
        ratio = kept(mine) / kept(theirs)
        lines.append(
            f"| {keep:.0%} | {network} | {_spread([run['dense'] for run in mine])} "
            f"| {_spread([run['test'] for run in mine])}<br>{chosen[network, keep, 'ours']} "
            f"| {_spread([run['test'] for run in theirs])}<br>{chosen[network, keep, 'peer']} "
            f"| {_interval(differences)} | {ratio:.3f} | {len(seeds)} |"
        )
    for keep, found in sorted(totals.items(), reverse=True):
        each = [value for differences in found for value in differences]
        lines.append(f"| **{keep:.0%}** | **all** | | | | **{_interval(each)}** | | {len(each)} |")
    return [*lines, "", *_verdicts(totals)]


def _verdicts(totals: Mapping[float, list[list[float]]]) -> list[str]:
    lines = []
    for keep, found in sorted(totals.items(), reverse=True):
        means = [mean(differences) for differences in found]
        wanted, met = (
            ("better", mean(means) > 0) if keep < 0.5 else ("at least equal", mean(means) >= 0)
        )
        above = sum(value > 0 for value in means)
        lines.append(
            f"- With {keep:.0%} of the MACs the target is {wanted}, in the mean over all networks: "
            f"{'met' if met else '**not met**'} ({100 * mean(means):+.2f} points; above the peer "
            f"on {above} of {len(means)} networks)."
        )
    return lines


def _pilots(records: list[Record], chosen: Chosen) -> list[str]:
    """What the candidates did on the pilot seeds."""
    lines = [
        "## Candidates",
        "",
        "Mean validation loss (in nats) and accuracy over the pilot seeds after fine-tuning; the "
        "chosen one in bold.",
        "",
    ]
    cases = list(_cases(chosen))
    for side, title in (("ours", "ours"), ("peer", "Torch-Pruning")):
        lines.append(
            f"| {title} | " + " | ".join(f"{name}, {keep:.0%}" for name, keep in cases) + " |"
        )
        lines.append("|---|" + "---:|" * len(cases))
        names = dict.fromkeys(item["candidate"] for item in records if item["side"] == side)
        for candidate in names:
            cells = []
            for name, keep in cases:
                runs = [
                    item
                    for item in records
                    if case_of(item) == (name, keep, side)
                    and item["candidate"] == candidate
                    and item["seed"] < PILOTS
                ]
                cells.append(_cell(runs, bold=chosen.get((name, keep, side)) == candidate))
            lines.append(f"| {candidate} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines[:-1]


def _cell(runs: list[Record], *, bold: bool) -> str:
    if not runs:
        return ""
    if any("refused" in run for run in runs):
        return "does not apply"
    loss, accuracy = (mean(run[name] for run in runs) for name in ("validation_loss", "validation"))
    words = f"{loss:.3f} ({100 * accuracy:.1f} %)"
    if not _matched(runs):
        return f"{words}, MACs missed: {kept(runs):.1%}"
    return f"**{words}**" if bold else words


def _cases(chosen: Chosen) -> list[tuple[str, float]]:
    """Networks and targets, the milder target first."""
    return sorted({(name, keep) for name, keep, _ in chosen}, key=lambda case: (-case[1], case[0]))


def _spread(values: list[float]) -> str:
    deviation = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.2f}{deviation}"


def _interval(values: list[float]) -> str:
    if len(values) < 2:
        return f"{100 * mean(values):+.2f}"
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / sqrt(len(values))
    return f"{100 * mean(values):+.2f} ± {100 * half:.2f}"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(load(RESULTS)), encoding="utf-8")


if __name__ == "__main__":
    main()
