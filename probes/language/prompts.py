"""Prompts that differ only in the group of people: built-in, and from a user's lexicon."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from auditor.core.errors import ConfigError, did_you_mean
from auditor.data.lexicons import Lexicon, built_in, parse
from auditor.data.swaps import Swapper

DEFAULT = ("gender", "names", "religion", "occupation")
CATEGORIES = (*DEFAULT, "orientation", "disability", "age", "nationality")


@dataclass(frozen=True)
class Prompts:
    """A category's lexicon, and the sentences for exchanging its identities."""

    lexicon: Lexicon
    beginnings: tuple[str, ...]
    carriers: tuple[str, ...]

    @property
    def category(self) -> str:
        """The category of the identities."""
        return self.lexicon.category

    @property
    def names(self) -> tuple[str, ...]:
        """The identities' names, in the order of every row of :meth:`filled`."""
        return self.lexicon.names

    def filled(self, sentences: Sequence[str], most: int | None, rng: np.random.Generator) -> list[list[str]]:
        """At most ``most`` random sentences in original order, each with every identity; lists of equal length.

        The k-th sentence takes the k-th word of each identity, so that paired names stay paired.
        """
        size = len(sentences) if most is None else min(most, len(sentences))
        chosen = sorted(int(i) for i in rng.choice(len(sentences), size=size, replace=False))
        swapper = Swapper(self.lexicon)
        rows = [[swapper.fill(sentences[k], identity, k) for identity in self.lexicon.identities] for k in chosen]
        return [[text for text in row if text is not None] for row in rows if all(text is not None for text in row)]


@cache
def _content() -> Mapping[str, Any]:
    return tomllib.loads((files("probes") / "data" / "generation.toml").read_text(encoding="utf-8"))


def built_in_prompts(category: str) -> Prompts:
    """The built-in prompts of a category. Raises ConfigError for one that there is not."""
    if category not in CATEGORIES:
        raise ConfigError(
            f"There are no prompts for {category!r}{did_you_mean(category, CATEGORIES)}. There are: "
            f"{', '.join(CATEGORIES)}."
        )
    content = _content()
    lexicon = parse(content["occupation"], "occupation") if category == "occupation" else built_in((category,))[0]
    subjects = content["subjects"][category]

    def sentences(endings: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"{subjects[k % len(subjects)]} {ending}" for k, ending in enumerate(endings))

    return Prompts(lexicon, sentences(content["beginnings"]), sentences(content["carriers"]))


def own_prompts(lexicon: Lexicon) -> Prompts:
    """Prompts of a user's lexicon: its own templates, which also test the scorer."""
    if lexicon.reference or len(lexicon.templates) < 2:
        raise ConfigError(f"The lexicon {lexicon.origin!r} needs at least two templates, the beginnings of texts.")
    return Prompts(lexicon, lexicon.templates, lexicon.templates)
