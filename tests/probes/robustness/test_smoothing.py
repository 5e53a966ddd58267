"""Randomised smoothing: radii by hand, a line whose margin is known, and no verdict of a model that is not served."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from torch import nn

from auditor.core.errors import NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import fit_tabular
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.models.torch_model import TorchModel
from auditor.statistics.attack_estimates import AtLeast
from auditor.statistics.intervals import clopper_pearson
from probes.robustness.robustness import Robustness
from probes.robustness.smoothing import radii
from tests.quantifiers import all_of
from tests.toys.models import criterion

LEVELS = (0.05, 0.2, 0.5)


def rows(n: int = 40) -> AuditData:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n)})
    return AuditData.from_arrays(X, (X["a"] > 0).astype(int), classes=[0, 1])


def line(data: AuditData) -> TorchModel:
    """Decides by whether ``a`` is above 0, so how far a row lies from another decision is ``|a|``."""
    preprocessing = fit_tabular(pd.DataFrame(data.X))
    scale, mean = (float(getattr(preprocessing.columns[0], name)) for name in ("scale", "mean"))
    module = nn.Linear(2, 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[20.0, 0.0]]))
        module.bias.fill_(20.0 * mean / scale)
    return TorchModel(module, classes=[0, 1], preprocessing=preprocessing, outputs="logits")


def measured(model: AuditedModel, data: AuditData, **options: object) -> list[Measurement]:
    probe = Robustness(**({"methods": "smoothing", "epsilon": LEVELS} | options))  # type: ignore[arg-type]
    return [m for m in probe.measure(model, data, np.random.default_rng(3)) if m.method == "smoothing"]


def test_a_radius_is_a_quantile_of_the_lower_bound() -> None:
    found = radii(np.asarray([1_000, 990, 500, 0]), n=1_000, sigma=0.5, alpha=0.001)
    low = float(clopper_pearson(990, n=1_000, alpha=0.001)[0])
    assert found[0] == pytest.approx(0.5 * norm.ppf(0.001 ** (1 / 1_000)))
    assert found[1] == pytest.approx(0.5 * norm.ppf(low))
    assert found[2] == found[3] == 0.0


def test_rows_are_certified_as_far_as_they_lie_from_the_line_and_no_farther() -> None:
    data = rows()
    unit = float(np.std(pd.DataFrame(data.X)["a"]))
    away = np.abs(pd.DataFrame(data.X)["a"].to_numpy()) / unit
    found = {float(m.at["radius"]): m.estimate for m in measured(line(data), data, sigma=0.25)}
    assert set(found) == set(LEVELS)
    for level, estimate in found.items():
        assert isinstance(estimate, AtLeast) and estimate.n == 40
        # A thousand copies show less than there is, by at most a fifth of sigma at such distances.
        assert (away >= 1.3 * level + 0.05).sum() <= estimate.successes <= (away >= level).sum()


def test_it_is_asked_for_by_name_and_judged_by_nobody() -> None:
    data = rows()
    found = measured(line(data), data)
    assert not measured(line(data), data, methods="auto")
    assert all_of(m.detail.startswith("of another model: ") for m in found)
    result = ProbeResult(probe="robustness", pillar="robustness", citation="", measurements=tuple(found))
    judged, _ = judge([result], [criterion("smoothed_certified_accuracy", "at_least", 0.01)])
    assert {f.outcome for f in judged} == {Outcome.INCONCLUSIVE}
    assert all_of("no requirement of this model rests on it" in f.reason for f in judged)


def test_the_same_seed_gives_the_same_numbers_and_another_method_changes_none() -> None:
    data = rows()
    model = line(data)
    first = measured(model, data)
    assert measured(model, data) == first
    assert measured(model, data, methods=["noise", "smoothing"]) == first


def test_it_needs_a_network_and_a_sigma() -> None:
    data = rows()
    asked = AuditedModel.from_callable(lambda X: (X["a"] > 0).to_numpy(float), classes=[0, 1])
    with pytest.raises(NotApplicableError, match="smoothing needs what pgd does"):
        measured(asked, data)
    with pytest.raises(ValueError, match="sigma must be numbers above 0"):
        measured(line(data), data, sigma=0.0)
