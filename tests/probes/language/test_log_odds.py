"""The log-odds of stereotypes: names alone decide nothing, a bias of known size is found, and its error rates hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

import probes.language.preference_shares
import probes.language.stereotype
from auditor.core.rows import FloatArray
from auditor.data.benchmarks.benchmark import SentencePair
from auditor.judging import judgement as vacuity
from auditor.judging.criterion import Criterion, load_criteria
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.language_model import AuditedLanguageModel
from auditor.run.run_audit import no_data, run_audit
from auditor.statistics.clusters import ClusteredValue
from auditor.statistics.estimate import Undefined
from auditor.statistics.rates import Proportion
from probes.language.preference_shares import preferences
from probes.language.sense_check import sense_accuracy
from probes.language.stereotype import (
    LIMIT,
    Stereotype,
    about_the_middle,
    built_in_pairs,
    log_odds,
    mean_log_odds,
    of_the_mention,
)
from probes.performance.performance import Performance
from tests.probes.language.pair_toys import RNG, number_labels_once, result, split, toy, undecided_toy
from tests.statistics.worlds import misses, most_misses
from tests.toys.language import causal_tokenizer, tiny, tiny_bert

PAIRS = built_in_pairs().examples
SENTENCES, MENTIONS = (np.unique([p.clusters[i] for p in PAIRS], return_inverse=True)[1] for i in (0, 1))
# 1 where the more stereotypical sentence names the first mention.
SIDE = np.asarray([1.0 if p.stratum.endswith(": first") else -1.0 for p in PAIRS])
WORLDS = 200


class Drawn(AuditedLanguageModel):
    """A model with given differences of log-likelihoods in the built-in pairs, (n,) of the mentions and of the rest."""

    def __init__(self, of_mentions: FloatArray, of_rest: FloatArray) -> None:
        other = undecided_toy(["a b"])
        super().__init__(other.module, other.tokenizer, objective="causal")
        self.whole, self.rest = (np.stack([x, np.zeros(x.size)], axis=1) for x in (of_mentions + of_rest, of_rest))

    def pair_scores_and_rest(
        self, pairs: Sequence[tuple[str, str]], rests: Sequence[str], **options: object
    ) -> tuple[FloatArray, FloatArray]:
        return self.whole, self.rest


def names(rng: np.random.Generator, spread: float = 4.0) -> FloatArray:
    """(n,) by how much the mention of the more stereotypical sentence is likelier; SmolLM2's by 3.8 on average."""
    return SIDE * (spread * rng.normal(size=96))[MENTIONS]


def said(rng: np.random.Generator, bias: float, between: float = 0.3, tails: float = 0.0) -> FloatArray:
    """(n,) by how much what is said is likelier of whom it is a stereotype of, with SmolLM2's spread around ``bias``.

    Standard deviations of 1 between sentences, ``between`` between pairs of mentions and 2.2 of one pair alone;
    Student's t with ``tails`` degrees of freedom, normal without.
    """

    def draw(n: int) -> FloatArray:
        if not tails:
            return rng.normal(size=n)
        return np.asarray(rng.standard_t(tails, size=n) * np.sqrt((tails - 2.0) / tails), np.float64)

    return bias + draw(160)[SENTENCES] + between * draw(96)[MENTIONS] + 2.2 * draw(len(PAIRS))


def criterion() -> Criterion:
    (found,) = (c for c in load_criteria() if c.metric == "stereotype_log_odds")
    return found


def judged(model: AuditedLanguageModel) -> tuple[Outcome, dict[str, Measurement]]:
    """The outcome by the default profile, and the headlines."""
    found = Stereotype().measure(model, no_data(), RNG)
    (judgement,) = (f for f in judge([result(found)], load_criteria())[0] if f.criterion is not None)
    assert judgement.metric == "stereotype_log_odds"
    return judgement.outcome, {m.metric: m for m in found if not m.group}


# ---- what the score of whole sentences cannot tell -------------------------------------------------------------------


def test_names_alone_decide_sentences_and_no_log_odds() -> None:
    """Of an unbalanced half of the pairs, those in which the likelier mention is mostly that of the stereotype."""
    rng = np.random.default_rng(0)
    of_mentions = names(rng)
    half = np.flatnonzero((of_mentions > 0.0) ^ (rng.random(len(PAIRS)) < 0.1))
    assert 600 < half.size < 680
    likelihoods = np.stack([of_mentions, np.zeros(of_mentions.size)], axis=1)[half]
    assert preferences(likelihoods).mean() > 0.85
    (overall, *_) = log_odds([PAIRS[i] for i in half], likelihoods, "built_in_pairs", "")
    assert overall.estimate.value == pytest.approx(0.0, abs=1e-12)
    assert overall.n_samples > 400


def test_a_nat_of_bias_hardly_moves_whole_sentences_and_fails() -> None:
    rng = np.random.default_rng(1)
    own = said(rng, 0.0)
    outcome_of, found = judged(Drawn(names(rng, 12.0), own - own.mean() + 1.0))
    assert found["stereotype_score"].estimate.value < 0.6
    assert found["conditional_stereotype_score"].estimate.value > 0.62
    assert found["stereotype_log_odds"].estimate.value == pytest.approx(0.9, abs=0.05)
    assert outcome_of is Outcome.FAIL
    assert "the mention decides alone" in found["stereotype_score"].detail


def test_whoever_is_named_the_log_odds_are_the_same() -> None:
    rng = np.random.default_rng(2)
    of_rest = said(rng, 0.4)
    values = {
        judged(Drawn(names(rng, spread), of_rest))[1]["stereotype_log_odds"].estimate.value for spread in (0, 4, 40)
    }
    assert max(values) - min(values) < 1e-9 and len(values) >= 1


def test_the_middle_of_two_mentions_by_hand() -> None:
    mentions = [("a", "b"), ("a", "b"), ("b", "a"), ("c", "d"), None, ("b", "a")]
    apart = np.asarray([5.0, 7.0, -1.0, 3.0, 9.0, np.nan])
    # a less b: 5 and 7 where a is of the stereotype, 1 where b is: the middle is (6 + 1) / 2.
    np.testing.assert_allclose(about_the_middle(apart, mentions), [1.5, 3.5, 2.5, np.nan, np.nan, np.nan])
    found = log_odds(
        [SentencePair("x", "y", "", ("t",), mentions=m) for m in mentions[3:5]], apart[3:5, None] * [[1, 0]], "", ""
    )
    assert isinstance(found[0].estimate, Undefined) and "change roles" in found[0].estimate.reason
    assert log_odds([SentencePair("x", "y", "")], np.zeros((1, 2)), "", "") == []


def test_in_a_crossed_design_it_is_half_the_difference_of_two_means() -> None:
    rng = np.random.default_rng(3)
    apart = np.clip(names(rng, 0.5) + said(rng, 0.2) / 4.0, -3.0, 3.0)
    d = SIDE * apart
    by_hand = (d[SIDE > 0].mean() - d[SIDE < 0].mean()) / 2.0
    (overall, *by_category) = log_odds(PAIRS, np.stack([apart, np.zeros(apart.size)], 1), "built_in_pairs", "")
    assert overall.estimate.value == pytest.approx(by_hand, abs=1e-12)
    assert f"Odds of {np.exp(by_hand):.3g} to 1" in overall.detail
    assert [m.group["category"] for m in by_category] == sorted({p.category for p in PAIRS})


def test_a_single_pair_counts_no_more_than_the_limit() -> None:
    apart = np.zeros(len(PAIRS))
    apart[0] = 1e6
    values = about_the_middle(apart, [p.mentions for p in PAIRS])
    estimate = mean_log_odds(values, [p.clusters for p in PAIRS], [p.stratum for p in PAIRS])
    assert isinstance(estimate, ClusteredValue) and abs(estimate.value) <= 14 * LIMIT / len(PAIRS)


def test_what_the_mention_decides_by_hand() -> None:
    likelihoods = np.asarray([[-10.0, -15.0], [-10.0, -15.0], [-10.0, -11.0]])
    rest = np.asarray([[-4.0, -5.0], [-4.0, -8.5], [-4.0, -6.0]])
    told = of_the_mention(likelihoods, rest)
    assert "In 2 of 3 pairs" in told and "in 1 the mention decides alone" in told


def test_what_follows_a_mention_is_the_rest_of_its_sentence() -> None:
    pairs = [("the red dog sees a cat", "the big dog sees a cat")]
    model = toy(pairs, 1.0)
    whole, rest = model.pair_scores_and_rest(pairs, [" sees a cat"])
    np.testing.assert_allclose(whole, model.pair_scores(pairs))
    encoded = model.encode(pairs[0])
    each = model.token_log_probabilities(encoded)
    np.testing.assert_allclose(rest[0], [p[-3:].sum() for p in each])
    shared = model.pair_scores_and_rest(pairs, [""])[1]
    np.testing.assert_allclose(shared, model.pair_scores(pairs, form="shared"))
    assert not np.allclose(shared, rest)


# ---- error rates and power -------------------------------------------------------------------------------------------


def worlds(monkeypatch: pytest.MonkeyPatch, bias: float, **spread: float) -> list[Measurement]:
    """``stereotype_log_odds`` in each of WORLDS models, as the probe measures it."""
    number_labels_once(monkeypatch, probes.language.preference_shares, probes.language.stereotype)
    rng = np.random.default_rng([19, round(100 * bias), *(round(10 * x) for x in spread.values())])
    clusters, strata = [p.clusters for p in PAIRS], [p.stratum for p in PAIRS]
    mentions = [p.mentions for p in PAIRS]
    found = []
    for _ in range(WORLDS):
        values = about_the_middle(names(rng) + said(rng, bias, **spread), mentions)
        estimate = mean_log_odds(values, clusters, strata)
        found.append(Measurement(metric="stereotype_log_odds", estimate=estimate, n_samples=1280, ideal=0.0))
    return found


def outcomes(found: Sequence[Measurement], known: ProbeResult | None = None) -> list[Outcome]:
    """By the default bound, and beside what is ``known`` of a model's skill by the whole default profile."""
    if known is None:
        return [judge([result([m])], [criterion()])[0][0].outcome for m in found]
    own = [replace(m, method="built_in_pairs", ideal_when_same="sense") for m in found]
    judged = [judge([known, result([m])], load_criteria())[0] for m in own]
    return [f.outcome for findings in judged for f in findings if f.metric == "stereotype_log_odds"]


def skill(n_sense: int) -> ProbeResult:
    """Of a model that knows word order, and so many of 100 quadruples of sense."""
    order = Measurement(
        metric="word_order_accuracy", estimate=Proportion(successes=63, n=64), n_samples=64, ideal=1.0, chance=0.5
    )
    scores = np.zeros((100, 4))
    scores[:, 0] = np.where(np.arange(100) < n_sense, 1.0, -1.0)
    of_pairs = replace(order, at={vacuity.SENTENCES: "built_in_pairs"}, part=True)
    sense = sense_accuracy(scores, "a test", RNG)
    return ProbeResult(probe="performance", pillar="performance", citation="", measurements=(order, of_pairs, sense))


def test_without_bias_it_passes_and_a_nat_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    of_the_fair, of_the_biased = worlds(monkeypatch, 0.0), worlds(monkeypatch, 1.0)
    fair, biased = outcomes(of_the_fair), outcomes(of_the_biased)
    # 143 is what a true power of 80 % undercuts once in a thousand times.
    assert fair.count(Outcome.PASS) >= 143 and fair.count(Outcome.FAIL) <= most_misses(0.05, WORLDS)
    assert biased.count(Outcome.FAIL) >= 143 and biased.count(Outcome.PASS) == 0
    # By the whole profile, of whose budget others have a part, for who knows sense: 61 of 100 are more than a coin's.
    assert outcomes(of_the_fair, skill(61)).count(Outcome.PASS) >= 143
    assert outcomes(of_the_fair, skill(60)).count(Outcome.PASS) == 0
    assert outcomes(of_the_biased, skill(60)).count(Outcome.FAIL) >= 143


@pytest.mark.parametrize(("between", "tails"), [(0.3, 0.0), (1.0, 5.0)])
def test_it_is_missed_no_more_often_than_promised(
    between: float, tails: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the bound of the default profile; the truth is that of the values as they are cut off, over all worlds."""
    estimates = [m.estimate for m in worlds(monkeypatch, 0.405, between=between, tails=tails)]
    truth = float(np.mean([estimate.value for estimate in estimates]))
    assert 0.33 < truth < 0.405
    assert max(misses(estimates, truth)) <= most_misses(0.05, WORLDS)


# ---- models that know nothing ----------------------------------------------------------------------------------------


@pytest.mark.grid
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_a_model_that_was_never_trained_does_not_pass(kind: str) -> None:
    """Small weights, as a new network has, so that it finds all sentences nearly as likely."""
    tokenizer = causal_tokenizer(sorted({word for p in PAIRS for text in (p.more, p.less) for word in split(text)}))
    network = tiny("llama", vocab_size=len(tokenizer), initializer_range=0.02, num_hidden_layers=1)
    if kind == "bert":
        tokenizer.mask_token = "<mask>"
        network = tiny_bert(vocab_size=len(tokenizer), initializer_range=0.1, num_hidden_layers=1)
    model = AuditedLanguageModel(network, tokenizer)
    report = run_audit(model, no_data(), [Performance(), Stereotype()])
    judgements = [f for f in report.findings if f.metric == "stereotype_log_odds" and f.criterion is not None]
    assert [f.outcome for f in judgements] == ["INCONCLUSIVE"]
    assert "shows no skill" in judgements[0].reason
    # That alone keeps it from a PASS.
    (estimate,) = (f.estimate for f in judgements)
    alone = Measurement(metric="stereotype_log_odds", estimate=estimate, n_samples=1280, ideal=0.0)
    assert outcomes([alone]) == [Outcome.PASS]
    assert report.exit_code != 0
