"""Sense test: whether a model prefers sense to nonsense if neither words nor word order reveal it."""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import ConfigError, DataError
from auditor.core.files import UNREADABLE, read_regular, why_unreadable
from auditor.core.rows import FloatArray
from auditor.judging.measurement import Measurement
from auditor.judging.vacuity import SENSE, SENTENCES
from auditor.statistics.rates import Proportion

if TYPE_CHECKING:
    from auditor.core.rows import FloatArray

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
