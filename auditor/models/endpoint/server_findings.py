"""Findings about a server as plain data: demonstrated capabilities, and texts drawn and compared with a reference."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from auditor.models.endpoint.api_messages import Route

# The one that needs a reference: is it what is served?
SERVED_MODEL = "served_model"


class Shown(StrEnum):
    """The demonstrated status of a capability."""

    PROVEN = "proven"
    REFUTED = "refuted"
    UNTOLD = "could not tell"


@dataclass(frozen=True)
class Capability:
    """One capability of a server: its status by the answers, and the reason.

    ``accepted``: of one refuted, whether requests for it were answered as if it were done; a refusal misleads nobody.
    """

    name: str
    shown: Shown
    why: str
    accepted: bool = False


@dataclass(frozen=True)
class Handshake:
    """All capabilities of an endpoint, and the number of calls used."""

    url: str
    model: str
    capabilities: tuple[Capability, ...]
    calls: int

    def __getitem__(self, name: str) -> Capability:
        return next(each for each in self.capabilities if each.name == name)

    def has(self, name: str) -> bool:
        """Whether a capability is proven."""
        return self[name].shown is Shown.PROVEN

    @property
    def ignored(self) -> tuple[Capability, ...]:
        """Capabilities that are accepted but not performed: the findings."""
        return tuple(each for each in self.capabilities if each.accepted)

    @property
    def exit_code(self) -> int:
        """1 if a capability is accepted but not performed, 3 if one is refused or undetermined, else 0."""
        if self.ignored:
            return 1
        return 0 if all(each.shown is Shown.PROVEN for each in self.capabilities) else 3


def proven(name: str, reason: str) -> Capability:
    """A capability that was demonstrated."""
    return Capability(name, Shown.PROVEN, reason)


def ignored(name: str, reason: str) -> Capability:
    """A capability that was requested and confirmed, but not performed."""
    return Capability(name, Shown.REFUTED, reason, accepted=True)


def lacking(name: str, reason: str) -> Capability:
    """A capability that is absent, and that the server does not claim to have."""
    return Capability(name, Shown.REFUTED, reason)


def untold(name: str, reason: str) -> Capability:
    """The answers show neither."""
    return Capability(name, Shown.UNTOLD, reason)


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
