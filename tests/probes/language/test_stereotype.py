"""The built-in pairs: planted bias is found, its absence passes, and the error rates are what is promised."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

import probes.language.preference_shares
from auditor.core.rows import FloatArray, IntArray
from auditor.data.benchmarks.benchmark import SentencePair
from auditor.judging.criterion import Criterion
from auditor.judging.judging import judge
from auditor.judging.measurement import Outcome
from auditor.run.run_audit import run_audit
from auditor.statistics.estimate_kinds import AnyEstimate
from probes.language.crows_pairs_and_stereoset import CrowsPairs
from probes.language.preference_shares import clustered_share, stereotype_scores
from probes.language.stereotype import Stereotype, built_in_pairs
from probes.language.winobias_winogender import WinoBias, Winogender
from tests.probes.language.pair_toys import (
    number_labels_once,
    outcome,
    preferences_of,
    result,
    texts_of,
    toy,
    undecided_toy,
)
from tests.quantifiers import all_of
from tests.statistics.worlds import misses, most_misses
from tests.toys.skilled import Skilled

# ---- the built-in pairs --------------------------------------------------------------------------------------------


def test_the_built_in_pairs_are_balanced_and_original() -> None:
    found = built_in_pairs()
    assert len(found.examples) == 1280
    assert len(texts := {t for p in found.examples for t in (p.more, p.less)}) == 2560, "no text stands twice"
    assert all_of(t[0].isupper() and t.endswith(".") and "{" not in t and "  " not in t for t in texts)
    assert {p.category for p in found.examples} == {
        "gender", "race", "religion", "age", "nationality", "sexual_orientation", "disability", "socioeconomic",
    }  # fmt: skip
    first_is_more: Counter[tuple[str, bool]] = Counter()
    for pair in found.examples:
        first = pair.clusters[1].split(": ")[1].split(" / ")[0]
        first_is_more[pair.clusters[1], pair.more.startswith(first)] += 1
    assert len(first_is_more) == 2 * 96
    assert all_of(first_is_more[key, True] == first_is_more[key, False] for key, _ in first_is_more)


def test_no_built_in_sentence_is_of_crows_pairs() -> None:
    data = os.environ.get("AUDITOR_TEST_DATA")
    if data is None or not (Path(data) / "crows_pairs").is_dir():
        pytest.skip("AUDITOR_TEST_DATA names no folder with crows_pairs/")
    with (Path(data) / "crows_pairs" / "crows_pairs_anonymized.csv").open(encoding="utf-8") as file:
        published = {row[c] for row in csv.DictReader(file) for c in ("sent_more", "sent_less")}
    assert not published & {t for p in built_in_pairs().examples for t in (p.more, p.less)}


# ---- planted and absent --------------------------------------------------------------------------------------------


def test_an_unbiased_model_passes_and_a_planted_bias_fails() -> None:
    pairs = texts_of(built_in_pairs().examples)
    fair, biased = toy(pairs, 0.0), toy(pairs, 1.0)
    report = run_audit(fair, None, [Skilled(), Stereotype()])
    (overall, *others) = (f for f in report.findings if f.probe == "stereotype")
    assert (overall.metric, overall.outcome) == ("stereotype_log_odds", "PASS")
    assert overall.value == pytest.approx(0.0, abs=0.15)
    assert {f.outcome for f in others} == {"NOT_JUDGED"}
    shares = {"conditional_stereotype_score", "stereotype_score"}
    assert Counter(f.metric for f in others if f.group) == dict.fromkeys({overall.metric, *shares}, 8)
    of_all = {f.metric: f for f in others if not f.group}
    assert of_all.keys() == shares
    assert all_of(f.value == pytest.approx(0.5, abs=0.03) and "ties" not in f.detail for f in of_all.values())
    assert report.exit_code == 0
    alone = run_audit(fair, None, [Stereotype()])
    assert (alone.exit_code, alone.findings[0].outcome) == (3, "INCONCLUSIVE")
    assert "word order and sense were not measured" in alone.findings[0].reason
    report = run_audit(biased, None, [Stereotype()])
    assert report.findings[0].outcome == "FAIL"
    assert report.findings[0].value is not None and report.findings[0].value > 3.0
    assert all_of(f.value is not None and f.value > 0.8 for f in report.findings if f.metric in shares)
    assert "Log-likelihood after <s>" in report.findings[0].detail
    assert "sha256" in report.findings[0].detail


def test_a_model_that_ties_has_not_answered() -> None:
    pairs = built_in_pairs().examples
    texts = [t for pair in texts_of(pairs) for t in pair]
    report = run_audit(undecided_toy(texts), None, [Stereotype()])
    # The other pairs are of mentions of unequal length.
    assert (report.findings[0].value, report.findings[0].outcome) == (0.0, "INCONCLUSIVE")
    assert "equally likely in 1,152 of 1,280 pairs" in report.findings[0].reason
    assert report.exit_code == 3


@pytest.mark.parametrize(("ties", "expected"), [(640, Outcome.PASS), (641, Outcome.INCONCLUSIVE)])
def test_up_to_half_of_the_pairs_may_tie(ties: int, expected: Outcome) -> None:
    pairs = built_in_pairs().examples
    # Everything else is as likely one way as the other, in every sentence and for every pair of mentions.
    preferred = np.arange(1280) // 8 % 2 ^ np.arange(1280) % 2
    tied = np.random.default_rng(0).permutation(1280) < ties
    (overall, *_) = stereotype_scores(pairs, np.where(tied, 0.5, preferred), "built_in_pairs", "")
    assert outcome(overall) is expected
    assert f"{ties} ties count half" in overall.detail


def test_a_preference_for_mentions_alone_is_no_stereotype() -> None:
    pairs = built_in_pairs().examples
    likes_first = np.asarray([p.more.startswith(p.clusters[1].split(": ")[1].split(" / ")[0]) for p in pairs])
    (overall, *rest) = stereotype_scores(pairs, likes_first.astype(np.float64), "built_in_pairs", "")
    assert overall.estimate.value == 0.5
    assert [m.estimate.value for m in rest] == [0.5] * 8
    assert outcome(overall) is Outcome.PASS


def test_a_criterion_may_ask_for_a_category() -> None:
    pairs = built_in_pairs().examples
    measured = stereotype_scores(pairs, np.asarray([float(i % 11 > 0) for i in range(1280)]), "built_in_pairs", "")
    criterion = Criterion(
        metric="stereotype_score", direction="within", bound=(0.35, 0.45), source="s", set_by="b", set_at="a",
        group={"category": "age"},
    )  # fmt: skip
    findings, family = judge([result(measured)], [criterion])
    assert family.m == 1
    assert [f.outcome for f in findings if f.criterion] == [Outcome.FAIL]


def labels_of(clusters: Sequence[tuple[str, ...]]) -> list[IntArray]:
    return [np.unique(column, return_inverse=True)[1] for column in zip(*clusters, strict=True)]


def simulated(clusters: Sequence[tuple[str, ...]], worlds: FloatArray) -> Iterator[AnyEstimate]:
    """The share of preferences in every world, (n_worlds, n); in the first, as the probe itself measures it."""
    pairs = [SentencePair("", "", "", c) for c in clusters]
    columns = list(zip(*clusters, strict=True))
    strata = [pair.stratum for pair in pairs]
    (measured, *_) = stereotype_scores(pairs, worlds[0], "built_in_pairs", "")
    estimates = (clustered_share(world, columns, strata) for world in worlds)
    first = next(estimates)
    assert first == measured.estimate
    return chain([first], estimates)


@pytest.mark.grid
@pytest.mark.parametrize("share", [0.45, 0.5, 0.55])
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_false_alarms_and_false_passes_at_the_bound_and_under_the_null(
    spread: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At either bound a FAIL is a bound beyond it and a PASS one within; a FAIL under the null is rarer still."""
    number_labels_once(monkeypatch, probes.language.preference_shares)
    clusters = DESIGNS[Stereotype]
    worlds = preferences_of(np.random.default_rng(12), labels_of(clusters), spread, share)
    assert max(misses(simulated(clusters, worlds), share)) <= most_misses()


DESIGNS = {
    Stereotype: [p.clusters for p in built_in_pairs().examples],
    CrowsPairs: [(f"writer{i % 77}",) for i in range(1508)],
    WinoBias: [(f"pair{i // 4}", f"job{i % 40}") for i in range(1584)],
    Winogender: [(f"job{i // 4}",) for i in range(240)],
}


@pytest.mark.grid
@pytest.mark.parametrize("kind", DESIGNS, ids=lambda kind: kind.name)
def test_power_is_what_the_probes_declare(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    number_labels_once(monkeypatch, probes.language.preference_shares)
    n, share = kind.power  # type: ignore[attr-defined]
    assert n == len(DESIGNS[kind])
    rng = np.random.default_rng(13)
    pairs = [SentencePair("", "", "", clusters) for clusters in DESIGNS[kind]]
    found = []
    for _ in range(200):
        (overall,) = stereotype_scores(pairs, (rng.random(n) < share).astype(np.float64), "", "")
        found.append(outcome(overall))
    # 143 is what a true power of 80 % undercuts once in a thousand times.
    assert found.count(Outcome.FAIL) >= 143
