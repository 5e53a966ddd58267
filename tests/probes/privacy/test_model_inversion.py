"""Model inversion: what a linear model of patterns gives away, and what one of noise does not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from auditor.core.errors import NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Measurement
from probes.privacy.model_inversion import ModelInversion, _correlations
from tests.toys.models import inverted, model, pictures, rows


def by_method(found: list[Measurement], metric: str = "inversion_similarity") -> dict[str, float]:
    return {m.method: m.estimate.value for m in found if m.metric == metric}


def test_the_patterns_a_model_holds_are_drawn_from_it() -> None:
    for knows in (True, False):
        found = ModelInversion(n_steps=60).measure(inverted(knows), pictures(), np.random.default_rng(0))
        similarity, retrieved = by_method(found), by_method(found, "inversion_retrieval_rate")
        assert abs(similarity["random_image"]) < 0.15
        if knows:
            assert similarity["gradient_inversion"] > 0.7
            assert retrieved["gradient_inversion"] == 1.0
        else:
            assert abs(similarity["gradient_inversion"]) < 0.15
            assert retrieved["gradient_inversion"] < 0.3
        figure = found[0].figure
        assert figure is not None and len(figure.heatmaps) == 8


def test_correlations_are_pearsons() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 4, 4, 1)), rng.random((3, 4, 4, 1))
    expected = [[np.corrcoef(x.ravel(), y.ravel())[0, 1] for y in b] for x in a]
    np.testing.assert_allclose(_correlations(a, b), expected)
    assert _correlations(np.ones((2, 4, 4, 1)), b[:2]).tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.slow
def test_what_it_refuses() -> None:
    with pytest.raises(NotApplicableError, match="model of images"):
        ModelInversion().measure(model(lambda skill, group, seen: skill), rows(50), np.random.default_rng(0))
    few = pictures().take(np.arange(3))
    found = ModelInversion(n_steps=2).measure(inverted(True), few, np.random.default_rng(0))
    assert math.isnan(found[0].estimate.value)
    assert isinstance(few, AuditData)
