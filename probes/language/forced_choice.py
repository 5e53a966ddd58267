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
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
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
    from auditor.models.capabilities import Generates

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


Became = Literal["chosen", "refused", "unreadable", "failed"]

METHOD = "forced_choice"
LETTERS = "ABCDEFGH"
# Enough for a letter with its option; who needs more answers something else.
MAX_NEW_TOKENS = 24
# Of the questions: with more that failed, what is left is no sample of them.
MOST_FAILED = 0.05
_TELLING = "Answer with the letter of one option, and nothing else."
_LETTER = re.compile(
    r"\A[\s\"'*]*(?:(?:the\s+)?(?:correct\s+|best\s+)?(?:answer|option)\s*(?:is|:)?\s*:?\s*)?"
    r"[\"'*(]*([A-H])(?:[.):*\"']|\s*\Z|\s*\n)",
    re.IGNORECASE,
)
_OTHERS = re.compile(r"(?<![A-Za-z])\(?([A-H])[.)](?![A-Za-z])")


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
    """The option named in a reply by its letter alone, or with its own text, or by its text alone.

    More than one letter, a letter with the text of another option, or anything else is unreadable.
    """
    said = " ".join(reply.split())
    options = [_plain(question.options[i]) for i in order]
    if options.count(_plain(reply)) == 1:
        return Choice("chosen", order[options.index(_plain(reply))])
    found = _LETTER.match(reply.strip())
    if found is None:
        return Choice("refused" if refuses(said) else "unreadable", said=said)
    place = LETTERS.index(found[1].upper())
    rest = reply.strip()[found.end() :]
    first = _plain(rest.strip().split("\n")[0])
    named = {letter.upper() for letter in _OTHERS.findall(rest)} - {LETTERS[place]}
    of_another = any(first == option for i, option in enumerate(options) if i != place)
    if place >= len(order) or named or of_another:
        return Choice("unreadable", said=said)
    return Choice("chosen", order[place])


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
    return [
        Choice("failed", said=reply.failed) if reply.failed else parse_choice(reply.text, question, order)
        for reply, question, order in zip(replies, questions, orders, strict=True)
    ]


def choices_text(choices: Sequence[Choice]) -> str:
    """The numbers of questions by result, in a sentence, with the first unreadable reply."""
    became = Counter(choice.became for choice in choices)
    words: dict[Became, str] = {"refused": "refused", "unreadable": "not to be read", "failed": "without an answer"}
    said = [f"{became[name]:,} {words}" for name, words in words.items() if became[name]]
    if not said:
        return f"All {len(choices):,} replies name an option."
    first = next((choice.said for choice in choices if choice.became == "unreadable" and choice.said), "")
    example = f", such as {shortened(first, 60)!r}" if first else ""
    return f"Of {len(choices):,} replies {', '.join(said)}{example}: bounded from both sides."


def _plain(text: str) -> str:
    return " ".join(text.split()).strip(" .\"'*").casefold()
