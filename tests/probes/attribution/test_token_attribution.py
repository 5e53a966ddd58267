"""Token attribution: scores and gradients by hand, captum's own LLM attribution, planted cues, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom, spearmanr

from auditor.core.errors import DataError, NotApplicableError
from auditor.core.rows import FloatArray, IntArray
from auditor.judging.measurement import Measurement
from auditor.loading.job_specs import ModelSpec
from auditor.loading.language_models import load_language_folder
from auditor.models.language_model import AuditedLanguageModel
from auditor.run.run_audit import no_data
from auditor.statistics.estimate import Undefined
from auditor.statistics.rates import Proportion
from auditor.statistics.values import BoundedMean
from probes.attribution import methods as table
from probes.attribution.attribution_task import Problem
from probes.attribution.attribution_units import Attributions
from probes.attribution.faithfulness import RANDOM, ends, gain, grade, occlusion
from probes.attribution.gradient import Effort
from probes.attribution.method_selection import TAIL
from probes.attribution.methods import explain
from probes.attribution.prompt_tokens import Prompt, built_in_prompts, read_prompts, shared_beginnings, spaced
from probes.attribution.token_attribution import (
    TokenAttribution,
    aligned_correlation,
    chance_of_a_hit,
    cue_hits,
    cue_units,
)
from probes.attribution.token_units import N_INFILL, token_problem
from tests.probes.attribution.graded_worlds import worlds_of
from tests.probes.attribution.token_toys import associated, pronoun_toy
from tests.quantifiers import all_of
from tests.statistics.worlds import WORLDS, most_misses
from tests.toys.language import WORDS, causal_tokenizer, masked_tokenizer, tiny, tiny_bert

PROMPTS = [
    Prompt(prompt="the old dog", target="sees a cat", foil="hears"),
    Prompt(prompt="a small bird hears the", target="dog", foil="cat"),
    Prompt(prompt="the man", target="likes"),
]


def llama(*, bos: bool = True, initializer_range: float = 0.8) -> AuditedLanguageModel:
    return AuditedLanguageModel(tiny("llama", initializer_range=initializer_range), causal_tokenizer(bos=bos))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def measured(probe: TokenAttribution, model: AuditedLanguageModel, seed: int = 0) -> dict[str, Measurement]:
    return {m.metric: m for m in probe.measure(model, no_data(), generator(seed))}


def written(folder: Path, rows: list[dict[str, Any]]) -> dict[str, str]:
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return {"token_attribution": str(path)}


# ---- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_scores_are_those_of_the_continuations(kind: str) -> None:
    model = AuditedLanguageModel(tiny(kind), causal_tokenizer())
    units = token_problem(model, PROMPTS).units
    found = units.score(np.arange(3), units.present)
    contexts = [p.prompt for p in PROMPTS]
    targets, _ = model.continuations(contexts, [f" {p.target}" for p in PROMPTS])
    foils, _ = model.continuations(contexts[:2], [f" {p.foil}" for p in PROMPTS[:2]])
    np.testing.assert_allclose(found, targets - [*foils, 0.0], atol=1e-4)
    assert units.names[0][:3] == ("the", "old", "dog") and units.present.sum(axis=1).tolist() == [3, 5, 2]


@pytest.mark.parametrize("adds", [False, True])
def test_a_prompt_is_explained_as_it_is_sent(adds: bool) -> None:
    """Against the network's own likelihood of what the tokenizer makes of a prompt, with nothing else before it."""
    network, tokenizer = tiny("llama"), causal_tokenizer(adds=adds)
    probe = TokenAttribution()
    model = probe.language(AuditedLanguageModel(network, tokenizer))
    units = token_problem(model, PROMPTS[:2]).units
    found = units.score(np.arange(2), units.present)

    def likelihood(prompt: str, end: str) -> float:
        head, whole = (tokenizer(text).input_ids for text in (prompt, f"{prompt} {end}"))
        with torch.no_grad():
            log_p = torch.log_softmax(network(input_ids=torch.tensor([whole])).logits[0], dim=-1)
        return sum(float(log_p[i - 1, whole[i]]) for i in range(len(head), len(whole)))

    slow = [likelihood(p.prompt, p.target) - likelihood(p.prompt, p.foil) for p in PROMPTS[:2]]
    np.testing.assert_allclose(found, slow, atol=1e-4)
    assert (tokenizer("dog").input_ids[0] == 1) is adds
    dressed = token_problem(AuditedLanguageModel(network, tokenizer), PROMPTS[:2]).units
    same = np.abs(dressed.score(np.arange(2), dressed.present) - slow).max() < 1e-3
    assert bool(same) is adds
    assert ("after <s>" in model.notes) is adds
    named = TokenAttribution(prefix_token="<s>").language(AuditedLanguageModel(network, tokenizer))
    assert "after <s>" in named.notes


def test_without_a_word_the_text_is_closed_over_the_gap() -> None:
    model = llama()
    units = token_problem(model, PROMPTS, infill="delete").units
    keep = units.present.copy()
    keep[:, 1] = False
    found = units.score(np.arange(3), keep)
    shorter = [Prompt(prompt=" ".join(w for i, w in enumerate(p.prompt.split()) if i != 1), target=p.target,
                      foil=p.foil) for p in PROMPTS]  # fmt: skip
    again = token_problem(model, shorter).units
    np.testing.assert_allclose(found, again.score(np.arange(3), again.present), atol=1e-4)
    nothing = units.score(np.arange(3), np.zeros_like(units.present))
    alone, _ = model.continuations(["", ""], ["sees a cat", "hears"])
    assert nothing[0] == pytest.approx(alone[0] - alone[1], abs=1e-4)


def test_words_of_other_prompts_stand_at_the_same_places() -> None:
    model = llama()
    texts = ["the dog sees", "a cat hears", "the bird likes", "a man sees", "the woman hears", "a dog likes"]
    prompts = [Prompt(prompt=t, target="the", foil="a") for t in texts]
    units = token_problem(model, prompts, others=prompts).units
    assert units.in_distribution and "other prompts" in units.infill
    found = units.score(np.asarray([0]), np.asarray([[True, False, True]]))
    mixed = [f"the {t.split()[1]} sees" for t in texts[1 : 1 + N_INFILL]]
    slow = [np.subtract(*(model.continuations([t], [e])[0][0] for e in (" the", " a"))) for t in mixed]
    assert found[0] == pytest.approx(np.mean(slow), abs=1e-4)
    few = token_problem(model, prompts[:3], others=prompts[:3]).units
    assert not few.in_distribution
    with pytest.raises(NotApplicableError, match="at least 4 other prompts, and there are 2"):
        token_problem(model, prompts[:3], others=prompts[:3], infill="prompts")


def test_a_text_is_asked_once_for_whatever_grades_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as no more are known than fit, and with the same scores where they do not; of another network anew."""
    texts = ["the dog sees", "a cat hears", "the bird likes", "a man sees", "the woman hears", "a dog likes"]
    prompts = [Prompt(prompt=t, target="the", foil="a") for t in texts]
    asked: list[Any] = []

    def heard(model: AuditedLanguageModel, rows: Any) -> list[float]:
        asked.extend(rows)
        return shared_beginnings(model, rows)

    monkeypatch.setattr("probes.attribution.token_units.shared_beginnings", heard)
    model = llama().with_prefix_cache()
    problem = token_problem(model, prompts, others=prompts)
    rows = np.arange(len(prompts))
    before = model.forwarded["tokens",]
    dropped = occlusion(problem.units, rows)
    graded = grade(problem.units, rows, {"occlusion": dropped}, generator())["occlusion"]
    assert len(asked) == len(set(asked)) > len(prompts)
    beginnings = {ids[:i] for ids, _ in asked for i in range(1, len(ids) + 1)}
    assert model.forwarded["tokens",] - before < 1.2 * len(beginnings), "and what it begins with is read once"
    n = len(asked)
    np.testing.assert_array_equal(occlusion(problem.units, rows), dropped)
    assert len(asked) == n, "what is known is not asked again"
    other = problem.with_module(llama(initializer_range=0.5).module)
    moved = occlusion(other.units, rows)
    assert np.abs(moved - dropped).max() > 1e-3 and len(asked) > n
    alone = token_problem(llama(initializer_range=0.5), prompts, others=prompts)
    np.testing.assert_allclose(moved, occlusion(alone.units, rows), atol=1e-4)
    monkeypatch.setattr("probes.coalitions._MOST_KNOWN", 3)
    forgets = token_problem(llama(), prompts, others=prompts)
    asked.clear()
    np.testing.assert_allclose(occlusion(forgets.units, rows), dropped, atol=1e-4)
    again = grade(forgets.units, rows, {"occlusion": dropped}, generator())["occlusion"]
    np.testing.assert_allclose(again.comprehensiveness, graded.comprehensiveness, atol=1e-4)
    assert len(asked) > n


def test_a_masked_model_is_asked_at_the_mask() -> None:
    network, tokenizer = tiny_bert(), masked_tokenizer()
    model = AuditedLanguageModel(network, tokenizer)
    prompts = [Prompt(prompt="the old", target="dog", foil="man", rest=" sees a cat"), PROMPTS[2]]
    units = token_problem(model, prompts).units
    found = units.score(np.arange(2), units.present)
    slow = []
    for p in prompts:
        scores = []
        for end in (p.target, p.foil):
            if not end:
                continue
            asked = tokenizer(end, add_special_tokens=False).input_ids
            head, tail = (tokenizer(t, add_special_tokens=False).input_ids for t in (p.prompt, p.rest))
            ids = torch.tensor([[1, *head, *[4] * len(asked), *tail, 2]])
            with torch.no_grad():
                log_p = torch.log_softmax(network(input_ids=ids).logits[0], dim=-1)
            scores.append(sum(float(log_p[1 + len(head) + i, a]) for i, a in enumerate(asked)))
        slow.append(scores[0] - (scores[1] if len(scores) > 1 else 0.0))
    np.testing.assert_allclose(found, slow, atol=1e-4)
    assert units.in_distribution and "mask" in units.infill


def test_an_open_prompt_is_asked_for_the_likeliest_token() -> None:
    model = llama()
    units = token_problem(model, [Prompt(prompt="the old dog")]).units
    words = [f" {w}" for w in [*WORDS]]
    each, _ = model.continuations(["the old dog"] * len(words), words)
    ids = torch.tensor([[1, *model.tokenizer("the old dog").input_ids]])
    with torch.no_grad():
        best = float(torch.log_softmax(model.module.eval()(input_ids=ids).logits[0, -1], dim=-1).max())
    assert units.score(np.arange(1), units.present)[0] == pytest.approx(best, abs=1e-4)
    assert best >= each.max() - 1e-4


# ---- attributions ----------------------------------------------------------------------------------------------------


def test_a_gradient_is_that_of_the_embeddings() -> None:
    # Paths through a network with large weights are jagged, and need more steps than a test has time for.
    model = llama(initializer_range=0.2)
    problem = token_problem(model, PROMPTS)
    found = explain("input_x_gradient", problem, generator())
    network = model.module.eval()
    for i, p in enumerate(PROMPTS):
        total: FloatArray = np.zeros(1 + len(p.prompt.split()))
        for end, sign in ((p.target, 1.0), (p.foil, -1.0)):
            if not end:
                continue
            head = [1, *model.tokenizer(p.prompt).input_ids]
            asked = model.tokenizer(end).input_ids
            points = network.get_input_embeddings()(torch.tensor([[*head, *asked]])).detach().requires_grad_()  # type: ignore[operator]
            log_p = torch.log_softmax(network(inputs_embeds=points).logits[0], dim=-1)
            score = torch.stack([log_p[len(head) - 1 + k, a] for k, a in enumerate(asked)]).sum()
            gradient = torch.autograd.grad(score, points)[0]
            total = total + sign * (points * gradient).sum(-1)[0, : len(head)].detach().numpy()
        np.testing.assert_allclose(found.values[i, : len(total) - 1], total[1:], atol=1e-4)
    assert problem.differentiable is not None and "unknown" in problem.differentiable.baseline, "padding is zeros"
    one = token_problem(model, PROMPTS[1:2])
    complete = explain("integrated_gradients", one, generator(), Effort(n_steps=64, max_steps=64))
    assert complete.errors.max() < 0.005
    assert all_of(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    "method", ["saliency", "input_x_gradient", "integrated_gradients", "gradient_shap", "smooth_grad", "occlusion"]
)
def test_half_of_a_floats_digits_are_explained_too(method: str) -> None:
    """As most checkpoints are published, whose embeddings and logits are in bfloat16."""
    wide, narrow = llama(initializer_range=0.2), llama(initializer_range=0.2)
    narrow.module.to(torch.bfloat16)
    exact, found = (explain(method, token_problem(model, PROMPTS), generator()).values for model in (wide, narrow))
    assert narrow.dtype == "bfloat16" and next(narrow.module.parameters()).dtype == torch.bfloat16
    assert np.corrcoef(exact.ravel(), found.ravel())[0, 1] > 0.95


def test_captums_llm_attribution_agrees() -> None:
    from captum.attr import FeatureAblation, LLMAttribution, TextTokenInput

    model = llama(bos=False)
    model.module.eval()
    prompt = Prompt(prompt="a small bird hears the", target="dog")
    problem = token_problem(model, [prompt], unit="token", infill="token")
    assert "padding token <pad>" in problem.units.infill
    own = explain("occlusion", problem, generator()).values[0]
    own = own[problem.units.present[0]]
    asked = TextTokenInput(prompt.prompt, model.tokenizer, baselines=0)
    theirs = LLMAttribution(FeatureAblation(model.module), model.tokenizer).attribute(asked, target=prompt.target)
    np.testing.assert_allclose(own, theirs.seq_attr.numpy(), atol=1e-4)


def test_a_word_of_several_tokens_is_one_unit() -> None:
    model = AuditedLanguageModel(tiny_bert(), masked_tokenizer())
    prompts = [Prompt(prompt="the woman sees", target="dog", foil="cat")]
    by_word, by_token = (token_problem(model, prompts, unit=unit) for unit in ("word", "token"))
    assert by_word.units.names == (("the", "woman", "sees"),)
    assert by_token.units.names == (("th", "e", " wo", "man", " se", "es"),)
    one, many = (explain("input_x_gradient", p, generator()).values[0] for p in (by_word, by_token))
    np.testing.assert_allclose(one, many.reshape(3, 2).sum(axis=1), atol=1e-6)
    ablated = explain("feature_ablation", by_word, generator())
    masked = explain("occlusion", by_word, generator())
    # The path's start is the mask token too, so both take a word away alike.
    np.testing.assert_allclose(ablated.values, masked.values, atol=1e-5)


# ---- plausibility and consistency ------------------------------------------------------------------------------------


def test_cues_by_hand() -> None:
    prompts = [
        Prompt(prompt="The chief engineer met the engineer", cues=("Chief Engineer",)),
        Prompt(prompt="a nurse", cues=("nurse",)),
    ]
    names = (("The", "chief", "engineer", "met", "the", "engineer"), ("a", "nurse", "", "", "", ""))
    cue = cue_units(names, prompts)
    assert np.flatnonzero(cue[0]).tolist() == [1, 2] and np.flatnonzero(cue[1]).tolist() == [1]
    present = np.asarray([[bool(w) for w in n] for n in names])
    values = np.asarray([[0.1, 0.0, -3.0, 4.0, 0.0, 0.0], [1.0, -0.5, 9.0, 9.0, 9.0, 9.0]])
    assert cue_hits(values, present, cue, 1, generator()).tolist() == [False, False]
    assert cue_hits(values, present, cue, 2, generator()).tolist() == [True, True]
    np.testing.assert_allclose(chance_of_a_hit(present, cue, 2), [1 - (4 * 3) / (6 * 5), 1.0])
    rng = generator()
    one = np.repeat(np.eye(4, dtype=bool)[:1], 800, axis=0)
    ties = cue_hits(np.zeros((800, 4)), np.ones((800, 4), bool), one, 1, rng)
    assert 0.2 < ties.mean() < 0.3, "an attribution without an opinion finds a cue as chance does"


def test_words_are_aligned_by_occurrence() -> None:
    first, second = ["The", "nurse", "told", "the", "man"], ["the", "man", "heard", "the", "nurse"]
    a, b = np.asarray([0.5, -2.0, 9.0, 0.1, 1.0]), np.asarray([0.4, 3.0, 7.0, 0.2, -1.0])
    expected = spearmanr([0.5, -2.0, 0.1, 1.0], [0.4, -1.0, 0.2, 3.0]).statistic
    assert aligned_correlation(first, a, second, b) == pytest.approx(expected)
    assert np.isnan(aligned_correlation(["a", "b", "c"], a[:3], ["a", "b", "d"], b[:3]))


def test_the_built_in_sentences_are_what_they_say() -> None:
    prompts = built_in_prompts().examples
    assert len(prompts) == 60 == len({p.cues for p in prompts}) == len({p.prompt for p in prompts})
    for p in prompts:
        (cue,) = p.cues
        assert p.prompt.split().count(cue) == p.paraphrase.split().count(cue) == 1
        assert (p.target, p.foil) == (" he", " she") and p.prompt != p.paraphrase


def test_the_stated_power_of_a_judgement_on_cues() -> None:
    n, truth = TokenAttribution.power
    failed = [Proportion(successes=k, n=n).bounds(0.05)[1] < 0.5 for k in range(n + 1)]
    assert binom.pmf(np.arange(n + 1), n, truth) @ failed >= 0.8
    assert binom.pmf(np.arange(n + 1), n, 0.5) @ failed <= 0.05


# ---- the rule --------------------------------------------------------------------------------------------------------


CUES, FILLERS = ("man", "woman", "dog", "bird"), ("the", "a", "sees", "hears", "small", "big", "old", "young")


def planted(seed: int, n: int, place: int | None = None) -> list[Prompt]:
    """Prompts of eight words with one of four cues somewhere, or at a place; two cues go on with "today"."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        words = rng.choice(FILLERS, size=7).tolist()
        words.insert(int(rng.integers(8)) if place is None else place, CUES[i % 4])
        found.append(Prompt(prompt=" ".join(words), target="today", foil="here", cues=(CUES[i % 4],)))
    return found


def trained() -> AuditedLanguageModel:
    """A two-layer transformer that has learned the rule."""
    network, tokenizer = tiny("llama", seed=3, hidden_size=32, initializer_range=0.1), causal_tokenizer()
    answers = torch.tensor([tokenizer.convert_tokens_to_ids(w) for w in ("today", "here")])
    prompts = planted(1, 1600)
    ids = torch.tensor([[1, *tokenizer(p.prompt).input_ids] for p in prompts])
    right = answers[torch.tensor([CUES.index(p.cues[0]) % 2 for p in prompts])]
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    torch.manual_seed(0)
    for _ in range(150):
        batch = torch.randint(len(ids), (64,))
        loss = torch.nn.functional.cross_entropy(network(input_ids=ids[batch]).logits[:, -1], right[batch])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    network.zero_grad()
    assert float(loss.detach()) < 0.05
    return AuditedLanguageModel(network.eval(), tokenizer)


@pytest.mark.slow
def test_a_planted_cue_is_found(tmp_path: Path) -> None:
    model = trained()
    # Words of other prompts bring cues of theirs, so they serve where prompts are built alike.
    for prompts, others in ((planted(2, 80), []), (planted(2, 80, 3), planted(3, 9, 3))):
        problem = token_problem(model, prompts, others=others)
        cue = cue_units(problem.units.names, prompts)
        for method in ("occlusion", "integrated_gradients"):
            values = explain(method, problem, generator(), Effort(n_steps=16, max_steps=16)).values
            assert cue_hits(values, problem.units.present, cue, 2, generator()).mean() >= 0.95, (method, others)
    rows = [{"prompt": p.prompt, "target": p.target, "foil": p.foil, "cues": p.cues} for p in planted(2, 40)]
    probe = TokenAttribution(benchmarks=written(tmp_path, rows), n_steps=8, max_steps=8)
    found = measured(probe, model)
    assert found["faithfulness_gain"].detail.startswith("earned its display")
    assert found["cue_top_k"].estimate.value >= 0.95 and found["cue_top_k"].n_samples == 27
    assert found["cue_top_k"].detail == "a random attribution would reach 0.25"
    assert "paraphrase_consistency" not in found
    assert [m.figure.kind for m in found.values() if m.figure is not None] == ["table"], "texts of a file stay in it"


def test_texts_of_a_file_are_shown_where_asked(tmp_path: Path) -> None:
    prompts = planted(2, 100)
    model = associated(prompts, lambda word: {"man": 3.0, "dog": 3.0, "woman": -3.0}.get(word, 0.0), target="today")
    rows = [{"prompt": p.prompt, "target": p.target, "foil": p.foil, "cues": p.cues} for p in prompts]
    for show, kinds in ((False, ["table"]), (True, ["table", "text"])):
        probe = TokenAttribution(benchmarks=written(tmp_path, rows), show_texts=show, n_copies=0, methods="occlusion")
        figures = [m.figure for m in measured(probe, model).values() if m.figure is not None]
        assert [f.kind for f in figures] == kinds
        assert all_of(f.id.startswith("token_attribution/") and f.probe == "token_attribution" for f in figures)
    assert "rather than \u201chere\u201d" in figures[1].texts[0].title


@pytest.mark.slow
def test_random_attributions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole probe in a few worlds; how often it is wrong is the business of the next test."""

    def nothing(problem: Problem, rng: np.random.Generator, effort: Effort) -> Attributions:
        assert problem.differentiable is not None
        n = len(problem.differentiable)
        return Attributions(method="saliency", values=rng.normal(size=(n, problem.units.d)),
                            ends=lambda: (np.zeros(n), np.zeros(n)), units=(), detail="")  # fmt: skip

    monkeypatch.setitem(table.METHODS, "saliency", replace(table.METHODS["saliency"], run=nothing))
    model = pronoun_toy(True)
    for seed in range(4):
        found = measured(TokenAttribution(methods=["saliency"], n_copies=0, n_samples=30), model, seed)
        assert found["faithfulness_gain"].detail.startswith("REFUSED")
        assert "not shown to be more faithful than a random attribution" in found["faithfulness_gain"].detail
        assert isinstance(found["cue_top_k"].estimate, Undefined)
        assert isinstance(found["paraphrase_consistency"].estimate, Undefined)
        assert all_of(m.figure is None or m.figure.kind == "table" for m in found.values())
    every = measured(TokenAttribution(methods=["saliency"], n_copies=0), model)
    # Two thirds of 60 prompts have a paraphrase each, of which 20 are asked.
    assert every["faithfulness_gain"].n_samples == 40 and every["paraphrase_consistency"].n_samples == 20
    forced = measured(TokenAttribution(method="saliency", n_copies=0, n_samples=30), model)
    assert forced["faithfulness_gain"].detail.startswith("UNEARNED") and "UNEARNED" in forced["cue_top_k"].detail


def test_a_random_attribution_is_refused_but_for_the_promised_few() -> None:
    """2,000 worlds of the gain that decides, on the built-in sentences; and the model's own weights always gain.

    The toy adds its words up, so that a prompt's score is known for every set of words from those with one word less.
    """
    prompts = built_in_prompts().examples
    problem = token_problem(pronoun_toy(True), prompts[:40], others=prompts[40 : 40 + 2 * N_INFILL + 1])
    units, n = problem.units, 40
    whole, empty = ends(units, np.arange(n))
    weights = occlusion(units, np.arange(n))
    masks = (generator().random((n, units.d)) < 0.5) & units.present
    np.testing.assert_allclose(units.score(np.arange(n), masks), empty + (weights * masks).sum(axis=1), atol=1e-4)
    np.testing.assert_allclose(whole, empty + weights.sum(axis=1), atol=1e-4)

    def added(rows: IntArray, keep: np.typing.NDArray[np.bool_]) -> FloatArray:
        return np.asarray(empty[rows] + np.einsum("ij,ij->i", weights[rows], keep), np.float64)

    def gains(own: FloatArray, rng: np.random.Generator) -> list[BoundedMean | Undefined]:
        """Of an attribution (worlds * n, d), one a world."""
        rows = np.tile(np.arange(n), len(own) // n)
        grades = grade(replace(units, score=added), rows, {"own": own, RANDOM: rng.random(own.shape)}, rng)
        return [gain(world, "own") for world in worlds_of(grades, n)]

    rng = generator(7)
    shown = 0
    for _ in range(8):
        found = gains(rng.normal(size=(WORLDS // 8 * n, units.d)), rng)
        shown += sum(g.bounds(TAIL)[0] > 0.0 for g in found if isinstance(g, BoundedMean))
    assert shown <= most_misses(TAIL)
    true = gains(np.tile(weights, (20, 1)), rng)
    assert all_of(isinstance(g, BoundedMean) and g.bounds(TAIL)[0] > 0.0 for g in true)


def test_a_model_without_a_preference_has_nothing_to_explain() -> None:
    found = measured(TokenAttribution(), associated(built_in_prompts().examples, lambda word: 0.0))
    assert set(found) == {"faithfulness_gain"} and isinstance(found["faithfulness_gain"].estimate, Undefined)


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_a_target_must_be_a_token() -> None:
    with pytest.raises(NotApplicableError, match="does not know 'zebra' and reads it as '<unk>'"):
        token_problem(llama(), [Prompt(prompt="the dog", target="zebra", foil="cat")])


def test_a_prompt_must_fit_the_context() -> None:
    with pytest.raises(NotApplicableError, match="longer than the model's context of 128 tokens"):
        token_problem(llama(), [Prompt(prompt="the dog " * 80, target="cat")])


def test_without_a_beginning_token_words_are_replaced() -> None:
    units = token_problem(llama(bos=False), PROMPTS).units
    assert units.infill == "the padding token <pad>"
    assert np.isfinite(units.score(np.arange(3), np.zeros_like(units.present))).all()
    with pytest.raises(NotApplicableError, match="name one by prefix_token"):
        token_problem(llama(bos=False), PROMPTS, infill="delete")


def test_a_tokenizer_that_joins_prompt_and_target_is_noticed() -> None:
    model = AuditedLanguageModel(tiny_bert(), masked_tokenizer())
    with pytest.raises(NotApplicableError, match="end the prompt at a word"):
        token_problem(model, [Prompt(prompt="the wom", target="\u0301an", foil="e")])


def test_words_do_not_grow_together() -> None:
    assert (spaced("said that", "he"), spaced("said that", " he"), spaced("said that ", "he")) == (" he", " he", "he")
    assert (spaced("she said", ", no"), spaced("\u5979\u8bf4", "\u662f")) == (", no", "\u662f")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": ""}', "line 1, has no 'prompt'"),
        ('{"prompt": "a", "foil": "b"}', "a 'foil' and no 'target'"),
        ('{"prompt": "a", "target": "b", "foil": " b"}', "are the same"),
        ('{"prompt": "a", "cues": "a"}', "must be a list"),
        ('{"prompt": "a dog", "cues": ["cat"]}', "the cue 'cat' does not stand in 'a dog'"),
        ('{"prompt": "a", "cue": ["a"]}', "did you mean 'cues'|Did you mean 'cues'"),
        ('{"prompt": 3}', "must be a text, not '3'"),
        ("[1]", "no JSON object"),
        ("{", "cannot be read as JSON"),
        ("", "holds no prompt"),
    ],
)
def test_a_broken_file_says_where(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=said):
        read_prompts(path)


def test_few_prompts_are_not_enough(tmp_path: Path) -> None:
    files = written(tmp_path, [{"prompt": "the dog", "target": "sees"}] * 9)
    with pytest.raises(NotApplicableError, match="1 different prompts"):
        TokenAttribution(benchmarks=files).measure(llama(), no_data(), generator())


def test_options_are_checked() -> None:
    for options, said in (
        ({"method": "deep_lift"}, "method must be one out of"),
        ({"method": "auto"}, "method must be one out of"),
        ({"unit": "letter"}, "unit must be one of word, token"),
        ({"infill": "blur"}, "infill must be one of"),
        ({"top_k": 0}, "top_k must be a whole number at least 1"),
        ({"show_texts": 1}, "show_texts must be true or false"),
    ):
        with pytest.raises(ValueError, match=said):
            TokenAttribution(**options)


# ---- a real model ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_smollm2_points_at_the_occupation(test_data: Path) -> None:
    folder = test_data / "smollm2"
    if not (folder / "config.json").is_file():
        pytest.skip("AUDITOR_TEST_DATA holds no folder smollm2 with SmolLM2-135M-Instruct")
    model = load_language_folder(str(folder), ModelSpec())
    prompts = built_in_prompts().examples[:20]
    problem = token_problem(model, prompts, others=built_in_prompts().examples[20:29])
    values = explain("occlusion", problem, generator()).values
    cue = cue_units(problem.units.names, prompts)
    found = cue_hits(values, problem.units.present, cue, 2, generator())
    assert found.mean() > chance_of_a_hit(problem.units.present, cue, 2).mean() + 0.15


def test_a_cue_is_a_whole_word_wherever_letters_change_their_number() -> None:
    prompts = [
        Prompt(prompt="The woman called the man and he", cues=("man", "he")),
        Prompt(prompt="Großer Straße Mann x", cues=("mann",)),
    ]
    names = [("The", "woman", "called", "the", "man", "and", "he"), ("Großer", "Straße", "Mann", "x", "", "", "")]
    cue = cue_units(names, prompts)
    assert np.flatnonzero(cue[0]).tolist() == [4, 6] and np.flatnonzero(cue[1]).tolist() == [2]
