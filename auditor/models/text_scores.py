"""Text scoring by any model: comparison of summed log-probabilities of tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np

from auditor.core.rows import FloatArray, IntArray
from auditor.models.prefix_trees import Encoded, shared_of_pairs, sums_of_pairs

Objective = Literal["causal", "masked", "seq2seq"]
Form = Literal["whole", "shared"]


class ScoresTexts(ABC):
    """Text scoring capability: a model that gives the log-probabilities of its tokens, in nats.

    ``objective``: ``causal`` is ``log p(x_i | x_<i)``, ``masked`` the pseudo form ``log p(x_i | all others)``.
    """

    objective: Objective

    @property
    @abstractmethod
    def notes(self) -> str:
        """The method of scoring texts, in one sentence, for a finding's detail."""

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """The vocabulary size, or the number of tokens seen so far."""

    @abstractmethod
    def with_prefix(self, prefix: str | int | Sequence[int]) -> ScoresTexts:
        """The same model with another prefix before every text; ConfigError if unsupported."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """The texts as tokens; NotApplicableError where one does not fit or has nothing to score."""

    @abstractmethod
    def encode_cut(self, texts: Sequence[str], max_tokens: int | None = None) -> tuple[list[Encoded], int]:
        """The texts as tokens, cut to ``max_tokens`` where that can be done, and how many were cut."""

    @abstractmethod
    def token_log_probabilities(
        self, texts: Sequence[Encoded], places: Sequence[Sequence[int]] | None = None, *, within_word: bool = False
    ) -> list[FloatArray]:
        """For each text (length,) log-probabilities of its tokens in nats, NaN outside of ``places``."""

    def log_likelihoods(self, texts: Sequence[str], *, within_word: bool = False) -> FloatArray:
        """(n,) log-likelihoods in nats of whole texts: ``sum_i log p(x_i | x_<i)``, for a masked model the pseudo form.

        ``within_word``: see :meth:`token_log_probabilities`.
        """
        found = self.token_log_probabilities(self.encode(texts), within_word=within_word)
        return np.asarray([np.nansum(p) for p in found])

    def continuations(self, contexts: Sequence[str], texts: Sequence[str]) -> tuple[FloatArray, IntArray]:
        """Log-likelihoods (n,) of texts directly after their contexts, and the number of tokens (n,) in each sum.

        A token belongs to the text if it ends in it.
        """
        encoded = self.encode([c + t for c, t in zip(contexts, texts, strict=True)])
        places = [
            [i for i, (s, end) in enumerate(zip(e.scored, e.ends, strict=True)) if s and end > len(context)]
            for e, context in zip(encoded, contexts, strict=True)
        ]
        found = self.token_log_probabilities(encoded, places)
        return np.asarray([np.nansum(p) for p in found]), np.asarray([len(p) for p in places], np.int64)

    def pair_scores(
        self, pairs: Sequence[tuple[str, str]], *, form: Form | None = None, within_word: bool = False
    ) -> FloatArray:
        """(n, 2) log-likelihoods of the two texts of each pair, in nats.

        ``form``: ``whole`` sums over all tokens, ``shared`` over those that both texts have (found as in Nangia et al.,
        EMNLP 2020); None means ``whole`` for a causal and ``shared`` for a masked model, as published. NaN where a pair
        shares no token.
        """
        chosen = form or self.own_form
        encoded = self.encode([text for pair in pairs for text in pair])
        places = None if chosen == "whole" else shared_of_pairs(encoded)
        return sums_of_pairs(self.token_log_probabilities(encoded, places, within_word=within_word), places)

    def pair_scores_and_rest(
        self,
        pairs: Sequence[tuple[str, str]],
        rests: Sequence[str],
        *,
        form: Form | None = None,
        within_word: bool = False,
    ) -> tuple[FloatArray, FloatArray]:
        """The pair scores, and those of the shared tokens within the end of each pair's texts; each (n, 2).

        ``rests``: (n,) what both texts of a pair end with; all of the shared tokens where it is "".
        """
        chosen = form or self.own_form
        texts = [text for pair in pairs for text in pair]
        encoded = self.encode(texts)
        shared = shared_of_pairs(encoded)
        begins = [len(text) - len(rest or text) for text, rest in zip(texts, np.repeat(rests, 2).tolist(), strict=True)]
        within = [[i for i in at if e.ends[i] > b] for at, e, b in zip(shared, encoded, begins, strict=True)]
        places = None if chosen == "whole" else shared
        found = self.token_log_probabilities(encoded, places, within_word=within_word)
        return sums_of_pairs(found, places), sums_of_pairs(found, within)

    @property
    def own_form(self) -> Form:
        """The default comparison of two texts: ``shared`` for a masked model, ``whole`` for any other."""
        return "shared" if self.objective == "masked" else "whole"
