"""Generation: sampling against the slow way, planted bias found, its absence passed, the scorer's own bias flagged."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor, nn

import probes.generation
from auditor.arrays import FloatArray
from auditor.errors import ConfigError, ModelError, NotApplicableError
from auditor.finding import Criterion, Finding, Measurement, Outcome, ProbeResult, judge
from auditor.generation import Sampling, _choose, continuations
from auditor.language import AuditedLanguageModel
from auditor.model import AuditedModel
from auditor.probe import make_probe
from auditor.run import no_data
from auditor.statistics.estimate import Undefined
from auditor.statistics.means import BracketedMean, paired_difference
from auditor.testing import check_probe
from probes.generation import (
    CATEGORIES,
    METHOD,
    Bold,
    GenerationBias,
    Honest,
    _built_in,
    category_measurements,
    group_distance,
    group_fairness,
    individual_distances,
    individual_fairness,
    load_scorer,
)
from tests.test_language import causal_tokenizer, masked_tokenizer, tiny, tiny_bert

WORLDS = 200
# The largest count of 200 that a true rate of 5 % exceeds with probability at most 0.1 %.
MOST_OF_200 = 21


def criterion(metric: str, bound: float = 0.1) -> Criterion:
    return Criterion(metric=metric, direction="at_most", bound=bound, source="test", set_by="test", set_at="2026-01-01")


def judged(found: list[Measurement], metric: str, bound: float = 0.1) -> Finding:
    result = ProbeResult(probe="generation_bias", pillar="language", citation="", measurements=tuple(found))
    findings = judge([result], [criterion(metric, bound)])[0]
    return next(f for f in findings if f.criterion is not None and f.measurement is not None)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


PROMPTS = ["the dog sees", "a", "the small old man likes the red", "the dog", "but not today the cat"]


# ---- sampling ------------------------------------------------------------------------------------------------------


def one_by_one(network: nn.Module, tokenizer: Any, prompt: str, n: int) -> str:
    """Greedy, one prompt, everything computed anew at every step."""
    ids = list(tokenizer(prompt).input_ids)
    new: list[int] = []
    with torch.no_grad():
        for _ in range(n):
            token = int(network(input_ids=torch.tensor([ids + new])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id or token == 2:
                break
            new.append(token)
    return str(tokenizer.decode(new, skip_special_tokens=True))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2", "gpt_neox", "bloom"])
def test_batched_and_cached_is_one_by_one(kind: str) -> None:
    more = {"n_head": 2, "n_layer": 2} if kind == "bloom" else {}
    network, tokenizer = tiny(kind, **more).eval(), causal_tokenizer()
    model = AuditedLanguageModel(network, tokenizer)
    greedy = Sampling(max_new_tokens=12, temperature=0.0)
    expected = [one_by_one(network, tokenizer, p, 12) for p in PROMPTS]
    for rows in (1, 2, 64):
        found = continuations(model, PROMPTS, 1, greedy, generator(), batch_rows=rows)
        assert [texts[0] for texts in found] == expected


def test_the_cache_is_used() -> None:
    network = tiny("llama").eval()
    lengths: list[int] = []
    forward = network.forward

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network
            self.config = network.config

        def get_input_embeddings(self) -> Any:
            return network.get_input_embeddings()  # type: ignore[operator]

        def forward(
            self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, cache: Any = None,
            use_cache: bool = True,
        ) -> Any:  # fmt: skip
            lengths.append(input_ids.shape[1])
            return forward(
                input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, cache=cache,
                use_cache=use_cache,
            )  # fmt: skip

    model = AuditedLanguageModel(Watched(), causal_tokenizer(), objective="causal")
    continuations(model, PROMPTS, 2, Sampling(max_new_tokens=6), generator())
    assert lengths[0] > 1 and set(lengths[1:]) == {1}


def test_same_seed_same_texts_whatever_the_batches_and_no_global_generator_moves() -> None:
    network = tiny("llama").train()
    before = copy.deepcopy(network.state_dict())
    model = AuditedLanguageModel(network, causal_tokenizer())
    state, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    sampling = Sampling(max_new_tokens=8, top_p=0.9)
    first = continuations(model, PROMPTS, 3, sampling, generator(), batch_rows=64)
    assert continuations(model, PROMPTS, 3, sampling, generator(), batch_rows=2) == first
    assert continuations(model, PROMPTS, 3, sampling, generator(1)) != first
    assert len(first) == len(PROMPTS) and all(len(texts) == 3 for texts in first)
    assert torch.equal(state, torch.get_rng_state())
    assert (legacy == np.random.get_state()[1]).all()  # type: ignore[index]
    assert network.training and all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.7), (2.0, 0.9)])
def test_draws_follow_the_distribution(temperature: float, top_p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.tensor([2.0, 0.5, 1.0, -1.0, 0.0])
    p = torch.softmax(logits / temperature, 0).double().numpy()
    order = np.argsort(-p)
    kept = order[: int(np.searchsorted(np.cumsum(p[order]), top_p) + 1)] if top_p < 1 else order
    expected = np.zeros(5)
    expected[kept] = p[kept] / p[kept].sum()
    n = 40_000
    for likeliest in (1024, 2):
        monkeypatch.setattr("auditor.generation._LIKELIEST", likeliest)
        draws = torch.rand(n, generator=generator(), dtype=torch.float64)
        found = _choose(logits.expand(n, -1), draws, Sampling(temperature=temperature, top_p=top_p))
        shares = np.bincount(found.numpy(), minlength=5) / n
        np.testing.assert_allclose(shares, expected, atol=0.012)
        assert (shares[expected == 0] == 0).all()


def test_what_cannot_be_sampled() -> None:
    network = tiny("gpt2", n_positions=10)
    model = AuditedLanguageModel(network, causal_tokenizer())
    with pytest.raises(NotApplicableError, match="context of 10"):
        continuations(model, ["the dog"], 1, Sampling(max_new_tokens=9), generator())
    masked = AuditedLanguageModel(tiny_bert(), masked_tokenizer())
    with pytest.raises(NotApplicableError, match="causal"):
        continuations(masked, ["the dog"], 1, Sampling(), generator())
    with pytest.raises(ModelError, match="NaN"):
        _choose(torch.tensor([[0.0, float("nan")]]), torch.zeros(1), Sampling())
    for wrong in ({"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Sampling(**wrong)  # type: ignore[arg-type]


# ---- distances -----------------------------------------------------------------------------------------------------


def test_plain_distances_are_scipys() -> None:
    scores = np.random.default_rng(0).random((5, 3, 6))
    _, plain = individual_distances(scores)
    slow = [np.mean([wasserstein_distance(row[i], row[j]) for i, j in combinations(range(3), 2)]) for row in scores]
    np.testing.assert_allclose(plain, slow)
    _, group, _ = group_distance(scores)
    everything = scores.ravel()
    assert group == pytest.approx(np.mean([wasserstein_distance(scores[:, i].ravel(), everything) for i in range(3)]))


def test_pseudo_values_are_leave_one_out() -> None:
    scores = np.random.default_rng(1).random((4, 2, 3))
    _, plain, pseudo = group_distance(scores)
    slow = [4 * plain - 3 * group_distance(np.delete(scores, t, axis=0))[1] for t in range(4)]
    np.testing.assert_allclose(pseudo, slow)


def test_the_held_out_distance_of_separate_scores_is_the_distance() -> None:
    scores = np.stack([np.full((6, 4), 0.2), np.full((6, 4), 0.7)], axis=1)
    held_out, plain = individual_distances(scores)
    np.testing.assert_allclose(held_out, 0.5)
    np.testing.assert_allclose(plain, 0.5)
    np.testing.assert_allclose(group_distance(scores)[0], 0.25)


def test_held_out_estimates_are_not_biased_upward_and_plain_ones_are() -> None:
    rng = np.random.default_rng(2)
    scores = rng.random((4000, 2, 4))
    held_out, plain = individual_distances(scores)
    assert abs(held_out.mean()) < 4 * held_out.std() / np.sqrt(4000)
    assert plain.mean() > 0.15
    assert abs(np.mean([group_distance(s)[0].mean() for s in scores.reshape(200, 20, 2, 4)])) < 0.006


@pytest.fixture
def without_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The level of chance is for planning and for the detail; it takes most of the time and judges nothing."""
    monkeypatch.setattr(probes.generation, "_by_chance", lambda *arguments: 0.0)


def no_effect(kind: str, rng: np.random.Generator, m: int, k: int, n: int) -> FloatArray:
    if kind == "sparse":
        return np.asarray(rng.random((m, k, n)) < 0.1 * rng.uniform(0, 2, (m, 1, 1)), np.float64)
    scores = np.clip(rng.uniform(0.3, 0.6, (m, 1, 1)) + rng.normal(0, 0.2, (m, k, n)), 0, 1)
    return np.where(rng.random((m, k, n)) < 0.5, 0.5, scores) if kind == "half neutral" else scores


@pytest.mark.parametrize("kind", ["plain", "half neutral", "sparse"])
@pytest.mark.parametrize(("m", "k", "n"), [(40, 2, 4), (10, 3, 8)])
@pytest.mark.usefixtures("without_chance")
def test_false_fails_where_there_is_no_effect(kind: str, m: int, k: int, n: int) -> None:
    """Even against a bound of 0 itself."""
    rng = np.random.default_rng(m)
    fails = [0, 0]
    for _ in range(WORLDS):
        scores = no_effect(kind, rng, m, k, n)
        for i, fairness in enumerate((individual_fairness, group_fairness)):
            fails[i] += fairness(scores, rng)[0].bounds(0.05)[0] > 0.0
    assert max(fails) <= MOST_OF_200


@pytest.mark.parametrize(("centre", "spread"), [(0.1, 0.0), (0.1, 0.1), (0.3, 0.2)])
@pytest.mark.parametrize(("m", "n"), [(40, 4), (10, 8)])
@pytest.mark.usefixtures("without_chance")
def test_error_rates_with_the_truth_at_the_bound(m: int, n: int, centre: float, spread: float) -> None:
    """Scores of the second identity are shifted by an amount that varies between beginnings; W1 is its mean."""
    rng = np.random.default_rng(m)
    fails, passes = [0, 0], [0, 0]
    for _ in range(WORLDS):
        shift = rng.uniform(centre - spread, centre + spread, (m, 1))
        base = rng.uniform(0.2, 0.4, (m, 1))
        scores = np.stack([base + rng.uniform(-0.15, 0.15, (m, n)), base + shift + rng.uniform(-0.15, 0.15, (m, n))], 1)
        for i, (fairness, true) in enumerate(((individual_fairness, centre), (group_fairness, centre / 2))):
            low, high = fairness(scores, rng)[0].bounds(0.05)
            fails[i] += low > true
            passes[i] += high < true
    assert max(*fails, *passes) <= MOST_OF_200


@pytest.mark.usefixtures("without_chance")
def test_the_stated_power() -> None:
    rng = np.random.default_rng(3)
    m, effect = GenerationBias.power
    found = 0
    for _ in range(60):
        scores = rng.normal(0.3, 0.2, (m, 2, 4)) + np.asarray([0.0, effect])[None, :, None]
        # Not cut to [0, 1], which would shorten the distance.
        found += individual_fairness(scores, rng)[0].bounds(0.05)[0] > 0.1
    assert found >= 48 - 8


def test_without_spread_nothing_is_certain() -> None:
    part = paired_difference("held out", "", np.zeros(20))
    low, high = BracketedMean(below=part, above=part).bounds(0.05)
    assert low == 0.0 and 0.1 < high < 0.2


# ---- the probe -----------------------------------------------------------------------------------------------------


class Talker(nn.Module):
    """Says "good" after anything, "bad" where the prompt holds one of the tokens ``targets``."""

    def __init__(self, size: int, good: int, bad: int, targets: list[int]) -> None:
        super().__init__()
        self.table = nn.Embedding(size, 4)
        self.good, self.bad, self.targets = good, bad, targets
        self.config = SimpleNamespace(model_type="talker")

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        logits = torch.full((*input_ids.shape, self.table.num_embeddings), -1e9)
        logits[..., self.good] = 0.0
        hit = torch.isin(input_ids, torch.tensor(self.targets, dtype=torch.long)).any(dim=1)
        logits[hit, :, self.good], logits[hit, :, self.bad] = -1e9, 0.0
        return SimpleNamespace(logits=logits)


LEXICON = """
category = "species"
source = "test"
why = "test"
templates = [{templates}]

[[identities]]
name = "feline"
words = {{ noun = "cat" }}

[[identities]]
name = "canine"
words = {{ noun = "dog" }}
"""


def talker(target: str | None) -> AuditedLanguageModel:
    return _talker(["cat", "dog", "the", *(f"w{i}" for i in range(60))], [] if target is None else [target])


def _talker(words: list[str], targets: list[str]) -> AuditedLanguageModel:
    tokenizer = causal_tokenizer(["good", "bad", *words])
    of = tokenizer.convert_tokens_to_ids
    network = Talker(len(tokenizer), of("good"), of("bad"), [of(t) for t in targets])
    return AuditedLanguageModel(network, tokenizer, objective="causal")


def toy(targets: list[str]) -> AuditedLanguageModel:
    """A model that knows the words of the built-in prompts about gender."""
    from tokenizers import pre_tokenizers

    prompts = _built_in("gender")
    rows = prompts.filled(prompts.beginnings, None, np.random.default_rng(0))
    split = pre_tokenizers.Whitespace().pre_tokenize_str
    return _talker(sorted({w for row in rows for text in row for w, _ in split(text)}), targets)


FEMALE = ["woman", "She", "sister"]


def goodness(bias: float = 0.0) -> AuditedModel:
    """A scorer: share of good among good and bad; with ``bias``, less of it where a dog is named."""

    def score(texts: Any) -> FloatArray:
        good = np.asarray([t.split().count("good") for t in texts], np.float64)
        bad = np.asarray([t.split().count("bad") for t in texts], np.float64)
        plain = np.where(good + bad > 0, good / np.maximum(good + bad, 1), 0.5)
        return np.clip(plain - bias * np.asarray(["dog" in t for t in texts]), 0.0, 1.0)

    return AuditedModel.from_callable(score, classes=("bad", "good"))


def probe_of(folder: Path, scorer: AuditedModel, n_templates: int = 60, **more: Any) -> GenerationBias:
    path = folder / "lexicon.toml"
    path.write_text(LEXICON.format(templates=", ".join(f'"the {{noun}} w{i}"' for i in range(60))))
    return GenerationBias(
        categories=(), lexicon=str(path), scorer=scorer, n_templates=n_templates, max_new_tokens=3, **more
    )


METRICS = ("average_individual_fairness", "average_group_fairness", "worst_score_gap")


@pytest.mark.parametrize("metric", METRICS)
def test_planted_bias_fails_and_its_absence_passes(tmp_path: Path, metric: str) -> None:
    probe = probe_of(tmp_path, goodness())
    biased = probe.measure(talker("dog"), no_data(), np.random.default_rng(0))
    assert judged(biased, metric).outcome is Outcome.FAIL
    ideal = probe.measure(talker(None), no_data(), np.random.default_rng(0))
    assert judged(ideal, metric).outcome is Outcome.PASS
    few = probe_of(tmp_path, goodness(), n_templates=10).measure(talker(None), no_data(), np.random.default_rng(0))
    finding = judged(few, metric)
    assert finding.outcome is Outcome.INCONCLUSIVE and (finding.n_required or 0) > 10


def test_it_keeps_the_contract() -> None:
    check_probe(
        GenerationBias(categories="gender", n_samples=2, max_new_tokens=2, scorer=goodness()),
        ideal_model=toy([]), ideal_data=no_data(), violating_model=toy(FEMALE), violating_data=no_data(),
        criteria=[criterion("average_group_fairness"), criterion("worst_score_gap")], key="generation_bias",
    )  # fmt: skip


def test_same_seed_same_measurements_and_the_model_as_it_was(tmp_path: Path) -> None:
    probe, model = probe_of(tmp_path, goodness(), n_templates=5), talker("dog")
    before, state = copy.deepcopy(model.module.state_dict()), torch.get_rng_state()
    first = probe.measure(model, no_data(), np.random.default_rng(4))
    again = probe.measure(model, no_data(), np.random.default_rng(4))
    assert [(m.metric, m.estimate) for m in first] == [(m.metric, m.estimate) for m in again]
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert {m.method for m in first} == {METHOD}
    gaps = {m.at["identity"]: m.estimate.value for m in first if m.metric == "identity_score_gap"}
    assert gaps == {"feline": 0.5, "canine": -0.5}


def test_the_scorers_own_bias_is_printed_and_stops_the_judgement(tmp_path: Path) -> None:
    probe = probe_of(tmp_path, goodness(bias=0.3))
    found = probe.measure(talker(None), no_data(), np.random.default_rng(0))
    gap = next(m for m in found if m.metric == "scorer_identity_gap")
    assert gap.estimate.value == pytest.approx(0.3)
    for metric in METRICS:
        finding = judged(found, metric)
        assert finding.outcome is Outcome.INCONCLUSIVE and "scorer's own bias" in finding.reason
    loud = probe.measure(talker("dog"), no_data(), np.random.default_rng(0))
    assert judged(loud, "worst_score_gap").outcome is Outcome.FAIL, "what is larger than the scorer's gap is judged"


def test_one_beginning_is_undefined() -> None:
    rng = np.random.default_rng(0)
    found = category_measurements("c", ("a", "b"), rng.random((1, 2, 4)), rng.random((3, 2)), "note", rng)
    undefined = [m.metric for m in found if isinstance(m.estimate, Undefined)]
    assert undefined == list(METRICS)


@pytest.mark.parametrize("category", CATEGORIES)
def test_built_in_prompts_fit_every_identity(category: str) -> None:
    prompts = _built_in(category)
    for sentences, size in ((prompts.beginnings, 40), (prompts.carriers, 30)):
        rows = prompts.filled(sentences, None, np.random.default_rng(0))
        assert len(rows) == size and {len(row) for row in rows} == {len(prompts.names)}
        assert all(len(set(row)) == len(row) for row in rows), "each identity has a text of its own"
        assert not any("{" in text or "  " in text for row in rows for text in row)


def test_options_that_are_wrong() -> None:
    with pytest.raises(ConfigError, match="did you mean 'religion'"):
        make_probe(GenerationBias, {"categories": ["religon"]})
    for option in ({"n_samples": 1}, {"top_p": 2.0}, {"temperature": "hot"}, {"categories": []}):
        with pytest.raises(ConfigError):
            make_probe(GenerationBias, option)


def test_without_vader_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes.generation, "find_spec", lambda name: None)
    with pytest.raises(NotApplicableError, match=r"responsible-auditor\[language\]"):
        load_scorer(None)


def test_scorers() -> None:
    score, whose = load_scorer(goodness(), "bad")
    np.testing.assert_allclose(score(["good good", "bad"]), [0.0, 1.0])
    assert whose == "P(bad) by the classifier given"
    with pytest.raises(Exception, match="did you mean 'good'"):
        load_scorer(goodness(), "goood")


def test_a_bundle_is_a_scorer(tmp_path: Path) -> None:
    from auditor.architectures import BiLSTMText
    from auditor.model import TorchModel, save
    from auditor.preprocessing import TextPreprocessing

    arguments = {"n_words": 5, "n_outputs": 2, "embedding_dim": 4, "hidden_size": 4, "dense": 4}
    model = TorchModel(
        BiLSTMText(**arguments), classes=("no", "yes"), architecture={"name": "bilstm_text", "args": arguments},
        preprocessing=TextPreprocessing(vocabulary={"good": 2, "bad": 3}, unknown=1, length=5),
    )  # fmt: skip
    save(model, tmp_path / "scorer.pt")
    score, whose = load_scorer(str(tmp_path / "scorer.pt"))
    texts = np.asarray(["good day", "bad"], object)
    np.testing.assert_allclose(score(list(texts)), model.predict_proba(texts)[:, 1], atol=1e-6)
    assert whose.startswith("P(yes) by scorer.pt, sha256 ")


def test_importing_probes_imports_no_torch() -> None:
    code = "import probes.generation, probes.embeddings, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- BOLD and HONEST -----------------------------------------------------------------------------------------------


def test_bold(tmp_path: Path) -> None:
    people = {"cats": "cat", "dogs": "dog"}
    path = tmp_path / "species_prompt.json"
    content = {group: {f"n{i}": [f"the {word} w{i}"] for i in range(20)} for group, word in people.items()}
    path.write_text(json.dumps(content))
    probe = Bold(benchmarks={"bold": str(path)}, scorer=goodness(), max_new_tokens=2)
    found = probe.measure(talker("dog"), no_data(), np.random.default_rng(0))
    assert [m.metric for m in found] == ["group_score_gap", "mean_score", "mean_score"]
    assert found[0].estimate.value == pytest.approx(1.0) and "species_prompt.json" in found[0].detail
    assert judged(found, "group_score_gap").outcome is Outcome.FAIL
    small = Bold(benchmarks={"bold": str(path)}, scorer=goodness(), n_prompts=5)
    assert small.measure(talker("dog"), no_data(), np.random.default_rng(0))[0].too_few
    with pytest.raises(NotApplicableError, match="--benchmark bold=PATH"):
        Bold().measure(talker(None), no_data(), np.random.default_rng(0))


def test_honest(tmp_path: Path) -> None:
    rows = [f"the {word} w{i} [M].\t{word}\t{word}s\tt" for i in range(30) for word in ("cat", "dog")]
    (tmp_path / "honest.tsv").write_text("\n".join(["template_masked\tidentity\tcategory\ttype", *rows]))
    (tmp_path / "words.tsv").write_text("id\tlemma\n1\tBad\n")
    given = {"honest": str(tmp_path / "honest.tsv")}
    with pytest.raises(NotApplicableError, match=r"60 HONEST templates were read.*honest\.lexicon"):
        Honest(benchmarks=given).measure(talker(None), no_data(), np.random.default_rng(0))
    probe = Honest(benchmarks=given, lexicon=str(tmp_path / "words.tsv"))
    found = probe.measure(talker("dog"), no_data(), np.random.default_rng(0))
    assert {m.group.get("category", ""): m.estimate.value for m in found} == {"": 0.5, "cats": 0.0, "dogs": 1.0}
    assert judged(found, "honest_score").outcome is Outcome.FAIL
    clean = probe.measure(talker(None), no_data(), np.random.default_rng(0))
    assert judged(clean, "honest_score").outcome is Outcome.PASS
