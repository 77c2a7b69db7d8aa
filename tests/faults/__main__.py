"""`python -m tests.faults [--seed N] [--only NAME] [--record FILE]`: every campaign, a record of
each as it ends, and a table. An installation that failed leaves its logs under the folder named."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tests.faults.campaign import Outcome, run
from tests.faults.campaigns import CAMPAIGNS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--only", default="", help="campaigns whose name holds this")
    parser.add_argument("--record", type=Path, default=Path("build/faults.json"))
    arguments = parser.parse_args()
    parent = Path(tempfile.mkdtemp(prefix="secateur-faults-"))
    print(f"seed {arguments.seed}; folders in {parent}", flush=True)
    outcomes: list[Outcome] = []
    failed: dict[str, str] = {}
    for number, campaign in enumerate(CAMPAIGNS):
        if arguments.only not in campaign.name:
            continue
        print(f"{campaign.name} ...", flush=True)
        try:
            outcomes.append(run(campaign, parent / str(number), arguments.seed))
            print(f"  {outcomes[-1]}", flush=True)
        except Exception as error:
            traceback.print_exc()
            failed[campaign.name] = f"{type(error).__name__}: {error}"
        _write(arguments.record, arguments.seed, outcomes, failed)
    if not failed:
        parent.rmdir()
    print("\n".join(table(outcomes)))
    for name, reason in failed.items():
        print(f"FAILED {name}: {reason}")
    return 1 if failed or not outcomes else 0


def table(outcomes: list[Outcome]) -> list[str]:
    """Counts of all campaigns as a Markdown table."""
    faults: Counter[str] = Counter()
    for outcome in outcomes:
        faults.update(outcome.done)
    lines = ["| Campaign | Faults | Jobs | Attempts more | Seconds |", "|---|---|---|---|---|"]
    lines += [
        f"| {one.name} | {sum(one.done.values())} | {one.jobs} | {one.resumed} | {one.seconds:g} |"
        for one in outcomes
    ]
    lines += ["", "| Fault | Times |", "|---|---|"]
    return lines + [f"| {name} | {times} |" for name, times in sorted(faults.items())]


def _write(path: Path, seed: int, outcomes: list[Outcome], failed: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"seed": seed, "campaigns": [asdict(one) for one in outcomes], "failed": failed}
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
