"""``prefix_token``: what stands before a text, by the probe's option, and where it is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from auditor.core.errors import ConfigError, NotApplicableError
from auditor.data.benchmarks.benchmark import SentencePair
from auditor.models.capabilities import scorer_of, writer_of
from auditor.models.language_model import AuditedLanguageModel
from auditor.models.recorded_model import RecordedWriter
from auditor.run.probe import make_probe
from auditor.run.run_audit import no_data, run_audit
from probes.language.bbq import BBQ
from probes.language.crows_pairs_and_stereoset import CrowsPairs, StereoSet
from probes.language.stereotype import Stereotype
from probes.language.winobias_winogender import WinoBias, Winogender
from tests.probes.language.pair_toys import crows_file
from tests.quantifiers import none_of
from tests.toys.language import WORDS, by_loss, causal_tokenizer, masked_tokenizer, sentences, tiny, tiny_bert

SEEN = ("the dog", "a cat", "a bird", "big dog", "the cat", "small bird", "red dog", "here")
PAIRS = [SentencePair(f"the old man sees {x}", f"the young man sees {x}", "age", (x,)) for x in SEEN]


def causal(*, bos: bool = True) -> AuditedLanguageModel:
    return AuditedLanguageModel(tiny("llama").eval(), causal_tokenizer(bos=bos))


def test_the_likelihood_after_another_token_is_transformers_own() -> None:
    model, texts = causal(), sentences(8)
    found = model.with_prefix("</s>").log_likelihoods(texts)
    for text, score in zip(texts, found, strict=True):
        ids = torch.tensor([[2, *model.tokenizer(text, add_special_tokens=False).input_ids]])
        with torch.no_grad():
            loss = float(model.module(input_ids=ids, labels=ids).loss)
        assert score == pytest.approx(-loss * (ids.shape[1] - 1), abs=1e-3)
    np.testing.assert_array_equal(found, model.with_prefix(2).log_likelihoods(texts))
    expected = [by_loss(model.module, model.tokenizer, t) for t in texts]
    np.testing.assert_allclose(model.with_prefix("<s>").log_likelihoods(texts), expected, atol=1e-3)


def test_the_model_itself_keeps_its_prefix() -> None:
    model = causal()
    before = model.notes
    other, none = model.with_prefix(2), model.with_prefix("")
    assert other.module is model.module and model.notes == before == "Log-likelihood after <s> (token id 1)."
    assert other.notes == "Log-likelihood after </s> (token id 2)."
    assert "nothing in front of a text" in none.notes and "first tokens are not scored" in none.notes
    assert model.with_prefix((1, 2)).encode(["dog"])[0].ids[:2] == (1, 2)


@pytest.mark.parametrize("kind", [Stereotype, CrowsPairs, StereoSet, WinoBias, Winogender, BBQ])
def test_every_probe_of_likelihoods_takes_it(kind: type) -> None:
    assert make_probe(kind, {"prefix_token": 0}).prefix_token == 0  # type: ignore[attr-defined]
    for wrong in (True, 1.5, -1, ["<s>"]):
        with pytest.raises(ConfigError, match="prefix_token must be a token, its id, or ''"):
            make_probe(kind, {"prefix_token": wrong})


def test_it_is_in_the_detail_and_changes_the_score(tmp_path: Path) -> None:
    files = {"crows_pairs": crows_file(tmp_path, PAIRS)}
    details = {}
    for prefix in (None, "</s>", 0, ""):
        probe = CrowsPairs(benchmarks=files, prefix_token=prefix)
        (found, *_) = probe.measure(causal(), no_data(), np.random.default_rng(0))
        details[prefix] = found.detail
    assert "after <s> (token id 1)" in details[None] and "after </s> (token id 2)" in details["</s>"]
    assert "after <pad> (token id 0)" in details[0] and "nothing in front" in details[""]


def test_a_token_that_is_not_there_is_a_reason_that_says_what_is() -> None:
    model = causal()
    with pytest.raises(ConfigError, match=r"no token '<bos>' for prefix_token.*'<s>' \(id 1\)"):
        model.with_prefix("<bos>")
    with pytest.raises(ConfigError, match=r"prefix_token 99 is no token of this model: its ids go from 0 to 24"):
        model.with_prefix(99)
    masked = AuditedLanguageModel(tiny_bert(), masked_tokenizer())
    with pytest.raises(ConfigError, match="prefix_token is for causal models"):
        masked.with_prefix("")
    report = run_audit(model, None, [Stereotype(prefix_token="<bos>")])
    assert [f.outcome for f in report.findings] == ["NOT_RUN"] and "no token '<bos>'" in report.findings[0].reason
    with pytest.raises(NotApplicableError, match="Needs the likelihoods of texts: they are not to be had"):
        scorer_of(RecordedWriter())


IM_START = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
LLAMA = "{{ bos_token }}{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"


def chat_model(bos: str, eos: str, template: str | None, *more: str) -> AuditedLanguageModel:
    """A model whose tokenizer names these and puts nothing before a text."""
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *more]
    tokenizer = causal_tokenizer([*WORDS, *(m for m in marks if m not in WORDS)], bos=False)
    tokenizer.add_special_tokens({"bos_token": bos, "eos_token": eos})
    tokenizer.chat_template = template
    return AuditedLanguageModel(tiny("llama", vocab_size=len(tokenizer)).eval(), tokenizer)


@pytest.mark.parametrize(
    ("bos", "eos", "template", "prefix"),
    [
        ("<|im_start|>", "<|im_end|>", IM_START, "<|endoftext|>"),
        ("<|im_start|>", "<|im_end|>", None, "<|endoftext|>"),
        ("<|im_start|>", "</s>", IM_START, "</s>"),
        ("<s>", "</s>", LLAMA, "<s>"),
        ("<|endoftext|>", "<|im_end|>", IM_START, "<|endoftext|>"),
        ("<turn>", "<|im_end|>", IM_START.replace("<|im_start|>", "<turn>"), "<|endoftext|>"),
    ],
)
def test_a_mark_of_a_chat_is_no_start_of_a_document(bos: str, eos: str, template: str | None, prefix: str) -> None:
    model = chat_model(bos, eos, template, "<turn>")
    assert model.prefix_text == prefix
    assert (model.chat_mark is not None) == (bos != prefix)
    assert (f"not after {bos}" in model.notes) == (bos != prefix)
    assert writer_of(model, "off").model.prefix == model.prefix  # type: ignore[attr-defined]


def test_what_is_judged_is_shown_after_the_mark_of_a_chat_too(tmp_path: Path) -> None:
    model = chat_model("<|im_start|>", "<|im_end|>", IM_START)
    files = {"crows_pairs": crows_file(tmp_path, PAIRS)}
    found = CrowsPairs(benchmarks=files).measure(model, no_data(), np.random.default_rng(0))
    after = CrowsPairs(benchmarks=files, prefix_token="<|im_start|>").measure(
        model, no_data(), np.random.default_rng(0)
    )
    shown = {m.metric: m for m in found if m.metric.endswith("_other_prefix")}
    assert set(shown) == {f"{m.metric}_other_prefix" for m in after if not m.group}
    for m in after:
        if not m.group:
            assert shown[f"{m.metric}_other_prefix"].estimate == m.estimate
            assert shown[f"{m.metric}_other_prefix"].at["prefix"] == "<|im_start|>"
    again = CrowsPairs(benchmarks=files).measure(causal(), no_data(), np.random.default_rng(0))
    assert none_of(m.metric.endswith("_other_prefix") for m in again)
