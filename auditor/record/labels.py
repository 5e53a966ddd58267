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
