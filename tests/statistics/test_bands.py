"""Bands about the shares of groups over a threshold: they hold at all thresholds and for all groups at once."""

from __future__ import annotations

import math

import numpy as np
import pytest

from auditor.statistics.threshold_bounds import joint_shares

WORLDS = 2_000
PLACES = np.linspace(0.0, 1.0, 21)


def _of_scores(scores: list[np.ndarray]) -> np.ndarray:
    return np.asarray([np.bincount(np.searchsorted(PLACES, own, "right") - 1, minlength=21) for own in scores])


def test_the_band_holds_everywhere_at_once_in_as_many_worlds_as_it_says() -> None:
    """2,000 worlds of three groups of 40, 150 and 600 with scores of their own: at most 5 % and three standard errors.

    Each world misses where any share of any group, or their largest difference, lies outside its band anywhere.
    """
    rng = np.random.default_rng(41)
    # Shares of the scores in each bin, chosen so that much lies in few bins, where a band is most easily left.
    chances = np.stack(
        [np.full(21, 1 / 21), np.r_[0.02, np.full(19, 0.5 / 19), 0.48], np.r_[np.full(20, 0.4 / 20), 0.6]]
    )
    truth = chances[:, ::-1].cumsum(axis=1)[:, ::-1]
    apart = truth.max(axis=0) - truth.min(axis=0)
    counts = np.stack([rng.multinomial(n, p, WORLDS) for n, p in zip((40, 150, 600), chances, strict=True)], axis=1)
    missed = missed_apart = 0
    for own in counts:
        found = joint_shares(own, error=0.05)
        out = ((truth < found.low - 1e-12) | (truth > found.high + 1e-12)).any()
        far = ((apart < found.difference_low - 1e-12) | (apart > found.difference_high + 1e-12)).any()
        missed, missed_apart = missed + bool(out or far), missed_apart + bool(far and not out)
    assert missed <= WORLDS * (0.05 + 3.0 * math.sqrt(0.05 * 0.95 / WORLDS))
    # Half as wide it would miss in more worlds than that: the test can fail.
    narrow = [joint_shares(own, error=0.05) for own in counts[:400]]
    worse = sum(
        bool((np.abs(truth - f.shares) > (f.high - f.shares + 1e-12) / 2.0)[f.high < 1.0].any()) for f in narrow
    )
    assert worse > 400 * 0.08
    # The difference's band is made of the groups' own, and cannot be left where they hold.
    assert missed_apart == 0


def test_shares_are_those_of_counting_the_rows() -> None:
    rng = np.random.default_rng(3)
    scores = [rng.beta(a, 2.0, n) for a, n in ((1.0, 37), (3.0, 80))]
    scores[0][:2] = 0.0, 1.0
    found = joint_shares(_of_scores(scores), error=0.05)
    by_hand = np.asarray([[(own >= t).mean() for t in PLACES] for own in scores])
    assert found.shares == pytest.approx(by_hand)
    assert found.difference == pytest.approx(np.abs(by_hand[0] - by_hand[1]))
    width = math.sqrt(math.log(4 / 0.05) / (2 * 37))
    assert found.low[0] == pytest.approx(np.maximum(by_hand[0] - width, 0.0))
    assert found.difference_low == pytest.approx(np.maximum(found.low.max(axis=0) - found.high.min(axis=0), 0.0))
