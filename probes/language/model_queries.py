"""Queries of a language model: by chat template or plain text, for likelihoods or for a letter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from auditor.core.errors import ConfigError, NotApplicableError

if TYPE_CHECKING:
    from auditor.models.audited_model import AuditedModel
    from auditor.models.capabilities import Generates
    from auditor.models.chat import Chat, How
    from auditor.models.text_scores import ScoresTexts

AnswerBy = Literal["auto", "likelihood", "letter"]
_MOST_BYTES = 1 << 16


@dataclass(frozen=True)
class Asking:
    """``chat``: ``auto`` is through the chat template of a model that has one, ``on`` through it or not at all, ``off``
    in plain text. ``system``: path of a file that holds the system message, UTF-8, without which there is none.
    ``answer_by``: ``likelihood``, ``letter``, or ``auto``, by likelihood where the model gives any."""

    chat: How = "auto"
    system: str | None = None
    answer_by: AnswerBy = "auto"

    def __post_init__(self) -> None:
        if self.chat not in ("auto", "on", "off"):
            raise ValueError(f"chat must be 'auto', 'on' or 'off', not {self.chat!r}")
        if self.system is not None and self.chat == "off":
            raise ValueError("system is told in a chat, and chat is 'off': leave one of them out")
        if self.answer_by not in ("auto", "likelihood", "letter"):
            raise ValueError(f"answer_by must be 'auto', 'likelihood' or 'letter', not {self.answer_by!r}")

    def of_texts(self, **of_likelihoods: object) -> Asking:
        """The same queries for a probe that compares plain texts by likelihood, with other options for letters only.

        Raises ConfigError where what is said can change nothing: a system message by likelihood, or by letter one of
        ``of_likelihoods``, options that are not None.
        """
        unused = [name for name, said in of_likelihoods.items() if said is not None]
        if self.answer_by == "likelihood" and self.system is not None:
            raise ConfigError("system is for letters, and answer_by is 'likelihood': leave one of them out.")
        if self.answer_by == "letter" and unused:
            raise ConfigError(f"{unused[0]} is for likelihoods, and answer_by is 'letter': leave one of them out.")
        return self

    def by_letter(self, model: AuditedModel) -> bool:
        """Whether the model is queried for a letter instead of likelihoods."""
        from auditor.models.text_scores import ScoresTexts

        return self.answer_by == "letter" or (self.answer_by == "auto" and not isinstance(model, ScoresTexts))

    def chat_for(self, model: ScoresTexts) -> Chat | None:
        """The model's chat, or None for plain text, as for a model without a known template.

        Raises NotApplicableError where a template is asked for that the model does not have, ConfigError where the
        system message cannot be read.
        """
        from auditor.models.chat import chat_of
        from auditor.models.language_model import AuditedLanguageModel

        if isinstance(model, AuditedLanguageModel):
            return chat_of(model, self.chat, self._system_text())
        if self.chat == "on" or self.system is not None:
            raise NotApplicableError(
                "Needs the model's chat template to say how likely an answer is, and it is not here: leave --chat on "
                "and --system out."
            )
        return None

    def writer(self, model: AuditedModel) -> Generates:
        """The model as a text generator in this prompting mode.

        Raises NotApplicableError where it writes no texts, or cannot be asked so, ConfigError as :meth:`chat_for`.
        """
        from auditor.models.capabilities import writer_of

        return writer_of(model, self.chat, self._system_text())

    def _system_text(self) -> str:
        return "" if self.system is None else _system_message(self.system)


def _system_message(path: str) -> str:
    where = Path(path)
    try:
        raw = where.read_bytes()
        text = raw.decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The system message {where.name!r} cannot be read: {error}.") from None
    if not text or len(raw) > _MOST_BYTES:
        raise ConfigError(f"The system message {where.name!r} must hold 1 to {_MOST_BYTES:,} bytes of text.")
    return text
