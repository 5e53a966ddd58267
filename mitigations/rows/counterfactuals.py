"""Counterfactuals of training rows: the same text with another identity, the same person of another group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from auditor.core.errors import ConfigError, UsageError
from auditor.data.lexicons import Identity, Lexicon, built_in, neutral, templates
from auditor.data.swaps import Mention, Swapper

if TYPE_CHECKING:
    import pandas as pd

NO_ROW = -1


@dataclass(frozen=True)
class Counterfactuals:
    """The counterfactuals of a text for other identities.

    ``row``: the position of the text it is of, -1 for sentences of the generator's own. ``texts``: the same text of
    other identities. ``neutral``: the text with a filler that names no group; None where no filler fits its grammar.
    ``category``: what the identities are of.
    """

    row: int
    texts: tuple[str, ...]
    neutral: str | None
    category: str


class CounterfactualGenerator(Protocol):
    """A generator of counterfactual texts: from lexicons, from templates, or by a user's method.

    At most one element for each text; whatever is drawn comes from ``rng``. The label of a text is taken to hold for
    its counterfactuals: a generator leaves out those of which it does not.
    """

    def __call__(self, texts: Sequence[str], rng: np.random.Generator) -> Sequence[Counterfactuals]:
        """Counterfactuals of those texts for which there are any, in order."""
        ...


class LexiconSwaps:
    """Texts with another identity of the same lexicon in place of the first one named, grammatically correct.

    Pronouns keep their part in the sentence, articles follow the sound, a name goes to one of the same gender and
    another origin (lexicon ``names``) or of the other gender and the same place in the list (lexicon ``gender``);
    where a text names identities of several lexicons, one is drawn. copies: at most so many counterfactuals of a text,
    drawn among the identities that fit. filler: the word that names no group.

    Source: Lu et al., 2018 (arXiv:1807.11714); names: Hall Maudslay et al., EMNLP 2019.
    """

    def __init__(
        self, lexicons: Sequence[Lexicon] | None = None, *, copies: int = 1, filler: str | None = None
    ) -> None:
        if copies < 1:
            raise ValueError(f"copies must be at least 1, not {copies}")
        self.lexicons = built_in() if lexicons is None else tuple(lexicons)
        self.copies = copies
        self.filler = filler_of(filler)
        self._swappers = [Swapper(lexicon) for lexicon in self.lexicons]

    def __call__(self, texts: Sequence[str], rng: np.random.Generator) -> list[Counterfactuals]:
        """Counterfactuals of the texts that name an identity."""
        found = []
        for row, text in enumerate(texts):
            named = [(s, m) for s in self._swappers for m in [s.mentions(text)] if m]
            if named:
                swapper, mentions = named[int(rng.integers(len(named)))]
                others = self._swapped_texts(swapper, text, mentions, rng)
                if others:
                    filled = swapper.swap(text, mentions[0].identity, self.filler, mentions)
                    found.append(Counterfactuals(row, others, filled, swapper.lexicon.category))
        return found

    def _swapped_texts(
        self, swapper: Swapper, text: str, mentions: list[Mention], rng: np.random.Generator
    ) -> tuple[str, ...]:
        first = mentions[0].identity
        names = [name for name in swapper.lexicon.names if name != first]
        others: list[str] = []
        for k in rng.permutation(len(names)).tolist():
            other = swapper.swap(text, first, names[k], mentions)
            if other is not None:
                others.append(other)
            if len(others) == self.copies:
                break
        return tuple(others)


class TemplateSentences:
    """The generator's own sentences, each with every identity of a lexicon inserted; they have no label.

    sentences: templates with placeholders such as ``{adjective}``; None means the built-in ones and the lexicons' own.
    most: at most so many of them for each lexicon, drawn; None means all. filler: the word that names no group. The
    texts that are given play no part.

    Source: Dixon et al., AIES 2018.
    """

    def __init__(
        self,
        lexicons: Sequence[Lexicon] | None = None,
        *,
        sentences: Sequence[str] | None = None,
        most: int | None = None,
        filler: str | None = None,
    ) -> None:
        if most is not None and most < 1:
            raise ValueError(f"most must be at least 1, not {most}")
        self.lexicons = built_in() if lexicons is None else tuple(lexicons)
        own = [t for lexicon in self.lexicons for t in lexicon.templates]
        self.sentences = tuple(dict.fromkeys([*templates(), *own] if sentences is None else sentences))
        self.most = most
        self.filler = filler_of(filler)

    def __call__(self, texts: Sequence[str], rng: np.random.Generator) -> list[Counterfactuals]:
        """A sentence's fillings for each lexicon of which two identities fit it."""
        found = []
        for lexicon in self.lexicons:
            swapper = Swapper(lexicon)
            fitting = []
            for sentence in self.sentences:
                # Of several words, names for instance, one place in the lists is drawn for all.
                place = int(rng.integers(2**16))
                filled = tuple(t for i in lexicon.identities for t in [swapper.fill(sentence, i, place)] if t)
                if len(filled) >= 2:
                    bare = swapper.fill(sentence, self.filler)
                    fitting.append(Counterfactuals(NO_ROW, filled, bare, lexicon.category))
            if self.most is not None and len(fitting) > self.most:
                fitting = [fitting[k] for k in np.sort(rng.choice(len(fitting), self.most, replace=False))]
            found += fitting
        return found


class Both:
    """The counterfactuals of several generators, one after the other."""

    def __init__(self, *generators: CounterfactualGenerator) -> None:
        self.generators = generators

    def __call__(self, texts: Sequence[str], rng: np.random.Generator) -> list[Counterfactuals]:
        """All of them."""
        return [found for generator in self.generators for found in generator(texts, rng)]


def filler_of(word: str | None) -> Identity:
    """The filler as something to swap in: the word, or the first of the built-in neutral words."""
    (words,) = neutral().identities
    if word is None:
        return Identity(words.name, {role: own[:1] for role, own in words.words.items()})
    if not word.strip():
        raise ConfigError("The filler must be a word that names no group, such as 'tall'.")
    return Identity(words.name, {"adjective": (word.strip(),)})


def flipped(X: pd.DataFrame, feature: str, *, impute: bool, rng: np.random.Generator) -> pd.DataFrame:
    """The rows with each value of a feature replaced by another of its values, drawn uniformly.

    impute: every other numeric column moves by the difference of the two groups' means, which is what a linear model of
    the column on the feature imputes with the row's own residual kept. Missing values of the feature stay.

    Raises UsageError where the feature is no column or has one value.
    """
    import pandas as pd

    if feature not in X.columns:
        raise UsageError(
            f"The sensitive feature {feature!r} is no feature of the model, so there is nothing to flip: name one that "
            "it takes, or use reweighing."
        )
    codes, levels = pd.factorize(X[feature], sort=True)
    if len(levels) < 2:
        raise UsageError(f"The sensitive feature {feature!r} has one value only: there is nothing to flip it to.")
    codes = np.asarray(codes, np.int64)
    known = codes >= 0
    other = np.where(known, (codes + 1 + rng.integers(len(levels) - 1, size=len(codes))) % len(levels), codes)
    new = X.copy()
    new.loc[known, feature] = np.asarray(levels)[other[known]]
    if impute:
        for name in X.columns:
            numeric = pd.api.types.is_numeric_dtype(X[name]) and not pd.api.types.is_bool_dtype(X[name])
            if name == feature or not numeric:
                continue
            values = X[name].to_numpy(np.float64, na_value=np.nan)
            means = pd.Series(values[known]).groupby(codes[known]).mean().reindex(range(len(levels))).to_numpy()
            moved = values.copy()
            moved[known] += means[other[known]] - means[codes[known]]
            new[name] = moved
    return new
