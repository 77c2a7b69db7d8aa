"""docs/papers.md, from the committed records.

    python -m bench.papers.table

The page is a function of `bench/papers/results.jsonl` and the claims' words alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill

from bench.papers.claim import Claim, Column, Finding
from bench.papers.claims import claims
from bench.papers.records import Record, load, of_claim
from bench.papers.statistics import summary

PAGE = Path(__file__).parents[2] / "docs" / "papers.md"
FEWEST_SEEDS = 5
"""With fewer nothing is said about a claim."""
_WIDTH = 120

_INTRO = """\
# Claims of papers

<!-- Generated from bench/papers/results.jsonl by `python -m bench.papers.table`. -->

What papers say about pruning, tried with the engine of this product on scikit-learn's digits: 1,797
scans of 8x8 pixels, 1,078 of them to train on, 179 to choose the settings of this benchmark on, and
540 to measure on, which no training and no choice has seen. Networks and data are far smaller than
those of the papers: what does not reproduce here may well hold there. Each figure is the mean over
seeds ± the standard deviation; accuracies are of the test part, in percent.

**The rule.** Variants are compared seed by seed. *Above*: the mean difference is above 0 with 95 %
confidence (one-sided paired t test). *No worse*: it is above -1 point with 95 % confidence. A
claim *reproduces* when all its statements hold, *reproduces in part* when some do, and *does not
reproduce at this scale* when none does.

`make papers` runs everything, `python -m bench.papers --only NAME` one claim; see
[bench/README.md](../bench/README.md#claims-of-papers).
"""


def page(known: Mapping[str, Claim], records: Iterable[Record]) -> str:
    """The whole page."""
    kept = list(records)
    judged = {name: _judged(claim, of_claim(kept, name)) for name, claim in known.items()}
    lines = [_INTRO, "| claim | paper | outcome |", "|---|---|---|"]
    for name, claim in known.items():
        link = f"[{claim.title}](#{_anchor(claim.title)})"
        lines.append(f"| {link} | {claim.source} | {outcome(judged[name])} |")
    lines.append("")
    for name, claim in known.items():
        lines += _section(claim, of_claim(kept, name), judged[name])
    return "\n".join(lines).rstrip() + "\n"


def outcome(findings: Sequence[Finding] | None) -> str:
    """The verdict on a claim; None where it was not run with enough seeds."""
    if findings is None:
        return f"not run with {FEWEST_SEEDS} seeds yet"
    holding = sum(finding.holds for finding in findings)
    if holding == len(findings):
        return "reproduces"
    if holding == 0:
        return "does not reproduce at this scale"
    return f"reproduces in part: {holding} of {len(findings)} statements"


def _judged(claim: Claim, records: Sequence[Record]) -> list[Finding] | None:
    seeds = Counter(record.variant for record in records)
    if any(seeds[variant] < FEWEST_SEEDS for variant in claim.variants):
        return None
    return claim.judge(records)


def _section(
    claim: Claim, records: Sequence[Record], findings: Sequence[Finding] | None
) -> list[str]:
    lines = [f"## {claim.title}", ""]
    for text in (f"{claim.source}. {claim.statement}", claim.setting):
        lines += [_paragraph(text), ""]
    lines += _figures(claim, records)
    lines += ["", f"**{outcome(findings).capitalize()}.**", ""]
    if findings is not None:
        lines += ["| statement | holds | by |", "|---|---|---|"]
        for finding in findings:
            holds = "yes" if finding.holds else "**no**"
            lines.append(f"| {finding.statement} | {holds} | {finding.numbers} |")
        lines.append("")
    if claim.remark:
        lines += [_paragraph(claim.remark), ""]
    if records:
        lines += [_measured(records), ""]
    return lines


def _paragraph(text: str) -> str:
    return fill(text, width=_WIDTH, break_long_words=False, break_on_hyphens=False)


def _figures(claim: Claim, records: Sequence[Record]) -> list[str]:
    headings = [column.heading for column in claim.columns.values()]
    lines = ["| variant | " + " | ".join(headings) + " | seeds |"]
    lines.append("|---|" + "---:|" * (len(headings) + 1))
    for variant, words in claim.variants.items():
        those = [record for record in records if record.variant == variant]
        if those:
            cells = [_cell(those, name, column) for name, column in claim.columns.items()]
            lines.append(f"| {words} | " + " | ".join(cells) + f" | {len(those)} |")
    return lines


def _cell(records: Sequence[Record], name: str, column: Column) -> str:
    values = [record.figures[name] for record in records if name in record.figures]
    if not values:
        return ""
    found = summary(values)
    if column.kind == "percent":
        return f"{100 * found.mean:.2f} ± {100 * found.deviation:.2f}"
    digits, unit = (1, " x") if column.kind == "ratio" else (0, "")
    spread = f" ± {found.deviation:,.{digits}f}" if round(found.deviation, digits) else ""
    return f"{found.mean:,.{digits}f}{spread}{unit}"


def _measured(records: Sequence[Record]) -> str:
    machines = sorted({record.machine for record in records})
    minutes = sum(record.seconds for record in records) / 60
    return f"{len(records)} runs, {minutes:.0f} minutes in all, on {' and on '.join(machines)}."


def _anchor(title: str) -> str:
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(claims(), load()), encoding="utf-8")


if __name__ == "__main__":
    main()
