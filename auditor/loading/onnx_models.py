"""Classifiers and regressors from ONNX files: of tables, images and sound.

onnxruntime interprets a graph of its own operators; the bytes run nothing. Operators of other libraries are refused
before it sees them, and it opens no file: tensors beside the graph are read into it first.

The files are those of transformers, as exporters write them beside the graph: ``preprocessor_config.json`` says how
large a picture is and how it is scaled, or the sampling rate; ``config.json`` names the classes. Nothing is guessed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from auditor.core.errors import ModelError, UnsupportedError, UsageError
from auditor.core.rows import FloatArray, IntArray, Rows, take_rows
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing, as_converted, label_name
from auditor.loading.finish_loading import named_classes, no_flags_of_classes, provenance_of
from auditor.loading.huggingface_folders import image_preprocessing, scales_sound, sound_preprocessing
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import AuditedModel, Provenance, Said, of_logits
from auditor.models.detector import CONFIG, ONNX_FILE, PREPROCESSOR
from auditor.models.files.model_bytes import Source, printable
from auditor.models.files.model_folder import Folder
from auditor.models.files.onnx_graphs import TEXT, Graph, OpenedGraph, class_labels, open_graph, threshold_in
from auditor.models.format_names import ONNX_FORMAT
from auditor.models.regression_model import AuditedRegressor


class OnnxClassifier(AuditedModel):
    """A graph that gives labels, which are its decisions where nobody set a threshold.

    ``labels``: the output of its labels, ``label_names``: what it calls its classes, in their order.
    """

    def __init__(
        self,
        predict: Any,
        graph: Graph,
        labels: str,
        label_names: Sequence[str],
        *,
        decides_itself: bool,
        **options: Any,
    ) -> None:
        super().__init__(predict, **options)
        self.decides_itself = decides_itself
        self._graph, self._labels = graph, labels
        self._places = {label_name(name): i for i, name in enumerate(label_names)}

    @property
    def decision_rule(self) -> str:
        """How a row is decided, as a sentence."""
        return "Decides by the labels that the graph gives." if self.decides_itself else self._rule_of_probabilities()

    def decide(self, probabilities: FloatArray, positive: int | None, X: Rows | None = None) -> IntArray:
        """(n,) class indices, by a requested threshold, else the graph's own labels of the rows."""
        if not self.decides_itself or X is None or self.features is None:
            return super().decide(probabilities, positive, X)
        found: list[int] = []
        for start in range(0, len(X), self.batch_rows):
            rows = take_rows(X, slice(start, start + self.batch_rows))
            labels = list(map(label_name, np.ravel(self._graph.run(rows, self.features, self._labels)).tolist()))
            strange = next((label for label in labels if label not in self._places), None)
            if strange is not None:
                raise ModelError(
                    f"The model answered {printable(strange, 40)!r}, which is none of its classes "
                    f"{', '.join(list(self._places)[:8])}.",
                    code="AUD-LOAD-CLASSES",
                )
            found += [self._places[label] for label in labels]
        return np.asarray(found, np.int64)


def load_onnx(source: Source, spec: ModelSpec) -> AuditedModel:
    """The model of an ONNX file.

    A graph with an output of labels, as converters of scikit-learn and boosted trees write it, names its classes, and
    its probabilities are read with or without ZipMap. Any other output is what ``--outputs`` says of a classifier
    (``--classes``), or with ``--task regression`` a number. Raises MissingExtraError without onnxruntime and onnx,
    ModelError for a damaged graph, foreign operators, missing tensors, and inputs that are neither table nor media.
    """
    opened = open_graph(source, Folder(str(Path(source.path).parent)))
    proto, session = opened.proto, opened.session
    if _takes_media(session, source.path):
        return load_onnx_media(source.path, spec, opened)
    graph = Graph(session, source.name)
    provenance = provenance_of(opened.source, ONNX_FORMAT, opened.loaded_by, opened.notes)
    outputs = session.get_outputs()
    labels = [o for o in outputs if o.type in ("tensor(int64)", TEXT) and len(o.shape or [0]) == 1]
    features = _features(graph, spec, source.name, "" if labels else _unsaid(outputs[0], spec, source.name))
    if not labels:
        return _network(graph, features, outputs, spec, provenance, source.name)
    if spec.task == "regression":
        raise UsageError("The model gives labels, which are no numbers to be predicted: leave --task out.")
    found = class_labels(proto, labels[0].name)
    said = spec.threshold is not None
    spec = spec if said else replace(spec, threshold=threshold_in(proto))
    scores = next((o for o in outputs if o.name != labels[0].name), None)

    def predict(X: Rows) -> Any:
        if scores is None:
            return np.asarray(graph.run(X, features, labels[0].name)).astype(str)
        return _unzipped(graph.run(X, features, scores.name), found)

    classes = named_classes(found, spec)
    return _classifier(
        partial(
            OnnxClassifier,
            graph=graph,
            labels=labels[0].name,
            label_names=found or classes,
            decides_itself=not said,
        ),
        predict,
        graph,
        features,
        classes,
        spec,
        provenance,
    )


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

    return _classifier(AuditedModel, predict, graph, features, classes, spec, provenance)


def _unsaid(output: Any, spec: ModelSpec, name: str) -> str:
    """What to add where nothing says what a network's output is, or nothing."""
    if spec.task == "regression" or spec.outputs is not None:
        return ""
    return (
        f"{name!r} does not say what its output {printable(output.name, 40)!r} is: add --outputs logits or --outputs "
        "probabilities with --classes a,b, or --task regression."
    )


def _classifier(
    kind: Callable[..., AuditedModel],
    predict: Any,
    graph: Graph,
    features: tuple[str, ...],
    classes: tuple[str, ...],
    spec: ModelSpec,
    provenance: Any,
) -> AuditedModel:
    made = kind(
        predict,
        classes=classes,
        features=features,
        threshold=0.5 if spec.threshold is None else spec.threshold,
        provenance=provenance,
    )
    made.group_columns, made.renamed, made.others_are_numbers = graph.text_columns(features), True, True
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


_BATCH = 32
_QUIET = 1e-7


def _takes_media(session: Any, path: str) -> bool:
    """Whether a graph takes pictures, or one matrix beside whose file lies how a recording becomes a row of it."""
    inputs = session.get_inputs()
    axes = len(inputs[0].shape) if len(inputs) == 1 and inputs[0].type == "tensor(float)" else 0
    return axes == 4 or (axes == 2 and Path(path).with_name(PREPROCESSOR).is_file())


def load_onnx_media(path: str, spec: ModelSpec, graph: OpenedGraph | None = None) -> AuditedModel:
    """The model of an ONNX file that takes pictures, (n, 3, height, width), or sound, (n, samples), as numbers.

    Its output is logits where it is named so, else what ``--outputs`` says. Raises ModelError for any other input, for
    more than one output, and where nothing beside the file says how a picture or a recording becomes its input.
    ``graph``: the file, where it is read already; the model's digest is then that of it alone, and a note has the
    digest that covers what lies beside it.
    """
    folder = Folder(str(Path(path).parent))
    opened = open_graph(folder.read(Path(path).name), folder) if graph is None else graph
    source, session = opened.source, opened.session
    settings: Mapping[str, Any] = folder.json(CONFIG) if folder.has(CONFIG) else {}
    if spec.task == "regression":
        raise UsageError(
            f"{source.name!r} takes pictures or sound, of which classifiers are audited: leave --task out."
        )
    shape, kind = _shape_and_kind(session, source.name, spec)
    wanted, notes = _input_preprocessing(folder, settings, shape, source.name)
    digest = _digest(folder, source.sha256)
    if graph is not None:
        notes = (*notes, f"With {PREPROCESSOR} and {CONFIG} beside it, SHA-256 {digest}.")
    predict = _predictor(session, wanted, source.name, scaled=scales_sound(folder))
    model = AuditedModel(
        of_logits(predict) if kind == "logits" else predict,
        classes=named_classes(_labels(settings), spec),
        threshold=0.5 if spec.threshold is None else spec.threshold,
        preprocessing=wanted,
        batch_rows=1 if shape[0] == 1 else _BATCH,
        provenance=Provenance(
            path=path,
            sha256=digest if graph is None else source.sha256,
            format=ONNX_FORMAT,
            loaded_by=opened.loaded_by,
            size_bytes=folder.size_bytes if graph is None else len(source.data),
            notes=(*opened.notes, *notes),
        ),
    )
    model.said = Said(classes=spec.classes, outputs=spec.outputs)
    return model


def _shape_and_kind(session: Any, name: str, spec: ModelSpec) -> tuple[list[object], str]:
    """The shape of the one input, and what the one output is."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape = list(inputs[0].shape) if len(inputs) == 1 else []
    fixed = shape and isinstance(shape[0], int) and shape[0] != 1
    if len(outputs) != 1 or len(shape) not in (2, 4) or inputs[0].type != "tensor(float)" or fixed:
        takes = f"{inputs[0].type} of shape {printable(shape, 60)}" if len(inputs) == 1 else f"{len(inputs)} inputs"
        raise UnsupportedError(
            f"{name!r} takes {takes} and gives {len(outputs)} outputs; a classifier of media takes pictures "
            "(n, 3, height, width) or sound (n, samples) as float32 and gives one: wrap it in a function of yours."
        )
    kind = spec.outputs or ("logits" if outputs[0].name == "logits" else None)
    if kind is None:
        raise UsageError(
            f"{name!r} does not say what its output {printable(outputs[0].name, 40)!r} is: add --outputs logits or "
            "--outputs probabilities."
        )
    return shape, kind


def _input_preprocessing(
    folder: Folder, settings: Mapping[str, Any], shape: Sequence[object], name: str
) -> tuple[ImagePreprocessing | AudioPreprocessing, tuple[str, ...]]:
    """How a file becomes its input, and notes. ModelError where nothing says it, or the graph takes something else."""
    if not folder.has(PREPROCESSOR):
        raise ModelError(
            f"Beside {name!r} lies no {PREPROCESSOR}, without which its input's size and scale are a guess: put there "
            "the one that the model was exported with.",
            code="AUD-LOAD-INCOMPLETE",
        )
    wanted: ImagePreprocessing | AudioPreprocessing
    if len(shape) == 4:
        wanted, notes = image_preprocessing(folder, settings)
        expected: list[int] = [len(wanted.mean), *wanted.size]
    else:
        wanted, notes = sound_preprocessing(folder, shape[1] if isinstance(shape[1], int) else None), ()
        expected = [wanted.samples]
    if any(isinstance(n, int) and n != m for n, m in zip(shape[1:], expected, strict=True)):
        raise ModelError(
            f"{name!r} takes an input of shape {printable(list(shape), 60)}, and its {PREPROCESSOR} says "
            f"{printable(expected, 60)} for one file.",
            code="AUD-LOAD-WEIGHTS",
        )
    return wanted, notes


def _predictor(
    session: Any, preprocessing: ImagePreprocessing | AudioPreprocessing, name: str, *, scaled: bool
) -> Callable[[Rows], npt.ArrayLike]:
    """The graph as a function of rows; ``scaled``: whether each recording is brought to mean 0 and variance 1."""
    given, output = session.get_inputs()[0].name, session.get_outputs()[0].name

    def predict(X: Rows) -> npt.ArrayLike:
        assert isinstance(X, np.ndarray)
        x = preprocessing.encode(X)
        if isinstance(preprocessing, AudioPreprocessing) and scaled:
            x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + _QUIET)
        try:
            found = np.asarray(session.run([output], {given: x.astype(np.float32)})[0])
        except Exception as error:  # whatever onnxruntime raises on an input it cannot use
            raise ModelError(f"{name!r} refused the data: {printable(error, 300)}", code="AUD-LOAD-ANSWERS") from None
        return found.reshape(len(found), -1)

    return predict


def _digest(folder: Folder, graph: str) -> str:
    """Of the graph, whatever its file is called, and of what was read beside it."""
    beside = [f"{folder.read(name).sha256}  {name}\n" for name in (CONFIG, PREPROCESSOR) if folder.has(name)]
    return hashlib.sha256("".join([f"{graph}  {ONNX_FILE}\n", *beside]).encode()).hexdigest()


def _labels(settings: Mapping[str, Any]) -> list[str] | None:
    labels = settings.get("id2label")
    if not isinstance(labels, dict) or sorted(labels) != sorted(str(i) for i in range(len(labels))):
        return None
    return [str(labels[str(i)]) for i in range(len(labels))]
