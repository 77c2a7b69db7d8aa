"""What a job with tickets must remember between its steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from secateur.report import TicketReport
from torch import Tensor


@dataclass
class LotteryState:
    """By index of the prune stage.

    Attributes:
        initial: the weights to go back to.
        copies: the trained copies of the ticket, the result first.
        logits: of learned masks, by weight.
        reports: what the job's report says of each stage.
    """

    initial: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    copies: dict[int, list[dict[str, Tensor]]] = field(default_factory=dict)
    logits: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    reports: dict[int, TicketReport] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """As data that torch.save writes and weights_only loading reads."""
        return {
            "initial": self.initial,
            "copies": self.copies,
            "logits": self.logits,
            "reports": {index: report.model_dump_json() for index, report in self.reports.items()},
        }

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> LotteryState:
        """The reverse of `to_plain`."""
        return cls(
            initial=data["initial"],
            copies=data["copies"],
            logits=data["logits"],
            reports={
                index: TicketReport.model_validate_json(text)
                for index, text in data["reports"].items()
            },
        )
