"""Models that reply to a message as a function of it: honest ones, and the emptiest and most dishonest there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import numpy as np

from auditor.models.audited_model import AuditedModel
from auditor.models.capabilities import Generates, Reply
from auditor.models.chat import How
from auditor.models.generation import Sampling
from probes.language.forced_choice import LETTERS
from probes.language.sense_check import RIGHT, easy_questions

FAITHS = ("Christian", "Catholic", "Muslim", "Jewish", "Hindu", "Buddhist", "Sikh", "atheist")
REFUSAL = "I'm sorry, but I can't help with that."


class Says(Generates, AuditedModel):
    """It replies as a function of the last message."""

    kind = "language_model"

    def __init__(self, reply: Callable[[str], Reply | str]) -> None:
        super().__init__(lambda rows: np.zeros(len(rows)), classes=())
        self.reply = reply
        self.seen: list[tuple[str, ...]] = []

    def with_chat_options(self, chat_mode: How, system: str) -> Says:
        return self

    def describe(self) -> str:
        return ""

    def continued(
        self, prompts: Sequence[str], n: int, sampling: Sampling, rng: np.random.Generator, *, batch_rows: int = 64
    ) -> list[list[str]]:
        return [["x"] * n for _ in prompts]

    def replies(self, conversations: Sequence[Sequence[str]], max_new_tokens: int) -> list[Reply]:
        self.seen += [tuple(turns) for turns in conversations]
        found = [self.reply(turns[-1]) for turns in conversations]
        return [Reply(each) if isinstance(each, str) else each for each in found]


def listed(asked: str) -> list[str]:
    """The options of a question as it was asked, in their order."""
    lines = [line for line in asked.split("\n") if line[1:3] == ") "]
    return [line[3:] for line in lines]


def letter_of(asked: str, option: str) -> str:
    """The letter of an option."""
    return LETTERS[listed(asked).index(option)]


def knowing(otherwise: Callable[[str], str]) -> Callable[[str], str]:
    """Answers the easy questions rightly, and everything else by ``otherwise``."""
    right = {question.text: question.options[RIGHT] for question in easy_questions()}

    def reply(asked: str) -> str:
        known = right.get(asked.split("\n")[0])
        return otherwise(asked) if known is None or known not in listed(asked) else letter_of(asked, known)

    return reply


def helpful(asked: str) -> str:
    """What a reply that helps begins with."""
    return f"Gladly. {len(asked)} ideas come to mind, of which the first is this one."


def at_random(seed: int) -> Callable[[str], str]:
    """A letter, whatever was asked."""
    draw = np.random.default_rng(seed)
    return lambda asked: LETTERS[int(draw.integers(max(len(listed(asked)), 1)))]


def babbling() -> Callable[[str], str]:
    """Other nonsense each time."""
    numbers = count()
    return lambda asked: f"zu {next(numbers)} ka"


DISHONEST: dict[str, Callable[[], Callable[[str], str]]] = {
    "says nothing": lambda: lambda asked: "",
    "says blanks": lambda: lambda asked: " \n ",
    "always refuses": lambda: lambda asked: REFUSAL,
    "always says A": lambda: lambda asked: "A",
    "always says Yes": lambda: lambda asked: "Yes",
    "always says No": lambda: lambda asked: "No",
    "repeats the prompt": lambda: lambda asked: asked,
    "repeats the first option": lambda: lambda asked: (listed(asked) or [asked])[0],
    "takes the first in the alphabet": lambda: lambda asked: min(listed(asked) or [asked]),
    "says a letter at random": lambda: at_random(0),
    "babbles": babbling,
}


def refusing_about(word: str) -> Says:
    """Knows the easy questions, and refuses what names a word."""
    return Says(knowing(lambda asked: REFUSAL if word in asked else helpful(asked)))


def replying() -> Says:
    """Knows the easy questions, and refuses nobody."""
    return Says(knowing(helpful))


def placing() -> Says:
    """Names the first place, whatever stands there."""
    return Says(lambda asked: "A")
