"""Pairs of sentences to stereotype scores, over all of them and per category."""

from __future__ import annotations

from typing import TYPE_CHECKING

from auditor.data.benchmarks.benchmark import Benchmark, SentencePair
from auditor.finding.measurement import Measurement
from probes.language.options import PairOptions, source_and_scoring
from probes.language.shares import mean_of_pairs, shifts, stereotype_scores

if TYPE_CHECKING:
    from auditor.model.audited_model import AuditedModel


def preferred_pairs(
    options: PairOptions, model: AuditedModel, found: Benchmark[SentencePair], method: str
) -> list[Measurement]:
    """Scores the pairs as asked and counts how often the more stereotypical sentence is likelier."""
    language = options.language(model)
    pairs = [(p.more, p.less) for p in found.examples]
    preferred, detail = options.preferred(language, pairs), source_and_scoring(language, found.source)
    scores = stereotype_scores(found.examples, preferred, method, detail)
    earlier = options.earlier()
    if earlier is None:
        return scores
    before = options.preferred(earlier[0], pairs)
    clusters, strata = [p.clusters for p in found.examples], [p.stratum for p in found.examples]
    return scores + shifts(
        before, preferred, lambda values: mean_of_pairs(values, clusters, strata), scores[0], earlier[1]
    )
