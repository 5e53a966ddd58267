"""User-stated facts of a report that no probe can measure: persons, model identity, purpose and text."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from typing import Annotated, Any

from pydantic import Field

from auditor.core.errors import ConfigError, UsageError, did_you_mean
from auditor.core.files import LEFT_OUT, Closed
from auditor.judging.input_files import ObeyedFile
from auditor.report.record.display_labels import Labels
from auditor.report.record.durations import day_of, period_of
from auditor.report.record.translations import ENGLISH, Catalogue, words_in, words_of

_LONGEST, _MOST_GROUPS = 500, 200
# Published shares are rounded.
_ROUNDED = 0.01
_Said = Annotated[str, LEFT_OUT]
_EMPTY = Field(exclude_if=lambda part: part == type(part)())


class Organisation(Closed):
    """``[organisation]``: the organisation responsible for the audit."""

    name: _Said = ""


class Document(Closed):
    """``[document]``: the audit's own number, version and classification."""

    id: _Said = ""
    version: _Said = ""
    classification: _Said = ""


class ModelIdentity(Closed):
    """``[model]``: the model's identity independent of its bytes: owner, risk tier, next audit.

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
    """``[system]``: the purpose of the model, its decisions, and the affected people."""

    purpose: _Said = ""
    use: _Said = ""
    decision: _Said = ""
    affected: _Said = ""


class Reference(Closed):
    """``[data.reference]``: the population that the rows represent, and the published source of ``shares``.

    ``shares``: of each group, by sensitive feature; those of a feature add up to 1.
    """

    source: _Said = ""
    shares: Annotated[dict[str, dict[str, float]], LEFT_OUT] = Field(default_factory=dict)


class DataIdentity(Closed):
    """``[data]``: the origin and processing of the rows, and the population that they represent."""

    source: _Said = ""
    population: _Said = ""
    lineage: _Said = ""
    reference: Annotated[Reference, _EMPTY] = Field(default_factory=Reference)


class About(Closed):
    """The statements in audit.toml; unstated fields are empty, never guessed.

    ``labels``: words for columns and for their values, as in ``[labels]``. ``language``: that of the first page, and
    ``words`` its phrases where it is none that comes with the tool.
    """

    organisation: Annotated[Organisation, _EMPTY] = Field(default_factory=Organisation)
    document: Annotated[Document, _EMPTY] = Field(default_factory=Document)
    model: Annotated[ModelIdentity, _EMPTY] = Field(default_factory=ModelIdentity)
    system: Annotated[System, _EMPTY] = Field(default_factory=System)
    data: Annotated[DataIdentity, _EMPTY] = Field(default_factory=DataIdentity)
    labels: Annotated[dict[str, str], LEFT_OUT] = Field(default_factory=dict)
    language: str = ENGLISH
    words: Annotated[dict[str, str], LEFT_OUT] = Field(default_factory=dict)

    @property
    def catalogue(self) -> Catalogue:
        """The words of the first page."""
        return Catalogue.for_language(self.language, self.words)

    @property
    def display_labels(self) -> Labels:
        """The display names of columns and values."""
        return Labels(self.labels)


def stated_groups(about: About | None, sensitive: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The groups of ``[data.reference]``, by feature. Raises UsageError for a feature whose groups are not compared."""
    stated = {} if about is None else about.data.reference.shares
    for name in stated:
        if name not in sensitive:
            near = did_you_mean(name, sensitive) or f": add --sensitive {name}."
            raise UsageError(f"[data.reference] has {name!r}, whose groups are not compared{near}")
    return {name: tuple(groups) for name, groups in stated.items()}


def check_reference(
    reference_groups: Mapping[str, Collection[str]], data_groups: Mapping[str, Collection[str]]
) -> None:
    """Raise UsageError for a group of ``[data.reference]`` without rows whose spelling is close to an existing one.

    ``reference_groups`` and ``data_groups``: groups by sensitive feature. A group that truly has no row is what a
    reference is for.
    """
    for feature, groups in reference_groups.items():
        left = [name for name in data_groups.get(feature, ()) if name not in groups]
        for name in groups:
            if name not in data_groups.get(feature, ()) and (near := did_you_mean(name, left)):
                raise UsageError(f"[data.reference] {feature} has {name!r}, and no row is in such a group{near}")


_SECTIONS: Mapping[str, type[Closed]] = {
    "organisation": Organisation,
    "document": Document,
    "model": ModelIdentity,
    "system": System,
    "data": DataIdentity,
}
SECTIONS = tuple(_SECTIONS)
_TIMES: Mapping[str, Callable[[str, str], object]] = {"audit_every": period_of, "next_due": day_of}


def about_of(
    content: Mapping[str, Any], labels: Labels, language: str, where: str, catalogue: ObeyedFile | None = None
) -> About | None:
    """The identity and wording statements of a configuration; None if it has none.

    ``catalogue``: the file that ``language`` names, where it was read already.
    Raises ConfigError for an unknown key or a value that is no text, UsageError for an unknown language or what is no
    day or length of time.
    """
    said: dict[str, dict[str, Any]] = {name: _section(content.get(name, {}), name, where) for name in SECTIONS}
    words = words_of(language) if catalogue is None else words_in(catalogue)
    for key, read in _TIMES.items():
        if said["model"].get(key):
            read(said["model"][key], f"{where}: [model] {key}")
    if not any(said.values()) and not labels.words and language == ENGLISH:
        return None
    return About.model_validate(said | {"labels": dict(labels.words), "language": language, "words": words})


def _section(table: object, name: str, where: str) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: [{name}] must be a table.")
    known = tuple(_SECTIONS[name].model_fields)
    said: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            near = did_you_mean(str(key), known) or "."
            raise ConfigError(f"{where}: [{name}] has no key {key!r}{near} Known: {', '.join(known)}.")
        if (name, key) == ("data", "reference"):
            said[key] = _reference(value, where)
        else:
            said[key] = _text(value, f"{where}: [{name}] {key}")
    return said


def _text(value: object, subject: str) -> str:
    if type(value) is date:
        # TOML has days of its own.
        return value.isoformat()
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ConfigError(f"{subject} must be text of at most {_LONGEST} characters.")
    return value.strip()


def _reference(table: object, where: str) -> dict[str, Any]:
    """``[data.reference]``: a source, and a table of shares for each feature."""
    what = f"{where}: [data.reference]"
    if not isinstance(table, Mapping):
        raise ConfigError(f'{what} must be a table, such as source = "census 2025" and sex = {{ F = 0.51, M = 0.49 }}.')
    shares = {}
    for feature, own in table.items():
        if feature == "source" and not isinstance(own, Mapping):
            continue
        if not isinstance(own, Mapping) or not 2 <= len(own) <= _MOST_GROUPS:
            near = did_you_mean(str(feature), ("source",)) or "."
            raise ConfigError(
                f"{what} {feature} must be the shares of 2 to {_MOST_GROUPS} groups, such as {{ F = 0.51, M = 0.49 }}"
                f"{near}"
            )
        for group, share in own.items():
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 <= share <= 1.0:
                raise ConfigError(f"{what} {feature}: the share of {group!r} must lie in [0, 1], and is {share!r}.")
        total = math.fsum(own.values())
        if abs(total - 1.0) > _ROUNDED:
            raise ConfigError(f"{what} {feature}: the shares add up to {total:g}, and must to 1: name every group.")
        shares[str(feature)] = {str(group): float(share) for group, share in own.items()}
    source = _text(table["source"], f"{what} source") if isinstance(table.get("source"), str) else ""
    if shares and not source:
        raise ConfigError(f'{what} says shares, and not where they were published: add source = "...".')
    return {"source": source, "shares": shares}
