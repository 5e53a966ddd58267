"""The loss-threshold attack: its arithmetic, its error rates and power, and what it says about its rows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from scipy.special import ndtr
from scipy.stats import binom, norm
from sklearn.metrics import log_loss, roc_auc_score, roc_curve
from sklearn.tree import DecisionTreeClassifier

from auditor.core.errors import NotApplicableError, UsageError
from auditor.data.audit_data import AuditData
from auditor.judging.budgets import Family
from auditor.judging.criterion import Criterion
from auditor.judging.judgement import Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.loading.job_specs import DataSpec
from auditor.loading.rows.load_rows import load_data
from auditor.models.audited_model import AuditedModel
from auditor.statistics.estimate import Undefined
from auditor.statistics.rank_estimates import AreaUnderCurve, area_under_curve
from probes.privacy.membership.attack_metrics import Attack, _balanced_accuracy, roc_points
from probes.privacy.membership.attack_scores import cross_entropy
from probes.privacy.membership.membership_inference import MembershipInference
from probes.privacy.membership.shadow_models import REMARK_LEVEL, Pool, _remarks, _right, pool_of
from tests.quantifiers import all_of
from tests.statistics.worlds import WORLDS, areas_of, misses, most_misses

Floats = npt.NDArray[np.float64]
BOUND = 0.55


def given_probabilities(n_classes: int = 2) -> AuditedModel:
    """A model whose probability of each class is a column of the row."""
    names = [f"p{i}" for i in range(n_classes)]
    return AuditedModel.from_callable(lambda X: X[names].to_numpy(), classes=range(n_classes))


def rows_of(members: Floats, others: Floats, y: npt.NDArray[np.int64] | None = None) -> AuditData:
    """Rows whose probability of the true label is given; the column ``row`` keeps any two rows apart."""
    own = np.r_[members, others]
    labels = np.random.default_rng(0).integers(0, 2, own.size) if y is None else y
    X = pd.DataFrame({"p0": np.where(labels == 0, own, 1 - own), "p1": np.where(labels == 1, own, 1 - own)})
    return AuditData.from_arrays(
        X.assign(row=np.arange(own.size)),
        labels,
        classes=[0, 1],
        is_member=np.r_[np.ones(members.size, bool), np.zeros(others.size, bool)],
    )


def measured(data: AuditData, model: AuditedModel | None = None) -> dict[str, Measurement]:
    """The measurements by metric, and by rate where they have one."""
    probe = MembershipInference(methods="loss_threshold")
    found = probe.measure(model or given_probabilities(), data, np.random.default_rng(0))
    of_it = [m for m in found if m.method == "loss_threshold"]
    return {"@".join([m.metric, *(f"{rate}" for rate in m.at.values())]): m for m in of_it}


def findings(data: AuditData, *, m: int = 1, model: AuditedModel | None = None) -> list[Judgement]:
    """The judgement of the attack's own ``attack_auc``, at most 0.55, as one of m judgements of a scan."""
    result = ProbeResult(
        probe="membership_inference",
        pillar="privacy",
        citation="",
        measurements=tuple(measured(data, model).values()),
    )
    criterion = Criterion(
        metric="attack_auc", method="loss_threshold", direction="at_most", bound=BOUND, source="test", set_by="test",
        set_at="2026-01-01",
    )  # fmt: skip
    return judge([result], [criterion], Family(error_rate=0.05 / m))[0]


def outcome(data: AuditData, *, m: int = 1, model: AuditedModel | None = None) -> Outcome:
    """How ``attack_auc`` is judged."""
    return next(f.outcome for f in findings(data, m=m, model=model) if f.criterion is not None)


# ---- the arithmetic ------------------------------------------------------------------------------------------------


def test_losses_are_the_cross_entropy_of_the_true_label() -> None:
    rng = np.random.default_rng(1)
    p, y = rng.dirichlet(np.ones(4), 200), rng.integers(0, 4, 200)
    loss = cross_entropy(p, y)
    assert loss.mean() == pytest.approx(log_loss(y, p, labels=range(4)), rel=1e-12)
    torch_loss = torch.nn.functional.cross_entropy(
        torch.log(torch.from_numpy(p)), torch.from_numpy(y), reduction="none"
    )
    np.testing.assert_allclose(loss, torch_loss.numpy(), rtol=1e-12)


def test_losses_tell_rows_apart_where_the_probability_is_rounded_to_one() -> None:
    others = np.asarray([1e-3, 1e-8, 1e-20, 1e-200, 0.0])
    loss = cross_entropy(np.column_stack([others, 1.0 - others]), np.ones(5, np.int64))
    assert (np.diff(loss) < 0).all()
    np.testing.assert_allclose(loss[:4], others[:4], rtol=1e-3)
    assert cross_entropy(np.asarray([[1.0, 0.0]]), np.asarray([1]))[0] == pytest.approx(744.4, abs=0.1)


def test_equal_probabilities_of_three_classes_are_ties() -> None:
    p = np.asarray([[0.7, 0.2, 0.1], [0.7, 0.3, 0.0], [0.7, 0.1, 0.2]])
    assert np.unique(cross_entropy(p, np.zeros(3, np.int64))).size == 1


@pytest.mark.parametrize("decimals", [17, 1])
def test_measurements_agree_with_sklearn_and_with_counting(decimals: int) -> None:
    rng = np.random.default_rng(2)
    members, others = rng.beta(3, 1, 400).round(decimals), rng.beta(2, 1, 1500).round(decimals)
    found = measured(rows_of(members, others))
    is_member, score = np.r_[np.ones(400), np.zeros(1500)], np.r_[members, others]
    assert found["attack_auc"].estimate.value == pytest.approx(roc_auc_score(is_member, score), abs=1e-12)
    fpr, tpr, _ = roc_curve(is_member, score, drop_intermediate=False)
    reached = tpr[fpr <= 0.01 + 1e-12].max()
    assert found["true_positive_rate_at_fpr@0.01"].estimate.value == pytest.approx(reached)
    with np.errstate(divide="ignore"):
        losses = [np.minimum(-np.log(p), 744.4400719213812) for p in (members, others)]
    mean = losses[0].mean()
    slow = 0.5 * (sum(a <= mean for a in losses[0]) / 400 + sum(b > mean for b in losses[1]) / 1500)
    assert found["balanced_accuracy"].estimate.value == pytest.approx(slow)


def test_decisions_only_are_ties_and_the_auc_is_half_the_accuracy_gap() -> None:
    rng = np.random.default_rng(3)
    members, others = (rng.random(300) < 0.9).astype(float), (rng.random(500) < 0.7).astype(float)
    estimate = measured(rows_of(members, others))["attack_auc"].estimate
    assert estimate.value == pytest.approx(0.5 + (members.mean() - others.mean()) / 2)


def test_roc_points_are_corners_of_sklearns_curve_few_enough_and_spread_on_the_log_scale() -> None:
    rng = np.random.default_rng(4)
    members, others = rng.exponential(1.0, 3000), rng.exponential(1.3, 5000)
    false, true = roc_points(members, others)
    fpr, tpr, _ = roc_curve(np.r_[np.ones(3000), np.zeros(5000)], -np.r_[members, others], drop_intermediate=False)
    highest = {round(f * 5000): t for f, t in zip(fpr, tpr, strict=True)}
    assert len(false) <= 200
    assert (false[-1], true[-1]) == (5000, 3000)
    assert (np.diff(false) > 0).all() and (np.diff(true) >= 0).all()
    np.testing.assert_allclose(true / 3000, [highest[int(f)] for f in false])
    assert set(range(1, 11)) <= set(false.tolist())


def test_the_figure_holds_the_curve_its_band_and_words_with_numbers() -> None:
    rng = np.random.default_rng(5)
    data = rows_of(rng.beta(3, 1, 300), rng.beta(2, 1, 2000))
    found = measured(data)
    whole = MembershipInference(methods="loss_threshold").measure(given_probabilities(), data, rng)[0]
    figure, auc = whole.figure, found["attack_auc"].estimate.value
    assert figure is not None and figure.kind == "roc"
    (series,) = figure.series
    assert "95 % pointwise" in series.name and "Clopper-Pearson" in figure.caption
    assert len(series.x) == len(series.y) == len(series.low) == len(series.high) <= 200
    assert all_of(
        low is not None and y is not None and high is not None and low <= y <= high
        for low, y, high in zip(series.low, series.y, series.high, strict=True)
    )
    assert f"{auc:.3f}" in figure.alt and "300 members" in figure.alt
    assert f"{found['true_positive_rate_at_fpr@0.01'].estimate.value:.3g} at 0.01" in figure.alt


@pytest.mark.parametrize(
    ("n_others", "given", "judged"),
    [(50, [], []), (100, [0.01], []), (1000, [0.01, 0.001], [0.01, 0.001])],
)
def test_a_rate_is_given_where_one_false_positive_is_expected_and_judged_of_a_thousand(
    n_others: int, given: list[float], judged: list[float]
) -> None:
    rng = np.random.default_rng(6)
    found = measured(rows_of(rng.random(60), rng.random(n_others)))
    for rate in (0.01, 0.001):
        measurement = found[f"true_positive_rate_at_fpr@{rate}"]
        assert isinstance(measurement.estimate, Undefined) == (rate not in given)
        assert (measurement.too_few == "") == (rate in judged)
        # The members come in the share that they have.
        needed = -(-1_000 * (60 + n_others) // n_others)
        assert measurement.n_needed == (None if rate in judged else needed)
        assert measurement.n_samples == 60 + n_others
        assert measurement.ideal == rate


def test_a_rate_of_too_few_is_inconclusive_under_a_criterion_and_says_what_it_takes() -> None:
    rng = np.random.default_rng(7)
    result = ProbeResult(
        probe="membership_inference",
        pillar="privacy",
        citation="",
        measurements=tuple(measured(rows_of(rng.random(400), rng.random(500))).values()),
    )
    criterion = Criterion(
        metric="true_positive_rate_at_fpr", method="loss_threshold", direction="at_most", bound=0.9, source="t",
        set_by="t", set_at="t",
    )  # fmt: skip
    judged = [f for f in judge([result], [criterion])[0] if f.criterion is not None]
    assert [f.outcome for f in judged] == [Outcome.INCONCLUSIVE] * 2
    assert [f.n_required for f in judged] == [1_800, 1_800], "rows of both files, of which 5 in 9 are non-members"
    assert all_of("non-members" in f.reason for f in judged)
    assert "1,000 non-members are needed" in judged[0].reason


# ---- which rows take part ------------------------------------------------------------------------------------------


def test_rows_without_a_label_take_no_part() -> None:
    rng = np.random.default_rng(8)
    data = rows_of(rng.random(30), rng.random(40))
    assert data.y_true is not None
    labels: list[object] = data.y_true.tolist()
    labels[3] = labels[50] = None
    data = AuditData.from_arrays(data.X, labels, classes=[0, 1], is_member=data.is_member)
    detail = measured(data)["attack_auc"].detail
    assert "29 members and 39 non-members" in detail
    assert "1 rows of --train without a label" in detail


def test_rows_that_stand_more_than_once_take_no_part_on_either_side() -> None:
    X = pd.DataFrame({"p0": [0.1, 0.1, 0.2, 0.3, 0.4, 0.2, 0.5, 0.6, 0.6, 0.7]})
    X["p1"] = 1 - X.p0
    data = AuditData.from_arrays(X, [1] * 10, classes=[0, 1], is_member=[True] * 5 + [False] * 5)
    found = measured(data)["attack_auc"]
    assert "2 members and 2 non-members" in found.detail
    assert "3 rows of --train that stand more than once" in found.detail
    assert "3 rows of --data that stand more than once" in found.detail
    assert found.estimate.value == 1.0


def test_the_same_features_with_another_label_are_another_row() -> None:
    X = pd.DataFrame({"p0": [0.25, 0.5] * 2})
    X["p1"] = 1 - X.p0
    data = AuditData.from_arrays(X, [0, 0, 1, 1], classes=[0, 1], is_member=[True, True, False, False])
    assert "2 members and 2 non-members" in measured(data)["attack_auc"].detail


def test_texts_are_compared_as_they_stand() -> None:
    texts = ["a", "b", "c", "a", "d", "e"]
    model = AuditedModel.from_callable(lambda X: np.full((len(X), 2), 0.5), classes=[0, 1])
    data = AuditData.from_arrays(texts, [1] * 6, classes=[0, 1], is_member=[True] * 3 + [False] * 3)
    found = measured(data, model)["attack_auc"]
    assert "2 members and 2 non-members" in found.detail
    assert found.estimate.value == 0.5


def test_no_row_left_is_undefined_and_inconclusive_never_a_number() -> None:
    X = pd.DataFrame({"p0": [0.5] * 4, "p1": [0.5] * 4})
    data = AuditData.from_arrays(X, [1] * 4, classes=[0, 1], is_member=[True, True, False, False])
    found = measured(data)
    assert all_of(isinstance(m.estimate, Undefined) for m in found.values())
    assert outcome(data) is Outcome.INCONCLUSIVE


def test_without_members_or_labels_it_does_not_apply() -> None:
    X = pd.DataFrame({"p0": [0.5, 0.4], "p1": [0.5, 0.6]})
    for data in (
        AuditData.from_arrays(X, [0, 1], classes=[0, 1]),
        AuditData.from_arrays(X, classes=[0, 1], is_member=[True, False]),
    ):
        with pytest.raises(NotApplicableError, match="add --"):
            MembershipInference().measure(given_probabilities(), data, np.random.default_rng(0))


def test_overlapping_files_are_counted_in_a_note_and_the_shared_rows_are_no_non_members(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    frame = pd.DataFrame({"p0": rng.random(60).round(6)})
    frame["p1"], frame["y"] = 1 - frame.p0, rng.integers(0, 2, 60)
    frame.iloc[:40].to_csv(tmp_path / "train.csv", index=False)
    # Three rows of the training file, one of them twice, and a duplicate of the file's own.
    pd.concat([frame.iloc[[0, 1, 2, 2]], frame.iloc[40:], frame.iloc[[59]]]).to_csv(tmp_path / "data.csv", index=False)
    spec = DataSpec(path=str(tmp_path / "data.csv"), train=str(tmp_path / "train.csv"), target="y")
    data = load_data(spec, given_probabilities())
    assert any("4 of 25 evaluation rows stand in the training file too" in note for note in data.notes)
    assert len(data.evaluation) == 25
    detail = measured(data)["attack_auc"].detail
    assert "and 19 non-members" in detail
    assert "6 rows of --data that stand more than once" in detail


def test_the_same_file_twice_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"p0": [0.2, 0.4], "p1": [0.8, 0.6], "y": [0, 1]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    spec = DataSpec(path=str(tmp_path / "a.csv"), train=str(tmp_path / "a.csv"), target="y")
    with pytest.raises(UsageError, match="must be different rows"):
        load_data(spec, given_probabilities())


# ---- what the two files give away ----------------------------------------------------------------------------------


def test_files_given_the_wrong_way_round_are_remarked_on() -> None:
    rng = np.random.default_rng(10)
    worse, better = rng.beta(1.5, 1.5, 300), rng.beta(6, 1, 300)
    swapped, right = measured(rows_of(worse, better)), measured(rows_of(better, worse))
    assert "is --train the file it was trained on" in swapped["attack_auc"].detail
    assert "is --train the file it was trained on" not in right["attack_auc"].detail
    # An AUC far below one half would else PASS.
    assert swapped["attack_auc"].estimate.bounds(0.001)[1] < 0.5
    assert all_of(m.too_few for m in swapped.values()) and "trained on?" in swapped["attack_auc"].too_few
    assert right["attack_auc"].too_few == ""


def test_label_distributions_that_differ_are_remarked_on() -> None:
    rng = np.random.default_rng(11)
    y = np.r_[rng.random(400) < 0.5, rng.random(400) < 0.2].astype(np.int64)
    detail = measured(rows_of(rng.random(400), rng.random(400), y))["attack_auc"].detail
    assert "of the members and" in detail and "more than membership" in detail


@pytest.mark.slow
def test_remarks_are_not_made_by_chance() -> None:
    """Two remarks, each at a thousandth; what they are made of is drawn for all worlds at once."""
    rng, half = np.random.default_rng(0), 200
    n = np.asarray([half, half])
    right, ones = rng.binomial(half, 0.5, (2, WORLDS, 2))
    remarks = sum(
        bool(_remarks(_labelled(counts.tolist(), half), correct, n, ("0", "1")))
        for correct, counts in zip(right, ones, strict=True)
    )
    assert remarks <= most_misses(2 * REMARK_LEVEL)
    # The same remarks are those of a whole measurement.
    y = np.random.default_rng(1).integers(0, 2, 2 * half)
    data = rows_of(rng.random(half), rng.random(half), y)
    pool = pool_of(given_probabilities(), data)
    detail = measured(data)["attack_auc"].detail
    assert pool.probabilities is not None
    assert not _remarks(pool, *_right(pool, pool.probabilities), ("0", "1"))
    assert "trained on" not in detail and "more than membership" not in detail


def _labelled(ones: list[int], half: int) -> Pool:
    """Rows of which so many members and so many others are of class 1; the rest of them says nothing."""
    labels = np.concatenate([np.arange(half) < k for k in ones]).astype(np.int64)
    return Pool(
        rows=AuditData(X=np.zeros(2 * half)),
        probabilities=np.zeros((2 * half, 2)),
        labels=labels,
        loss=np.zeros(2 * half),
        is_member=np.repeat([True, False], half),
        number=labels,
        left_out=(),
    )


# ---- error rates and power -----------------------------------------------------------------------------------------

Shape = tuple[int, int]
World = Callable[[np.random.Generator, Shape, Shape], tuple[Floats, Floats]]


def _lehmann(auc: float) -> World:
    return lambda r, m, n: (r.random(m) ** ((1 - auc) / auc), r.random(n))


def _spread(auc: float) -> World:
    shift = float(norm.ppf(auc)) * 10**0.5
    return lambda r, m, n: (ndtr(r.normal(shift, 3.0, m)), ndtr(r.normal(0.0, 1.0, n)))


def _decisions(auc: float) -> World:
    gap = 2 * auc - 1
    return lambda r, m, n: ((r.random(m) < 0.6 + gap) * 1.0, (r.random(n) < 0.6) * 1.0)


DRAWS = {"skewed": _lehmann, "members spread": _spread, "decisions only": _decisions}


def losses(own: Floats) -> Floats:
    """Losses of rows (...) whose true label has these probabilities."""
    flat = own.ravel()
    return cross_entropy(np.column_stack([flat, 1.0 - flat]), np.zeros(flat.size, np.int64)).reshape(own.shape)


@cache
def estimates(world: str, auc: float, m: int, n: int) -> tuple[list[AreaUnderCurve], Floats, Floats]:
    """Estimates of 2,000 worlds with a true AUC, and the probabilities of the first ten's members and others.

    The ten are measured by the whole probe, which must come to the same.
    """
    members, others = DRAWS[world](auc)(np.random.default_rng([m, n]), (WORLDS, m), (WORLDS, n))
    found = areas_of(-losses(members), -losses(others))
    for i in range(10):
        whole = measured(rows_of(members[i], others[i]))["attack_auc"].estimate
        assert isinstance(whole, AreaUnderCurve) and (whole.n_positive, whole.n_negative) == (m, n)
        assert whole.centre == pytest.approx(found[i].centre, abs=1e-12)
        assert whole.standard_error == pytest.approx(found[i].standard_error, rel=1e-9)
    return found, members[:10], others[:10]


@pytest.mark.grid
@pytest.mark.parametrize("m", [1, 4])
def test_a_judgement_is_its_estimates_bounds_held_against_the_criterion(m: int) -> None:
    """So worlds may be judged by their bounds alone; all three outcomes are among these."""
    seen = set()
    for auc, size in ((0.47, 400), (0.55, 60), (0.8, 100)):
        found, members, others = estimates("skewed", auc, size, size)
        for estimate, a, b in zip(found, members, others, strict=False):
            low, high = estimate.bounds(0.05 / m)
            wanted = Outcome.FAIL if low > BOUND else Outcome.PASS if high <= BOUND else Outcome.INCONCLUSIVE
            if measured(rows_of(a, b))["attack_auc"].too_few:
                continue  # by chance the members look worse than the others, which is said and not judged
            assert outcome(rows_of(a, b), m=m) is wanted
            seen.add(wanted)
    assert seen == {Outcome.FAIL, Outcome.PASS, Outcome.INCONCLUSIVE}


@pytest.mark.grid
@pytest.mark.parametrize(("m", "n"), [(100, 100), (300, 700)])
@pytest.mark.parametrize("world", DRAWS)
def test_at_the_bound_false_fails_and_false_passes_are_rare(world: str, m: int, n: int) -> None:
    """A single judgement at 5 %; tests/statistics/test_auc.py has 0.05 / 4."""
    above, below = misses(estimates(world, BOUND, m, n)[0], BOUND)
    assert above <= most_misses()
    assert below <= most_misses()


@pytest.mark.grid
@pytest.mark.parametrize("world", DRAWS)
def test_exchangeable_rows_are_not_called_a_leak(world: str) -> None:
    """Against the bound, and against one half, which is the truth."""
    found = estimates(world, 0.5, 150, 350)[0]
    assert misses(found, BOUND)[0] <= misses(found, 0.5)[0] <= most_misses()


@pytest.mark.grid
@pytest.mark.parametrize("world", ["skewed", "members spread", "decisions only"])
def test_power_is_as_declared(world: str) -> None:
    size, auc = MembershipInference.power
    fails = misses(estimates(world, auc, size, size)[0], BOUND, 0.05 / 4)[0]
    assert fails >= binom.ppf(0.001, WORLDS, 0.8)


def test_a_large_ideal_model_passes() -> None:
    passes = 0
    for seed in range(20):
        members, others = _lehmann(0.5)(np.random.default_rng(seed), (1, 4000), (1, 4000))
        passes += outcome(rows_of(members[0], others[0]), m=4) is Outcome.PASS
    assert passes >= 16


def test_copies_across_the_files_do_not_make_an_honest_model_look_leaky() -> None:
    """A table of few distinct rows, and a model that has learned from none of them; ten are measured as a whole."""
    found = []
    for seed in range(WORLDS):
        rng = np.random.default_rng(seed)
        popularity, chance = rng.dirichlet(np.full(500, 0.3)), rng.beta(0.5, 0.5, 500)
        cell = rng.choice(500, 1000, p=popularity)
        y = (rng.random(1000) < chance[cell]).astype(int)
        key, is_member = 2 * cell + y, np.arange(1000) < 700
        once = np.bincount(key)[key] == 1
        loss = losses(np.where(y == 1, chance[cell], 1.0 - chance[cell]))
        found.append(area_under_curve(positives=-loss[once & is_member], negatives=-loss[once & ~is_member]))
        if seed < 10:
            X = pd.DataFrame({"cell": cell, "p0": 1 - chance[cell], "p1": chance[cell]})
            whole = measured(AuditData.from_arrays(X, y, classes=[0, 1], is_member=is_member))["attack_auc"].estimate
            assert isinstance(whole, AreaUnderCurve) and whole == found[-1]
    known = [estimate for estimate in found if isinstance(estimate, AreaUnderCurve)]
    assert len(known) == WORLDS
    assert misses(known, BOUND)[0] <= misses(known, 0.5)[0] <= most_misses()


@pytest.mark.parametrize("mean", [1.0, 3.0])
def test_balanced_accuracy_interval_covers_the_truth(mean: float) -> None:
    """The threshold, the members' mean loss, is estimated too; the truth is taken at the mean of all members, 1."""
    truth = 0.5 * (1.0 - np.exp(-1.0) + np.exp(-1.0 / mean))
    rng = np.random.default_rng(0)
    members, others = -rng.exponential(1.0, (WORLDS, 150)), -rng.exponential(mean, (WORLDS, 150))
    found = []
    for a, b in zip(members, others, strict=True):
        attack = Attack(
            method="loss_threshold",
            scores=np.empty(0),
            scored=np.empty(0, bool),
            threshold=float(a.mean()),
            threshold_words="",
            detail="",
        )
        found.append(_balanced_accuracy(attack, a, b, "").estimate)
    whole = measured(rows_of(np.exp(members[0]), np.exp(others[0])))["balanced_accuracy"].estimate
    assert whole.bounds(0.05) == pytest.approx(found[0].bounds(0.05), abs=1e-12)
    above, below = misses(found, truth)
    assert above <= most_misses() and below <= most_misses()


def test_a_model_that_memorised_its_rows_fails_and_one_that_could_not_does_not() -> None:
    rng = np.random.default_rng(12)
    X, y = pd.DataFrame(rng.normal(size=(600, 5)), columns=list("abcde")), rng.integers(0, 2, 600)
    is_member = np.arange(600) < 300
    data = AuditData.from_arrays(X, y, classes=[0, 1], is_member=is_member)
    for depth, wanted in ((None, Outcome.FAIL), (1, Outcome.INCONCLUSIVE)):
        tree = DecisionTreeClassifier(max_depth=depth, random_state=0).fit(X[is_member], y[is_member])
        assert outcome(data, model=AuditedModel.from_callable(tree.predict_proba, classes=[0, 1])) is wanted


# ---- manners -------------------------------------------------------------------------------------------------------


def test_it_draws_nothing_and_repeats_itself() -> None:
    rng = np.random.default_rng(13)
    data, model = rows_of(rng.random(50), rng.random(200)), given_probabilities()
    before = rng.bit_generator.state
    probe = MembershipInference(methods="loss_threshold")
    first = probe.measure(model, data, rng)
    assert rng.bit_generator.state == before
    assert first == probe.measure(model, data, np.random.default_rng(99))


def test_importing_it_does_not_import_torch() -> None:
    code = "import sys, probes.privacy.membership.membership_inference; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
