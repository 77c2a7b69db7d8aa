"""Who wins, from tables of outcomes."""

from __future__ import annotations

from secateur.report import Accuracy, Contestant

from engine.tournament.ranking import winner


def one(name: str, correct: int, loss: float | None) -> Contestant:
    accuracy = Accuracy(correct=correct, total=100, top1=correct / 100)
    return Contestant(criterion=name, accuracy=accuracy, loss=loss)


def out(name: str) -> Contestant:
    return Contestant(criterion=name, reason="no labels")


def test_accuracy_then_loss_then_order() -> None:
    assert winner([one("a", 90, 0.1), one("b", 91, 0.9)]) == "b"
    assert winner([one("a", 90, 0.3), one("b", 90, 0.2), one("c", 90, 0.25)]) == "b"
    # Names do not decide, order does.
    assert winner([one("z", 90, 0.2), one("a", 90, 0.2)]) == "z"


def test_a_loss_that_is_no_number_is_the_worst() -> None:
    assert winner([one("a", 90, None), one("b", 90, 1e9)]) == "b"
    assert winner([one("a", 91, None), one("b", 90, 0.1)]) == "a"


def test_those_that_could_not_compete() -> None:
    assert winner([out("a"), one("b", 0, None)]) == "b"
    assert winner([out("a")]) is None
    assert winner([]) is None
