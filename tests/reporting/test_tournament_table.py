"""The table of a tournament on the page."""

from __future__ import annotations

from secateur.report import TournamentReport

from reporting.html import render
from reporting.tournament_table import contestant_rows, tournament_words
from tests.reporting.samples import contested_report, small_report
from tests.reporting.test_html import Page


def held(**changes: object) -> TournamentReport:
    return contested_report().tournaments[0].model_copy(update=changes)


def test_rows() -> None:
    first, winner, excluded = contestant_rows(held())
    assert (first.criterion, first.won) == ("l1_norm", False)
    assert first.reason == "single steps are too coarse to match: it has less"
    assert (winner.won, winner.reason) == (True, "")
    assert (winner.amount, winner.macs, winner.parameters) == ("46.7 %", "208 k", "30.1 k")
    assert (winner.loss_before, winner.before) == ("0.1824", "338 / 360 = 93.89 %")
    assert (winner.loss, winner.after, winner.took) == ("0.0912", "355 / 360 = 98.61 %", "1.5 s")
    assert (excluded.amount, excluded.reason) == ("–", "no [BatchNorm] <b>")  # noqa: RUF001


def test_words() -> None:
    assert tournament_words(held()) == (
        "Every criterion brought the model from 416,520 to 208,260 MACs (within 2.0 %) and was "
        "judged on the validation split after a recovery of 1 epoch. The best one judges in stage "
        "1, which prunes by its own amount."
    )
    assert "after a recovery of at most 50 steps." in tournament_words(held(recovery_steps=50))
    assert "without recovery." in tournament_words(held(recovery_epochs=0))
    masked = tournament_words(held(matched_by="nonzero_parameters"))
    assert "208,260 weights that are not masked" in masked


def test_the_page_has_it() -> None:
    page = Page(render(contested_report()))
    assert "Tournament of criteria" in page.text
    assert "taylor (winner) 46.7 % 208 k" in page.text
    assert "bn_scale did not compete: no [BatchNorm] <b>" in page.text, "escaped"
    assert "Tournament" not in Page(render(small_report())).text
