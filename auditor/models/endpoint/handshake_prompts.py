"""Handshake, part 3 (prompts): read completely, without additions, and always by the same model."""

from __future__ import annotations

import math
from collections.abc import Sequence

from auditor.models.endpoint.api_messages import Answer, Choice, Message, Request
from auditor.models.endpoint.capability import ignored, lacking, proven, untold
from auditor.models.endpoint.handshake_interfaces import STORY, SURE
from auditor.models.endpoint.handshake_sampling import OTHER
from auditor.models.endpoint.handshake_state import Asking
from auditor.models.endpoint.text_distance import distances, farthest, spelled, typical

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


def system_prompt(state: Asking) -> None:
    """Compare two system prompts and none: their effect, and the number of tokens that the user did not write."""
    user = Message("user", "Hi")
    answers = [
        state.client.ask(Request(prompt=turns, max_tokens=_TOKENS, temperature=0.0, top_logprobs=_top_logprobs(state)))
        for turns in (
            (Message("system", "A"), user),
            (Message("system", "Answer with the single word river."), user),
            (user,),
        )
    ]
    short, long, none = answers
    _check_added_prompt(state, short, none)
    apart = farthest(distances(short.choices[0], long.choices[0]))
    if apart is not None and apart > 0.0 or short.choices[0].text != long.choices[0].text:
        state.add(proven("system_prompt", "Another system prompt gives other answers."))
    elif apart == 0.0 or short.prompt_tokens == long.prompt_tokens is not None:
        state.add(ignored("system_prompt", "Another system prompt changes nothing in the answer."))
    else:
        state.add(untold("system_prompt", "Two system prompts give one text, and no log-probabilities came with it."))


def _top_logprobs(state: Asking) -> int | None:
    return state.alternatives or None


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
    elif apart <= _SAME_MODEL:
        state.add(proven("same_model", f"After {calls:,} calls the same prompts have the same answers."))
    else:
        what = f"After {calls:,} calls answers lie {apart:.2g} nats apart"
        state.add(untold("same_model", f"{what}, by rounding or not."))
