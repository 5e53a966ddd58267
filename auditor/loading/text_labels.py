"""Scorers of generated texts: one label of a multi-label text folder, and text classifiers in ONNX files.

Labels that do not exclude each other make no classifier that could be audited as one; each alone says yes or no.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from auditor.core.errors import ModelError, UnsupportedError, UsageError, did_you_mean
from auditor.core.rows import FloatArray, Rows
from auditor.loading.finish_loading import provenance_in
from auditor.loading.huggingface_folders import labels_in, load_folder, text_encoding
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import AuditedModel
from auditor.models.files.model_bytes import convert_parser_errors
from auditor.models.files.model_folder import Folder, open_model_folder

_GRAPH = "model.onnx"
_SEVERAL = "multi_label_classification"
_ROWS = 64
_FED = {"input_ids", "attention_mask", "token_type_ids"}


def gives_labels(path: str) -> bool:
    """Whether a path is a multi-label text folder, or a graph, of which one label is used."""
    where = Path(path)
    if not (where / "config.json").is_file():
        return False
    folder, settings = open_model_folder(path)
    return settings.get("problem_type") == _SEVERAL or (
        folder.has(_GRAPH) and not any(name.endswith(".safetensors") for name in folder.names())
    )


def load_label(path: str, label: str | None) -> AuditedModel:
    """A folder's classifier of texts as one of a single label, which is its last class: ("not toxic", "toxic").

    A graph is ``model.onnx`` beside config.json and tokenizer.json, as exporters of transformers write it. Its outputs
    are logits: of several labels each by the logistic function, else all by softmax. Raises UsageError where the label
    is not said or is none of the folder's, and as the loaders of such files.
    """
    folder, settings = open_model_folder(path)
    several = settings.get("problem_type") == _SEVERAL
    labels = labels_in(settings, folder)
    if label is None and several:
        raise UsageError(
            f"{folder.name!r} gives a text several labels at once ({', '.join(labels)}): say which is the score with "
            "the option scorer_class."
        )
    if label is not None and label not in labels:
        near = did_you_mean(label, labels) or "."
        raise UsageError(f"{folder.name!r} has no label {label!r}{near} It has: {', '.join(labels)}.")
    column = len(labels) - 1 if label is None else labels.index(label)
    classes = (f"not {labels[column]}", labels[column])
    if folder.has(_GRAPH) and not folder.has("model.safetensors"):
        return _of_a_graph(folder, settings, column, classes, several)
    return load_folder(path, ModelSpec(path=path, classes=classes))


def _of_a_graph(
    folder: Folder, settings: Mapping[str, Any], column: int, classes: tuple[str, str], several: bool
) -> AuditedModel:
    from auditor.models.files.onnx_graphs import check, libraries, session_of

    onnx, onnxruntime = libraries()
    source = folder.read(_GRAPH)
    with convert_parser_errors(f"{_GRAPH!r} in {folder.name!r} cannot be read as an ONNX model"):
        check(onnx.load_model_from_string(source.data), source.name)
        session = session_of(onnxruntime, source.data)
    asked = {each.name for each in session.get_inputs()}
    outputs = [each.name for each in session.get_outputs()]
    if not {"input_ids"} <= asked <= _FED or "logits" not in outputs:
        raise UnsupportedError(
            f"{_GRAPH!r} in {folder.name!r} does not take input_ids and give logits: export a classifier of texts."
        )
    known = settings.get("vocab_size")
    if not isinstance(known, int):
        raise ModelError(
            f"The config.json in {folder.name!r} must name the vocab_size of its network.", code="AUD-LOAD-INCOMPLETE"
        )
    text = text_encoding(folder, settings, known)
    n_labels = len(labels_in(settings, folder))

    def score(texts: Rows) -> FloatArray:
        found = [_logits(texts[i : i + _ROWS]) for i in range(0, len(texts), _ROWS)]
        logits = np.concatenate(found) if found else np.empty((0, n_labels))
        # Clipped where the exponential would overflow, far beyond where it makes a difference.
        if several:
            return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits[:, column], -700.0, 700.0))), np.float64)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shifted[:, column] / shifted.sum(axis=1), np.float64)

    def _logits(texts: Rows) -> FloatArray:
        ids = text.encode(texts)
        mask = text.mask(ids)
        fed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
        (values,) = session.run(["logits"], {name: fed[name].numpy() for name in asked})
        if values.ndim != 2 or values.shape[1] != n_labels:
            raise ModelError(
                f"{_GRAPH!r} in {folder.name!r} gives {values.shape[-1]} logits, and config.json names {n_labels} "
                "labels: they do not belong together.",
                code="AUD-LOAD-CLASSES",
            )
        return np.asarray(values, np.float64)

    where = provenance_in(folder, "ONNX graph", text.notes)
    where = replace(where, loaded_by=f"onnxruntime {onnxruntime.__version__}")
    return AuditedModel(score, classes=classes, provenance=where)
