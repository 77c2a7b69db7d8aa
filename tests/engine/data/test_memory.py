"""A dataset far larger than the memory it is read with."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from engine.data.opening import open_dataset
from tests.engine.data.files import sparse_safetensors

READ = """
import sys, torch
from pathlib import Path
from engine.data.batches import batches
from engine.data.opening import open_dataset

split = open_dataset(Path(sys.argv[1]), ["x"], scratch=Path(sys.argv[2])).train
next(batches(split, 64, device="cpu"))
# Pages of a mapped file count as the process's while there is room: only what it owns is bounded.
def owned():
    text = Path("/proc/self/status").read_text()
    return int(text.partition("RssAnon:")[2].split()[0]) // 1024
before, peak, total = owned(), 0, 0
for batch in batches(split, 64, device="cpu", order=torch.arange(split.samples)):
    total += int(batch.targets.sum())
    peak = max(peak, owned())
print(peak - before, total)
"""
ROW = 64 * 64


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from engine.data.opening import open_dataset

resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))
for path in sys.argv[1:]:
    split = open_dataset(Path(path), ["x"]).train
    (rows,), _, _ = split.rows(torch.tensor([split.samples - 1, 0]))
    print(split.samples, int(rows.sum()))
"""


def test_a_process_of_limited_memory_reads_files_larger_than_that(tmp_path):
    plain = sparse_safetensors(tmp_path / "data.safetensors", samples=2**15, row=2**14)
    numbers = read_apart(plain, program=LIMITED)
    assert numbers == [2**15, 0]


def read_apart(*paths, program=READ):
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(number) for number in done.stdout.split()]


@pytest.mark.exhaustive
@pytest.mark.parametrize("compressed", [False, True])
def test_four_hundred_megabytes_are_read_with_a_few(tmp_path, compressed):
    samples = 400 * 2**20 // (4 * ROW)
    arrays = {
        "train/inputs/0": np.ones((samples, ROW), np.float32),
        "train/targets/0": np.ones(samples, np.int64),
    }
    path = tmp_path / "data.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    grown, total = read_apart(path, tmp_path / "scratch")
    assert total == samples
    # a batch has 1 MiB; some are made ahead of their use
    assert grown < 40


def test_a_sparse_file_of_eight_gigabytes_opens_at_once(tmp_path):
    """Mapped and not read: the tensor is larger than a test may use."""
    path = sparse_safetensors(tmp_path / "data.safetensors", samples=2**15, row=2**16)
    split = open_dataset(path, ["x"]).train
    assert split.samples == 2**15
    (row,), _, _ = split.span(2**15 - 1, 2**15)
    assert float(row.sum()) == 0
