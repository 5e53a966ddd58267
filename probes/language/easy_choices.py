"""Questions that a child can answer: whether a model that only writes can be asked to choose at all."""

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
from probes.language.open_shares import share_between

if TYPE_CHECKING:
    from auditor.model.capabilities import Generates

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


def accuracy_of(chosen: Sequence[Sequence[Choice]]) -> RatioOfTotals | RatioBetween | Undefined:
    """The share of right answers to questions that were each asked some times; without an answer: least, largest."""
    right = np.asarray([float(sum(c.option == RIGHT for c in some)) for some in chosen])
    missing = np.asarray([float(sum(c.option is None for c in some)) for some in chosen])
    times = np.asarray([float(len(some)) for some in chosen])
    return share_between(right, right + missing, times, int(missing.sum()), int(times.sum()))


def not_shown(accuracy: RatioOfTotals | RatioBetween | Undefined) -> str:
    """Why a model is not shown to understand what it is asked, in a sentence, or ""."""
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
    """The same, asked: some of the easy questions, drawn, each once."""
    questions = easy_questions()
    drawn = [questions[i] for i in sorted(rng.choice(len(questions), _ASKED_AS_A_GATE, replace=False).tolist())]
    return not_shown(accuracy_of([[choice] for choice in choices(writer, drawn, rng)]))
