"""Each attack's scores against a plain implementation written from its paper, and where they are known by hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.stats import norm

from auditor.data.audit_data import AuditData
from auditor.models.audited_model import AuditedModel
from probes.privacy.membership import (
    attack_scores,
    label_only,
)
from probes.privacy.membership.attack_metrics import roc_points

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def world(n: int = 60, k: int = 12, seed: int = 0) -> tuple[Floats, Floats, Bools]:
    """Confidences of a target, of k shadow models, and who learned which of n rows."""
    rng = np.random.default_rng(seed)
    inside = np.zeros((k, n), bool)
    for j in range(n):
        inside[rng.permutation(k)[: rng.integers(3, k - 2)], j] = True
    hardness = rng.normal(0, 2, n)
    shadow = hardness + 1.2 * inside + rng.normal(0, 0.3 + rng.random(n), (k, n))
    return hardness + rng.normal(0.5, 1, n), shadow, inside


# ---- LiRA ----------------------------------------------------------------------------------------------------------


def algorithm_1(phi: float, observed_in: list[float], observed_out: list[float]) -> float:
    """Lines 11 to 18 of algorithm 1 of Carlini et al. (2022), in logarithms, with a variance for each example."""
    mu_in, mu_out = sum(observed_in) / len(observed_in), sum(observed_out) / len(observed_out)
    var_in = sum((c - mu_in) ** 2 for c in observed_in) / len(observed_in)
    var_out = sum((c - mu_out) ** 2 for c in observed_out) / len(observed_out)
    return float(norm.logpdf(phi, mu_in, var_in**0.5) - norm.logpdf(phi, mu_out, var_out**0.5))


def test_online_lira_is_algorithm_1_of_the_paper() -> None:
    phi, shadow, inside = world()
    slow = [
        algorithm_1(
            phi[j],
            [shadow[i, j] for i in range(len(shadow)) if inside[i, j]],
            [shadow[i, j] for i in range(len(shadow)) if not inside[i, j]],
        )
        for j in range(phi.size)
    ]
    np.testing.assert_allclose(attack_scores.lira_online_scores(phi, shadow, inside, fixed=False), slow, rtol=1e-9)


def test_a_fixed_variance_is_the_mean_of_the_rows_own() -> None:
    phi, shadow, inside = world(seed=1)
    of_rows = {
        side: [(np.mean(shadow[chosen[:, j], j]), np.var(shadow[chosen[:, j], j])) for j in range(phi.size)]
        for side, chosen in (("in", inside), ("out", ~inside))
    }
    sd = {side: np.sqrt(np.mean([v for _, v in found])) for side, found in of_rows.items()}
    slow = [
        norm.logpdf(phi[j], of_rows["in"][j][0], sd["in"]) - norm.logpdf(phi[j], of_rows["out"][j][0], sd["out"])
        for j in range(phi.size)
    ]
    np.testing.assert_allclose(attack_scores.lira_online_scores(phi, shadow, inside, fixed=True), slow, rtol=1e-9)
    offline = [norm.cdf(phi[j], of_rows["out"][j][0], sd["out"]) for j in range(phi.size)]
    np.testing.assert_allclose(
        norm.cdf(attack_scores.lira_offline_scores(phi, shadow, inside, fixed=True)), offline, rtol=1e-9
    )


def test_offline_lira_reads_only_the_models_that_did_not_learn_the_row() -> None:
    phi, shadow, inside = world(seed=2)
    slow = [
        1.0 - norm.sf(phi[j], np.mean(shadow[~inside[:, j], j]), np.std(shadow[~inside[:, j], j]))
        for j in range(phi.size)
    ]
    found = attack_scores.lira_offline_scores(phi, shadow, inside, fixed=False)
    np.testing.assert_allclose(norm.cdf(found), slow, rtol=1e-9, atol=1e-15)
    changed = np.where(inside, shadow + 100.0, shadow)
    np.testing.assert_array_equal(found, attack_scores.lira_offline_scores(phi, changed, inside, fixed=False))


def test_a_row_on_which_all_shadow_models_agree_is_no_division_by_zero() -> None:
    phi, shadow, inside = world(seed=3)
    shadow[:, 0] = 1.0
    for fixed in (False, True):
        assert np.isfinite(attack_scores.lira_online_scores(phi, shadow, inside, fixed=fixed)).all()
        assert np.isfinite(attack_scores.lira_offline_scores(phi, shadow, inside, fixed=fixed)).all()
    assert np.isfinite(attack_scores.lira_online_scores(phi, np.ones_like(shadow), inside, fixed=True)).all()


# ---- RMIA, difficulty calibration, loss ----------------------------------------------------------------------------


@pytest.mark.parametrize("offline", [False, True])
def test_rmia_is_the_share_of_population_rows_that_are_dominated(offline: bool) -> None:
    rng = np.random.default_rng(4)
    p, reference = rng.random(40), rng.random((4, 40))
    inside = np.zeros((4, 40), bool)
    inside[0], inside[1] = rng.random((2, 40)) < 0.5
    inside[2:] = ~inside[:2]
    prior = []
    for j in range(40):
        out = reference[~inside[:, j], j].mean()
        both = (out + reference[inside[:, j], j].mean()) / 2
        prior.append(0.5 * (1.3 * out + 0.7) if offline else both)
    slow = [np.mean([(p[j] / prior[j]) / (p[z] / prior[z]) >= 2.0 for z in range(40)]) for j in range(40)]
    np.testing.assert_allclose(attack_scores.rmia_scores(p, reference, inside, offline=offline), slow)


def test_difficulty_calibration_takes_the_out_models_mean_away() -> None:
    loss, shadow, inside = world(seed=5)
    slow = [-loss[j] - np.mean(-shadow[~inside[:, j], j]) for j in range(loss.size)]
    np.testing.assert_allclose(attack_scores.difficulty_scores(loss, shadow, inside), slow)


def test_ranks_within_classes_are_those_of_counting() -> None:
    rng = np.random.default_rng(6)
    loss, labels = rng.integers(0, 9, 50) / 4.0, rng.integers(0, 3, 50)
    slow = []
    for a, c in zip(loss, labels, strict=True):
        own = loss[labels == c]
        slow.append(np.mean(own > a) + np.mean(own == a) / 2)
    np.testing.assert_allclose(attack_scores.per_class_scores(loss, labels), slow)


def test_log_odds_are_those_of_the_true_label_also_where_probabilities_are_rounded() -> None:
    p = np.asarray([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25], [1.0, 1e-30, 0.0], [0.0, 1.0, 0.0]])
    found = attack_scores.log_odds(p, np.asarray([0, 0, 0, 0]))
    np.testing.assert_allclose(found[:3], [np.log(0.7 / 0.3), np.log(1 / 3), np.log(1e30)], rtol=1e-12)
    assert found[3] == pytest.approx(-744.44, abs=0.01)


# ---- without shadow models -----------------------------------------------------------------------------------------


def test_quantiles_take_away_what_a_row_itself_explains() -> None:
    """Confidence depends on the column by ten times what membership adds; its raw order hides the members."""
    rng = np.random.default_rng(7)
    n = 3000
    X, labels = pd.DataFrame({"x": rng.random(n), "text": rng.choice(["a", "b"], n)}), rng.integers(0, 2, n)
    member = np.arange(n) < 1000
    phi = 10.0 * X.x.to_numpy() + 3.0 * (X.text == "b").to_numpy() + rng.normal(0, 0.5, n) + member
    public = (~member) & (rng.random(n) < 0.5)
    found = attack_scores.quantile_scores(X, labels, phi, public)

    def auc(score: Floats) -> float:
        a, b = score[member], score[~member & ~public]
        return float((a[:, None] > b[None, :]).mean())

    assert auc(phi) < 0.6 and auc(found) > 0.85
    # The quantiles are what they say, on rows that they were not learned from.
    others = found[~member & ~public]
    assert abs((others <= 0.0).mean() - 0.5) < 0.07 and abs((others <= 1.0).mean() - 0.9) < 0.06


def test_label_only_counts_the_copies_that_keep_the_true_label() -> None:
    """A row far from the boundary keeps its label, one beside it loses it in half of its copies."""
    X = pd.DataFrame({"x": np.r_[np.full(50, 10.0), np.full(50, 1e-9), np.full(50, -10.0)]})
    asked: list[int] = []

    def answer(rows: pd.DataFrame) -> Floats:
        asked.append(len(rows))
        return np.eye(2)[(rows.x.to_numpy() > 0).astype(int)]

    data = AuditData.from_arrays(X, [1] * 150, classes=[0, 1])
    model = AuditedModel.from_callable(answer, classes=[0, 1])
    found = label_only.scores(model, data, np.ones(150, np.int64), 40, np.random.default_rng(0))
    far, beside, wrong = (found[i : i + 50].mean() for i in (0, 50, 100))
    assert far > 0.9 and 0.4 < beside < 0.65 and wrong < 0.1
    assert asked.count(150) >= 41


@pytest.mark.parametrize(
    "X",
    [
        pd.DataFrame({"a": [1, 2, 3, 4], "b": ["u", "v", "u", "v"], "c": [True, False, True, False]}),
        np.arange(8.0).reshape(4, 2),
        np.asarray(["one text", "two texts", "three", "four words are here"], object),
        np.zeros((4, 8, 8, 3), np.uint8),
    ],
)
def test_label_only_asks_rows_of_the_models_own_kind(X: object) -> None:
    def answer(rows: object) -> Floats:
        assert type(rows) is type(X)
        if isinstance(X, pd.DataFrame) and isinstance(rows, pd.DataFrame):
            assert (rows.dtypes == X.dtypes).all()
        return np.full((len(rows), 2), 0.5)  # type: ignore[arg-type]

    data = AuditData.from_arrays(X, [0, 0, 0, 0], classes=[0, 1])  # type: ignore[arg-type]
    model = AuditedModel.from_callable(answer, classes=[0, 1])
    found = label_only.scores(model, data, np.zeros(4, np.int64), 6, np.random.default_rng(0))
    assert found.shape == (4,)


def test_roc_points_of_scores_pass_ties_together() -> None:
    false, true = roc_points(-np.asarray([3.0, 2.0, 2.0]), -np.asarray([2.0, 1.0]))
    assert (false.tolist(), true.tolist()) == ([0, 1, 2], [1, 3, 3])


def test_rmia_of_a_row_that_no_reference_model_learned_stands_on_the_models_without_it() -> None:
    """Of an odd number of rows, each pair of reference models leaves one out of both."""
    p, reference_p = np.array([0.9, 0.5, 0.7]), np.array([[0.8, 0.4, 0.3], [0.6, 0.2, 0.5]])
    inside = np.array([[True, False, False], [False, True, False]])
    found = attack_scores.rmia_scores(p, reference_p, inside, offline=False, gamma=1.0)
    prior = np.array([(0.6 + 0.8) / 2, (0.4 + 0.2) / 2, (1.3 * 0.4 + 0.7) / 2])
    ratio = p / prior
    np.testing.assert_allclose(found, [(ratio <= own).mean() for own in ratio])
