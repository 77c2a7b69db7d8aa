r"""Next-token cross-entropy of autoregressive language models.

A model gives scores of the next token at every position, [samples, positions, vocabulary]. For
token ids x_1 .. x_T of a sample it minimises (Bengio et al. 2003, "A Neural Probabilistic Language
Model"; Radford et al. 2018)

.. math:: L = \frac{1}{T - 1} \sum_{t=1}^{T-1} -\log p(x_{t+1} \mid x_1 \dots x_t)

Without target tensors the targets are the inputs themselves, shifted by one: position t is held
against token t + 1, and the last position, whose successor is not there, has no term. Target
tensors, where there are some, already stand at the positions that predict them. Padding is left out
by `ignore_index`. Perplexity is exp(L), see `engine.objective.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from engine.calling import describe
from engine.data.batches import Batch
from engine.errors import DatasetInvalid
from engine.objective.classes import ClassReader, check_range
from engine.objective.outputs import picked
from engine.objective.reading import Pair, dtype_name, is_integer
from engine.structure import tensors_in


@dataclass(frozen=True)
class TokenReader(ClassReader):
    """Scores [samples x positions, vocabulary] and token ids [samples x positions]."""

    @property
    def needs_targets(self) -> bool:
        """The inputs hold them."""
        return False

    def scores(self, output: Any) -> Tensor:
        """Of every position of every sample, one after the other."""
        return picked(output, self.output).flatten(0, 1)

    def read(self, output: Any, batch: Batch) -> Pair:
        """Every position against the token that follows it."""
        scores = picked(output, self.output)
        if batch.targets is not None:
            targets = self.one_target(batch.targets)
            return self.pair(scores.flatten(0, 1), targets.flatten(), batch.size)
        ids = token_ids(batch.inputs)
        return self.pair(scores[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), batch.size)

    def check_scores(self, scores: Tensor, name: str) -> None:
        """Scores of the vocabulary at every position, in a float type."""
        if scores.dim() != 3 or not scores.is_floating_point():
            raise DatasetInvalid(
                f"the model returns {describe([scores])}; next-token cross-entropy takes scores "
                "[samples, positions, vocabulary] in a float type",
                hint="use a language model that scores the next token at every position, or "
                "choose its tensor with `objective.output`",
                where=name,
            )

    def check_targets(self, scores: Tensor, batch: Batch, name: str, first_row: int) -> None:
        """Ids within the vocabulary, one for each position."""
        given = batch.targets is not None
        ids = self.one_target(batch.targets) if given else token_ids(batch.inputs)
        if not is_integer(ids):
            raise DatasetInvalid(
                f"`{name}` has dtype {dtype_name(ids)}; next-token cross-entropy takes token ids",
                hint="store the ids of the tokens as int64",
                where=name,
            )
        if ids.dim() != 2 or ids.shape[1] != scores.shape[1]:
            raise DatasetInvalid(
                f"`{name}` holds {describe([ids])}, which does not fit the model's output "
                f"{describe([scores])}",
                hint=f"one token id for each of ['samples', {scores.shape[1]}]",
                where=name,
            )
        if not given and ids.shape[1] < 2:
            raise DatasetInvalid(
                f"`{name}` holds samples of one token, which none follows",
                hint="give two positions or more, or target tensors",
                where=name,
            )
        check_range(
            ids,
            scores.shape[2],
            name,
            ignore_index=self.ignore_index,
            first_row=first_row,
            what="token",
        )

    def classes_in(self, scores: Tensor, batch: Batch) -> None:
        """Text never has every token of a vocabulary."""
        del scores, batch


def token_ids(inputs: Any) -> Tensor:
    """The first input of integers [samples, positions].

    Raises:
        DatasetInvalid: there is none.
    """
    for tensor in tensors_in(inputs):
        if tensor.dim() == 2 and is_integer(tensor):
            return tensor
    raise DatasetInvalid(
        f"next-token cross-entropy without targets needs token ids [samples, positions] among the "
        f"inputs; they are {describe(inputs)}",
        hint="store the ids as int64, or give the next tokens as targets",
        where="train/inputs/0",
    )
