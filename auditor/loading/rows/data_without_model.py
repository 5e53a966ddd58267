"""Data audited without a model: recorded answers of a model, or rows before there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from auditor.core.errors import UsageError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import label_name
from auditor.loading.job_specs import DataSpec, ModelSpec, RecordedSpec
from auditor.loading.rows.column_roles import id_like
from auditor.loading.rows.load_rows import load_data
from auditor.loading.rows.score_columns import score_columns
from auditor.loading.rows.table_files import TableFile, open_table
from auditor.models.audited_model import AuditedModel, Provenance
from auditor.models.format_names import NO_MODEL
from auditor.models.recorded_model import NoModel, RecordedClassifier, RecordedRegressor, RecordedWriter

PROVENANCE = Provenance(
    format="recorded predictions",
    loaded_by="pyarrow",
    notes=(
        "No model was asked: its answers were read from the data file, and that they are this model's is the word of "
        "whoever wrote it.",
    ),
)
_NO_MODEL = Provenance(
    format=NO_MODEL,
    loaded_by="nothing",
    notes=("There is no model yet: the rows are audited alone, and no number is about a model.",),
)
# More kinds of answers than that are numbers, or text.
_MOST_CLASSES = 100
_IMPLIED = (("0", "1"), ("False", "True"))


def load_recorded(model: ModelSpec, spec: DataSpec) -> tuple[AuditedModel, AuditData]:
    """The model that the answers in the data files are of, and the rows with them; :class:`NoModel` without answers.

    Raises UsageError for a column that is not there or a flag that is missing, DataError for answers that are none.
    """
    asked = spec.recorded or RecordedSpec()
    if asked == RecordedSpec():
        return _rows_alone(model, spec)
    file = open_table(spec.path, "predictions file")
    scores = score_columns(asked, file)
    answers = (*scores.values(), asked.predicted, asked.loss, asked.generated)
    own = [name for name in (*answers, spec.target) if name is not None]
    file.require([*own, *(spec.sensitive if spec.sensitive_file is None else ())])
    features, notes = _features(file, spec, own)
    audited: AuditedModel
    if asked.generated is not None:
        audited = RecordedWriter(provenance=PROVENANCE)
    elif model.task == "regression":
        audited = RecordedRegressor(features=features, provenance=PROVENANCE)
    else:
        audited = RecordedClassifier(
            classes=_classes(model, spec, asked, scores, file),
            features=features,
            threshold=0.5 if model.threshold is None else model.threshold,
            provenance=PROVENANCE,
        )
    data = load_data(replace(spec, features=None if spec.text else tuple(features)), audited)
    if audited.kind == "classifier" and not audited.classes and data.y_true is None:
        # Losses alone: whose they are matters to no one, but a row without a label takes no part.
        data = replace(data, y_true=np.zeros(len(data), np.int64))
    return audited, replace(data, notes=(*data.notes, *notes))


def _rows_alone(model: ModelSpec, spec: DataSpec) -> tuple[AuditedModel, AuditData]:
    """The rows, training rows among them if ``spec.train`` names any, in the place of a model :class:`NoModel`.

    Raises UsageError for a column that is not there, and for a target that is no class.
    """
    spec = replace(spec, recorded=None)
    files = [open_table(path, "data file") for path in (spec.path, spec.train) if path is not None]
    for file in files:
        file.require([*filter(None, [spec.target]), *(spec.sensitive if spec.sensitive_file is None else ())])
    features, notes = _features(files[0], spec, [spec.target] if spec.target else [], with_sensitive=True)
    classes = _classes_in(model, spec, files) if spec.target is not None else ()
    placed = NoModel(classes=classes, features=features, provenance=_NO_MODEL)
    data = load_data(replace(spec, features=None if spec.text else tuple(features)), placed)
    return placed, replace(data, notes=(*data.notes, *notes))


def _classes_in(model: ModelSpec, spec: DataSpec, files: Sequence[TableFile]) -> tuple[str, ...]:
    named = model.classes or spec.classes
    if named is not None:
        return tuple(map(label_name, named))
    target = str(spec.target)
    seen = set().union(*(_labels(file, [target], "leave --target out, or bin it into classes") for file in files))
    if len(seen) < 2:
        raise UsageError(f"Column {target!r} holds fewer than two labels: name the classes with --classes a,b.")
    return next((implied for implied in _IMPLIED if seen <= set(implied)), tuple(sorted(seen, key=_natural)))


def _features(
    file: TableFile, spec: DataSpec, answer_columns: Sequence[str], *, with_sensitive: bool = False
) -> tuple[list[str], list[str]]:
    """The columns beside the answers: --features, else all that are nothing else and do not name rows."""
    if spec.text is not None:
        return [], []
    if spec.features is not None:
        return list(spec.features), []
    taken = {*answer_columns, *(() if with_sensitive else spec.sensitive), spec.join_on, spec.cluster, spec.weight}
    others = [name for name in file.columns if name not in taken]
    ids = id_like(file.read(others, {}).to_pandas()) if others else []
    notes = [f"Columns that name rows were left out of the features: {', '.join(ids)}."] if ids else []
    return [name for name in others if name not in ids], notes


def _classes(
    model: ModelSpec, spec: DataSpec, answer_spec: RecordedSpec, scores: dict[str, str], file: TableFile
) -> tuple[str, ...]:
    """The classes in the order of the scores; of two the favourable one stands last unless --classes says otherwise."""
    if model.classes is not None:
        named = tuple(label_name(c) for c in model.classes)
        if "" not in scores and scores and set(named) != set(scores):
            raise UsageError(f"--classes and --score name different classes: {', '.join(scores)} have a score.")
        return named
    if scores and "" not in scores:
        return tuple(scores)
    columns = [name for name in (spec.target, answer_spec.predicted) if name is not None]
    if not columns and not scores:
        return ()
    seen = _labels(file, columns)
    positive = None if spec.positive is None else label_name(spec.positive)
    for implied in _IMPLIED:
        if seen <= set(implied) and positive in (None, *implied):
            return implied
    if positive is not None and len(seen | {positive}) == 2:
        return (*(seen - {positive}), positive)
    if len(seen) < 2:
        raise UsageError(f"{file.path.name} holds fewer than two labels: name the classes with --classes a,b.")
    if len(seen) > 2 and scores:
        raise UsageError(
            f"One score a row decides between 2 classes, and {file.path.name} has {len(seen)} "
            f"({', '.join(sorted(seen)[:6])}): give --score class=column for each of them."
        )
    return tuple(sorted(seen, key=_natural))


def _labels(file: TableFile, columns: Sequence[str], remedy: str = "add --task regression") -> set[str]:
    found: set[str] = set()
    for name in columns:
        values = file.read([name], {name: pa.string()}).column(name).unique().drop_null().to_pylist()
        found |= {label_name(value) for value in values}
        if len(found) > _MOST_CLASSES:
            raise UsageError(
                f"Column {name!r} of {file.path.name} has more than {_MOST_CLASSES} different values: if they are "
                f"numbers that are predicted, {remedy}."
            )
    return found


def _natural(name: str) -> tuple[int, float, str]:
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name
