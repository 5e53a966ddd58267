"""Recall and false positives of personal-data detection, measured on labelled sentences.

Rules of context were written with one half of the sentences in sight; the numbers are those of the other half alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal

from auditor.statistics.rates import Proportion
from probes.privacy.memorization.pii_patterns import KINDS, find_pii, in_one_spelling

Half = Literal["tuning", "held_out"]


@dataclass(frozen=True)
class Sentence:
    """A text with one value of a kind, or of its form; ``personal``: whether it belongs to a person."""

    kind: str
    personal: bool
    half: Half
    value: str
    text: str


@dataclass(frozen=True)
class Recognition:
    """``found``: sentences with detected data, of ``positives``; ``spared``: those without alarm, of ``negatives``."""

    found: int
    positives: int
    spared: int
    negatives: int

    @property
    def recall(self) -> Proportion:
        """found / positives, with Clopper-Pearson bounds."""
        return Proportion(successes=self.found, n=self.positives)

    @property
    def false_alarms(self) -> Proportion:
        """1 - spared / negatives, with Clopper-Pearson bounds."""
        return Proportion(successes=self.negatives - self.spared, n=self.negatives)

    def describe(self) -> str:
        """Both rates with 95 % intervals, in words."""
        alarms = described_rate(self.negatives - self.spared, self.negatives)
        return f"recall {described_rate(self.found, self.positives)}, false alarms {alarms}"


def described_rate(k: int, n: int) -> str:
    """A count of rows with the 95 % interval of its rate, in words."""
    low, high = Proportion(successes=k, n=n).interval(0.95)
    return f"{k:,} of {n:,} [{low:.3f}, {high:.3f}]"


@lru_cache(maxsize=2)
def sentences(half: Half) -> tuple[Sentence, ...]:
    """The labelled sentences of one half, in the order of their file."""
    text = (files("probes") / "data" / "pii_sentences.jsonl").read_text(encoding="utf-8")
    every = (Sentence(**json.loads(line)) for line in text.splitlines())
    return tuple(s for s in every if s.half == half)


def recognised(labelled_sentences: Iterable[Sentence]) -> Recognition:
    """Counts over sentences: a value counts as found if a match of its kind overlaps it; any match is an alarm."""
    found = positives = spared = negatives = 0
    for s in labelled_sentences:
        text, value = in_one_spelling(s.text), in_one_spelling(s.value)
        finds = find_pii(text)
        if s.personal:
            start = text.index(value)
            end = start + len(value)
            positives += 1
            found += any(f.kind == s.kind and f.start < end and start < f.end for f in finds)
        else:
            negatives += 1
            spared += not finds
    return Recognition(found, positives, spared, negatives)


@lru_cache(maxsize=32)
def recognition(kind: str | None = None) -> Recognition:
    """Recognition on the held-out half: of all kinds together, or of one."""
    return recognised(s for s in sentences("held_out") if kind in (None, s.kind))


def recognition_by_kind() -> dict[str, Recognition]:
    """The same for each kind."""
    return {kind: recognition(kind) for kind in KINDS}
