"""How a probe asks a language model: through its chat template, where it has one, or in plain text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.errors import ConfigError

if TYPE_CHECKING:
    from auditor.model.chat import Chat, How
    from auditor.model.language_model import AuditedLanguageModel

_MOST_BYTES = 1 << 16


@dataclass(frozen=True)
class Asking:
    """``chat``: ``auto`` is through the chat template of a model that has one, ``on`` through it or not at all, ``off``
    in plain text. ``system``: path of a file that holds the system message, UTF-8, without which there is none."""

    chat: How = "auto"
    system: str | None = None

    def __post_init__(self) -> None:
        if self.chat not in ("auto", "on", "off"):
            raise ValueError(f"chat must be 'auto', 'on' or 'off', not {self.chat!r}")
        if self.system is not None and self.chat == "off":
            raise ValueError("system is told in a chat, and chat is 'off': leave one of them out")

    def of(self, model: AuditedLanguageModel) -> Chat | None:
        """The model's chat, or None where it is asked in plain text.

        Raises NotApplicableError where a template is asked for that the model does not have, ConfigError where the
        system message cannot be read.
        """
        from auditor.model.chat import chat_of

        return chat_of(model, self.chat, "" if self.system is None else _system_message(self.system))

    def describe(self, model: AuditedLanguageModel) -> str:
        """How the model is asked, for a finding's detail; "" where there is but one way."""
        from auditor.model.chat import in_plain_text

        chat = self.of(model)
        return in_plain_text(model) if chat is None else chat.describe()


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
