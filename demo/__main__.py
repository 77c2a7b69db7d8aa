"""`make demo`: train, upload, compress, download, compare. See `docs/quickstart.md`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from rich.table import Table
from safetensors.torch import save_file
from secateur.cli.console import out as console
from secateur.cli.console import print_error
from secateur.cli.progress import ProgressDisplay
from secateur.cli.tables import before_after, certificate_line, change
from secateur.client import Secateur
from secateur.errors import SecateurError
from secateur.recipe_file import read_recipe
from secateur.report import Report
from secateur.resources import Job
from secateur.results import save_results

from demo.digits import Split, load_splits
from demo.lenet import THREADS, train
from demo.server import embedded_server

FOLDER = Path("build/demo")
RECIPE = Path(__file__).with_name("recipe.yaml")
VERIFY = Path(__file__).with_name("verify.py")
LEAST_SAVED = 0.60
LARGEST_DROP = 0.01


def main() -> int:
    """Run the demonstration; 0 only if every figure is reached."""
    started = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    try:
        report = _compress(load_splits())
    except SecateurError as error:
        print_error(error)
        return 1
    console.print(before_after(report))
    console.print(certificate_line(report))
    reached = _figures(report)
    console.print(f"took {time.monotonic() - started:.0f} s; see {FOLDER / 'report.html'}")
    return 0 if reached else 1


def _compress(splits: dict[str, Split]) -> Report:
    with ProgressDisplay(console) as display:
        display.start("training LeNet-5 on 32x32 digits")
        model = train(splits["train"], lambda done, of: display.advance(done, of, f"epoch {done}"))
        torch.jit.script(model).save(str(FOLDER / "original.pt"))
        torch.save(vars(splits["test"]), FOLDER / "test.pt")
        save_file(
            {
                f"{name}/{part}/0": tensor
                for name in ("train", "validation")
                for part, tensor in (
                    ("inputs", splits[name].images),
                    ("targets", splits[name].digits),
                )
            },
            FOLDER / "digits.safetensors",
        )
        display.done(f"trained LeNet-5 on {len(splits['train'].digits)} digits: original.pt")

        display.start("starting the service in embedded mode")
        with (
            embedded_server(FOLDER / "server", SECATEUR_RUNNER_THREADS=str(THREADS)) as endpoint,
            Secateur(endpoint.url, endpoint.api_key) as client,
        ):
            display.done(f"service ready at {endpoint.url}")
            job = _run_job(client, display)
            if job.status != "succeeded":
                title = job.error.title if job.error else "no reason was given"
                raise SecateurError(
                    f"job {job.id} {job.status}: {title}",
                    hint=f"{job.error.hint if job.error else ''}\n{client.logs(job)[-2000:]}",
                )
            save_results(client, job, FOLDER)
            display.done(f"downloaded the results to {FOLDER}")
    return Report.model_validate_json((FOLDER / "report.json").read_bytes())


def _run_job(client: Secateur, display: ProgressDisplay) -> Job:
    display.start("uploading original.pt")
    model = client.upload_model(FOLDER / "original.pt", progress=display.bytes)
    display.done(f"uploaded original.pt as {model.id}")
    display.start("uploading digits.safetensors")
    dataset = client.upload_dataset(FOLDER / "digits.safetensors", progress=display.bytes)
    display.done(f"uploaded digits.safetensors as {dataset.id}")
    job = client.create_job(model, read_recipe(RECIPE).recipe, dataset=dataset, name="demo")
    display.done(f"created {job.id}")
    return client.wait(job, on_event=display.on_event)


def _in_fresh_process(model: str) -> tuple[int, int]:
    """Correct answers and samples of the test split, by an interpreter that knows only torch."""
    done = subprocess.run(
        [sys.executable, "-I", str(VERIFY), str(FOLDER / model), str(FOLDER / "test.pt")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SecateurError(f"{model} does not load in a fresh process", hint=done.stderr)
    correct, total = done.stdout.split()
    return int(correct), int(total)


def _figures(report: Report) -> bool:
    before, after = report.before, report.after
    original, compact = _in_fresh_process("original.pt"), _in_fresh_process("compact.pt")
    console.print(
        f"test split, never uploaded, in fresh processes with torch alone: "
        f"original {original[0]}/{original[1]}, compact {compact[0]}/{compact[1]}"
    )
    drop = None
    if before.accuracy is not None and after.accuracy is not None:
        drop = before.accuracy.top1 - after.accuracy.top1
    least = f"-{LEAST_SAVED:.0%} or more"
    rows = [
        ("MACs", least, change(before.macs, after.macs),
         after.macs <= (1 - LEAST_SAVED) * before.macs),
        ("file bytes", least, change(before.file_bytes, after.file_bytes),
         after.file_bytes <= (1 - LEAST_SAVED) * before.file_bytes),
        ("validation top-1", f"within {100 * LARGEST_DROP:.0f} point",
         "not measured" if drop is None else f"{-100 * drop:+.2f} points",
         drop is not None and drop <= LARGEST_DROP),
        ("certificate", "passed", "passed" if report.certificate.passed else "failed",
         report.certificate.passed),
    ]  # fmt: skip
    table = Table("figure", "to reach", "reached", "", title="Figures", title_justify="left")
    for name, wanted, got, ok in rows:
        table.add_row(name, wanted, got, "[green]yes[/]" if ok else "[bold red]MISSED[/]")
    console.print(table)
    return all(ok for *_, ok in rows)


if __name__ == "__main__":
    sys.exit(main())
