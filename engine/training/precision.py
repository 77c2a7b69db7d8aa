"""Mixed precision: products and convolutions in 16 bits, weights and everything else in float32.

While the program runs, torch casts the operands of convolutions and matrix products to the lower
type (autocast) and leaves sums, norms and softmax where they need range; the weights, their
gradients, the optimiser's state and the loss are float32 (Micikevicius et al. 2018, "Mixed
Precision Training", ICLR). bfloat16 has the exponent of float32 (Kalamkar et al. 2019), so its
gradients need nothing more. Those of float16 are scaled, see `engine.training.loss_scale`.

The TorchScript interpreter dispatches operator by operator, so autocast reaches a loaded program
as it reaches a module. One operator escapes it on a CPU: the convolution that tracing writes, which
`engine.torchscript.autocast` therefore writes in its other form.

Only training computes in the lower type. The program that comes out, and with it validation, is in
the type of its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from secateur.recipe import FinetuneOptions
from torch import Tensor

from engine.calling import call
from engine.errors import InputsDoNotFit, TrainingRuleUnmet, UnsupportedOperator
from engine.structure import map_tensors
from engine.training.loss_scale import LossScale

Kind = Literal["float32", "bf16", "fp16"]
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """How a run computes.

    Attributes:
        kind: float32 is the weights' own type, whatever it is.
        device: of the run.
        field: path of the training run in the recipe, for errors.
        scale: of the loss, for fp16.
    """

    kind: Kind
    device: str
    field: str
    scale: LossScale | None = None

    @property
    def lowered(self) -> bool:
        """Whether anything is computed in a lower type."""
        return self.kind != "float32"

    def run(self, module: Callable[..., Any], inputs: Sequence[Any]) -> Any:
        """What the program gives, with tensors of the lower type back in float32.

        Args:
            module: a loaded ScriptModule in training mode.
            inputs: of `forward`, on the device.

        Raises:
            TrainingRuleUnmet: the program runs in float32 and not in the lower type.
            EngineError: it does not run at all, see `engine.calling.call`.
        """
        where = f"{self.field}.batch_size"
        if not self.lowered:
            return call(module, inputs, where=where)
        try:
            # Casts of weights are kept for the length of this block, not for the next step.
            with torch.autocast(torch.device(self.device).type, dtype=_TYPES[self.kind]):
                output = call(module, inputs, where=where)
        except (InputsDoNotFit, UnsupportedOperator) as error:
            with torch.no_grad():
                call(module, inputs, where=where)  # raises where the precision is not at fault
            raise TrainingRuleUnmet(
                f"the program runs in float32 and not in {self.kind}: {error.title}",
                hint="use `precision: float32`",
                where=f"{self.field}.precision",
            ) from error
        return map_tensors(output, _in_float32)

    def scaled(self, loss: Tensor) -> Tensor:
        """What the way back begins from."""
        return loss if self.scale is None else loss * self.scale.value

    def unscale(self, parameters: Mapping[str, Tensor]) -> bool:
        """Undo the scaling in the gradients; whether they are finite, as far as that is known."""
        return self.scale is None or self.scale.unscale(parameters.values())

    def counts(self) -> dict[str, float]:
        """By name of the metric: the factor of the loss, and the steps left out in the whole run;
        nothing without a scale."""
        if self.scale is None:
            return {}
        return {"train/loss_scale": self.scale.value, "train/skipped_steps": self.scale.skipped}

    def memory(self) -> dict[str, Any] | None:
        """What a resumed run must be told; nothing without a scale."""
        return None if self.scale is None else self.scale.memory()

    def recall(self, memory: dict[str, Any] | None) -> None:
        """Go on from there."""
        if self.scale is not None and memory is not None:
            self.scale.recall(memory)


def precision_of(
    options: FinetuneOptions, parameters: Mapping[str, Tensor], *, device: str, field: str
) -> Precision:
    """The precision of a run.

    `auto` is bf16 on a GPU that computes in it (compute capability 8.0 and later), fp16 on one with
    tensor cores for that alone (7.0), and float32 everywhere else and for weights of other types.

    Args:
        options: of the recipe.
        parameters: that are trained.
        device: where they lie.
        field: path of the training run in the recipe.

    Raises:
        TrainingRuleUnmet: a lower type is asked for, and a weight is not float32, or the device
            cannot compute in it.
    """
    asked = options.precision
    other = next((n for n, one in parameters.items() if one.dtype != torch.float32), None)
    if asked == "auto":
        asked = "float32" if other is not None else _best_on(torch.device(device))
    elif asked != "float32" and other is not None:
        kind = str(parameters[other].dtype).removeprefix("torch.")
        raise TrainingRuleUnmet(
            f"`precision: {asked}` lowers float32, and `{other}` is {kind}",
            hint="use `precision: float32`, which trains weights in their own type, or upload the "
            "model in float32",
            where=f"{field}.precision",
        )
    if asked == "bf16" and device != "cpu" and not torch.cuda.is_bf16_supported():
        raise TrainingRuleUnmet(
            f"`precision: bf16` cannot be computed on {torch.cuda.get_device_name(device)}",
            hint="use `precision: fp16`, or `auto`",
            where=f"{field}.precision",
        )
    return Precision(asked, device, field, LossScale() if asked == "fp16" else None)


def _best_on(device: torch.device) -> Kind:
    if device.type != "cuda":
        return "float32"
    capability = torch.cuda.get_device_capability(device)
    return "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "float32"


def _in_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
