"""docs/coverage.md says what the committed results of the zoo say."""

from __future__ import annotations

import pytest

from bench.zoo import table

RECORDS = table.load(table.RESULTS)


def test_page_is_what_the_generator_writes() -> None:
    assert table.PAGE.read_text(encoding="utf-8") == table.page(RECORDS), (
        "run `python -m bench.zoo.table`"
    )


def test_every_result_is_shown_with_its_figures() -> None:
    lines = table.PAGE.read_text(encoding="utf-8").splitlines()
    for record in RECORDS.values():
        if record["status"] == "passed":
            start = f"| {record['name']} | {record['form']} | passed | "
            assert sum(line.startswith(start) for line in lines) == 1


@pytest.mark.parametrize("status", ["refused", "crashed", "only 3.0% of the parameters"])
def test_a_model_that_does_not_pass_is_listed_with_its_reason(status: str) -> None:
    record = {"collection": "torchvision", "name": "alexnet", "form": "traced", "status": status}
    frozen = [
        {"layer": f"layer{number}", "op": "aten::what", "reason": "no rule", "channels": number}
        for number in range(1, 9)
    ]
    detail = {"frozen": frozen} if status.startswith("only") else {"error": "first\n/a/b/c.py: why"}
    kept = table.compacted(record | detail, {})
    page = table.page({table.key(record): kept})
    entry = next(line for line in page.splitlines() if line.startswith("- alexnet, traced: "))
    reason = "layer8 (aten::what, 8 channels): no rule" if "frozen" in detail else "c.py: why"
    assert status in entry
    assert reason in entry
    assert "layer1 " not in entry
    assert "/a/b" not in entry
    assert "| torchvision, classification | traced | **0 of 75** | 1 |" in page


def test_figures_against_the_peer_outlive_a_new_run_of_the_case() -> None:
    record = {"collection": "timm", "name": "csatv2", "form": "traced", "status": "passed"}
    kept = table.compacted(record, {**record, "status": "crashed", "seconds_ratio": 0.5})
    assert kept == {**record, "seconds_ratio": 0.5}


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        ("Traceback\nModuleNotFoundError: No module named 'timm'", False),
        ("Traceback\nImportError: cannot import name 'x'", False),
        ("Traceback\nRuntimeError: ImportError", True),
    ],
)
def test_a_case_that_never_started_is_no_result_of_the_model(error: str, kept: bool) -> None:
    assert table.about_the_model({"status": "crashed", "error": error}) is kept
    assert table.about_the_model({"status": "no upload", "error": error})
