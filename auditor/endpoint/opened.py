"""An endpoint that is open for a scan: its connection, its journal, what its server was shown to do, what was sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from auditor.endpoint.address import address_of
from auditor.endpoint.asking import Asking
from auditor.endpoint.capability import Handshake
from auditor.endpoint.client import Client, Limits, key_of
from auditor.endpoint.comparing import distances, typical
from auditor.endpoint.handshake import shake_hands
from auditor.endpoint.journal import Journal
from auditor.endpoint.journaled import JournaledClient
from auditor.endpoint.messages import Request
from auditor.endpoint.outcome import Outcome
from auditor.endpoint.read_prompts import OTHER_MODEL, fingerprint
from auditor.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class EndpointAsked:
    """Which endpoint, and how it may be asked; ``key_variable`` names the environment variable that holds its key."""

    url: str
    model: str
    key_variable: str | None = None
    allow_remote: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass
class OpenEndpoint:
    """``sent``: how many requests each probe had made, from the journal or not. ``reference``: the folder of the model
    that is said to be served, "" where none was named."""

    client: JournaledClient
    handshake: Handshake
    resumed: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    reference: str = ""

    def outcomes(self, probe: str, requests: Sequence[Request]) -> list[Outcome]:
        """What became of requests that a probe makes."""
        self.sent[probe] += len(requests)
        return self.client.outcomes(requests)

    def notes(self) -> tuple[str, ...]:
        """What the record says of the calls, in sentences."""
        by = ", ".join(f"{n:,} of {probe}" for probe, n in self.sent.items()) or "none of any probe"
        said = [f"Requests: {self.handshake.calls:,} of the handshake, {by}; {self.client.calls:,} calls were made."]
        if self.reference:
            said.append(f"served_model is about the reference {self.reference}.")
        if not self.client.address.loopback:
            said.append(
                "The texts of all these requests left this machine: those of the handshake are the tool's own, those "
                "of a probe are its benchmark's, its own or the data's."
            )
        if self.resumed:
            said.append(f"{self.resumed:,} answers are from the journal of a run that did not end.")
        return tuple(said)


@contextmanager
def open_endpoint(
    asked: EndpointAsked, journal: Path | None, on_stage: Callable[[str], None] = lambda name: None
) -> Iterator[OpenEndpoint]:
    """The endpoint with its handshake made, while the block lasts.

    ``journal``: where answers are kept, None for nowhere. Raises UsageError for a URL, a name or a key that is none,
    and what :class:`Journal` raises; ModelError where nothing answers, or another model than the journal's.
    """
    address, key = address_of(asked.url, allow_remote=asked.allow_remote), key_of(asked.key_variable)
    kept = None if journal is None else Journal(journal, address.url, asked.model)
    finished = False
    try:
        with JournaledClient(address, asked.model, key, asked.limits, journal=kept) as client:
            asking = Asking(client)
            found = replace(shake_hands(client, on_stage=on_stage, asking=asking), calls=client.requests)
            resumed = 0 if kept is None else kept.resumed
            if resumed:
                with Client(address, asked.model, key, asked.limits) as plain:
                    _still_the_same(asking, plain, str(journal))
            yield OpenEndpoint(client, found, resumed)
            finished = not client.left_open
    finally:
        if kept is not None:
            kept.close(finished=finished)


def _still_the_same(asking: Asking, plain: Client, journal: str) -> None:
    """Asks for the handshake's fingerprint anew, past the journal."""
    if not asking.taken:
        return
    now = fingerprint(replace(asking, client=plain))
    apart: list[float] = []
    for before, after in zip(asking.taken, now, strict=True):
        apart += distances(before, after, positions=1)
    moved = typical(apart)
    other = asking.shown("greedy") and any(a.text != b.text for a, b in zip(asking.taken, now, strict=True))
    if other if moved is None else moved > OTHER_MODEL:
        raise ModelError(
            f"Another model answers now than when the unfinished scan of {journal!r} began: take that file away to "
            "begin anew."
        )
