"""The state of a handshake: the interface in use, the findings so far, and the interpretation of a refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from auditor.core.errors import ModelError, first_line
from auditor.models.endpoint.api_messages import Answer, Choice, Request, Route
from auditor.models.endpoint.capability import Capability, Shown, lacking, untold
from auditor.models.endpoint.client import BudgetSpentError, Client, RefusedError

# The chance that an honest server is accused by any of the tests of chance in one handshake, and how many share it.
FALSE_ALARMS = 1e-3
TESTS = 9
MOST_ALTERNATIVES = 20
FEW_ALTERNATIVES = 5


@dataclass
class Asking:
    """The state of one handshake in progress.

    ``alternatives``: how many the server reports at a position, 0 without log-probabilities.
    """

    client: Client
    route: Route = "completions"
    alternatives: int = 0
    found: dict[str, Capability] = field(default_factory=dict)
    # Texts drawn at temperature 1, all from the model's own distribution where the server is honest.
    drawn: list[Choice] = field(default_factory=list)
    # What the model reported of two prompts when the handshake began.
    taken: list[Choice] = field(default_factory=list)

    def ask(self, prompt: str, max_tokens: int, *, temperature: float = 0.0, **more: object) -> Answer:
        """Send one call through the working interface, with as many alternatives as it is known to report."""
        return self.client.ask(self.request(prompt, max_tokens, temperature=temperature, **more))

    def request(self, prompt: str, max_tokens: int, *, temperature: float = 0.0, **more: object) -> Request:
        """The request that ``ask`` sends."""
        request = Request(
            prompt=prompt, max_tokens=max_tokens, temperature=temperature, top_logprobs=self.alternatives or None
        )
        return replace(request, **more).for_route(self.route)  # type: ignore[arg-type]

    def add(self, *capabilities: Capability) -> None:
        """Add capabilities; existing entries are kept."""
        for each in capabilities:
            self.found.setdefault(each.name, each)

    def is_proven(self, name: str) -> bool:
        """Whether a capability is proven by now."""
        return name in self.found and self.found[name].shown is Shown.PROVEN

    def step(self, names: tuple[str, ...], ask: Callable[[Asking], None]) -> None:
        """Test some capabilities; those left open by a refusal or an error are marked so."""
        try:
            ask(self)
        except RefusedError as error:
            self.add(*(lacking(name, str(error)) for name in names))
        except BudgetSpentError as error:
            self.add(*(untold(name, str(error)) for name in names))
        except ModelError as error:
            self.add(*(untold(name, f"{first_line(error)}.") for name in names))
        self.add(*(untold(name, "Nothing that came back shows it.") for name in names))
