"""Distillation: the student learns the class probabilities of a teacher, softened.

Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network", section 2. Teacher and
student give scores v and z for K classes; at temperature T their probabilities are

    p_k = exp(v_k / T) / sum_j exp(v_j / T)        q_k = exp(z_k / T) / sum_j exp(z_j / T)

and the loss of a position (a sample; for dense predictions, each place of its output) with label y

    L = (1 - a) CE(y, z) + a T^2 KL(p || q)        KL(p || q) = sum_k p_k (log p_k - log q_k)

averaged over positions. CE is at temperature 1, with label smoothing where the recipe asks for it.

Why T^2: as sum_k p_k = 1, the gradient of KL(p || q) towards z_k is (q_k - p_k) / T, and for large
T and scores of zero mean q_k - p_k is about (z_k - v_k) / (K T). So the gradient shrinks with T^2,
and the factor makes it T (q_k - p_k): a change of T leaves the balance with the labels as it was.
The cross-entropy of soft targets in the paper differs from KL by the entropy of p, which no weight
of the student moves; KL is zero where the student agrees, which makes the number readable.

Outputs that are no classes are compared as vectors, z of the student and v of the teacher:

    cosine:  1 - z . v / (|z| |v|)        mse:  |z - v|^2 / K

averaged over positions; where outputs score classes, the K scores of a position are its vector,
elsewhere all K numbers of a sample are. The cosine asks for the direction alone (as Sanh et al.
2019, "DistilBERT", do between hidden states), the square for the values themselves (Ba & Caruana
2014, "Do Deep Nets Really Need to be Deep?", on scores). Neither is scaled by a temperature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from secateur.recipe import Distillation
from torch import Tensor
from torch.nn import functional

from engine.calling import call, describe
from engine.errors import TrainingRuleUnmet
from engine.features.matching import Matched
from engine.objective.objective import Objective
from engine.torchscript.exposing import Exposed
from engine.torchscript.program import Program
from engine.training.state import copy_tensors, snapshot


class Teacher:
    """A program in evaluation mode that gives what is to be learnt, and is not taught itself.

    What it does leaves no trace: it computes without gradients, on a state (buffers) of its own,
    and gives the random generators back as it found them, so that the student's dropout draws
    what it would draw alone.
    """

    def __init__(
        self,
        program: Program,
        objective: Objective,
        *,
        kind: str,
        field: str,
        features: Sequence[Matched] = (),
    ) -> None:
        """Args:
        program: in evaluation mode, on the device of the batches; it is not written to.
        objective: that says how outputs are read.
        kind: of the distillation.
        field: path of the training run in the recipe, for errors.
        features: that it shows besides its scores.
        """
        self._objective = objective
        self._kind = kind
        self._exposed = None
        if features:
            self._program = program.copy(share=True)
            self._program.own(list(self._program.buffers()))
            shown = {str(number): one.teacher for number, one in enumerate(features)}
            self._exposed = Exposed(self._program, shown)
        else:
            self._program = program.shadow()
        self._devices = [] if program.device == "cpu" else [torch.device(program.device)]
        self._field = field

    def memory(self) -> dict[str, Tensor]:
        """Its buffers, which its program may write to; copies."""
        return snapshot(self._program.buffers())

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Go on with these buffers."""
        copy_tensors(memory, self._program.buffers())

    def features(self) -> dict[str, Tensor | None]:
        """The features of the batch it scored last, by number; it forgets them."""
        return {} if self._exposed is None else self._exposed.take()

    def scores(self, inputs: Sequence[Any], student: Tensor) -> Tensor:
        """What it gives for a batch, in its own float type.

        Args:
            inputs: of `forward`, on the device.
            student: what the student gives for them, read by the objective.

        Raises:
            TrainingRuleUnmet: the two give other shapes, or nothing that can be compared so.
        """
        return self.fitting(self.answer(inputs), student)

    def answer(self, inputs: Sequence[Any]) -> Tensor:
        """What it gives for a batch, held against nothing."""
        with torch.no_grad(), torch.random.fork_rng(self._devices):
            output = call(self._program.module, inputs, where=f"{self._field}.batch_size")
        return self._objective.scores(output)

    def fitting(self, scores: Tensor, student: Tensor) -> Tensor:
        """What it gave for a batch, where the student's can be compared with it.

        Raises:
            TrainingRuleUnmet: the two give other shapes, or nothing that can be compared so.
        """
        if self._kind == "soft_targets":
            classes = scores.dim() >= 2 and scores.shape[1] >= 2 and scores.is_floating_point()
            if not classes or scores.shape != student.shape:
                raise TrainingRuleUnmet(
                    "distillation compares class scores, [samples, classes, ...] in a float type, "
                    f"of the upload and the trained program; they give {describe([scores])} and "
                    f"{describe([student])}",
                    hint="leave `distillation` out, use `kind: mse` or `kind: cosine`, or export "
                    "a model whose output (the tensor, the first of a tuple, or `logits` of a "
                    "mapping) scores at least two classes",
                    where=f"{self._field}.distillation",
                )
            return scores
        fits = scores.is_floating_point() and scores.shape == student.shape
        if fits and self._kind == "cosine":
            fits = vectors(scores, self._objective).shape[-1] > 1
        if not fits:
            least = ", two or more numbers a sample" if self._kind == "cosine" else ""
            raise TrainingRuleUnmet(
                f"distillation by {self._kind} compares outputs of one shape in a float type"
                f"{least}; the upload and the trained program give {describe([scores])} and "
                f"{describe([student])}",
                hint="leave `distillation` out, or choose another tensor with `objective.output`",
                where=f"{self._field}.distillation",
            )
        return scores


def taught_loss(
    student: Tensor, teacher: Tensor, options: Distillation, objective: Objective
) -> Tensor:
    """The teacher's loss of the kind the recipe asks for, mean over positions; a scalar.

    Args:
        student, teacher: of one shape, as the objective reads them.
        options: of the recipe.
        objective: that says what a position is.
    """
    if options.kind == "soft_targets":
        return soft_loss(student, teacher, temperature=options.temperature)
    if options.kind == "mse":
        return functional.mse_loss(student.float(), teacher.float())
    learnt, shown = vectors(student, objective), vectors(teacher, objective)
    return (1 - functional.cosine_similarity(learnt, shown, dim=-1)).mean()


def vectors(scores: Tensor, objective: Objective) -> Tensor:
    """What is compared by direction: float32 [positions, numbers]."""
    if objective.scores_classes:
        return scores.float().movedim(1, -1).flatten(0, -2)
    return scores.float().flatten(1) if scores.dim() > 1 else scores.float().unsqueeze(1)


def positions(scores: Tensor, objective: Objective) -> int:
    """How many predictions scores hold: one a sample where they are no classes."""
    return scores.numel() // scores.shape[1] if objective.scores_classes else scores.shape[0]


def soft_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T^2 KL(teacher || student), mean over positions; scores [samples, classes, ...].

    Half types are taken to float32, like the scores of the labels' loss.
    """
    target = torch.softmax(teacher.float() / temperature, dim=1)
    log_target = torch.log_softmax(teacher.float() / temperature, dim=1)
    learnt = torch.log_softmax(student.float() / temperature, dim=1)
    # A class that both rule out by a score of minus infinity has no share, and 0 * inf is NaN.
    ratio = (log_target - learnt).masked_fill(target == 0, 0.0)
    return temperature**2 * (target * ratio).sum(dim=1).mean()


def agreeing(student: Tensor, teacher: Tensor) -> Tensor:
    """At how many positions both score the same class highest, as a tensor on the device."""
    return (student.argmax(dim=1) == teacher.argmax(dim=1)).sum()
