"""Prompting a language model through its own chat template, with or without a system message."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from auditor.core.errors import NotApplicableError
from auditor.models.chat_template import TODAY, render

if TYPE_CHECKING:
    from auditor.models.language_model import AuditedLanguageModel

How = Literal["auto", "on", "off"]
_TRIED = "a"


@dataclass(frozen=True)
class Chat:
    """The conversation format of a model: ``template`` is Jinja, ``special`` the tokenizer's special tokens by name,
    ``system`` the system message, "" for none."""

    template: str
    special: Mapping[str, str] = field(default_factory=dict)
    system: str = ""

    @property
    def sha256(self) -> str:
        """SHA-256 of the template, as UTF-8."""
        return template_sha256(self.template)

    def render_prompt(self, *turns: str) -> str:
        """The text up to the start of the model's answer; ``turns``: alternating user and assistant, a user's last.

        Raises ModelError where the template cannot be rendered or refuses the conversation.
        """
        return self._rendered(turns, add_generation_prompt=True)

    @cached_property
    def lead(self) -> str:
        """The template's text between :meth:`render_prompt` and an answer, such as a blank, or nothing."""
        before, whole = self.render_prompt(_TRIED), self._rendered((_TRIED, _TRIED), add_generation_prompt=False)
        rest = whole.removeprefix(before)
        lead = rest.partition(_TRIED)[0]
        # Where the answer stands elsewhere, as after a part for thoughts, it follows the prompt directly.
        return lead if rest != whole and not lead.strip() else ""

    def describe(self) -> str:
        """The prompting mode, for a finding's detail."""
        told = f"after a system message of {len(self.system):,} characters" if self.system else "without system message"
        return f"asked through its chat template (sha256 {self.sha256}), {told}, as on {TODAY:%Y-%m-%d}"

    def _rendered(self, turns: Sequence[str], *, add_generation_prompt: bool) -> str:
        said = [{"role": "system", "content": self.system}] if self.system else []
        said += [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
        return render(self.template, said, special=self.special, add_generation_prompt=add_generation_prompt)


def chat_of(model: AuditedLanguageModel, chat_mode: How = "auto", system: str = "") -> Chat | None:
    """The model's chat; None for plain text: ``off``, or ``auto`` without a template.

    Of named templates it is the one named "default". Raises NotApplicableError where a template is asked for, by ``on``
    or by a system message, and there is none.
    """
    found = None if chat_mode == "off" else _template(model)
    if found is None:
        if chat_mode == "on" or (system and chat_mode != "off"):
            asked = "--chat on" if chat_mode == "on" else "--system"
            raise NotApplicableError(
                f"Needs a model with a chat template, which its tokenizer has not: leave {asked} out."
            )
        return None
    special = {k: v for k, v in dict(getattr(model.tokenizer, "special_tokens_map", {})).items() if isinstance(v, str)}
    return Chat(found, special, system)


def in_plain_text(model: AuditedLanguageModel) -> str:
    """The note on a model with a chat template prompted without it, else ""."""
    return "" if _template(model) is None else "asked in plain text, not through its chat template"


def template_of(tokenizer: Any) -> str | None:
    """A tokenizer's chat template; the default one if there are several."""
    found = getattr(tokenizer, "chat_template", None)
    if isinstance(found, dict):
        found = found.get("default")
    return found if isinstance(found, str) else None


def template_sha256(template: str) -> str:
    """SHA-256 of a template, as UTF-8."""
    return hashlib.sha256(template.encode("utf-8", "surrogatepass")).hexdigest()


def _template(model: AuditedLanguageModel) -> str | None:
    # A masked model fills in; it answers nobody.
    return None if model.objective == "masked" else template_of(model.tokenizer)
