"""Heads of Hugging Face classifiers: one output, and several labels to a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import auditor
from auditor.core.errors import ModelError, UsageError
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from tests.toys.folders import change_json, save_bert

TEXTS = np.array(["good day", "bad night", "good", "bad"], object)
TOXIC = ("toxic", "threat", "insult")


def logits_of(network: Any, model: Any) -> torch.Tensor:
    ids = model.encode(TEXTS)
    with torch.no_grad():
        return network(input_ids=ids, attention_mask=(ids != 0).long()).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("label", TOXIC)
def test_one_label_of_several_is_audited_by_its_own_logit(label: str, tmp_path: Path) -> None:
    network = save_bert(tmp_path / "m", labels=TOXIC, problem_type="multi_label_classification")
    model = load_model(ModelSpec(path=str(tmp_path / "m"), classes=("fine", label)))
    expected = torch.sigmoid(logits_of(network, model)[:, TOXIC.index(label)].double())
    np.testing.assert_allclose(model.predict_proba(TEXTS)[:, 1], expected.numpy(), atol=1e-5)
    assert model.classes == ("fine", label)
    assert any(f"One of 3 labels is audited, '{label}'" in note for note in model.provenance.notes)


@pytest.mark.parametrize("classes", [None, ("a", "b"), ("toxic", "fine"), ("a", "b", "toxic")])
def test_which_label_is_asked_for_with_the_labels(classes: Any, tmp_path: Path) -> None:
    save_bert(tmp_path / "m", labels=TOXIC, problem_type="multi_label_classification")
    with pytest.raises(
        ModelError, match=r"several labels to a row \(toxic, threat, insult\).*--classes \"not toxic,toxic"
    ):
        load_model(ModelSpec(path=str(tmp_path / "m"), classes=classes))


def test_labels_that_share_a_name_are_refused(tmp_path: Path) -> None:
    save_bert(tmp_path / "m", labels=TOXIC, problem_type="multi_label_classification")
    change_json(tmp_path / "m" / "config.json", id2label={"0": "toxic", "1": "toxic", "2": "insult"})
    with pytest.raises(ModelError, match="names a label twice"):
        load_model(ModelSpec(path=str(tmp_path / "m"), classes=("fine", "toxic")))


@pytest.mark.parametrize("problem", [None, "regression"])
def test_one_output_is_a_number(problem: Any, tmp_path: Path) -> None:
    network = save_bert(tmp_path / "m", labels=("score",), problem_type=problem)
    model: Any = load_model(ModelSpec(path=str(tmp_path / "m")))
    np.testing.assert_allclose(model.predict(TEXTS), logits_of(network, model)[:, 0].numpy(), atol=1e-5)
    assert model.kind == "regressor"
    said = "config.json says regression" if problem else "--classes no,yes reads it as the logit"
    assert any("read as a number" in note and said in note for note in model.provenance.notes)


def test_one_output_is_a_logit_where_classes_are_named(tmp_path: Path) -> None:
    network = save_bert(tmp_path / "m", labels=("score",))
    model = load_model(ModelSpec(path=str(tmp_path / "m"), classes=("no", "yes")))
    expected = torch.sigmoid(logits_of(network, model)[:, 0].double())
    np.testing.assert_allclose(model.predict_proba(TEXTS)[:, 1], expected.numpy(), atol=1e-5)
    change_json(tmp_path / "m" / "config.json", problem_type="multi_label_classification")
    alone = load_model(ModelSpec(path=str(tmp_path / "m")))
    np.testing.assert_allclose(alone.predict_proba(TEXTS)[:, 1], expected.numpy(), atol=1e-5)
    assert alone.classes == ("not score", "score")


def test_a_number_has_no_classes_and_several_are_not_one(tmp_path: Path) -> None:
    save_bert(tmp_path / "one", labels=("score",), problem_type="regression")
    with pytest.raises(UsageError, match="predicts a number and has no classes: leave --classes out"):
        load_model(ModelSpec(path=str(tmp_path / "one"), classes=("no", "yes")))
    save_bert(tmp_path / "three", problem_type="regression")
    with pytest.raises(ModelError, match="predicts 3 numbers, not a class"):
        load_model(ModelSpec(path=str(tmp_path / "three")))


def test_a_number_of_texts_is_scanned(tmp_path: Path) -> None:
    save_bert(tmp_path / "m", labels=("score",))
    words = ("good day", "bad night", "good night", "bad day", "good")
    lines = [f"{words[i % 5]},{i % 7},{'fm'[i % 2]}" for i in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,y,g", *lines]))
    report = auditor.scan(
        load_model(ModelSpec(path=str(tmp_path / "m"))),
        data=str(tmp_path / "rows.csv"),
        target="y",
        sensitive=["g"],
        probes=["performance"],
        seed=0,
    )
    assert {f.metric for f in report.findings if f.probe == "performance"} >= {"mean_absolute_error"}
