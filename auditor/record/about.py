"""What the people say of whom and what a report is about: identity, purpose and words, which no probe can measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field

from auditor.errors import ConfigError, did_you_mean
from auditor.files import LEFT_OUT, Closed
from auditor.record.catalogue import ENGLISH, Catalogue, words_of
from auditor.record.labels import Labels
from auditor.record.periods import day_of, period_of

_LONGEST = 500
_Said = Annotated[str, LEFT_OUT]
_EMPTY = Field(exclude_if=lambda part: part == type(part)())


class Organisation(Closed):
    """``[organisation]``: whose audit it is."""

    name: _Said = ""


class Document(Closed):
    """``[document]``: the audit's own number, version and classification."""

    id: _Said = ""
    version: _Said = ""
    classification: _Said = ""


class ModelIdentity(Closed):
    """``[model]``: which model it is, whatever its bytes, whose, of what risk tier, and when it is audited again.

    ``audit_every``: such as ``365d`` or ``6m``; ``next_due``: a day, which goes before it.
    """

    id: _Said = ""
    name: _Said = ""
    version: _Said = ""
    owner: _Said = ""
    tier: _Said = ""
    audit_every: _Said = ""
    next_due: _Said = ""


class System(Closed):
    """``[system]``: what the model is for, what is decided by it, and who is affected."""

    purpose: _Said = ""
    use: _Said = ""
    decision: _Said = ""
    affected: _Said = ""


class DataIdentity(Closed):
    """``[data]``: where the rows come from, and which population they stand for."""

    source: _Said = ""
    population: _Said = ""


class About(Closed):
    """What was said in audit.toml; what was not is empty, and never guessed.

    ``labels``: words for columns and for their values, as in ``[labels]``. ``language``: that of the first page, and
    ``words`` its phrases where it is none that comes with the tool.
    """

    organisation: Annotated[Organisation, _EMPTY] = Organisation()
    document: Annotated[Document, _EMPTY] = Document()
    model: Annotated[ModelIdentity, _EMPTY] = ModelIdentity()
    system: Annotated[System, _EMPTY] = System()
    data: Annotated[DataIdentity, _EMPTY] = DataIdentity()
    labels: Annotated[dict[str, str], LEFT_OUT] = Field(default_factory=dict)
    language: str = ENGLISH
    words: Annotated[dict[str, str], LEFT_OUT] = Field(default_factory=dict)

    @property
    def catalogue(self) -> Catalogue:
        """The words of the first page."""
        return Catalogue.of(self.language, self.words)

    @property
    def called(self) -> Labels:
        """What columns and values are called."""
        return Labels(self.labels)


_SECTIONS: Mapping[str, type[Closed]] = {
    "organisation": Organisation,
    "document": Document,
    "model": ModelIdentity,
    "system": System,
    "data": DataIdentity,
}
SECTIONS = tuple(_SECTIONS)
_TIMES: Mapping[str, Callable[[str, str], object]] = {"audit_every": period_of, "next_due": day_of}


def about_of(content: Mapping[str, Any], labels: Labels, language: str, where: str) -> About | None:
    """What a configuration says of identity and words; None where it says nothing.

    Raises ConfigError for an unknown key or a value that is no text, UsageError for an unknown language or what is no
    day or length of time.
    """
    said = {name: _section(content.get(name, {}), name, where) for name in SECTIONS}
    words = words_of(language)
    for key, read in _TIMES.items():
        if said["model"].get(key):
            read(said["model"][key], f"{where}: [model] {key}")
    if not any(said.values()) and not labels.words and language == ENGLISH:
        return None
    return About.model_validate(said | {"labels": dict(labels.words), "language": language, "words": words})


def _section(table: object, name: str, where: str) -> dict[str, str]:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: [{name}] must be a table.")
    known = tuple(_SECTIONS[name].model_fields)
    for key, value in table.items():
        if key not in known:
            near = did_you_mean(str(key), known) or "."
            raise ConfigError(f"{where}: [{name}] has no key {key!r}{near} Known: {', '.join(known)}.")
        if not isinstance(value, str) or len(value) > _LONGEST:
            raise ConfigError(f"{where}: [{name}] {key} must be text of at most {_LONGEST} characters.")
    return {str(key): value.strip() for key, value in table.items()}
