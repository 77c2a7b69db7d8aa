"""Programs that the gate refuses, made for a store that has them all the same.

Each names a path of the test's own: what it must not write, map, change or read.
"""

from __future__ import annotations

import torch
from torch import nn

from tests.attacks.archives import Good, saved


class _Aimed(Good):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path


class Saves(_Aimed):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save([x], self.path)
        return self.second(torch.relu(self.first(x)))


class Overwrites(_Aimed):
    """Through a shared mapping, which would also make the file as long as it says."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mapped = torch.from_file(self.path, shared=True, size=4096, dtype=torch.uint8)
        mapped.fill_(0)
        # used, or no runtime would do it
        return self.second(torch.relu(self.first(x))) + mapped[0].to(x.dtype)


class Reads(_Aimed):
    """And says what it read where the user can see it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mapped = torch.from_file(self.path, shared=False, size=16, dtype=torch.uint8)
        stolen: list[int] = mapped.tolist()
        print("stolen", stolen)  # noqa: T201 - models print
        return self.second(torch.relu(self.first(x)))


class SavesWhenLoaded(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 4))
        self.path = path

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, str, bool]:
        return self.weight, self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, str, bool]) -> None:
        torch.save(state[0], state[1])
        self.weight = state[0]
        self.path = state[1]
        self.training = state[2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.t()


def aimed(kind: type[nn.Module], path: str) -> bytes:
    """The file of one of them. Its code runs here only in as far as compiling does."""
    return saved(kind(path).eval())
