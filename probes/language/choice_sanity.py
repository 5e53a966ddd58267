"""Very easy questions: a test whether a model that only generates can answer multiple-choice questions."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from auditor.statistics.estimate import Undefined
from auditor.statistics.values import RatioBetween, RatioOfTotals
from probes.language.forced_choice import Choice, Question, choices
from probes.language.partial_shares import share_between

if TYPE_CHECKING:
    from auditor.models.capabilities import Generates

N_OPTIONS = 3
BY_CHANCE = 1.0 / N_OPTIONS
# The option that is right stands first in the file.
RIGHT = 0
_ASKED_AS_A_GATE = 32
_LEVEL = 0.05


@cache
def easy_questions() -> tuple[Question, ...]:
    """The built-in questions, each with three options, of which the first is right."""
    content = tomllib.loads((files("probes") / "data" / "asked.toml").read_text(encoding="utf-8"))
    return tuple(Question(text, tuple(options)) for text, *options in content["choices"])


def accuracy_of(choices: Sequence[Sequence[Choice]]) -> RatioOfTotals | RatioBetween | Undefined:
    """The share of correct answers to repeated questions; with missing answers: its minimum and maximum."""
    right = np.asarray([float(sum(c.option == RIGHT for c in some)) for some in choices])
    missing = np.asarray([float(sum(c.option is None for c in some)) for some in choices])
    times = np.asarray([float(len(some)) for some in choices])
    return share_between(right, right + missing, times, int(missing.sum()), int(times.sum()))


def not_shown(accuracy: RatioOfTotals | RatioBetween | Undefined) -> str:
    """The reason why a model does not demonstrably understand questions, in a sentence, or ""."""
    if not isinstance(accuracy, Undefined):
        low = accuracy.bounds(_LEVEL)[0]
        if low > BY_CHANCE:
            return ""
        said = f"at least {low:.0%}, by answers to questions that a child can answer"
    else:
        said = accuracy.reason
    return (
        f"The model is not shown to choose the right one of three options more often than one in three ({said}): who "
        "understands no question treats all of them alike, and that says nothing."
    )


def cannot_choose(writer: Generates, rng: np.random.Generator) -> str:
    """The reason why a model cannot answer by choice, from a random sample of easy questions, or ""."""
    questions = easy_questions()
    drawn = [questions[i] for i in sorted(rng.choice(len(questions), _ASKED_AS_A_GATE, replace=False).tolist())]
    return not_shown(accuracy_of([[choice] for choice in choices(writer, drawn, rng)]))
