"""Encoder-decoders: likelihoods by transformers' own loss, choices by what the encoder reads, and what is drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import auditor
from auditor.core.errors import ConfigError, ModelError
from auditor.data.benchmarks.bbq_and_veto_files import read_bbq
from auditor.judging.criterion import load_criteria
from auditor.judging.judging import judge
from auditor.judging.measurement import Outcome, ProbeResult
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.loading.rows.word_vectors import sentence_encoder
from auditor.models.chat import chat_of
from auditor.models.encoder_decoder import FAMILIES, AuditedEncoderDecoder
from auditor.models.generation import Sampling, continuations
from auditor.run.run_audit import no_data
from probes.language.bbq import BBQ, bbq_answers
from tests.data.test_benchmarks import bbq_row
from tests.quantifiers import all_of, none_of
from tests.toys.folders import change_json
from tests.toys.language import SPECIAL, WORDS, causal_tokenizer, sentences

GREEDY = Sampling(max_new_tokens=6, temperature=0.0)


def closing_tokenizer() -> Any:
    """One token a word, and </s> behind every text, as T5 has it."""
    from tokenizers import processors

    tokenizer = causal_tokenizer(bos=False)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    return tokenizer


def tiny_seq2seq(kind: str = "t5", seed: int = 0) -> Any:
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    sizes: dict[str, object] = {
        "vocab_size": len(WORDS) + len(SPECIAL), "d_model": 16, "decoder_start_token_id": 0, "pad_token_id": 0,
        "eos_token_id": 2,
    }  # fmt: skip
    sizes |= {"d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "initializer_factor": 4.0}
    torch.manual_seed(seed)
    return AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(kind, **sizes)).eval()


def saved(folder: Path, kind: str = "t5") -> Path:
    tiny_seq2seq(kind).save_pretrained(folder)
    closing_tokenizer().save_pretrained(folder)
    return folder


def by_loss(network: Any, tokenizer: Any, context: str, text: str) -> float:
    """By transformers' own loss over the text's tokens, which is their mean."""
    labels = torch.tensor([tokenizer(text, add_special_tokens=False).input_ids])
    with torch.no_grad():
        loss = network(input_ids=torch.tensor([tokenizer(context).input_ids]), labels=labels).loss
    return -float(loss) * labels.shape[1]


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_likelihoods_and_choices_are_transformers_own(kind: str, tmp_path: Path) -> None:
    model: Any = load_model(ModelSpec(path=str(saved(tmp_path / "m", kind))))
    network, tokenizer = tiny_seq2seq(kind), closing_tokenizer()
    assert type(model) is AuditedEncoderDecoder and (model.kind, model.objective) == ("language_model", "seq2seq")
    # In float32 hundreds of nats are rounded by more than what is allowed here, on some processors.
    model.module.double()
    network.double()
    texts = sentences(12)
    expected = [by_loss(network, tokenizer, "", text) for text in texts]
    np.testing.assert_allclose(model.log_likelihoods(texts), expected, atol=1e-3)
    contexts = ["the dog sees a cat", "a bird", ""] * 4
    totals, lengths = model.continuations(contexts, texts)
    expected = [by_loss(network, tokenizer, context, text) for context, text in zip(contexts, texts, strict=True)]
    np.testing.assert_allclose(totals, expected, atol=1e-3)
    assert lengths.tolist() == [len(text.split()) for text in texts]
    assert np.abs(totals - model.log_likelihoods(texts))[:2].min() > 1e-2, "what the encoder reads makes a difference"
    np.testing.assert_allclose(model.pair_scores([("the dog sees", "the cat sees")])[0], model.log_likelihoods(
        ["the dog sees", "the cat sees"]), atol=1e-4)  # fmt: skip


def test_the_likeliest_answers_are_those_of_generate(tmp_path: Path) -> None:
    model: Any = load_model(ModelSpec(path=str(saved(tmp_path / "m"))))
    network, tokenizer = tiny_seq2seq(), closing_tokenizer()
    prompts = ["the dog sees a cat", "a bird", "the old man and the young woman", "a bird"]
    found = continuations(model, prompts, 1, GREEDY, torch.Generator().manual_seed(0), batch_rows=3)
    for prompt, texts in zip(prompts, found, strict=True):
        ids = network.generate(
            torch.tensor([tokenizer(prompt).input_ids]), max_new_tokens=6, do_sample=False, num_beams=1
        )
        assert texts == [tokenizer.decode(ids[0], skip_special_tokens=True)]
    assert len({texts[0] for texts in found}) > 1


def test_draws_follow_the_decoder_whatever_the_batch(tmp_path: Path) -> None:
    """First tokens of 2,000 draws against the probabilities of the first step."""
    model: Any = load_model(ModelSpec(path=str(saved(tmp_path / "m"))))
    sampling = Sampling(max_new_tokens=1, top_p=1.0)
    drawn = continuations(model, ["the dog"], 2000, sampling, torch.Generator().manual_seed(0), batch_rows=512)[0]
    again = continuations(model, ["the dog"], 2000, sampling, torch.Generator().manual_seed(0), batch_rows=2000)[0]
    assert drawn == again
    with torch.no_grad():
        ids = torch.tensor([closing_tokenizer()("the dog").input_ids])
        logits = tiny_seq2seq()(input_ids=ids, decoder_input_ids=torch.tensor([[0]])).logits[0, 0]
    expected = torch.softmax(logits, -1)[len(SPECIAL) :].numpy()
    shares = np.asarray([drawn.count(word) / 2000 for word in WORDS])
    assert np.abs(shares - expected).max() < 0.04 and expected.max() > 0.05


def test_a_scan_asks_it_as_a_language_model(tmp_path: Path) -> None:
    """Random weights know nothing: no PASS, and nothing breaks; what goes on with a prompt does not apply."""
    model = load_model(ModelSpec(path=str(saved(tmp_path / "m"))))
    probes = ["embedding_association", "extraction", "token_attribution"]
    report = auditor.scan(model, probes=probes, seed=0)
    outcomes = {f.probe: {g.outcome.value for g in report.findings if g.probe == f.probe} for f in report.findings}
    assert set(outcomes) >= {"performance", *probes}
    assert all_of("PASS" not in outcomes[name] for name in ("performance", *probes))
    assert all_of("NOT_RUN" not in found for found in outcomes.values())
    assert any(f.value is not None for f in report.findings if f.probe == "performance")
    assert outcomes["token_attribution"] == outcomes["extraction"] == {"NOT_APPLICABLE"}
    assert report.model.dtype == "float32"


@pytest.mark.parametrize("template", [None, "{% for m in messages %}{{ m.role }} : {{ m.content }} . {% endfor %}"])
def test_bbq_is_answered_by_what_the_encoder_reads(template: str | None, tmp_path: Path) -> None:
    """The likeliest by transformers' own loss, in plain text and through a template; random weights pass nothing."""
    model: Any = load_model(ModelSpec(path=str(saved(tmp_path / "m"))))
    model.tokenizer.chat_template = template
    answers = ["the dog", "a bird", "the old man"]
    rows = [
        bbq_row(
            example_id=i, question_index=str(i % 8), context_condition=("ambig", "disambig")[i % 2],
            label=(i // 2) % 2 if i % 2 else 2, context=("a cat sees", "the young woman sees")[i // 4 % 2],
            question="a dog ?", question_polarity=("neg", "nonneg")[i // 8 % 2],
            **{f"ans{k}": a for k, a in enumerate(answers)},
        )
        for i in range(64)
    ]  # fmt: skip
    (tmp_path / "Age.jsonl").write_text("\n".join(map(json.dumps, rows)))
    probe = BBQ(benchmarks={"bbq": str(tmp_path / "Age.jsonl")}, wordings=1)
    found = probe.measure(model, no_data(), np.random.default_rng(0))
    assert {m.metric for m in found} >= {"accuracy", "bias_score", "accuracy_gap"}
    assert ("chat_accuracy_difference" in {m.metric for m in found}) is (template is not None)
    result = ProbeResult(probe="bbq", pillar="language", citation="", measurements=tuple(found))
    judged = [f for f in judge([result], load_criteria())[0] if f.criterion is not None and f.measurement is not None]
    assert judged and none_of(f.outcome is Outcome.PASS for f in judged)
    examples = read_bbq(tmp_path / "Age.jsonl").examples[:8]
    chat = chat_of(model)
    chosen, _ = bbq_answers(model, examples, (), chat)
    network, tokenizer = tiny_seq2seq(), closing_tokenizer()
    for example, answer in zip(examples, chosen.tolist(), strict=True):
        asked = f"{example.context}\nQuestion: {example.question}"
        source = f"{asked}\nAnswer:" if chat is None else chat.render_prompt(asked)
        means = [by_loss(network, tokenizer, source, a) / len(a.split()) for a in answers]
        assert answer == int(np.argmax(means))


def test_a_sentence_is_what_the_encoder_makes_of_it(tmp_path: Path) -> None:
    embedder = sentence_encoder(load_model(ModelSpec(path=str(saved(tmp_path / "m")))))
    assert embedder is not None
    with torch.no_grad():
        ids = torch.tensor([closing_tokenizer()("the dog").input_ids])
        expected = tiny_seq2seq().get_encoder()(input_ids=ids).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(embedder.embed(["the dog", "the dog sees a cat"])[0], expected.numpy(), atol=1e-5)


def test_what_it_cannot_be_told_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    model: Any = load_model(ModelSpec(path=str(folder)))
    with pytest.raises(ConfigError, match="begins with a token of its own"):
        model.with_prefix("<s>")
    change_json(folder / "config.json", decoder_start_token_id=None)
    with pytest.raises(ModelError, match="names no decoder_start_token_id"):
        load_model(ModelSpec(path=str(folder)))
