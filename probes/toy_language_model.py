"""A language model without weights, of which the truth is known: texts of a length are equally likely to it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from auditor.core.rows import FloatArray, Rows
from auditor.models.audited_model import AuditedModel
from auditor.models.prefix_trees import Encoded
from auditor.models.text_scores import ScoresTexts

_MEAN, _SPREAD = -2.0, 0.1


def _no_classes(X: Rows) -> FloatArray:
    raise TypeError("a language model has no classes")


class ToyLanguageModel(ScoresTexts, AuditedModel):
    """Each character is a token, its log-probability drawn anew in each text, by a seed of both."""

    kind = "language_model"
    objective = "causal"
    notes = "Each character has a log-probability that is drawn."
    vocabulary = 0x110000

    def __init__(self, seed: int) -> None:
        super().__init__(_no_classes, classes=())
        self.seed = seed

    def with_prefix(self, prefix: str | int | Sequence[int]) -> ToyLanguageModel:
        """The same model: its characters do not depend on what stands before them."""
        return self

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """The texts as characters."""
        return [
            Encoded(tuple(map(ord, text)), (True,) * len(text), tuple(range(1, len(text) + 1)), (0,) * len(text))
            for text in texts
        ]

    def encode_cut(self, texts: Sequence[str], max_tokens: int | None = None) -> tuple[list[Encoded], int]:
        """The texts as characters, cut to ``max_tokens``."""
        cut = 0 if max_tokens is None else sum(len(text) > max_tokens for text in texts)
        return self.encode([text[:max_tokens] for text in texts]), cut

    def token_log_probabilities(
        self, texts: Sequence[Encoded], places: Sequence[Sequence[int]] | None = None, *, within_word: bool = False
    ) -> list[FloatArray]:
        """For each text (length,) log-probabilities of its characters in nats, NaN outside of ``places``."""
        found = []
        for i, text in enumerate(texts):
            digest = zlib.crc32("".join(map(chr, text.ids)).encode())
            drawn = np.random.default_rng([self.seed, digest]).normal(_MEAN, _SPREAD, len(text.ids))
            kept = np.ones(len(text.ids), bool)
            if places is not None:
                kept[:] = False
                kept[list(places[i])] = True
            found.append(np.where(kept, np.minimum(drawn, 0.0), np.nan))
        return found
