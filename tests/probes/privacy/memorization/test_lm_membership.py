"""The attacks on language models and the baseline that never sees the model."""

from __future__ import annotations

import math

import numpy as np
import pytest

from auditor.core.errors import UsageError
from auditor.core.rows import FloatArray
from auditor.data.audit_data import AuditData
from auditor.judging.criterion import load_criteria
from auditor.judging.judgement import Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import Outcome, ProbeResult
from auditor.run.run_audit import ask
from auditor.statistics.detection import AreaDifference, area_difference
from auditor.statistics.rank_estimates import area_under_curve, true_positive_rate_at
from probes.privacy.memorization.lm_membership import LMMembership, _attack, _Blind
from probes.privacy.memorization.text_membership_scores import blind_scores
from tests.probes.privacy.memorization.toys import parrot, sentences
from tests.quantifiers import all_of
from tests.statistics.worlds import most_misses
from tests.toys.models import criterion, text_model


def pool(members: list[str], others: list[str]) -> AuditData:
    return AuditData(
        X=np.asarray([*members, *others], object), is_member=np.arange(len(members) + len(others)) < len(members)
    )


def judged(probe: LMMembership, model: object, data: AuditData) -> dict[str, Judgement]:
    found = probe.measure(model, data, np.random.default_rng(0))  # type: ignore[arg-type]
    result = ProbeResult(probe="lm_membership", pillar="privacy", citation="", measurements=tuple(found))
    findings, _ = judge([result], [criterion("attack_auc", "at_most", 0.60)])
    return {f.measurement.method: f for f in findings if f.measurement and f.measurement.metric == "attack_auc"}


def dated(texts: list[str], years: tuple[int, int], seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"{t} in {rng.integers(*years)}" for t in texts]


def test_a_split_by_date_is_inconclusive() -> None:
    """A model that was trained on neither file, and finds years before 2020 likelier."""
    members = dated(sentences(200, 0), (2010, 2020), 0)
    others = dated(sentences(200, 1), (2023, 2026), 1)
    model = parrot([f"{t} in 201{i % 10}" for i, t in enumerate(sentences(300, 2))], 4.0)
    findings = judged(LMMembership(), model, pool(members, others))
    assert findings["loss"].measurement is not None
    assert findings["loss"].measurement.estimate.value > 0.55
    assert {f.outcome for f in findings.values()} == {Outcome.INCONCLUSIVE}
    assert all_of("The split itself leaks" in f.reason for f in findings.values())


def test_a_model_that_remembers_fails_where_the_split_is_fair() -> None:
    members, others = sentences(200, 0), sentences(200, 1)
    findings = judged(LMMembership(), parrot(members), pool(members, others))
    assert findings["loss"].outcome is Outcome.FAIL
    assert findings["zlib"].outcome is Outcome.FAIL


def test_an_attack_that_beats_a_leaking_split_is_judged() -> None:
    members = [f"{t} x" if i % 3 == 0 else t for i, t in enumerate(sentences(200, 0))]
    findings = judged(LMMembership(), parrot(members), pool(members, sentences(200, 1)))
    assert findings["loss"].outcome is Outcome.FAIL


def test_few_texts_are_not_judged() -> None:
    members, others = sentences(30, 0), sentences(30, 1)
    findings = judged(LMMembership(), parrot(members), pool(members, others))
    assert findings["loss"].outcome is Outcome.INCONCLUSIVE
    assert "at least 40 members" in findings["loss"].reason


def test_texts_of_both_files_are_counted_and_left_out() -> None:
    members, others = sentences(60, 0), sentences(60, 1)
    found = LMMembership().measure(parrot([]), pool(members, others + members[:7]), np.random.default_rng(0))
    assert "53 members and 60 non-members; 14 copies of texts that stand more than once took no part" in found[0].detail


def test_a_training_file_of_another_model_is_remarked_on() -> None:
    members, others = sentences(100, 0), sentences(100, 1)
    found = LMMembership().measure(parrot(others), pool(members, others), np.random.default_rng(0))
    assert "is --train the file it was trained on" in found[0].detail
    assert all_of("is --train the file" in m.too_few for m in found if m.metric in ("attack_auc", "auc_beyond_blind"))
    found = LMMembership().measure(parrot(members), pool(members, others), np.random.default_rng(0))
    assert "is --train" not in found[0].detail


def test_a_reference_must_be_a_language_model() -> None:
    data = pool(sentences(50, 0), sentences(50, 1))
    with pytest.raises(UsageError, match="no language model"):
        LMMembership(reference=text_model(lambda text: 0.5)).measure(parrot([]), data, np.random.default_rng(0))


def test_without_training_texts_it_names_the_flag() -> None:
    data = AuditData(X=np.asarray(sentences(5, 0), object))
    result = ask(LMMembership(), parrot([]), data, np.random.default_rng(0))
    assert "add --train FILE" in result.not_applicable


def judgeable(
    rng: np.random.Generator, told: tuple[FloatArray, FloatArray], attacks: int, noise: float, metric: str
) -> int:
    """How many attacks may be judged that see of the texts what the baseline sees, each with a noise of its own."""

    def seen() -> tuple[FloatArray, FloatArray]:
        return told[0] + noise * rng.normal(size=told[0].size), told[1] + noise * rng.normal(size=told[1].size)

    blind = seen()
    auc = area_under_curve(positives=blind[0], negatives=blind[1])
    found = _Blind(blind, auc.value, leaks=auc.bounds(0.05)[0] > 0.5)
    measured = [_attack("loss", *seen(), found, attacks, "", "", None) for _ in range(attacks)]
    return sum(
        m.metric == metric and m.at.get("false_positive_rate", 0.01) == 0.01 and not m.too_few
        for own in measured
        for m in own
    )


def test_attacks_that_know_what_the_baseline_knows_are_seldom_judged_of_a_split_that_leaks() -> None:
    """Five attacks together, as each would be a chance to accuse a model that was trained on neither file."""
    rng = np.random.default_rng(0)
    worlds = 200
    told = [(rng.normal(2.0, 1.0, 400), rng.normal(0.0, 1.0, 400)) for _ in range(worlds)]
    alarms = sum(judgeable(rng, own, 5, 2.0, "attack_auc") > 0 for own in told)
    assert alarms <= most_misses(worlds=worlds)


def test_what_a_few_texts_give_away_without_the_model_is_not_laid_at_its_door() -> None:
    """One member in fifteen bears a mark that the areas do not show, and any model likes or dislikes."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        told = rng.normal(-0.12, 1.0, 1_500) + np.where(rng.random(1_500) < 0.07, 9.0, 0.0), rng.normal(size=1_500)
        rate = true_positive_rate_at(positives=told[0], negatives=told[1], false_positive_rate=0.01)
        assert rate.bounds(0.01)[0] > 0.03, "the model would be accused"
        assert judgeable(rng, told, 1, 0.3, "true_positive_rate_at_fpr") == 0


def test_a_few_that_the_model_alone_gives_away_are_judged() -> None:
    rng = np.random.default_rng(2)
    members, others = rng.normal(size=1_500), rng.normal(size=1_500)
    blind = _Blind((members, others), 0.5, leaks=False)
    known = members + np.where(rng.random(1_500) < 0.2, 9.0, 0.0)
    found = [m for m in _attack("loss", known, rng.normal(size=1_500), blind, 1, "", "", None) if m.at]
    result = ProbeResult(probe="lm_membership", pillar="privacy", citation="", measurements=tuple(found))
    first = judge([result], load_criteria())[0][0]
    assert (first.metric, first.outcome) == ("true_positive_rate_at_fpr", Outcome.FAIL)


def test_where_no_other_model_was_asked_finding_nothing_is_no_pass() -> None:
    members, others = sentences(300, 0), sentences(300, 1)
    model, data = parrot(sentences(100, 2)), pool(members, others)
    for reference, outcome in ((None, Outcome.INCONCLUSIVE), (parrot(sentences(100, 3)), Outcome.PASS)):
        findings = judged(LMMembership(reference=reference), model, data)
        assert {f.outcome for f in findings.values()} == {outcome}
        assert all_of(
            ("only attacks that know no other model" in f.reason) == (reference is None) for f in findings.values()
        )
        if reference is None:
            assert "Not tried: reference" in findings["loss"].reason


# ---- the baseline --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_baseline_seldom_sees_a_difference_that_is_not_there() -> None:
    """A false alarm makes a finding INCONCLUSIVE that could be judged: 5 % of fair splits, and room for chance."""
    rng = np.random.default_rng(0)
    alarms = 0
    for seed in range(60):
        texts = sentences(120, 100 + seed)
        x, y = blind_scores(texts[:60], texts[60:], rng)
        alarms += area_under_curve(positives=x, negatives=y).bounds(0.05)[0] > 0.5
    assert alarms <= most_misses(worlds=60)


def test_the_difference_of_two_aucs_is_delongs() -> None:
    """Against the variance of the difference by the jackknife over rows."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(0.8, 1, (2, 80)), rng.normal(0, 1, (2, 70))
    x[1], y[1] = 0.7 * x[0] + 0.3 * x[1], 0.7 * y[0] + 0.3 * y[1]

    def auc(a: FloatArray, b: FloatArray) -> float:
        return float(np.mean(a[:, None] > b[None, :]))

    scores = [np.r_[x[k], y[k]] for k in range(2)]
    found = area_difference(first=scores[0], second=scores[1], positive=np.arange(150) < 80)
    assert isinstance(found, AreaDifference)
    error = math.hypot(found.positives.standard_error, found.negatives.standard_error)
    assert found.value == pytest.approx(auc(x[0], y[0]) - auc(x[1], y[1]))
    left = [auc(np.delete(x[0], i), y[0]) - auc(np.delete(x[1], i), y[1]) for i in range(80)]
    right = [auc(x[0], np.delete(y[0], j)) - auc(x[1], np.delete(y[1], j)) for j in range(70)]
    jackknife = 79 / 80 * np.var(left) * 80 + 69 / 70 * np.var(right) * 70
    assert error == pytest.approx(math.sqrt(jackknife), rel=0.02)
