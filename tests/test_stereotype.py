"""Stereotype probes: planted bias is found, its absence passes, and the error rates are what is promised."""

from __future__ import annotations

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import ndtri
from torch import Tensor, nn

import probes.stereotype
from auditor.arrays import FloatArray
from auditor.data import AuditData
from auditor.errors import ConfigError, ModelError
from auditor.finding import Criterion, Measurement, Outcome, ProbeResult, judge
from auditor.language import AuditedLanguageModel
from auditor.model import AuditedModel
from auditor.paired import BBQExample, SentencePair
from auditor.probe import make_probe
from auditor.run import no_data, run_audit
from auditor.statistics.estimate import Undefined
from auditor.statistics.means import StudentT
from auditor.statistics.rates import Proportion
from probes.stereotype import (
    BBQ,
    CrowsPairs,
    StereoSet,
    Stereotype,
    WinoBias,
    Winogender,
    bias_score,
    built_in_pairs,
    clustered_share,
    icat,
    independent_share,
    over_terms,
    preferences,
    stereotype_scores,
)
from tests.test_language import causal_tokenizer
from tests.test_paired import bbq_row, stereoset_example

CRITERION = Criterion(
    metric="stereotype_score", direction="within", bound=(0.45, 0.55), source="test", set_by="test", set_at="2026-01-01"
)
RNG = np.random.default_rng(0)
WORLDS = 200
# The largest count of 200 that a true rate of 5 % exceeds with probability at most 0.1 %.
MOST_OF_200 = 21


class Associations(nn.Module):
    """A causal model of a bag of words: the logit of a token is what all tokens before it add to it, (V, V)."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(table)
        self.config = SimpleNamespace(model_type="associations")

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def get_output_embeddings(self) -> None:
        return None

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table(input_ids).cumsum(1))


def toy(pairs: Sequence[tuple[str, str]], strength: float) -> AuditedLanguageModel:
    """A model in which what is said in the first of each two texts goes with whom it is said of, by ``strength``.

    At 0 every word is as likely as any other, so texts of the same length are equally likely.
    """
    words = sorted({w for pair in pairs for text in pair for w in split(text)})
    tokenizer = causal_tokenizer(words)
    size = len(tokenizer)
    counts: Counter[tuple[int, int]] = Counter()
    of = {w: tokenizer.convert_tokens_to_ids(w) for w in words}
    for first, second in pairs:
        a, b = set(split(first)), set(split(second))
        for word in a & b:
            counts.update({(of[m], of[word]): 1 for m in a - b})
            counts.subtract({(of[m], of[word]): 1 for m in b - a})
    table = torch.zeros(size, size)
    for (mention, word), count in counts.items():
        table[mention, word] = strength * math.copysign(1.0, count) if count else 0.0
    return AuditedLanguageModel(Associations(table), tokenizer, objective="causal")


def split(text: str) -> list[str]:
    from tokenizers import pre_tokenizers

    return [w for w, _ in pre_tokenizers.Whitespace().pre_tokenize_str(text)]


def texts_of(pairs: Sequence[SentencePair]) -> list[tuple[str, str]]:
    return [(p.more, p.less) for p in pairs]


def outcomes(report: object) -> dict[str, str]:
    return {f.id: str(f.outcome) for f in report.findings if f.group in (None, {})}  # type: ignore[attr-defined]


# ---- the built-in pairs --------------------------------------------------------------------------------------------


def test_the_built_in_pairs_are_balanced_and_original() -> None:
    found = built_in_pairs()
    assert len(found.examples) == 1280
    assert len(texts := {t for p in found.examples for t in (p.more, p.less)}) == 2560, "no text stands twice"
    assert all(t[0].isupper() and t.endswith(".") and "{" not in t and "  " not in t for t in texts)
    assert {p.category for p in found.examples} == {
        "gender", "race", "religion", "age", "nationality", "sexual_orientation", "disability", "socioeconomic",
    }  # fmt: skip
    first_is_more: Counter[tuple[str, bool]] = Counter()
    for pair in found.examples:
        first = pair.clusters[1].split(": ")[1].split(" / ")[0]
        first_is_more[pair.clusters[1], pair.more.startswith(first)] += 1
    assert len(first_is_more) == 2 * 96
    assert all(first_is_more[key, True] == first_is_more[key, False] for key, _ in first_is_more)


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
    report = run_audit(fair, None, [Stereotype()])
    (overall, *by_category) = report.findings
    assert (overall.outcome, overall.value) == ("PASS", 0.5)
    assert len(by_category) == 8
    assert {f.outcome for f in by_category} == {"NOT_JUDGED"}
    assert report.exit_code == 0
    report = run_audit(biased, None, [Stereotype()])
    assert report.findings[0].outcome == "FAIL"
    assert report.findings[0].value is not None and report.findings[0].value > 0.8
    assert "Log-likelihood after <s>" in report.findings[0].detail
    assert "sha256" in report.findings[0].detail


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
        metric="stereotype_score", direction="within", bound=(0.45, 0.55), source="s", set_by="b", set_at="a",
        group={"category": "age"},
    )  # fmt: skip
    findings, family = judge([result(measured)], [criterion])
    assert family.m == 1
    assert [f.outcome for f in findings if f.criterion] == [Outcome.FAIL]


def crows(folder: Path, pairs: Sequence[SentencePair], *, writer: bool = True) -> str:
    with (folder / "crows.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["", "sent_more", "sent_less", "stereo_antistereo", "bias_type", *(["anon_writer"] * writer)])
        for i, p in enumerate(pairs):
            rows.writerow([i, p.more, p.less, "stereo", p.category, *([f"a{i % 40}"] * writer)])
    return str(folder / "crows.csv")


@pytest.mark.parametrize("writer", [True, False])
def test_crows_pairs_fails_and_passes_too(tmp_path: Path, writer: bool) -> None:
    pairs = built_in_pairs().examples
    probe = CrowsPairs(benchmarks={"crows_pairs": crows(tmp_path, pairs, writer=writer)})
    for strength, expected in ((0.0, "PASS"), (1.0, "FAIL")):
        found = probe.measure(toy(texts_of(pairs), strength), no_data(), RNG)
        assert outcome(found[0]) == expected
        assert isinstance(found[0].estimate, StudentT if writer else Proportion)


def test_winogender_and_winobias_fail_and_pass(tmp_path: Path) -> None:
    lines, stats, pro, anti = ["sentid\tsentence"], ["occupation\tbls_pct_female"], [], []
    pairs = []
    for i in range(60):
        job, other, female = f"job{i}", f"job{(i * 7 + 1) % 60}", i % 2 == 0
        stats.append(f"{job}\t{90 if female else 10}")
        for k in range(12):
            he, she = (f"The {job} said {w} saw number{k} ." for w in ("he", "she"))
            lines += [f"{job}.p{k}.1.male.txt\t{he}", f"{job}.p{k}.1.female.txt\t{she}"]
            first, second = ("she", "he") if female else ("he", "she")
            line = f"[The {job}] met the {other} because [{{}}] saw number{k} ."
            pro.append(line.format(first)), anti.append(line.format(second))
            pairs.append((she, he) if female else (he, she))
            pairs.append(tuple(x[-1].replace("[", "").replace("]", "") for x in (pro, anti)))
    (tmp_path / "all_sentences.tsv").write_text("\n".join(lines))
    (tmp_path / "occupations-stats.tsv").write_text("\n".join(stats))
    (tmp_path / "pro_stereotyped_type1.txt.dev").write_text("\n".join(pro))
    (tmp_path / "anti_stereotyped_type1.txt.dev").write_text("\n".join(anti))
    (tmp_path / "male_occupations.txt").write_text("\n".join(f"job{i}" for i in range(60)))
    files = {"winogender": str(tmp_path), "winobias": str(tmp_path)}
    fair = toy(pairs, 0.0)
    for probe, expected in ((Winogender(benchmarks=files), 2 + 60), (WinoBias(benchmarks=files), 1)):
        found = probe.measure(fair, no_data(), RNG)
        assert len(found) == expected
        assert [outcome(m) for m in found if m.metric == "stereotype_score" and not m.group] == [Outcome.PASS]
    by_pronoun = PronounFollowsJob(fair)
    found = Winogender(benchmarks=files).measure(by_pronoun, no_data(), RNG)
    assert [m.estimate.value for m in found[:2]] == [0.5, 1.0]
    assert outcome(found[1]) is Outcome.FAIL
    assert {m.estimate.value for m in found[2:]} == {0.0, 1.0}
    found = WinoBias(benchmarks=files).measure(by_pronoun, no_data(), RNG)
    assert (found[0].estimate.value, outcome(found[0])) == (1.0, Outcome.FAIL)


class PronounFollowsJob(AuditedLanguageModel):
    """Expects "she" of jobs with an even number and "he" of the others."""

    def __init__(self, other: AuditedLanguageModel) -> None:
        super().__init__(other.module, other.tokenizer, objective="causal")

    def pair_scores(self, pairs: Sequence[tuple[str, str]], **options: object) -> FloatArray:
        def score(text: str) -> float:
            words = split(text)
            return float(("she" in words) == (int(words[1].removeprefix("job")) % 2 == 0))

        return np.asarray([[score(a), score(b)] for a, b in pairs])


def test_stereoset(tmp_path: Path) -> None:
    examples = [
        stereoset_example(id=f"x{i}", target=f"term{i % 40}", bias_type=("race", "gender")[i % 2]) for i in range(1600)
    ]
    inter = [stereoset_example("He is a nurse .", target=f"term{i % 20}") for i in range(40)]
    file = tmp_path / "dev.json"
    file.write_text(json.dumps({"data": {"intrasentence": examples, "intersentence": inter}}))
    stereo, anti, unrelated = (f"The nurse is {w}." for w in ("kind", "rude", "seven"))
    probe = StereoSet(benchmarks={"stereoset": str(file)})
    fair = toy([(stereo, anti), (stereo, unrelated), (anti, unrelated)], 0.0)
    found = {(m.method, m.metric): m for m in probe.measure(fair, no_data(), RNG) if not m.group}
    assert {k: m.estimate.value for k, m in found.items() if k[0] == "intrasentence"} == {
        ("intrasentence", "language_modeling_score"): 0.5,
        ("intrasentence", "stereotype_score"): 0.5,
        ("intrasentence", "icat"): 50.0,
    }
    assert len(found) == 6
    assert outcome(found["intrasentence", "stereotype_score"]) is Outcome.PASS
    table = torch.zeros(len(fair.tokenizer), len(fair.tokenizer))
    table[:, fair.tokenizer.convert_tokens_to_ids("kind")] = 1.0
    biased = AuditedLanguageModel(Associations(table), fair.tokenizer, objective="causal")
    found = {(m.method, m.metric): m for m in probe.measure(biased, no_data(), RNG) if not m.group}
    # The stereotype beats both others, which tie.
    assert found["intersentence", "language_modeling_score"].estimate.value == 0.75
    assert found["intersentence", "stereotype_score"].estimate.value == 1.0
    assert found["intersentence", "icat"].estimate.value == 0.0
    assert outcome(found["intersentence", "stereotype_score"]) is Outcome.FAIL


# ---- BBQ -----------------------------------------------------------------------------------------------------------


def bbq_example(condition: str, biased: int | None, template: int) -> BBQExample:
    return BBQExample(
        id="1", category="Age", template=f"Age {template}", condition=condition, context="c", question="q",  # type: ignore[arg-type]
        answers=("a", "b", "c"), label=2 if condition == "ambig" else 0, unknown=2, biased=biased,
    )  # fmt: skip


@pytest.mark.parametrize("condition", ["ambig", "disambig"])
def test_bias_score_is_the_papers(condition: str) -> None:
    rng = np.random.default_rng(3)
    examples = [bbq_example(condition, int(rng.integers(2)), i % 12) for i in range(300)]
    answers = rng.choice(3, 300, p=[0.5, 0.2, 0.3])
    estimate, n, _ = bias_score(examples, answers)
    named = sum(a != 2 for a in answers)
    s = 2 * sum(a == e.biased for a, e in zip(answers, examples, strict=True)) / named - 1
    accuracy = sum(a == e.label for a, e in zip(answers, examples, strict=True)) / 300
    assert n == 300
    assert estimate.value == pytest.approx((1 - accuracy) * s if condition == "ambig" else s)
    draws = []
    for _ in range(600):
        chosen = [i for t in rng.integers(12, size=12) for i in range(t, 300, 12)]
        draws.append(bias_score([examples[i] for i in chosen], answers[chosen])[0].value)
    assert isinstance(estimate, StudentT)
    assert estimate.standard_error >= 0.85 * np.std(draws)


def test_bias_score_without_anything_to_go_by() -> None:
    assert isinstance(bias_score([bbq_example("ambig", None, 1)], np.asarray([0]))[0], Undefined)
    assert isinstance(bias_score([bbq_example("disambig", 1, 1)] * 3, np.asarray([2, 2, 2]))[0], Undefined)
    assert isinstance(bias_score([bbq_example("ambig", 1, 1)] * 3, np.asarray([1, 1, 1]))[0], Undefined)
    everything, _, few = bias_score([bbq_example("ambig", 1, i) for i in range(6)], np.full(6, 1))
    assert everything.value == 1.0 and everything.bounds(0.025)[0] < 0.5 and not few


def test_bbq_end_to_end(tmp_path: Path) -> None:
    rows = [
        bbq_row(
            example_id=i, question_index=str(i % 8), context_condition=("ambig", "disambig")[i % 2], label=2 - i % 2,
            question_polarity=("neg", "nonneg")[(i // 2) % 2],
        )
        for i in range(160)
    ]  # fmt: skip
    (tmp_path / "Age.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    answers = ["The grandson", "The grandfather", "Not known"]
    model = toy([(f"A and B met. Question: Who forgot? Answer: {a}", "x") for a in answers], 0.0)
    table = torch.zeros(len(model.tokenizer), len(model.tokenizer))
    table[:, model.tokenizer.convert_tokens_to_ids("grandfather")] = 1.0
    ageist = AuditedLanguageModel(Associations(table), model.tokenizer, objective="causal")
    found = BBQ(benchmarks={"bbq": str(tmp_path)}).measure(ageist, no_data(), RNG)
    values = {(m.metric, m.at["context"]): m.estimate.value for m in found}
    # It always answers "the grandfather", the biased answer of every other question.
    assert values == {
        ("accuracy", "ambiguous"): 0.0, ("bias_score", "ambiguous"): 0.0,
        ("accuracy", "disambiguated"): 1.0, ("bias_score", "disambiguated"): 0.0,
    }  # fmt: skip
    sampled = BBQ(benchmarks={"bbq": str(tmp_path)}, max_examples=40).measure(ageist, no_data(), RNG)
    assert sum(m.n_samples for m in sampled if m.metric == "accuracy") == 40
    assert "A random sample of 40 was asked." in sampled[0].detail
    with pytest.raises(ConfigError, match="max_examples must be at least 1"):
        make_probe(BBQ, {"max_examples": 0})


# ---- what is missing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [CrowsPairs, StereoSet, WinoBias, Winogender, BBQ])
def test_without_its_file_a_benchmark_is_not_applicable(kind: type) -> None:
    report = run_audit(toy([("a b", "a c")], 0.0), None, [kind()])
    assert [f.outcome for f in report.findings] == ["NOT_APPLICABLE"]
    assert f"add --benchmark {kind.name}=PATH" in report.findings[0].reason  # type: ignore[attr-defined]


def test_a_classifier_is_not_applicable() -> None:
    model = AuditedModel.from_callable(lambda rows: np.zeros(len(rows)), classes=["no", "yes"])
    report = run_audit(model, None, [Stereotype()])
    assert report.findings[0].reason == "Needs a language model: this model is a classifier."
    model.kind = "language_model"  # type: ignore[misc]
    with pytest.raises(ModelError, match="AuditedLanguageModel"):
        Stereotype().measure(model, AuditData(X=np.empty(0, object)), RNG)


def test_a_wrong_form_is_a_usage_error() -> None:
    for kind in (Stereotype, CrowsPairs, WinoBias, Winogender):
        with pytest.raises(ConfigError, match="form must be 'whole' or 'shared'"):
            make_probe(kind, {"form": "half"})


def test_importing_the_probes_is_light() -> None:
    import subprocess
    import sys

    code = "import sys, probes.stereotype; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0


# ---- the estimates -------------------------------------------------------------------------------------------------


def outcome(measurement: Measurement, m: int = 1) -> Outcome:
    """The outcome of one measurement among ``m`` alike."""
    findings, _ = judge([result([measurement])] * m, [CRITERION])
    return findings[0].outcome


def result(measurements: Sequence[Measurement]) -> ProbeResult:
    return ProbeResult(probe="stereotype", pillar="language", citation="", measurements=tuple(measurements))


def test_preferences_and_ties() -> None:
    scores = np.asarray([[-10.0, -11.0], [-12.0, -11.0], [-100.0, -100.0002], [-100.0, -100.1], [np.nan, -1.0], [0, 0]])
    assert preferences(scores).tolist()[:4] == [1.0, 0.0, 0.5, 1.0]
    assert np.isnan(preferences(scores)[4])
    assert preferences(scores)[5] == 0.5


def test_an_independent_share_keeps_its_value_with_ties() -> None:
    for values in ([1, 0, 1, 1], [1, 0.5, 0.5, 0], [1, 0.5, 0, 0.5, 1]):
        share = independent_share(np.asarray(values, float))
        assert share.value == pytest.approx(np.mean(values))
    assert independent_share(np.asarray([1.0, 0.5, 0.0])) == Proportion(successes=1, n=2)
    assert math.isnan(independent_share(np.empty(0)).value)


def test_one_way_clusters_against_statsmodels() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(30), 7)
    preferred = (rng.normal(size=30)[groups] + rng.normal(size=210) > 0).astype(float)
    estimate = clustered_share(preferred, [groups.astype(str).tolist()])
    fit = sm.OLS(preferred, np.ones(210)).fit(cov_type="cluster", cov_kwds={"groups": groups})
    assert isinstance(estimate, StudentT)
    assert estimate.value == preferred.mean()
    assert estimate.standard_error == pytest.approx(float(fit.bse[0]), rel=1e-9)
    assert estimate.degrees_of_freedom == 29


def test_two_way_clusters_are_never_narrower_than_either() -> None:
    rng = np.random.default_rng(6)
    first, second = np.repeat(np.arange(20), 10).astype(str).tolist(), np.tile(np.arange(10), 20).astype(str).tolist()
    preferred = (rng.normal(size=200) > 0).astype(float)
    both = clustered_share(preferred, [first, second])
    assert isinstance(both, StudentT)
    for one in (first, second):
        alone = clustered_share(preferred, [one])
        assert isinstance(alone, StudentT) and both.standard_error >= alone.standard_error
    assert both.degrees_of_freedom == 9


def test_shares_that_cannot_be_told() -> None:
    pair = SentencePair("a", "b", "x", ("t",))
    (one,) = stereotype_scores([pair] * 50, np.ones(50), "built_in_pairs", "")
    assert outcome(one) is Outcome.INCONCLUSIVE
    assert math.isnan(one.estimate.value)
    pairs = [SentencePair("a", "b", "x", (f"t{i % 4}",)) for i in range(80)]
    (few,) = stereotype_scores(pairs, np.ones(80), "built_in_pairs", "")
    assert outcome(few) is Outcome.INCONCLUSIVE
    assert "4 clusters of pairs are too few" in few.too_few
    (none,) = stereotype_scores(pairs, np.full(80, np.nan), "built_in_pairs", "")
    assert none.n_samples == 0 and math.isnan(none.estimate.value)
    assert "80 pairs share no token" in none.detail
    (nothing,) = stereotype_scores([], np.empty(0), "built_in_pairs", "")
    assert outcome(nothing) is Outcome.INCONCLUSIVE


def test_clusters_that_all_agree_count_once_each() -> None:
    codes = [str(i // 50) for i in range(300)]
    estimate = clustered_share(np.ones(300), [codes])
    # With six clusters, chance alone makes all agree in one of 32 worlds.
    assert estimate == Proportion(successes=6, n=6)
    assert estimate.bounds(0.01)[0] < 0.55
    assert clustered_share(np.zeros(300), [codes]).value == 0.0


def world(rng: np.random.Generator, labels: Sequence[np.ndarray], spread: float, share: float) -> FloatArray:
    """Preferences with a normal effect of ``spread`` for each level of each labelling; ``share`` over all worlds."""
    latent = rng.normal(size=len(labels[0])) + float(ndtri(share)) * math.sqrt(1.0 + spread**2 * len(labels))
    for codes in labels:
        latent = latent + spread * rng.normal(size=int(codes.max()) + 1)[codes]
    return (latent > 0).astype(np.float64)


SHAPES = {
    "6 templates": [np.repeat(np.arange(6), 10)],
    "40 writers": [np.repeat(np.arange(40), 8)],
    "10 x 6": [np.repeat(np.arange(10), 6), np.tile(np.arange(6), 10)],
    "30 x 12": [np.repeat(np.arange(30), 12), np.tile(np.arange(12), 30)],
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("share", [0.5, 0.7])
def test_coverage_with_few_and_many_clusters(shape: str, spread: float, share: float) -> None:
    rng = np.random.default_rng(11)
    labels = SHAPES[shape]
    names = [codes.astype(str).tolist() for codes in labels]
    missed = [0, 0]
    for _ in range(500):
        estimate = clustered_share(world(rng, labels, spread, share), names)
        low, high = estimate.bounds(0.05)
        missed[0] += low > share
        missed[1] += high < share
    # 5 % of 500 is 25; more than 41 would happen once in a thousand.
    assert max(missed) <= 41, missed


def test_strata_of_a_balanced_design_are_taken_out() -> None:
    """By hand: two strata of two clusters of two; residuals +-0.25 in the first, none in the second."""
    preferred = np.asarray([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    labels, strata = ["a", "a", "b", "b", "c", "c", "d", "d"], ["x"] * 4 + ["y"] * 4
    estimate = clustered_share(preferred, [labels], strata)
    assert isinstance(estimate, StudentT)
    by_hand = 2 / 1 * (0.5**2 + 0.5**2) / 8**2
    assert estimate.standard_error == pytest.approx(math.sqrt(max(by_hand, 0.375 * 0.625 / 8)))
    assert (estimate.value, estimate.degrees_of_freedom) == (0.375, 2)
    assert isinstance(clustered_share(preferred, [["a"] * 4 + ["c", "c", "d", "d"]], strata), Undefined)


def simulated(rng: np.random.Generator, pairs: Sequence[SentencePair], share: float, spread: float) -> Measurement:
    labels = [np.unique(column, return_inverse=True)[1] for column in zip(*(p.clusters for p in pairs), strict=True)]
    (overall, *_) = stereotype_scores(pairs, world(rng, labels, spread, share), "built_in_pairs", "")
    return overall


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_false_alarms_and_false_passes_at_the_bound_and_under_the_null(spread: float) -> None:
    pairs = [SentencePair("", "", "", p.clusters) for p in built_in_pairs().examples]
    rng = np.random.default_rng(12)
    for share, forbidden in ((0.5, Outcome.FAIL), (0.55, Outcome.FAIL), (0.45, Outcome.FAIL), (0.55, Outcome.PASS)):
        found = [outcome(simulated(rng, pairs, share, spread)) for _ in range(WORLDS)]
        assert found.count(forbidden) <= MOST_OF_200, (share, forbidden)


DESIGNS = {
    Stereotype: [p.clusters for p in built_in_pairs().examples],
    CrowsPairs: [(f"writer{i % 77}",) for i in range(1508)],
    WinoBias: [(f"pair{i // 4}", f"job{i % 40}") for i in range(1584)],
    Winogender: [(f"job{i // 4}",) for i in range(240)],
}


@pytest.mark.parametrize("kind", DESIGNS, ids=lambda kind: kind.name)
def test_power_is_what_the_probes_declare(kind: type) -> None:
    rng = np.random.default_rng(13)
    n, share = kind.power  # type: ignore[attr-defined]
    assert n == len(DESIGNS[kind])
    pairs = [SentencePair("", "", "", clusters) for clusters in DESIGNS[kind]]
    found = []
    for _ in range(WORLDS):
        (overall,) = stereotype_scores(pairs, (rng.random(n) < share).astype(np.float64), "", "")
        found.append(outcome(overall))
    # 143 is what a true power of 80 % undercuts once in a thousand times.
    assert found.count(Outcome.FAIL) >= 143


def test_power_and_false_alarms_of_stereoset() -> None:
    rng = np.random.default_rng(15)
    n, share = StereoSet.power
    terms = [str(i % 79) for i in range(n)]
    counts = []
    for true in (share, 0.55):
        estimates = [over_terms((rng.random(n) < true).astype(np.float64), terms) for _ in range(WORLDS)]
        measured = [Measurement(metric="stereotype_score", estimate=e, n_samples=n, ideal=0.5) for e in estimates]
        counts.append([outcome(m) for m in measured].count(Outcome.FAIL))
    assert counts[0] >= 143 and counts[1] <= MOST_OF_200


def test_terms_weigh_the_same() -> None:
    estimate = over_terms(np.asarray([1.0, 1.0, 1.0, 0.0]), ["a", "a", "a", "b"])
    assert isinstance(estimate, StudentT) and estimate.value == 0.5 and estimate.degrees_of_freedom == 1
    assert isinstance(over_terms(np.ones(3), ["a"] * 3), Undefined)
    assert over_terms(np.ones(300), [str(i % 6) for i in range(300)]).bounds(0.01)[0] < 0.55


def test_icat_covers_at_its_kink() -> None:
    rng = np.random.default_rng(14)
    terms = [str(i % 40) for i in range(400)]
    for share in (0.5, 0.6):
        missed = [0, 0]
        truth = 100 * 0.9 * min(share, 1 - share) / 0.5
        for _ in range(400):
            lms = over_terms((rng.random(400) < 0.9).astype(float), terms)
            found = icat(lms, over_terms((rng.random(400) < share).astype(float), terms))
            low, high = found.bounds(0.05)
            missed[0] += low > truth
            missed[1] += high < truth
        assert max(missed) <= 34, (share, missed)
    assert icat(lms, StudentT(centre=0.5, standard_error=0.0, degrees_of_freedom=9)).value == 100 * lms.value
    assert isinstance(icat(lms, Undefined(reason="x")), Undefined)


def test_every_probe_says_what_it_is() -> None:
    for kind in (Stereotype, CrowsPairs, StereoSet, WinoBias, Winogender, BBQ):
        assert kind.pillar == "language" and kind.goal.endswith("?") and kind.citation and kind.methods and kind.__doc__
        assert getattr(probes.stereotype, kind.__name__) is kind
