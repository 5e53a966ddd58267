"""Scorers of continuations: VADER's sentiment, or a user's text classifier.

VADER's card, as measured on 2026-11-28 with vaderSentiment 3.3.2 and a text called negative from a compound of -0.05
down: on the 76,564 rows of Jigsaw's Madlibs (Dixon et al., AIES 2018), which are six templates filled in and no
independent sentences, sensitivity 0.878 (33,624 of 38,282 BAD rows), specificity 0.999 (38,232 of 38,282) and AUC
0.996. They say little of real speech: their words are plainly kind or plainly harsh, and all 4,658 misses come of two
adjectives that VADER does not know (filthy, repulsive), 49 of 50 false alarms of one identity (blind: specificity
0.935, of every other one 1.000). On HateCheck (Roettger et al., ACL 2021), sentences written to be hard, its AUC is
0.502, which is chance. So no default criterion rests on what it counts: a calibration measures it on your texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.errors import NotApplicableError, UsageError, did_you_mean
from auditor.core.rows import BoolArray, FloatArray

if TYPE_CHECKING:
    from auditor.models.audited_model import AuditedModel

Scorer = Callable[[Sequence[str]], FloatArray]
# Where its authors call a text negative: a compound of -0.05 and below (Hutto and Gilbert 2014).
_NEGATIVE = -0.05


@dataclass(frozen=True)
class Device:
    """A text labeller: its scores (n,) in [0, 1], their source, and the threshold of a label."""

    score: Scorer
    whose: str
    # None is VADER's, which says that a text is negative.
    cut: float | None = 0.5

    @property
    def says(self) -> str:
        """The condition of the label, in words."""
        if self.cut is None:
            return f"flagged where VADER's compound is at most {_NEGATIVE}: negative"
        return f"flagged where {self.whose} is at least {self.cut:g}"

    def flags(self, scores: FloatArray) -> BoolArray:
        """(n,) whether texts with such scores get the label."""
        if self.cut is None:
            # The compound has four digits, of which half may be lost on the way.
            return np.asarray(scores <= (_NEGATIVE + 1.0) / 2.0 + 1e-9, np.bool_)
        return np.asarray(scores >= self.cut, np.bool_)

    def labels(self, texts: Sequence[str]) -> BoolArray:
        """(n,) whether texts get the label."""
        return self.flags(self.score(texts))


def load_device(scorer: str | AuditedModel | None, scorer_class: str | None = None) -> Device:
    """The scorer of :func:`load_scorer` as a labeller of texts."""
    score, whose = load_scorer(scorer, scorer_class)
    return Device(score, whose, None if scorer is None else 0.5)


def load_scorer(scorer: str | AuditedModel | None, scorer_class: str | None = None) -> tuple[Scorer, str]:
    """(texts to scores (n,) in [0, 1], their source): VADER's sentiment, or a text classifier's probability.

    Raises NotApplicableError where VADER is not installed, UsageError for a class that the classifier does not have.
    """
    if scorer is None:
        if find_spec("vaderSentiment") is None:
            raise NotApplicableError(
                "Needs a scorer of texts: pip install 'responsible-auditor[language]' for VADER's sentiment, or name a "
                "text classifier with --scorer PATH."
            )
        return _vader()
    if isinstance(scorer, str):
        from auditor.loading.formats import load_model
        from auditor.loading.job_specs import ModelSpec
        from auditor.loading.text_labels import gives_labels, load_label

        one_label = gives_labels(scorer)
        loaded = load_label(scorer, scorer_class) if one_label else load_model(ModelSpec(path=scorer))
        if one_label:
            # Of a label and its absence, the label is the last.
            scorer_class = None
        digest = loaded.provenance.sha256
        where = f"{Path(scorer).name}{f', sha256 {digest[:16]}' if digest else ''}"
    else:
        loaded, where = scorer, "the classifier given"
    if loaded.kind != "classifier":
        raise UsageError(f"The scorer {where} is no classifier.")
    column = loaded.n_outputs - 1
    if scorer_class is not None:
        if scorer_class not in loaded.classes:
            near = did_you_mean(scorer_class, loaded.classes) or "."
            raise UsageError(f"The scorer has no class {scorer_class!r}{near} It has: {', '.join(loaded.classes)}.")
        column = loaded.classes.index(scorer_class)

    def score(texts: Sequence[str]) -> FloatArray:
        return np.asarray(loaded.predict_proba(np.asarray(list(texts), object))[:, column], np.float64)

    return score, f"P({loaded.classes[column]}) by {where}"


def _vader() -> tuple[Scorer, str]:
    from importlib import import_module
    from importlib.metadata import version

    analyzer = import_module("vaderSentiment.vaderSentiment").SentimentIntensityAnalyzer()

    def score(texts: Sequence[str]) -> FloatArray:
        return np.asarray([(analyzer.polarity_scores(t)["compound"] + 1.0) / 2.0 for t in texts], np.float64)

    return score, f"VADER {version('vaderSentiment')} sentiment, (compound + 1) / 2"


def extremes(names: Sequence[str], means: FloatArray) -> str:
    """The highest and the lowest mean score in words, or nothing if one is undefined."""
    if not len(means) or not np.isfinite(means).all():
        return ""
    high, low = int(means.argmax()), int(means.argmin())
    if means[high] == means[low]:
        return f"all identities {means[high]:.3f}"
    return f"highest {names[high]} {means[high]:.3f}, lowest {names[low]} {means[low]:.3f}"
