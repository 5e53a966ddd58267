"""A model behind a URL with the common model interface: it generates texts and may score texts.

Nothing here has a connection: requests go to whoever has one, and outcomes come back.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import ClassVar, NoReturn

import numpy as np

from auditor.core.errors import ConfigError, ModelError, NotApplicableError
from auditor.core.rows import FloatArray
from auditor.models.audited_model import AuditedModel, Kind, Provenance
from auditor.models.capabilities import CONTINUE, Capability, Generates, Reply, in_one_text, without_thinking
from auditor.models.chat import How
from auditor.models.endpoint.api_messages import ROUNDING, Choice, Message, Request, Route
from auditor.models.endpoint.client import Ask
from auditor.models.endpoint.server_findings import SERVED_MODEL, Handshake, Shown
from auditor.models.endpoint.server_findings import Capability as Found
from auditor.models.generation import Sampling
from auditor.models.prefix_trees import Encoded
from auditor.models.text_scores import ScoresTexts

_ROLES = ("user", "assistant")
_FILTERED = "content_filter"
_ELSEWHERE = "they are at its server, and it is known by its answers alone"
# What is not one model, or not of the text that was sent, is nothing that a probe could measure.
_ALWAYS = ("same_model", "whole_prompt")


def _no_classes(rows: object) -> NoReturn:
    raise ModelError("A language model predicts no classes: ask it with the probes of the language pillar.")


class EndpointModel(Generates, AuditedModel):
    """A text-generating model at a server; ``handshake``: its demonstrated capabilities.

    What is asked needs what was proven: a draw needs a seed or fresh draws and a temperature that is not refuted, a
    likeliest reply a temperature 0 that is not.
    """

    kind: ClassVar[Kind] = "language_model"  # type: ignore[misc]

    def __init__(self, handshake: Handshake, ask: Ask, *, notes: Sequence[str] = ()) -> None:
        source = Provenance(
            path=handshake.url,
            format="endpoint",
            loaded_by="calls of its server",
            notes=(*describe_handshake(handshake), *notes),
        )
        super().__init__(_no_classes, classes=(), provenance=source)
        self.handshake = handshake
        self.why_not = {"weights": _ELSEWHERE, "text_likelihoods": _reason_text(handshake, "text_likelihoods")}
        self._ask = ask
        self._route: Route = "chat" if handshake.has("chat") else "completions"
        refused = [handshake[name] for name in ("greedy", "temperature")]
        self.repeats = not all(each.shown is Shown.REFUTED and not each.accepted for each in refused)
        self._system = ""

    @property
    def accepted_and_not_done(self) -> tuple[str, ...]:
        """Capabilities that the server confirms but does not perform; the served model itself is not included."""
        return tuple(each.name for each in self.handshake.ignored if each.name != SERVED_MODEL)

    @property
    def served_model(self) -> Found | None:
        """Whether the server serves the reference; None without a reference."""
        return next((each for each in self.handshake.capabilities if each.name == SERVED_MODEL), None)

    def with_chat_options(self, chat_mode: How, system: str) -> EndpointModel:
        route: Route = self._route if chat_mode == "auto" else ("chat" if chat_mode == "on" else "completions")
        for needed in (route, *(("system_prompt",) if system else ())):
            if not self.handshake.has(needed):
                raise NotApplicableError(f"Needs {_capability_text(needed)}: {_reason_text(self.handshake, needed)}.")
        if system and route != "chat":
            raise NotApplicableError("A system message is told in a chat: leave --system or --chat off out.")
        self._need(*_ALWAYS)
        other = copy.copy(self)
        other._route, other._system = route, system
        return other

    def describe(self) -> str:
        own = "" if self.repeats else ", at the server's own temperature"
        if self._route == "completions":
            return f"asked for completions of plain text{own}"
        told = f"after a system message of {len(self._system):,} characters" if self._system else "no system message"
        return f"asked as a chat, {told}{own}"

    def continued(
        self, prompts: Sequence[str], n: int, sampling: Sampling, rng: np.random.Generator, *, batch_rows: int = 64
    ) -> list[list[str]]:
        """One call per continuation, each with its own seed if the server obeys seeds."""
        seeded = self.handshake.has("seed")
        if sampling.temperature == 0.0:
            self._need("greedy")
        else:
            self._need("temperature")
            if not seeded and not self.handshake.has("fresh_draws"):
                why = _reason_text(self.handshake, "fresh_draws")
                raise NotApplicableError(f"Needs texts that are drawn anew for each request: {why}.")
        requests = [
            replace(
                self._request((CONTINUE.format(prompt),) if self._route == "chat" else (prompt,), sampling),
                seed=int(rng.integers(2**31)) if seeded and sampling.temperature > 0.0 else None,
            )
            for prompt in prompts
            for _ in range(n)
        ]
        found = self._choices(requests)
        failed = [each for each in found if isinstance(each, str)]
        if failed:
            raise ModelError(
                f"{len(failed):,} of {len(found):,} texts were not written, of which the first: "
                f"{failed[0].rstrip('.')}. Run the scan again: answers that came are not asked for again."
            )
        texts = [without_thinking(choice.text) for choice in found if isinstance(choice, Choice)]
        whole = [
            _strip_prompt(prompt, text)
            for prompt, text in zip(np.repeat(list(prompts), n).tolist(), texts, strict=True)
        ]
        cut = [sampling.truncate(text) for text in whole]
        return [cut[i * n : (i + 1) * n] for i in range(len(prompts))]

    def replies(self, conversations: Sequence[Sequence[str]], max_new_tokens: int) -> list[Reply]:
        if self.repeats:
            self._need("greedy")
        sampling = Sampling(max_new_tokens=max_new_tokens, temperature=0.0)
        requests = [self._request(turns, sampling, all_turns=True) for turns in conversations]
        found = self._choices([each if self.repeats else replace(each, temperature=None) for each in requests])
        return [Reply("", each) if isinstance(each, str) else Reply.from_written(each.text) for each in found]

    def _request(self, turns: Sequence[str], sampling: Sampling, *, all_turns: bool = False) -> Request:
        prompt: str | tuple[Message, ...]
        if self._route == "chat":
            said = [Message(_ROLES[i % 2], text) for i, text in enumerate(turns)]  # type: ignore[arg-type]
            prompt = (*((Message("system", self._system),) if self._system else ()), *said)
        else:
            prompt = in_one_text(turns) if all_turns else turns[-1]
        return Request(
            prompt=prompt,
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
        )

    def _choices(self, requests: Sequence[Request]) -> list[Choice | str]:
        """The first text of each answer, or why there is none. Raises BudgetSpentError where no call was left."""
        found: list[Choice | str] = []
        for outcome in self._ask(requests):
            if outcome.spent:
                outcome.answer_or_raise()
            if outcome.answer is None:
                found.append(outcome.failed)
            elif outcome.answer.choices[0].finish == _FILTERED:
                found.append("The server filtered the answer.")
            else:
                found.append(outcome.answer.choices[0])
        return found

    def _need(self, *names: str) -> None:
        for name in names:
            if self.handshake[name].shown is Shown.REFUTED:
                raise NotApplicableError(
                    f"Needs {_capability_text(name)} of the server: {_reason_text(self.handshake, name)}."
                )


class ScoringEndpointModel(ScoresTexts, EndpointModel):
    """An endpoint model whose server demonstrably echoes texts with the log-probabilities of their tokens.

    Tokens are known by how they are spelled; what the server puts before a text, it alone knows.
    """

    objective = "causal"

    def __init__(self, handshake: Handshake, ask: Ask, *, notes: Sequence[str] = ()) -> None:
        super().__init__(handshake, ask, notes=notes)
        self._numbers: dict[str, int] = {}
        self._spelled: list[str] = []
        self._known: dict[tuple[int, ...], FloatArray] = {}

    @property
    def notes(self) -> str:
        return (
            "Log-likelihood as the server reports it of a text that it echoes; what stands before it is the server's."
        )

    @property
    def vocabulary(self) -> int:
        """The number of tokens seen so far, less than the real vocabulary size."""
        return max(len(self._spelled), 2)

    def with_prefix(self, prefix: str | int | Sequence[int]) -> ScoringEndpointModel:
        raise ConfigError("The server puts before a text what it does: prefix_token is for models that are here.")

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """One call per text, with its answer kept for :meth:`token_log_probabilities`."""
        requests = [Request(prompt=text, max_tokens=1, temperature=0.0, top_logprobs=1, echo=True) for text in texts]
        return [self._encode_choice(text, choice) for text, choice in zip(texts, self._choices(requests), strict=True)]

    def encode_cut(self, texts: Sequence[str], max_tokens: int | None = None) -> tuple[list[Encoded], int]:
        """Whole texts: the token boundaries of a server are known only after it has read them."""
        return self.encode(texts), 0

    def token_log_probabilities(
        self, texts: Sequence[Encoded], places: Sequence[Sequence[int]] | None = None, *, within_word: bool = False
    ) -> list[FloatArray]:
        missing = [text.ids for text in texts if text.ids not in self._known]
        for ids in dict.fromkeys(missing):
            spelled = "".join(self._spelled[i] for i in ids)
            again = self.encode([spelled])[0]
            if again.ids != ids:
                if places is not None:
                    raise ModelError(
                        "The server reads a text in other tokens than it was asked of: the likelihood of a part of it "
                        "cannot be told."
                    )
                # Its likelihood as a whole, over the places it was asked of.
                values = self._known[again.ids]
                shared = np.full(len(ids), np.nan)
                shared[1:] = np.nansum(values) / max(len(ids) - 1, 1)
                self._known[ids] = shared
        found = []
        for i, text in enumerate(texts):
            values = self._known[text.ids]
            if places is not None:
                kept = np.full(len(values), np.nan)
                kept[list(places[i])] = values[list(places[i])]
                values = kept
            found.append(values)
        return found

    def _encode_choice(self, text: str, choice: Choice | str) -> Encoded:
        if isinstance(choice, str):
            raise ModelError(f"A text was not scored: {choice}")
        placed = choice.placed(text)
        tokens = [position.token for _, position in placed]
        values = [position.log_probability for _, position in placed]
        lead = int(bool(tokens) and tokens[0][:1] == " " != text[:1])
        if "".join(tokens)[lead : lead + len(text)] != text or len(tokens) < 2:
            raise ModelError("The server echoes a text whose tokens do not spell it: its likelihood cannot be told.")
        if any(value is None for value in values[1:]):
            raise ModelError("The server echoes a text without the log-probabilities of all its tokens.")
        if any(value is not None and value > ROUNDING for value in values):
            raise ModelError("The server echoes a text with a log-probability above 0, which no probability has.")
        ids = tuple(self._number(token) for token in tokens)
        scored = tuple(value is not None for value in values)
        self._known[ids] = np.asarray([np.nan if value is None else value for value in values], np.float64)
        return Encoded(ids, scored, tuple(end for end, _ in placed), tuple(range(len(ids))))

    def _number(self, token: str) -> int:
        if token not in self._numbers:
            self._numbers[token] = len(self._spelled)
            self._spelled.append(token)
        return self._numbers[token]


def endpoint_model(handshake: Handshake, ask: Ask, *, notes: Sequence[str] = ()) -> EndpointModel:
    """The model behind an endpoint, with the demonstrated capabilities of its server."""
    kind = ScoringEndpointModel if handshake.has("text_likelihoods") else EndpointModel
    return kind(handshake, ask, notes=notes)


# The judge of the scan that this process measures for, or why it is not to be had.
_JUDGE: ContextVar[EndpointModel | str] = ContextVar(
    "_JUDGE", default="it is asked in a scan of a model's file, folder or URL, with --judge URL."
)


@contextmanager
def judge_at_hand(model: EndpointModel | str) -> Iterator[None]:
    """Context in which this model, or the reason for its absence, is what :func:`served_judge` has."""
    token = _JUDGE.set(model)
    try:
        yield
    finally:
        _JUDGE.reset(token)


def served_judge(url: str) -> EndpointModel:
    """The judge behind a URL. Raises ModelError where it is not to be had."""
    found = _JUDGE.get()
    if isinstance(found, str):
        raise ModelError(f"The judge at {url} is not to be had: {found}")
    return found


def describe_handshake(handshake: Handshake) -> tuple[str, ...]:
    """The record's sentences on a server."""
    by = {shown: [each for each in handshake.capabilities if each.shown is shown] for shown in Shown}
    said = [f"The model {handshake.model!r}, as its server calls it, by a handshake of {handshake.calls} calls."]
    if by[Shown.PROVEN]:
        said.append(f"Proven: {', '.join(each.name for each in by[Shown.PROVEN])}.")
    said += [
        f"{each.name}: {'accepted, and not done' if each.accepted else 'refused'}. {each.why}"
        for each in by[Shown.REFUTED]
    ]
    if by[Shown.UNTOLD]:
        said.append(f"Could not tell: {', '.join(each.name for each in by[Shown.UNTOLD])}.")
    return tuple(said)


def _capability_text(capability: str) -> str:
    return f"the capability {capability}"


def _reason_text(handshake: Handshake, name: Capability | str) -> str:
    each = handshake[name]
    shown = {Shown.REFUTED: "refuted", Shown.UNTOLD: "not shown", Shown.PROVEN: "proven"}[each.shown]
    what = "accepted, and not done" if each.accepted else shown
    return f"{name} is {what} ({each.why.rstrip('.')})"


def _strip_prompt(prompt: str, text: str) -> str:
    """A reply that begins with the text that it was to go on with, without that."""
    stripped = text.lstrip()
    return stripped.removeprefix(prompt) if stripped.startswith(prompt) else text
