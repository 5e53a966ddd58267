"""Two language models compared pair by pair on the sentences both read: what is counted, and how often it is wrong."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import ndtri

import probes.language.preference_shares
from auditor.judging.measurement import Measurement
from auditor.models.language_model import AuditedLanguageModel
from auditor.report.comparing.compare_audits import compare
from auditor.report.comparing.side_by_side import Row
from auditor.report.drawing.svg import draw_svg
from auditor.run.run_audit import no_data, run_audit
from auditor.statistics.changes import RateChange
from auditor.statistics.clusters import ClusteredMean
from auditor.statistics.rates import Proportion
from auditor.statistics.tradeoff_statistics import PreferenceChange
from auditor.statistics.values import BoundedMean
from probes.language.crows_pairs_and_stereoset import CrowsPairs
from probes.language.preference_shares import mean_of_pairs, preferences, shifts
from probes.language.stereotype import Stereotype, built_in_pairs, moved_most
from probes.language.winobias_winogender import Winogender
from probes.performance.language_performance import plain_sentences
from probes.performance.performance import Performance
from tests.probes.language.pair_toys import (
    CRITERION,
    RNG,
    Associations,
    crows_file,
    number_labels_once,
    split,
    texts_of,
    toy,
)
from tests.quantifiers import all_of
from tests.report.samples import HOSTILE
from tests.statistics.worlds import most_misses
from tests.toys.language import causal_tokenizer
from tests.toys.skilled import Skilled

WORLDS = 150
SHAPES = {
    "40 writers": [np.repeat(np.arange(40), 8)],
    "60 jobs": [np.repeat(np.arange(60), 4)],
    "30 x 12": [np.repeat(np.arange(30), 12), np.tile(np.arange(12), 30)],
}


def headline(found: list[Measurement], metric: str) -> Measurement:
    (own,) = (m for m in found if m.metric == metric and not m.group)
    return own


def test_what_became_of_each_pair_is_counted(tmp_path: Path) -> None:
    pairs = built_in_pairs().examples[::9]
    file = crows_file(tmp_path, pairs)
    before, after = toy(texts_of(pairs), 1.0), toy(texts_of(pairs), 0.0)
    found = CrowsPairs(benchmarks={"crows_pairs": file}, reference=before).measure(after, no_data(), RNG)
    old, new = (preferences(model.pair_scores(texts_of(pairs))) for model in (before, after))
    shift, midpoint = (headline(found, f"stereotype_score_{name}") for name in ("shift", "midpoint"))
    assert shift.estimate.value == pytest.approx(np.mean((1 + new - old) / 2), abs=1e-12)
    assert midpoint.estimate.value == pytest.approx(np.mean((new + old) / 2), abs=1e-12)
    assert shift.n_samples == len(pairs) and isinstance(shift.estimate, ClusteredMean)
    change = PreferenceChange(shift=shift.estimate, midpoint=midpoint.estimate)
    assert change.value == pytest.approx(np.mean(new) - np.mean(old), abs=1e-12)
    assert headline(found, "stereotype_score").estimate.value == pytest.approx(np.mean(new), abs=1e-12)
    alone = CrowsPairs(benchmarks={"crows_pairs": file}).measure(after, no_data(), RNG)
    assert [m.metric for m in alone] == [m.metric for m in found if not m.metric.endswith(("shift", "midpoint"))]


def winogender(folder: Path, jobs: int) -> str:
    lines, stats = ["sentid\tsentence"], ["occupation\tbls_pct_female"]
    for i in range(jobs):
        stats.append(f"job{i}\t{(90, 10, 50)[i % 3]}")
        for k in range(4):
            for word, gender in (("he", "male"), ("she", "female")):
                lines.append(f"job{i}.p{k}.1.{gender}.txt\tThe job{i} said {word} saw number{k} .")
    (folder / "all_sentences.tsv").write_text("\n".join(lines))
    (folder / "occupations-stats.tsv").write_text("\n".join(stats))
    return str(folder)


def test_winogender_counts_both_headlines(tmp_path: Path) -> None:
    jobs = 30
    sentences = [
        (f"The job{i} said he saw number{k} .", f"The job{i} said she saw number{k} .")
        for i in range(jobs)
        for k in range(4)
    ]
    before, after = toy(sentences, 1.0), toy(sentences, 0.0)
    probe = Winogender(benchmarks={"winogender": winogender(tmp_path, jobs)}, reference=before)
    found = probe.measure(after, no_data(), RNG)
    old, new = (preferences(model.pair_scores(sentences)) for model in (before, after))
    jobs_of = np.repeat(np.arange(jobs), 4)
    for metric, values in (
        ("male_preference", new - old),
        ("stereotype_score", np.where(jobs_of % 3 == 0, -1, 1)[jobs_of % 3 < 2] * (new - old)[jobs_of % 3 < 2]),
    ):
        shift = headline(found, f"{metric}_shift")
        assert shift.estimate.value == pytest.approx((1 + values.mean()) / 2, abs=1e-12)
        assert shift.n_samples == values.size


def test_a_comparison_takes_what_became_of_each_pair(tmp_path: Path) -> None:
    """Every sentence of a stereotype was likelier, and then about half of them: shown, pair by pair."""
    pairs = built_in_pairs().examples[::4]
    files = {"crows_pairs": crows_file(tmp_path, pairs)}
    strong, none = toy(texts_of(pairs), 1.0), toy(texts_of(pairs), 0.0)

    def compared(before: AuditedLanguageModel, after: AuditedLanguageModel) -> Row:
        probes = CrowsPairs(benchmarks=files), CrowsPairs(benchmarks=files, reference=before)
        audits = (
            run_audit(m, no_data(), [Skilled(), p], [CRITERION]) for m, p in zip((before, after), probes, strict=True)
        )
        found = compare(*audits)
        assert found.exit_code in (1, 3)
        (row,) = (row for row in found.rows if not row.of and row.probe == "crows_pairs")
        return row

    row = compared(strong, none)
    assert row.paired and row.verdict == "better" and row.interval is not None and row.interval[1] < 0.0
    assert row.difference == pytest.approx(row.after.value - row.before.value, abs=1e-12)
    assert compared(none, strong).verdict == "worse"
    same = compared(none, none)
    assert same.verdict == "no change shown" and same.difference == 0.0


def test_log_odds_are_compared_in_nats_pair_by_pair(tmp_path: Path) -> None:
    jobs = 30
    sentences = [
        (f"The job{i} said he saw number{k} .", f"The job{i} said she saw number{k} .")
        for i in range(jobs)
        for k in range(4)
    ]
    before, after = toy(sentences, 0.0), toy(sentences, 0.5)
    files = {"winogender": winogender(tmp_path, jobs)}
    within = CRITERION.model_copy(update={"metric": "stereotype_log_odds", "bound": (-0.4, 0.4)})
    first = run_audit(before, no_data(), [Winogender(benchmarks=files)], [within])
    second = run_audit(after, no_data(), [Winogender(benchmarks=files, reference=before)], [within])
    (row,) = (row for row in compare(first, second).rows if row.metric == "stereotype_log_odds")
    assert row.paired and row.ideal == 0.0
    assert row.difference == pytest.approx(row.after.value - row.before.value, abs=1e-9)
    change = PreferenceChange(
        **{
            name: next(f.estimate for f in second.findings if f.metric == f"stereotype_log_odds_{name}")
            for name in ("shift", "midpoint")
        }
    )
    in_nats = change.model_copy(update={"span": 8.0, "ideal": 0.0})
    assert row.interval is not None and row.interval[0] < row.difference < row.interval[1]
    assert row.difference == pytest.approx(in_nats.value, abs=1e-9)
    for alpha in (0.05, 0.01):
        assert in_nats.bounds(alpha) == pytest.approx([8.0 * x for x in change.bounds(alpha)])
        assert in_nats.distance_bounds(alpha) == pytest.approx([8.0 * x for x in change.distance_bounds(alpha)])


class Follows(Associations):
    """A causal model that looks at the last token alone."""

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table(input_ids))


def test_word_order_is_compared_text_by_text() -> None:
    """A model that knows every order, and one that knows none: it is what a language model is worth."""
    sentences = plain_sentences()
    tokenizer = causal_tokenizer(sorted({word for text in sentences for word in split(text)}))
    size = len(tokenizer)
    knows, nothing = torch.zeros(size, size), torch.zeros(size, size)
    for text in sentences:
        ids = [tokenizer.convert_tokens_to_ids(word) for word in split(text)]
        for first, second in zip(ids, ids[1:], strict=False):
            knows[first, second] += 8.0
    before, after = (AuditedLanguageModel(Follows(t), tokenizer, objective="causal") for t in (knows, nothing))
    (change,) = (
        m.estimate
        for m in Performance(reference=before).measure(after, no_data(), np.random.default_rng(0))
        if m.metric == "word_order_accuracy_change"
    )
    assert isinstance(change, RateChange) and change.n == 64 and change.rate(after=False).value > 0.8
    audits = run_audit(before, no_data(), [Performance()]), run_audit(after, no_data(), [Performance(reference=before)])
    found = compare(*audits)
    (row,) = found.usefulness.rows
    assert row.metric == "word_order_accuracy" and row.paired and row.verdict == "worse"
    assert found.exit_code == 1 and "word_order_accuracy is shown to have fallen by more than 0.02" in found.conclusion


def test_a_share_that_was_no_change_shown_is_shown_to_have_changed() -> None:
    """From .600 to .506 over 60 jobs of four sentences, of which most are preferred as before."""
    rng = np.random.default_rng(0)
    before = np.repeat((np.arange(60) < 36).astype(float), 4)
    after = before.copy()
    after[rng.choice(np.flatnonzero(before == 1.0), 26, replace=False)] = 0.0
    after[rng.choice(np.flatnonzero(before == 0.0), 3, replace=False)] = 1.0
    change = change_of(before, after, [np.repeat(np.arange(60), 4)])
    low, high = change.bounds(0.0125)
    assert change.value == pytest.approx(-23 / 240) and -0.25 < low < high < 0.0
    apart = [mean_of_pairs(side, [(str(i // 4),) for i in range(240)]).bounds(0.00625) for side in (before, after)]
    assert apart[1][0] - apart[0][1] < 0.0 < apart[1][1] - apart[0][0]


def change_of(before: np.ndarray, after: np.ndarray, labels: list[np.ndarray]) -> PreferenceChange:
    names = list(zip(*(codes.astype(str).tolist() for codes in labels), strict=True))
    like = Measurement(metric="stereotype_score", estimate=Proportion(successes=0, n=1), n_samples=1)
    shift, midpoint = shifts(before, after, lambda values: mean_of_pairs(values, names), like, "the reference")
    return PreferenceChange(shift=shift.estimate, midpoint=midpoint.estimate)


def worlds(
    rng: np.random.Generator, labels: list[np.ndarray], before: float, after: float, alike: float
) -> tuple[np.ndarray, np.ndarray]:
    """(n_worlds, n) preferences of two models that share ``alike`` of what they think of each level of the labels."""
    spread, sides = 1.5, []
    shared = [rng.normal(size=(WORLDS, int(codes.max()) + 1)) for codes in labels]
    for share in (before, after):
        latent = rng.normal(
            float(ndtri(share)) * math.sqrt(1.0 + spread**2 * len(labels)), 1.0, (WORLDS, len(labels[0]))
        )
        for codes, common in zip(labels, shared, strict=True):
            own = rng.normal(size=common.shape)
            latent += spread * (math.sqrt(alike) * common + math.sqrt(1.0 - alike) * own)[:, codes]
        sides.append((latent > 0).astype(np.float64))
    return sides[0], sides[1]


@pytest.mark.grid
@pytest.mark.parametrize("alike", [0.0, 0.9])
@pytest.mark.parametrize("truth", [(0.5, 0.5), (0.65, 0.35), (0.65, 0.65)])
@pytest.mark.parametrize("shape", SHAPES)
def test_neither_nearer_nor_farther_is_shown_more_often_than_promised(
    shape: str, truth: tuple[float, float], alike: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two models that are as far from no preference, on the same side or on either: at 5 % each, and the change's
    own interval too."""
    number_labels_once(monkeypatch, probes.language.preference_shares)
    labels = SHAPES[shape]
    rng = np.random.default_rng([14, len(labels[0]), int(100 * sum(truth)), int(10 * alike)])
    missed = dict.fromkeys(("nearer", "farther", "above", "below"), 0)
    for old, new in zip(*worlds(rng, labels, *truth, alike), strict=True):
        change = change_of(old, new, labels)
        (low, high), (least, most) = change.distance_bounds(0.05), change.bounds(0.05)
        moved = truth[1] - truth[0]
        for name, wrong in zip(missed, (high < 0.0, low > 0.0, least > moved, most < moved), strict=True):
            missed[name] += wrong
    assert max(missed.values()) <= most_misses(0.05, WORLDS), missed


def test_pairs_of_nobody_are_independent_and_unread_ones_are_left_out() -> None:
    before, after = np.asarray([1.0, 0.5, 0.0, np.nan, 1.0]), np.asarray([0.0, 0.5, 0.0, 1.0, np.nan])
    like = Measurement(metric="m", estimate=Proportion(successes=0, n=1), n_samples=5, method="x")
    shift, _ = shifts(before, after, lambda values: mean_of_pairs(values, [()] * 5), like, "y")
    assert isinstance(shift.estimate, BoundedMean) and shift.n_samples == 3
    assert shift.estimate.value == pytest.approx((0.0 + 0.5 + 0.5) / 3)


def test_a_reference_that_is_no_language_model_is_left_to_other_probes(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"nothing")
    pairs = texts_of(built_in_pairs().examples)
    found = Stereotype(reference=str(tmp_path / "weights.bin")).measure(toy(pairs, 0.0), no_data(), RNG)
    assert all_of(not m.metric.endswith("_shift") for m in found)


# ---- the pairs that moved most ---------------------------------------------------------------------------------------


def test_the_pairs_that_moved_most_are_those_farthest_apart_by_hand() -> None:
    pairs = [
        (f"The {a} is here .", f"The {b} is here .") for a, b in (("man", "woman"), ("old man", "man"), ("x", "x"))
    ]
    now = np.asarray([[-5.0, -6.0], [-9.0, -5.0], [np.nan, -1.0]])
    figure = moved_most(pairs, now, None, "crows_pairs")
    assert figure is not None and figure.kind == "pairs"
    assert figure.series[0].x == ("man / woman · The man is here .", "old / (nothing) · The old man is here .")
    assert figure.series[0].y == (1.0, -4.0) and "man / woman in: The man is here . +1.00" in figure.alt
    before = np.asarray([[-5.0, -9.0], [-9.0, -5.0], [-1.0, -1.0]])
    since = moved_most(pairs, now, before, "crows_pairs")
    assert since is not None and since.series[0].y == (0.0, -3.0) and since.title.endswith("since the earlier model")
    assert moved_most(pairs[2:], now[2:], None, "crows_pairs") is None


def test_many_pairs_are_bounded_and_hostile_ones_are_text() -> None:
    pairs = [(f"{name} a{i} b", f"{name} c{i} b") for i in range(20) for name in HOSTILE]
    rng = np.random.default_rng(5)
    figure = moved_most(pairs, rng.normal(size=(len(pairs), 2)), None, "crows_pairs")
    assert figure is not None and len(figure.series[0].x) == 8 and f"8 of {len(pairs)} pairs" in figure.caption
    drawn = draw_svg(figure, dom_id="f")
    assert len(drawn) < 30_000 and "<script" not in drawn and "<img" not in drawn and "\u202e" not in drawn


def test_a_probe_of_pairs_hands_over_the_picture(tmp_path: Path) -> None:
    pairs = built_in_pairs().examples[::40]
    probe = CrowsPairs(benchmarks={"crows_pairs": crows_file(tmp_path, pairs)})
    found = headline(probe.measure(toy(texts_of(pairs), 1.0), no_data(), RNG), "conditional_stereotype_score")
    assert found.figure is not None and found.figure.probe == probe.name
    assert all_of(y is not None and y > 0.0 for y in found.figure.series[0].y)
