"""The e-values over draws, by enumeration: their mean under the hypothesis is at most 1, whatever ends a text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from auditor.models.endpoint.api_messages import Choice, Position
from auditor.models.endpoint.handshake_sampling_and_prompts import (
    DrawnText,
    drawn_text,
    exponent_e_value,
    exponent_shown,
    tail_e_value,
    tail_shown,
)

# Reported probabilities of the two likeliest tokens at two positions, of which the second depends on the first draw.
FIRST = (0.5, 0.2)
SECOND = {0: (0.6, 0.3), 1: (0.4, 0.35), -1: (0.1, 0.05)}


def outcomes(pair: tuple[float, float], exponent: float = 1.0) -> dict[int, float]:
    """Chances of place 0, place 1 and the tail, where the two likeliest are drawn by a power of theirs."""
    powered = [p**exponent for p in pair]
    inside = sum(pair)
    return {0: inside * powered[0] / sum(powered), 1: inside * powered[1] / sum(powered), -1: 1.0 - inside}


def mean(e_value: Callable[[list[DrawnText]], float], exponent: float, ends: float) -> float:
    """Over all texts of two tokens that end of themselves, unreported, with a chance before each token."""

    def valued(places: list[int], tops: list[tuple[float, float]], ended: bool) -> float:
        top = np.log(np.array(tops).reshape(-1, 2))
        return math.exp(e_value([DrawnText(top, np.array(places, dtype=int), ended)]))

    total = ends * valued([], [], True)
    for place, chance in outcomes(FIRST, exponent).items():
        one = (1 - ends) * chance
        total += one * ends * valued([place], [FIRST], True)
        for other, then in outcomes(SECOND[place], exponent).items():
            total += one * (1 - ends) * then * valued([place, other], [FIRST, SECOND[place]], False)
    return total


@pytest.mark.parametrize("ends", [0.0, 0.1, 0.5, 0.99])
def test_under_its_hypothesis_no_e_value_has_a_mean_above_1(ends: float) -> None:
    for exponent in (0.5, 1.0, 2.0):
        assert mean(lambda texts, b=exponent: exponent_e_value(texts, b), exponent, ends) <= 1.0 + 1e-12
        shown = mean(lambda texts, b=exponent: exponent_shown(texts, 1.3 * b, b), exponent, ends)
        assert shown <= 1.0 + 1e-12
    assert mean(tail_e_value, 1.0, ends) <= 1.0 + 1e-12


def test_without_endings_the_mean_is_what_the_weight_of_a_cut_text_leaves() -> None:
    assert mean(tail_e_value, 1.0, 0.0) == pytest.approx(0.9, abs=1e-12)
    assert mean(lambda texts: exponent_e_value(texts, 2.0), 2.0, 0.0) == pytest.approx(0.9, abs=1e-12)
    assert mean(lambda texts: exponent_e_value(texts, 1.0), 2.0, 0.0) > 0.91


def test_a_tail_that_is_shown_is_drawn_too_often_for_a_clipped_one() -> None:
    """Under a tail of half the odds the e-value for the whole tail has a mean of at most 1, by enumeration."""
    total = 0.0
    for places in itertools.product((0, 1, -1), repeat=3):
        tail = 0.3
        left = 0.5 * tail / (0.7 + 0.5 * tail)
        chances = {0: (1 - left) * 5 / 7, 1: (1 - left) * 2 / 7, -1: left}
        text = DrawnText(np.log(np.array([FIRST] * 3)), np.array(places), False)
        total += math.prod(chances[p] for p in places) * math.exp(tail_shown([text]))
    assert total == pytest.approx(0.9, abs=1e-12)


def test_a_position_with_fewer_alternatives_is_left_out_and_a_name_alone_is_no_place() -> None:
    top = (("a", -0.5), ("b", -1.5))
    choice = Choice(
        text="aab?",
        finish="length",
        positions=(
            Position("a", -0.5, top),
            Position("a", -0.5, top[:1]),
            # Written like the likeliest token, and another one by its number.
            Position("a", -4.0, top),
            Position("b", -1.5, top),
        ),
    )
    text = drawn_text(choice, 2)
    assert text.place.tolist() == [0, -1, 1] and text.top.shape == (3, 2) and not text.ended
    assert text.tail == pytest.approx([1 - math.exp(-0.5) - math.exp(-1.5)] * 3)
    assert drawn_text(choice, 0).top.shape[0] == 0
