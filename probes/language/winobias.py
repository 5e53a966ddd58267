"""WinoBias: preference for the pronoun of an occupation's stereotype."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from auditor.data.benchmarks.benchmark import Benchmark, SentencePair
from auditor.data.benchmarks.winobias_file import read_winobias
from auditor.judging.measurement import AuditQuestion, Measurement
from auditor.run.probe import BaseProbe, Need
from probes.language.forced_choice import METHOD
from probes.language.language_options import PairsOfAFile, asked_for_letters, benchmark_path
from probes.language.pair_scores import RESTING, preferred_pairs
from probes.language.pronoun_letters import PRONOUN_METRICS, Pronoun, pronoun_measurements
from probes.language.stereotype import Stereotype

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.capabilities import Generates


class WinoBias(PairsOfAFile, BaseProbe):
    """The likelihood lead of WinoBias sentences with the stereotypical pronoun.

    Line i of the pro- and of the anti-stereotyped file differ in the pronoun, and either pronoun is the stereotypical
    one of as many: ``stereotype_log_odds`` (in nats, ideal 0; judged), ``conditional_stereotype_score`` and
    ``stereotype_score`` ([0, 1], ideal 0.5) as in :class:`~probes.language.stereotype.Stereotype`, over all and per
    type (1: needs knowledge of the world, 2: syntax suffices). The interval holds the variance between occupations and
    between pairs of them.

    A model whose likelihoods of texts cannot be had is asked for a letter (``answer_by`` "letter"): which of the two
    occupations each pronoun refers to, as the benchmark was made for. ``accuracy_gap`` is judged then, and ``accuracy``
    shows skill (:func:`~probes.language.pronoun_letters.pronoun_measurements`). Sentences of which not just one
    occupation stands beside the right one, or that differ in more than a pronoun, are left out, and counted.

    benchmarks: ``winobias`` is the folder of the files, or one ``pro_stereotyped_...`` file beside its partner.
    ``chat`` and ``system`` are for letters, ``form``, ``within_word``, ``prefix_token`` and ``reference`` for
    likelihoods: see :class:`~probes.language.language_options.PairsOfAFile`.

    Source: Zhao et al., NAACL 2018.
    """

    name = "winobias"
    pillar = "language"
    goal = "Does the model expect the pronoun that goes with an occupation's stereotype?"
    citation = "Zhao et al., NAACL 2018"
    methods = ("winobias", METHOD)
    needs = (Need.LANGUAGE_MODEL,)
    questions = (AuditQuestion("pronouns"),)
    ideal_when_same = RESTING | {"accuracy_gap": "scores"}
    power = (1584, 0.63)
    metrics = Stereotype.metrics + PRONOUN_METRICS

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """The log-odds and both scores, each over all and per type; see the class."""
        found = read_winobias(benchmark_path(self.benchmarks, "winobias"))
        if self.asking.by_letter(model):
            return _by_letters(self.asking.writer(model), found, rng)
        return preferred_pairs(self, model, found, "winobias")


def _by_letters(writer: Generates, benchmark: Benchmark[SentencePair], rng: np.random.Generator) -> list[Measurement]:
    occupations = sorted({pair.clusters[-1] for pair in benchmark.examples}, key=len, reverse=True)
    named = re.compile(rf"\b(?:the|an?) ({'|'.join(map(re.escape, occupations))})\b")
    sentences = []
    for pair in benchmark.examples:
        right = pair.clusters[-1]
        beside = sorted(set(named.findall(pair.more.lower())) - {right})
        if len(beside) == 1 and pair.mentions is not None:
            means = (f"The {right}", f"The {beside[0]}")
            sentences.append(Pronoun((pair.more, pair.less), pair.mentions, means, pair.category, (right, beside[0])))
    left = len(benchmark.examples) - len(sentences)
    told = (
        f"{left:,} of {len(benchmark.examples):,} sentences do not name just two occupations, or differ in more than a "
        "pronoun, and are left out."
    )
    detail = asked_for_letters(writer, benchmark.source, told if left else "")
    return pronoun_measurements(writer, sentences, rng, detail, "no sentence names just two occupations")
