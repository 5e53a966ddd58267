"""Counterfactual training rows: the same text or person with another identity, their targets, and plain rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from auditor.core.errors import ConfigError, UsageError
from auditor.core.rows import FloatArray, IntArray, Rows, is_number, take_rows
from auditor.data.lexicons import Identity, Lexicon, built_in, neutral, templates
from auditor.data.swaps import Mention, Swapper

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from auditor.models.torch_model import TorchModel

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
            numeric = is_number(X[name])
            if name == feature or not numeric:
                continue
            values = X[name].to_numpy(np.float64, na_value=np.nan)
            means = pd.Series(values[known]).groupby(codes[known]).mean().reindex(range(len(levels))).to_numpy()
            moved = values.copy()
            moved[known] += means[other[known]] - means[codes[known]]
            new[name] = moved
    return new


Sides = Literal["both", "one"]
UNLABELLED = -1
_SUBSTITUTED = 0.5


@dataclass(frozen=True, eq=False, kw_only=True)
class Arm:
    """Training rows: ``x`` (n, ...) inputs; ``y`` (n,) labels, -1 for none; ``target`` (n, n_classes) logits, NaN for
    rows without a target."""

    x: Tensor
    y: Tensor
    target: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """The tensors in the form of the training loop."""
        return self.x, self.y, self.target


@dataclass(frozen=True)
class _Row:
    """A text, its label, and its target: the place of its neutral text or its family, or None."""

    text: str
    label: int
    target: tuple[str, ...] | None


def text_arms(
    model: TorchModel,
    texts: Sequence[str],
    y: IntArray,
    counterfactuals: Sequence[Counterfactuals],
    rng: np.random.Generator,
    *,
    sides: Sides,
    pairing: bool,
) -> tuple[Arm, Arm]:
    """The augmented rows, and as a control the same rows in the same order without a swap.

    sides: whether a text stays beside its counterfactuals, or gives its place to one of them in half of the cases.
    pairing: whether rows have targets: the model's answer on the neutral text, or its mean answer over the text and its
    counterfactuals where no filler fits; a neutral text itself is to be answered as before.
    """
    of_row = {c.row: c for c in counterfactuals if c.row != NO_ROW}
    rows: list[_Row] = []
    control: list[_Row] = []

    def add(text: str, plain: str, label: int, target: tuple[str, ...]) -> None:
        rows.append(_Row(text, label, target if pairing else None))
        control.append(_Row(plain, label, (plain,) if pairing else None))

    for k, text in enumerate(texts):
        own = of_row.get(k)
        if own is None:
            rows.append(_Row(text, int(y[k]), None))
            control.append(rows[-1])
            continue
        target = (own.neutral,) if own.neutral is not None else (text, *own.texts)
        if sides == "both":
            for other in (text, *own.texts):
                add(other, text, int(y[k]), target)
        else:
            add(own.texts[0] if rng.random() < _SUBSTITUTED else text, text, int(y[k]), target)
        if pairing and own.neutral is not None:
            add(own.neutral, own.neutral, UNLABELLED, target)
    for c in counterfactuals:
        if c.row == NO_ROW and pairing:
            target = (c.neutral,) if c.neutral is not None else c.texts
            for other in (*c.texts, *(() if c.neutral is None else (c.neutral,))):
                add(other, c.neutral or other, UNLABELLED, target)
    answers = _answers(model, [t for row in (*rows, *control) for t in row.target or ()])
    return _arm(model, rows, answers), _arm(model, control, answers)


def _answers(model: TorchModel, texts: Sequence[str]) -> dict[str, FloatArray]:
    different = list(dict.fromkeys(texts))
    return dict(zip(different, centred_logits(model, np.asarray(different, object)), strict=True))


def centred_logits(model: TorchModel, X: Rows) -> FloatArray:
    """(n, n_classes) logits minus their mean over the classes, so that the probabilities determine them."""
    import torch

    parts = [np.zeros((0, model.n_outputs))]
    with torch.inference_mode(), model.evaluating():
        for start in range(0, len(X), model.batch_rows):
            z = model.logits(model.encode(take_rows(X, slice(start, start + model.batch_rows)))).double()
            parts.append((z - z.mean(dim=1, keepdim=True)).cpu().numpy())
    return np.concatenate(parts)


def _arm(model: TorchModel, rows: Sequence[_Row], answers: dict[str, FloatArray]) -> Arm:
    import torch

    target = np.full((len(rows), model.n_outputs), np.nan, np.float32)
    for out, row in zip(target, rows, strict=True):
        if row.target is not None:
            out[:] = np.mean([answers[t] for t in row.target], axis=0)
    x = model.encode(np.asarray([row.text for row in rows], object))
    labels = np.asarray([row.label for row in rows], np.int64)
    return Arm(x=x, y=torch.from_numpy(labels).to(x.device), target=torch.from_numpy(target).to(x.device))


def table_arms(
    model: TorchModel,
    X: pd.DataFrame,
    flipped: pd.DataFrame,
    y: IntArray,
    rng: np.random.Generator,
    *,
    sides: Sides,
    pairing: bool,
) -> tuple[Arm, Arm]:
    """The same for a table and its flipped rows; the target is the model's mean answer on a row and its flip."""
    import pandas as pd
    import torch

    own, other = (centred_logits(model, rows) for rows in (X, flipped))
    both = pd.concat([X, flipped], ignore_index=True)
    n = len(X)
    if sides == "both":
        rows, plain, copies = both, pd.concat([X, X], ignore_index=True), 2
    else:
        rows, plain, copies = both.iloc[np.arange(n) + n * (rng.random(n) < _SUBSTITUTED)], X, 1

    def arm(table: pd.DataFrame, target: FloatArray) -> Arm:
        x = model.encode(table)
        wanted = np.tile(target if pairing else np.full_like(target, np.nan), (copies, 1)).astype(np.float32)
        return Arm(
            x=x, y=torch.from_numpy(np.tile(y, copies)).to(x.device), target=torch.from_numpy(wanted).to(x.device)
        )

    return arm(rows, (own + other) / 2.0), arm(plain, own)
