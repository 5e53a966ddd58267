"""The columns of a table that contain a model's own answers: audited as they are, or to hold a loaded model to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from auditor.core.errors import DataError, ModelError, UsageError, did_you_mean
from auditor.core.rows import BoolArray, FloatArray
from auditor.data.audit_data import AuditData, encode_labels, numeric_target
from auditor.data.audit_data_parts import Recorded
from auditor.data.preprocessing import as_text, label_name
from auditor.loading.job_specs import RecordedSpec
from auditor.loading.rows.table_files import TableFile, open_table

if TYPE_CHECKING:
    from auditor.models.audited_model import AuditedModel

_OFF_ONE = 1e-3
# The columns of a file of predictions: the decision, or the number, and the probability of each class.
PREDICTION, PROBABILITY = "prediction", "probability_"
# Further from a recorded probability than a single-precision number is rounded, or a number in print.
_SAME_PROBABILITY = 1e-6
_ROWS_TOLD = 5


def score_columns(answer_spec: RecordedSpec, file: TableFile) -> dict[str, str]:
    """Class -> column; the one column of the favourable label's scores has the class "".

    Raises UsageError where neither one column is named nor one for each class.
    """
    plain = [name for name in answer_spec.score if name in file.columns or "=" not in name]
    if plain and len(answer_spec.score) > 1:
        raise UsageError(
            f"One scan audits one model: --score {plain[0]} is one column of scores, so scan once for each; the "
            "probabilities of several classes are given as --score class=column, one for each class."
        )
    if plain:
        return {"": plain[0]}
    pairs = [name.partition("=") for name in answer_spec.score]
    found = {label_name(name): column for name, _, column in pairs}
    if answer_spec.score and (len(found) < len(pairs) or len(found) < 2):
        raise UsageError("--score class=column is given once for every class, of which there are at least two.")
    return found


def read_recorded(
    file: TableFile, answer_spec: RecordedSpec, classes: tuple[str, ...], positive: int | None, *, regression: bool
) -> Recorded:
    """The recorded answers of a model with these classes, row by row.

    Raises UsageError for a column that is not there, DataError where a row has no answer, or one that cannot be.
    """
    scores = score_columns(answer_spec, file)
    numeric = [name for name in (*scores.values(), answer_spec.loss) if name is not None]
    types = dict.fromkeys(numeric, pa.float64())
    if answer_spec.generated is not None:
        column = file.read([answer_spec.generated], {answer_spec.generated: pa.string()}).to_pandas()[
            answer_spec.generated
        ]
        _complete(column.isna(), f"Column {answer_spec.generated!r} of {file.path.name}")
        return Recorded(texts=column.to_numpy(object))
    if answer_spec.predicted is not None and not regression:
        types[answer_spec.predicted] = pa.string()
    wanted = list(dict.fromkeys([*numeric, *([answer_spec.predicted] if answer_spec.predicted is not None else [])]))
    frame = file.read(wanted, types).to_pandas()
    decided, said = None, ""
    if answer_spec.predicted is not None:
        column = frame[answer_spec.predicted]
        said = f"Column {answer_spec.predicted!r} of {file.path.name}"
        if regression:
            numbers = numeric_target(column, answer_spec.predicted)
            _complete(np.isnan(numbers), said)
            return Recorded(numbers=numbers, losses=_losses(frame, answer_spec, file))
        decided = encode_labels(column, classes, answer_spec.predicted)
        _complete(decided < 0, said)
    return Recorded(
        scores=_probabilities(frame, scores, classes, positive, file) if scores else None,
        decisions=decided,
        losses=_losses(frame, answer_spec, file),
    )


def _complete(missing: Any, subject: str) -> None:
    n = int(missing.sum())
    if n:
        raise DataError(
            f"{subject} is empty in {n:,} rows: a row without an answer of the model is to be left out.",
            code="AUD-DATA-VALUES",
        )


def _losses(frame: pd.DataFrame, answer_spec: RecordedSpec, file: TableFile) -> FloatArray | None:
    if answer_spec.loss is None:
        return None
    losses = frame[answer_spec.loss].to_numpy(np.float64)
    _complete(~np.isfinite(losses), f"Column {answer_spec.loss!r} of {file.path.name}")
    return losses


def _probabilities(
    frame: pd.DataFrame, scores: dict[str, str], classes: tuple[str, ...], positive: int | None, file: TableFile
) -> FloatArray:
    for column in scores.values():
        values = frame[column].to_numpy(np.float64)
        _complete(~np.isfinite(values), f"Column {column!r} of {file.path.name}")
        if ((values < 0.0) | (values > 1.0)).any():
            raise DataError(
                f"Column {column!r} of {file.path.name} runs from {values.min():g} to {values.max():g}, and a score is "
                "a probability: scale it to [0, 1], or give the decisions that were made with it by "
                "--predicted COLUMN.",
                code="AUD-DATA-VALUES",
            )
    if "" in scores:
        if len(classes) != 2 or positive is None:
            raise UsageError("--score is the probability of the favourable label of two: name it with --positive.")
        own = frame[scores[""]].to_numpy(np.float64)
        return np.column_stack([own, 1.0 - own] if positive == 0 else [1.0 - own, own])
    table = frame[[scores[name] for name in classes]].to_numpy(np.float64)
    off = int((np.abs(table.sum(axis=1) - 1.0) > _OFF_ONE).sum())
    if off:
        raise DataError(
            f"The scores of {off:,} rows of {file.path.name} do not add up to 1: one for every class does.",
            code="AUD-DATA-VALUES",
        )
    return table


def predictions_file(labels: Sequence[object], probabilities: FloatArray, classes: Sequence[str]) -> bytes:
    """A file that ``--check-predictions`` takes: of each row the decision, and (n, k) the probability of each class."""
    columns = {f"{PROBABILITY}{name}": probabilities[:, i] for i, name in enumerate(classes)}
    return pd.DataFrame({PREDICTION: list(labels), **columns}).to_csv(index=False, lineterminator="\n").encode()


# ---- a loaded model held to what its own process answered ------------------------------------------------------------


def hold_to_predictions(where: str, data: AuditData, model: AuditedModel, table: TableFile) -> AuditData:
    """The rows with a note that the model answers them as recorded; ``where``: a file, or a column of ``table``.

    Raises ModelError, with the number of rows and the first of them, where the model answers otherwise; UsageError and
    DataError for a column or a file that holds no such answers.
    """
    beside = Path(where).is_absolute()
    file = open_table(where, "file of predictions") if beside else table
    column = PREDICTION if beside else where
    if column not in file.columns:
        near = did_you_mean(column, file.columns) or "."
        raise UsageError(f"--check-predictions: {file.path.name} has no column {column!r}{near}")
    recorded = read_recorded(
        file, _answers(file, column, model, beside), data.classes, data.positive, regression=model.kind == "regressor"
    )
    n = next(len(each) for each in (recorded.numbers, recorded.decisions, recorded.scores) if each is not None)
    if n != len(data):
        raise DataError(
            f"--check-predictions: {file.path.name} has {n:,} rows, and the data {len(data):,}: give one for each.",
            code="AUD-DATA-VALUES",
        )
    data = replace(data, notes=(*data.notes, f"The model answers all {n:,} rows as {file.path.name} records of it."))
    wrong = _otherwise(recorded, data, model)
    if wrong.any():
        rows = ", ".join(f"{i + 1:,}" for i in np.flatnonzero(wrong)[:_ROWS_TOLD])
        more = ", ..." if wrong.sum() > _ROWS_TOLD else ""
        raise ModelError(
            f"The model answers {int(wrong.sum()):,} of {n:,} rows otherwise than {file.path.name} records of it (rows "
            f"{rows}{more}): this is not the model that runs there, or its rows are prepared otherwise there. Name the "
            "model that runs, or audit its own process with --predict package.module:function.",
            code="AUD-LOAD-ANSWERS",
        )
    return data


def _answers(file: TableFile, column: str, model: AuditedModel, beside: bool) -> RecordedSpec:
    """Which columns hold what: decisions, unless a column of the data holds numbers that are no labels."""
    if model.kind == "regressor":
        return RecordedSpec(predicted=column)
    names = {name: f"{PROBABILITY}{name}" for name in model.classes} if beside else {}
    if not beside:
        values = as_text(file.read([column], {column: pa.string()}).to_pandas()[column]).dropna()
        if not set(map(label_name, values.unique())) <= set(model.classes):
            return RecordedSpec(score=(column,))
    complete = bool(names) and set(names.values()) <= set(file.columns)
    score = tuple(f"{name}={own}" for name, own in names.items()) if complete else ()
    return RecordedSpec(predicted=column, score=score)


def _otherwise(recorded: Recorded, data: AuditData, model: AuditedModel) -> BoolArray:
    """(n,) whether the model answers a row otherwise."""
    from auditor.models.regression_model import AuditedRegressor

    if isinstance(model, AuditedRegressor) and recorded.numbers is not None:
        found = model.predictions(data)
        return ~np.isclose(found, recorded.numbers, rtol=_SAME_PROBABILITY, atol=_SAME_PROBABILITY)
    wrong = np.zeros(len(data), np.bool_)
    if recorded.decisions is not None:
        wrong |= model.decisions(data) != recorded.decisions
    if recorded.scores is not None:
        wrong |= (np.abs(model.outputs(data) - recorded.scores) > _SAME_PROBABILITY).any(axis=1)
    return wrong
