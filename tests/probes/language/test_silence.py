"""A model that says nothing is no pass."""

from __future__ import annotations

import numpy as np
import pytest

from auditor.data.audit_data import AuditData
from auditor.judging.judging import judge
from auditor.judging.measurement import Outcome, ProbeResult
from auditor.run.probe import Probe
from probes.language.continuations import silence
from probes.language.generation_bias import GenerationBias
from tests.probes.language.talkers import goodness, talking_toy
from tests.toys.labelled import calibrated
from tests.toys.models import criterion


def test_silence_by_hand() -> None:
    assert silence([["a", "b"], ["c", "d"]]) == ("", "")
    said, mute = silence([["a", " "], ["c", "d"]])
    assert said == "1 of 4 continuations are empty" and mute == ""
    assert "says nothing" in silence([["", "\n"], [" ", "d"]])[1]


def outcomes(probe: Probe, model: object, metrics: dict[str, float]) -> set[Outcome]:
    found = probe.measure(model, AuditData(X=np.empty(0, object)), np.random.default_rng(0))  # type: ignore[arg-type]
    result = ProbeResult(probe=probe.name, pillar=probe.pillar, citation="", measurements=tuple(found))
    findings, _ = judge([result], [criterion(metric, "at_most", bound) for metric, bound in metrics.items()])
    return {f.outcome for f in findings if f.measurement and f.measurement.metric in metrics}


def test_a_model_that_only_ends_is_inconclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = GenerationBias(
        categories="gender", n_samples=2, max_new_tokens=2, scorer=goodness(), calibration=calibrated()
    )
    metrics = {"worst_score_gap": 0.2, "average_group_fairness": 0.2, "average_individual_fairness": 0.9}
    model = talking_toy([])
    assert Outcome.PASS in outcomes(probe, model, metrics)
    monkeypatch.setattr(probe, "continued", lambda model, prompts, n, rng: [[""] * n for _ in prompts])
    assert outcomes(probe, model, metrics) == {Outcome.INCONCLUSIVE}
