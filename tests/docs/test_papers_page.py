"""docs/papers.md says what the committed records of the claims say."""

from __future__ import annotations

from collections.abc import Sequence

from bench.papers import table
from bench.papers.claim import Claim, Column, Finding, above, no_worse
from bench.papers.claims import claims
from bench.papers.records import Record, load

RECORDS = load()
A = [0.90, 0.92, 0.94, 0.96, 0.98]


def _judge(records: Sequence[Record]) -> list[Finding]:
    return [above(records, "a", "b", "A above B"), no_worse(records, "b", "a", "B no worse")]


def _claim() -> Claim:
    return Claim(
        name="c",
        title="A claim, at last!",
        source="Nobody 2000",
        statement="A is above B.",
        setting="As it is.",
        variants={"a": "variant A", "b": "variant B"},
        columns={"accuracy": Column("result"), "ratio": Column("fewer", "ratio")},
        run=lambda variant, seed, scale: {variant: seed, "epochs": scale.epochs(1)},
        judge=_judge,
        remark="So it is.",
    )


def _records(b: Sequence[float]) -> list[Record]:
    found = [
        Record("c", "a", s, {"accuracy": v, "ratio": 12.04}, 30.0, "m") for s, v in enumerate(A)
    ]
    return found + [Record("c", "b", s, {"accuracy": v}, 30.0, "m") for s, v in enumerate(b)]


def test_page_is_what_the_generator_writes() -> None:
    assert table.PAGE.read_text(encoding="utf-8") == table.page(claims(), RECORDS), (
        "run `python -m bench.papers.table`"
    )


def test_every_record_belongs_to_a_claim() -> None:
    known = claims()
    assert all(record.variant in known[record.claim].variants for record in RECORDS)


def test_a_page_of_records_by_hand() -> None:
    page = table.page({"c": _claim()}, _records([0.90, 0.91, 0.92, 0.93, 0.94]))
    # 90 .. 98: mean 94, deviation sqrt(40 / 4) = 3.162; 90 .. 94: 92 and sqrt(10 / 4) = 1.581.
    assert "| variant A | 94.00 ± 3.16 | 12.0 x | 5 |" in page
    assert "| variant B | 92.00 ± 1.58 |  | 5 |" in page
    # Differences 0 .. 4 points: 2 - 2.1318 * 1.5811 / sqrt(5) = 0.4926.
    above_b = "+2.00 points, with 95 % confidence above +0.49 (5 seeds)"
    assert f"| A above B | yes | {above_b} |" in page
    assert "| B no worse | **no** | -2.00 points" in page
    link = "[A claim, at last!](#a-claim-at-last)"
    assert f"| {link} | Nobody 2000 | reproduces in part: 1 of 2 statements |" in page
    assert "10 runs, 5 minutes in all, on m." in page


def test_outcomes() -> None:
    same = table.page({"c": _claim()}, _records(A))
    assert "| Nobody 2000 | reproduces in part: 1 of 2 statements |" in same
    assert table.outcome([Finding("x", True, ""), Finding("y", True, "")]) == "reproduces"
    none = table.outcome([Finding("x", False, "")])
    assert none == "does not reproduce at this scale"


def test_nothing_is_said_with_too_few_seeds() -> None:
    page = table.page({"c": _claim()}, _records([0.9, 0.9, 0.9, 0.9]))
    assert "| Nobody 2000 | not run with 5 seeds yet |" in page
    assert "A above B" not in page
