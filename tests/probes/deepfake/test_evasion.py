"""Attacks on detectors: against the closed form of a linear detector's worst case, and within what they may change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

from auditor.core.errors import NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import AudioPreprocessing
from auditor.judging.measurement import Measurement
from auditor.models.audited_model import AuditedModel
from auditor.models.detector import DeepfakeDetector
from auditor.models.detector_card import DetectorCard
from auditor.models.torch_model import TorchModel
from auditor.statistics.estimate import Undefined
from probes.deepfake.detector_evasion import DetectorEvasion
from probes.robustness.query_attacks import square_attack
from probes.robustness.robustness import Robustness
from tests.quantifiers import all_of
from tests.toys import detectors as toys


def measure(model: AuditedModel, data: AuditData, **options: Any) -> list[Measurement]:
    return DetectorEvasion(**options).measure(model, data, np.random.default_rng(0))


def rates(found: list[Measurement], method: str, metric: str = "evasion_rate") -> dict[float, float]:
    return {float(m.at["epsilon"]): m.estimate.value for m in found if m.method == method and m.metric == metric}


def margins(data: AuditData) -> Any:
    """How far each synthetic picture's halves lie apart, in shares of the range of a pixel: (n,)."""
    assert data.y_true is not None
    x = np.asarray(data.X, float).mean(axis=3) / 255.0
    return (x * toys.HALVES).mean(axis=(1, 2))[data.y_true == 1]


def test_gradient_search_finds_the_worst_case_of_a_linear_detector() -> None:
    data = toys.pictures(60)
    apart = margins(data)
    levels = [0.04, 0.07, 0.08, 0.09, 0.2]
    found = rates(measure(toys.of_halves(), data, epsilon=levels, methods="pgd", n_samples=200), "pgd")
    for level in levels:
        # No pixel is near 0 or 255 here, so a change of the level moves the mean times the pattern by the level.
        assert found[level] == pytest.approx((apart < level).mean(), abs=0.02)
    assert found[0.04] == 0.0 and found[0.2] == 1.0


def test_queries_alone_find_less_than_gradients_and_something() -> None:
    data = toys.pictures(60)
    found = measure(toys.of_grid(), data, epsilon=[0.01, 0.05], n_queries=60)
    pgd, square = rates(found, "pgd"), rates(found, "square")
    assert all_of(square[e] <= pgd[e] for e in (0.01, 0.05))
    assert pgd[0.05] == 1.0 and square[0.01] <= square[0.05]
    brightness = rates(measure(toys.of_brightness(), data, epsilon=[0.1], n_queries=300, methods="square"), "square")
    assert brightness[0.1] > 0.5


def around(rows: Any, radius: int) -> Any:
    limits = np.iinfo(rows.dtype)
    return [np.clip(rows.astype(int) + r, limits.min, limits.max).astype(rows.dtype) for r in (-radius, radius)]


def test_the_square_attack_keeps_to_its_radius_and_its_queries() -> None:
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 256, (5, 12, 10, 3)).astype(np.uint8)
    asked = np.zeros(5, int)
    lowest = np.full(5, np.inf)

    def ask(candidates: Any, which: Any) -> Any:
        for c, said in zip(candidates, which, strict=True):
            own = int(np.abs(rows.astype(int) - c.astype(int)).max(axis=(1, 2, 3)).argmin())
            assert own == said
            asked[own] += 1
            lowest[own] = min(lowest[own], c.astype(float).mean())
        return candidates.astype(float).mean(axis=(1, 2, 3)), np.zeros(len(candidates), bool)

    changed, done = square_attack(*around(rows, 9), ask, n_queries=40, rng=np.random.default_rng(2))
    assert asked.tolist() == [40] * 5 and not done.any()
    away = changed.astype(int) - rows.astype(int)
    assert np.abs(away).max() == 9 and changed.dtype == np.uint8
    # It returns the best that it saw, and stripes alone would have a mean of about 0.
    np.testing.assert_allclose(changed.astype(float).mean(axis=(1, 2, 3)), lowest)
    assert (away.mean(axis=(1, 2, 3)) < -1.0).all()


def test_the_square_attack_stops_where_it_has_succeeded() -> None:
    rows = np.full((4, 2_000), 500, np.int16)
    asked: list[int] = []

    def ask(candidates: Any, which: Any) -> Any:
        asked.append(len(candidates))
        scores = candidates.astype(float).mean(axis=1)
        return scores, scores < 497.0

    changed, done = square_attack(*around(rows, 30), ask, n_queries=200, rng=np.random.default_rng(0))
    assert done.all() and (changed.astype(float).mean(axis=1) < 497.0).all()
    assert asked[0] == 4 and sum(asked) < 4 * 200 and all_of(a >= b for a, b in zip(asked, asked[1:], strict=False))


def test_only_synthetic_files_that_were_found_are_attacked() -> None:
    data = toys.pictures(80)
    model = toys.of_brightness()
    found = measure(model, data, methods="square", epsilon=[0.001])
    assert data.y_true is not None
    hits = int((model.predict_proba(data.X)[data.y_true == 1, 1] >= 0.5).sum())
    assert found[0].n_samples == min(hits, 50) and rates(found, "square")[0.001] <= 0.1
    blind = AuditedModel.from_callable(
        lambda X: np.column_stack([np.ones(len(X)), np.zeros(len(X))]), classes=toys.CLASSES
    )
    (nothing, *_) = measure(blind, data)
    assert isinstance(nothing.estimate, Undefined) and nothing.n_samples == 0


def test_a_detector_with_a_card_may_still_say_that_it_cannot() -> None:
    """Whatever the attack moves past the threshold has a score that real files have not."""
    detector = toys.detector(toys.of_halves())
    found = measure(detector, toys.pictures(40), epsilon=[0.2], methods="square", n_queries=400)
    into_real = rates(found, "square", "evasion_into_real")[0.2]
    assert into_real < 0.5 < rates(found, "square")[0.2]


def test_models_without_gradients_are_searched_by_queries_alone() -> None:
    data = toys.pictures(20)
    inner = toys.of_halves()
    model = AuditedModel.from_callable(inner.predict_proba, classes=toys.CLASSES)
    assert {m.method for m in measure(model, data, n_queries=5)} == {"square"}
    with pytest.raises(NotApplicableError, match="square applies"):
        measure(model, data, methods="pgd")


def test_sound_is_attacked_too() -> None:
    rng = np.random.default_rng(3)
    fake = np.arange(30) % 2 == 1
    X = np.rint(800.0 * fake[:, None] - 400.0 + 300.0 * rng.standard_normal((30, 1_000))).astype(np.int16)
    data = AuditData(X=X, y_true=fake.astype(np.int64), classes=toys.CLASSES)
    linear = nn.Linear(1_000, 1)
    nn.init.constant_(linear.weight, 1.0)
    nn.init.zeros_(linear.bias)
    how: dict[str, Any] = {"classes": toys.CLASSES, "preprocessing": AudioPreprocessing(samples=1_000)}
    model = TorchModel(linear, **how)
    found = measure(model, data, epsilon=[0.005, 0.03], n_queries=60)
    # The mean of synthetic sound is 400 of 32,768: 0.0122.
    assert rates(found, "pgd") == {0.005: 0.0, 0.03: 1.0}
    assert rates(found, "square")[0.005] == 0.0 and rates(found, "square")[0.03] > 0.5
    card = DetectorCard(medium="speech", fake=1, real_scores=(0.1,), fake_scores=(0.9,))
    assert measure(DeepfakeDetector.around(model, card), data, n_queries=5)


def test_the_gradient_search_of_robustness_applies_to_a_detector_of_images() -> None:
    detector = toys.detector(toys.of_grid())
    found = Robustness(methods="pgd").measure(detector, toys.pictures(40), np.random.default_rng(0))
    flips = {m.at["epsilon"]: m.estimate.value for m in found if m.metric == "flip_rate_under_pgd"}
    assert flips[8 / 255] > 0.9


def test_bad_options_are_said() -> None:
    for options, said in (
        ({"methods": "magic"}, "auto or out of pgd, square"),
        ({"epsilon": [0.0]}, "epsilon"),
        ({"epsilon": []}, "epsilon"),
        ({"n_queries": 0}, "n_queries"),
    ):
        with pytest.raises(ValueError, match=said):
            DetectorEvasion(**options)
