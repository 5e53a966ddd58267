"""Heads, rounds that leave kinds out, calibration and the card of a detector, against slow and independent versions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from auditor.core.errors import DataError
from auditor.models.networks.detector_networks import Calibration, LinearHead
from auditor.statistics.detection import equal_error_rate
from mitigations.deepfake.detector_fitting import (
    FOLDS,
    MOST_CELLS,
    Learner,
    LinearLearner,
    Scorer,
    calibrate,
    cross_validate,
    fit_head,
    fit_platt,
    make_card,
    probabilities,
)
from tests.quantifiers import all_of, none_of


def files(rng: np.random.Generator, n: int = 30, d: int = 6, shift: float = 2.0) -> tuple[np.ndarray, np.ndarray, list]:
    """Real files of two speakers and synthetic ones of three generators, each kind with a direction of its own."""
    parts, is_fake, kinds = [], [], []
    for i, (kind, fake) in enumerate([("ann", 0), ("bob", 0), ("gan", 1), ("flow", 1), ("vae", 1)]):
        x = rng.normal(size=(n, d))
        x[:, 0] += shift * fake
        x[:, 1 + i] += 1.0
        parts.append(x)
        is_fake += [bool(fake)] * n
        kinds += [kind] * n
    return np.concatenate(parts), np.asarray(is_fake), kinds


def test_the_head_is_scikit_learns_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, is_fake, _ = files(np.random.default_rng(0))
    x[:, 3] = 7.0
    peer = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5_000)).fit(x, is_fake)
    for fake in (0, 1):
        head = fit_head(x, is_fake, fake=fake)
        logits = head(torch.from_numpy(x).float()).detach()
        p = torch.softmax(logits.double(), dim=1)[:, fake].numpy()
        np.testing.assert_allclose(p, peer.predict_proba(x)[:, 1], atol=1e-5)


def test_either_class_of_a_head_has_a_gradient() -> None:
    x, is_fake, _ = files(np.random.default_rng(0))
    inputs = torch.from_numpy(x[:3]).float().requires_grad_()
    for column in (0, 1):
        (gradient,) = torch.autograd.grad(fit_head(x, is_fake)(inputs)[:, column].sum(), inputs)
        assert gradient.abs().sum() > 0


def test_what_augmented_files_still_show_is_what_a_head_trained_on_them_looks_at() -> None:
    """One trace is plain and lost on the way, the other is faint and stays: only the latter helps afterwards."""
    rng = np.random.default_rng(0)
    is_fake = np.arange(400) % 2 == 1
    x = rng.normal(size=(400, 2)) + np.outer(is_fake, [6.0, 1.5])
    after = np.stack([rng.normal(size=400), x[:, 1]], axis=1)
    found = {}
    for name, changed in (("plain", None), ("augmented", after)):
        scores = fit_head(x, is_fake, changed_features=changed).scores(torch.from_numpy(after).float()).detach().numpy()
        found[name] = np.mean((scores > 0) == is_fake)
    assert found["plain"] < 0.65 and found["augmented"] > 0.7
    learned = LinearLearner(x, is_fake, changed=after)(np.arange(400))
    assert np.mean((learned(np.arange(400)) > 0) == is_fake) > 0.9


def _recording(n: int) -> tuple[Learner, list[tuple[set[int], set[int]]]]:
    rounds: list[tuple[set[int], set[int]]] = []

    def learn(rows: np.ndarray) -> Scorer:
        def score(others: np.ndarray) -> np.ndarray:
            rounds.append((set(rows.tolist()), set(others.tolist())))
            return others.astype(float)

        return score

    return learn, rounds


def test_no_round_trains_on_what_it_scores_nor_on_its_kinds() -> None:
    x, is_fake, kinds = files(np.random.default_rng(4))
    learn, rounds = _recording(len(x))
    found = cross_validate(is_fake, kinds, learn, np.random.default_rng(0))
    folds, cells = rounds[:FOLDS], rounds[FOLDS:]
    assert all_of(not (train & test) and len(train | test) == len(x) for train, test in folds)
    assert sorted(i for _, test in folds for i in test) == list(range(len(x)))
    # Every fold has its share of every kind.
    for _, test in folds:
        assert {k: sum(kinds[i] == k for i in test) for k in set(kinds)} == dict.fromkeys(set(kinds), 6)
    assert len(cells) == 3 * 2
    for train, test in cells:
        assert not {kinds[i] for i in train} & {kinds[i] for i in test}
        assert len(train) + len(test) == len(x)
    assert found.fakes_named and found.reals_named
    np.testing.assert_array_equal(found.unseen_scores, np.arange(len(x)))
    fakes, reals = found.scores_without("flow")
    np.testing.assert_array_equal(fakes, np.arange(90, 120))
    np.testing.assert_array_equal(reals, np.arange(60))


def test_files_without_kinds_are_split_at_random() -> None:
    _, is_fake, kinds = files(np.random.default_rng(4))
    learn, rounds = _recording(len(kinds))
    unknown = [k if fake else None for k, fake in zip(kinds, is_fake, strict=True)]
    found = cross_validate(is_fake, unknown, learn, np.random.default_rng(0))
    assert (found.fakes_named, found.reals_named) == (True, False)
    assert len(rounds) == FOLDS + 3 * FOLDS
    one = [("gan" if fake else None) for fake in is_fake]
    found = cross_validate(is_fake, one, learn, np.random.default_rng(0))
    assert not found.fakes_named and found.fake_kinds == ()
    card = make_card("image", 1, found)
    assert any("there was one only" in note for note in card.notes)
    assert none_of(rate.unseen for rate in card.known_rates)


def test_many_kinds_are_left_out_in_groups() -> None:
    is_fake = np.repeat([False, True], 60)
    kinds = [f"{'g' if f else 's'}{i % 30}" for i, f in enumerate(is_fake)]
    learn, rounds = _recording(120)
    found = cross_validate(is_fake, kinds, learn, np.random.default_rng(0))
    assert len(found.cells) <= MOST_CELLS
    for train, test in rounds[FOLDS:]:
        assert not {kinds[i] for i in train} & {kinds[i] for i in test}
    assert np.isfinite(found.unseen_scores).all()


def test_too_few_files_are_refused_in_words() -> None:
    learn, _ = _recording(12)
    with pytest.raises(DataError, match="at least 10 real and 10 synthetic files, and there are 9 and 3"):
        cross_validate(np.asarray([False] * 9 + [True] * 3), [None] * 12, learn, np.random.default_rng(0))


def test_platt_calibration_minimises_its_cross_entropy() -> None:
    from scipy.optimize import minimize

    rng = np.random.default_rng(5)
    is_fake = rng.random(200) < 0.3
    scores = rng.normal(size=200) * 5 + 10 * is_fake + 3
    n1, n0 = is_fake.sum(), (~is_fake).sum()
    target = np.where(is_fake, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))

    def loss(ab: np.ndarray) -> float:
        p = np.clip(probabilities(scores, ab[0], ab[1]), 1e-12, 1 - 1e-12)
        return float(-(target * np.log(p) + (1 - target) * np.log(1 - p)).sum())

    slow = minimize(loss, [0.1, 0.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 5_000}).x
    np.testing.assert_allclose(fit_platt(scores, is_fake), slow, rtol=1e-3)


def test_scores_that_point_the_wrong_way_are_flattened_not_turned_round() -> None:
    slope, offset = fit_platt(np.asarray([1.0, 2.0, 3.0, 4.0]), np.asarray([True, True, False, False]))
    assert 0 < slope < 0.01
    np.testing.assert_allclose(probabilities(np.asarray([1.0, 4.0]), slope, offset), 0.5, atol=0.01)


def test_the_card_of_a_linear_detector() -> None:
    rng = np.random.default_rng(6)
    x, is_fake, kinds = files(rng, shift=4.0)
    found = cross_validate(is_fake, kinds, LinearLearner(x, is_fake), rng)
    card = make_card("image", 0, found)
    assert (card.fake, card.kinds) == (0, ("flow", "gan", "vae"))
    assert len(card.real_scores) == 60 and len(card.fake_scores) == 90
    rates = {(r.metric, r.kind, r.unseen): r for r in card.known_rates}
    assert rates["auc", None, False].value > 0.95
    assert rates["auc", "gan", True].n_fake == 30 and rates["auc", "gan", True].n_real == 60
    assert {m for m, _, _ in rates} == {"auc", "equal_error_rate", "average_precision"}
    for rate in card.known_rates:
        assert rate.low is not None and rate.high is not None and rate.low <= rate.value <= rate.high
    # Three kinds that are all told from real files perfectly say next to nothing of a fourth.
    over = rates["auc", None, True]
    assert over.value == pytest.approx(np.mean([rates["auc", kind, True].value for kind in card.kinds]))
    assert over.low is not None and over.value > 0.95 and over.low < 0.6 and over.n_fake == 90
    calibration = Calibration(0)
    calibrate(calibration, found)
    shown = torch.softmax(calibration(torch.from_numpy(found.unseen_scores).float()).double(), dim=1)[:, 0].numpy()
    np.testing.assert_allclose(np.sort(shown[is_fake]), card.fake_scores, atol=1e-6)
    errors = [equal_error_rate(positives=c.fake_scores, negatives=c.real_scores).value for c in found.cells]
    assert len(errors) == 6 and max(errors) < 0.2


def test_the_same_seed_gives_the_same_card() -> None:
    x, is_fake, _ = files(np.random.default_rng(9))
    cards = [
        make_card(
            "speech",
            1,
            cross_validate(is_fake, [None] * 150, LinearLearner(x, is_fake), np.random.default_rng(3)),
        )
        for _ in range(2)
    ]
    assert cards[0] == cards[1]


def test_a_head_refuses_a_class_that_is_none_of_two() -> None:
    with pytest.raises(ValueError, match="0 or 1"):
        LinearHead(3, fake=2)
