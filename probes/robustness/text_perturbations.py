"""Texts with changes that readers hardly notice: typing errors, look-alike and invisible characters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from auditor.core.rows import Rows

# The neighbours of each letter on a QWERTY keyboard.
NEIGHBOURS = {
    "q": "wa", "w": "qeas", "e": "wrsd", "r": "etdf", "t": "ryfg", "y": "tugh", "u": "yihj", "i": "uojk", "o": "ipkl",
    "p": "ol", "a": "qwsz", "s": "weadzx", "d": "ersfxc", "f": "rtdgcv", "g": "tyfhvb", "h": "yugjbn", "j": "uihknm",
    "k": "iojlm", "l": "opk", "z": "asx", "x": "sdzc", "c": "dfxv", "v": "fgcb", "b": "ghvn", "n": "hjbm", "m": "jkn",
}  # fmt: skip
# Cyrillic letters that most typefaces draw as the Latin ones (confusable by Unicode Technical Standard 39).
LOOK_ALIKES = str.maketrans(
    {
        "a": "\u0430", "c": "\u0441", "d": "\u0501", "e": "\u0435", "h": "\u04bb", "i": "\u0456", "j": "\u0458",
        "l": "\u04cf", "o": "\u043e", "p": "\u0440", "q": "\u051b", "s": "\u0455", "w": "\u051d", "x": "\u0445",
        "y": "\u0443", "A": "\u0410", "B": "\u0412", "C": "\u0421", "E": "\u0415", "H": "\u041d", "I": "\u0406",
        "J": "\u0408", "K": "\u041a", "M": "\u041c", "O": "\u041e", "P": "\u0420", "S": "\u0405", "T": "\u0422",
        "X": "\u0425",
    }
)  # fmt: skip
ZERO_WIDTH_SPACE = "\u200b"
LEET = str.maketrans("aeiostAEIOST", "431057431057")
# English words that say nothing for or against anything.
NEUTRAL = (
    "the", "and", "also", "then", "today", "here", "there", "again", "now", "about", "with", "from", "that", "this",
    "which", "some", "each", "while", "page", "time", "day", "week", "line", "thing",
)  # fmt: skip
# Ways in which one word is mistyped, of which a search tries no more.
_TYPOS_TRIED = 8

Rewrite = Callable[[str, np.random.Generator], list[str]]


# ---- drawn at random -----------------------------------------------------------------------------------------------


def with_typos(text: str, counts: Sequence[int], rng: np.random.Generator) -> list[str]:
    """The text with each of ``counts`` (ascending) typing errors; fewer errors are the first of more.

    Each error strikes a letter drawn at random: it changes places with its neighbour in the word, is left out, is typed
    twice, or is the key next to it, each as likely. White space, digits and punctuation stay, and so does the number of
    words: a word of one letter does not lose it. A text without letters stays as it is.
    """
    versions, letters, done = [], list(text), 0
    for count in counts:
        for _ in range(count - done):
            _strike(letters, rng)
        done = count
        versions.append("".join(letters))
    return versions


def mistyped(X: Rows, levels: Sequence[float], rng: np.random.Generator) -> Callable[[int], npt.NDArray[np.object_]]:
    """Texts with typing errors, by level index; the level is the number of errors."""
    counts = [int(level) for level in levels]
    versions = [with_typos(str(text), counts, rng) for text in np.asarray(X)]
    return lambda i: np.array([v[i] for v in versions], object)


def _strike(letters: list[str], rng: np.random.Generator) -> None:
    places = [i for i, c in enumerate(letters) if c.isalpha()]
    if not places:
        return
    i = places[int(rng.integers(len(places)))]
    kind, draw = int(rng.integers(4)), float(rng.random())
    neighbours = [j for j in (i + 1, i - 1) if 0 <= j < len(letters) and letters[j].isalpha()]
    if kind == 0 and neighbours:
        j = neighbours[0]
        letters[i], letters[j] = letters[j], letters[i]
    elif kind == 1 and neighbours:
        del letters[i]
    elif kind == 2 or letters[i].lower() not in NEIGHBOURS:
        letters.insert(i, letters[i])
    else:
        letters[i] = _next_key(letters[i], draw)


def _next_key(letter: str, draw: float) -> str:
    keys = NEIGHBOURS[letter.lower()]
    key = keys[int(draw * len(keys))]
    return key.upper() if letter.isupper() else key


# ---- searched for --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """A word-by-word rewriting of a text: ``rewrite`` returns the versions of a word, without the word itself, or is
    None if words are appended.

    ``what``: in words, what becomes of a changed word.
    """

    name: str
    what: str
    rewrite: Rewrite | None


def typos(word: str, rng: np.random.Generator) -> list[str]:
    """The word with one typing error, as by :func:`with_typos`: all possible ones, or eight sampled ones."""
    found = []
    for i, letter in enumerate(word):
        if not letter.isalpha():
            continue
        after = word[i + 1 : i + 2]
        if after.isalpha():
            found.append(word[:i] + after + letter + word[i + 2 :])
        if after.isalpha() or word[i - 1 : i].isalpha():
            found.append(word[:i] + word[i + 1 :])
        found.append(word[: i + 1] + word[i:])
        if letter.lower() in NEIGHBOURS:
            found.append(word[:i] + _next_key(letter, float(rng.random())) + word[i + 1 :])
    found = [version for version in dict.fromkeys(found) if version != word]
    if len(found) <= _TYPOS_TRIED:
        return found
    return [found[i] for i in sorted(rng.choice(len(found), _TYPOS_TRIED, replace=False).tolist())]


def homoglyphs(word: str, rng: np.random.Generator) -> list[str]:
    """The word with its first letter that has a Cyrillic look-alike replaced, and with all such letters replaced."""
    return _translated(word, LOOK_ALIKES)


def leet(word: str, rng: np.random.Generator) -> list[str]:
    """The word with its first letter of a, e, i, o, s and t, or all of them, replaced by 4, 3, 1, 0, 5, 7."""
    return _translated(word, LEET)


def _translated(word: str, table: Mapping[int, int | str]) -> list[str]:
    first = next((i for i, c in enumerate(word) if ord(c) in table), None)
    if first is None:
        return []
    one = word[:first] + word[first].translate(table) + word[first + 1 :]
    return list(dict.fromkeys([one, word.translate(table)]))


def zero_width(word: str, rng: np.random.Generator) -> list[str]:
    """The word with a zero-width space after its first letter, and with one after each letter but the last."""
    places = [i for i, c in enumerate(word) if c.isalpha()]
    if not places:
        return []
    one = word[: places[0] + 1] + ZERO_WIDTH_SPACE + word[places[0] + 1 :]
    inner = set(places[:-1])
    each = "".join(c + ZERO_WIDTH_SPACE if i in inner else c for i, c in enumerate(word))
    return [version for version in dict.fromkeys([one, each]) if version != word]


FAMILIES = (
    Family("worst_typos", "one typing error in each", typos),
    Family("homoglyphs", "letters replaced by Cyrillic look-alikes", homoglyphs),
    Family("zero_width", "zero-width spaces put between letters", zero_width),
    Family("leet", "letters written as digits", leet),
    Family("appended_words", "neutral words put behind the text", None),
)
