"""Every error the toolkit raises on purpose; each message says what to do next.

AuditorError                    exit code
├── UsageError                  2   a flag, an option or a path is wrong
│   ├── ConfigError             2   audit.toml or a criteria file is wrong
│   └── MissingExtraError       2   an optional dependency is not installed; names the extra
├── DataError                   4   the data were read and cannot be used
├── ModelError                  4   the model was read and cannot be used
│   ├── OutputsError            4   nobody said what its outputs are, or what was said is not so
│   └── UnsafeModelError        4   loading it would run code that the file brings along
└── NotApplicableError          -   a probe lacks an input; becomes a NOT_APPLICABLE finding
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class AuditorError(Exception):
    """Base class: its message is one or two sentences that a user can act on."""

    exit_code: int = 4


class UsageError(AuditorError):
    """A flag, an option or a path is wrong; nothing was measured."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration or criteria file is wrong; the message names the key and the nearest known one."""


class MissingExtraError(UsageError):
    """An optional dependency is absent; the message names the extra that brings it."""


class DataError(AuditorError):
    """The data were read and cannot be used as asked."""


class ModelError(AuditorError):
    """The model was read and cannot be used as asked."""


class OutputsError(ModelError):
    """Whether a model returns logits or probabilities is not said, or contradicts what it returns: none of its answers
    means anything until somebody says it."""


class UnsafeModelError(ModelError):
    """Loading the file would run code that the file itself brings along."""


class NotApplicableError(AuditorError):
    """A probe lacks an input; raised inside a probe, it becomes a NOT_APPLICABLE finding with this message."""


def first_line(error: BaseException) -> str:
    """The first line of somebody else's error without its full stop, its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__


MOST_NAMED = 5


def some_of(sentences: Sequence[str], n: int | None = None) -> str:
    """The first few of many sentences, ``n`` in all, and how many more there are."""
    n = len(sentences) if n is None else n
    more = f" And {n - MOST_NAMED:,} more." if n > MOST_NAMED else ""
    return f"{' '.join(sentences[:MOST_NAMED])}{more}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest known word, whatever its case, or ``""`` where none is near."""
    by_folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), list(by_folded), n=1, cutoff=0.6)
    return f"; did you mean {by_folded[near[0]]!r}?" if near else ""
