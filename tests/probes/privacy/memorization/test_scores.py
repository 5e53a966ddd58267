"""Membership scores, extraction and token statistics against slow, obvious ways of computing them."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom

from auditor.core.errors import ModelError, NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.models.generation import Sampling, continuations
from auditor.models.language_model import AuditedLanguageModel
from auditor.run.run_audit import no_data
from auditor.statistics.rates import Proportion
from probes import PROBES
from probes.privacy.memorization.extraction import Extraction, _Cut, _discoverable
from probes.privacy.memorization.lm_membership import LMMembership
from probes.privacy.memorization.text_membership_scores import token_statistics
from tests.probes.privacy.memorization.toys import char_tokenizer, parrot, secrets, sentences
from tests.quantifiers import all_of
from tests.toys.language import causal_tokenizer, tiny
from tests.toys.language import sentences as word_sentences


def words_model(kind: str = "llama") -> AuditedLanguageModel:
    return AuditedLanguageModel(tiny(kind).eval(), causal_tokenizer())


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_token_statistics_are_those_of_the_logits(kind: str) -> None:
    model = words_model(kind)
    texts = word_sentences(20)
    encoded, cut = model.encode_cut(texts)
    assert cut == 0
    found = token_statistics(model, encoded, temperature=0.7, top_k=5)
    for text, statistics in zip(texts, found, strict=True):
        ids = [1, *model.tokenizer(text, add_special_tokens=False).input_ids]
        with torch.no_grad():
            logits = model.module(input_ids=torch.tensor([ids])).logits[0].double().numpy()
        for t in range(1, len(ids)):
            row = logits[t - 1]
            p = np.exp(row) / np.exp(row).sum()
            mean = sum(p[z] * math.log(p[z]) for z in range(len(p)))
            spread = math.sqrt(sum(p[z] * (math.log(p[z]) - mean) ** 2 for z in range(len(p))))
            ahead = sum(row[z] > row[ids[t]] for z in range(len(p)))
            top = np.sort(row)[::-1][:5] / 0.7
            sampled = row[ids[t]] / 0.7 - math.log(np.exp(top).sum()) if ahead < 5 else -math.inf
            own = (
                statistics.log_p,
                statistics.expected,
                statistics.deviation,
                statistics.rank,
                statistics.log_p_sampled,
            )
            np.testing.assert_allclose(
                [v[t - 1] for v in own], [math.log(p[ids[t]]), mean, spread, ahead, sampled], rtol=1e-4, atol=1e-5
            )


def test_scores_are_those_of_the_papers() -> None:
    model = words_model()
    reference = AuditedLanguageModel(tiny("gpt2").eval(), causal_tokenizer())
    texts = list(dict.fromkeys(word_sentences(40)))
    members, others = texts[: len(texts) // 2], texts[len(texts) // 2 :]
    scores, _ = LMMembership(k=0.3, reference=reference)._scores(model, members, others)
    for i, text in enumerate(texts):
        ids = [1, *model.tokenizer(text, add_special_tokens=False).input_ids]
        with torch.no_grad():
            log_p = torch.log_softmax(model.module(input_ids=torch.tensor([ids])).logits[0].double(), 1).numpy()
        own = [log_p[t - 1, ids[t]] for t in range(1, len(ids))]
        mu = [(np.exp(log_p[t - 1]) * log_p[t - 1]).sum() for t in range(1, len(ids))]
        square = [(np.exp(log_p[t - 1]) * log_p[t - 1] ** 2).sum() for t in range(1, len(ids))]
        z = [(o - m) / math.sqrt(s - m * m) for o, m, s in zip(own, mu, square, strict=True)]
        k = max(1, int(0.3 * len(own)))
        expected = {
            "loss": sum(own) / len(own),
            "zlib": sum(own) / len(own) / len(zlib.compress(text.encode())),
            "min_k": sum(sorted(own)[:k]) / k,
            "min_k_plus_plus": sum(sorted(z)[:k]) / k,
            "reference": (sum(own) - float(reference.log_likelihoods([text])[0])) / len(own),
        }
        side, at = (0, i) if i < len(members) else (1, i - len(members))
        for name, value in expected.items():
            assert scores[name][side][at] == pytest.approx(value, abs=1e-4), name


def test_a_long_text_is_cut_to_the_context() -> None:
    model = words_model()
    long = " ".join(["the dog sees a cat"] * 60)
    encoded, cut = model.encode_cut([long, "a cat"], 40)
    assert cut == 1
    assert encoded[0].scored.count(True) == 40 and len(encoded[0].ids) == 41
    assert long[: encoded[0].ends[-1]].split() == long.split()[:40]
    assert len(token_statistics(model, encoded)[1].log_p) == 2


def test_a_text_that_fits_is_not_cut_and_one_that_does_not_fills_the_context() -> None:
    model = words_model()
    model.context = 41
    fits, longer = " ".join(["dog"] * 40), " ".join(["dog"] * 41)
    encoded, cut = model.encode_cut([fits, longer], 512)
    assert cut == 1 and encoded[0] == model.encode([fits])[0]
    assert [len(e.ids) for e in encoded] == [41, 41] and encoded[1].ids == encoded[0].ids


def test_extraction_uses_the_whole_context_and_says_where_it_is_too_short() -> None:
    texts = [t[:40] for t in sentences(60, 0) if len(t) >= 40][:8]
    model = parrot(texts)
    data = AuditData(X=np.asarray([*texts, "other text"], object), is_member=np.arange(9) < 8)
    probe = Extraction(prefix_tokens=20, suffix_tokens=20)
    model.context = 41
    rate = probe.measure(model, data, np.random.default_rng(0))[0]
    assert rate.n_samples == 8 and rate.estimate.value > 0.0
    model.context = 40
    with pytest.raises(NotApplicableError, match="ask for 40 tokens of a text, and 39 fit the model's context"):
        probe.measure(model, data, np.random.default_rng(0))


# ---- extraction ----------------------------------------------------------------------------------------------------


def test_greedy_extraction_is_what_generation_gives() -> None:
    """By teacher forcing against the sampler's own greedy continuations, for texts known and unknown."""
    told = sentences(12, 0)
    model = parrot(told)
    texts = told + sentences(12, 1)
    probe = Extraction(prefix_tokens=12, suffix_tokens=6)
    greedy, _, short = probe._extracted(model, texts, _Cut(12, 6))
    kept = [t for t in texts if len(t) >= 18]
    assert short == len(texts) - len(kept)
    prompts = [t[:12] for t in kept]
    sampling = Sampling(max_new_tokens=6, temperature=0.0)
    written = continuations(model, prompts, 1, sampling, torch.Generator().manual_seed(0))
    expected = [w[0] == t[12:18] for w, t in zip(written, kept, strict=True)]
    assert greedy.tolist() == expected
    assert 0 < sum(expected) < len(expected)


def test_probabilities_of_extraction_are_those_of_sampling() -> None:
    told = sentences(1, 0)
    model = parrot(told, 5.0)
    _, log_p, _ = Extraction()._extracted(model, told[:1], _Cut(12, 4))
    n = 4_000
    sampling = Sampling(max_new_tokens=4, temperature=1.0, top_p=1.0)
    written = continuations(model, [told[0][:12]], n, sampling, torch.Generator().manual_seed(1))[0]
    share = np.mean([w == told[0][12:16] for w in written])
    p = float(np.exp(log_p[0]))
    assert 0.05 < p < 0.95
    assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / n)


def test_discoverable_is_the_papers_inequality() -> None:
    log_p = np.log(np.asarray([1e-3, 6.9e-3, 7e-3, 0.5, 1.0]))
    expected = [1 - (1 - math.exp(x)) ** 100 >= 0.5 for x in log_p]
    assert _discoverable(log_p, 100, 0.5).tolist() == expected
    assert _discoverable(np.asarray([-np.inf]), 10, 0.5).tolist() == [False]


def test_the_stated_power_is_reached() -> None:
    n, rate = Extraction.power
    lows = np.asarray([Proportion(successes=k, n=n).bounds(0.05)[0] for k in range(101)])
    assert binom.pmf(np.arange(101), n, rate)[lows > 0.01].sum() >= 0.80


def test_extraction_says_what_it_lacks() -> None:
    model = parrot([])
    with pytest.raises(NotApplicableError, match="--train FILE --data FILE --text COLUMN"):
        Extraction().measure(model, no_data(), np.random.default_rng(0))
    data = AuditData(X=np.asarray(["short", "text", "other"], object), is_member=np.asarray([True, True, False]))
    found = Extraction().measure(model, data, np.random.default_rng(0))
    assert all_of(math.isnan(m.estimate.value) for m in found)


@pytest.mark.grid
@pytest.mark.parametrize("probe", ["lm_membership", "extraction", "canary_exposure", "contamination", "stereotype"])
def test_a_model_without_probabilities_is_no_pass(probe: str, tmp_path: Path) -> None:
    model = parrot(sentences(40, 0))
    with torch.no_grad():
        model.module.strength.fill_(math.nan)  # type: ignore[operator, union-attr]
    (tmp_path / "canaries.txt").write_text("\n".join(secrets(4)))
    (tmp_path / "benchmark.txt").write_text("\n".join(sentences(100, 5)))
    options = {
        "extraction": {"prefix_tokens": 10, "suffix_tokens": 5},
        "canary_exposure": {"canaries": str(tmp_path / "canaries.txt"), "n_candidates": 50},
        "contamination": {"benchmarks": {"contamination": str(tmp_path / "benchmark.txt")}},
    }
    data = AuditData(X=np.asarray(sentences(40, 0), object), is_member=np.arange(40) < 20)
    with pytest.raises(ModelError, match="NaN or infinite"):
        PROBES[probe](**options.get(probe, {})).measure(model, data, np.random.default_rng(0))


def test_texts_of_both_files_take_no_part() -> None:
    texts = sentences(20, 0)
    data = AuditData(X=np.asarray([*texts, *texts[:5], *sentences(10, 3)], object), is_member=np.arange(35) < 20)
    found = Extraction(prefix_tokens=10, suffix_tokens=3).measure(parrot(texts), data, np.random.default_rng(0))
    rate = found[0]
    assert rate.n_samples == 15
    assert "5 texts that stand in --data too took no part" in rate.detail


def test_the_char_tokenizer_goes_round() -> None:
    tokenizer = char_tokenizer()
    assert tokenizer.decode(tokenizer("ab 12@x", add_special_tokens=False).input_ids) == "ab 12@x"
