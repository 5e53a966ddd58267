"""Request and answer types of an OpenAI-compatible endpoint: chat and completions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from auditor.core.errors import ModelError

Route = Literal["completions", "chat"]

PATHS: dict[Route, str] = {"completions": "/completions", "chat": "/chat/completions"}
# What an answer may hold at most; a server is not trusted to keep to what it was asked.
MOST_CHOICES = 1_024
MOST_TOKENS = 65_536
MOST_ALTERNATIVES = 256


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call: a text to continue, or the turns of a chat.

    ``top_logprobs``: how many alternatives are wanted at each position; None for no log-probabilities at all.
    ``temperature``: 1 is the model's own distribution, 0 its likeliest token, None the server's own. ``top_p``: 1 draws
    from all tokens.
    """

    prompt: str | tuple[Message, ...]
    max_tokens: int
    temperature: float | None = 1.0
    top_p: float = 1.0
    n: int = 1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    echo: bool = False

    @property
    def route(self) -> Route:
        """The interface that answers the request."""
        return "completions" if isinstance(self.prompt, str) else "chat"

    def body(self, model: str) -> dict[str, Any]:
        """The JSON body; unset options are omitted, since the defaults of servers differ."""
        sent: dict[str, Any] = {"model": model, "max_tokens": self.max_tokens}
        sent |= {} if self.temperature is None else {"temperature": self.temperature}
        if isinstance(self.prompt, str):
            sent["prompt"] = self.prompt
            sent |= {} if self.top_logprobs is None else {"logprobs": self.top_logprobs}
            sent |= {"echo": True} if self.echo else {}
        else:
            sent["messages"] = [{"role": turn.role, "content": turn.content} for turn in self.prompt]
            sent |= {} if self.top_logprobs is None else {"logprobs": True, "top_logprobs": self.top_logprobs}
        if self.temperature:
            # A server's own clipping is not the model's distribution; 1 is the protocol's word for none.
            sent["top_p"] = self.top_p
        sent |= {"n": self.n} if self.n != 1 else {}
        sent |= {} if self.seed is None else {"seed": self.seed}
        sent |= {"stop": list(self.stop)} if self.stop else {}
        return sent

    def for_route(self, route: Route) -> Request:
        """The same request of the other interface: a text is a user's only turn."""
        if route == "chat" and isinstance(self.prompt, str):
            return replace(self, prompt=(Message("user", self.prompt),))
        return self


@dataclass(frozen=True)
class Position:
    """A token of an answer: its log-probability in nats, and the likeliest tokens at its place with theirs, falling.

    ``log_probability`` is None where nothing came before it, as at the first token of an echoed prompt.
    """

    token: str
    log_probability: float | None
    top: tuple[tuple[str, float], ...] = ()


# Rounding may lift a log-probability above 0 by so much.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Choice:
    """One text of an answer; ``positions`` is None if it came without log-probabilities."""

    text: str
    finish: str | None
    positions: tuple[Position, ...] | None = None

    @property
    def log_probability(self) -> float | None:
        """Log-probability of the whole text in nats, as reported; None if that of a token is missing."""
        found = [p.log_probability for p in self.positions or ()]
        known = [value for value in found if value is not None]
        return math.fsum(known) if known and len(known) == len(found) else None

    def placed(self, text: str) -> tuple[tuple[int, Position], ...]:
        """The tokens of an echoed text, each with the number of the text's characters up to its end."""
        positions = self.positions or ()
        # Some spell a text's first word with the blank that would stand before it.
        at = -int(bool(positions) and positions[0].token[:1] == " " != text[:1])
        found = []
        for position in positions:
            if at >= len(text):
                break
            at += len(position.token)
            found.append((min(at, len(text)), position))
        return tuple(found)


@dataclass(frozen=True)
class Answer:
    """A server's answer: the reported model name, the texts, and the server's token counts."""

    model: str | None
    choices: tuple[Choice, ...]
    prompt_tokens: int | None = None


def answer_of(content: object, route: Route) -> Answer:
    """An answer from its JSON; ModelError if it violates the protocol or exceeds the requested size."""
    if not isinstance(content, Mapping) or not isinstance(content.get("choices"), list) or not content["choices"]:
        raise ModelError("The endpoint answered with no 'choices': it is no OpenAI-compatible server, or not at /v1.")
    if len(content["choices"]) > MOST_CHOICES:
        raise ModelError(f"The endpoint answered with more than {MOST_CHOICES:,} texts.")
    model, usage = content.get("model"), content.get("usage")
    counted = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
    return Answer(
        model=model[:500] if isinstance(model, str) else None,
        choices=tuple(_choice(each, route) for each in content["choices"]),
        prompt_tokens=counted if isinstance(counted, int) and not isinstance(counted, bool) and counted >= 0 else None,
    )


def _choice(content: object, route: Route) -> Choice:
    if not isinstance(content, Mapping):
        raise ModelError("The endpoint answered with a choice that is no object.")
    if route == "chat":
        message = content.get("message")
        message = message if isinstance(message, Mapping) else {}
        text = message.get("content")
        # Some servers answer with the thinking in a field of its own; a text has it where a model writes it.
        thinking = next((message[name] for name in ("reasoning_content", "reasoning") if message.get(name)), None)
        if isinstance(thinking, str) and (text is None or isinstance(text, str)):
            text = f"<think>{thinking}" if not text else f"<think>{thinking}</think>{text}"
    else:
        text = content.get("text")
    if text is not None and not isinstance(text, str):
        raise ModelError("The endpoint answered with a text that is no string.")
    finish = content.get("finish_reason")
    reported = content.get("logprobs")
    positions = None
    if isinstance(reported, Mapping):
        positions = _chat_positions(reported) if route == "chat" else _completion_positions(reported)
    return Choice(text=text or "", finish=finish if isinstance(finish, str) else None, positions=positions)


def _chat_positions(reported: Mapping[str, Any]) -> tuple[Position, ...] | None:
    content = reported.get("content")
    # Newer servers answer completions in this form too.
    if not isinstance(content, list) or len(content) > MOST_TOKENS:
        return None
    found = []
    for each in content:
        if not isinstance(each, Mapping) or not isinstance(each.get("token"), str):
            return None
        top = each.get("top_logprobs")
        pairs = [
            (str(other.get("token")), _number(other.get("logprob")))
            for other in (top if isinstance(top, list) else [])[:MOST_ALTERNATIVES]
            if isinstance(other, Mapping)
        ]
        found.append(Position(each["token"], _number(each.get("logprob")), _falling(pairs)))
    return tuple(found) or None


def _completion_positions(reported: Mapping[str, Any]) -> tuple[Position, ...] | None:
    tokens, values, tops = reported.get("tokens"), reported.get("token_logprobs"), reported.get("top_logprobs")
    if not isinstance(tokens, list) or not isinstance(values, list):
        return _chat_positions(reported)
    if not 0 < len(tokens) == len(values) <= MOST_TOKENS:
        return None
    tops = tops if isinstance(tops, list) and len(tops) == len(tokens) else [None] * len(tokens)
    found = []
    for token, value, top in zip(tokens, values, tops, strict=True):
        pairs = list(top.items())[:MOST_ALTERNATIVES] if isinstance(top, Mapping) else []
        found.append(Position(str(token), _number(value), _falling([(str(t), _number(v)) for t, v in pairs])))
    return tuple(found)


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _falling(pairs: list[tuple[str, float | None]]) -> tuple[tuple[str, float], ...]:
    known = [(token, value) for token, value in pairs if value is not None]
    return tuple(sorted(known, key=lambda pair: -pair[1]))
