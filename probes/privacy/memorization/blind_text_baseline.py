"""The blind baseline of Das, Zhang and Tramer (2024) for texts: separation of two files without the model."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from auditor.core.rows import FloatArray

FEWEST_TEXTS = 40
_FOLDS = 5
_YEAR = re.compile(r"(?<!\d)(1[5-9]\d\d|20\d\d)(?!\d)")
_WORDS = 1 << 13


def surface(text: str) -> list[float]:
    """Length, words, shares of kinds of characters, and the years that a text names: (9,) numbers."""
    size, words = max(len(text), 1), text.split()
    years = [int(y) for y in _YEAR.findall(text)]
    return [
        np.log1p(len(text)),
        np.log1p(len(words)),
        len(text) / max(len(words), 1),
        sum(c.isdigit() for c in text) / size,
        sum(c.isupper() for c in text) / size,
        sum(not (c.isalnum() or c.isspace()) for c in text) / size,
        float(max(years)) if years else 1900.0,
        float(min(years)) if years else 1900.0,
        float(len(years)),
    ]


def blind_scores(
    members: Sequence[str], others: Sequence[str], rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Scores (n_members,), (n_others,) in (0, 1), higher for members, by two classifiers of the texts alone.

    Logistic regression on words and gradient-boosted trees on length, characters and years, each cross-fitted over five
    folds, so that no text is scored by what learned it. Scores are ranks within a fold, because learners of different
    folds have no common scale, averaged over both.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression

    texts = [*members, *others]
    label = np.repeat([1, 0], [len(members), len(others)])
    words = HashingVectorizer(n_features=_WORDS, token_pattern=r"\w+|[^\w\s]", alternate_sign=False).transform(texts)
    numbers = np.asarray([surface(text) for text in texts])
    fold = np.empty(len(texts), np.int64)
    for side in (0, 1):
        own = rng.permutation(np.flatnonzero(label == side))
        fold[own] = np.arange(own.size) % _FOLDS
    scores = np.empty(len(texts))
    for k in range(_FOLDS):
        out = fold == k
        linear = LogisticRegression(C=10.0, solver="liblinear", max_iter=500, random_state=0)
        trees = HistGradientBoostingClassifier(
            max_iter=30, max_leaf_nodes=6, min_samples_leaf=10, early_stopping=False, random_state=0
        )
        by_words = linear.fit(words[~out], label[~out]).decision_function(words[out])
        by_surface = trees.fit(numbers[~out], label[~out]).decision_function(numbers[out])
        scores[out] = 0.5 * (_ranks(by_words) + _ranks(by_surface))
    return scores[: len(members)], scores[len(members) :]


def _ranks(values: FloatArray) -> FloatArray:
    ordered = np.sort(values)
    middle = 0.5 * (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right"))
    return np.asarray(middle / values.size, np.float64)
