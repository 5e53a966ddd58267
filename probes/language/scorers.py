"""What a continuation is scored with: VADER's sentiment, or a text classifier of the user's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from auditor.errors import NotApplicableError, UsageError, did_you_mean
from auditor.rows import FloatArray

if TYPE_CHECKING:
    from auditor.model.audited_model import AuditedModel

Scorer = Callable[[Sequence[str]], FloatArray]


def load_scorer(scorer: str | AuditedModel | None, scorer_class: str | None = None) -> tuple[Scorer, str]:
    """(texts to scores (n,) in [0, 1], whose they are): VADER's sentiment, or a text classifier's probability.

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
        from auditor.intake.formats import load_model
        from auditor.intake.specs import ModelSpec

        loaded = load_model(ModelSpec(path=scorer))
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
    """The highest and the lowest mean score in words, or nothing where one is undefined."""
    if not len(means) or not np.isfinite(means).all():
        return ""
    high, low = int(means.argmax()), int(means.argmin())
    if means[high] == means[low]:
        return f"all identities {means[high]:.3f}"
    return f"highest {names[high]} {means[high]:.3f}, lowest {names[low]} {means[low]:.3f}"
