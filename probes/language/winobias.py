"""WinoBias: does the model expect the pronoun that goes with an occupation's stereotype?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from auditor.data.benchmarks.winobias import read_winobias
from auditor.finding.measurement import Answer, Measurement, Pillar
from auditor.run.probe import Need
from probes.language.log_odds import log_odds
from probes.language.options import PairsOfAFile, benchmark_path
from probes.language.pairs import RESTING, preferred_pairs
from probes.language.shares import shifts
from probes.language.stereotype import Stereotype

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.model.audited_model import AuditedModel


class WinoBias(PairsOfAFile):
    """By how much WinoBias sentences are likelier with the stereotypical pronoun.

    Line i of the pro- and of the anti-stereotyped file differ in the pronoun, and either pronoun is the stereotypical
    one of as many: ``stereotype_log_odds`` (in nats, ideal 0; judged), ``conditional_stereotype_score`` and
    ``stereotype_score`` ([0, 1], ideal 0.5) as in :class:`~probes.language.stereotype.Stereotype`, over all and per
    type (1: needs knowledge of the world, 2: syntax suffices). The interval holds the variance between occupations and
    between pairs of them.

    benchmarks: ``winobias`` is the folder of the files, or one ``pro_stereotyped_...`` file beside its partner.

    Source: Zhao et al., NAACL 2018.
    """

    name: ClassVar[str] = "winobias"
    pillar: ClassVar[Pillar] = "language"
    goal: ClassVar[str] = "Does the model expect the pronoun that goes with an occupation's stereotype?"
    defined_in: ClassVar[tuple[object, ...]] = (Stereotype, log_odds, preferred_pairs, shifts)
    citation: ClassVar[str] = "Zhao et al., NAACL 2018"
    methods: ClassVar[tuple[str, ...]] = ("winobias",)
    needs: ClassVar[tuple[Need, ...]] = (Need.LANGUAGE_MODEL,)
    ideal_when_same: ClassVar[Mapping[str, Answer]] = RESTING
    power = (1584, 0.63)

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """The log-odds and both scores, each over all and per type; see the class."""
        found = read_winobias(benchmark_path(self.benchmarks, "winobias"))
        return preferred_pairs(self, model, found, "winobias")
