"""Capabilities of any language model: generating texts, scoring texts, and access to its weights.

A probe names what it needs, and is told what is missing and why.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from auditor.core.errors import NotApplicableError, OtherKindError
from auditor.models.audited_model import AuditedModel
from auditor.models.chat import Chat, How, chat_of, in_plain_text
from auditor.models.generation import Sampling, continuations
from auditor.models.language_model import AuditedLanguageModel
from auditor.models.text_scores import ScoresTexts

Capability = Literal["generates", "text_likelihoods", "weights"]
_IN_WORDS: dict[Capability, str] = {
    "generates": "a model that writes texts",
    "text_likelihoods": "the likelihoods of texts",
    "weights": "the model's own weights and tokenizer",
}
# What a chat's user says, so that the reply, which begins with the same text, is its continuation.
CONTINUE = "Continue this text: {}"


@dataclass(frozen=True)
class Reply:
    """A model's reply to a message: ``text``, or the reason for its absence, which is no answer of the model.

    ``cut``: whether it was cut off while the model was thinking.
    """

    text: str
    failed: str = ""
    cut: bool = False

    @classmethod
    def from_written(cls, text: str) -> Reply:
        """The reply in what was written, without the thinking before it."""
        answer = without_thinking(text)
        return cls(answer, cut=not answer and bool(text.strip()))


_THINKS, _ENDS = ("<think>", "<thinking>"), re.compile("</think(?:ing)?>")


def without_thinking(text: str) -> str:
    """What a model wrote after its thinking, "" where that does not end; some templates write its beginning."""
    after = [found.end() for found in _ENDS.finditer(text)]
    if after:
        return text[after[-1] :]
    return "" if text.lstrip().startswith(_THINKS) else text


class Generates(ABC):
    """The capability of writing texts; ``repeats``: whether the same message has the same reply."""

    repeats = True

    @abstractmethod
    def with_chat_options(self, chat_mode: How, system: str) -> Generates:
        """The same model, prompted as a chat or in plain text, with a system message or with none, "".

        Raises NotApplicableError where it cannot be asked so.
        """

    @abstractmethod
    def describe(self) -> str:
        """The prompting mode, for a finding's detail; "" if there is only one."""

    @abstractmethod
    def continued(
        self, prompts: Sequence[str], n: int, sampling: Sampling, rng: np.random.Generator, *, batch_rows: int = 64
    ) -> list[list[str]]:
        """``n`` continuations of each text, without the text; ModelError if one is unavailable."""

    @abstractmethod
    def replies(self, conversations: Sequence[Sequence[str]], max_new_tokens: int) -> list[Reply]:
        """The likeliest reply to each conversation, turn by turn a user's and an assistant's, a user's at the end."""


@dataclass(frozen=True)
class Writer(Generates):
    """A causal language model in this process, with its chat template, or in plain text if ``chat`` is None."""

    model: AuditedLanguageModel
    chat: Chat | None = None

    def with_chat_options(self, chat_mode: How, system: str) -> Writer:
        return replace(self, chat=chat_of(self.model, chat_mode, system))

    def describe(self) -> str:
        return in_plain_text(self.model) if self.chat is None else self.chat.describe()

    def continued(
        self, prompts: Sequence[str], n: int, sampling: Sampling, rng: np.random.Generator, *, batch_rows: int = 64
    ) -> list[list[str]]:
        """Continuations, as by :func:`~auditor.models.generation.continuations`; a chat reply starts with the text."""
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        chat = self.chat
        if chat is not None:
            prompts = [chat.render_prompt(CONTINUE.format(prompt)) + chat.lead + prompt for prompt in prompts]
        return continuations(
            self.model, prompts, n, sampling, generator, batch_rows=batch_rows, rendered=chat is not None
        )

    def replies(self, conversations: Sequence[Sequence[str]], max_new_tokens: int) -> list[Reply]:
        chat = self.chat
        if chat is None:
            prompts = [in_one_text(turns) for turns in conversations]
        else:
            prompts = [chat.render_prompt(*turns) for turns in conversations]
        sampling = Sampling(max_new_tokens=max_new_tokens, temperature=0.0)
        generator = torch.Generator().manual_seed(0)
        found = continuations(self.model, prompts, 1, sampling, generator, rendered=chat is not None)
        return [Reply.from_written(texts[0]) for texts in found]


def in_one_text(turns: Sequence[str]) -> str:
    """A conversation as one text that ends at the start of the answer to its last question."""
    told = "".join(f"{asked}\nAnswer: {said}\n\n" for asked, said in zip(turns[:-1:2], turns[1::2], strict=True))
    return f"{told}{turns[-1]}\nAnswer:"


def writer_of(model: AuditedModel, chat_mode: How = "auto", system: str = "") -> Generates:
    """The model as a text generator in this mode; NotApplicableError if it cannot generate or has no such mode.

    A text stands behind the same prefix as one that is scored; a chat template writes its own.
    """
    if isinstance(model, Generates):
        return model.with_chat_options(chat_mode, system)
    if not isinstance(model, AuditedLanguageModel):
        raise lacking(model, "generates")
    if model.objective == "masked":
        raise OtherKindError("Needs a causal language model: a masked one continues no text.")
    return Writer(model).with_chat_options(chat_mode, system)


def scorer_of(model: AuditedModel) -> ScoresTexts:
    """The model as a scorer of texts.

    Raises NotApplicableError where it does not.
    """
    if not isinstance(model, ScoresTexts):
        raise lacking(model, "text_likelihoods")
    return model


def weights_of(model: AuditedModel) -> AuditedLanguageModel:
    """The model as one with available weights.

    Raises NotApplicableError where it is known by its answers alone.
    """
    if not isinstance(model, AuditedLanguageModel):
        raise lacking(model, "weights")
    return model


def lacking(model: AuditedModel, capability: Capability) -> NotApplicableError:
    """The error for a capability that a model lacks, or has not demonstrated."""
    if model.kind != "language_model":
        kinds = {"classifier": "a classifier", "regressor": "a regression model"}
        return OtherKindError(f"Needs a language model: this model is {kinds.get(model.kind, 'of another kind')}.")
    why = model.why_not.get(capability, "they are not to be had of this model")
    return NotApplicableError(f"Needs {_IN_WORDS[capability]}: {why.rstrip('.')}.")
