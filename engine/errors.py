"""Errors the engine raises on purpose. Each says what to do and where the fault lies."""

from __future__ import annotations


class EngineError(Exception):
    """Base: carries what the API's `job.error` shows.

    Args:
        title: one sentence that names what went wrong.
        hint: what the user should do.
        where: the recipe field, layer, tensor or file at fault.
    """

    type = "engine-error"
    retryable = False

    def __init__(self, title: str, *, hint: str = "", where: str = "") -> None:
        super().__init__(title)
        self.title = title
        self.hint = hint
        self.where = where


class NotTorchScript(EngineError):
    """The file cannot be loaded as a TorchScript program."""

    type = "not-torchscript"


class UnsupportedOperator(EngineError):
    """The program uses an operator this build of torch does not have or the engine cannot run."""

    type = "unsupported-operator"


class InputsDoNotFit(EngineError):
    """The model's `forward` does not accept the given inputs."""

    type = "inputs-do-not-fit"


class ModelRaised(EngineError):
    """The model's own code raised."""

    type = "model-raised"


class OutputNotFound(EngineError):
    """The model's output holds no tensor where the recipe looks for one."""

    type = "output-not-found"


class DatasetInvalid(EngineError):
    """The dataset is empty, lacks a split, or its tensors do not fit the model or the loss."""

    type = "dataset-invalid"


class PatternMatchesNothing(EngineError):
    """A layer pattern of the recipe matches no layer."""

    type = "pattern-matches-nothing"


class NothingPruned(EngineError):
    """The plan removes nothing; zero is never a success."""

    type = "nothing-pruned"


class NothingQuantised(EngineError):
    """No weight of the model can take the form that the recipe asks for and be smaller by it."""

    type = "nothing-quantized"


class TargetUnreachable(EngineError):
    """No removal that the model allows brings its cost down to the recipe's target."""

    type = "target-unreachable"


class WeightsNotNumbers(EngineError):
    """A weight that would be ranked or stored in fewer bits holds NaN or infinity."""

    type = "weights-not-numbers"


class WeightCannotBeStored(EngineError):
    """A weight does not fit the form in which it is to be stored."""

    type = "weight-cannot-be-stored"


class CertificateFailed(EngineError):
    """The compact model does not equal the masked-dense one."""

    type = "certificate-failed"


class ConstraintUnmet(EngineError):
    """The result breaks a constraint of the recipe."""

    type = "constraint-unmet"


class NothingToTrain(EngineError):
    """The program has no parameters that could be fine-tuned."""

    type = "nothing-to-train"


class TrainingRuleUnmet(EngineError):
    """A training rule of the recipe finds nothing in the model, or no room in the run."""

    type = "training-rule-unmet"


class TrainingDiverged(EngineError):
    """The loss became NaN or infinite."""

    type = "training-diverged"


class OutOfMemory(EngineError):
    """The device ran out of memory."""

    type = "out-of-memory"


class DiskFull(EngineError):
    """There is no room for a file that the job cannot do without."""

    type = "disk-full"
    retryable = True


class CriterionDoesNotFit(EngineError):
    """The model has nothing that the criterion looks at."""

    type = "criterion-does-not-fit"


class CodebookDoesNotFit(EngineError):
    """A codebook of this size or type cannot hold what the weight needs."""

    type = "codebook-does-not-fit"
