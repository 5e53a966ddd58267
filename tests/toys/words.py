"""The preprocessing of a toy text model, fitted to its texts."""

from __future__ import annotations

from collections.abc import Sequence

from auditor.data.preprocessing import KERAS_FILTERS, TextPreprocessing


def fit_text(X: Sequence[str], *, size: int = 20_000, length: int = 100) -> TextPreprocessing:
    """The ``size`` most frequent words of the training texts, by falling frequency, then alphabet."""
    counts: dict[str, int] = {}
    table = str.maketrans(KERAS_FILTERS, " " * len(KERAS_FILTERS))
    for text in X:
        for word in text.lower().translate(table).split():
            counts[word] = counts.get(word, 0) + 1
    frequent = sorted(counts, key=lambda w: (-counts[w], w))[: size - 2]
    return TextPreprocessing(vocabulary={w: i for i, w in enumerate(frequent, 2)}, length=length, unknown=1)
