"""The calls of a scan of a server before any is made: a stand-in answers the probes and counts what they ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from auditor.models.endpoint.api_messages import Answer, Choice, Request
from auditor.models.endpoint.client import Address, Outcome
from auditor.models.endpoint.server_findings import Capability, Handshake, Shown
from auditor.models.endpoint.session import NAMES, JournaledClient, OpenEndpoint

# About as many as an honest server is asked in a handshake, and twice in every so many calls thereafter.
_HANDSHAKE, _AGAIN, _EVERY = 36, 2, 100
# English has about four characters a token; other scripts have fewer, of more bytes.
_BYTES_OF_A_TOKEN = 4
_ASSUMED = "Assumed for a plan: nothing was asked."


@dataclass
class Planned:
    """The calls of one probe, the tokens that they send, estimated, and the most that they may be answered with."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def add(self, request: Request, thinking_tokens: int) -> None:
        """Count one call."""
        turns = [request.prompt] if isinstance(request.prompt, str) else [turn.content for turn in request.prompt]
        self.calls += 1
        self.tokens_in += sum(-(-len(turn.encode()) // _BYTES_OF_A_TOKEN) for turn in turns)
        self.tokens_out += (request.max_tokens + thinking_tokens) * request.n


@dataclass
class PlannedEndpoint(OpenEndpoint):
    """A chat server without likelihoods of texts that is asked nothing: each request is counted, and answered by the
    letter A with a reason of its own, as long as it may be: a judge is asked once about each different text."""

    planned: dict[str, Planned] = field(default_factory=dict)
    answered: int = 0

    def outcomes(self, probe: str, requests: Sequence[Request]) -> list[Outcome]:
        """An answer to each request."""
        counted = self.planned.setdefault(probe, Planned())
        for request in requests:
            counted.add(request, self.client.thinking_tokens)
        return [Outcome(answer=Answer(self.client.model, self._choices(each))) for each in requests]

    def _choices(self, request: Request) -> tuple[Choice, ...]:
        first, self.answered = self.answered, self.answered + request.n
        return tuple(
            Choice(f"A, since {i:07}".ljust(_BYTES_OF_A_TOKEN * request.max_tokens, "."), "stop")
            for i in range(first, self.answered)
        )

    def notes(self) -> tuple[str, ...]:
        """Nothing: no record is kept of a plan."""
        return ()

    @property
    def own_calls(self) -> int:
        """The calls of the handshake, and of what is asked again to see whether the same model answers."""
        return _HANDSHAKE + _AGAIN * (sum(each.calls for each in self.planned.values()) // _EVERY + len(self.planned))


def planned_endpoint(url: str, model: str, thinking_tokens: int = 0) -> PlannedEndpoint:
    """The stand-in for a server. Nothing is sent to the URL."""
    found = tuple(
        Capability(name, Shown.UNTOLD if name == "text_likelihoods" else Shown.PROVEN, _ASSUMED) for name in NAMES
    )
    client = JournaledClient(Address(url, loopback=True), model, thinking_tokens=thinking_tokens)
    return PlannedEndpoint(client, Handshake(url, model, found, 0))
