"""Heads, rounds that leave kinds out, calibration and the card of a detector, against slow and independent versions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from auditor.core.errors import DataError
from auditor.models.detector_card import judge_file
from auditor.models.networks.detector_networks import Calibration, LinearHead, most_kinds
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
    fit_novelty,
    fit_platt,
    fit_range,
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


def test_novelty_is_the_distance_from_the_nearest_kind_by_its_own_shrunk_covariance() -> None:
    """Against the inverse of the covariance itself, of kinds with more files than features and with fewer."""
    from sklearn.covariance import ledoit_wolf

    for d in (6, 40):
        x, is_fake, kinds = files(np.random.default_rng(2), d=d)
        x[:, :3] = x[:, :3] * [1, 10, 0.1] + [0, 500, 0]
        rule = fit_novelty(x, is_fake, kinds)
        probe = np.random.default_rng(3).normal(size=(40, d)) * x.std(axis=0) * 2 + x.mean(axis=0)
        slow = []
        for kind in ("ann", "bob", "flow", "gan", "vae"):
            own = x[[i for i, k in enumerate(kinds) if k == kind]]
            precision = np.linalg.inv(ledoit_wolf((own - own.mean(axis=0)) / own.std(axis=0), assume_centered=True)[0])
            off = (probe - own.mean(axis=0)) / own.std(axis=0)
            slow.append(np.sqrt(np.einsum("ij,jk,ik->i", off, precision, off)))
        seen = torch.from_numpy(probe).float()
        np.testing.assert_allclose((rule.distances(seen) * rule.limits).numpy(), np.stack(slow, axis=1), rtol=2e-3)
        np.testing.assert_allclose(
            rule(seen), torch.maximum(rule.distances(seen).amin(dim=1), rule.range(seen)), rtol=1e-6
        )
        inside = rule(torch.from_numpy(x).float()).numpy()
        assert 0.5 < inside.mean() < 1.0


def test_kinds_of_many_features_are_fewer() -> None:
    """All whitenings of a rule fit in 64 MiB."""
    assert [most_kinds(d) for d in (80, 229, 768, 1024, 5_000)] == [64, 64, 28, 16, 2]


def test_what_is_unlike_the_training_files_does_not_depend_on_the_seed() -> None:
    """Over seeds the largest novelty of 100 files, which was the limit once, doubles; what stands out does not."""
    rng = np.random.default_rng(0)
    x = rng.standard_t(2, size=(100, 40)) * np.exp(rng.uniform(0.0, np.log(2.0), (100, 1)))
    is_fake, kinds = np.arange(100) >= 50, [f"kind {i // 25}" for i in range(100)]
    learner = LinearLearner(x, is_fake, kinds)
    cards = [
        make_card("image", 1, cross_validate(is_fake, kinds, learner, np.random.default_rng(seed))) for seed in range(5)
    ]
    largest = [card.novelties[-1] for card in cards]
    least = [min(v for v in card.novelties if card.is_unlike(np.nextafter(v, np.inf))) for card in cards]
    assert max(largest) / min(largest) > 2.0
    assert max(least) / min(least) < 1.3


def test_ranges_hold_most_files_of_each_kind_and_the_widest_counts() -> None:
    # Of 0, 1, ..., 20 nine tenths lie from 1 to 19; of the other group from 31 to 49. The last feature never varies.
    step = np.arange(21.0)
    features = np.stack([np.r_[step, 30 + step], np.r_[step, step], np.full(42, 5.0)], axis=1)
    rule = fit_range(features, np.repeat([0, 1], 21), 0.9)
    np.testing.assert_allclose(rule.low, [1, 1, 4.5], rtol=1e-6)
    np.testing.assert_allclose(rule.high, [49, 19, 5.5], rtol=1e-6)
    rule.limit.fill_(0.5)
    found = rule(torch.tensor([[25.0, 10.0, 5.0], [97.0, 10.0, 5.0], [25.0, -17.0, 7.5]]))
    # Outside by one width of 48; by one of 18 and two of 1.
    np.testing.assert_allclose(found, [0.0, 2 * np.sqrt(1 / 3), 2 * np.sqrt(5 / 3)], rtol=1e-6)
    # Files that are left out lie outside by up to a step or two: few exceed the limit, and none by much.
    rule = fit_range(features, np.repeat([0, 1], 21), 0.9)
    inside = rule(torch.from_numpy(features).float())
    assert 0 < float(inside.max()) < 3 and float((inside > 1).float().mean()) <= 0.1


def test_a_limit_of_ranges_is_kept_when_all_files_are_alike_or_one() -> None:
    for features in (np.ones((12, 3)), np.ones((1, 3))):
        rule = fit_range(features, np.zeros(len(features), np.int64), 0.9)
        found = rule(torch.tensor([[1.0, 1.0, 1.0], [9.0, 9.0, 9.0]]))
        assert float(found[0]) == 0.0 and float(found[1]) > 1.0


def test_a_feature_far_out_of_range_is_unsupported_where_the_others_lie_near() -> None:
    """One of forty features that no training file has, and all others in the middle: the distance is a usual one."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(160, 40)) + 3 * (np.arange(160) >= 80)[:, None]
    is_fake, kinds = np.arange(160) >= 80, ["ann"] * 40 + ["bob"] * 40 + ["gan"] * 40 + ["vae"] * 40
    found = cross_validate(is_fake, kinds, LinearLearner(x, is_fake, kinds), rng)
    card = make_card("image", 1, found)
    rule = fit_novelty(x, is_fake, kinds)
    odd = 0.1 * rng.normal(size=(30, 40))
    odd[:, 0] = -7.0
    known = rng.normal(size=(200, 40))

    def unlike(novelties: torch.Tensor) -> list[bool]:
        return [card.is_unlike(float(novelty)) for novelty in novelties]

    assert none_of(unlike(rule.distances(torch.from_numpy(odd).float()).amin(dim=1)))
    assert all_of(unlike(rule(torch.from_numpy(odd).float())))
    assert np.mean(unlike(rule(torch.from_numpy(known).float()))) < 0.15


def test_small_and_unknown_kinds_are_one_group_of_their_class() -> None:
    x, is_fake, kinds = files(np.random.default_rng(2))
    kinds = [None if k == "gan" else k for k in kinds]
    kinds[0] = "seldom"
    # ann, bob, flow, vae, the unnamed synthetic ones, and the one real file of a kind of its own.
    assert len(fit_novelty(x, is_fake, kinds).means) == 6


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
    learned = LinearLearner(x, is_fake, [None] * 400, changed=after)(np.arange(400))
    assert np.mean((learned(np.arange(400))[0] > 0) == is_fake) > 0.9


def _recording(n: int) -> tuple[Learner, list[tuple[set[int], set[int]]]]:
    rounds: list[tuple[set[int], set[int]]] = []

    def learn(rows: np.ndarray) -> Scorer:
        def score(others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            rounds.append((set(rows.tolist()), set(others.tolist())))
            return others.astype(float), others.astype(float) + 0.5

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
    np.testing.assert_array_equal(found.unseen_novelty, np.arange(len(x)) + 0.5)
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
    found = cross_validate(is_fake, kinds, LinearLearner(x, is_fake, kinds), rng)
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
    assert card.novelties == tuple(np.sort(found.seen_novelty)) and card.novelty_rate == 0.1
    calibration = Calibration(0)
    calibrate(calibration, found)
    shown = torch.softmax(calibration(torch.from_numpy(found.unseen_scores).float()).double(), dim=1)[:, 0].numpy()
    np.testing.assert_allclose(np.sort(shown[is_fake]), card.fake_scores, atol=1e-6)
    errors = [equal_error_rate(positives=c.fake_scores, negatives=c.real_scores).value for c in found.cells]
    assert len(errors) == 6 and max(errors) < 0.2


def test_a_file_far_from_every_kind_ends_in_cannot_say() -> None:
    rng = np.random.default_rng(7)
    x, is_fake, kinds = files(rng, shift=4.0)
    learn = LinearLearner(x, is_fake, kinds)
    card = make_card("image", 1, cross_validate(is_fake, kinds, learn, rng))
    far = np.concatenate([x, x[:1] + 50.0])
    scores, novelty = LinearLearner(far, np.r_[is_fake, True], [*kinds, "new"])(np.arange(len(x)))(np.asarray([150]))
    assert judge_file(card, float(probabilities(scores, 1.0, 0.0)[0]), float(novelty[0])).answer == "cannot say"


def test_the_same_seed_gives_the_same_card() -> None:
    x, is_fake, _ = files(np.random.default_rng(9))
    cards = [
        make_card(
            "speech",
            1,
            cross_validate(is_fake, [None] * 150, LinearLearner(x, is_fake, [None] * 150), np.random.default_rng(3)),
        )
        for _ in range(2)
    ]
    assert cards[0] == cards[1]


def test_a_head_refuses_a_class_that_is_none_of_two() -> None:
    with pytest.raises(ValueError, match="0 or 1"):
        LinearHead(3, fake=2)
