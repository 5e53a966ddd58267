"""Corruptions of images: what each does to pixels, and the one number of all, whose copies are not independent."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from auditor.core.errors import NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.judging.criterion import Criterion
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.statistics.estimate import Undefined
from auditor.statistics.rates import Proportion
from auditor.statistics.values import BoundedMean, WorstValueGap, bounded_mean
from probes.robustness.corruptions import CORRUPTIONS, corrupted
from probes.robustness.robustness import Robustness
from tests.quantifiers import all_of

CLASSES = ("dark", "bright")
Pixels = npt.NDArray[np.uint8]


def pictures(n: int, channels: int = 3, side: int = 16, seed: int = 0) -> Pixels:
    """Smooth pictures of a mean brightness between 60 and 195."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(-20.0, 20.0, side)[:, None, None] * rng.choice([-1.0, 1.0], (n, 1, 1, 1))
    X = rng.uniform(60, 195, (n, 1, 1, 1)) + ramp + rng.normal(0.0, 2.0, (n, side, side, channels))
    return np.clip(np.round(X), 0, 255).astype(np.uint8)


def by_brightness(X: Any) -> Any:
    return (np.asarray(X, float).mean(axis=(1, 2, 3)) > 127.5).astype(float)


def measured(predict: Any, X: Pixels, y: Any = None, **more: Any) -> list[Measurement]:
    data = AuditData.from_arrays(X, y, classes=CLASSES, positive="bright", **more)
    probe = Robustness(methods="corruption", n_samples=len(X))
    return probe.measure(AuditedModel.from_callable(predict, classes=CLASSES), data, np.random.default_rng(0))


def named(found: Sequence[Measurement], metric: str) -> Measurement:
    return next(m for m in found if m.metric == metric and not m.group)


# ---- what happens to pixels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_each_kind_does_what_it_is_named_for_and_more_so_with_severity(channels: int) -> None:
    X = np.clip(
        pictures(6, channels, side=32) + np.random.default_rng(1).normal(0.0, 8.0, (6, 32, 32, channels)), 0, 255
    ).astype(np.uint8)
    copies = list(corrupted(X, np.random.default_rng(0)))
    assert len(copies) == 18 and all_of(c.shape == X.shape and c.dtype == np.uint8 for c in copies)
    if channels == 4:
        assert all_of((c[..., 3] == X[..., 3]).all() for c in copies)
    colours = min(channels, 3)
    plain = X[..., :colours].astype(float)
    of = {
        kind.name: [copies[3 * k + s][..., :colours].astype(float) for s in range(3)]
        for k, kind in enumerate(CORRUPTIONS)
    }
    for name, three in of.items():
        apart = [np.abs(c - plain).mean() for c in three]
        assert 0.0 < apart[0] < apart[2], name
    for level, copy in zip((0.04, 0.08, 0.12), of["gaussian_noise"], strict=True):
        assert (copy - plain).std() == pytest.approx(level * 255 / (np.sqrt(3) if channels == 1 else 1), rel=0.25)
    for level, copy in zip((0.1, 0.2, 0.3), of["brightness"], strict=True):
        assert np.abs(copy - np.minimum(plain + round(level * 255), 255)).max() <= 1.0
    for level, copy in zip((0.7, 0.5, 0.3), of["contrast"], strict=True):
        assert copy.std(axis=(1, 2, 3)) == pytest.approx(level * plain.std(axis=(1, 2, 3)), rel=0.15)
        assert copy.mean(axis=(1, 2, 3)) == pytest.approx(plain.mean(axis=(1, 2, 3)), abs=1.5)
    halved = of["pixelate"][1]
    assert (halved[:, ::2, ::2] == halved[:, 1::2, 1::2]).all()
    steps = [np.abs(np.diff(c, axis=2)).mean() for c in (plain, *of["gaussian_blur"])]
    assert steps == sorted(steps, reverse=True)


def test_severities_of_a_kind_share_their_draws_and_pictures_do_not() -> None:
    X = np.full((2, 32, 32, 3), 128, np.uint8)
    mild, middle, _ = list(corrupted(X, np.random.default_rng(0)))[:3]
    a, b = mild.astype(float) - 128, middle.astype(float) - 128
    assert np.corrcoef(a[0].ravel(), b[0].ravel())[0, 1] > 0.99
    assert abs(np.corrcoef(a[0].ravel(), a[1].ravel())[0, 1]) < 0.1


# ---- the numbers ---------------------------------------------------------------------------------------------------


def test_one_number_is_the_mean_over_images_of_the_share_of_their_copies() -> None:
    X = pictures(40)
    y = np.where(by_brightness(X) > 0, "bright", "dark")
    found = measured(by_brightness, X, y)
    decided = []
    of_corruption = np.random.default_rng(0)
    of_corruption.choice(40, size=40, replace=False)
    rng = of_corruption.spawn(len(Robustness.methods))[Robustness.methods.index("corruption")]
    for start in range(0, 40, 16):
        decided.append(np.stack([by_brightness(c) for c in corrupted(X[start : start + 16], rng)]))
    right = np.concatenate(decided, axis=1) == by_brightness(X)
    accuracy, flips = named(found, "accuracy_under_corruption"), named(found, "flip_rate_under_corruption")
    assert isinstance(accuracy.estimate, BoundedMean) and accuracy.estimate.n == 40 and accuracy.n_samples == 40
    assert accuracy.estimate.value == pytest.approx(right.mean())
    assert flips.estimate.value == pytest.approx(1.0 - right.mean())
    assert accuracy.estimate.standard_error == pytest.approx(right.mean(axis=0).std(ddof=1) / np.sqrt(40))
    assert 0.5 < right.mean() < 1.0 and "worst: brightness" in accuracy.detail
    for k, kind in enumerate(CORRUPTIONS):
        curve = [m for m in found if m.metric == f"accuracy_under_{kind.name}"]
        assert [m.at for m in curve] == [{"severity": float(s)} for s in (1, 2, 3)]
        for s, m in enumerate(curve):
            assert m.estimate == Proportion(successes=int(right[3 * k + s].sum()), n=40)


def test_without_labels_there_are_flip_rates_alone() -> None:
    found = measured(by_brightness, pictures(20))
    kinds = {f"flip_rate_under_{kind.name}" for kind in CORRUPTIONS}
    assert {m.metric for m in found} == {"flip_rate_under_corruption"} | kinds
    assert {m.ideal for m in found} == {0.0}


def test_the_interval_takes_images_and_not_copies_for_independent() -> None:
    """Images that fail under everything or under nothing: 18 copies of 30 images say no more than 30 images."""
    X = pictures(30)
    X[:15, 0, 0] = 0

    def half(rows: Any) -> Any:
        return np.full(len(rows), 0.9)

    y = np.array(["bright", "dark"] * 15)
    accuracy = named(measured(half, X, y), "accuracy_under_corruption").estimate
    low, high = accuracy.bounds(0.05)
    narrow = Proportion(successes=15 * 18, n=30 * 18).bounds(0.05)
    plain = Proportion(successes=15, n=30).bounds(0.05)
    assert low <= plain[0] < narrow[0] and high >= plain[1] > narrow[1]


def test_an_ideal_model_passes_and_one_that_breaks_fails() -> None:
    X = pictures(150, side=8)
    # Far from the line between dark and bright, where light alone decides.
    X = X[np.abs(X.mean(axis=(1, 2, 3)) - 127.5) > 5]
    y = np.where(X.mean(axis=(1, 2, 3)) > 127.5, "bright", "dark")

    def particular(rows: Any) -> Any:
        return np.array([plain.get(row.tobytes(), 1.0 - (row.mean() > 127.5)) for row in rows], float)

    plain = {row.tobytes(): float(row.mean() > 127.5) for row in X}
    criterion = Criterion(
        metric="accuracy_under_corruption", direction="at_least", bound=0.6, source="t", set_by="t", set_at="t"
    )
    for predict, outcome in ((by_brightness, Outcome.PASS), (particular, Outcome.FAIL)):
        found = measured(predict, X, y)
        result = ProbeResult(probe="robustness", pillar="robustness", citation="", measurements=tuple(found))
        findings, _ = judge([result], [criterion])
        assert [f.outcome for f in findings if f.criterion is not None] == [outcome]


def test_by_group_it_is_a_mean_of_each_and_the_gap_of_means() -> None:
    X = pictures(120)
    group = np.array(["a", "b"] * 60)

    y = np.where(by_brightness(X) > 0, "bright", "dark")
    bright = by_brightness(X) > 0
    found = measured(by_brightness, X, y, sensitive_features={"g": np.where(bright, "a", group)})
    gap = named(found, "accuracy_difference_under_corruption")
    parts = {m.group["g"]: m for m in found if m.group and m.metric == "accuracy_under_corruption"}
    assert isinstance(gap.estimate, WorstValueGap) and gap.sensitive == ("g",) and set(parts) == {"a", "b"}
    assert gap.estimate.value == pytest.approx(abs(parts["a"].estimate.value - parts["b"].estimate.value))
    assert sum(m.n_samples for m in parts.values()) == 120
    whole = named(found, "accuracy_under_corruption").estimate.value
    assert whole == pytest.approx(sum(m.estimate.value * m.n_samples for m in parts.values()) / 120)


# ---- where it does not apply ---------------------------------------------------------------------------------------


def test_a_model_that_fails_on_corrupted_images_is_undefined() -> None:
    def particular(rows: Any) -> Any:
        if np.asarray(rows).std(axis=(1, 2, 3)).min() < 6:
            raise ValueError("too little contrast")
        return by_brightness(rows)

    X = pictures(10)
    undefined = measured(particular, X, ["dark"] * 10)
    assert [m.metric for m in undefined][1:] == ["accuracy_under_corruption", "flip_rate_under_corruption"]
    assert isinstance(undefined[1].estimate, Undefined) and undefined[1].estimate.failed
    assert "too little contrast" in undefined[1].estimate.reason


def test_without_pillow_it_is_not_applicable_and_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any) -> ModuleType:
        if name.startswith("PIL"):
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    (only,) = measured(by_brightness, pictures(5))
    assert isinstance(only.estimate, Undefined) and only.estimate.inapplicable
    assert "responsible-auditor[images]" in only.estimate.reason


def test_two_channels_are_no_picture() -> None:
    with pytest.raises(NotApplicableError, match="corruption needs images of one, three or four channels"):
        measured(by_brightness, np.zeros((4, 8, 8, 2), np.uint8))


def test_at_the_bound_it_fails_and_passes_falsely_no_more_often_than_allowed() -> None:
    """Images that tend to fail under all corruptions or none, 600 samples of 60, each way at 5 %; copies taken for
    independent rows would be wrong a third of the time."""
    rng = np.random.default_rng(0)
    p = rng.beta(0.4, 0.1, (600, 60))
    right = rng.binomial(18, p) / 18.0
    false, naive = np.zeros(2), np.zeros(2)
    for shares in right:
        for count, estimate in (
            (false, bounded_mean(shares, low=0.0, high=1.0)),
            (naive, Proportion(successes=round(18 * shares.sum()), n=18 * 60)),
        ):
            low, high = estimate.bounds(0.05)
            count += np.array([low > 0.8, high < 0.8])
    assert (false / 600 <= 0.05).all() and (naive / 600 > 0.15).all()
    # And the power: a mean of 0.8 is shown to be above 0.6 in four samples of five.
    assert np.mean([bounded_mean(s, low=0.0, high=1.0).bounds(0.05)[0] > 0.6 for s in right]) > 0.8
