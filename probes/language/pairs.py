"""Pairs of sentences to stereotype scores, over all of them and per category."""

from __future__ import annotations

from typing import TYPE_CHECKING

from auditor.data.benchmarks.benchmark import Benchmark, SentencePair
from auditor.finding.measurement import Measurement
from probes.language.options import PairOptions, source_and_scoring
from probes.language.shares import preferences, stereotype_scores

if TYPE_CHECKING:
    from auditor.model.audited_model import AuditedModel


def preferred_pairs(
    options: PairOptions, model: AuditedModel, found: Benchmark[SentencePair], method: str
) -> list[Measurement]:
    """Scores the pairs as asked and counts how often the more stereotypical sentence is likelier."""
    language = options.language(model)
    pairs = [(p.more, p.less) for p in found.examples]
    scores = language.pair_scores(pairs, form=options.form, within_word=options.within_word)
    return stereotype_scores(found.examples, preferences(scores), method, source_and_scoring(language, found.source))
