r"""Handshake of sampling (fresh draws, reported distribution, seed, temperature) and of prompts (read completely).

Whether tokens were drawn from the distribution that the server reports is tested by e-values of the draws. A position
reports the log-probabilities of its :math:`k` likeliest tokens; what is left of 1 is its tail. A hypothesis :math:`p`
and an alternative :math:`q` give each drawn token :math:`x` the factor :math:`q(x)/p(x)`, whose mean under :math:`p` is
1, whatever was drawn before: the product is an e-value, and :math:`P(E \ge 1/\alpha) \le \alpha` exactly (Ville 1939;
Vovk and Wang 2021), though each token's context is made of the tokens before it. Several alternatives are averaged.

A text that ends of itself ends with a token that many servers do not report. Such a text counts :math:`w \min(1, E)`,
one that was cut at its length :math:`(1 - w) E`: the mean of both together is at most 1, however likely the ending was,
with :math:`w = 0.1`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from auditor.models.endpoint.api_messages import Answer, Choice, Message, Position
from auditor.models.endpoint.handshake_interfaces import (
    MOST_ALTERNATIVES,
    OTHER,
    OTHER_MODEL,
    SAME_MODEL,
    STORY,
    SURE,
    Asking,
    common_start,
    distances,
    farthest,
    spelled,
    typical,
)
from auditor.models.endpoint.server_findings import Capability, Shown, ignored, lacking, proven, untold

_ENDED = 0.1
_LEAST_TAIL = 1e-9
# Nats within which two numbers of one position are those of one token.
_SAME = 1e-3
# How much of the odds of its tail a clipped distribution keeps, and by what an inverse temperature may be off.
TAIL_ODDS = (0.02, 0.25, 0.5, 0.7)
FACTORS = (0.4, 0.6, 0.75, 1.33, 1.7, 2.5)


@dataclass(frozen=True)
class DrawnText:
    """The testable drawn tokens of one text, and whether it ended by itself.

    ``top``: the reported log-probabilities of the likeliest tokens, falling, (tokens, k); ``place``: which of them was
    drawn, (tokens,), -1 where it was one of the tail.
    """

    top: np.ndarray
    place: np.ndarray
    ended: bool

    @property
    def tail(self) -> np.ndarray:
        """The reported probability of all other tokens, (tokens,)."""
        left: np.ndarray = np.clip(1.0 - np.exp(self.top).sum(axis=1), _LEAST_TAIL, 1.0 - _LEAST_TAIL)
        return left


def drawn_text(choice: Choice, k: int) -> DrawnText:
    """The testable part of a text: the positions that report ``k`` alternatives.

    Which positions those are must not depend on what was drawn at them, so one with fewer is left out whole.
    """
    usable = [p for p in choice.positions or () if 0 < k <= len(p.top) and p.log_probability is not None]
    top = np.array([[value for _, value in p.top[:k]] for p in usable]).reshape(len(usable), k)
    return DrawnText(top, np.array([_place(p, k) for p in usable], dtype=int), choice.finish != "length")


def alternatives_of(choice: Choice, most: int) -> int:
    """The number of alternatives at most positions, at most ``most``; 0 if there are none."""
    counts = Counter(min(len(position.top), most) for position in choice.positions or ())
    return counts.most_common(1)[0][0] if counts else 0


def _place(position: Position, k: int) -> int:
    # Several tokens may be written alike, such as parts of a character: a place is that of the name and the number.
    drawn = position.log_probability or 0.0
    apart = [abs(value - drawn) for _, value in position.top[:k]]
    named = [i for i, (token, _) in enumerate(position.top[:k]) if token == position.token]
    place = min(named or range(k), key=apart.__getitem__)
    return place if apart[place] < _SAME else -1


def tail_e_value(texts: Sequence[DrawnText]) -> float:
    """Logarithm of the e-value against "tokens of the tail are drawn as often as reported", for "more seldom"."""
    return _averaged([_log_e_value(texts, partial(_tail_factors, odds=odds)) for odds in TAIL_ODDS])


def tail_shown(texts: Sequence[DrawnText]) -> float:
    """Log of the e-value against "at most half of the tail's odds is left", for "all of it".

    Against smaller shares it is larger still where it exceeds 0, since the likelihood is concave in the logarithm of
    the odds.
    """
    return _log_e_value(texts, lambda text: -_tail_factors(text, 0.5))


def exponent_e_value(texts: Sequence[DrawnText], exponent: float) -> float:
    """Logarithm of the e-value against "the likeliest tokens are drawn as their reported probability to a power".

    ``exponent``: that power, which is one over the temperature where the report is of the model itself. Only draws
    among the likeliest count, given that they are there: their distribution needs nothing that is not reported.
    """
    return _averaged([exponent_shown(texts, exponent * factor, exponent) for factor in FACTORS])


def exponent_shown(texts: Sequence[DrawnText], exponent: float, other: float) -> float:
    """Logarithm of the e-value against the power ``other``, for ``exponent``."""
    return _log_e_value(texts, lambda text: _powers(text, exponent) - _powers(text, other))


def _tail_factors(text: DrawnText, odds: float) -> np.ndarray:
    tail = text.tail
    left = odds * tail / (1.0 - tail + odds * tail)
    return np.where(text.place < 0, np.log(left / tail), np.log((1.0 - left) / (1.0 - tail)))


def _powers(text: DrawnText, exponent: float) -> np.ndarray:
    """Log-probabilities of what was drawn among the likeliest under a power of their probabilities, 0 in the tail."""
    inside = text.place >= 0
    scaled = exponent * (text.top[inside] - text.top[inside, :1])
    drawn = scaled[np.arange(len(scaled)), text.place[inside]]
    found: np.ndarray = drawn - np.log(np.exp(scaled).sum(axis=1))
    return found


def _log_e_value(texts: Sequence[DrawnText], factors: Callable[[DrawnText], np.ndarray]) -> float:
    total = 0.0
    for text in texts:
        own = float(factors(text).sum())
        total += math.log(_ENDED) + min(own, 0.0) if text.ended else math.log(1.0 - _ENDED) + own
    return total


def _averaged(logs: Sequence[float]) -> float:
    most = max(logs)
    return most + math.log(math.fsum(math.exp(value - most) for value in logs) / len(logs))


_LONG = 160
_LONGER = 256
_HOT, _COLD = 2.0, 0.5
# Nats by which rounding does not move all tokens of a position alike.
_CUT = 0.05
_UNLIKELY = math.log(20.0)
_START_WITHOUT = "Start the server without: llama-server with --top-k 0 --min-p 0."
_NEEDS = "Needs log-probabilities with alternatives, and there are none."


def fresh(state: Asking) -> None:
    """Test for cached answers: one identical request sent twice."""
    first, second = (state.ask(STORY, _LONG, temperature=1.0).choices[0] for _ in range(2))
    state.drawn.append(first)
    if first.text != second.text:
        state.drawn.append(second)
        state.add(proven("fresh_draws", "The same request twice gives two texts."))
        return
    chance = second.log_probability
    if chance is not None and -chance > SURE:
        said = f"The same request twice gives one text, whose chance is {math.exp(max(chance, -700)):.1g}"
        state.add(ignored("fresh_draws", f"{said}: answers are cached, or the seed is fixed."))
    else:
        state.add(untold("fresh_draws", "The same request twice gives one text, which may be chance."))


def seed(state: Asking) -> None:
    """Test of the seed: one seed twice and another once; request lengths differ to avoid cached answers."""
    first, again, other = (
        state.ask(STORY, length, temperature=1.0, seed=value).choices[0]
        for length, value in ((32, 7), (33, 7), (34, 8))
    )
    same, differs = _one_begins_with_other(first, again), not _one_begins_with_other(first, other)
    n, chance = common_start(first, again)
    if same and differs:
        state.add(proven("seed", "One seed gives one text, another seed another."))
    elif not same and -chance > SURE and differs:
        state.add(proven("seed", f"One seed gives one text for {n} tokens, which then parts by rounding."))
    elif not same:
        state.add(ignored("seed", "One seed gives two texts."))
    elif (value := other.log_probability) is not None and -value > SURE:
        state.add(ignored("seed", "Two seeds give one text."))
    else:
        state.add(untold("seed", "Two seeds give one text, which may be all that the model has to say."))


def _one_begins_with_other(a: Choice, b: Choice) -> bool:
    short, long = sorted((a.text, b.text), key=len)
    return bool(short) and long.startswith(short)


def as_reported(state: Asking, first: Choice) -> None:
    """Test whether draws at temperature 1 have the reported distribution: its tail, and the shape of its head."""
    if not state.alternatives:
        state.add(untold("pure_sampling", _NEEDS))
        return
    state.drawn.append(state.ask(OTHER, _LONGER, temperature=1.0).choices[0])
    texts = _tested(state.drawn)
    n = sum(len(text.place) for text in texts)
    outside = sum(int((text.place < 0).sum()) for text in texts)
    expected = math.fsum(float(text.tail.sum()) for text in texts)
    counted = f"of {n} tokens {outside} lie outside the {state.alternatives} likeliest, and {expected:.1f} would"
    cut = _cut_in_report(first, state.drawn[0])
    # Samplers beyond the protocol are claimed to be off only by who takes the values that turn them off.
    refuted = lacking if state.client.neutral is False else ignored
    if cut > _CUT:
        share = f"at temperature 1 its likeliest tokens have {math.exp(cut):.2f} times the probability they have at 0"
        state.add(refuted("pure_sampling", f"The tail is cut before it is reported: {share}. {_START_WITHOUT}"))
    elif tail_e_value(texts) > SURE:
        what = f"The tail is cut, as by top_k, top_p or min_p: {counted}"
        state.add(refuted("pure_sampling", f"{what}. {_START_WITHOUT}"))
    elif tail_shown(texts) > _UNLIKELY:
        state.add(proven("pure_sampling", f"Half of the tail at the least is drawn: {counted}."))
    else:
        state.add(untold("pure_sampling", f"Too little was drawn from the tail to tell: {counted}."))


def temperature(state: Asking) -> None:
    """Tests at temperatures 1, 2 and 1/2: relative sampling frequencies of the likeliest tokens."""
    if not state.alternatives or not state.drawn:
        state.add(untold("temperature", _NEEDS))
        return
    at_one = _at_one(state)
    if at_one.accepted and state.found["pure_sampling"].shown is Shown.REFUTED:
        # A cut such as min_p reaches into the likeliest tokens too, and a colder distribution has a thinner tail.
        state.add(untold("temperature", "What is drawn is cut: that and a lower temperature look alike."))
        return
    found = [at_one]
    found += [_check_temperature(state, each) for each in (_HOT, _COLD)]
    refuted = [each for each in found if each.accepted]
    open_ = [each for each in found if each.shown is Shown.UNTOLD]
    state.add(*(refuted or open_)[:1])
    state.add(proven("temperature", " ".join(each.why for each in found)))


def _at_one(state: Asking) -> Capability:
    texts = _tested(state.drawn)
    if exponent_e_value(texts, 1.0) > SURE:
        return ignored("temperature", "At temperature 1 tokens are not drawn with the probabilities reported.")
    if min(exponent_shown(texts, 1.0, 0.7), exponent_shown(texts, 1.0, 1.4)) > _UNLIKELY:
        return proven("temperature", "At 1 tokens are drawn as reported.")
    return untold("temperature", "At temperature 1 too few tokens could have been others to tell.")


def _check_temperature(state: Asking, target: float) -> Capability:
    """Log-probabilities are reported of the model itself, or of what was drawn from: the first position tells which."""
    choice = state.ask(STORY, _LONGER, temperature=target).choices[0]
    texts = _tested([choice])
    scale = _scale(state.drawn[0], choice)
    if scale is None or not len(texts[0].place):
        return untold("temperature", f"At temperature {target:g} nothing was reported that could be tested.")
    scaled = abs(scale * target - 1.0) < 0.1
    if not scaled and abs(scale - 1.0) > 0.1:
        what = f"At temperature {target:g} the probabilities reported are those of {1.0 / max(scale, 1e-3):.2g}"
        return ignored("temperature", f"{what}.")
    # What differs from the report where it would lie without any temperature: of the model, or of what was drawn from.
    exponent, without = (1.0, target) if scaled else (1.0 / target, 1.0)
    if exponent_e_value(texts, exponent) > SURE:
        return ignored("temperature", f"At temperature {target:g} tokens are not drawn as it demands.")
    if exponent_shown(texts, exponent, without) > _UNLIKELY:
        return proven("temperature", f"At {target:g} they are drawn as it demands.")
    return untold("temperature", f"At temperature {target:g} too few tokens could have been others to tell.")


def _cut_in_report(greedy: Choice, sample: Choice) -> float:
    """By how many nats the first position's likeliest tokens all gain from temperature 0 to 1; 0 where not all alike.

    A server that reports of the model itself reports the same at both, and one that cuts the tail before it reports
    has shared the tail's probability out among the rest.
    """
    if not greedy.positions or not sample.positions:
        return 0.0
    one, other = dict(greedy.positions[0].top), dict(sample.positions[0].top)
    gains = [other[token] - one[token] for token in one.keys() & other.keys()]
    alike = len(gains) > 2 and max(gains) - min(gains) < _CUT / 2
    return math.fsum(gains) / len(gains) if alike else 0.0


def _scale(reference: Choice, choice: Choice) -> float | None:
    """By what factor the first position's log-probabilities, from their largest, are those of temperature 1."""
    if not reference.positions or not choice.positions:
        return None
    one, other = dict(reference.positions[0].top), dict(choice.positions[0].top)
    shared = sorted(one.keys() & other.keys(), key=lambda token: -one[token])
    if len(shared) < 2:
        return None
    x = [one[token] - one[shared[0]] for token in shared]
    y = [other[token] - other[shared[0]] for token in shared]
    squares = math.fsum(a * a for a in x)
    return math.fsum(a * b for a, b in zip(x, y, strict=True)) / squares if squares > 0.01 else None


def _tested(choices: list[Choice]) -> list[DrawnText]:
    k = min((alternatives_of(choice, MOST_ALTERNATIVES) for choice in choices), default=0)
    return [drawn_text(choice, k) for choice in choices]


_TOKENS = 4
# Tokens by which a chat's template frames two turns; ChatML takes 14, Llama 3 with its date 40.
_FRAME = 24
# Nats by which log-probabilities of one model may move by what is computed beside them.
_MOVED = 0.02
_SHORTEST_CANNED = 12
_WORDS_OF_FILLER = 400
# Harmless sentences with words that filters look for.
_FLAGGED = (
    "The surgeon said that the bomb in the old war film would kill nobody, because",
    "In the sex education class the teacher explained calmly that drugs and alcohol",
    "The historian wrote that the murder of the king by poison was followed by",
)


def system_prompt(state: Asking) -> None:
    """Compare two system prompts and none: their effect, and the number of tokens that the user did not write."""
    user = Message("user", "Hi")
    answers = [
        state.client.ask(replace(state.request("", _TOKENS), prompt=turns))
        for turns in (
            (Message("system", "A"), user),
            (Message("system", "Answer with the single word river."), user),
            (user,),
        )
    ]
    short, long, none = answers
    _check_added_prompt(state, short, none)
    apart = farthest(distances(short.choices[0], long.choices[0]))
    other_text = not state.own_temperature and short.choices[0].text != long.choices[0].text
    if apart is not None and apart > 0.0 or other_text:
        state.add(proven("system_prompt", "Another system prompt gives other answers."))
    elif apart == 0.0 or short.prompt_tokens == long.prompt_tokens is not None:
        state.add(ignored("system_prompt", "Another system prompt changes nothing in the answer."))
    else:
        state.add(untold("system_prompt", "Two system prompts give one text, and no log-probabilities came with it."))


def _check_added_prompt(state: Asking, short: Answer, no_system: Answer) -> None:
    counted = [answer.prompt_tokens for answer in (short, no_system)]
    known = [count for count in counted if count is not None]
    if len(known) < len(counted):
        state.add(untold("no_added_prompt", "The answers do not say how many tokens the prompt had."))
        return
    most = max(known)
    if most > _FRAME:
        what = f"Of a chat of two short words {most} tokens were read"
        state.add(ignored("no_added_prompt", f"{what}: the server, or the model's template, adds its own prompt."))
    else:
        state.add(proven("no_added_prompt", f"Of a chat of two short words {most} tokens were read."))


def whole_prompt(state: Asking) -> None:
    """Test with a long prompt and a word at its start, middle and end: each must affect the answer."""
    base = _long_prompt("apple", "apple", "apple")
    others = {
        "start": _long_prompt("river", "apple", "apple"),
        "middle": _long_prompt("apple", "river", "apple"),
        "end": _long_prompt("apple", "apple", "river"),
    }
    first = state.ask(base, _TOKENS).choices[0]
    lost = []
    for where, prompt in others.items():
        apart = farthest(distances(first, state.ask(prompt, _TOKENS).choices[0]))
        if apart is None:
            state.add(untold("whole_prompt", "Needs log-probabilities with alternatives, and there are none."))
            return
        if apart == 0.0:
            lost.append(where)
    words = len(base.split())
    if lost:
        state.add(ignored("whole_prompt", f"Of {words:,} words those at the {' and the '.join(lost)} change nothing."))
    else:
        state.add(proven("whole_prompt", f"Of {words:,} words those at the start, the middle and the end count."))


def _long_prompt(start: str, middle: str, end: str) -> str:
    filler = " ".join(f"Line {i} of the list says nothing new." for i in range(_WORDS_OF_FILLER // 8))
    said = [f"The code word is {word}." for word in (start, middle, end)]
    return f"{said[0]} {filler} {said[1]} {filler} {said[2]} The code word is"


def batch(state: Asking) -> None:
    """Compare the reports of a prompt sent alone and in a batch: they must be equal."""
    alone = state.ask(OTHER, _TOKENS).choices[0]
    requests = [state.request(prompt, n) for prompt, n in ((OTHER, 5), (STORY, 40), (OTHER, 6), (STORY, 30))]
    beside = state.client.ask_all(requests)
    found = [distances(alone, beside[i].choices[0]) for i in (0, 2)]
    apart = farthest([value for each in found for value in each])
    if apart is None:
        same = all(beside[i].choices[0].text.startswith(alone.text) for i in (0, 2))
        what = "Needs log-probabilities with alternatives; the texts are " + ("the same." if same else "not the same.")
        state.add(untold("batch_invariance", what))
    elif apart <= _MOVED:
        state.add(proven("batch_invariance", f"Beside others log-probabilities move by {apart:.2g} nats at most."))
    else:
        # Rounding depends on what is computed together; nobody is misled by it, but seeds and repeats are.
        state.add(lacking("batch_invariance", f"Beside others log-probabilities move by up to {apart:.2g} nats."))


def unfiltered(state: Asking) -> None:
    """Test with harmless sentences containing filter words: the answers must be the model's own."""
    choices = [state.ask(prompt, 24, temperature=1.0).choices[0] for prompt in _FLAGGED]
    said = _filtered(state, choices)
    if said:
        state.add(ignored("unfiltered", said))
    elif state.alternatives and all(choice.positions for choice in choices):
        state.add(proven("unfiltered", f"{len(choices)} answers to words that filters look for are the model's own."))
    else:
        state.add(untold("unfiltered", "Without log-probabilities a filter's words look like the model's."))


def _filtered(state: Asking, choices: Sequence[Choice]) -> str:
    if any(choice.finish == "content_filter" for choice in choices):
        return "The server says itself that it filters what is answered."
    written = [choice for choice in choices if len(choice.text) >= _SHORTEST_CANNED]
    if state.alternatives and any(not choice.positions for choice in written):
        return "Where words stand that filters look for, no log-probabilities come: the answer is not the model's."
    for choice in written:
        tokens = {word for word in spelled(choice).split() if word.isascii()}
        words = {word for word in choice.text.split() if word.isascii()}
        if choice.positions and words and tokens and not words & tokens:
            return "The text is not what its own tokens spell: it was replaced."
    for i, choice in enumerate(written):
        chance = choice.log_probability
        if chance is not None and -chance > SURE and any(choice.text == other.text for other in written[:i]):
            return f"Two prompts have one answer, whose chance is {math.exp(max(chance, -700)):.1g}."
    return ""


def fingerprint(state: Asking, max_tokens: int = _TOKENS) -> tuple[Choice, ...]:
    """The model's reports on two prompts at temperature 0, for later recognition."""
    return tuple(state.ask(prompt, max_tokens).choices[0] for prompt in (STORY, OTHER))


def same_model(state: Asking, before: Sequence[Choice], calls: int) -> None:
    """Take the fingerprint again, with requests of another length."""
    found: list[float] = []
    for a, b in zip(before, fingerprint(state, _TOKENS + 1), strict=True):
        found += distances(a, b, positions=1)
    apart = typical(found)
    if apart is None:
        state.add(untold("same_model", "Needs log-probabilities with alternatives, and there are none."))
    elif apart > OTHER_MODEL:
        what = f"After {calls:,} calls the same prompts have answers {apart:.2g} nats apart"
        state.add(ignored("same_model", f"{what}: another model answers."))
    elif apart <= SAME_MODEL:
        state.add(proven("same_model", f"After {calls:,} calls the same prompts have the same answers."))
    else:
        what = f"After {calls:,} calls answers lie {apart:.2g} nats apart"
        state.add(untold("same_model", f"{what}, by rounding or not."))
