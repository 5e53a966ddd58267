"""The report's wording in one language: phrases by name, and number formats of that language."""

from __future__ import annotations

import math
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

from auditor.core.errors import ConfigError, UsageError, did_you_mean
from auditor.core.files import Number
from auditor.judging.input_files import ObeyedFile, read_obeyed
from auditor.report.record import number_text as text

if TYPE_CHECKING:
    from auditor.judging.criterion import CriterionRecord
    from auditor.judging.figure_types import Grade
    from auditor.judging.measurement import Form

ENGLISH = "en"
SHIPPED = (ENGLISH, "de")
_MOST, _LONGEST = 1_200, 160
_OUTCOMES = tuple(
    f"verdict.{name}" for name in ("pass", "fail", "inconclusive", "not_run", "not_applicable", "not_judged")
)
_Piece = tuple[str, str | None, str | None, str | None]
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
# These are letters' own in some scripts, and move nothing.
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
_MARKS = {
    "number.decimal": (".", ","),
    "number.thousands": (",", ".", "'", " ", "\N{NO-BREAK SPACE}", "\N{THIN SPACE}"),
}


@dataclass(frozen=True)
class Catalogue:
    """Phrases by ``section.name``; missing ones are replaced by English and counted in ``missing``.

    ``instead``: the section of what is said otherwise of what was audited, "" where nothing is.
    """

    language: str = ENGLISH
    own: Mapping[str, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set, compare=False)
    instead: str = ""

    @classmethod
    def for_language(cls, language: str, custom_words: Mapping[str, str] | None = None) -> Catalogue:
        """The catalogue of a record: a shipped one, or the phrases stored in the record."""
        return cls(
            language, _fitting(custom_words) if custom_words else shipped(language) if language in SHIPPED else {}
        )

    def has(self, key: str) -> bool:
        """Whether any language has such a phrase."""
        return key in self.own or key in shipped(ENGLISH)

    def say(self, key: str, **words: object) -> str:
        """A phrase with filled placeholders."""
        return self.open(key).format_map({name: str(word) for name, word in words.items()})

    def either(self, key: str, other: str, **words: object) -> str:
        """The phrase ``key`` if it exists, else ``other``."""
        return self.say(key if self.has(key) else other, **words)

    def count_text(self, key: str, n: int, **words: object) -> str:
        """A phrase about ``n`` things: the singular form for one, if it exists."""
        one = f"{key}_one"
        return self.say(one if n == 1 and self.has(one) else key, n=self.count(n), **words)

    def pillar(self, name: str) -> str:
        """The display name of a pillar; a foreign pillar keeps its own name."""
        return self.say(f"pillar.{name}") if self.has(f"pillar.{name}") else name

    def section(self, name: str) -> dict[str, str]:
        """The phrases of a section by their own names, with unfilled placeholders."""
        keys = [key for key in shipped(ENGLISH) if key.startswith(f"{name}.")]
        return {key.partition(".")[2]: self.open(key) for key in keys}

    def open(self, key: str) -> str:
        """A phrase with unfilled placeholders."""
        other = f"{self.instead}.{key.replace('.', '_')}"
        key = other if other in shipped(ENGLISH) else key
        if key not in self.own:
            self.missing.add(key)
        return self.own.get(key, shipped(ENGLISH)[key])

    def count(self, n: int) -> str:
        """A whole number."""
        return self._local(f"{n:,}")

    def number(self, x: Number, digits: int = 2) -> str:
        """A number with so many significant digits, and no more decimals than useful."""
        if x is None or not math.isfinite(x):
            return self.say("form.undefined")
        size = abs(x)
        places = 0 if size >= 10 ** (digits - 1) or not size else digits - 1 - math.floor(math.log10(size))
        # What rounds up to another digit needs a place less, as 0.0996 does to 0.10.
        rounded = round(x, places)
        shown = f"{rounded:,.{min(max(places, 0), 6)}f}"
        if rounded == 0 and x != 0:
            shown = f"{x:.0e}"
        return self._local("0" if shown in ("-0", "-0.00") else shown.replace("-", "\N{MINUS SIGN}"))

    def figure(self, x: Number, form: Form) -> str:
        """A number in its question's form, without a unit."""
        if x is None or not math.isfinite(x):
            return self.say("form.undefined")
        match form:
            case "points":
                return self._hundredths(x)
            case "percent" | "pairs":
                return self.percent(x)
            case "count":
                return self.count(round(x))
            case "ratio" | "number":
                return self.number(x)

    def value(self, x: Number, form: Form) -> str:
        """A number in its question's form."""
        shown = self.figure(x, form)
        if form != "points" or x is None or not math.isfinite(x):
            return shown
        return self.say("form.points_one" if shown == "1" else "form.points_many", value=shown)

    def exactly(self, x: float, form: Form) -> str:
        """A user-chosen number in the form of its question, with all given digits."""
        if form in ("points", "percent", "pairs"):
            shown = self._local(f"{100 * x:.6g}".replace("-", "\N{MINUS SIGN}"))
            return self.say("form.points_many", value=shown) if form == "points" else f"{shown}\N{NO-BREAK SPACE}%"
        return self._local(f"{x:.6g}".replace("-", "\N{MINUS SIGN}"))

    def percent(self, share: Number) -> str:
        """A share in per cent: whole from 10 % on, one decimal below."""
        if share is None or not math.isfinite(share):
            return self.say("form.undefined")
        return self._hundredths(share) + "\N{NO-BREAK SPACE}%"

    def interval(self, ends: tuple[Number, Number] | None, form: Form) -> str:
        """Both ends of an interval; a missing end is described in words."""
        if ends is None:
            return ""
        # Ends of shares are read in the unit of the number beside them.
        plain: Form = "points" if form in ("percent", "pairs") else form
        low, high = (None if end is None else self.figure(end, plain) for end in ends)
        return self._range(low, high, "form.undefined")

    def _range(self, low: str | None, high: str | None, without_ends: str) -> str:
        if low is None and high is None:
            return self.say(without_ends)
        if low is None:
            return self.say("form.at_most", high=high)
        return self.say("form.at_least", low=low) if high is None else self.say("form.range", low=low, high=high)

    def spelled(self, english_number: str) -> str:
        """An English-formatted number, such as in tables, in this language's format."""
        return self.say("form.undefined") if english_number == text.UNDEFINED else self._local(english_number)

    def ends(self, ends: tuple[Number, Number] | None) -> str:
        """Both ends of an interval with three digits each, as in tables."""
        if ends is None:
            return ""
        low, high = (None if end is None else self.spelled(text.number(end)) for end in ends)
        return self._range(low, high, "form.no_bounds")

    def grade(self, grade_record: Grade) -> str:
        """A grade in words: its value, else the reason for its absence."""
        return (
            self.spelled(text.number(grade_record.value))
            if grade_record.value is not None
            else grade_record.words or self.say("column.unmeasured")
        )

    def required(self, criterion: CriterionRecord) -> str:
        """A requirement in words, such as ``at most 0.1``."""
        bound = criterion.bound
        if isinstance(bound, tuple):
            low, high = (self._local(f"{end:g}") for end in bound)
            return self.say("bound.inside", low=low, high=high)
        return self.say(f"bound.{criterion.direction}", bound=self._local(f"{bound:g}"))

    def _hundredths(self, x: float) -> str:
        shown = f"{100 * x:.{0 if abs(x) >= 0.0995 else 1}f}".removesuffix(".0").replace("-", "\N{MINUS SIGN}")
        # What is there and rounds to nothing is not nothing.
        return self._local("< 0.1" if shown in ("0", "\N{MINUS SIGN}0") and x > 0 else shown)

    def _local(self, english_number: str) -> str:
        marks = {",": self.say("number.thousands"), ".": self.say("number.decimal")}
        return "".join(marks.get(char, char) for char in english_number)


@cache
def shipped(language: str) -> Mapping[str, str]:
    """The phrases of a shipped language."""
    text = (files("auditor.report.record") / "languages" / f"{language}.toml").read_text(encoding="utf-8")
    return dict(_flat(tomllib.loads(text)))


def words_of(language: str) -> dict[str, str]:
    """The recorded phrases of a language: none for a shipped language, all of a user's file.

    Raises UsageError for a language that is not known, ConfigError for a file that is no catalogue: its keys and the
    places of its phrases are those of the English one.
    """
    file = catalogue_file(language)
    return {} if file is None else words_in(file)


def catalogue_file(language: str) -> ObeyedFile | None:
    """The file of a language's phrases, None for a shipped language.

    Raises as :func:`words_of`.
    """
    if language in SHIPPED:
        return None
    path = Path(language)
    if path.suffix != ".toml":
        near = did_you_mean(language, SHIPPED) or "."
        known = ", ".join(SHIPPED)
        raise UsageError(f"--lang {language!r} is not known{near} Known: {known}, or a catalogue FILE.toml.")
    try:
        return read_obeyed(path, "catalogue")
    except FileNotFoundError:
        raise UsageError(f"--lang {language!r}: there is no such file.") from None
    except OSError as error:
        raise ConfigError(f"--lang {language!r} cannot be read: {error.strerror}.") from None


def words_in(file: ObeyedFile) -> dict[str, str]:
    """All phrases of a catalogue file.

    Raises ConfigError, as :func:`words_of` does.
    """
    language = file.path
    own = dict(_flat(file.toml(f"--lang {language!r}")))
    english = shipped(ENGLISH)
    if own.get("number.decimal", ".") == own.get("number.thousands", ","):
        raise ConfigError(f"{language}: the decimal mark and that of thousands must differ.")
    if len(own) > _MOST:
        raise ConfigError(f"{language}: holds more than {_MOST:,} phrases.")
    for key, phrase in own.items():
        if key not in english:
            raise ConfigError(f"{language}: {key!r} is no phrase of a catalogue{did_you_mean(key, english) or '.'}")
        if why := _unfit(key, phrase):
            raise ConfigError(f"{language}: {key!r} {why}")
    if key := _taken_for_another(own):
        raise ConfigError(f"{language}: {key!r} says {own[key]!r}, which is the word of another outcome.")
    return own


def _fitting(words: Mapping[str, str]) -> dict[str, str]:
    """Of the words that a record keeps those that :func:`words_of` takes: whoever wrote it may have written others."""
    kept = {key: phrase for key, phrase in words.items() if key in shipped(ENGLISH) and not _unfit(key, phrase)}
    if kept.get("number.decimal", ".") == kept.get("number.thousands", ","):
        kept = {key: phrase for key, phrase in kept.items() if not key.startswith("number.")}
    while key := _taken_for_another(kept):
        del kept[key]
    return kept


def _unfit(key: str, phrase: object) -> str:
    """Why a phrase is none for its key, as the end of a sentence; "" where it is."""
    # Another language may take more room than English, but not a page for a verdict.
    longest = max(_LONGEST, 2 * len(shipped(ENGLISH)[key]))
    if not isinstance(phrase, str) or len(phrase) > longest:
        return f"must be words of at most {longest} characters."
    if key.startswith("number."):
        return "" if phrase in _MARKS[key] else f"must be one of {', '.join(map(repr, _MARKS[key]))}."
    try:
        parsed, english = list(Formatter().parse(phrase)), list(Formatter().parse(shipped(ENGLISH)[key]))
    except ValueError as error:
        return f"is no phrase ({error}): a brace that is no place is written twice."
    if any(spec or conversion for _, _, spec, conversion in parsed):
        return "must have as a place a name alone, such as {value}."
    told, asked = ({name for _, name, _, _ in each if name is not None} for each in (parsed, english))
    if told - asked:
        return f"has no place {{{min(told - asked)}}}."
    if asked - told:
        return f"must keep its place {{{min(asked - told)}}}."
    if not phrase.strip() or any(char.isnumeric() for char in phrase):
        return "must be words, without a digit: numbers are the tool's."
    if any(unicodedata.category(char) in _UNSEEN and char not in _JOINERS for char in phrase):
        return "holds a sign that cannot be seen, or that turns words and numbers around: leave it out."
    if _touching(parsed) - _touching(english):
        return "must have words, or a space, between its places: two numbers would read as one."
    return ""


def _touching(parsed: Sequence[_Piece]) -> set[tuple[str, str]]:
    """Places with nothing between them."""
    pairs = zip(parsed, parsed[1:], strict=False)
    return {(one[1] or "", other[1] or "") for one, other in pairs if one[1] and other[1] and not other[0]}


def _taken_for_another(phrases: Mapping[str, str]) -> str:
    """The phrase by which an outcome is called as another is, here or in a language that is shipped; "" for none."""
    known = [phrases, *(shipped(language) for language in SHIPPED)]
    for key in _OUTCOMES:
        others = {
            _normalise_word(words[other]) for words in known for other in _OUTCOMES if other != key and other in words
        }
        if key in phrases and _normalise_word(phrases[key]) in others:
            return key
    return ""


def _normalise_word(word: str) -> str:
    return " ".join(word.casefold().split())


def _flat(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            for inner, phrase in value.items():
                yield f"{key}.{inner}", phrase
        else:
            yield key, value
