"""Handshake, part 1 (interfaces): available interfaces, model name, log-probabilities, echo, n and stop."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from auditor.core.errors import ModelError
from auditor.models.endpoint.api_messages import Answer, Choice, Request, Route
from auditor.models.endpoint.capability import ignored, lacking, proven, untold
from auditor.models.endpoint.client import RefusedError
from auditor.models.endpoint.handshake_state import FALSE_ALARMS, FEW_ALTERNATIVES, MOST_ALTERNATIVES, TESTS, Asking
from auditor.models.endpoint.text_distance import TIE, common_start, lead

STORY = "The old house at the end of the road had been empty for years, and then"
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
    """At most three calls: fewer alternatives, or none, are asked for where many are refused."""
    request = Request(prompt=STORY, max_tokens=_TOKENS, temperature=0.0).for_route(route)
    for wanted in (MOST_ALTERNATIVES, FEW_ALTERNATIVES):
        try:
            return state.client.ask(replace(request, top_logprobs=wanted))
        except RefusedError as error:
            if error.absent:
                raise
            refusal = str(error)
    answer = state.client.ask(request)
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
    if any(value is None or value > 1e-6 for value in values):
        state.add(ignored("logprobs", "A log-probability is missing, or above 0."))
    state.add(proven("logprobs", f"{len(positions)} tokens came with theirs."))
    least = min(len(p.top) for p in positions)
    mass = max((math.fsum(math.exp(value) for _, value in p.top) for p in positions), default=0.0)
    if least == 0:
        state.add(ignored("top_logprobs", "Alternatives were asked for, and none came."))
    elif mass > 1.01:
        state.add(ignored("top_logprobs", f"The probabilities of one position come to {mass:.3f}."))
    else:
        state.add(proven("top_logprobs", f"{least} at each position."))


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


def echo(state: Asking) -> None:
    """Request the echo of a prompt, with the log-probabilities of its tokens."""
    prompt = "Every good boy deserves fruit, said the teacher."
    request = Request(prompt=prompt, max_tokens=1, temperature=0.0, top_logprobs=1, echo=True)
    choice = state.client.ask(request).choices[0]
    if not choice.text.lstrip().startswith(prompt):
        state.add(ignored("echo", "The prompt was to come back, and did not."))
        state.add(lacking("text_likelihoods", "They need echo."))
        return
    state.add(proven("echo", "The prompt comes back."))
    known = [p.log_probability for p in (choice.positions or ())[1:-1]]
    if len(known) >= 2 and all(value is not None for value in known):
        state.add(proven("text_likelihoods", f"{len(known)} tokens of the prompt came with their log-probabilities."))
    else:
        why = "The prompt comes back without the log-probabilities of its tokens."
        state.add(ignored("text_likelihoods", why) if state.is_proven("logprobs") else lacking("text_likelihoods", why))


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
