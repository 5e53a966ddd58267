"""An open endpoint of a scan: connection, journal, demonstrated capabilities, and sent requests.

Its client stores answers in the journal, and reuses the answers of an earlier run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from auditor.core.errors import ModelError
from auditor.models.endpoint.address import address_of
from auditor.models.endpoint.api_messages import Answer, Request
from auditor.models.endpoint.call_result import Outcome
from auditor.models.endpoint.capability import Handshake
from auditor.models.endpoint.client import Client, Limits, key_of
from auditor.models.endpoint.handshake import shake_hands
from auditor.models.endpoint.handshake_prompts import OTHER_MODEL, fingerprint
from auditor.models.endpoint.handshake_state import Asking
from auditor.models.endpoint.journal import Journal
from auditor.models.endpoint.text_distance import distances, typical

# So many requests in a row without any answer: the server is gone, and to wait for each of the others tells no more.
_GONE = 8


@dataclass
class JournaledClient(Client):
    """A client with a ``journal``; ``left_open``: whether some request has no settled outcome, ``requests``: their
    number, from the journal or not."""

    journal: Journal | None = None
    left_open: bool = field(default=False, init=False)
    requests: int = field(default=0, init=False)
    _unanswered: int = field(default=0, init=False, repr=False)

    def ask(self, request: Request, *, model: str | None = None) -> Answer:
        """See :meth:`Client.ask`."""
        return self._outcome(request, model, self._look_up(request, model)).answer_or_raise()

    def ask_all(self, requests: Sequence[Request]) -> list[Answer]:
        """See :meth:`Client.ask_all`."""
        return [outcome.answer_or_raise() for outcome in self.outcomes(requests)]

    def outcomes(self, requests: Sequence[Request]) -> list[Outcome]:
        """The outcome of each request, in order, with as much concurrency as the limits allow; never raises."""
        # In order, so that the k-th of equal requests is the k-th again when a run is resumed.
        known = [self._look_up(request, None) for request in requests]
        with ThreadPoolExecutor(self.limits.concurrency) as pool:
            return list(pool.map(lambda pair: self._outcome(pair[0], None, pair[1]), zip(requests, known, strict=True)))

    def _look_up(self, request: Request, model: str | None) -> tuple[str, Outcome | None]:
        self.requests += 1
        return ("", None) if self.journal is None else self.journal.next_of(request, model or self.model)

    def _outcome(self, request: Request, model: str | None, lookup: tuple[str, Outcome | None]) -> Outcome:
        digest, had = lookup
        if had is not None:
            return had
        if self._unanswered >= _GONE:
            self.left_open = True
            return Outcome(failed=f"{self.address.url} no longer answers: {_GONE} calls in a row came to nothing.")
        try:
            found = Outcome(answer=super().ask(request, model=model))
        except ModelError as error:
            found = Outcome.from_error(error)
        self._unanswered = 0 if found.answer is not None or found.status or found.spent else self._unanswered + 1
        self.left_open |= not found.settled
        if self.journal is not None:
            self.journal.add(digest, found)
        return found


@dataclass(frozen=True, kw_only=True)
class EndpointAsked:
    """An endpoint and its permitted use; ``key_variable``: the environment variable with its key."""

    url: str
    model: str
    key_variable: str | None = None
    allow_remote: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass
class OpenEndpoint:
    """An endpoint open for a scan; ``sent``: the number of requests by each probe, from the journal or not.

    ``reference``: the folder of the model that is said to be served, "" where none was named.
    """

    client: JournaledClient
    handshake: Handshake
    resumed: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    reference: str = ""

    def outcomes(self, probe: str, requests: Sequence[Request]) -> list[Outcome]:
        """The outcomes of a probe's requests."""
        self.sent[probe] += len(requests)
        return self.client.outcomes(requests)

    def notes(self) -> tuple[str, ...]:
        """The record's sentences on the calls."""
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
    options: EndpointAsked, journal: Path | None, on_stage: Callable[[str], None] = lambda name: None
) -> Iterator[OpenEndpoint]:
    """Context with an open endpoint after its handshake.

    ``journal``: where answers are kept, None for nowhere. Raises UsageError for a URL, a name or a key that is none,
    and what :class:`Journal` raises; ModelError where nothing answers, or another model than the journal's.
    """
    address, key = address_of(options.url, allow_remote=options.allow_remote), key_of(options.key_variable)
    kept = None if journal is None else Journal(journal, address.url, options.model)
    finished = False
    try:
        with JournaledClient(address, options.model, key, options.limits, journal=kept) as client:
            asking = Asking(client)
            found = replace(shake_hands(client, on_stage=on_stage, state=asking), calls=client.requests)
            resumed = 0 if kept is None else kept.resumed
            if resumed:
                with Client(address, options.model, key, options.limits) as plain:
                    _still_the_same(asking, plain, str(journal))
            yield OpenEndpoint(client, found, resumed)
            finished = not client.left_open
    finally:
        if kept is not None:
            kept.close(finished=finished)


def _still_the_same(state: Asking, plain: Client, journal: str) -> None:
    """Asks for the handshake's fingerprint anew, past the journal."""
    if not state.taken:
        return
    now = fingerprint(replace(state, client=plain))
    apart: list[float] = []
    for before, after in zip(state.taken, now, strict=True):
        apart += distances(before, after, positions=1)
    moved = typical(apart)
    other = state.is_proven("greedy") and any(a.text != b.text for a, b in zip(state.taken, now, strict=True))
    if other if moved is None else moved > OTHER_MODEL:
        raise ModelError(
            f"Another model answers now than when the unfinished scan of {journal!r} began: take that file away to "
            "begin anew."
        )
