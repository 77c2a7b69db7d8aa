"""Runs the zoo, one process a case, and keeps the results.

    python -m bench.zoo [--collection torchvision|timm|transformers] [--form traced|scripted]
                        [--only PATTERN] [--jobs 1] [--results build/zoo.jsonl]

Each result replaces an earlier one of the same case; `python -m bench.zoo.table` makes the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from bench.zoo.lists import CASES, Case

_SECONDS = 900


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--collection")
    parser.add_argument("--form", choices=["traced", "scripted"])
    parser.add_argument("--only", default="*")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("build/zoo.jsonl"))
    arguments = parser.parse_args()
    chosen = [
        case
        for case in CASES
        if arguments.collection in (None, case.collection)
        and arguments.form in (None, case.form)
        and fnmatch(case.name, arguments.only)
    ]
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for record in pool.map(run_case, chosen):
            keep(arguments.results, record)
            print(line_of(record), flush=True)


def run_case(case: Case) -> dict[str, Any]:
    """The record of one case."""
    command = [sys.executable, "-m", "bench.zoo.case", case.collection, case.name, case.form]
    record: dict[str, Any] = {"collection": case.collection, "name": case.name, "form": case.form}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return {**record, "status": "hung", "error": f"no answer in {_SECONDS} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        return {**record, "status": "crashed", "error": done.stderr.strip()[-2000:]}
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def load(results: Path) -> list[dict[str, Any]]:
    """All records."""
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines()]


def keep(results: Path, record: dict[str, Any]) -> None:
    """Add a record in the place of an earlier one of the same case."""

    def key(item: dict[str, Any]) -> tuple[str, str, str]:
        return item["collection"], item["name"], item["form"]

    others = [item for item in load(results) if key(item) != key(record)]
    lines = [json.dumps(item) for item in [*others, record]]
    results.write_text("\n".join(lines) + "\n")


def line_of(record: dict[str, Any]) -> str:
    """What the run prints for a case."""
    head = f"{record['name']:36s} {record['form']:9s} {record['status']:24s}"
    if "parameters_after" not in record:
        return f"{head} {record.get('error', '')}"
    lost = 1 - record["parameters_after"] / record["parameters_before"]
    certificate = record["certificate"]
    return (
        f"{head} -{lost:6.1%} {record['seconds']:6.2f} s  {certificate['kind']:11s} "
        f"{certificate['max_relative_error']:.1e} {certificate['restricted_error'] or 0:.1e}"
    )


if __name__ == "__main__":
    main()
