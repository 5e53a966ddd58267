"""Handshake, part 1 (interfaces), with the state and the comparison of answers that all parts share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from auditor.core.errors import ModelError, first_line
from auditor.models.endpoint.api_messages import ROUNDING, Answer, Choice, Position, Request, Route
from auditor.models.endpoint.client import BudgetSpentError, Client, RefusedError
from auditor.models.endpoint.server_findings import Capability, Shown, ignored, lacking, proven, untold

# Of a likelier token's lead in nats: below it, rounding decides which of two is the likeliest.
TIE = 0.1


def distances(a: Choice, b: Choice, positions: int = 4) -> list[float]:
    """Differences of log-probabilities (nats) of the same tokens, over the first few positions of both.

    A token that only one of them reports among its likeliest lies as far as it is there above the other's last one, at
    the least. Positions after the first token that differs have other contexts, and are left out. Empty where one of
    both reports nothing.
    """
    found: list[float] = []
    for first, second in zip((a.positions or ())[:positions], (b.positions or ())[:positions], strict=False):
        found += _log_probability_gaps(first, second)
        if first.token != second.token:
            break
    return found


def _log_probability_gaps(first: Position, second: Position) -> list[float]:
    one, other = dict(first.top), dict(second.top)
    if not one or not other:
        return []
    least = max(min(one.values()), min(other.values()))
    found = []
    for token in one.keys() | other.keys():
        values = [max(side.get(token, least), least) for side in (one, other)]
        found.append(abs(values[0] - values[1]))
    return found


def farthest(values: Sequence[float]) -> float | None:
    """The largest distance; None where nothing was reported."""
    return max(values) if values else None


def typical(values: Sequence[float]) -> float | None:
    """The median distance; None where nothing was reported."""
    return float(np.median(values)) if values else None


def common_start(a: Choice, b: Choice) -> tuple[int, float]:
    """The number of shared first tokens of two texts, and the log-probability in nats of drawing these."""
    n, total = 0, 0.0
    for first, second in zip(a.positions or (), b.positions or (), strict=False):
        if first.token != second.token or first.log_probability is None:
            break
        n, total = n + 1, total + first.log_probability
    return n, total


def lead(position: Position) -> float:
    """Log-probability lead in nats of the likeliest reported token over the actual one; infinite if unknown."""
    if not position.top or position.log_probability is None:
        return math.inf
    return position.top[0][1] - position.log_probability


def spelled(choice: Choice) -> str:
    """The tokens of an answer, joined."""
    return "".join(position.token for position in choice.positions or ())


# The chance that an honest server is accused by any of the tests of chance in one handshake, and how many share it.
FALSE_ALARMS = 1e-3
TESTS = 9
MOST_ALTERNATIVES = 20
FEW_ALTERNATIVES = 5


@dataclass
class Asking:
    """The state of one handshake in progress.

    ``alternatives``: how many the server reports at a position, 0 without log-probabilities. ``own_temperature``:
    whether it takes none but its own.
    """

    client: Client
    route: Route = "completions"
    alternatives: int = 0
    own_temperature: bool = False
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
            prompt=prompt,
            max_tokens=max_tokens,
            temperature=None if self.own_temperature else temperature,
            top_logprobs=self.alternatives or None,
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


# Nats between the typical distances of one model's reports and of another's.
SAME_MODEL, OTHER_MODEL = 0.1, 0.3
_FEWEST_COMPARED = 4
_PART = "\N{REPLACEMENT CHARACTER}"
# Standard deviations that chance exceeds once in a thousand times.
_BEYOND_CHANCE = 3.1
STORY = "The old house at the end of the road had been empty for years, and then"
OTHER = "Nobody in the village could say why the lake had turned so cold, but"
_TOKENS = 24
NO_SUCH_MODEL = "no-such-model-0f3a"
# A logarithm of an e-value from which on chance is no explanation within the budget of false alarms.
SURE = math.log(TESTS / FALSE_ALARMS)


def interfaces(state: Asking) -> Choice:
    """Determine the working interfaces and their reports; returns the first text at temperature 0.

    Raises ModelError where neither answers.
    """
    answers: dict[Route, Answer] = {}
    why: dict[Route, str] = {}
    routes: tuple[Route, ...] = ("completions", "chat")
    for route in routes:
        try:
            answers[route] = _first(state, route)
        except RefusedError as error:
            state.add(lacking(route, str(error)))
            why[route] = str(error)
        else:
            state.add(proven(route, "It answers."))
    if not answers:
        raise ModelError(f"Neither interface of the endpoint answers. {why['completions']}")
    # The model's own distribution is that of plain text; a chat's template stands between.
    state.route = max(answers, key=lambda route: (_reported(answers[route]), route == "completions"))
    state.alternatives = min(_reported(answers[state.route]), MOST_ALTERNATIVES)
    for each in answers.values():
        _model_name(state, each)
    first = answers[state.route].choices[0]
    _log_probabilities(state, first)
    return first


def _first(state: Asking, route: Route) -> Answer:
    """At most four calls: fewer alternatives, none, and then no temperature are asked for where these are refused."""
    request = Request(prompt=STORY, max_tokens=_TOKENS, temperature=0.0).for_route(route)
    for wanted in (MOST_ALTERNATIVES, FEW_ALTERNATIVES):
        try:
            return state.client.ask(replace(request, top_logprobs=wanted))
        except RefusedError as error:
            if error.absent:
                raise
            refusal = str(error)
    try:
        answer = state.client.ask(request)
    except RefusedError as error:
        answer = state.client.ask(replace(request, temperature=None))
        state.own_temperature = True
        state.add(*(lacking(name, str(error)) for name in ("greedy", "temperature")))
    state.add(lacking("logprobs", refusal), lacking("top_logprobs", refusal))
    return answer


def _reported(answer: Answer) -> int:
    positions = answer.choices[0].positions or ()
    return min((len(position.top) for position in positions), default=0)


def _model_name(state: Asking, answer: Answer) -> None:
    asked, said = state.client.model, answer.model
    if said is None:
        state.add(untold("model_name", "No answer says which model gave it."))
    # A name may stand for its newest version, which is told by a date or a number.
    elif re.fullmatch(re.escape(asked) + r"([-:@]v?\d[\w.-]*)?", said) is None:
        state.add(ignored("model_name", f"{asked!r} was asked for, and {said!r} answers."))


def other_name(state: Asking) -> None:
    """Request a model name that does not exist."""
    try:
        state.client.ask(state.request(STORY, 1), model=NO_SUCH_MODEL)
    except RefusedError:
        state.add(proven("model_name", "The name asked for answers, and one that nobody has is refused."))
        return
    state.add(untold("model_name", "A name that nobody has is answered too: whatever is served answers to any name."))


def _log_probabilities(state: Asking, choice: Choice) -> None:
    positions = choice.positions
    if positions is None:
        state.add(*(ignored(name, "Asked for, and none came.") for name in ("logprobs", "top_logprobs")))
        return
    values = [p.log_probability for p in positions]
    if any(value is None or value > ROUNDING for value in values):
        state.add(ignored("logprobs", "A log-probability is missing, or above 0."))
    state.add(proven("logprobs", f"{len(positions)} tokens came with theirs."))
    least = min(len(p.top) for p in positions)
    if least == 0:
        state.add(ignored("top_logprobs", "Alternatives were asked for, and none came."))
    elif impossible := _impossible_alternatives(positions):
        state.add(ignored("top_logprobs", impossible))
    else:
        state.add(proven("top_logprobs", f"{least} at each position."))


def _impossible_alternatives(positions: Sequence[Position]) -> str:
    """Why the alternatives are of no distribution that the tokens have their probabilities in, or ""."""
    # An exponential of a large number overflows, and a probability is at most 1.
    mass = max((math.fsum(math.exp(min(value, 1.0)) for _, value in p.top) for p in positions), default=0.0)
    if mass > 1.01:
        return f"The probabilities of one position come to {mass:.3f}."
    # Parts of characters are all written alike, so that one of them has not the number of its name.
    apart = [
        min(abs(value - p.log_probability) for name, value in p.top if name == p.token)
        for p in positions
        if p.log_probability is not None and _PART not in p.token and any(name == p.token for name, _ in p.top)
    ]
    if apart and typical(apart) > TIE:  # type: ignore[operator]
        return f"Tokens have other log-probabilities than among their alternatives, by {typical(apart):.2g} nats."
    return ""


def greedy(state: Asking, first: Choice) -> None:
    """Temperature 0 twice; the second request differs in its length, lest a cache answer it."""
    again = state.ask(STORY, _TOKENS + 1).choices[0]
    behind = [lead(p) for p in first.positions or () if p.top]
    if behind and max(behind) > TIE:
        what = f"A token was {max(behind):.2f} nats less likely than another: it was drawn"
        state.add(ignored("greedy", f"{what}, not the likeliest taken."))
    elif again.text.startswith(first.text) and first.text:
        state.add(proven("greedy", "Asked twice, it gives the same text."))
    elif first.positions is None or again.positions is None:
        state.add(ignored("greedy", "Asked twice, it gives two texts."))
    else:
        n, _ = common_start(first, again)
        if n < len(first.positions) and _tied(first, n):
            state.add(untold("greedy", f"Two texts part at token {n + 1}, where two tokens are as good as equal."))
        else:
            state.add(ignored("greedy", f"Asked twice, it gives two texts, which part at token {n + 1}."))


def _tied(choice: Choice, n: int) -> bool:
    top = (choice.positions or ())[n].top
    return len(top) > 1 and top[0][1] - top[1][1] < TIE


def stop(state: Asking, first: Choice) -> None:
    """Test of ``stop``, with a word of the text at temperature 0."""
    words = first.text.split()
    word = next((w for w in words[2:] if len(w) > 1 and first.text.find(w) > 0), None)
    if word is None:
        state.add(untold("stop", "The first text has too few words to stop at one."))
        return
    text = state.ask(STORY, _TOKENS, stop=(word,)).choices[0].text
    if word in text:
        state.add(ignored("stop", "The text goes on over, or holds, the word that it was to stop at."))
    elif text.strip() == first.text[: first.text.find(word)].strip():
        state.add(proven("stop", "The text ends before the word that it was to stop at."))
    else:
        state.add(untold("stop", "The same request gives another text, in which that word does not come."))


_Placed = Sequence[tuple[int, Position]]


def echo(state: Asking, first: Choice) -> None:
    """Request the echo of a prompt, of it with a text that the model wrote, and of all those words backwards.

    The log-probabilities of an echoed text are the model's own where they are possible, where the same words have the
    same ones again, where a text that the model wrote has those that it was written with, and where words backwards
    are not as likely.
    """
    if state.route != "completions":
        first = _first(state, "completions").choices[0]
    # What is written for a part of a character is read as another token.
    whole = f"{STORY}{first.text.split(_PART)[0].rstrip()} {OTHER}"
    backwards = " ".join(reversed(whole.split()))
    request = Request(prompt=STORY, max_tokens=1, temperature=0.0, top_logprobs=max(state.alternatives, 1), echo=True)
    short = state.client.ask(request).choices[0]
    if not short.text.lstrip().startswith(STORY):
        state.add(ignored("echo", "The prompt was to come back, and did not."))
        state.add(lacking("text_likelihoods", "They need echo."))
        return
    state.add(proven("echo", "The prompt comes back."))
    known = [p.log_probability for _, p in short.placed(STORY)[1:]]
    if len(known) < 2 or any(value is None for value in known):
        why = "The prompt comes back without the log-probabilities of its tokens."
        state.add(ignored("text_likelihoods", why) if state.is_proven("logprobs") else lacking("text_likelihoods", why))
        return
    long, other = (state.client.ask(replace(request, prompt=text)).choices[0] for text in (whole, backwards))
    state.add(_text_likelihoods(short.placed(STORY), long.placed(whole), other.placed(backwards), first))


def _text_likelihoods(short: _Placed, long: _Placed, backwards: _Placed, written: Choice) -> Capability:
    name = "text_likelihoods"
    every = [p for placed in (short, long, backwards) for _, p in placed]
    values = [p.log_probability for p in every if p.log_probability is not None]
    if max(values) > ROUNDING:
        return ignored(name, f"A log-probability of {max(values):.2g} is above 0.")
    if max(values) - min(values) < ROUNDING:
        return ignored(name, f"Every token has the log-probability {values[0]:.3g}.")
    if why := _impossible_alternatives(every):
        return ignored(name, why)
    for what, some, start in (
        ("The same words, asked twice, have", [p for _, p in short], 0),
        ("A text that the model wrote has, when it is read,", written.positions or (), len(STORY)),
    ):
        moved = _moved(some, [p for end, p in long if end > start])
        if moved is None:
            return untold(name, "Too few tokens of a text come back as they were written to be compared.")
        if moved > OTHER_MODEL:
            return ignored(name, f"{what} other log-probabilities, by {moved:.2g} nats.")
        if moved > SAME_MODEL:
            return untold(name, f"{what} other log-probabilities, by {moved:.2g} nats, by rounding or not.")
    one, two = (np.array([p.log_probability for _, p in placed[1:]], dtype=float) for placed in (long, backwards))
    less = float(np.nanmean(one) - np.nanmean(two))
    # What chance makes of it, were the values drawn whatever the words are. Alternatives of a text that was drawn from
    # them are the model's own, and one that was never trained may prefer any order.
    noise = _BEYOND_CHANCE * math.sqrt(np.nanvar(one) / len(one) + np.nanvar(two) / len(two))
    if less == 0.0 or (less < noise and max(len(p.top) for p in written.positions or ()) < 2):
        return untold(name, f"Words backwards are {less:.3g} nats a token less likely, no more than by chance.")
    return proven(name, f"What was written has the same ones when it is read, {less:+.2g} nats a token to backwards.")


def _moved(some: Sequence[Position], other: Sequence[Position]) -> float | None:
    """The typical distance in nats, of tokens or of alternatives, up to the first token that differs; None of few."""
    own: list[float] = []
    alternatives: list[float] = []
    for first, second in zip(some, other, strict=False):
        alternatives += _log_probability_gaps(first, second)
        if first.token.strip() != second.token.strip():
            break
        if first.log_probability is not None and second.log_probability is not None:
            own.append(abs(first.log_probability - second.log_probability))
    found = [typical(each) for each in (own, alternatives) if len(each) >= _FEWEST_COMPARED]
    return max((each for each in found if each is not None), default=None)


def several(state: Asking) -> None:
    """Test of ``n``: three texts from one call."""
    choices = state.ask(STORY, 64, temperature=1.0, n=3).choices
    if len(choices) != 3:
        state.add(ignored("n", f"3 texts were asked for, and {len(choices)} came."))
        return
    texts = {choice.text for choice in choices}
    if len(texts) > 1:
        state.add(proven("n", "3 texts came, and they differ."))
        state.drawn += choices
        return
    chance = choices[0].log_probability
    if chance is not None and 2 * -chance > SURE:
        state.add(ignored("n", f"3 times one text came, whose chance is {math.exp(max(2 * chance, -700)):.1g}."))
    else:
        state.add(untold("n", "3 times one text came, which may be all that the model has to say."))
