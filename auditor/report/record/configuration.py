"""The configuration in a record: files that determined the audit, display labels, and user-stated facts."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any

from pydantic import Field

from auditor.core.errors import ConfigError, UsageError, did_you_mean
from auditor.core.files import LEFT_OUT, Closed
from auditor.judging.input_files import FileRole, ObeyedFile, Origin
from auditor.report.record import number_text
from auditor.report.record.number_text import day_of, period_of
from auditor.report.record.translations import ENGLISH, Catalogue, words_in, words_of

_LONGEST_KEY_LIST = 480


class ConfigurationFile(Closed):
    """A file that decided something of an audit.

    ``path``: as it was named; the name of what comes with the tool. ``origin``: ``found`` where the audit was started
    and named by nobody, ``given`` by whoever started it, or ``shipped`` with the tool. ``sha256``: hex, of the bytes
    that were obeyed. ``keys``: what a configuration decided, such as ``target`` or ``probes.robustness.noise``.
    """

    path: str
    role: FileRole
    origin: Origin
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    keys: Annotated[tuple[str, ...], LEFT_OUT] = ()

    def describe(self, say: Catalogue, digits: int = 64) -> str:
        """A description of the file: its role, its source, and ``digits`` of its digest."""
        return say.say(
            "obeyed.line",
            path=self.path,
            role=say.say(f"obeyed.{self.role.replace(' ', '_')}"),
            origin=say.say(f"obeyed.{self.origin}"),
            digest=f"SHA-256 {self.sha256[:digits]}",
        )

    def told_whole(self, say: Catalogue) -> str:
        """The description of the file, with its effect."""
        said = self.describe(say)
        keys = number_text.shortened(", ".join(self.keys), _LONGEST_KEY_LIST)
        return say.say("obeyed.decided", file=said, keys=keys) if keys else said


class ConfigurationRecord(Closed):
    """All files that determined an audit, without their contents."""

    files: tuple[ConfigurationFile, ...]


def recorded(files: Sequence[ObeyedFile]) -> ConfigurationRecord | None:
    """The record of the files; None if there were none."""
    if not files:
        return None
    return ConfigurationRecord(
        files=tuple(
            ConfigurationFile(path=f.path, role=f.role, origin=f.origin, sha256=f.sha256, keys=f.keys) for f in files
        )
    )


_MOST, _LONGEST_LABEL = 2_000, 200


@dataclass(frozen=True)
class Labels:
    """Display names of columns, by ``column``, and values, by ``column.value``; the default is the plain name."""

    words: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_table(cls, table: Mapping[str, object], where: str) -> Labels:
        """The labels of a TOML table; ``where`` names it in messages.

        Raises ConfigError for what is no text.

        ``afam = "African-American"`` is a column's word and ``"afam.yes" = "yes"`` a value's, in quotes, since TOML
        gives a name either a value or a table; where the column needs no word, ``afam.yes = "yes"`` will do.
        """
        words: dict[str, str] = {}
        for key, value in _flat(table):
            if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST_LABEL:
                raise ConfigError(
                    f'{where}: {key!r} must be words of at most {_LONGEST_LABEL} characters: "{key}" = "...".'
                )
            words[key] = value.strip()
        if len(words) > _MOST:
            raise ConfigError(f"{where} holds more than {_MOST:,} labels.")
        return cls(words)

    def column(self, name: str) -> str:
        """The display name of a column."""
        return self.words.get(name, name)

    def group(self, column: str, level: str) -> str:
        """A group with its feature, such as ``sex: female``; a display name is followed by the original value."""
        word = self.words.get(f"{column}.{level}")
        return f"{self.column(column)}: {level}" if word is None else f"{word} ({column} = {level})"

    def value(self, column: str | None, value: object) -> str:
        """The display name of a column's value; numbers of five or more digits with commas."""
        if value is None:
            return "missing"
        plain = spelled(value)
        known = self.words.get(f"{column}.{plain}")
        if known is not None:
            return known
        return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}" if _is_long(value) else plain


def _is_long(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000


def spelled(value: object) -> str:
    """A value in the spelling of the table's keys: 1.0 and 1 are ``1``."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)


def _flat(table: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            for inner, word in value.items():
                yield f"{key}.{inner}", word
        else:
            yield key, value


def check_keys(
    keys: Collection[str], columns: Collection[str], values: Mapping[str, Collection[str]], section: str = "[labels]"
) -> None:
    """Raise UsageError, with the nearest match, for the key of a column or value absent from the data.

    ``section``: of audit.toml, where the key stands. ``columns``: all of the data. ``values``: those seen of a column,
    as they are spelled, where they are known.
    """
    for key in keys:
        if key in columns:
            continue
        of = [name for name in columns if key.startswith(f"{name}.")]
        if not of:
            near = did_you_mean(key.partition(".")[0], sorted(columns)) or "."
            raise UsageError(f"{section} has {key!r}, and the data have no such column{near}")
        column = max(of, key=len)
        value, seen = key[len(column) + 1 :], values.get(column)
        if seen is not None and value not in seen:
            some = ", ".join(sorted(seen)[:8])
            raise UsageError(
                f"{section} has {key!r}, and column {column!r} has no value {value!r}"
                f"{did_you_mean(value, sorted(seen)) or '.'} It has: {some}."
            )


def check_words(words: Mapping[str, str], columns: Collection[str], values: Mapping[str, Collection[str]]) -> None:
    """Raise UsageError for ambiguous display names: equal to another one's display name or own name.

    Arguments as :func:`check_keys`, which has found all keys to be there.
    """
    named = {key: word for key, word in words.items() if key in columns}
    _check_apart({name: named.get(name, name) for name in columns}, named, "column")
    for column, seen in values.items():
        own = {value: words[f"{column}.{value}"] for value in seen if f"{column}.{value}" in words}
        _check_apart({value: own.get(value, value) for value in seen}, own, f"value of {column!r}")


def _check_apart(words: Mapping[str, str], labelled: Mapping[str, str], noun: str) -> None:
    """``words``: words by name, of those without a label the name itself; ``labelled``: those that have one."""
    by_word: dict[str, str] = {}
    for name, word in sorted(words.items()):
        by_word.setdefault(_plain(word), name)
    names = {_plain(name): name for name in words}
    for name, word in sorted(labelled.items()):
        other = next((n for n in (by_word[_plain(word)], names.get(_plain(word), name)) if n != name), None)
        if other is not None:
            raise UsageError(
                f"[labels] calls the {noun} {name!r} {word!r}, and {other!r} is called or named so: readers would "
                "take one for the other."
            )


def _plain(word: str) -> str:
    return " ".join(word.casefold().split())


_LONGEST_TEXT, _MOST_GROUPS = 500, 200
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
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise ConfigError(f"{subject} must be text of at most {_LONGEST_TEXT} characters.")
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
