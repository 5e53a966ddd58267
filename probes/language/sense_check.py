"""Sense tests of a model: preference for sense over nonsense, and answers to very easy multiple-choice questions."""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import ConfigError, DataError
from auditor.core.files import UNREADABLE, read_regular, why_unreadable
from auditor.core.rows import FloatArray
from auditor.judging.judgement import SENSE, SENTENCES
from auditor.judging.measurement import Measurement
from auditor.statistics.estimate import Undefined
from auditor.statistics.rates import Proportion
from auditor.statistics.values import RatioBetween, RatioOfTotals
from probes.language.forced_choice import Choice, Question, choices
from probes.language.preference_shares import share_between

if TYPE_CHECKING:
    from auditor.models.capabilities import Generates

# Quadruples, of which no two share a pair: they are as many independent items.
_MOST = 100
_MOST_BYTES = 1 << 20
# A difference of differences this small beside the log-likelihoods is rounding.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Family:
    """``frames``: sentences with two gaps, ``{}``; ``pairs``: matching words for any of them, each pair once."""

    frames: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """Families with exchangeable pairs inside each, and their source, in words."""

    families: tuple[Family, ...]
    source: str


def read_sense(path: str | None = None) -> Table:
    """The table of a TOML file, or that of this tool: ``[[families]]`` with ``frames`` and ``pairs``.

    Raises ConfigError where the file is another.
    """
    where = files("probes") / "data" / "sense.toml" if path is None else Path(path)
    name = f"The table of sense {where.name!r}"
    try:
        raw = where.read_bytes() if path is None else read_regular(Path(os.path.realpath(path)), name, _MOST_BYTES)
        table = _parsed(raw)
    except DataError as error:
        raise ConfigError(str(error)) from None
    except UNREADABLE as error:
        raise ConfigError(f"{name} cannot be read: {why_unreadable(error)}.") from None
    try:
        families = tuple(_family(entry) for entry in table["families"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} needs [[families]], each with frames, texts with two gaps {{}}, and at least two pairs of texts, "
            f"none of which stands twice ({error})."
        ) from None
    if not families:
        raise ConfigError(f"{name} has no families.")
    whose = "the table of this tool" if path is None else where.name
    whose += f", sha256 {hashlib.sha256(raw).hexdigest()[:16]}"
    return Table(families, whose)


# Every probe that is made reads it.
@lru_cache(maxsize=1)
def _parsed(raw: bytes) -> Mapping[str, Any]:
    return tomllib.loads(raw.decode("utf-8"))


def _family(entry: Any) -> Family:
    frames = tuple(str(frame) for frame in entry["frames"])
    pairs = tuple((str(first), str(second)) for first, second in entry["pairs"])
    if not frames or any(frame.count("{}") != 2 or set("{}") & set(frame.replace("{}", "")) for frame in frames):
        raise ValueError("a frame without two gaps")
    if len(pairs) < 2 or any(len(set(side)) < len(pairs) for side in zip(*pairs, strict=True)):
        raise ValueError("fewer than two pairs, or one that stands twice")
    return Family(frames, pairs)


def quadruples(table: Table, rng: np.random.Generator) -> list[tuple[str, str, str, str]]:
    """At most 100 random combinations of two pairs of a family and a frame: both matching, and both crossed.

    No pair is drawn twice, so that the quadruples are independent as samples of pairs.
    """
    drawn = []
    for family in table.families:
        order = rng.permutation(len(family.pairs)).tolist()
        for i, j in zip(order[::2], order[1::2], strict=False):
            frame = family.frames[int(rng.integers(len(family.frames)))]
            (a, b), (c, d) = family.pairs[i], family.pairs[j]
            drawn.append((frame.format(a, b), frame.format(c, d), frame.format(a, d), frame.format(c, b)))
    kept = np.sort(rng.permutation(len(drawn))[:_MOST])
    return [drawn[i] for i in kept.tolist()]


def sense_accuracy(scores: FloatArray, whence: str, rng: np.random.Generator) -> Measurement:
    """The share of quadruples, (n, 4) log-likelihoods, with the first two texts jointly likelier."""
    coins = rng.random(len(scores)) < 0.5
    apart = scores[:, 0] + scores[:, 1] - scores[:, 2] - scores[:, 3]
    size = np.abs(scores).sum(axis=1)
    blind = ~(np.abs(apart) > _ROUNDING * size)
    won = np.where(blind, coins, apart > 0.0)
    return Measurement(
        metric="sense_accuracy",
        estimate=Proportion(successes=int(won.sum()), n=len(won)),
        n_samples=len(won),
        ideal=1.0,
        chance=0.5,
        at={SENTENCES: SENSE},
        detail=f"{len(won):,} quadruples drawn from {whence}; {int(blind.sum()):,} ties, each a coin",
        part=True,
    )


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
