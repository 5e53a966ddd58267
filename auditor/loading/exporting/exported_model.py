"""The export of a model: the file's bytes, and a check that it decides every row as the model does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from auditor.core.errors import ModelError, UnsupportedError, UsageError
from auditor.core.rows import FloatArray
from auditor.data.coded_columns import CODED, CodedColumns
from auditor.loading.exporting.onnx_file import onnx_bytes, output_names
from auditor.loading.exporting.served_table import Served, ServedTable, served_parts
from auditor.loading.exporting.sklearn_pipeline import as_taken, skops_bytes
from auditor.loading.exporting.torch_program import torch_bytes
from auditor.models.audited_model import BATCH_ROWS, AuditedModel
from auditor.models.files.onnx_graphs import Graph, libraries, session_of

if TYPE_CHECKING:
    import pandas as pd

To = Literal["onnx", "torch", "sklearn"]
SUFFIXES: dict[To, str] = {"onnx": ".onnx", "torch": ".pt2", "sklearn": ".skops"}
# Labels (n,) and probabilities (n, classes) in the order of the model's classes.
_Answers = tuple[npt.NDArray[Any], FloatArray]
_Asked = Callable[["pd.DataFrame"], _Answers]


@dataclass(frozen=True)
class Equality:
    """The comparison of both models on the same rows: number of rows, rows with different decisions (0-based), and the
    largest difference of a class probability."""

    rows: int
    differing: tuple[int, ...]
    largest_difference: float


@dataclass(frozen=True)
class Export:
    """A model as one exported file, not tested yet."""

    model: AuditedModel
    to: To
    table: Served
    content: bytes

    def equality(self, rows: pd.DataFrame) -> Equality:
        """Read the file back and compare both models on the rows.

        Raises ModelError where one of them cannot be asked.
        """
        probabilities = self.model.predict_proba(rows)
        decided = self.model.decide_rows(rows, probabilities, self.table.positive)
        expected = np.asarray(self.table.classes, object)[decided]
        ask = _ASK[self.to](self.content, self.table)
        differing: list[int] = []
        largest = 0.0
        for start in range(0, len(rows), BATCH_ROWS):
            part = slice(start, start + BATCH_ROWS)
            try:
                labels, found = ask(rows.iloc[part])
            except ModelError:
                raise
            except Exception as error:  # of another library, about a file of ours
                raise ModelError(f"The exported file cannot be asked about these rows: {str(error)[:300]}") from error
            differing += (start + np.flatnonzero(labels != expected[part])).tolist()
            # A probability that is no number is as far off as can be.
            away = np.nan_to_num(np.abs(found - probabilities[part]), nan=1.0)
            largest = max(largest, float(away.max(initial=0.0)))
        return Equality(len(rows), tuple(differing), largest)


def export_of(model: AuditedModel, target: To, *, positive: int | None) -> Export:
    """The model as one file; ``positive``: index of the favourable class of two.

    Raises UnsupportedError for what cannot be exported so, UsageError where a threshold is of nobody knows which class,
    MissingExtraError without onnx.
    """
    table = served_parts(model, positive)
    decides_itself = table.rule is not None and table.rule.decides
    if positive is None and len(table.classes) == 2 and table.threshold != 0.5 and not decides_itself:
        raise UsageError(
            f"The model holds the probability of the favourable label against {table.threshold:g}: add --positive "
            f"{table.classes[0]} or --positive {table.classes[1]} to say which that is."
        )
    if target == "onnx":
        return Export(model, target, table, onnx_bytes(table))
    if not isinstance(table, ServedTable):
        raise UnsupportedError(
            "An ONNX model, an estimator or boosted trees become one file with their group rule: use --to onnx."
        )
    return Export(model, target, table, torch_bytes(table) if target == "torch" else skops_bytes(table))


def _onnx(content: bytes, table: Served) -> _Asked:
    label, probabilities = output_names(table.columns)
    graph = Graph(session_of(libraries()[1], content), "the exported file")

    def ask(rows: pd.DataFrame) -> _Answers:
        found = [graph.run(rows, table.columns, name) for name in (label, probabilities)]
        return np.asarray(found[0], object), np.asarray(found[1], np.float64)

    return ask


def _torch(content: bytes, table: Served) -> _Asked:
    import torch

    extra = {CODED: ""}
    module = torch.export.load(BytesIO(content), extra_files=extra).module()
    coded = CodedColumns.model_validate_json(extra[CODED])

    def ask(rows: pd.DataFrame) -> _Answers:
        found, places = module(torch.from_numpy(coded.encode(rows)))
        return np.asarray(coded.classes, object)[places.cpu().numpy()], found.cpu().numpy()

    return ask


def _sklearn(content: bytes, table: Served) -> _Asked:
    import skops.io

    assert isinstance(table, ServedTable)
    # Every type in it was put there by this process a moment ago.
    model = skops.io.loads(content, trusted=skops.io.get_untrusted_types(data=content))
    order = [model.classes_.tolist().index(name) for name in table.classes]

    def ask(rows: pd.DataFrame) -> _Answers:
        taken = as_taken(rows, table.preprocessing)
        return np.asarray(model.predict(taken), object), np.asarray(model.predict_proba(taken))[:, order]

    return ask


_ASK: dict[To, Callable[[bytes, Served], _Asked]] = {"onnx": _onnx, "torch": _torch, "sklearn": _sklearn}
