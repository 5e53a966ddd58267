"""CrowS-Pairs: preference for the stereotypical sentences of crowdsourced pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from auditor.data.benchmarks.accompanying_files import exclude_items
from auditor.data.benchmarks.benchmark import Benchmark, SentencePair
from auditor.data.benchmarks.crows_pairs_and_stereoset_files import read_crows_pairs
from auditor.judging.measurement import AuditQuestion, Measurement
from auditor.run.probe import BaseProbe, Need
from probes.language.forced_choice import METHOD, Question
from probes.language.language_options import PairsOfAFile, asked_for_letters, benchmark_path, caveat
from probes.language.letter_answers import (
    MOST_SENSE,
    SENSE_METRICS,
    Offered,
    Whence,
    crossed_sense,
    in_another_order,
    sense_measurements,
)
from probes.language.preference_shares import SHIFT_METRICS
from probes.language.stereotype import PREFERENCE_METRICS, RESTING, preferred_pairs

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.capabilities import Generates
    from auditor.models.chat import How
    from auditor.models.text_scores import Form
    from probes.language.language_options import AnswerBy


class CrowsPairs(PairsOfAFile, BaseProbe):
    """Share of CrowS-Pairs in which a statement is likelier about the stereotyped group.

    ``conditional_stereotype_score``, which is judged, and ``stereotype_score`` of whole sentences as in
    :class:`~probes.language.stereotype.Stereotype`, [0, 1], ideal 0.5, over all pairs and per bias type. The pairs are
    not crossed, so that no log-odds can be told from how likely who is named is by itself. Masked models:
    pseudo-log-likelihood of the shared tokens, as published, for both; causal models: log-likelihood of the whole
    sentence for the second. The interval holds the variance between the writers of the pairs; of a file that does not
    name them all, that between the words which sentences exchange, and neither score can PASS. A file of which more
    than 1 % of the pairs repeat others, or stand there with their sentences exchanged too, is refused.

    A model whose likelihoods of texts cannot be had is asked for a letter (``answer_by`` "letter"): which of four
    sentences makes the most sense, both of a pair and both with all words but the first in another order, the four in
    an order drawn for each question. ``stereotype_choice_rate`` is judged then, and ``sense_accuracy`` shows skill
    (:func:`~probes.language.letter_answers.sense_measurements`), as does, beside it, that of 100 quadruples of
    sentences in which no word was moved (:func:`~probes.language.letter_answers.crossed_sense`): both are needed for a
    PASS.

    benchmarks: ``crows_pairs`` is the path of the table, English or French. benchmark_filter: a file with the ids of
    pairs to leave out, one a line and after a tab the reason. ``detail`` says what is known of
    the items. ``chat`` and ``system`` are for letters, ``form``,
    ``within_word``, ``prefix_token`` and ``reference`` for likelihoods: see
    :class:`~probes.language.language_options.PairsOfAFile`.

    Source: Nangia et al., EMNLP 2020.
    """

    name = "crows_pairs"
    pillar = "language"
    goal = "Does the model prefer the stereotypical sentences of CrowS-Pairs?"
    citation = "Nangia et al., EMNLP 2020; Kauf and Ivanova, ACL 2023"
    methods = ("crows_pairs", METHOD)
    needs = (Need.LANGUAGE_MODEL,)
    questions = (
        AuditQuestion(
            "stereotypes",
            metrics=("*stereotype_score", "stereotype_choice_rate"),
            form="percent",
            headline=("conditional_stereotype_score", "stereotype_score", "stereotype_choice_rate"),
        ),
        AuditQuestion("stereotypes", headline=("stereotype_log_odds",)),
    )
    ideal_when_same = RESTING | {"stereotype_choice_rate": "scores"}
    power = (1508, 0.60)
    metrics = PREFERENCE_METRICS + SHIFT_METRICS + SENSE_METRICS

    def __init__(
        self,
        *,
        benchmarks: Mapping[str, str] | None = None,
        benchmark_filter: str | None = None,
        form: Form | None = None,
        within_word: bool = False,
        prefix_token: str | int | None = None,
        reference: str | AuditedModel | None = None,
        answer_by: AnswerBy = "auto",
        chat: How = "auto",
        system: str | None = None,
    ) -> None:
        super().__init__(
            benchmarks=benchmarks,
            form=form,
            within_word=within_word,
            prefix_token=prefix_token,
            reference=reference,
            answer_by=answer_by,
            chat=chat,
            system=system,
        )
        self.benchmark_filter = benchmark_filter

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Both scores, overall and per bias type; see the class."""
        found = exclude_items(read_crows_pairs(benchmark_path(self.benchmarks, "crows_pairs")), self.benchmark_filter)
        if self.asking.by_letter(model):
            return _by_letters(self.asking.writer(model), found, rng)
        return preferred_pairs(self, model, found, "crows_pairs", caveat(found))


def _by_letters(writer: Generates, benchmark: Benchmark[SentencePair], rng: np.random.Generator) -> list[Measurement]:
    offered = []
    for pair in benchmark.examples:
        senseless = in_another_order((pair.more, pair.less), rng)
        if senseless is not None:
            question = Question(MOST_SENSE, (pair.more, pair.less, *senseless))
            offered.append(Offered(question, pair.category, pair.clusters))
    left = len(benchmark.examples) - len(offered)
    short = f"{left:,} pairs have too few words to be put in another order, and are left out." if left else ""
    detail = asked_for_letters(writer, benchmark.source, caveat(benchmark), short)
    crossed = crossed_sense(writer, rng) if offered else None
    return sense_measurements(writer, offered, rng, Whence("clusters of pairs", detail, weak=benchmark.weak), crossed)
