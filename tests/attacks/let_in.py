"""Models that the gate lets in, for they only compute, and that do their worst with it."""

# ruff: noqa: T201 (models print; that is what is tested)

from __future__ import annotations

import torch
from torch import nn

from tests.attacks.archives import CODE, Good, changed, entries_of, good, zipped


class Endless(Good):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("looping now")
        while True:
            x = x + 1
        return x


class _Loading(nn.Module):
    """Base of those that act while they are loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 4))

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return self.weight, self.training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.t()


class EndlessWhileLoading(_Loading):
    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        self.weight = state[0]
        self.training = state[1]
        while True:
            self.weight = self.weight + 1


class GreedyWhileLoading(_Loading):
    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        self.weight = torch.ones([1 << 42])
        self.training = state[1]


class RaisesWhileLoading(_Loading):
    """With a message that is large, and made of what browsers obey."""

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        text = "<script>alert(1)</script>\r\n"
        for _ in range(18):
            text = text + text
        raise ValueError(text)


class Talkative(Good):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(20_000):
            print('{"kind":"result","result":{"forged":true}}')
        return self.second(torch.relu(self.first(x)))


class Hoards(Good):
    """Takes memory and keeps it, a gibibyte at a time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = [x]
        for _ in range(1000):
            kept.append(torch.ones([1 << 28]))
        return self.second(torch.relu(self.first(x))) + kept[-1][0]


NAMES = ("<img src=x onerror=alert(1)>", "</td><script>", "a/etc/passwd", "line\nbreak")


class Named(nn.Module):
    """Layers with names that are no names."""

    def __init__(self) -> None:
        super().__init__()
        widths = (4, 8, 8, 8, 2)
        self.layers = nn.ModuleDict(
            {name: nn.Linear(widths[i], widths[i + 1]) for i, name in enumerate(NAMES)}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers.values():
            x = torch.relu(layer(x))
        return x


class NotANumber(Good):
    def __init__(self, value: float) -> None:
        super().__init__()
        with torch.no_grad():
            self.first.weight.fill_(value)


def recursing() -> bytes:
    """A function that calls itself, written into the file: torch's compiler refuses such."""
    call = b"__torch__.tests.attacks.archives.again"
    code = b"def again(x: Tensor) -> Tensor:\n  return " + call + b"(x, )\n"
    return changed(
        CODE, lambda text: text.replace(b"return _0", b"return " + call + b"(_0, )") + code
    )


def nested_zip() -> bytes:
    """A zip in the zip; it is no part of the program."""
    return zipped([*entries_of(good()), ("archive/extra/more.zip", zipped(entries_of(good())))])
