"""Table classifiers and regressors from ONNX files, exported by scikit-learn, XGBoost, LightGBM or torch.

onnxruntime interprets a graph of its own operators; the bytes run nothing. Operators of other libraries, and tensors
that lie in files beside the graph, are refused before it sees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from auditor.core.errors import (
    ModelError,
    UnsupportedError,
    UsageError,
)
from auditor.core.rows import FloatArray, Rows
from auditor.data.preprocessing import as_converted
from auditor.loading.finish_loading import named_classes, no_flags_of_classes, provenance_of
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import AuditedModel
from auditor.models.files.model_bytes import Source, convert_parser_errors, printable
from auditor.models.files.onnx_graphs import TEXT, Graph, check, class_labels, libraries, session_of, threshold_in
from auditor.models.regression_model import AuditedRegressor


def load_onnx(source: Source, spec: ModelSpec) -> AuditedModel:
    """The model of an ONNX file.

    A graph with an output of labels, as converters of scikit-learn and boosted trees write it, names its classes, and
    its probabilities are read with or without ZipMap. Any other output is what ``--outputs`` says of a classifier
    (``--classes``), or with ``--task regression`` a number. Raises MissingExtraError without onnxruntime and onnx,
    ModelError for a damaged graph, foreign operators, tensors in other files, and inputs that are no table.
    """
    onnx, onnxruntime = libraries()
    with convert_parser_errors(f"{source.name!r} cannot be read as an ONNX model"):
        proto = onnx.load_model_from_string(source.data)
        check(proto, source.name)
        session = session_of(onnxruntime, source.data)
    graph = Graph(session, source.name)
    provenance = provenance_of(source, "ONNX model", f"onnxruntime {onnxruntime.__version__}")
    outputs = session.get_outputs()
    labels = [o for o in outputs if o.type in ("tensor(int64)", TEXT) and len(o.shape or [0]) == 1]
    features = _features(graph, spec, source.name, "" if labels else _unsaid(outputs[0], spec, source.name))
    if not labels:
        return _network(graph, features, outputs, spec, provenance, source.name)
    if spec.task == "regression":
        raise UsageError("The model gives labels, which are no numbers to be predicted: leave --task out.")
    found = class_labels(proto, labels[0].name)
    spec = replace(spec, threshold=threshold_in(proto) if spec.threshold is None else spec.threshold)
    scores = next((o for o in outputs if o.name != labels[0].name), None)

    def predict(X: Rows) -> Any:
        if scores is None:
            return np.asarray(graph.run(X, features, labels[0].name)).astype(str)
        return _unzipped(graph.run(X, features, scores.name), found)

    return _classifier(predict, graph, features, named_classes(found, spec), spec, provenance)


def _network(
    graph: Graph, features: tuple[str, ...], outputs: Any, spec: ModelSpec, provenance: Any, name: str
) -> AuditedModel:
    if len(outputs) != 1:
        listed = ", ".join(printable(o.name, 40) for o in outputs[:6])
        raise UnsupportedError(
            f"{name!r} has the outputs {listed}, none of which are labels: which one is meant is for a function of "
            "yours to say, with --predict."
        )
    output = outputs[0].name
    if spec.task == "regression":
        no_flags_of_classes(spec)
        made: AuditedModel = AuditedRegressor(
            lambda X: graph.run(X, features, output), features=features, provenance=provenance
        )
        made.group_columns, made.renamed = graph.text_columns(features), True
        return made
    if unsaid := _unsaid(outputs[0], spec, name):
        raise UsageError(unsaid)
    classes = named_classes(None, spec)

    def predict(X: Rows) -> Any:
        values = np.asarray(graph.run(X, features, output), np.float64)
        values = values.reshape(len(values), -1)
        if spec.outputs == "probabilities":
            return values
        if values.shape[1] == 1:
            return 1.0 / (1.0 + np.exp(-np.clip(values[:, 0], -700.0, 700.0)))
        shifted = np.exp(values - values.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)

    return _classifier(predict, graph, features, classes, spec, provenance)


def _unsaid(output: Any, spec: ModelSpec, name: str) -> str:
    """What to add where nothing says what a network's output is, or nothing."""
    if spec.task == "regression" or spec.outputs is not None:
        return ""
    return (
        f"{name!r} does not say what its output {printable(output.name, 40)!r} is: add --outputs logits or --outputs "
        "probabilities with --classes a,b, or --task regression."
    )


def _classifier(
    predict: Any, graph: Graph, features: tuple[str, ...], classes: tuple[str, ...], spec: ModelSpec, provenance: Any
) -> AuditedModel:
    made = AuditedModel(
        predict,
        classes=classes,
        features=features,
        threshold=0.5 if spec.threshold is None else spec.threshold,
        provenance=provenance,
    )
    made.group_columns, made.renamed = graph.text_columns(features), True
    return made


def _unzipped(scores: Any, classes: Sequence[str] | None) -> FloatArray:
    """(n, k) probabilities from an array, or from what ZipMap makes of one: a list of {label: probability}."""
    if isinstance(scores, list):
        if not scores:
            return np.empty((0, len(classes or ())))
        names = list(scores[0])
        order = names if classes is None else [next((n for n in names if str(n) == c), None) for c in classes]
        if None in order:
            raise ModelError(
                "The model's probabilities and its labels name different classes.", code="AUD-LOAD-CLASSES"
            )
        return np.asarray([[row[name] for name in order] for row in scores], np.float64)
    return np.asarray(scores, np.float64)


def _features(graph: Graph, spec: ModelSpec, name: str, unsaid: str) -> tuple[str, ...]:
    """The columns it takes. ``unsaid``: what else has to be added, so that one refusal names it all."""
    if graph.columns is not None:
        if spec.features is None or spec.features == graph.columns:
            return graph.columns
        if tuple(map(as_converted, spec.features)) != graph.columns:
            raise UsageError("The model file names its own features: leave --features out.")
        return spec.features
    if spec.features is None:
        count = "columns" if graph.width is None else f"{graph.width} columns"
        columns = f"{name!r} takes {count} and does not name them: add --features a,b in their order."
        raise UsageError(f"{columns} {unsaid}".rstrip())
    if graph.width is not None and len(spec.features) != graph.width:
        raise UsageError(f"--features names {len(spec.features)} columns, but the model takes {graph.width}.")
    return spec.features
