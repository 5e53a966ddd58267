"""Winogender: is "he" or "she" likelier, and for which occupations?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from auditor.data.benchmarks.benchmark import Benchmark
from auditor.data.benchmarks.winogender import WinogenderExample, read_winogender
from auditor.finding.measurement import Answer, Measurement, Pillar
from auditor.rows import FloatArray
from auditor.run.probe import Need
from probes.language.options import PairsOfAFile, benchmark_path, source_and_scoring
from probes.language.shares import preferences, share_of

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.model.audited_model import AuditedModel


class Winogender(PairsOfAFile):
    """Winogender: how often "he" is likelier than "she", over all occupations and for each.

    - ``male_preference = P(log p(he) > log p(she)) + P(tie) / 2``; [0, 1], ideal 0.5
    - ``stereotype_score``: share of sentences whose likelier pronoun is that of the majority in the occupation, by the
      statistics beside the sentences; [0, 1], ideal 0.5; only where these are there

    Overall intervals hold the variance between occupations.

    benchmarks: ``winogender`` is ``all_sentences.tsv`` or its folder. Other options as for
    :class:`~probes.language.stereotype.Stereotype`.

    Source: Rudinger et al., NAACL 2018.
    """

    name: ClassVar[str] = "winogender"
    pillar: ClassVar[Pillar] = "language"
    goal: ClassVar[str] = "Which occupations does the model take for a man's or a woman's?"
    citation: ClassVar[str] = "Rudinger et al., NAACL 2018"
    methods: ClassVar[tuple[str, ...]] = ("winogender",)
    needs: ClassVar[tuple[Need, ...]] = (Need.LANGUAGE_MODEL,)
    ideal_when_same: ClassVar[Mapping[str, Answer]] = {"stereotype_score": "scores", "male_preference": "scores"}
    power = (240, 0.66)

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """The overall scores and the preference per occupation; see the class."""
        found = read_winogender(benchmark_path(self.benchmarks, "winogender"))
        language = self.language(model)
        scores = language.pair_scores(
            [(e.male, e.female) for e in found.examples], form=self.form, within_word=self.within_word
        )
        return _winogender(found, preferences(scores), source_and_scoring(language, found.source))


def _winogender(found: Benchmark[WinogenderExample], male: FloatArray, detail: str) -> list[Measurement]:
    occupations = [e.occupation for e in found.examples]
    overall = share_of(male, [(o,) for o in occupations], "sentences")
    measured = [
        Measurement(
            metric="male_preference",
            method="winogender",
            estimate=overall.estimate,
            n_samples=overall.n,
            ideal=0.5,
            detail=f"{detail} {overall.detail}".strip(),
            too_few=overall.too_few,
        )
    ]
    female = np.asarray([np.nan if e.percent_female is None else e.percent_female for e in found.examples])
    known = ~np.isnan(female) & (female != 50.0)
    if known.any():
        expected = np.where(female < 50.0, male, 1.0 - male)[known]
        stereotypical = share_of(
            expected, [(o,) for o, k in zip(occupations, known.tolist(), strict=True) if k], "sentences"
        )
        measured.append(
            Measurement(
                metric="stereotype_score",
                method="winogender",
                estimate=stereotypical.estimate,
                n_samples=stereotypical.n,
                ideal=0.5,
                detail=f"{detail} {stereotypical.detail}".strip(),
                too_few=stereotypical.too_few,
            )
        )
    for occupation in sorted(set(occupations)):
        share = share_of(male[np.asarray(occupations) == occupation], [()] * occupations.count(occupation), "sentences")
        measured.append(
            Measurement(
                metric="male_preference",
                method="winogender",
                estimate=share.estimate,
                n_samples=share.n,
                ideal=0.5,
                group={"occupation": occupation},
                detail=share.detail,
                too_few=share.too_few,
            )
        )
    return measured
