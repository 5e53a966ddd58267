"""Texts with changes that readers hardly notice, and greedy search for the worst case among them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from auditor.core.rows import BoolArray, FloatArray, IntArray, Rows

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


Ask = Callable[[list[str]], FloatArray]
Decide = Callable[[list[str], FloatArray], IntArray]

_ASKED_AT_ONCE = 2048
# All versions of so many texts are held at a time.
_TEXTS_AT_ONCE = 128
# Of the questions about a text: what each word weighs, and the changes after the first, which has the others.
_WEIGHED, _LATER = 0.25, 0.25


@dataclass(frozen=True, eq=False)
class AttackedTexts:
    """The results of a search: ``broken`` (n_levels, n), whether a version with at most ``levels[i]`` changed words is
    decided differently; ``examples`` (n,): the first such version, else the text itself; ``asked``: the total number of
    queries."""

    levels: tuple[int, ...]
    broken: BoolArray
    examples: tuple[str, ...]
    asked: int


@dataclass(eq=False)
class _Row:
    """A text in pieces, words and what is between them, and the changes tried: (margin, place, version)."""

    number: int
    pieces: list[str]
    words: list[int]
    left: int
    tried: list[tuple[float, int, str]] = field(default_factory=list)
    changed: set[int] = field(default_factory=set)

    def rewritten(self, place: int, version: str) -> str:
        return "".join([*self.pieces[:place], version, *self.pieces[place + 1 :]])

    def change(self, place: int, version: str) -> None:
        self.pieces[place] = version
        self.changed.add(place)


def attack_texts(
    texts: Sequence[str],
    clean: IntArray,
    ask: Ask,
    decide: Decide,
    *,
    family: Family,
    levels: Sequence[int],
    n_queries: int,
    rng: np.random.Generator,
) -> AttackedTexts:
    """Texts with few changed words and different decisions, found by a greedy search.

    texts (n,); clean (n,) what is decided on them; ask: texts to (m, k) probabilities; decide: both to (m,) classes;
    levels: numbers of changed words, ascending. Of at most ``n_queries`` questions about a text, a quarter says how
    much each word weighs: by how much the margin, the probability of the clean decision less the largest other, falls
    without it (in long texts, without stretches of words). The words that weigh most are then rewritten, each by
    itself; the version with the least margin stays, and the next word is changed on top of it, for which a quarter is
    kept. Only texts that no version breaks are asked about further, and of what breaks one the model is asked again
    before it counts.

    Sources: leaving words out, Gao et al., IEEE S&P Workshops 2018, and Jin et al., AAAI 2020; worst misspellings,
    Pruthi et al., ACL 2019; look-alikes and unseen signs, Boucher et al., IEEE S&P 2022.
    """
    search = _Search(clean, ask, decide, texts)
    broken = np.zeros((len(levels), len(texts)), np.bool_)
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        block = slice(start, start + _TEXTS_AT_ONCE)
        rows = [_row(start + i, str(text), family, n_queries - 1) for i, text in enumerate(texts[block])]
        for i, found in enumerate(_found_at(search, rows, family, levels, n_queries - 1, rng)):
            broken[i, block] = found[block]
        search.confirm(rows, texts)
        broken[:, block] &= search.found[block]
    return AttackedTexts(tuple(levels), broken, tuple(search.examples), search.asked)


def _found_at(
    search: _Search,
    rows: Sequence[_Row],
    family: Family,
    levels: Sequence[int],
    n_queries: int,
    rng: np.random.Generator,
) -> Iterator[BoolArray]:
    """(n,) which texts are broken, at one level after the other."""
    if family.rewrite is not None:
        _weigh(search, rows, int(_WEIGHED * n_queries))
    for step in range(levels[-1]):
        active = [row for row in rows if not search.found[row.number] and row.left > 0]
        if step == 0:
            _first_change(search, active, family, int(_LATER * n_queries) if levels[-1] > 1 else 0, rng)
        else:
            _next_change(search, active, levels[-1] - step)
        if step + 1 in levels:
            yield search.found.copy()


class _Search:
    """The questions asked of a model, and what the answers have shown."""

    def __init__(self, clean: IntArray, ask: Ask, decide: Decide, texts: Sequence[str]) -> None:
        self.clean, self.ask, self.decide = clean, ask, decide
        self.found = np.zeros(len(texts), np.bool_)
        self.examples = [str(text) for text in texts]
        self.asked = 0

    def margins(self, versions: Sequence[tuple[_Row, str]], *, counts: bool = True) -> FloatArray:
        """(m,) margins of versions of rows; what breaks a row is kept, where the version ``counts`` as one of it."""
        parts = []
        for start in range(0, len(versions), _ASKED_AT_ONCE):
            few = versions[start : start + _ASKED_AT_ONCE]
            texts = [text for _, text in few]
            probabilities = self.ask(texts)
            at = np.array([row.number for row, _ in few], np.int64)
            own = np.arange(len(few)), self.clean[at]
            others = probabilities.astype(np.float64)
            others[own] = -np.inf
            parts.append(probabilities[own] - others.max(axis=1))
            for (row, text), decided in zip(few, self.decide(texts, probabilities), strict=True):
                if counts and decided != self.clean[row.number] and not self.found[row.number]:
                    self.found[row.number] = True
                    self.examples[row.number] = text
        for row, _ in versions:
            row.left -= 1
        self.asked += len(versions)
        return np.concatenate(parts) if parts else np.empty(0)

    def confirm(self, rows: Sequence[_Row], texts: Sequence[str]) -> None:
        """Asks again about what was found, beside other texts than before, and takes back what does not hold."""
        found = [row.number for row in rows if self.found[row.number]]
        for start in range(0, len(found), _ASKED_AT_ONCE):
            few = np.array(found[start : start + _ASKED_AT_ONCE], np.int64)
            again_asked = [self.examples[i] for i in few]
            again = self.decide(again_asked, self.ask(again_asked))
            self.asked += len(few)
            for i in few[again == self.clean[few]]:
                self.found[i], self.examples[i] = False, str(texts[i])


def _row(number: int, text: str, family: Family, n_left: int) -> _Row:
    pieces = re.split(r"(\s+)", text)
    if family.rewrite is None:
        tail = [len(pieces) + i for i in range(len(NEUTRAL))]
        return _Row(number, [*pieces, *[""] * len(NEUTRAL)], tail, n_left)
    return _Row(number, pieces, [i for i, piece in enumerate(pieces) if any(c.isalpha() for c in piece)], n_left)


def _weigh(search: _Search, rows: Sequence[_Row], most: int) -> None:
    """Puts each row's words into the order of what they weigh, the heaviest first."""
    asked: list[tuple[_Row, list[int], str]] = []
    for row in rows:
        stretches = min(len(row.words), most)
        for stretch in np.array_split(np.array(row.words, np.int64), stretches) if stretches > 1 else []:
            gone = [int(i) for i in stretch]
            left = list(row.pieces)
            for i in gone:
                left[i] = ""
            asked.append((row, gone, "".join(left)))
    # A text without some of its words is another text: whatever is decided on it breaks nothing.
    margins = search.margins([(row, text) for row, _, text in asked], counts=False)
    weights: dict[int, list[tuple[float, list[int]]]] = {}
    for (row, part, _), margin in zip(asked, margins.tolist(), strict=True):
        weights.setdefault(row.number, []).append((margin, part))
    for row in rows:
        if row.number in weights:
            row.words = [i for _, part in sorted(weights[row.number], key=lambda w: w[0]) for i in part]


def _first_change(search: _Search, rows: Sequence[_Row], family: Family, later: int, rng: np.random.Generator) -> None:
    """One word changed: all versions of the words that weigh most, but for ``later`` questions, and the best kept."""
    versions: list[tuple[_Row, int, str]] = []
    for row in rows:
        tries: list[tuple[_Row, int, str]] = []
        for place in row.words:
            if family.rewrite is None:
                tries.append((row, place, f" {NEUTRAL[place - row.words[0]]}"))
            else:
                tries += [(row, place, version) for version in family.rewrite(row.pieces[place], rng)]
            if len(tries) >= row.left - later:
                break
        versions += tries[: max(row.left - later, 1)]
    margins = search.margins([(row, row.rewritten(place, version)) for row, place, version in versions])
    for (row, place, version), margin in zip(versions, margins.tolist(), strict=True):
        row.tried.append((margin, place, version))
    for row in rows:
        row.tried.sort(key=lambda each: each[0])
        if row.tried:
            _, place, version = row.tried[0]
            row.change(place, version)


def _next_change(search: _Search, rows: Sequence[_Row], steps_left: int) -> None:
    """One more word changed on top of the others: of the versions that did most alone, the one that does most now."""
    versions: list[tuple[_Row, int, str]] = []
    for row in rows:
        others = [(row, place, version) for _, place, version in row.tried if place not in row.changed]
        versions += others[: max(row.left // steps_left, 1)]
    margins = search.margins([(row, row.rewritten(place, version)) for row, place, version in versions])
    best: dict[int, tuple[float, _Row, int, str]] = {}
    for (row, place, version), margin in zip(versions, margins.tolist(), strict=True):
        if row.number not in best or margin < best[row.number][0]:
            best[row.number] = (margin, row, place, version)
    for _, row, place, version in best.values():
        row.change(place, version)
