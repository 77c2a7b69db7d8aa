"""docs/coverage.md, from the committed results of the zoo.

    python -m bench.zoo.table [RESULTS ...]

Folds result files of the runners into `bench/zoo/results.jsonl`, where a case keeps only what the
page needs, and writes the page. Without arguments the page is written anew from what is there.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from bench.zoo.lists import CASES, TORCHVISION_OTHERS, Case

RESULTS = Path(__file__).with_name("results.jsonl")
PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"

Record = dict[str, Any]
Key = tuple[str, str, str]

_KEPT = (
    "collection", "name", "form", "status", "parameters_before", "parameters_after",
    "macs_before", "macs_after", "load_seconds", "seconds", "certify_seconds", "peak_bytes",
)  # fmt: skip
SPEED = (
    "our_seconds", "our_load_seconds", "our_peak_bytes", "our_growth_bytes", "peer_status",
    "peer_seconds", "peer_parameters_after", "peer_peak_bytes", "peer_growth_bytes",
    "seconds_ratio", "peak_ratio", "growth_ratio", "measured_on",
)  # fmt: skip
"""What `bench.zoo.speed` adds; it outlives a new record of the case."""
_FOLDER = re.compile(r"(?<![\w/:.])(?:/[\w.+-]+)+/(?=[\w.+-])")
_WEB_ADDRESS = re.compile(r"\s*(?:at|see)?:?\s*https?://\S+")
_FROZEN_SHOWN = 3
_LONGEST = 160
"""Characters of an error that are kept."""
_NOT_RUN = "not run"

_SECTIONS = {
    "torchvision": "torchvision, classification",
    "others": "torchvision, segmentation, video and optical flow",
    "timm": "timm, one of each family",
    "transformers": "transformers, small configurations",
}
_INTRO = """\
# Coverage

<!-- Generated from bench/zoo/results.jsonl by `python -m bench.zoo.table`. -->

Real architectures with random weights, uploaded as TorchScript and compacted without their source:
half of the channels of every layer are removed by L1 norm. A model has *passed* when

- the [certificate](concepts.md#the-certificate) holds,
- the outputs keep their shapes, at batch sizes 1 and 3 where the upload runs at both,
- the saved file computes the same in a process that has never seen it,
- the engine's interpreter and the TorchScript runtime agree on it, and
- at least 20 % of the parameters are gone.

`error` is the error of the equality the certificate stands on: with the masked-dense model (exact),
or with the restricted reference (approximate); `drift` is what pruning does to the statistics of
operators that mix channels. Seconds are those of analysis, scores, selection and compaction on one
thread. `x peer` is that time over the time of [Torch-Pruning][peer] for the same amount, where both
were measured; see [bench/README.md](../bench/README.md#speed-over-the-zoo). MACs are those of one
example: an image of 96 pixels for convolutional networks of torchvision, of the model's own size
where it is bound to one.

[peer]: https://github.com/VainF/Torch-Pruning
"""


def key(record: Mapping[str, Any]) -> Key:
    """What names a case."""
    return record["collection"], record["name"], record["form"]


def load(results: Path) -> dict[Key, Record]:
    """All records of a file by case."""
    if not results.exists():
        return {}
    records = (json.loads(line) for line in results.read_text(encoding="utf-8").splitlines())
    return {key(record): record for record in records}


def save(results: Path, records: Mapping[Key, Record]) -> None:
    """One line a case, in the order of their names."""
    lines = [json.dumps(records[item], separators=(",", ":")) for item in sorted(records)]
    results.write_text("\n".join(lines) + "\n", encoding="utf-8")


def compacted(record: Mapping[str, Any], earlier: Mapping[str, Any]) -> Record:
    """What the page needs of a record; times against the peer stay when only the case is new."""
    kept = {name: record[name] for name in _KEPT if name in record}
    kept |= {name: earlier[name] for name in SPEED if name in earlier}
    if record.get("certificate"):
        names = ("kind", "max_relative_error", "restricted_error")
        kept["certificate"] = {name: record["certificate"][name] for name in names}
    if "error" in record:
        kept["error"] = last_line(record["error"])
    if record["status"] != "passed" and "frozen" in record:
        largest = sorted(record["frozen"], key=lambda item: -item["channels"])
        kept["frozen"] = largest[:_FROZEN_SHOWN]
    rounded: Record = _rounded(kept)
    return rounded


def about_the_model(record: Mapping[str, Any]) -> bool:
    """False where the case never started because a module was missing: that is the run's fault."""
    error = last_line(record.get("error", ""))
    missing = error.startswith(("ModuleNotFoundError", "ImportError"))
    return not (record["status"] == "crashed" and missing)


def last_line(message: str) -> str:
    """What an error says in the end, without folders and not at length."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text = _WEB_ADDRESS.sub("", _FOLDER.sub("", lines[-1])) if lines else ""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.3g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return value


def section_of(case: Case) -> str:
    """The part of the page a case belongs to."""
    if case.collection == "torchvision" and case.name in TORCHVISION_OTHERS:
        return "others"
    return case.collection


def page(records: Mapping[Key, Record]) -> str:
    """The whole page as Markdown."""
    sections: dict[str, list[Record]] = {name: [] for name in _SECTIONS}
    for case in CASES:
        own: Record = {"collection": case.collection, "name": case.name, "form": case.form}
        found = records.get(key(own), own)
        sections[section_of(case)].append({"status": _NOT_RUN} | found)
    parts = [_INTRO, "## Totals", "", *_totals(sections), "", *_speed(sections), ""]
    for name, title in _SECTIONS.items():
        parts += [f"## {title}", "", *_section(sections[name]), ""]
    return "\n".join(parts).rstrip() + "\n"


def _totals(sections: Mapping[str, list[Record]]) -> list[str]:
    rows = [
        "| collection | form | passed | not passed | no such upload | not run |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, records in sections.items():
        for form in ("traced", "scripted"):
            counts = Counter(item["status"] for item in records if item["form"] == form)
            if not counts:
                continue
            absent, waiting = counts["no upload"], counts[_NOT_RUN]
            possible = counts.total() - absent
            failed = possible - counts["passed"] - waiting
            rows.append(
                f"| {_SECTIONS[name]} | {form} | **{counts['passed']} of {possible}** "
                f"| {failed or ''} | {absent or ''} | {waiting or ''} |"
            )
    return [
        *rows,
        "",
        "*No such upload*: the library itself cannot build or export the model in that form.",
    ]


def _speed(sections: Mapping[str, list[Record]]) -> list[str]:
    measured = [item for records in sections.values() for item in records if "our_seconds" in item]
    if not measured:
        return []
    lines = ["## Against the peer", ""]
    ratios = [item["seconds_ratio"] for item in measured if "seconds_ratio" in item]
    lines.append(
        f"Measured on {len(measured)} models; the peer prunes {len(ratios)} of them. Where it does "
        "not, the table says why."
    )
    if ratios:
        worst = max(measured, key=lambda item: item.get("seconds_ratio", 0))
        lines[-1] += (
            f" Over those {len(ratios)}, the median of our time over the peer's is "
            f"**{median(ratios):.2f}**, the largest {worst['seconds_ratio']:.2f} "
            f"({worst['name']})."
        )
    peaks = [item["peak_ratio"] for item in measured if "peak_ratio" in item]
    if peaks:
        lines[-1] += f" Peak memory: median {median(peaks):.2f}, largest {max(peaks):.2f}."
    longest = max(measured, key=lambda item: item["our_seconds"])
    lines[-1] += f" Our longest time is {longest['our_seconds']:.1f} s ({longest['name']})."
    machines = sorted({item["measured_on"] for item in measured if "measured_on" in item})
    return [*lines, "", *(f"- {machine}" for machine in machines)]


def _section(records: Iterable[Record]) -> list[str]:
    ordered = sorted(records, key=lambda item: (item["name"], item["form"] != "traced"))
    shown = [item for item in ordered if item["status"] not in {"no upload", _NOT_RUN}]
    lines = [
        "| model | form | status | parameters | MACs | s | x peer | certificate | error | drift |",
        "|---|---|---|---:|---:|---:|---:|---|---:|---:|",
        *map(_row, shown),
    ]
    failing = [item for item in ordered if item["status"] not in {"passed", _NOT_RUN}]
    if failing:
        lines += ["", "Not passed:", "", *map(_reason, failing)]
    waiting = [f"{item['name']} ({item['form']})" for item in ordered if item["status"] == _NOT_RUN]
    if waiting:
        lines += ["", f"Not run: {', '.join(waiting)}."]
    return lines


def _row(record: Record) -> str:
    certificate = record.get("certificate") or {}
    mixed = certificate.get("kind") == "approximate"
    error = certificate.get("restricted_error" if mixed else "max_relative_error")
    drift = certificate.get("max_relative_error") if mixed else None
    seconds = record.get("our_seconds", record.get("seconds"))
    cells = [
        record["name"],
        record["form"],
        record["status"],
        _change(record, "parameters"),
        _change(record, "macs"),
        "" if seconds is None else f"{seconds:.2f}",
        _against_peer(record),
        certificate.get("kind", ""),
        "" if error is None else f"{error:.0e}",
        "" if drift is None else f"{drift:.2g}",
    ]
    return f"| {' | '.join(cells)} |"


def _against_peer(record: Record) -> str:
    if "seconds_ratio" in record:
        return f"{record['seconds_ratio']:.2f}"
    return f"peer {record['peer_status']}" if "peer_status" in record else ""


def _change(record: Record, name: str) -> str:
    if f"{name}_after" not in record:
        return ""
    before, after = record[f"{name}_before"], record[f"{name}_after"]
    lost = f" (-{1 - after / before:.0%})" if before else ""
    return f"{_short(before)} → {_short(after)}{lost}"


def _short(count: int) -> str:
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.3g} {letter}"
    return str(count)


def _reason(record: Record) -> str:
    text = f"- {record['name']}, {record['form']}: {record['status']}"
    if "error" in record:
        return f"{text}. {record['error']}"
    frozen = [
        f"{item['layer']} ({item['op']}, {item['channels']} channels): {item['reason']}"
        for item in record.get("frozen", [])
    ]
    return f"{text}. Frozen above all: {'; '.join(frozen)}" if frozen else f"{text}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="*", type=Path, help="result files to fold in, in order")
    records = load(RESULTS)
    for file in parser.parse_args().results:
        for case, record in load(file).items():
            if about_the_model(record):
                records[case] = compacted(record, records.get(case, {}))
            else:
                print(f"left out, to be run again: {'/'.join(case)}: {last_line(record['error'])}")
    known = {(case.collection, case.name, case.form) for case in CASES}
    save(RESULTS, {case: record for case, record in records.items() if case in known})
    text = page(records)
    PAGE.write_text(text, encoding="utf-8")
    print(text.partition("## Totals")[2].partition("\n## torchvision")[0].strip())


if __name__ == "__main__":
    main()
