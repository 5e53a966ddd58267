"""What `performance` says of a language model that knows word order, and sense, as far as it is told to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from auditor.data.audit_data import AuditData
from auditor.judging.judgement import SENSE, SENTENCES
from auditor.judging.measurement import Measurement, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.statistics.rates import Proportion
from probes.performance.performance import Performance


def skilled(n_order: int = 64, n_sense: int = 100) -> ProbeResult:
    """Of 64 texts in another order, and of 100 quadruples of sense."""
    order = Measurement(
        metric="word_order_accuracy", estimate=Proportion(successes=n_order, n=64), n_samples=64, ideal=1.0, chance=0.5
    )
    share = Proportion(successes=n_sense, n=100)
    sense = replace(order, metric="sense_accuracy", estimate=share, n_samples=100, at={SENTENCES: SENSE}, part=True)
    return ProbeResult(probe="performance", pillar="performance", citation="", measurements=(order, sense))


class Skilled(Performance):
    """The probe of a model that is known to be so, for an audit of a toy that knows nothing but its pairs."""

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        return list(skilled().measurements)
