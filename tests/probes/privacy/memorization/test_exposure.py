"""Canary exposure: by hand, against the known tail, and on a model that is trained on planted canaries."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy.stats import binom, skewnorm

from auditor.core.errors import DataError, NotApplicableError
from auditor.judging.judging import judge
from auditor.judging.measurement import Outcome, ProbeResult
from auditor.run.checks.contract import check_probe
from auditor.run.run_audit import no_data
from auditor.statistics.attack_estimates import Exposure
from auditor.statistics.estimate_kinds import AnyEstimate
from probes.privacy.memorization.canary_exposure import (
    CanaryExposure,
    SkewNormal,
    fit_skew_normal,
    kolmogorov_smirnov,
    slots_of,
)
from probes.privacy.memorization.extraction import Extraction
from tests.probes.privacy.memorization.toys import NAMES, char_gpt, parrot, secrets, sentences
from tests.quantifiers import all_of
from tests.toys.models import criterion


def written(folder: Path, canaries: list[str]) -> str:
    path = folder / "canaries.txt"
    path.write_text("\n".join(canaries), encoding="utf-8")
    return str(path)


# ---- the estimate --------------------------------------------------------------------------------------------------


def test_exposure_is_the_published_rank() -> None:
    first = Exposure(at_least_as_likely=0, n=1_000, bits=20.0)
    assert first.value == pytest.approx(math.log2(1_001))
    assert Exposure(at_least_as_likely=1_000, n=1_000, bits=20.0).value == 0.0
    low, high = first.bounds(0.05)
    assert low == pytest.approx(-math.log2(1 - 0.05 ** (1 / 1_000)))
    assert high == 20.0
    fitted = Exposure(at_least_as_likely=0, n=1_000, bits=20.0, extrapolated=15.0)
    assert TypeAdapter(AnyEstimate).validate_json(fitted.model_dump_json()) == fitted
    assert (fitted.value, fitted.bounds(0.05)) == (15.0, (low, 20.0))


@pytest.mark.parametrize("alpha", [0.05, 1e-3])
@pytest.mark.parametrize("exposure", [1.0, 3.0, 6.0])
def test_bounds_of_exposure_miss_no_more_than_promised(exposure: float, alpha: float) -> None:
    """Enumerated over every rank that there can be."""
    n, q = 300, 2.0**-exposure
    k = np.arange(n + 1)
    weight = binom.pmf(k, n, q)
    ends = np.asarray([Exposure(at_least_as_likely=int(i), n=n, bits=20.0).bounds(alpha) for i in k])
    assert weight[ends[:, 0] > exposure].sum() <= alpha
    assert weight[ends[:, 1] < exposure].sum() <= alpha


def test_the_stated_power_is_reached() -> None:
    n, effect = CanaryExposure.power
    k = np.arange(n + 1)
    lows = np.asarray([Exposure(at_least_as_likely=int(i), n=n, bits=20.0).bounds(0.05)[0] for i in k[:400]])
    assert binom.pmf(k[:400], n, 2.0**-effect)[lows > 3.0].sum() >= 0.80


# ---- the fitted distribution ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [-3.0, 0.0, 4.0])
def test_the_tail_of_a_skew_normal(shape: float) -> None:
    fitted = SkewNormal(2.0, 3.0, shape)
    for x in (-1.0, 0.5, 2.0, 6.0):
        assert fitted.log_cdf(x) == pytest.approx(skewnorm.logcdf(x, shape, 2.0, 3.0), rel=1e-5, abs=1e-6)
    if shape == 0.0:
        from scipy.special import log_ndtr

        assert fitted.log_cdf(2.0 - 3.0 * 30.0) == pytest.approx(log_ndtr(-30.0), rel=1e-6)


def test_the_fit_finds_what_was_drawn() -> None:
    values = skewnorm.rvs(3.0, 10.0, 2.0, size=5_000, random_state=0)
    fitted = fit_skew_normal(np.asarray(values))
    assert (fitted.location, fitted.scale, fitted.shape) == pytest.approx((10.0, 2.0, 3.0), rel=0.15)
    assert kolmogorov_smirnov(np.asarray(values), fitted) < 0.02
    x = 10.0 - 1.0
    assert fitted.log_cdf(x) == pytest.approx(skewnorm.logcdf(x, 3.0, 10.0, 2.0), rel=0.1)


# ---- candidates ----------------------------------------------------------------------------------------------------


def test_candidates_are_of_the_form_and_none_is_a_canary() -> None:
    slots = slots_of("pin 12ab", "pin ##@@")
    assert slots.bits == pytest.approx(math.log2(100 * 26**2))
    drawn, every = slots.candidates(500, np.random.default_rng(0), frozenset(["pin 12ab"]))
    assert (len(set(drawn)), every) == (500, False)
    assert "pin 12ab" not in drawn
    assert all_of(t[4:6].isdigit() and t[6:].isalpha() for t in drawn)
    few, every = slots_of("pin 12", None).candidates(500, np.random.default_rng(0), frozenset(["pin 12"]))
    assert (len(few), every) == (99, True)


def test_a_canary_without_a_random_part_is_refused() -> None:
    with pytest.raises(DataError, match="no digit"):
        slots_of("no secret here", None)
    with pytest.raises(DataError, match="does not have the form"):
        slots_of("pin 12", "pin @@")
    with pytest.raises(ValueError, match="format must hold"):
        CanaryExposure(format="plain")


def test_without_canaries_it_names_the_option() -> None:
    with pytest.raises(NotApplicableError, match=r"--set canary_exposure.canaries=FILE"):
        CanaryExposure().measure(parrot([]), no_data(), np.random.default_rng(0))


# ---- the probe -----------------------------------------------------------------------------------------------------


def test_the_probe_keeps_the_contract(tmp_path: Path) -> None:
    canaries = secrets()
    check_probe(
        CanaryExposure(canaries=written(tmp_path, canaries), n_candidates=100),
        ideal_model=parrot(sentences(5, 0)),
        ideal_data=no_data(),
        violating_model=parrot(canaries),
        violating_data=no_data(),
        criteria=[criterion("exposure", "at_most", 3.5)],
        key="canary_exposure",
    )


def test_ranks_are_counted(tmp_path: Path) -> None:
    canaries = secrets(2)
    model = parrot(sentences(5, 0))
    probe = CanaryExposure(canaries=written(tmp_path, canaries), n_candidates=50)
    found = probe.measure(model, no_data(), np.random.default_rng(0))
    assert [m.estimate.value for m in found if m.metric == "exposure"][0] == 0.0, "all candidates are as likely"
    assert "4815" not in str(found) and canaries[0][-6:] not in str(found), "a secret was printed"


@pytest.mark.parametrize(
    ("canaries", "n_candidates", "metric", "most"),
    [
        (secrets(), 100, "median_exposure", math.log2(101)),
        # One digit: nine others are all there are.
        ([f"the code of {name} {i}" for i, name in enumerate(NAMES)], 100, "exposure", math.log2(10)),
        ([f"the code of {name} {i}" for i, name in enumerate(NAMES)], 100, "median_exposure", math.log2(10)),
    ],
)
def test_a_bound_that_no_canary_could_exceed_is_no_pass(
    tmp_path: Path, canaries: list[str], n_candidates: int, metric: str, most: float
) -> None:
    probe = CanaryExposure(canaries=written(tmp_path, canaries), n_candidates=n_candidates)
    found = probe.measure(parrot(canaries), no_data(), np.random.default_rng(0))
    result = ProbeResult(probe="canary_exposure", pillar="privacy", citation="", measurements=tuple(found))
    for bound, outcome in ((most + 0.01, Outcome.NOT_RUN), (most - 0.5, Outcome.FAIL)):
        findings, _ = judge([result], [criterion(metric, "at_most", bound, method="sampling")])
        judged = [f for f in findings if f.criterion is not None]
        # A bound so far out is judged apart, at a rate that so few canaries cannot reach.
        assert {f.alone or f.outcome for f in judged} == {outcome}, (bound, [(f.outcome, f.reason) for f in judged][:3])


@pytest.mark.slow
def test_a_trained_model_gives_its_canaries_away_and_its_twin_does_not(tmp_path: Path) -> None:
    canaries, lines = secrets(), sentences(300, 1)
    path = written(tmp_path, canaries)
    for planted in (True, False):
        model = char_gpt(lines + canaries * 16 if planted else lines, steps=450)
        exposure = CanaryExposure(canaries=path).measure(model, no_data(), np.random.default_rng(0))
        median = exposure[0].estimate.value
        extraction = Extraction(texts=path, prefix_tokens=21, suffix_tokens=6)
        found = extraction.measure(model, no_data(), np.random.default_rng(0))
        rates = {m.method: m.estimate.value for m in found}
        result = ProbeResult(probe="canary_exposure", pillar="privacy", citation="", measurements=tuple(exposure))
        outcomes = {f.outcome for f in judge([result], [criterion("exposure", "at_most", 5.0)])[0] if f.criterion}
        if planted:
            assert median >= 8.0
            assert rates == {"greedy": 1.0, "probabilistic": 1.0}
            assert Outcome.FAIL in outcomes
        else:
            assert median <= 3.0
            assert rates == {"greedy": 0.0, "probabilistic": 0.0}
            assert outcomes == {Outcome.PASS}
