"""What a detector is worth, against scikit-learn, against single verdicts, and by simulation at the bound."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, norm
from sklearn.metrics import average_precision_score, roc_auc_score

from auditor.core.errors import NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.judging.criterion import load_criteria
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.models.detector_card import METRIC_OF, DetectorCard, KnownRate
from auditor.report.record.summary_lines import worth_of
from auditor.run.run_audit import run_audit
from auditor.statistics.detection import ExcessShare
from auditor.statistics.rank_estimates import AreaUnderCurve, area_under_curve
from auditor.statistics.rates import Proportion
from probes.deepfake.detector_performance import DetectorPerformance
from tests.statistics.worlds import WORLDS, areas_of, misses, most_misses, normal_shift
from tests.toys import detectors as toys
from tests.toys.models import criterion


def scored(scores: Any, labels: Any, classes: tuple[str, str] = ("real", "fake"), **more: Any) -> tuple[Any, AuditData]:
    """A model that gives row i its i-th score, and pictures of one pixel to ask it about."""
    codes = np.arange(len(scores))
    X = np.stack([codes // 256, codes % 256], axis=1).astype(np.uint8).reshape(-1, 1, 2, 1)
    p = np.asarray(scores, float)

    def predict(rows: Any) -> Any:
        own = p[rows[:, 0, 0, 0].astype(int) * 256 + rows[:, 0, 1, 0]]
        return np.column_stack([1.0 - own, own])

    data = AuditData.from_arrays(X, labels, classes=classes, **more)
    return AuditedModel.from_callable(predict, classes=classes), data


def measure(model: AuditedModel, data: AuditData, **options: Any) -> list[Measurement]:
    return DetectorPerformance(**options).measure(model, data, np.random.default_rng(0))


def one(found: list[Measurement], metric: str, **where: Any) -> Measurement:
    own = [m for m in found if m.metric == metric and {**m.group, **m.at} == where]
    assert len(own) == 1, (metric, where, [(m.group, m.at) for m in found if m.metric == metric])
    return own[0]


def world(n: int = 300, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    fake = rng.random(n) < 0.4
    return np.clip(norm.cdf(rng.standard_normal(n) + 1.2 * fake - 0.6), 0, 1), fake


def test_overall_figures_agree_with_scikit_learn() -> None:
    scores, fake = world()
    model, data = scored(scores, np.where(fake, "fake", "real").tolist())
    found = measure(model, data)
    assert one(found, "auc").estimate.value == pytest.approx(roc_auc_score(fake, scores))
    assert one(found, "average_precision").estimate.value == pytest.approx(average_precision_score(fake, scores))
    above = np.sort(scores[~fake])[::-1][int(0.01 * (~fake).sum())]
    rate = one(found, "tpr_at_fpr", false_positive_rate=0.01)
    assert rate.estimate.value == pytest.approx((scores[fake] > above).mean())
    bins = np.minimum((scores * 10).astype(int), 9)
    slow = sum(abs(fake[bins == b].sum() - scores[bins == b].sum()) for b in range(10)) / len(scores)
    assert one(found, "expected_calibration_error").estimate.value == pytest.approx(slow)


def test_the_synthetic_class_may_come_first() -> None:
    scores, fake = world()
    first = scored(1.0 - scores, np.where(fake, "ai", "real").tolist(), ("ai", "real"))
    assert one(measure(*first), "auc").estimate.value == pytest.approx(roc_auc_score(fake, scores))


def test_each_generator_is_held_against_all_real_files() -> None:
    scores, fake = world()
    rng = np.random.default_rng(1)
    generator = np.where(fake, rng.choice(["gan", "diffusion"], fake.size), "camera")
    groups = pd.DataFrame({"generator": generator, "age": rng.choice(["old", "young"], fake.size)})
    model, data = scored(scores, np.where(fake, "fake", "real").tolist(), sensitive_features=groups)
    found = measure(model, data)
    each = []
    for name in ("gan", "diffusion"):
        rows = ~fake | (generator == name)
        each.append(roc_auc_score(fake[rows], scores[rows]))
        assert one(found, "auc", generator=name).estimate.value == pytest.approx(each[-1])
    lowest = one(found, "lowest_generator_auc")
    assert lowest.estimate.value == pytest.approx(min(each))
    assert not [m for m in found if m.group == {"generator": "camera"}]
    by_age = [roc_auc_score(fake[g], scores[g]) for g in (groups.age == a for a in ("old", "young"))]
    gap = next(m for m in found if m.metric == "auc_difference")
    assert gap.sensitive == ("age",) and gap.estimate.value == pytest.approx(abs(by_age[0] - by_age[1]))


def test_another_column_may_name_the_generators_and_an_absent_one_is_said() -> None:
    scores, fake = world(60)
    labels = np.where(fake, "fake", "real").tolist()
    model, data = scored(scores, labels, sensitive_features={"engine": np.where(fake, "espeak", "-").tolist()})
    assert [m for m in measure(model, data, generator="engine") if m.group == {"engine": "espeak"}]
    with pytest.raises(NotApplicableError, match="--sensitive generator"):
        measure(model, data, generator="generator")


def test_other_models_and_data_are_not_asked() -> None:
    table = AuditData.from_arrays(pd.DataFrame({"x": [1.0, 2.0]}), ["real", "fake"], classes=("real", "fake"))
    model = AuditedModel.from_callable(lambda X: np.full(len(X), 0.5), classes=("real", "fake"))
    with pytest.raises(NotApplicableError, match="these rows are a table"):
        measure(model, table)
    with pytest.raises(NotApplicableError, match="such as real and fake"):
        measure(*scored([0.1, 0.9], ["cat", "dog"], ("cat", "dog")))


def test_answers_are_those_of_the_verdicts() -> None:
    detector = toys.detector(toys.of_brightness(), error_rate=0.1)
    data = toys.pictures(200, 3)
    found = measure(detector, data)
    verdicts = detector.verdicts(data.X)
    assert data.y_true is not None
    for label, name in enumerate(("real", "fake")):
        own = [v for v, y in zip(verdicts, data.y_true, strict=True) if y == label]
        for answer, metric in METRIC_OF.items():
            share = sum(v.answer == answer for v in own) / len(own)
            m = one(found, metric, **{"class": name})
            assert m.estimate.value == pytest.approx(share)
        said = [v for v in own if v.answer != "cannot say"]
        error = one(found, "error_among_answered", **{"class": name})
        assert error.estimate.value == pytest.approx(
            sum(v.answer != {"real": "no known trace", "fake": "fake"}[name] for v in said) / len(said)
        )
        ruled_out = sum((v.p_real if name == "real" else v.p_fake) <= 0.1 for v in own) / len(own)
        excess = one(found, "wrongly_ruled_out_excess", **{"class": name})
        assert excess.estimate.value == pytest.approx(ruled_out - 0.1)
    kinds = {v.answer for v in verdicts}
    assert kinds == {"no known trace", "fake", "cannot say"}


def test_how_many_files_are_answered_is_said() -> None:
    detector = toys.detector(toys.of_brightness(), error_rate=0.1)
    data = toys.pictures(200, 3)
    answered = [v.answer != "cannot say" for v in detector.verdicts(data.X)]
    assert one(measure(detector, data), "coverage").estimate.value == pytest.approx(np.mean(answered))
    assert 0 < sum(answered) < len(answered)


LOW, HIGH = tuple(np.linspace(0.0, 0.4, 120).tolist()), tuple(np.linspace(0.6, 1.0, 120).tolist())


def judged(found: list[Measurement], criteria: list[Any]) -> list[Any]:
    result = ProbeResult(probe="detector_performance", pillar="deepfake", citation="", measurements=tuple(found))
    return judge([result], criteria)[0]


@pytest.mark.parametrize(
    ("changes", "silent", "coverage"),
    [
        ({"real_scores": LOW[:-12] + (1.0,) * 12}, {"real"}, "half"),
        ({"fake_scores": (0.0,) * 12 + HIGH[12:]}, {"fake"}, "half"),
        ({"real_scores": LOW[:-12] + (1.0,) * 12, "fake_scores": (0.0,) * 12 + HIGH[12:]}, {"real", "fake"}, "none"),
        ({"channel": None}, {"real", "fake"}, "none"),
        ({}, set(), "all"),
    ],
)
def test_a_promise_that_silence_keeps_is_no_pass(changes: dict[str, Any], silent: set[str], coverage: str) -> None:
    found = measure(toys.detector(toys.of_halves(), **changes), toys.pictures(600))
    bound = criterion("wrongly_ruled_out_excess", "at_most", 0.05)
    for name in ("real", "fake"):
        excess = one(found, "wrongly_ruled_out_excess", **{"class": name})
        (finding,) = judged([excess], [bound])
        assert finding.outcome is (Outcome.INCONCLUSIVE if name in silent else Outcome.PASS), (name, finding.reason)
        if name in silent:
            assert re.search("no score rules out|not calibrated|Nothing shows", finding.reason)
            # Nor is it better in a comparison than a detector that answers and errs.
            assert np.isnan(excess.estimate.value)
    covered = one(found, "coverage")
    low, high = {"none": (0.0, 0.0), "half": (0.4, 0.6), "all": (0.9, 1.0)}[coverage]
    assert low <= covered.estimate.value <= high
    assert ("can never rule out real, so it never answers fake" in covered.detail) == ("real_scores" in changes)


def test_what_the_maker_declared_is_said_to_be_that_and_judged_by_nobody() -> None:
    rates = (
        KnownRate(metric="auc", value=0.99, low=0.97, high=1.0, kind="gan", n_real=50, n_fake=10),
        KnownRate(metric="auc", value=0.8, low=0.6, high=0.9, kind="gan", unseen=True, n_real=50, n_fake=10),
    )
    detector = toys.detector(toys.of_halves(), known_rates=rates)
    probe = DetectorPerformance()
    found = [m for m in measure(detector, toys.pictures(40)) if m.method == "declared"]
    assert [m.at for m in found] == [{"generator": "gan", "unseen": u} for u in ("yes", "no")]
    assert found[0].detail == "[0.6, 0.9] at 95% confidence, 10 synthetic and 50 real files"
    result = ProbeResult(probe=probe.name, pillar="deepfake", citation="", measurements=tuple(found))
    assert {f.outcome for f in judge([result], load_criteria())[0]} == {Outcome.NOT_JUDGED}
    assert {f.outcome for f in judge([result], [criterion("declared_auc", "at_least", 0.5)])[0]} == {
        Outcome.INCONCLUSIVE
    }


def test_bad_options_are_said() -> None:
    with pytest.raises(ValueError, match="false_positive_rate"):
        DetectorPerformance(false_positive_rate=1.0)
    with pytest.raises(ValueError, match="bins"):
        DetectorPerformance(bins=1)


# ---- error rates and power -----------------------------------------------------------------------------------------


def drawn(auc: float, n: int, seed: int) -> list[AreaUnderCurve]:
    """The area of a detector of this true one in every world, of ``n`` files of either class."""
    rng = np.random.default_rng(seed)
    positives, negatives = rng.normal(normal_shift(auc), 1.0, (WORLDS, n)), rng.normal(0.0, 1.0, (WORLDS, n))
    found = areas_of(positives, negatives)
    own = area_under_curve(positives=positives[0], negatives=negatives[0])
    assert found[0].model_dump() == pytest.approx(own.model_dump(), abs=1e-12)
    return found


def outcome_of(estimate: AreaUnderCurve) -> Outcome:
    m = Measurement(metric="auc", method="measured", estimate=estimate, n_samples=100, ideal=1.0)
    result = ProbeResult(probe="detector_performance", pillar="deepfake", citation="", measurements=(m,))
    return judge([result], [criterion("auc", "at_least", 0.75)])[0][0].outcome


@pytest.mark.parametrize("n", [15, 60, 300])
def test_auc_at_the_bound_is_judged_wrongly_in_at_most_five_per_cent_of_worlds(n: int) -> None:
    """A FAIL is an upper bound below it and a PASS a lower one above, as the judge says of some of them."""
    found = drawn(0.75, n, n)
    assert max(misses(found, 0.75)) <= most_misses()
    by_value = sorted(found, key=lambda estimate: estimate.value)
    for estimate in (*by_value[:3], *by_value[-3:], *found[:5]):
        low, high = estimate.bounds(0.05)
        expected = Outcome.FAIL if high < 0.75 else Outcome.PASS if low >= 0.75 else Outcome.INCONCLUSIVE
        assert outcome_of(estimate) is expected
    assert outcome_of(by_value[0]) is Outcome.FAIL
    # Of 15 files of either class hardly any sample shows that much.
    if n != 15:
        assert outcome_of(by_value[-1]) is Outcome.PASS


def test_declared_power_is_there() -> None:
    n, auc = DetectorPerformance.power
    found = sum(estimate.bounds(0.05)[1] < 0.75 for estimate in drawn(auc, n, 1))
    assert found >= 0.8 * WORLDS - 3 * (WORLDS * 0.16) ** 0.5


@pytest.mark.parametrize(("n", "promised"), [(40, 0.05), (200, 0.05), (200, 0.1)])
def test_a_broken_promise_at_the_bound_is_judged_wrongly_in_at_most_five_per_cent_of_worlds(
    n: int, promised: float
) -> None:
    """Enumerated: every count weighed by how probable it is where the true excess is 5 %."""
    wrong = {"FAIL": 0.0, "PASS": 0.0}
    for k in range(n + 1):
        low, high = ExcessShare(successes=k, n=n, promised=promised).bounds(0.05)
        probability = float(binom.pmf(k, n, promised + 0.05))
        wrong["FAIL"] += probability * (low > 0.05)
        wrong["PASS"] += probability * (high <= 0.05)
    assert 0.0 < min(wrong.values()) and max(wrong.values()) <= 0.05


def test_an_excess_is_a_share_that_was_moved() -> None:
    share, excess = Proportion(successes=7, n=60), ExcessShare(successes=7, n=60, promised=0.05)
    assert excess.bounds(0.01) == tuple(b - 0.05 for b in share.bounds(0.01))
    assert excess.detectable(bound=0.05, alpha=0.05, ideal=0.0, sign=1) == pytest.approx(
        share.detectable(bound=0.1, alpha=0.05, ideal=0.05, sign=1) - 0.05
    )
    with pytest.raises(ValueError, match="7 successes of 6"):
        ExcessShare(successes=7, n=6, promised=0.0)


def test_a_card_calibrated_elsewhere_breaks_its_promise_and_is_found_out() -> None:
    """Real files brighter than those of the calibration are ruled out too often."""
    detector = toys.detector(toys.of_brightness())
    data = toys.pictures(1_200, 5)
    assert data.y_true is not None
    X = np.where((data.y_true == 0)[:, None, None, None], np.clip(np.asarray(data.X).astype(int) + 40, 0, 255), data.X)
    moved = AuditData(X=X.astype(np.uint8), y_true=data.y_true, classes=data.classes)
    for rows, outcome in ((data, Outcome.PASS), (moved, Outcome.FAIL)):
        own = one(measure(detector, rows), "wrongly_ruled_out_excess", **{"class": "real"})
        result = ProbeResult(probe="detector_performance", pillar="deepfake", citation="", measurements=(own,))
        bound = criterion("wrongly_ruled_out_excess", "at_most", 0.05)
        assert judge([result], [bound])[0][0].outcome is outcome


def test_the_card_of_a_detector_names_no_more_rates_than_are_shown() -> None:
    rates = tuple(KnownRate(metric="auc", value=0.9, kind=f"g{i}", n_real=1, n_fake=1) for i in range(300))
    card = DetectorCard(medium="image", fake=1, real_scores=(0.1,), fake_scores=(0.9,), known_rates=rates)
    detector = toys.detector(toys.of_halves(), known_rates=card.known_rates)
    assert len([m for m in measure(detector, toys.pictures(10)) if m.method == "declared"]) == 200


@pytest.mark.parametrize(("shift", "said"), [(2.0, "It shows skill (auc 0."), (0.0, "It shows no skill (auc 0.")])
def test_an_audit_of_a_detector_alone_says_whether_it_has_skill(shift: float, said: str) -> None:
    rng = np.random.default_rng(4)
    fake = np.arange(300) % 2 == 1
    scores = norm.cdf(rng.standard_normal(300) + shift * fake - 1.0)
    model, data = scored(scores, np.where(fake, "fake", "real").tolist())
    found = worth_of(run_audit(model, data, [DetectorPerformance()]))
    assert found is not None and said in found.sentence and "chance is 0.5" in found.sentence
    assert found.outcome is (Outcome.PASS if shift else Outcome.FAIL)
