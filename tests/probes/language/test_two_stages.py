"""A sample whose size is fixed after a first stage: by variances alone, and with the error rate that is promised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from auditor.run.run_audit import no_data
from benchmarks.continuations_in_two_stages import study
from probes.language.continuations import continuations_needed, variances
from tests.probes.language.talkers import goodness, probe_of, talker


def test_variances_by_hand() -> None:
    scores = np.asarray([[[0.0, 0.2], [0.4, 0.4]], [[0.1, 0.1], [0.3, 0.7]], [[0.5, 0.5], [0.6, 0.8]]])
    within = np.mean([0.02, 0.0, 0.0, 0.08, 0.0, 0.02])
    differences = np.asarray([0.1 - 0.4, 0.1 - 0.5, 0.5 - 0.7])
    assert variances(scores) == pytest.approx((2 * within, max(differences.var(ddof=1) - within, 0.0)))


@pytest.mark.parametrize("seed", range(5))
def test_what_was_found_has_no_say_in_the_size(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.random((40, 3, 2)) * 0.3
    size = continuations_needed(scores, 0.02, 100)
    assert 2 < size < 100
    # Whatever the identities' means are, and whichever scores worse.
    for moved in (scores + np.asarray([0.0, 0.3, 0.6])[None, :, None], scores[:, ::-1]):
        assert continuations_needed(moved, 0.02, 100) == size


def test_the_size_falls_with_the_width_and_stops_at_what_was_drawn_and_at_the_budget() -> None:
    scores = np.random.default_rng(0).random((40, 2, 2))
    sizes = [continuations_needed(scores, width, 1_000) for width in (0.04, 0.08, 0.2, 1.0)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[1] > sizes[-1] == 2
    assert continuations_needed(scores, 0.01, 7) == 7 and continuations_needed(scores, 0.01, 1) == 2
    assert continuations_needed(np.zeros((40, 2, 2)), 0.01, 50) == 2
    # Where beginnings alone scatter more, more continuations of each are of little use.
    apart = scores * 0.1 + np.random.default_rng(1).random((40, 2, 1)) * 0.9
    assert continuations_needed(apart, 0.001, 1_000) < 50


def test_a_gap_at_its_bound_is_judged_wrongly_no_more_often_than_is_said() -> None:
    for kind in ("wide", "rare"):
        found = study(kind, 500, 1)
        # 0.05 and what chance explains once in a thousand such studies.
        assert found["two_below"] <= 0.05 + 3.1 * (0.05 * 0.95 / 500) ** 0.5
        assert found["two_above"] <= 0.05 + 3.1 * (0.05 * 0.95 / 500) ** 0.5
        assert found["smallest"] < found["largest"] and found["mean"] > 2.5


def test_a_scan_draws_what_the_first_stage_asks_for_and_says_so(tmp_path: Path) -> None:
    def sizes(**options: object) -> tuple[set[int], str]:
        found = probe_of(tmp_path, goodness(), n_templates=20, n_samples=2, **options).measure(
            talker(None), no_data(), np.random.default_rng(0)
        )
        gap = next(m for m in found if m.metric == "worst_score_gap")
        flags = next(m for m in found if m.metric == "flagged_rate" and "identity" in m.at)
        return {flags.n_samples // 20}, gap.detail

    # The toy says the same of everybody, so that its first two are enough.
    (n,), said = sizes(max_continuations=4_000)
    assert n == 2 and "2 continuations of each prompt, fixed by the variances of the first 2" in said
    (n,), said = sizes()
    assert n == 2 and "fixed by" not in said


def test_scores_that_vary_ask_for_more(tmp_path: Path) -> None:
    from auditor.models.audited_model import AuditedModel

    draw = np.random.default_rng(0)
    noisy = AuditedModel.from_callable(lambda texts: draw.random(len(texts)), classes=("bad", "good"))
    for most, expected in ((4_000, range(10, 101)), (200, (5,)), (1, (2,))):
        found = probe_of(tmp_path, noisy, n_templates=20, n_samples=2, max_continuations=most).measure(
            talker(None), no_data(), np.random.default_rng(0)
        )
        gap = next(m for m in found if m.metric == "worst_score_gap")
        n = int(gap.detail.split(" continuations of each prompt, fixed")[0].split()[-1])
        assert n in expected and n * 40 <= max(most, 80)
