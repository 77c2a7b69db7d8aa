"""A language model of characters, on sources of Python's own standard library.

The text is on every machine that runs this; it differs a little between versions of Python, so
that figures compare within one version. Files are the same in 3.11 to 3.13, named here, and cut to
their first 20,000 characters. Of some files weights see nothing: a model that had learnt a file
by heart would gain nothing by it.
"""

from __future__ import annotations

import os
from functools import cache
from math import exp
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, scaled_dot_product_attention

from bench.recovery.task import Figures, Measure, Part, Samples, Task, Training

CONTEXT = 64
_MOST = 20_000
FILES: dict[Part, tuple[str, ...]] = {
    "train": (
        "argparse", "ast", "bdb", "calendar", "cmd", "configparser", "contextlib", "csv",
        "dataclasses", "difflib", "doctest", "enum", "fractions", "functools", "gettext",
        "imaplib", "inspect", "ipaddress", "mailbox", "optparse", "pdb", "pickle", "platform",
        "pydoc", "random", "smtplib", "socket", "subprocess", "tarfile", "threading", "trace",
        "uuid",
    ),
    "validation": ("copy", "shlex", "tempfile"),
    "test": ("shutil", "statistics", "textwrap", "traceback"),
}  # fmt: skip
"""Modules of one file each, by name."""

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
"""96 characters; any other one counts as a question mark."""


def encode(text: str) -> Tensor:
    """Indices into the alphabet, int64 `[characters]`."""
    index = {letter: place for place, letter in enumerate(ALPHABET)}
    unknown = index["?"]
    return torch.tensor([index.get(letter, unknown) for letter in text])


def _samples(names: tuple[str, ...]) -> Samples:
    """Windows that do not overlap; every character but the first of one is to be foretold."""
    library = Path(os.__file__).parent
    windows = []
    for name in names:
        codes = encode((library / f"{name}.py").read_text(encoding="utf-8")[:_MOST])
        windows.append(codes[: len(codes) // CONTEXT * CONTEXT].view(-1, CONTEXT))
    found = torch.cat(windows)
    return Samples(found, found)


@cache
def parts() -> dict[Part, Samples]:
    """Characters `[windows, 64]`, int64, as inputs and as targets."""
    return {name: _samples(files) for name, files in FILES.items()}


class DecoderLayer(nn.Module):
    """Causal attention and a feed-forward pair, each behind LayerNorm and a residual sum."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.rise = nn.Linear(width, 4 * width)
        self.fall = nn.Linear(4 * width, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """`[samples, characters, width]`, as the input."""
        y = self.attention_norm(x)
        query, key, value = self._split(self.query(y)), self._split(self.key(y)), self.value(y)
        mixed = scaled_dot_product_attention(query, key, self._split(value), is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).flatten(2))
        fallen: Tensor = self.fall(gelu(self.rise(self.norm(x))))
        return x + fallen


class Decoder(nn.Module):
    """Embeddings of characters and places, decoder layers, scores of the next character."""

    def __init__(self, width: int = 128, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.characters = nn.Embedding(len(ALPHABET), width)
        self.places = nn.Parameter(torch.randn(1, CONTEXT, width) * 0.02)
        self.layers = nn.Sequential(*[DecoderLayer(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.scores = nn.Linear(width, len(ALPHABET))
        nn.init.normal_(self.characters.weight, std=0.02)

    def forward(self, characters: Tensor) -> Tensor:
        """Scores `[samples, 64, 96]` of characters `[samples, 64]`."""
        x = self.characters(characters) + self.places
        scores: Tensor = self.scores(self.norm(self.layers(x)))
        return scores


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats of characters 1 to 63, each foretold at the place before it."""
    return cross_entropy(outputs[:, :-1].flatten(0, 1), targets[:, 1:].flatten())


def judge(outputs: Tensor, targets: Tensor) -> Figures:
    """Cross-entropy of a character in nats, its exponential, and the share of right guesses."""
    nats = float(loss(outputs, targets))
    right = float((outputs[:, :-1].argmax(-1) == targets[:, 1:]).double().mean())
    return {"loss": nats, "perplexity": exp(nats), "accuracy": right}


TASK = Task(
    name="language",
    title="Characters of Python sources, decoder",
    words="The next of 96 characters in sources of Python's standard library, windows of 64; 32 "
    "files to train on, four others to measure on. Two decoder layers of width 128, four heads.",
    build=Decoder,
    parts=parts,
    loss=loss,
    judge=judge,
    measure=Measure("perplexity", "perplexity", "number", share="loss"),
    dense=Training(2, 2e-3, 16),
    recovery=Training(1, 2e-3, 16),
    form="traced",
    objective={"loss": "next_token"},
    labelled=False,
)
