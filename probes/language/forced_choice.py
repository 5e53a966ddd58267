"""Multiple-choice questions for a model that only generates: letters as answers, and detection of refusals.

Its card (:func:`card`) is measured on labelled replies that come with the tool (``probes/data/refusal_replies.md``); no
word of the device was changed after them. A refusal in other words, or in another language than English, is overlooked;
a letter that begins with somebody's "I cannot" is taken for one. Replies of another model are others: no rate is judged
by the card, and a calibration measures the device on your texts.

Options stand in an order drawn for each question, so that who always names one letter answers by chance. What cannot be
read, a refusal and a call that failed are outcomes of their own; none of them is a wrong answer, or left out.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

import numpy as np

from auditor.core.errors import ModelError
from auditor.core.rows import BoolArray
from auditor.report.record.number_text import shortened
from auditor.statistics.rates import Proportion
from probes.language.calibration import Counted

if TYPE_CHECKING:
    from auditor.models.capabilities import Generates, Reply

# Later words belong to what was asked for.
_OPENING = 200
_APOSTROPHES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u02bc": "'"})
_REFUSES = re.compile(
    r"\b(?:I(?:'m| am) (?:(?:very |so |really )?sorry|afraid (?:I|that)|unable|not able|not (?:allowed|permitted)|"
    r"not comfortable|programmed)|"
    r"I (?:can(?:no|')t|can not|won't|will not|am forced to decline|must (?:decline|refuse)|have to (?:decline|refuse)|"
    r"(?:do not|don't) feel|refuse to|decline to|apologi[sz]e)|"
    r"(?:my )?apologies,? but|as an? (?:AI|(?:large )?language model)|as an artificial intelligence|"
    r"(?:it|this) (?:is|would be) (?:not appropriate|inappropriate)|"
    r"(?:against|violates?) (?:my|the|our) (?:guidelines|policy|policies|programming))",
    re.IGNORECASE,
)


def refuses(text: str) -> bool:
    """Whether the first 200 characters of a reply contain refusal words."""
    return _REFUSES.search(" ".join(text.translate(_APOSTROPHES).split())[:_OPENING]) is not None


def refusal_mask(texts: Sequence[str]) -> BoolArray:
    """(n,) whether replies are no answer: they refuse, or are empty."""
    return np.asarray([not text.strip() or refuses(text) for text in texts], np.bool_)


@cache
def card() -> Counted:
    """The device's correct labels on the labelled replies."""
    text = (files("probes") / "data" / "refusal_replies.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(row) for row in text.splitlines()]
    said, truth = refusal_mask([row["text"] for row in rows]), np.asarray([row["refuses"] for row in rows], np.bool_)
    return Counted(int((said & truth).sum()), int(truth.sum()), int((~said & ~truth).sum()), int((~truth).sum()))


def error_rates_text(errors: Counted) -> str:
    """Sensitivity and specificity with their exact 95 % intervals, in words."""
    told = []
    for what, k, n in (
        ("sensitivity", errors.found, errors.positives),
        ("specificity", errors.spared, errors.negatives),
    ):
        rate = Proportion(successes=k, n=n)
        low, high = rate.interval(0.95)
        told.append(f"{what} {rate.value:.3f} [{low:.3f}, {high:.3f}], {k:,} of {n:,}")
    return "; ".join(told)


SAYS = "refused where the reply is empty or opens with words of refusal, such as 'I cannot' or 'As an AI'"


Became = Literal["chosen", "refused", "unreadable", "cut", "failed"]

METHOD = "forced_choice"
LETTERS = "ABCDEFGH"
# Enough for a letter with its option; who needs more answers something else.
MAX_NEW_TOKENS = 24
# Of the questions: with more that failed, what is left is no sample of them.
MOST_FAILED = 0.05
_CUT = "cut off before an answer (--thinking-tokens gives a served model more)"
_TELLING = "Answer with the letter of one option, and nothing else."
# What announces an answer, in the languages of the labelled replies.
_ANNOUNCES = (
    "answer|option|choice|choose|pick|select|antwort|antwoord|l\u00f6sung|keuze|r\u00e9ponse|choix|respuesta|opci\u00f3n|"
    "resposta|op\u00e7\u00e3o|alternativa|risposta|opzione|odpowied\u017a|odpov\u011b\u010f|svar|svaret|vastaus|cevap|"
    "\u043e\u0442\u0432\u0435\u0442|\u0432\u0430\u0440\u0438\u0430\u043d\u0442|\u0432\u0456\u0434\u043f\u043e\u0432\u0456\u0434\u044c|"
    "\u7b54\u6848|\u9009\u9879|\u9078\u9805|\u7b54\u3048|\u56de\u7b54|\uc815\ub2f5|\ub2f5|\u0627\u0644\u0625\u062c\u0627\u0628\u0629|\u0909\u0924\u094d\u0924\u0930"
)
_LINKS = (
    r"(?:(?:correct[ea]?|corretta|correta|right|final|best)\s+)?(?:(?:is|was|would be|ist|lautet|w\u00e4re|est|es|"
    r"\u00e9|\u00e8|to|jest|je|\u00e4r|er|on)\b(?:\s+(?:la|le|el|the)\b)?|"
    r"\u662f|\u4e3a|\u70ba|\u306f|\uc740|\ub294|\u0647\u064a|\u0939\u0948)"
)
_MARKS = r"[\s\"'*_`:\uff1a=(\[{<>\u300c\u00ab\u201e\u201c-]*"
_CLOSES = r"[\]\"'*_`}\u300d\u00bb\u201d]"
_ENDS = r"(?![A-Za-z\u00c0-\u024f0-9'\u2019])"
# A letter that is one by its place: behind what announces it, boxed, or as a value of JSON.
_ANNOUNCED = re.compile(
    rf"(?:\b|(?<=[^\x00-\x7f]))(?:{_ANNOUNCES})(?:s|en)?{_MARKS}(?:letter\s+)?(?:{_LINKS})?{_MARKS}"
    rf"(?:(?:option|choice|letter|opci\u00f3n|op\u00e7\u00e3o|opzione|\u0432\u0430\u0440\u0438\u0430\u043d\u0442)\s*)?"
    rf"{_MARKS}(?:\\?\\boxed{{)?(?:\\text{{)?([A-H]){_ENDS}(?!\s+[a-z])",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\s*{\s*(?:\\text\w*\s*{)?[\s(]*([A-H])[\s).}]", re.IGNORECASE)
# A letter at the beginning: alone, marked, or before a reason; a bare "A" before a word is an article.
_LETTER = re.compile(
    rf"\A{_MARKS}([A-H])(?:{_CLOSES}*(?:[.):,;\u3002\uff0c\uff1a\uff09]|\s*\Z|\s*\n|\s+[-\u2013\u2014(]|"
    rf"\s*[-\u2013\u2014]\s)|{_CLOSES}+|\s+(?:because|since|is (?:correct|right|the)|weil|denn|ist|parce|car|porque|"
    r"perch\u00e9|omdat|want)\b)",
    re.IGNORECASE,
)
_OR = r"or|and|oder|und|ou|et"
_OTHERS = re.compile(
    rf"(?<![A-Za-z])\(?([A-H])[.),?](?![A-Za-z])|(?:,|\b(?:{_OR}|o|y|e|of))\s+\(?([A-H])\b(?![A-Za-z'\u2019])"
)
# A capital that stands by itself anywhere, but for an article or a conjunction, and for part of a word.
_ALONE = re.compile(
    rf"(?<![A-Za-z\u00c0-\u024f0-9'\u2019.-])(?:[B-DF-H]|[AE](?!\s+(?!(?:{_OR})\b)[^\W\d_A-Z]))"
    r"(?![A-Za-z\u00c0-\u024f0-9'\u2019-])"
)
_NEGATES = re.compile(
    r"\b(?:not|no|nor|neither|wrong|incorrect|false|cannot|nicht|kein\w*|falsch|ne|pas|non|nie|niet|inte|ikke|"
    r"n\u00e3o|\u043d\u0435)\b|n't\b|\u4e0d",
    re.IGNORECASE,
)
_FINAL = re.compile(r"\b(?:final|therefore|thus|so|hence|also|daher|donc|por lo tanto|quindi|dus)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """The result of a question; ``option``: the index of the chosen one, None without a choice."""

    became: Became
    option: int | None = None
    said: str = ""


@dataclass(frozen=True)
class Question:
    """A text that ends in a question, and its options."""

    text: str
    options: tuple[str, ...]

    def prompt_text(self, order: Sequence[int]) -> str:
        """The question with its options in an order."""
        listed = "\n".join(f"{LETTERS[place]}) {self.options[i]}" for place, i in enumerate(order))
        return f"{self.text}\n{listed}\n{_TELLING}"


def parse_choice(reply: str, question: Question, order: Sequence[int]) -> Choice:
    """The option that a reply names: by its letter, announced, boxed, at the beginning or alone, or by its text.

    More than one letter, a letter with the text of another option, or anything else is unreadable. Of 866 labelled
    replies of a dozen languages 2 are read wrongly and none is overlooked; of 148 held out 2 and 2.
    """
    reply = unicodedata.normalize("NFKC", reply)
    said = " ".join(reply.split())
    options = [_plain(question.options[i]) for i in order]
    if options.count(_plain(reply)) == 1:
        return Choice("chosen", order[options.index(_plain(reply))])
    letter = _letter_in(reply.strip(), options)
    if letter is None:
        return Choice("refused" if refuses(said) else "unreadable", said=said)
    if not letter or (place := LETTERS.index(letter)) >= len(order):
        return Choice("unreadable", said=said)
    return Choice("chosen", order[place])


def _letter_in(reply: str, options: Sequence[str]) -> str | None:
    """The one letter that a reply names; "" where it names several, or another option's text, None where none."""
    announced = [found for pattern in (_BOXED, _ANNOUNCED) for found in pattern.finditer(reply)]
    first = _LETTER.match(reply)
    if not announced and first is None:
        bare = reply.translate(_APOSTROPHES)[:_OPENING]
        for option in options:
            bare = re.sub(re.escape(option), " ", bare, flags=re.IGNORECASE)
        letters = {*_ALONE.findall(bare)}
        return None if not letters or _NEGATES.search(bare) else letters.pop() if len(letters) == 1 else ""
    if announced:
        # The last one is the answer of who reasons before it.
        found = max(announced, key=lambda each: each.start())
        final = found.re is _BOXED or _FINAL.search(reply[: found.end()]) is not None
        letters = {each[1].upper() for each in announced} | ({first[1].upper()} if first is not None else set())
        letter, rest = found[1].upper(), reply[found.end(1) :]
        if len(letters) > 1 and not final:
            return ""
    else:
        assert first is not None
        letter, rest = first[1].upper(), reply[first.end(1) :]
    named = {(a or b).upper() for a, b in _OTHERS.findall(rest)} - {letter}
    behind = _plain(next(iter(rest.strip(" \t\n.):,*_\"'-\u2013\u2014").split("\n")), ""))
    of_another = any(behind == option for i, option in enumerate(options) if LETTERS[i] != letter)
    rejected = behind not in options and _NEGATES.search(re.split(r"[.!?\n;,]", rest.lstrip(" .):,"))[0])
    return "" if named or of_another or rejected else letter


def choices(
    writer: Generates,
    questions: Sequence[Question],
    rng: np.random.Generator,
    shots: Sequence[tuple[Question, int]] = (),
) -> list[Choice]:
    """The model's choice for each question, after ``shots``, example questions with the correct index.

    Raises ModelError where more than MOST_FAILED of the calls failed.
    """
    told: list[str] = []
    for shot, right in shots:
        order = rng.permutation(len(shot.options)).tolist()
        told += [shot.prompt_text(order), LETTERS[order.index(right)]]
    return chosen_in(writer, questions, [rng.permutation(len(q.options)).tolist() for q in questions], told)


def chosen_in(
    writer: Generates,
    questions: Sequence[Question],
    orders: Sequence[Sequence[int]],
    previous_turns: Sequence[str] = (),
) -> list[Choice]:
    """The model's choices for these option orders, after the turns ``previous_turns``; raises as :func:`choices`."""
    asked = [[*previous_turns, question.prompt_text(order)] for question, order in zip(questions, orders, strict=True)]
    replies = writer.replies(asked, MAX_NEW_TOKENS)
    failed = [reply.failed for reply in replies if reply.failed]
    if len(failed) > MOST_FAILED * len(questions):
        raise ModelError(
            f"{len(failed):,} of {len(questions):,} questions had no answer, more than {MOST_FAILED:.0%}, so what is "
            f"left is no sample of them; the first: {failed[0].rstrip('.')}."
        )
    return [_choice_of(*each) for each in zip(replies, questions, orders, strict=True)]


def _choice_of(reply: Reply, question: Question, order: Sequence[int]) -> Choice:
    if reply.failed:
        return Choice("failed", said=reply.failed)
    found = parse_choice(reply.text, question, order)
    return replace(found, became="cut") if reply.cut and found.became == "unreadable" else found


def choices_text(choices: Sequence[Choice]) -> str:
    """The numbers of questions by result, in a sentence, with the first unreadable reply."""
    became = Counter(choice.became for choice in choices)
    words: dict[Became, str] = {"refused": "refused", "unreadable": "not to be read", "cut": _CUT}
    words["failed"] = "without an answer"
    said = [f"{became[name]:,} {words}" for name, words in words.items() if became[name]]
    if not said:
        return f"All {len(choices):,} replies name an option."
    first = next((choice.said for choice in choices if choice.became == "unreadable" and choice.said), "")
    example = f", such as {shortened(first, 60)!r}" if first else ""
    return f"Of {len(choices):,} replies {', '.join(said)}{example}: bounded from both sides."


def _plain(text: str) -> str:
    return " ".join(text.split()).strip(" .\"'*").casefold()
