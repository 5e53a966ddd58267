"""What the built-in profile says of language models: those that remember FAIL, those that never saw a text do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from auditor.data.audit_data import AuditData
from auditor.judging.criterion import load_criteria
from auditor.judging.judgement import Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.language_model import AuditedLanguageModel
from auditor.run.probe import Probe
from auditor.run.run_audit import ask, no_data
from auditor.statistics.rank_estimates import quantile, true_positive_rate_at
from auditor.statistics.rates import Difference
from auditor.statistics.significance_tests import ConfirmedCount
from probes.performance.performance import Performance
from probes.privacy.memorization.canary_exposure import CanaryExposure, _confirmed, any_planted
from probes.privacy.memorization.contamination import Contamination
from probes.privacy.memorization.extraction import Extraction
from tests.probes.privacy.memorization.toys import NAMES, parrot, secrets, sentences
from tests.quantifiers import all_of, none_of
from tests.statistics.worlds import WORLDS, most_misses

LEVEL = 0.05 / 5


def judged(model: AuditedLanguageModel, data: AuditData, *probes: Probe) -> list[Judgement]:
    """What the built-in profile says of it, beside what the model is worth."""
    results = [ask(probe, model, data, np.random.default_rng(0)) for probe in (Performance(), *probes)]
    assert none_of(result.not_run or result.not_applicable for result in results)
    return [f for f in judge(results, load_criteria())[0] if f.probe != "performance"]


def of(findings: list[Judgement], metric: str) -> set[Outcome]:
    found = {f.outcome for f in findings if f.metric == metric}
    assert len(found) > 0, metric
    return found


def pool(members: list[str], others: list[str]) -> AuditData:
    return AuditData(
        X=np.asarray([*members, *others], object), is_member=np.arange(len(members) + len(others)) < len(members)
    )


def ciphers(n: int, seed: int) -> list[str]:
    """Texts that share nothing, so that what follows six characters is known to whoever has seen them alone."""
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 30)) for _ in range(n)]


# ---- extraction ----------------------------------------------------------------------------------------------------


def test_texts_of_ordinary_length_that_are_all_recited_fail() -> None:
    members, others = ciphers(68, 0), ciphers(68, 1)
    findings = judged(parrot(members), pool(members, others), Extraction())
    assert of(findings, "extraction_rate_difference") == {Outcome.FAIL}
    assert "68 of 68 training texts, 0 of 68 others" in str(findings)


def test_a_twin_that_learned_other_texts_passes_with_enough_of_them() -> None:
    members, others = sentences(900, 0), sentences(900, 1)
    findings = judged(parrot(sentences(300, 2)), pool(members, others), Extraction())
    assert of(findings, "extraction_rate_difference") == {Outcome.PASS}


def test_what_a_model_completes_without_having_seen_it_is_no_memory() -> None:
    """Of texts that all go on alike, seen or not."""
    texts = [f"{word} and all the rest is the same in every text" for word in sentences(400, 3)]
    findings = judged(parrot(texts), pool(texts[:200], texts[200:]), Extraction())
    assert Outcome.FAIL not in of(findings, "extraction_rate_difference")


@pytest.mark.parametrize("elsewhere", ["it learned those of --data", "both are copies"])
def test_texts_that_are_recited_on_both_sides_or_on_the_other_buy_no_pass(elsewhere: str) -> None:
    """Files that are swapped, and --data made of the training texts with a character more."""
    learned, others = ciphers(200, 0), ciphers(200, 1)
    data = pool(others, learned) if "learned" in elsewhere else pool(learned, [f"{text}." for text in learned])
    findings = judged(parrot(learned), data, Extraction())
    assert of(findings, "extraction_rate_difference") == {Outcome.INCONCLUSIVE}
    assert "texts of --data are recited too" in str(findings)


def test_a_model_that_knows_nothing_passes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "canaries.txt"
    path.write_text("\n".join(secrets()), encoding="utf-8")
    members, others = sentences(1_000, 0), sentences(1_000, 1)
    blank = parrot([])
    findings = judged(blank, pool(members, others), Extraction(), CanaryExposure(canaries=str(path), n_candidates=100))
    assert {"extraction_rate_difference", "median_exposure"} <= {f.metric for f in findings if f.vacuous}
    assert Outcome.PASS not in {f.outcome for f in findings}


def test_short_texts_are_cut_in_half_and_long_ones_as_in_the_paper() -> None:
    for n, cut in ((1, "16 tokens given, 17 asked"), (6, "50 tokens given, 50 asked")):
        texts = [" ".join(sentences(n, seed)) for seed in range(40)]
        if n == 1:
            texts = [f"{t:x<33.33}" for t in texts]
        findings = judged(parrot(texts), pool(texts[:20], texts[20:]), Extraction())
        assert cut in str(findings[0].measurement)


def test_without_texts_that_were_never_seen_it_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(sentences(50, 0)), encoding="utf-8")
    findings = judged(parrot(sentences(50, 0)), no_data(), Extraction(texts=str(path)))
    (missing,) = (f for f in findings if f.outcome is Outcome.NOT_APPLICABLE)
    assert "add --data FILE" in missing.reason


# ---- canaries ------------------------------------------------------------------------------------------------------


def canaries(folder: Path, texts: list[str]) -> CanaryExposure:
    path = folder / "canaries.txt"
    path.write_text("\n".join(texts), encoding="utf-8")
    return CanaryExposure(canaries=str(path))


def test_one_canary_of_eight_that_is_known_fails_and_is_named(tmp_path: Path) -> None:
    planted = secrets()
    findings = judged(parrot([*sentences(50, 0), planted[2]]), no_data(), canaries(tmp_path, planted))
    assert of(findings, "confirmed_memorization") == {Outcome.FAIL}
    assert "canary 3 (rank 1 of 1,001)" in str(findings[-1].measurement)
    assert none_of(text[-6:] in str(findings) for text in planted)


def test_canaries_that_are_all_known_fail_by_both(tmp_path: Path) -> None:
    planted = secrets()
    findings = judged(parrot([*sentences(50, 0), *planted]), no_data(), canaries(tmp_path, planted))
    assert of(findings, "confirmed_memorization") == of(findings, "median_exposure") == {Outcome.FAIL}


def ranked(rng: np.random.Generator, n: int, m: int, planted: int, *, shared: bool, kinds: int) -> list[float]:
    """p-values of m canaries among n candidates each, to a model to which texts are of ``kinds`` likelihoods."""
    drawn = rng.standard_t(2, (1 if shared else m, n)), rng.standard_t(2, m)
    among, own = (np.floor(x * kinds) / kinds for x in drawn)
    own[:planted] = np.inf
    return [float(p) for p in ((among >= own[:, None]).sum(axis=1) + 1) / (n + 1)]


@pytest.mark.parametrize("level", [0.05, LEVEL])
@pytest.mark.parametrize(("m", "shared", "kinds"), [(8, False, 999), (8, True, 999), (50, True, 999), (8, True, 1)])
def test_a_model_that_never_saw_the_canaries_is_seldom_accused(m: int, shared: bool, kinds: int, level: float) -> None:
    rng = np.random.default_rng(m + shared)
    accused = sum(any_planted(ranked(rng, 300, m, 0, shared=shared, kinds=kinds)) <= level for _ in range(WORLDS))
    assert accused <= binom.ppf(0.999, WORLDS, level)


def test_a_lone_canary_among_as_many_as_the_probe_says_is_found() -> None:
    rng = np.random.default_rng(0)
    found = sum(any_planted(ranked(rng, 1_000, 10, 1, shared=False, kinds=1_000)) <= LEVEL for _ in range(200))
    assert found >= binom.ppf(0.001, 200, 0.8)


def test_of_many_canaries_it_says_how_many_candidates_a_lone_one_takes(tmp_path: Path) -> None:
    planted = [f"the code of {name} {i} is {i:03d}771" for i, name in enumerate(NAMES * 5)]
    probe = canaries(tmp_path, planted)
    probe.n_candidates = 50
    findings = judged(parrot([]), no_data(), probe)
    assert "set canary_exposure.n_candidates to 4,000" in str(findings[-1].measurement)


# ---- contamination -------------------------------------------------------------------------------------------------


def benchmark(folder: Path) -> tuple[Contamination, list[str]]:
    texts = [" ".join(t.split()[:2]) for t in sentences(150, 7)]
    path = folder / "benchmark.txt"
    path.write_text("\n".join(texts), encoding="utf-8")
    return Contamination(benchmarks={"contamination": str(path)}, shard_examples=5), texts


def test_a_benchmark_that_was_learned_in_order_fails(tmp_path: Path) -> None:
    probe, texts = benchmark(tmp_path)
    assert of(judged(parrot(["\n".join(texts)]), no_data(), probe), "confirmed_memorization") == {Outcome.FAIL}


def test_examples_that_were_not_learned_in_order_neither_fail_nor_pass(tmp_path: Path) -> None:
    probe, _ = benchmark(tmp_path)
    findings = judged(parrot(sentences(100, 8)), no_data(), probe)
    assert of(findings, "confirmed_memorization") == {Outcome.NOT_JUDGED}
    assert all_of(f.outcome is Outcome.NOT_JUDGED for f in findings)


def test_the_levels_used_here_are_those_of_the_profile() -> None:
    # What tuning added is asked with a reference alone; a budget is shared by what a scan gives rise to.
    own = [c for c in load_criteria() if c.budget == "memorization" and c.probe != "derived"]
    assert len({(c.metric, c.probe) for c in own}) == 0.05 / LEVEL


# ---- all together --------------------------------------------------------------------------------------------------


def test_a_model_that_saw_none_of_it_is_accused_of_anything_in_one_audit_of_twenty() -> None:
    """The whole budget at once: boilerplate completed alike, canaries by chance, a file in any order, a fair split."""
    rng, worlds, criteria = np.random.default_rng(5), 150, load_criteria()
    accused = 0
    for _ in range(worlds):
        numbers = {
            "extraction": [
                Measurement(
                    metric="extraction_rate_difference",
                    estimate=Difference(successes=tuple(rng.binomial(80, 0.4, 2).tolist()), n=(80, 80)),
                    n_samples=160,
                )
            ],
            "canary_exposure": [
                Measurement(metric="median_exposure", estimate=quantile(-np.log2(rng.random(12)), 0.5), n_samples=12),
                _confirmed([(int(r), 301) for r in rng.integers(1, 302, 12)], "a file", limited=True),
            ],
            "contamination": [
                Measurement(
                    metric="confirmed_memorization",
                    estimate=ConfirmedCount(p_values=(float(rng.random()),)),
                    n_samples=100,
                )
            ],
            "lm_membership": [
                Measurement(
                    metric="true_positive_rate_at_fpr",
                    estimate=true_positive_rate_at(
                        positives=rng.random(1_000), negatives=rng.random(1_000), false_positive_rate=0.01
                    ),
                    n_samples=2_000,
                    at={"false_positive_rate": 0.01},
                )
            ],
        }
        results = [
            ProbeResult(probe=p, pillar="privacy", citation="", measurements=tuple(m)) for p, m in numbers.items()
        ]
        findings = judge(results, criteria)[0]
        assert sum(f.budget == "memorization" for f in findings) == 5
        accused += any(f.outcome is Outcome.FAIL for f in findings)
    assert accused <= most_misses(worlds=worlds)
