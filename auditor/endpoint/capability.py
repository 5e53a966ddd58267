"""What a server was shown to do, or not to do, with what it is told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# The one that needs a reference: is it what is served?
SERVED_MODEL = "served_model"


class Shown(StrEnum):
    """What the answers show of a capability."""

    PROVEN = "proven"
    REFUTED = "refuted"
    UNTOLD = "could not tell"


@dataclass(frozen=True)
class Capability:
    """One thing that a server may do: what its answers show of it, and why.

    ``accepted``: of one refuted, whether requests for it were answered as if it were done; a refusal misleads nobody.
    """

    name: str
    shown: Shown
    why: str
    accepted: bool = False


@dataclass(frozen=True)
class Handshake:
    """All capabilities of an endpoint, and how many calls they took."""

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
        """What is accepted and not done: the findings."""
        return tuple(each for each in self.capabilities if each.accepted)

    @property
    def exit_code(self) -> int:
        """1 where something is accepted and not done, 3 where something is refused or could not be told, else 0."""
        if self.ignored:
            return 1
        return 0 if all(each.shown is Shown.PROVEN for each in self.capabilities) else 3


def proven(name: str, why: str) -> Capability:
    """It was seen to be done."""
    return Capability(name, Shown.PROVEN, why)


def ignored(name: str, why: str) -> Capability:
    """It was asked for, answered as if it were done, and not done."""
    return Capability(name, Shown.REFUTED, why, accepted=True)


def lacking(name: str, why: str) -> Capability:
    """It is not to be had, and the server does not pretend that it were."""
    return Capability(name, Shown.REFUTED, why)


def untold(name: str, why: str) -> Capability:
    """The answers show neither."""
    return Capability(name, Shown.UNTOLD, why)
