"""The third part of a handshake: whether prompts are read whole, nothing beside them, by one and the same model."""

from __future__ import annotations

import math
from collections.abc import Sequence

from auditor.endpoint.asking import Asking
from auditor.endpoint.capability import ignored, lacking, proven, untold
from auditor.endpoint.comparing import distances, farthest, spelled, typical
from auditor.endpoint.drawn_answers import OTHER
from auditor.endpoint.first_answers import STORY, SURE
from auditor.endpoint.messages import Answer, Choice, Message, Request

_TOKENS = 4
# Tokens by which a chat's template frames two turns; ChatML takes 14, Llama 3 with its date 40.
_FRAME = 24
# Nats by which log-probabilities of one model may move by what is computed beside them.
_MOVED = 0.02
_SAME_MODEL, OTHER_MODEL = 0.1, 0.3
_SHORTEST_CANNED = 12
_WORDS_OF_FILLER = 400
# Harmless sentences with words that filters look for.
_FLAGGED = (
    "The surgeon said that the bomb in the old war film would kill nobody, because",
    "In the sex education class the teacher explained calmly that drugs and alcohol",
    "The historian wrote that the murder of the king by poison was followed by",
)


def system_prompt(asking: Asking) -> None:
    """Two system prompts, and none: what they change, and how many tokens are read that nobody wrote."""
    user = Message("user", "Hi")
    answers = [
        asking.client.ask(Request(prompt=turns, max_tokens=_TOKENS, temperature=0.0, top_logprobs=_wanted(asking)))
        for turns in (
            (Message("system", "A"), user),
            (Message("system", "Answer with the single word river."), user),
            (user,),
        )
    ]
    short, long, none = answers
    _added(asking, short, none)
    apart = farthest(distances(short.choices[0], long.choices[0]))
    if apart is not None and apart > 0.0 or short.choices[0].text != long.choices[0].text:
        asking.add(proven("system_prompt", "Another system prompt gives other answers."))
    elif apart == 0.0 or short.prompt_tokens == long.prompt_tokens is not None:
        asking.add(ignored("system_prompt", "Another system prompt changes nothing in the answer."))
    else:
        asking.add(untold("system_prompt", "Two system prompts give one text, and no log-probabilities came with it."))


def _wanted(asking: Asking) -> int | None:
    return asking.alternatives or None


def _added(asking: Asking, short: Answer, none: Answer) -> None:
    counted = [answer.prompt_tokens for answer in (short, none)]
    known = [count for count in counted if count is not None]
    if len(known) < len(counted):
        asking.add(untold("no_added_prompt", "The answers do not say how many tokens the prompt had."))
        return
    most = max(known)
    if most > _FRAME:
        what = f"Of a chat of two short words {most} tokens were read"
        asking.add(ignored("no_added_prompt", f"{what}: the server, or the model's template, adds its own prompt."))
    else:
        asking.add(proven("no_added_prompt", f"Of a chat of two short words {most} tokens were read."))


def whole_prompt(asking: Asking) -> None:
    """A long prompt with a word at its start, its middle and its end: each must matter to the answer."""
    base = _long_prompt("apple", "apple", "apple")
    others = {
        "start": _long_prompt("river", "apple", "apple"),
        "middle": _long_prompt("apple", "river", "apple"),
        "end": _long_prompt("apple", "apple", "river"),
    }
    first = asking.ask(base, _TOKENS).choices[0]
    lost = []
    for where, prompt in others.items():
        apart = farthest(distances(first, asking.ask(prompt, _TOKENS).choices[0]))
        if apart is None:
            asking.add(untold("whole_prompt", "Needs log-probabilities with alternatives, and there are none."))
            return
        if apart == 0.0:
            lost.append(where)
    words = len(base.split())
    if lost:
        asking.add(ignored("whole_prompt", f"Of {words:,} words those at the {' and the '.join(lost)} change nothing."))
    else:
        asking.add(proven("whole_prompt", f"Of {words:,} words those at the start, the middle and the end count."))


def _long_prompt(start: str, middle: str, end: str) -> str:
    filler = " ".join(f"Line {i} of the list says nothing new." for i in range(_WORDS_OF_FILLER // 8))
    said = [f"The code word is {word}." for word in (start, middle, end)]
    return f"{said[0]} {filler} {said[1]} {filler} {said[2]} The code word is"


def batch(asking: Asking) -> None:
    """One prompt alone, and beside others: what is reported must be the same."""
    alone = asking.ask(OTHER, _TOKENS).choices[0]
    requests = [asking.request(prompt, n) for prompt, n in ((OTHER, 5), (STORY, 40), (OTHER, 6), (STORY, 30))]
    beside = asking.client.ask_all(requests)
    found = [distances(alone, beside[i].choices[0]) for i in (0, 2)]
    apart = farthest([value for each in found for value in each])
    if apart is None:
        same = all(beside[i].choices[0].text.startswith(alone.text) for i in (0, 2))
        what = "Needs log-probabilities with alternatives; the texts are " + ("the same." if same else "not the same.")
        asking.add(untold("batch_invariance", what))
    elif apart <= _MOVED:
        asking.add(proven("batch_invariance", f"Beside others log-probabilities move by {apart:.2g} nats at most."))
    else:
        # Rounding depends on what is computed together; nobody is misled by it, but seeds and repeats are.
        asking.add(lacking("batch_invariance", f"Beside others log-probabilities move by up to {apart:.2g} nats."))


def unfiltered(asking: Asking) -> None:
    """Harmless sentences with words that filters look for: the answers must be the model's own."""
    choices = [asking.ask(prompt, 24, temperature=1.0).choices[0] for prompt in _FLAGGED]
    said = _filtered(asking, choices)
    if said:
        asking.add(ignored("unfiltered", said))
    elif asking.alternatives and all(choice.positions for choice in choices):
        asking.add(proven("unfiltered", f"{len(choices)} answers to words that filters look for are the model's own."))
    else:
        asking.add(untold("unfiltered", "Without log-probabilities a filter's words look like the model's."))


def _filtered(asking: Asking, choices: Sequence[Choice]) -> str:
    if any(choice.finish == "content_filter" for choice in choices):
        return "The server says itself that it filters what is answered."
    written = [choice for choice in choices if len(choice.text) >= _SHORTEST_CANNED]
    if asking.alternatives and any(not choice.positions for choice in written):
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


def fingerprint(asking: Asking, max_tokens: int = _TOKENS) -> tuple[Choice, ...]:
    """What the model reports of two prompts at temperature 0, to be told again by later."""
    return tuple(asking.ask(prompt, max_tokens).choices[0] for prompt in (STORY, OTHER))


def same_model(asking: Asking, before: Sequence[Choice], calls: int) -> None:
    """The fingerprint taken again, by requests of another length."""
    found: list[float] = []
    for a, b in zip(before, fingerprint(asking, _TOKENS + 1), strict=True):
        found += distances(a, b, positions=1)
    apart = typical(found)
    if apart is None:
        asking.add(untold("same_model", "Needs log-probabilities with alternatives, and there are none."))
    elif apart > OTHER_MODEL:
        what = f"After {calls:,} calls the same prompts have answers {apart:.2g} nats apart"
        asking.add(ignored("same_model", f"{what}: another model answers."))
    elif apart <= _SAME_MODEL:
        asking.add(proven("same_model", f"After {calls:,} calls the same prompts have the same answers."))
    else:
        what = f"After {calls:,} calls answers lie {apart:.2g} nats apart"
        asking.add(untold("same_model", f"{what}, by rounding or not."))
