"""Demonstrated capabilities of a server: request parameters that it obeys or ignores."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

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
