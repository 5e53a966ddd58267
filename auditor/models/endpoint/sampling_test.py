r"""Test whether tokens were drawn from the distribution that the server reports, by e-values of the draws.

A position reports the log-probabilities of its :math:`k` likeliest tokens; what is left of 1 is its tail. A hypothesis
:math:`p` and an alternative :math:`q` give each drawn token :math:`x` the factor :math:`q(x)/p(x)`, whose mean under
:math:`p` is 1, whatever was drawn before: the product is an e-value, and :math:`P(E \ge 1/\alpha) \le \alpha` exactly
(Ville 1939; Vovk and Wang 2021), though each token's context is made of the tokens before it. Several alternatives
are averaged.

A text that ends of itself ends with a token that many servers do not report. Such a text counts
:math:`w \min(1, E)`, one that was cut at its length :math:`(1 - w) E`: the mean of both together is at most 1, however
likely the ending was, with :math:`w = 0.1`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from auditor.models.endpoint.api_messages import Choice, Position

_ENDED = 0.1
_LEAST_TAIL = 1e-9
# Nats within which two numbers of one position are those of one token.
_SAME = 1e-3
# How much of the odds of its tail a clipped distribution keeps, and by what an inverse temperature may be off.
TAIL_ODDS = (0.02, 0.25, 0.5, 0.7)
FACTORS = (0.4, 0.6, 0.75, 1.33, 1.7, 2.5)


@dataclass(frozen=True)
class DrawnText:
    """The testable drawn tokens of one text, and whether it ended by itself.

    ``top``: the reported log-probabilities of the likeliest tokens, falling, (tokens, k); ``place``: which of them was
    drawn, (tokens,), -1 where it was one of the tail.
    """

    top: np.ndarray
    place: np.ndarray
    ended: bool

    @property
    def tail(self) -> np.ndarray:
        """The reported probability of all other tokens, (tokens,)."""
        left: np.ndarray = np.clip(1.0 - np.exp(self.top).sum(axis=1), _LEAST_TAIL, 1.0 - _LEAST_TAIL)
        return left


def drawn_text(choice: Choice, k: int) -> DrawnText:
    """The testable part of a text: the positions that report ``k`` alternatives.

    Which positions those are must not depend on what was drawn at them, so one with fewer is left out whole.
    """
    usable = [p for p in choice.positions or () if 0 < k <= len(p.top) and p.log_probability is not None]
    top = np.array([[value for _, value in p.top[:k]] for p in usable]).reshape(len(usable), k)
    return DrawnText(top, np.array([_place(p, k) for p in usable], dtype=int), choice.finish != "length")


def alternatives_of(choice: Choice, most: int) -> int:
    """The number of alternatives at most positions, at most ``most``; 0 if there are none."""
    counts = Counter(min(len(position.top), most) for position in choice.positions or ())
    return counts.most_common(1)[0][0] if counts else 0


def _place(position: Position, k: int) -> int:
    # Several tokens may be written alike, such as parts of a character: a place is that of the name and the number.
    drawn = position.log_probability or 0.0
    apart = [abs(value - drawn) for _, value in position.top[:k]]
    named = [i for i, (token, _) in enumerate(position.top[:k]) if token == position.token]
    place = min(named or range(k), key=apart.__getitem__)
    return place if apart[place] < _SAME else -1


def tail_e_value(texts: Sequence[DrawnText], tail_odds: Sequence[float] = TAIL_ODDS) -> float:
    """Logarithm of the e-value against "tokens of the tail are drawn as often as reported", for "more seldom".

    ``tail_odds``: the shares of the tail's odds that a clipping may leave.
    """
    return _averaged([_log_e_value(texts, partial(_tail_factors, odds=odds)) for odds in tail_odds])


def tail_shown(texts: Sequence[DrawnText], odds: float = 0.5) -> float:
    """Log of the e-value against "at most this share of the tail's odds is left", for "all of it".

    Against smaller shares it is larger still where it exceeds 0, since the likelihood is concave in the logarithm of
    the odds.
    """
    return _log_e_value(texts, lambda text: -_tail_factors(text, odds))


def exponent_e_value(texts: Sequence[DrawnText], exponent: float) -> float:
    """Logarithm of the e-value against "the likeliest tokens are drawn as their reported probability to a power".

    ``exponent``: that power, which is one over the temperature where the report is of the model itself. Only draws
    among the likeliest count, given that they are there: their distribution needs nothing that is not reported.
    """
    return _averaged([exponent_shown(texts, exponent * factor, exponent) for factor in FACTORS])


def exponent_shown(texts: Sequence[DrawnText], exponent: float, other: float) -> float:
    """Logarithm of the e-value against the power ``other``, for ``exponent``."""
    return _log_e_value(texts, lambda text: _powers(text, exponent) - _powers(text, other))


def _tail_factors(text: DrawnText, odds: float) -> np.ndarray:
    tail = text.tail
    left = odds * tail / (1.0 - tail + odds * tail)
    return np.where(text.place < 0, np.log(left / tail), np.log((1.0 - left) / (1.0 - tail)))


def _powers(text: DrawnText, exponent: float) -> np.ndarray:
    """Log-probabilities of what was drawn among the likeliest under a power of their probabilities, 0 in the tail."""
    inside = text.place >= 0
    scaled = exponent * (text.top[inside] - text.top[inside, :1])
    drawn = scaled[np.arange(len(scaled)), text.place[inside]]
    found: np.ndarray = drawn - np.log(np.exp(scaled).sum(axis=1))
    return found


def _log_e_value(texts: Sequence[DrawnText], factors: Callable[[DrawnText], np.ndarray]) -> float:
    total = 0.0
    for text in texts:
        own = float(factors(text).sum())
        total += math.log(_ENDED) + min(own, 0.0) if text.ended else math.log(1.0 - _ENDED) + own
    return total


def _averaged(logs: Sequence[float]) -> float:
    most = max(logs)
    return most + math.log(math.fsum(math.exp(value - most) for value in logs) / len(logs))
