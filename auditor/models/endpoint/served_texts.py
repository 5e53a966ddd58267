"""Texts drawn by a server and their comparison with a reference, as plain data shared by two processes."""

from __future__ import annotations

from dataclasses import dataclass

from auditor.models.endpoint.api_messages import Route


@dataclass(frozen=True, kw_only=True)
class ServedText:
    """An answer at temperature 1.

    ``tokens``: as reported, with their log-probabilities in nats, None where one is missing; without ``reported`` the
    whole text is one token. ``ended``: whether it ended of itself, before its length.
    """

    prompt: str
    text: str
    reported: bool
    ended: bool
    tokens: tuple[str, ...] = ()
    log_probabilities: tuple[float | None, ...] = ()

    @property
    def n_draws(self) -> int:
        """The number of draws in the text, including its end."""
        return len(self.tokens) + self.ended if self.reported else 1


@dataclass(frozen=True, kw_only=True)
class ServedTexts:
    """All draws in order; only the first ``n_tested`` are tested."""

    route: Route
    texts: tuple[ServedText, ...]
    n_tested: int


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The result of comparing drawn texts with a reference.

    ``n``: draws tested, ``p``: how likely they are as the reference's own, or less likely ones. ``unlikely``: the share
    of them among the least likely twentieth of the reference's distribution. ``n_reported``: draws with a reported
    log-probability or an end without; ``nearest``, ``farthest``: bounds of the mean total variation at those places.
    ``unspelled``: tokens that are none of the reference's, ``n_unspelled`` in all; ``untested``: why there is no test.
    ``misspelled``: whether a text is not what its tokens spell.
    """

    n: int = 0
    p: float = 1.0
    unlikely: float = 0.0
    n_reported: int = 0
    nearest: float = 0.0
    farthest: float = 1.0
    unspelled: tuple[str, ...] = ()
    n_unspelled: int = 0
    misspelled: bool = False
    untested: str = ""
