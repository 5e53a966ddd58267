"""One label of a folder that gives several, and classifiers of texts in ONNX, as what scores texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from auditor.core.errors import ModelError, UsageError
from auditor.loading.auxiliary_models import gives_labels, load_label
from probes.language.text_scorers import load_device, load_scorer
from tests.quantifiers import all_of
from tests.toys.folders import WORDS, change_json, save_bert

LABELS = ("toxic", "threat", "insult")
TEXTS = np.asarray([f"{a} {b}" for a, b in zip(WORDS[4:], WORDS[5:], strict=False)] + [WORDS[4]], object)


def several(folder: Path) -> nn.Module:
    return save_bert(folder, labels=LABELS, problem_type="multi_label_classification")


def graph(folder: Path, k: int) -> np.ndarray:
    """A graph that sums a number a token and label over the tokens that count; those numbers, (n_words, k)."""
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    helper, kind = onnx.helper, onnx.TensorProto
    weights = np.random.default_rng(0).normal(size=(len(WORDS), k)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["W", "input_ids"], ["each"]),
        helper.make_node("Cast", ["attention_mask"], ["counts"], to=kind.FLOAT),
        helper.make_node("Unsqueeze", ["counts", "last"], ["wide"]),
        helper.make_node("Mul", ["each", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "tokens"], ["logits"], keepdims=0),
    ]
    given = [helper.make_tensor_value_info(n, kind.INT64, ["n", "l"]) for n in ("input_ids", "attention_mask")]
    made = helper.make_graph(
        nodes, "g", given, [helper.make_tensor_value_info("logits", kind.FLOAT, ["n", k])],
        [onnx.numpy_helper.from_array(weights, "W"), onnx.numpy_helper.from_array(np.asarray([2]), "last"),
         onnx.numpy_helper.from_array(np.asarray([1]), "tokens")],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "model.safetensors").unlink()
    return weights


def by_hand(network: nn.Module, folder: Path) -> np.ndarray:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(TEXTS.tolist(), padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = network(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits
    return np.asarray(logits, np.float64)


def test_a_label_is_its_own_logistic_of_a_folder_and_of_its_graph(tmp_path: Path) -> None:
    network = several(tmp_path)
    expected = 1.0 / (1.0 + np.exp(-by_hand(network, tmp_path)))
    assert gives_labels(str(tmp_path))
    for k, label in enumerate(LABELS):
        made = load_label(str(tmp_path), label)
        assert made.classes == (f"not {label}", label)
        np.testing.assert_allclose(made.predict_proba(TEXTS)[:, 1], expected[:, k], atol=1e-6)
        score, whose = load_scorer(str(tmp_path), label)
        np.testing.assert_allclose(score(TEXTS.tolist()), expected[:, k], atol=1e-6)
        assert whose.startswith(f"P({label}) by ")
    device = load_device(str(tmp_path), "threat")
    assert device.labels(TEXTS.tolist()).tolist() == (expected[:, 1] >= 0.5).tolist()


def test_a_graph_scores_what_it_says_of_the_tokens_that_count(tmp_path: Path) -> None:
    several(tmp_path / "several")
    weights = graph(tmp_path / "several", 3)
    ends = [WORDS.index("[CLS]"), WORDS.index("[SEP]")]
    logits = np.asarray([weights[[*ends, *map(WORDS.index, text.split())]].sum(axis=0) for text in TEXTS], np.float64)
    for k, label in enumerate(LABELS):
        score, _ = load_scorer(str(tmp_path / "several"), label)
        np.testing.assert_allclose(score(TEXTS.tolist()), 1.0 / (1.0 + np.exp(-logits[:, k])), atol=1e-6)
    save_bert(tmp_path / "one", labels=LABELS)
    graph(tmp_path / "one", 3)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    score, whose = load_scorer(str(tmp_path / "one"))
    np.testing.assert_allclose(score(TEXTS.tolist()), softmax[:, -1], atol=1e-6)
    assert whose.startswith("P(insult) by ") and score([]).shape == (0,)
    # A graph that belongs to other labels.
    change_json(tmp_path / "one" / "config.json", id2label={"0": "a", "1": "b"})
    with pytest.raises(ModelError, match="gives 3 logits, and config.json names 2 labels"):
        load_scorer(str(tmp_path / "one"))[0](["good"])


def test_which_label_is_the_users_to_say(tmp_path: Path) -> None:
    several(tmp_path)
    with pytest.raises(UsageError, match=r"several labels at once \(toxic, threat, insult\).*scorer_class"):
        load_scorer(str(tmp_path))
    with pytest.raises(UsageError, match=r"no label 'thread'.*threat"):
        load_scorer(str(tmp_path), "thread")


def test_a_folder_with_one_answer_is_loaded_as_before(tmp_path: Path) -> None:
    save_bert(tmp_path)
    assert not gives_labels(str(tmp_path)) and not gives_labels(str(tmp_path / "nothing"))
    score, _ = load_scorer(str(tmp_path), "positive")
    assert all_of(0.0 < p < 1.0 for p in score(TEXTS.tolist()))


def test_a_graph_of_something_else_is_refused(tmp_path: Path) -> None:
    several(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.onnx").write_bytes(b"nothing of the kind")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    with pytest.raises(ModelError, match="cannot be read as an ONNX model"):
        load_label(str(tmp_path), "toxic")
