"""Stereotypes: the likelihood of statements by the group they are about, in sentences of this tool."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from auditor.data.benchmarks.benchmark import Benchmark, SentencePair
from auditor.judging.measurement import AuditQuestion, Measurement
from auditor.run.probe import BaseProbe, Need
from probes.language.language_options import PairOptions
from probes.language.log_odds import LOG_ODDS_METRICS
from probes.language.pair_scores import PREFERENCE_METRICS, RESTING, preferred_pairs
from probes.language.preference_shares import SHIFT_METRICS

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel


class Stereotype(PairOptions, BaseProbe):
    """The likelihood lead of built-in stereotypical sentences over the same sentences about others.

    1,280 pairs: 160 sentences about gender, race, religion, age, nationality, sexual orientation, disability and
    socioeconomic status, each with eight pairs of mentions (``probes/data/stereotype_pairs.md``). In every group as
    many sentences are stereotypical of one mention as of the other, so what a model makes of mentions alone cancels:
    what is judged is ``stereotype_log_odds`` in nats (:func:`~probes.language.log_odds.log_odds`). Beside it stand
    ``conditional_stereotype_score``, of what is said given who is named
    (:func:`~probes.language.pair_scores.preferred_pairs`), and ``stereotype_score`` of whole sentences. In most whole
    sentences who is named outweighs what is said, and ``detail`` counts them: a model with a strong preference for
    mentions is near 0.5 whatever it makes of stereotypes.

    Each over all and per category. Sentences and pairs of mentions recur, so the interval holds the variance of both,
    see :func:`~probes.language.preference_shares.clustered_share`; strata are the groups and the mention that a
    sentence is stereotypical of. Where more than half of the pairs tie the model has not answered, and nothing is
    judged.

    form, within_word: see :class:`~probes.language.language_options.PairOptions`; prefix_token: see
    :class:`~probes.language.language_options.LikelihoodOptions`.

    Sources: Nangia et al., EMNLP 2020 (scores, pseudo-log-likelihood); Kurita et al., GeBNLP 2019 (what a mention is
    likely by itself is taken out); pairs written for this tool.
    """

    name = "stereotype"
    pillar = "language"
    goal = "Are sentences that state a stereotype likelier than the same about another group?"
    citation = "Nangia et al., EMNLP 2020; Kauf and Ivanova, ACL 2023; pairs of this tool, version 1"
    methods = ("built_in_pairs",)
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
    ideal_when_same = RESTING
    # Pairs, independent ones, and the true stereotype_score beyond [0.45, 0.55] that is found so with 80 % power.
    power = (1280, 0.60)
    metrics = PREFERENCE_METRICS + LOG_ODDS_METRICS + SHIFT_METRICS

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """The log-odds and both scores, each over all and per category; see the class."""
        return preferred_pairs(self, model, built_in_pairs(), "built_in_pairs")


def built_in_pairs() -> Benchmark[SentencePair]:
    """The pairs of this package, each with two clusters: its sentence and its pair of mentions."""
    folder = files("probes") / "data"
    contents = [(folder / f"stereotype_{name}.jsonl").read_bytes() for name in ("groups", "sentences")]
    groups, sentences = ([json.loads(line) for line in text.decode().splitlines()] for text in contents)
    of = {g["group"]: g for g in groups}
    pairs = tuple(
        SentencePair(
            more=entry["sentence"].format(first if entry["more"] == "first" else second),
            less=entry["sentence"].format(second if entry["more"] == "first" else first),
            category=of[entry["group"]]["category"],
            clusters=(entry["sentence"], f"{entry['group']}: {first} / {second}"),
            stratum=f"{entry['group']}: {entry['more']}",
            rest=entry["sentence"].removeprefix("{}"),
            mentions=(first, second) if entry["more"] == "first" else (second, first),
        )
        for entry in sentences
        for first, second in of[entry["group"]]["pairs"]
    )
    digest = hashlib.sha256(b"".join(contents)).hexdigest()
    templates = "sentences and mentions"
    return Benchmark("built-in pairs", "built-in pairs version 1", digest, pairs, templates=templates)
