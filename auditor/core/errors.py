"""Exceptions that the toolkit raises deliberately; each message says what to do next.

AuditorError                    exit code
├── UsageError                  2   a flag, an option or a path is wrong
│   ├── ConfigError             2   audit.toml or a criteria file is wrong
│   └── MissingExtraError       2   an optional dependency is not installed; names the extra
├── DataError                   4   the data were read and cannot be used
│   └── BenchmarkError          4   a file of test items is not the one that was published
├── ModelError                  4   the model was read and cannot be used
│   ├── DamagedError            4   its file is cut short, damaged or doctored
│   ├── UnsupportedError        4   its format, or this kind of model in it, is not supported
│   ├── OutputsError            4   nobody said what its outputs are, or what was said is not so
│   └── UnsafeModelError        4   loading it would run code that the file brings along
└── NotApplicableError          -   a probe lacks an input; becomes a NOT_APPLICABLE finding
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

# What a model or a data file is refused for, as machines are told: kept from version to version, never used anew.
Code: TypeAlias = Literal[
    "AUD-LOAD-ANSWERS",
    "AUD-LOAD-ARCHITECTURE",
    "AUD-LOAD-CLASSES",
    "AUD-LOAD-CODE",
    "AUD-LOAD-DAMAGED",
    "AUD-LOAD-DIED",
    "AUD-LOAD-INCOMPLETE",
    "AUD-LOAD-LIMIT",
    "AUD-LOAD-OUTPUTS",
    "AUD-LOAD-ROWS",
    "AUD-LOAD-SIGNATURE",
    "AUD-LOAD-TYPE",
    "AUD-LOAD-UNKNOWN",
    "AUD-LOAD-UNSUPPORTED",
    "AUD-LOAD-UNUSABLE",
    "AUD-LOAD-WEIGHTS",
    "AUD-DATA-BENCHMARK",
    "AUD-DATA-CHANGED",
    "AUD-DATA-CODE",
    "AUD-DATA-COLUMN",
    "AUD-DATA-EMPTY",
    "AUD-DATA-ENCODING",
    "AUD-DATA-FORMAT",
    "AUD-DATA-GROUPS",
    "AUD-DATA-LABELS",
    "AUD-DATA-LIMIT",
    "AUD-DATA-MALFORMED",
    "AUD-DATA-UNUSABLE",
    "AUD-DATA-VALUES",
]


class AuditorError(Exception):
    """Base class of all deliberate errors: the message is one or two sentences with an action for the user.

    ``code``: why a model or a data file was refused, one of :data:`Code`; None for everything else.
    """

    exit_code: int = 4
    code: Code | None = None

    def __init__(self, message: str = "", *, code: Code | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class UsageError(AuditorError):
    """A flag, an option or a path is wrong; nothing was measured."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration or criteria file is wrong; the message names the key and the nearest known one."""


class MissingExtraError(UsageError):
    """An optional dependency is absent; the message names the extra that brings it."""


class DataError(AuditorError):
    """The data were read but cannot be used for the requested purpose."""


class BenchmarkError(DataError):
    """A file of test items that differs from the published one."""

    code = "AUD-DATA-BENCHMARK"


class ModelError(AuditorError):
    """The model was read but cannot be used for the requested purpose."""


class DamagedError(ModelError):
    """A model file is cut short, damaged or doctored."""

    code = "AUD-LOAD-DAMAGED"


class UnsupportedError(ModelError):
    """A model file's format, or the kind of model in it, is known and not supported."""

    code = "AUD-LOAD-UNSUPPORTED"


class OutputsError(ModelError):
    """The output kind (logits or probabilities) is unknown, or contradicts the outputs: no answer can be used until the
    user states it."""

    code = "AUD-LOAD-OUTPUTS"


class UnsafeModelError(ModelError):
    """Loading the file would run code that the file itself brings along."""

    code = "AUD-LOAD-CODE"


class NotApplicableError(AuditorError):
    """A probe lacks an input; raised inside a probe, it becomes a NOT_APPLICABLE finding with this message."""


# Of a model of which its decisions are all that is known.
NO_SCORES = "Needs the model's scores, and only its decisions are here: add --score COLUMN."


class LacksOptionError(NotApplicableError):
    """A missing option of a probe, raised before the probe reads any rows."""


class OtherKindError(NotApplicableError):
    """A probe for another kind of model or rows: no input would make it applicable, and this is not an error."""


def first_line(error: BaseException) -> str:
    """The first line of a third-party error without its full stop, or the error's type if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__


MOST_NAMED = 5


def some_of(sentences: Sequence[str], n: int | None = None) -> str:
    """The first few of ``n`` sentences, with the number of the remaining ones."""
    n = len(sentences) if n is None else n
    more = f" And {n - MOST_NAMED:,} more." if n > MOST_NAMED else ""
    return f"{' '.join(sentences[:MOST_NAMED])}{more}"


def did_you_mean(word: str, known_words: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the most similar known word, ignoring case, or ``""`` if none is similar."""
    by_folded = {name.casefold(): name for name in known_words}
    near = difflib.get_close_matches(word.casefold(), list(by_folded), n=1, cutoff=0.6)
    return f"; did you mean {by_folded[near[0]]!r}?" if near else ""
