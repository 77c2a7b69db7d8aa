"""A stream of tokens, cut into samples for a language model.

Sample i of window w and stride s holds tokens i s ... i s + w - 1 as input and the token after
each, i s + 1 ... i s + w, as targets. Of n tokens there are floor((n - w - 1) / s) + 1 samples;
what does not fill a last one is left out. Nothing is copied but the windows of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from secateur.recipe_data import Tokens
from torch import Tensor

from engine.data.columns import Column, Leaf
from engine.data.draws import Draw
from engine.data.mapped import MappedRows
from engine.errors import DatasetInvalid

_PIECE = 1 << 22


@dataclass(frozen=True)
class Windows(Column):
    """Neighbouring tokens, as int64.

    Attributes:
        stream: all tokens, integers [n].
        window: of a sample.
        stride: from one sample's begin to the next.
        shift: of the first sample's begin.
        count: samples.
    """

    stream: NDArray[Any]
    window: int
    stride: int
    shift: int
    count: int

    @property
    def samples(self) -> int:
        """Number of windows."""
        return self.count

    @property
    def dtype(self) -> torch.dtype:
        """Of every token."""
        return torch.int64

    def take(self, rows: Tensor, draw: Draw | None = None) -> Tensor:  # noqa: ARG002
        """See `Column`."""
        begins = rows.numpy() * self.stride + self.shift
        places = begins[:, None] + np.arange(self.window)
        return torch.from_numpy(self.stream[places].astype(np.int64))


def cut_tokens(columns: dict[str, Leaf], tokens: Tokens | None) -> dict[str, Leaf]:
    """The columns with `train/tokens` and the like replaced by their windows.

    Raises:
        DatasetInvalid: a stream is no list of integers, shorter than a window, or holds a token
            out of range; names the tensor and the position.
    """
    found: dict[str, Leaf] = {}
    for name, column in columns.items():
        split, _, rest = name.partition("/")
        if rest != "tokens":
            found[name] = column
            continue
        if tokens is None:
            raise DatasetInvalid(
                f"`{name}` is a stream of tokens, and the recipe does not say how long a sample is",
                hint="add `data: {tokens: {window: 128}}` to the recipe",
                where="recipe.data.tokens",
            )
        stream = _stream(name, column)
        _check_range(name, stream, tokens.vocabulary)
        stride = tokens.stride or tokens.window
        count = (len(stream) - tokens.window - 1) // stride + 1
        if count < 1:
            raise DatasetInvalid(
                f"`{name}` has {len(stream)} tokens; a window of {tokens.window} and the token "
                f"after it need {tokens.window + 1}",
                hint="choose a shorter window, or give more tokens",
                where="recipe.data.tokens.window",
            )
        for role, shift in (("inputs", 0), ("targets", 1)):
            if role == "targets" and split == "unlabelled":
                continue
            found[f"{split}/{role}/0"] = Windows(stream, tokens.window, stride, shift, count)
    return found


def _stream(name: str, column: Leaf) -> NDArray[Any]:
    array: NDArray[Any] | None = None
    if isinstance(column, Tensor):
        array = column.numpy()
    elif isinstance(column, MappedRows):
        array = column.array
    if array is None or array.ndim != 1 or array.dtype.kind not in "iu":
        shape = "rows" if array is None else f"shape {list(array.shape)} and dtype {array.dtype}"
        raise DatasetInvalid(
            f"`{name}` has {shape}; a stream of tokens is one list of integers",
            hint="store all tokens of a split one after the other, as uint16 or int32",
            where=name,
        )
    return array


def _check_range(name: str, stream: NDArray[Any], vocabulary: int | None) -> None:
    bound = float("inf") if vocabulary is None else vocabulary
    for start in range(0, len(stream), _PIECE):
        piece = stream[start : start + _PIECE]
        wrong = (piece < 0) | (piece >= bound)
        if wrong.any():
            place = start + int(wrong.argmax())
            allowed = "0 or more" if vocabulary is None else f"from 0 to {vocabulary - 1}"
            raise DatasetInvalid(
                f"`{name}` holds token {int(stream[place])} at position {place}; tokens are "
                f"{allowed}",
                hint="use the tokenizer that the model was trained with, or correct "
                "`data.tokens.vocabulary`",
                where=name,
            )
