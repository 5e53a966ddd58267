"""Handshake, part 2 (sampling): fresh draws, from the reported distribution, obeying seed and temperature."""

from __future__ import annotations

import math

from auditor.models.endpoint.api_messages import Choice
from auditor.models.endpoint.capability import Capability, Shown, ignored, proven, untold
from auditor.models.endpoint.handshake_interfaces import STORY, SURE
from auditor.models.endpoint.handshake_state import MOST_ALTERNATIVES, Asking
from auditor.models.endpoint.sampling_test import (
    DrawnText,
    alternatives_of,
    drawn_text,
    exponent_e_value,
    exponent_shown,
    tail_e_value,
    tail_shown,
)
from auditor.models.endpoint.text_distance import common_start

OTHER = "Nobody in the village could say why the lake had turned so cold, but"
_LONG = 160
_LONGER = 256
_HOT, _COLD = 2.0, 0.5
# Nats by which rounding does not move all tokens of a position alike.
_CUT = 0.05
_UNLIKELY = math.log(20.0)
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
    if cut > _CUT:
        share = f"at temperature 1 its likeliest tokens have {math.exp(cut):.2f} times the probability they have at 0"
        state.add(ignored("pure_sampling", f"The tail is cut before it is reported: {share}."))
    elif tail_e_value(texts) > SURE:
        state.add(ignored("pure_sampling", f"The tail is cut, as by top_k, top_p or min_p: {counted}."))
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
    if at_one.accepted and state.found["pure_sampling"].accepted:
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
