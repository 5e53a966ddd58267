"""Counterfactual token fairness: gaps of toy models by hand, a slow second way, error rates, and what is refused."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from subprocess import run
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import stdtrit
from scipy.stats import binom

from auditor.core.errors import ConfigError, NotApplicableError, UsageError
from auditor.data.audit_data import AuditData
from auditor.data.lexicons import built_in, neutral, templates
from auditor.judging.criterion import Criterion, parse_criterion
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.run.probe import make_probe
from auditor.run.run_audit import ask, no_data, run_audit
from auditor.statistics.estimate import Estimate
from auditor.statistics.intervals import bounded_mean_reach, clopper_pearson
from auditor.statistics.means import PairedDifference, WorstPairedDifference, paired_difference
from auditor.statistics.rates import Proportion
from probes.fairness.token_fairness import CounterfactualTokenFairness
from tests.quantifiers import all_of
from tests.statistics.worlds import WORLDS, misses, moments, most_misses
from tests.toys.words import fit_text

Score = Callable[[str], float]
GAP = parse_criterion({"metric": "worst_identity_gap", "direction": "at_most", "bound": 0.10}, "test")
FLIPS = parse_criterion({"metric": "counterfactual_flip_rate", "direction": "at_most", "bound": 0.05}, "test")


def model(score: Score) -> AuditedModel:
    def predict(X: Sequence[str]) -> npt.NDArray[np.float64]:
        return np.asarray([score(text) for text in X], float)

    return AuditedModel.from_callable(predict, classes=["ok", "toxic"])


def texts(*X: str) -> AuditData:
    return AuditData.from_arrays(list(X), classes=["ok", "toxic"], positive="toxic")


def measured(score: Score, data: AuditData | None = None, seed: int = 0, **options: object) -> list[Measurement]:
    probe = CounterfactualTokenFairness(**options)  # type: ignore[arg-type]
    return probe.measure(model(score), no_data() if data is None else data, np.random.default_rng(seed))


def one(found: list[Measurement], metric: str, method: str = "templates", **group: str) -> Measurement:
    return next(m for m in found if m.metric == metric and m.method == method and dict(m.group) == group)


def outcomes(found: list[Measurement], *criteria: Criterion) -> list[Outcome]:
    result = ProbeResult(probe="p", pillar="fairness", citation="", measurements=tuple(found))
    return [f.outcome for f in judge([result], criteria or (GAP, FLIPS))[0] if f.criterion is not None]


def constant(_: str) -> float:
    return 0.3


def against_gay(text: str) -> float:
    return 0.9 if re.search(r"\bgay\b", text, re.IGNORECASE) else 0.3


def debiased(text: str) -> float:
    """Scores by what is said, never of whom."""
    return 0.9 if re.search(r"lazy|mean|rude|stupid|dislike", text) else 0.1


def written(tmp_path: Path, **more: object) -> str:
    """A lexicon of two identities with three templates of its own."""
    content = {
        "category": "city",
        "source": "a test",
        "why": "a test",
        "templates": ["A {noun} came.", "I know a {noun}.", "The {noun} is here."],
        "identities": [
            {"name": "Paris", "words": {"noun": "Parisian"}},
            {"name": "Rome", "words": {"noun": "Roman"}},
        ],
        **more,
    }
    (tmp_path / "mine.json").write_text(json.dumps(content))
    return str(tmp_path / "mine.json")


# ---- toys ----------------------------------------------------------------------------------------------------------


def test_the_ideal_toy_passes_and_one_that_says_the_same_of_everybody_does_not() -> None:
    assert outcomes(measured(debiased)) == [Outcome.PASS, Outcome.PASS]
    assert outcomes(measured(constant)) == [Outcome.INCONCLUSIVE, Outcome.INCONCLUSIVE]


def test_the_violating_toy_fails_and_is_named() -> None:
    found = measured(against_gay)
    assert outcomes(found) == [Outcome.FAIL, Outcome.FAIL]
    assert one(found, "worst_identity_gap").detail.startswith("orientation: gay 0.900 against straight 0.300")
    assert "religion: no gap" in one(found, "worst_identity_gap").detail
    gaps = {m.at["identity"]: m.estimate.value for m in found if m.at.get("category") == "orientation"}
    # Eight identities, one of them 0.6 above the others: 0.6 * 7 / 8 above the mean, and the others 0.6 / 8 below.
    assert gaps["gay"] == pytest.approx(0.525) and gaps["straight"] == pytest.approx(-0.075)
    assert gaps["neutral words"] == pytest.approx(-0.075)
    assert one(found, "counterfactual_flip_rate", category="orientation").estimate == Proportion(successes=80, n=80)
    assert one(found, "counterfactual_flip_rate", category="age").estimate == Proportion(successes=0, n=80)
    assert one(found, "worst_identity_gap", category="orientation").estimate.value == pytest.approx(0.6)


def test_a_model_against_every_identity_alike_is_seen_beside_neutral_words() -> None:
    words = [w for lexicon in built_in(["religion"]) for i in lexicon.identities for w in i.words["adjective"]]
    pattern = re.compile("|".join(words), re.IGNORECASE)
    found = measured(lambda text: 0.9 if pattern.search(text) else 0.3, categories="religion")
    assert one(found, "worst_identity_gap").estimate.value == pytest.approx(0.6)
    assert "against neutral words 0.300" in one(found, "worst_identity_gap").detail
    assert one(found, "counterfactual_flip_rate").estimate.value == 0.0


def test_own_templates_by_hand(tmp_path: Path) -> None:
    scores = {
        "A Parisian came.": 0.9, "I know a Parisian.": 0.6, "The Parisian is here.": 0.3,
        "A Roman came.": 0.5, "I know a Roman.": 0.4, "The Roman is here.": 0.3,
    }  # fmt: skip
    found = measured(lambda text: scores.get(text, 0.0), lexicon=written(tmp_path))
    # Differences 0.4, 0.2, 0.0: mean 0.2, standard deviation 0.2; the decision changes in the second sentence only.
    estimate = one(found, "worst_identity_gap").estimate
    assert isinstance(estimate, WorstPairedDifference) and len(estimate.pairs) == 1
    pair = estimate.pairs[0]
    assert (pair.first, pair.second, pair.n) == ("city/Paris", "city/Rome", 3)
    assert pair.centre == pytest.approx(0.2) and pair.standard_error == pytest.approx(0.2 / np.sqrt(3))
    assert one(found, "counterfactual_flip_rate").estimate == Proportion(successes=1, n=3)
    assert one(found, "random_swap_flip_rate").estimate == Proportion(successes=1, n=3)
    gaps = {m.at["identity"]: m.estimate.value for m in found if m.at}
    assert gaps == {"Paris": pytest.approx(0.1), "Rome": pytest.approx(-0.1)}
    assert "mine.json" in one(found, "worst_identity_gap").detail


def test_user_texts_by_hand() -> None:
    X = [f"{i} Parisian things." for i in range(3)] + [
        "My gay brother called.",
        "A gay man and a lesbian woman came.",
        "The lesbian choir sang.",
        "The lesbian choir sang.",
        "nothing of the kind",
        "straight ahead",
    ]
    found = measured(against_gay, texts(*X), methods="texts", categories="orientation", min_hits=2)
    assert one(found, "texts_with_identity_terms", "texts").estimate == Proportion(successes=3, n=8)
    # In every text one of the eight words is "gay" in one version and in none of the others, but for the second,
    # where gay and lesbian change places.
    assert one(found, "counterfactual_flip_rate", "texts").estimate == Proportion(successes=3, n=3)
    gap = one(found, "worst_identity_gap", "texts")
    assert gap.estimate.value == pytest.approx(0.6) and gap.n_samples == 3
    pairs = {(p.first[12:], p.second[12:]): p.centre for p in gap.estimate.pairs}  # type: ignore[union-attr]
    assert pairs["gay", "lesbian"] == pytest.approx((0.6 + 0.0 + 0.6) / 3)


def test_the_slow_way_gives_the_same() -> None:
    def score(text: str) -> float:
        return float(np.random.default_rng(list(text.encode())).random())

    found = measured(score, categories="disability")
    lexicon, words = built_in(["disability"])[0], neutral().identities[0].words["adjective"]
    frames = [t for t in templates() if "djective}" in t]
    adjectives = [i.words["adjective"] for i in lexicon.identities] + [words]
    table = np.zeros((len(frames), len(adjectives)))
    decided = np.zeros((len(frames), len(adjectives) - 1), bool)
    for row, frame in enumerate(frames):
        for column, alternatives in enumerate(adjectives):
            own = []
            for word in alternatives:
                text = frame.replace("{Adjective}", word.capitalize()).replace("{adjective}", word)
                text = re.sub(r"\b([Aa])n?(?= (?:able|autistic|epileptic))", r"\1n", text)
                own.append(score(text))
            table[row, column] = np.mean(own)
            if column < len(adjectives) - 1:
                decided[row, column] = own[0] >= 0.5
    widest = max(abs((table[:, i] - table[:, j]).mean()) for i, j in combinations(range(len(adjectives)), 2))
    assert one(found, "worst_identity_gap").estimate.value == pytest.approx(widest, abs=1e-12)
    flipped = int((decided.any(axis=1) & ~decided.all(axis=1)).sum())
    assert one(found, "counterfactual_flip_rate").estimate == Proportion(successes=flipped, n=len(frames))
    gaps = [m.estimate.value for m in found if m.at]
    centre = table[:, :-1].mean(axis=1, keepdims=True)
    assert gaps == pytest.approx((table - centre).mean(axis=0).tolist(), abs=1e-12)


def test_templates_and_texts_side_by_side() -> None:
    X = [f"On day {i} the Muslim and the Hindu met." for i in range(25)]
    found = measured(debiased, texts(*X))
    assert {m.method for m in found} == {"templates", "texts"}
    detail = one(found, "texts_with_identity_terms", "texts").detail
    assert "Of 25 different texts read, 25 name an identity" in detail and "age (0)" in detail
    assert one(found, "worst_identity_gap", "texts").n_samples == 25
    without = measured(debiased, texts("no such word here", "nor here"))
    assert {m.method for m in without if m.metric == "worst_identity_gap"} == {"templates"}
    assert one(without, "texts_with_identity_terms", "texts").estimate == Proportion(successes=0, n=2)


def test_the_favourable_class_is_scored_and_decided() -> None:
    rows = AuditData.from_arrays(["x"], classes=["ok", "toxic"], positive="ok")
    found = CounterfactualTokenFairness().measure(model(against_gay), rows, np.random.default_rng(0))
    assert "score: P(ok)" in one(found, "worst_identity_gap").detail
    assert {m.at["identity"]: m.estimate.value for m in found if m.at}["gay"] == pytest.approx(-0.525)


def test_report_and_figure() -> None:
    report = run_audit(model(against_gay), None, [CounterfactualTokenFairness()], [GAP, FLIPS])
    assert report.exit_code == 1 and report.family.m == 2
    again = type(report).model_validate_json(report.model_dump_json())
    assert again.findings == report.findings
    figures = {figure.id for figure in report.figures}
    assert "counterfactual_token_fairness/identities/templates" in figures


# ---- options and refusals ------------------------------------------------------------------------------------------


def test_options_limit_what_is_read() -> None:
    found = measured(constant, categories=["age", "names"], n_templates=10)
    assert {m.group["category"] for m in found if m.group} == {"age", "names"}
    assert one(found, "worst_identity_gap", category="age").n_samples == 10
    X = [f"Day {i}: a Muslim came." for i in range(100)]
    found = measured(constant, texts(*X), methods="texts", n_texts=30)
    assert one(found, "worst_identity_gap", "texts").n_samples == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": "text"}, "methods must be auto or out of"),
        ({"n_texts": 0}, "n_texts must be a whole number"),
        ({"categories": []}, "at least one category"),
        ({"categories": "religon"}, "did you mean 'religion'"),
        ({"lexicon": "/nowhere/x.toml"}, "cannot be read"),
        ({"lexicn": "x"}, "did you mean 'lexicon'"),
    ],
)
def test_wrong_options_are_usage_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_probe(CounterfactualTokenFairness, options)


def test_lexicons_of_the_user(tmp_path: Path) -> None:
    path = written(tmp_path, catgory="x")
    with pytest.raises(ConfigError, match="unknown key 'catgory'"):
        CounterfactualTokenFairness(lexicon=path)
    with pytest.raises(ConfigError, match="at least two"):
        CounterfactualTokenFairness(lexicon=written(tmp_path, identities=[]))
    with pytest.raises(ValueError, match="two lexicons are about one category"):
        CounterfactualTokenFairness(lexicon=written(tmp_path, category="age"), categories="age")
    words = [{"name": "plain", "words": {"noun": "visitor"}}]
    (tmp_path / "reference.json").write_text(
        json.dumps({"category": "plain", "source": "s", "why": "w", "reference": True, "identities": words})
    )
    own = measured(
        lambda t: 0.2 + 0.5 * ("visitor" in t), lexicon=[written(tmp_path), str(tmp_path / "reference.json")]
    )
    assert one(own, "worst_identity_gap").estimate.value == pytest.approx(0.5)


def test_no_hit_is_no_number(tmp_path: Path) -> None:
    rows = texts("no city here", "none here")
    with pytest.raises(NotApplicableError, match="0 name an identity; named in fewer than 20 and not measured: city"):
        measured(constant, rows, lexicon=written(tmp_path), methods="texts")
    with pytest.raises(NotApplicableError, match="0 name an identity"):
        measured(constant, rows, lexicon=written(tmp_path, templates=[]))
    with pytest.raises(NotApplicableError, match="--text COLUMN"):
        measured(constant, methods="texts")
    with pytest.raises(NotApplicableError, match="No template has places"):
        measured(constant, lexicon=written(tmp_path, templates=[]), methods="templates")


def test_models_that_take_no_texts() -> None:
    def breaks(X: Sequence[str]) -> npt.NDArray[np.float64]:
        return np.asarray([float(x) for x in X])

    rng, probe = np.random.default_rng(0), CounterfactualTokenFairness()
    audited = AuditedModel.from_callable(breaks, classes=[0, 1])
    assert "could not read a sentence" in ask(probe, audited, None, rng).not_applicable
    tabular = AuditedModel.from_callable(breaks, classes=[0, 1], features=["a"])
    assert "something else" in ask(probe, tabular, None, rng).not_applicable
    table = AuditData.from_arrays(np.zeros((3, 2)), classes=[0, 1])
    assert "something else" in ask(probe, audited, table, rng).not_applicable
    # With texts at hand there is no doubt that it takes them: what it raises is the model's own failure.
    assert "ValueError" in ask(probe, audited, texts("a", "b"), rng).not_run


def test_the_package_imports_no_torch() -> None:
    modules = "probes, probes.fairness.token_fairness, probes.fairness.counterfactual_fairness"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0


# ---- laws ----------------------------------------------------------------------------------------------------------


def test_same_seed_same_measurements_and_the_model_stays_as_it_was() -> None:
    import torch

    from auditor.models.networks.architectures import BiLSTMText
    from auditor.models.torch_model import TorchModel

    preprocessing = fit_text(["Emily and Greg met the man who she knew."], length=20)
    torch.manual_seed(0)
    module = BiLSTMText(len(preprocessing.vocabulary) + 2, 1, embedding_dim=4, hidden_size=4, dense=4)
    module.train()
    audited = TorchModel(module, classes=["ok", "toxic"], preprocessing=preprocessing)
    before, state = {k: v.clone() for k, v in module.state_dict().items()}, torch.get_rng_state()
    probe = CounterfactualTokenFairness(categories=["names", "gender"], n_templates=20)
    first, second = (probe.measure(audited, no_data(), np.random.default_rng(7)) for _ in range(2))
    estimates: list[list[Estimate]] = [[m.estimate for m in found] for found in (first, second)]
    assert estimates[0] == estimates[1]
    assert all_of(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert module.training and torch.equal(torch.get_rng_state(), state)


def test_bounds_without_spread_are_those_of_an_unseen_value() -> None:
    for n in (40, 80, 200):
        for alpha in (0.05, 0.0125, 1e-4):
            reach = float(bounded_mean_reach(standard_error=0.0, third_moment=0.0, n=n, room=1.0, alpha=alpha))
            exact = float(clopper_pearson(0, n=n, alpha=alpha)[1])
            assert exact <= reach <= exact * (1 + np.log(1 / alpha) / n)
    assert np.isinf(bounded_mean_reach(standard_error=0.0, third_moment=0.0, n=1, room=1.0, alpha=0.05))


def test_bounds_are_nested_and_hold_the_value() -> None:
    rng = np.random.default_rng(0)
    samples = [rng.uniform(0.2, 0.4, 80), rng.uniform(-1, 0.6, 40), np.zeros(10), np.ones(20), rng.random(30) < 0.1]
    pairs = tuple(paired_difference(first="a", second=str(i), differences=d) for i, d in enumerate(samples))
    for chosen in (pairs, pairs[:3], pairs[:1], pairs[2:3]):
        estimate = WorstPairedDifference(pairs=chosen)
        limits = [estimate.bounds(alpha) for alpha in (0.5, 0.1, 0.01, 1e-4, 1e-16)]
        assert all_of(a[0] >= b[0] and a[1] <= b[1] for a, b in zip(limits, limits[1:], strict=False))
        assert all_of(0.0 <= low <= estimate.value <= high <= 1.0 for low, high in limits)
        for bound in (0.05, 0.25):
            p = estimate.p_value(bound, "greater")
            if 1e-16 < p < 0.5:
                assert estimate.bounds(p * 1.01)[0] > bound >= estimate.bounds(p * 0.99)[0]


Worlds = Callable[[np.random.Generator, int, int], npt.NDArray[np.float64]]


def noisy(gap: float) -> Worlds:
    """Eight identities whose scores vary by 0.1 about each sentence's own level; the first is higher by ``gap``."""

    def draw(rng: np.random.Generator, n: int, k: int) -> npt.NDArray[np.float64]:
        level = rng.uniform(0.4, 0.6 - gap / 2, (n, 1))
        scores = level + rng.uniform(-0.17, 0.17, (n, k))
        scores[:, 0] += gap
        return scores

    return draw


def rare(gap: float) -> Worlds:
    """All identities alike, but in a share ``gap`` of sentences the first is scored 1 and the others 0."""

    def draw(rng: np.random.Generator, n: int, k: int) -> npt.NDArray[np.float64]:
        scores = np.full((n, k), 0.3)
        hit = rng.random(n) < gap
        scores[hit] = 0.0
        scores[hit, 0] = 1.0
        return scores

    return draw


def largest_gaps(worlds: Worlds, n: int, k: int) -> Iterator[WorstPairedDifference]:
    """In every world the largest gap between two of ``k`` identities over ``n`` sentences."""
    scores = worlds(np.random.default_rng(n), WORLDS * n, k).reshape(WORLDS, n, k)
    pairs = list(combinations(range(k), 2))
    differences = np.stack([scores[..., i] - scores[..., j] for i, j in pairs], axis=1)
    columns = (x.reshape(WORLDS, len(pairs)).tolist() for x in moments(differences.reshape(-1, n)))
    for world, (centres, errors, thirds) in enumerate(zip(*columns, strict=True)):
        parts = [
            PairedDifference(first=str(i), second=str(j), centre=c, standard_error=e, third_moment=m, n=n)
            for (i, j), c, e, m in zip(pairs, centres, errors, thirds, strict=True)
        ]
        if not world:
            slow = paired_difference(first="0", second="1", differences=differences[0, 0])
            assert parts[0].model_dump() == pytest.approx(slow.model_dump(), abs=1e-12)
        yield WorstPairedDifference(pairs=tuple(parts))


@pytest.mark.grid
@pytest.mark.parametrize("n", [20, 80])
@pytest.mark.parametrize(("worlds", "gap"), [(noisy(0.0), 0.0), (noisy(0.1), 0.1), (rare(0.0), 0.0), (rare(0.1), 0.1)])
def test_error_rates_at_no_effect_and_at_the_bound(worlds: Worlds, gap: float, n: int) -> None:
    assert max(misses(largest_gaps(worlds, n, 8), gap)) <= most_misses()


@pytest.mark.parametrize("n", [10, 20, 40, 80, 200, 500])
def test_bounds_of_rare_differences_enumerated(n: int) -> None:
    """Differences of 0 and 1, every outcome weighed: no bound is missed more often than promised; Student's is."""
    k = np.arange(n + 1)
    mean = k / n
    error, third = np.sqrt(mean * (1 - mean) / (n - 1)), mean * (1 - mean) * (1 - 2 * mean)
    for alpha in (0.05, 0.0125, 0.0025, 2.5e-4, 2.5e-5):
        upper = mean + bounded_mean_reach(standard_error=error, third_moment=third, n=n, room=1.0 - mean, alpha=alpha)
        lower = mean - bounded_mean_reach(standard_error=error, third_moment=-third, n=n, room=1.0 + mean, alpha=alpha)
        student = mean - stdtrit(n - 1, alpha) * error
        shares = np.linspace(0.01, 0.99, 99)
        weights = binom.pmf(k, n, shares[:, None])
        missed = [(weights * (shares[:, None] > upper)).sum(axis=1), (weights * (shares[:, None] < lower)).sum(axis=1)]
        assert max(m.max() for m in missed) <= alpha
        assert (weights * (shares[:, None] > student)).sum(axis=1).max() > 2 * alpha


def hashed(text: str, seed: int) -> float:
    return (crc32(f"{seed} {text}".encode()) / 2**32 - 0.5) * 0.34


def world_of(gap: float, seed: int) -> Score:
    """A model whose score varies from text to text by 0.1, and is higher by ``gap`` for two words."""

    def score(text: str) -> float:
        return 0.2 + hashed(text, seed) + gap * bool(re.search(r"\b(?:gay|lesbian)\b", text, re.IGNORECASE))

    return score


def test_whole_audits_without_effect_and_at_the_stated_power() -> None:
    n, effect = CounterfactualTokenFairness.power
    options = {"categories": ["orientation", "disability"]}
    null = [outcomes(measured(world_of(0.0, seed), **options), GAP)[0] for seed in range(20)]
    assert null.count(Outcome.FAIL) == 0
    four = [GAP, FLIPS, GAP, FLIPS]
    found = [outcomes(measured(world_of(effect, seed), **{"categories": "auto"}), *four)[0] for seed in range(5)]
    assert found.count(Outcome.FAIL) >= 4 and n == 80


def test_few_sentences_of_one_category_are_not_hidden_by_many_of_another() -> None:
    """475 sentences name a gender, 24 an orientation, and the decision flips in all of the latter."""
    X = [f"The woman number {i} came." for i in range(475)] + [f"The gay singer number {i} came." for i in range(24)]
    found = measured(against_gay, texts(*X), methods="texts", categories=["gender", "orientation"], n_texts=1000)
    assert one(found, "counterfactual_flip_rate", "texts").estimate.value < 0.05
    worst = one(found, "worst_category_flip_rate", "texts")
    assert worst.estimate.value == 1.0 and worst.estimate.bounds(0.01)[0] > 0.5
    assert "orientation 24 of 24" in worst.detail


def test_an_identity_that_was_compared_with_no_other_is_no_pass(tmp_path: Path) -> None:
    path = tmp_path / "towns.toml"
    path.write_text("""
category = "city"
source = "a test"
why = "to see"
[[identities]]
name = "Rome"
words = { noun = ["Roman"], plural = ["Romans"] }
[[identities]]
name = "Paris"
words = { noun = ["Parisian"], plural = ["Parisians"] }
[[identities]]
name = "Berlin"
words = { plural = ["Berliners"] }
""")
    X = [f"A Roman came at {i}." for i in range(150)] + ["Berliners came."]
    found = measured(lambda text: 0.01 if "Berlin" in text else 0.7, texts(*X), methods="texts", lexicon=str(path))
    gap = one(found, "worst_identity_gap", "texts")
    assert np.isnan(gap.estimate.value) and gap.estimate.bounds(0.05)[1] == 1.0
    assert "city/Berlin" in gap.detail
