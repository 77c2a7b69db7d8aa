"""Early stopping: a run ends when the validation split has not improved for a while.

With e_t what is watched after epoch t (the metric, or its negative where lower is better), delta
what a gain must be above, and b the best so far that counted:

    e_t > b + delta   b <- e_t, the wait starts anew
    otherwise         the wait grows by an epoch; the run ends when it reaches the patience

(Prechelt 1998, "Early Stopping - But When?", in Neural Networks: Tricks of the Trade; patience as
in Goodfellow, Bengio & Courville 2016, algorithm 7.1). Which epoch's weights are kept is another
question, and `keep` answers it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from secateur.recipe import EarlyStopping

from engine.training.evaluation import Evaluation


@dataclass
class Patience:
    """How long a run has waited for the validation split to improve.

    Attributes:
        options: of the recipe.
        best: value of what is watched, once there was one.
        best_epoch: that had it, from 1.
        waited: epochs since.
        watched: name of what is watched, once there was something.
        rises: whether it improves by rising.
    """

    options: EarlyStopping
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0
    watched: str = ""
    rises: bool = True

    @property
    def exhausted(self) -> bool:
        """Whether the run shall end."""
        return self.waited >= self.options.patience

    def see(self, measured: Evaluation, epoch: int) -> None:
        """Take in what an epoch (from 0) reached."""
        value = self._watch(measured)
        if self.best is None or self._improves(value, self.best):
            self.best, self.best_epoch, self.waited = value, epoch + 1, 0
        else:
            self.waited += 1

    def reason(self) -> str:
        """Why the run ended."""
        verb = "rise" if self.rises else "fall"
        more = f" by more than {self.options.min_delta:g}" if self.options.min_delta else ""
        return (
            f"validation {self.watched} did not {verb}{more} in {self.waited} epochs; "
            f"it was {self.best:.4g} in epoch {self.best_epoch}"
        )

    def memory(self) -> dict[str, Any]:
        """What a resumed run must be told."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "waited": self.waited,
            "watched": self.watched,
            "rises": self.rises,
        }

    def recall(self, memory: dict[str, Any]) -> None:
        """Go on from there."""
        self.best, self.best_epoch = memory["best"], memory["best_epoch"]
        self.waited = memory["waited"]
        self.watched = memory.get("watched", self.options.metric)
        self.rises = memory.get("rises", self.options.metric != "loss")

    def _watch(self, measured: Evaluation) -> float:
        """What is watched of an evaluation; its name and direction are kept."""
        if self.options.metric == "loss":
            self.watched, self.rises = "loss", False
            return measured.loss
        if self.options.metric == "accuracy":
            self.watched, self.rises = "accuracy", True
            return measured.accuracy.top1
        self.watched, self.rises = measured.decides, measured.higher_is_better
        return measured.value

    def _improves(self, value: float, best: float) -> bool:
        if not self.rises:
            return value < best - self.options.min_delta
        return value > best + self.options.min_delta
