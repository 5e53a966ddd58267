"""The chat template of a Hugging Face folder as text, selected by name if there are several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auditor.core.errors import DamagedError
from auditor.models.chat import template_of, template_sha256
from auditor.models.files.model_bytes import convert_parser_errors
from auditor.models.files.model_folder import Folder

_FILE = "chat_template.jinja"
_MOST_BYTES = 4 << 20


def read_chat_template(folder: Folder, options: Mapping[str, Any]) -> str | dict[str, str] | None:
    """The chat template of chat_template.jinja, else of ``options`` (tokenizer_config.json): one or several by name.

    Raises DamagedError where it is neither, or no UTF-8.
    """
    if folder.has(_FILE):
        with convert_parser_errors(f"The {_FILE} in {folder.name!r} cannot be read"):
            # As text is read of a file: a line's end is one character.
            text = folder.read(_FILE, _MOST_BYTES).data.decode()
            return text.replace("\r\n", "\n").replace("\r", "\n")
    said = options.get("chat_template")
    if said is None or isinstance(said, str):
        return said
    named = said if isinstance(said, list) else [said]
    pairs = [(one.get("name"), one.get("template")) for one in named if isinstance(one, dict)]
    found = {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}
    if len(found) != len(named):
        raise DamagedError(f"The chat_template of {folder.name!r} is neither a text nor a list of named ones.")
    return found


def template_notes(tokenizer: Any) -> tuple[str, ...]:
    """A note on the tokenizer's chat template, with its SHA-256."""
    found = template_of(tokenizer)
    return () if found is None else (f"It has a chat template, sha256 {template_sha256(found)}.",)
