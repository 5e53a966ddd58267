"""Test whether the served model is the audited model, by scoring the server's texts with a reference model.

The prompts to continue are passages of this tool, cut in the middle of a sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from auditor.core.errors import ModelError, first_line
from auditor.models.endpoint.api_messages import Choice, Request, Route
from auditor.models.endpoint.client import Client
from auditor.models.endpoint.server_findings import SERVED_MODEL as NAME
from auditor.models.endpoint.server_findings import (
    Capability,
    Compared,
    Handshake,
    ServedText,
    ServedTexts,
    Shown,
    ignored,
    proven,
    untold,
)

# Of many subjects, so that the next word is open; none holds a name, a date or anything of a user's.
_PASSAGES = (
    "When the last ferry had left the island, the keeper of the small museum locked the door and walked along the "
    "harbour wall, where the fishermen were mending their nets and talking about the weather, the price of fuel "
    "and",
    "A good loaf of bread needs very little: flour, water, salt and time. Most people who bake at home hurry the "
    "dough, and then wonder why the crust is pale, the crumb is dense and the taste is",
    "The committee met for the third time on a rainy afternoon and agreed on almost nothing. Some members wanted "
    "to repair the old bridge, others hoped to build a new one further down the river, and a few said that",
    "In the mountains the first snow often comes before the leaves have fallen. The farmers bring their animals "
    "down from the high meadows, stack wood against the southern wall and check whether the roof will",
    "To learn an instrument as an adult is a lesson in patience. The fingers do not do what the ear asks of them, "
    "the neighbours complain, and yet after some months there comes an evening on which",
    "The library bought a machine that could read old handwriting, and for a week everybody brought letters from "
    "their attics. There were recipes, bills, a poem about a dog, two proposals of marriage and",
    "Water that falls on a city has few places to go. Streets and roofs carry it into pipes that were laid a "
    "century ago, and after a heavy storm these are full within minutes, so that engineers now plan",
    "My uncle repaired clocks in a shop behind the station, and he claimed that every clock had a temper of its "
    "own. Some ran fast before a storm, some stopped whenever a visitor stayed too long, and one of them",
    "Bees find their way home by the sun, by landmarks and by smell. When a hive is moved only a short distance "
    "in summer, many of its workers return to the old place and fly in circles, because they",
    "The report lists four causes of the delay, of which the first two are well known. Parts arrived late and "
    "were of the wrong size; the third cause is more surprising, since nobody had expected that",
    "At the edge of the desert there is a town where it rains on about ten days of the year. Its people have "
    "learned to keep every drop: cisterns lie under the courtyards, and in the gardens they grow",
    "On the first day of the course the teacher asked us to draw a chair without looking at the paper. We laughed "
    "at the results, but she hung all of them on the wall and explained that seeing is",
)
_SHORTEST = 6


def openings(n: int, rng: np.random.Generator) -> list[str]:
    """``n`` prompts in random order, all different as long as there are enough."""
    words = [passage.split() for passage in _PASSAGES]
    every = [" ".join(some[:end]) for some in words for end in range(_SHORTEST, len(some) + 1)]
    found: list[str] = []
    while len(found) < n:
        found += [every[i] for i in rng.permutation(len(every))]
    return found[:n]


# By how much the chance of any answer of one token may move: rounding a small model to bfloat16 or to eight bits moves
# it by 0.02, and its bound from above to half of this; rounding to four bits moves it by 0.3.
WITHIN = 0.1
# Both tests together accuse an honest server by chance once in a thousand, as a whole handshake does.
FALSE_RANKS = 5e-4
TESTED = 768
LENGTH = 32
# Calls without log-probabilities beside those with: a server may know those that will be looked at.
PLAIN = 96
_AT_ONCE = 8
_FEWEST = 100
_MOST_NAMED, _LONGEST_NAME = 5, 40
# What must not have been found of a server whose log-probabilities are believed.
_BELIEVED = ("logprobs", "pure_sampling", "temperature")
_SEEDS = 1 << 31


def ask_served(
    client: Client,
    handshake: Handshake,
    rng: np.random.Generator,
    on_stage: Callable[[str], None] = lambda name: None,
) -> ServedTexts:
    """Draw texts from a server: long ones with tokens if it reports these, else single tokens.

    ``rng``: which openings are gone on from and, where seeds are proven, the seeds. Raises ModelError where too few
    calls are left, or what is drawn is not drawn afresh or is filtered.
    """
    on_stage(NAME)
    seeded = handshake["seed"].shown is Shown.PROVEN
    if handshake["fresh_draws"].accepted and not seeded:
        raise ModelError("Texts are not drawn afresh, so that many of them tell no more than one.")
    asking = _Asking(client, rng, seeded)
    first = asking.first(handshake)
    if first is None:
        per_call = _AT_ONCE if handshake["n"].shown is Shown.PROVEN else 1
        calls = min(TESTED // per_call, asking.calls_left)
        if calls * per_call < _FEWEST:
            raise _too_few(_FEWEST // per_call, asking)
        texts = asking.plain(calls, per_call)
        return ServedTexts(route=asking.route, texts=tuple(texts), n_tested=len(texts))
    n = min(PLAIN, asking.calls_left // 2)
    if asking.calls_left - n < _FEWEST // LENGTH:
        raise _too_few(2 * _FEWEST // LENGTH, asking)
    # Those that are always as many stand first, and are tested however many tokens the others come to.
    plain = asking.plain(n, 1)
    return ServedTexts(route=asking.route, texts=(*plain, *asking.long(first)), n_tested=n + TESTED)


def _too_few(needed: int, asking: _Asking) -> ModelError:
    left, limit = asking.calls_left, asking.client.limits.max_calls
    more = limit + needed - left
    return ModelError(f"Needs {needed} calls at the least, and --max-calls leaves {left}: say --max-calls {more}.")


class _Asking:
    """The calls of one comparison, and which interface takes them."""

    def __init__(self, client: Client, rng: np.random.Generator, seeded: bool) -> None:
        self.client, self.rng, self.seeded = client, rng, seeded
        self.route: Route = "completions"

    @property
    def calls_left(self) -> int:
        """How many calls may still be made."""
        return self.client.limits.max_calls - self.client.calls

    def first(self, handshake: Handshake) -> ServedText | None:
        """A text with its tokens; None where they are not reported. Sets the interface, plain text before chat."""
        routes: tuple[Route, ...] = ("completions", "chat")
        there = [route for route in routes if handshake[route].shown is Shown.PROVEN]
        for route in there if handshake["logprobs"].shown is Shown.PROVEN else ():
            self.route = route
            (text,) = self._request_texts(1, LENGTH, with_tokens=True)
            if text.reported:
                return text
        self.route = there[0]
        return None

    def plain(self, calls: int, per_call: int) -> list[ServedText]:
        """Texts of one token each, without log-probabilities."""
        return self._request_texts(calls, 1, n=per_call)

    def long(self, first: ServedText) -> list[ServedText]:
        """Texts with their tokens, until there are enough draws; many of them may be short."""
        found = [first]
        while (lacking := TESTED - sum(text.n_draws for text in found)) > 0 and len(found) < 4 * TESTED // LENGTH:
            asked = self._request_texts(min(-(-lacking // LENGTH), self.calls_left), LENGTH, with_tokens=True)
            if not asked:
                break
            found += asked
        if not all(text.reported for text in found):
            raise ModelError("Tokens are reported of some texts and not of others, so which were drawn is not known.")
        return found

    def _request_texts(self, calls: int, length: int, *, n: int = 1, with_tokens: bool = False) -> list[ServedText]:
        requests = [
            Request(
                prompt=opening,
                max_tokens=length,
                n=n,
                # Two openings must not be drawn by the same random numbers.
                seed=int(self.rng.integers(_SEEDS)) if self.seeded else None,
                top_logprobs=1 if with_tokens else None,
            ).for_route(self.route)
            for opening in openings(calls, self.rng)
        ]
        found = []
        for request, answer in zip(requests, self.client.ask_all(requests), strict=True):
            if len(answer.choices) != n:
                raise ModelError(f"{n} texts were asked for, and {len(answer.choices)} came.")
            prompt = request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content
            found += [_served_text(prompt, choice, length, with_tokens) for choice in answer.choices]
        return found


def _served_text(prompt: str, choice: Choice, length: int, with_tokens: bool) -> ServedText:
    if choice.finish == "content_filter":
        raise ModelError("The server says itself that it filters what is answered.")
    positions = choice.positions if with_tokens else None
    if len(positions or ()) > length:
        raise ModelError(f"{length} tokens were asked for, and {len(positions or ()):,} came.")
    # A text that ended at once has no position to report.
    reported = with_tokens and (positions is not None or not choice.text)
    return ServedText(
        prompt=prompt,
        text=_plain(choice.text),
        reported=reported,
        # One that has all its tokens has shown every draw, whatever is said of its end.
        ended=choice.finish != "length" and len(positions or ()) < length,
        tokens=tuple(_plain(position.token) for position in positions or ()),
        log_probabilities=tuple(position.log_probability for position in positions or ()),
    )


def _plain(text: str) -> str:
    """Half of a character, which JSON can hold and no other text, as what it is shown as."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def capability_of(comparison: Compared, handshake: Handshake, within: float = WITHIN) -> Capability:
    """The result of the comparison: another model, the same model within a distance, or undecided.

    ``within``: the mean total variation up to which a served model is the audited one. By texts alone it is never
    proven, since a model that is nearly the reference draws nearly the same.
    """
    if comparison.untested:
        return untold(NAME, comparison.untested)
    if comparison.misspelled:
        return ignored(NAME, "A text is not what its own tokens spell: it, or they, are of something else.")
    if comparison.unspelled:
        named = ", ".join(repr(name[:_LONGEST_NAME]) for name in comparison.unspelled[:_MOST_NAMED])
        what = f"{comparison.n_unspelled} tokens are none that the reference can spell, such as {named}"
        return untold(NAME, f"{what}: another tokenizer, or another way to write tokens. Nothing was tested.")
    drawn = (
        f"{comparison.n} tokens: {100 * comparison.unlikely:.1f} % are of the reference's least likely 5 %, "
        f"p = {comparison.p:.2g}"
    )
    apart = (
        f"total variation from {comparison.nearest:.3f} to {comparison.farthest:.3f} at {comparison.n_reported} places"
        if comparison.n_reported
        else ""
    )
    both = f"{drawn}; {apart}" if apart else drawn
    if comparison.p <= FALSE_RANKS:
        return ignored(NAME, f"What is drawn is not the reference's own distribution: of {both}.")
    if comparison.nearest > within:
        return ignored(NAME, f"The log-probabilities are of another model than the reference: of {both}.")
    if not apart:
        return untold(NAME, f"No difference was found, which texts alone do not prove: of {both}.")
    if comparison.farthest > within:
        return untold(NAME, f"It may be farther from the reference than {within:g}: of {both}.")
    doubted = [name for name in _BELIEVED if handshake[name].shown is not Shown.PROVEN]
    if doubted:
        return untold(NAME, f"Its log-probabilities are not believed, as {doubted[0]} is not proven: of {both}.")
    return proven(NAME, f"The reference, to within {within:g}: of {both}.")


def with_capability(handshake: Handshake, capability: Capability, calls: int) -> Handshake:
    """The handshake with one more capability, and the total number of calls."""
    return replace(handshake, capabilities=(*handshake.capabilities, capability), calls=calls)


def untested(error: ModelError) -> Capability:
    """The capability record if no comparison was possible."""
    return untold(NAME, f"{first_line(error)}.")
