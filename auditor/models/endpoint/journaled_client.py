"""A client that stores answers in a journal, and reuses the answers of an earlier run."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from auditor.core.errors import ModelError
from auditor.models.endpoint.api_messages import Answer, Request
from auditor.models.endpoint.call_result import Outcome
from auditor.models.endpoint.client import Client
from auditor.models.endpoint.journal import Journal

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
