"""Hugging Face folders of other tasks, and with nothing but a vocabulary for a tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import auditor
from auditor.core.errors import ModelError, UsageError
from auditor.loading.formats import load_model
from auditor.loading.job_specs import DataSpec, ModelSpec
from auditor.loading.rows.load_rows import load_data
from tests.loading.test_intake_hostile import bert
from tests.quantifiers import all_of
from tests.toys.folders import change_json
from tests.toys.language import causal_tokenizer, tiny

TEXTS = np.array(["Good day, bad Night!", "café running 42", "naïve"], object)
PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "good",
    "day",
    "bad",
    "night",
    "cafe",
    "run",
    "##ning",
    ",",
    "!",
]
_SMALL: Any = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def translator(folder: Path) -> Path:
    from transformers import MarianConfig, MarianMTModel

    torch.manual_seed(0)
    layers = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 1), ("ffn_dim", 16))}
    heads = {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    config = MarianConfig(vocab_size=20, d_model=8, pad_token_id=0, decoder_start_token_id=0, **layers, **heads)
    MarianMTModel(config).save_pretrained(folder)
    return folder


def tagger(folder: Path) -> Path:
    from transformers import BertConfig, BertForTokenClassification

    config = BertConfig(**_SMALL, num_labels=3)
    BertForTokenClassification(config).save_pretrained(folder)
    return folder


def answerer(folder: Path) -> Path:
    from transformers import BertConfig, BertForQuestionAnswering

    BertForQuestionAnswering(BertConfig(**_SMALL)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("make", "what"),
    [(translator, "an encoder-decoder"), (tagger, "a token classifier"), (answerer, "a question answerer")],
)
def test_another_task_is_not_applicable_with_its_reason(make: Any, what: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "model")
    model = load_model(ModelSpec(path=str(folder)))
    assert model.kind == "other" and model.n_outputs == 0
    (tmp_path / "rows.csv").write_text("text,y,g\ngood,a,f\nbad,b,m\n" * 10)
    report = auditor.scan(
        str(folder), data=str(tmp_path / "rows.csv"), text="text", sensitive=["g"], seed=0, max_memory=4 << 30
    )
    found = [f for f in report.findings if f.pillar != "intake"]
    reasons = [f.reason or f.detail or "" for f in found if f.outcome == "NOT_APPLICABLE"]
    assert len(found) > 10 and len(reasons) == len(found)
    assert sum(f"this model is {what}" in reason for reason in reasons) > len(reasons) / 2
    intake = [f for f in report.findings if f.pillar == "intake"]
    assert all_of(f.outcome in ("PASS", "NOT_JUDGED") for f in intake)
    assert any(f.metric == "n_parameters" and f.value for f in intake)


def test_a_target_that_a_model_has_no_use_for(tmp_path: Path) -> None:
    """An encoder-decoder is asked by no probe and so leaves it be; a language model says that it has none."""
    (tmp_path / "rows.csv").write_text("text,y\n" + "good,0\nbad,1\n" * 5)
    spec = DataSpec(path=str(tmp_path / "rows.csv"), text="text", target="y")
    assert load_data(spec, load_model(ModelSpec(path=str(translator(tmp_path / "marian"))))).y_true is None
    tiny("gpt2").save_pretrained(tmp_path / "gpt2")  # type: ignore[operator]
    causal_tokenizer().save_pretrained(tmp_path / "gpt2")
    with pytest.raises(UsageError, match="texts, which have no labels: leave --target out"):
        load_data(spec, load_model(ModelSpec(path=str(tmp_path / "gpt2"))))


@pytest.mark.parametrize("lower", [True, False])
def test_a_vocabulary_alone_is_a_tokenizer(lower: bool, tmp_path: Path) -> None:
    from transformers import BertTokenizer

    folder = bert(tmp_path, vocab_size=16)
    pieces = PIECES if lower else [*PIECES[:-1], "Good", "!"]
    model_file = folder / "model.safetensors"
    from safetensors.torch import load_file, save_file

    weights = load_file(model_file)
    weights["bert.embeddings.word_embeddings.weight"] = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    save_file(weights, model_file)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    change_json(folder / "tokenizer_config.json", do_lower_case=None)
    model = load_model(ModelSpec(path=str(folder)))
    original = BertTokenizer(vocab=str(folder / "vocab.txt"), do_lower_case=lower)
    expected = original(list(TEXTS), padding=True)["input_ids"]
    np.testing.assert_array_equal(model.encode(TEXTS), expected)  # type: ignore[attr-defined]
    note = next(note for note in model.provenance.notes if "vocab.txt" in note)
    assert f"case is {'lowered' if lower else 'kept'} by what the capitals of its pieces" in note
    change_json(folder / "tokenizer_config.json", do_lower_case=not lower)
    other = load_model(ModelSpec(path=str(folder)))
    assert not np.array_equal(other.encode(TEXTS), expected)  # type: ignore[attr-defined]


def test_a_vocabulary_of_something_else_says_what_to_save(tmp_path: Path) -> None:
    folder = bert(tmp_path)
    (folder / "tokenizer.json").unlink()
    for text, why in (("a\nb\n", r"lacks \[UNK\]"), ("\n".join([*PIECES, "good"]), "names a piece twice")):
        (folder / "vocab.txt").write_text(text)
        with pytest.raises(ModelError, match=f"{why}.*AutoTokenizer.from_pretrained"):
            load_model(ModelSpec(path=str(folder)))
