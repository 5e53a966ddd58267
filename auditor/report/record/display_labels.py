"""``[labels]`` of audit.toml: display names of columns and their values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from auditor.core.errors import ConfigError, UsageError, did_you_mean

_MOST, _LONGEST = 2_000, 200


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
            if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST:
                raise ConfigError(f'{where}: {key!r} must be words of at most {_LONGEST} characters: "{key}" = "...".')
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


def check_words(
    words: Mapping[str, str], columns: Collection[str], values: Mapping[str, Collection[str]], section: str = "[labels]"
) -> None:
    """Raise UsageError for ambiguous display names: equal to another one's display name or own name.

    Arguments as :func:`check_keys`, which has found all keys to be there.
    """
    named = {key: word for key, word in words.items() if key in columns}
    _check_apart({name: named.get(name, name) for name in columns}, named, "column", section)
    for column, seen in values.items():
        own = {value: words[f"{column}.{value}"] for value in seen if f"{column}.{value}" in words}
        _check_apart({value: own.get(value, value) for value in seen}, own, f"value of {column!r}", section)


def _check_apart(words: Mapping[str, str], labelled: Mapping[str, str], noun: str, section: str) -> None:
    """``words``: words by name, of those without a label the name itself; ``labelled``: those that have one."""
    by_word: dict[str, str] = {}
    for name, word in sorted(words.items()):
        by_word.setdefault(_plain(word), name)
    names = {_plain(name): name for name in words}
    for name, word in sorted(labelled.items()):
        other = next((n for n in (by_word[_plain(word)], names.get(_plain(word), name)) if n != name), None)
        if other is not None:
            raise UsageError(
                f"{section} calls the {noun} {name!r} {word!r}, and {other!r} is called or named so: readers would "
                "take one for the other."
            )


def _plain(word: str) -> str:
    return " ".join(word.casefold().split())
