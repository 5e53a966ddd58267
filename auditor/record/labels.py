"""``[labels]`` of audit.toml: what columns and their values are called where people read of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from auditor.errors import ConfigError, UsageError, did_you_mean

_MOST, _LONGEST = 2_000, 200


@dataclass(frozen=True)
class Labels:
    """Words for columns, by ``column``, and for their values, by ``column.value``; what has none is called as it is."""

    words: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, table: Mapping[str, object], where: str) -> Labels:
        """Those of a table of TOML; ``where`` names it in messages. Raises ConfigError for what is no text.

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
        """What a column is called."""
        return self.words.get(name, name)

    def group(self, column: str, level: str) -> str:
        """A group with its feature, such as ``sex: female``; a word for it has beside it what it stands for."""
        word = self.words.get(f"{column}.{level}")
        return f"{self.column(column)}: {level}" if word is None else f"{word} ({column} = {level})"

    def value(self, column: str | None, value: object) -> str:
        """What a value of a column is called; numbers of five digits and more with commas."""
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
    """A value as a key of the table spells it: 1.0 and 1 are ``1``."""
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
    """Raises UsageError, with the nearest that there is, for a key of a column or value that the data do not have.

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
    """Raises UsageError where a reader could take one column or value for another: by the other's word, or its own
    name.

    Arguments as :func:`check_keys`, which has found all keys to be there.
    """
    named = {key: word for key, word in words.items() if key in columns}
    _check_apart({name: named.get(name, name) for name in columns}, named, "column", section)
    for column, seen in values.items():
        own = {value: words[f"{column}.{value}"] for value in seen if f"{column}.{value}" in words}
        _check_apart({value: own.get(value, value) for value in seen}, own, f"value of {column!r}", section)


def _check_apart(called: Mapping[str, str], labelled: Mapping[str, str], what: str, section: str) -> None:
    """``called``: words by name, of those without a label the name itself; ``labelled``: those that have one."""
    by_word: dict[str, str] = {}
    for name, word in sorted(called.items()):
        by_word.setdefault(_plain(word), name)
    names = {_plain(name): name for name in called}
    for name, word in sorted(labelled.items()):
        other = next((n for n in (by_word[_plain(word)], names.get(_plain(word), name)) if n != name), None)
        if other is not None:
            raise UsageError(
                f"{section} calls the {what} {name!r} {word!r}, and {other!r} is called or named so: readers would "
                "take one for the other."
            )


def _plain(word: str) -> str:
    return " ".join(word.casefold().split())
