"""Values that are new to a model: counted, and the rows that its own encoders refuse for them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from auditor.core.errors import DataError
from auditor.core.rows import BoolArray
from auditor.data.preprocessing import CategoricalColumn, TabularPreprocessing, label_name
from auditor.models.audited_model import AuditedModel
from auditor.models.files.model_bytes import convert_parser_errors, printable

_MOST_REFUSED = 0.5


@dataclass
class _Column:
    """A column that an encoder is given as it is in the rows, and what was counted of its values.

    ``refusing``: the encoder that answers no row with a new value, or "". ``alike``: whether a new value reads like a
    known one, such as True and 'True'.
    """

    name: str
    known: dict[Any, None]
    knows: Callable[[Any], bool]
    refusing: str
    total: int = 0
    new: int = 0
    first: Any = None
    alike: bool = False

    def add(self, values: pd.Series[Any]) -> BoolArray | None:
        """Count values; (n,) which are new, where any is."""
        counts = values.value_counts()
        new = counts[[not self.knows(value) for value in counts.index]]
        self.total += int(counts.sum())
        if new.empty:
            return None
        if not self.new:
            self.first = new.index[:1].tolist()[0]
        self.new += int(new.sum())
        self.alike = self.alike or bool({*map(label_name, new.index)} & {*map(label_name, self.known)})
        return values.isin(new.index.tolist()).to_numpy(bool)

    def description(self, file: str) -> str:
        """How many values are new, and what becomes of them. Raises DataError where that is no audit of this model."""
        here, there = (printable(repr(value), 40) for value in (self.first, next(iter(self.known), None)))
        said = f"Column {self.name!r} of {file}: {self.new:,} of {self.total:,} values are new to the model, "
        if self.refusing:
            said += f"such as {here}, and its {self.refusing} refuses them wherever it runs"
            if self.new > _MOST_REFUSED * self.total:
                raise DataError(
                    f"{said}: check that they are spelled as in training (there {there}), or fit it with another "
                    "handle_unknown.",
                    code="AUD-DATA-VALUES",
                )
            return f"{said}: these rows are not answered and are in no number here"
        half = 2 * self.new >= self.total
        asked = f": check that they are spelled as in training (here {here}, there {there})"
        said += f"which takes them all for an unknown one{asked if half else f', such as {here}'}"
        if self.new == self.total and self.alike:
            raise DataError(f"{said}, or audit it with --predict.", code="AUD-DATA-VALUES")
        return said


class NewValues:
    """Values that are new to a model's encoders or trees, part by part.

    ``refused``: a sentence on each row of ``file`` that an encoder refuses, of ``n_refused`` the first ``most``.
    """

    def __init__(self, model: AuditedModel, file: str, most: int = sys.maxsize) -> None:
        self._model, self._file, self._most = model, file, most
        self._columns: list[_Column] | None = None
        self._rows = 0
        self.refused: list[str] = []
        self.n_refused = 0

    def add(self, X: object) -> BoolArray | None:
        """Count the values of rows; (n,) which rows the model answers, or None where it answers all."""
        if not isinstance(X, pd.DataFrame):
            return None
        if self._columns is None:
            self._columns = list(_columns_of(self._model, X))
        refused = np.zeros(len(X), np.bool_)
        for column in self._columns:
            new = column.add(X[column.name])
            if new is not None and column.refusing:
                for i in np.flatnonzero(new & ~refused)[: self._most - len(self.refused)]:
                    value = printable(repr(X[column.name].iloc[i]), 40)
                    self.refused.append(f"Row {self._rows + int(i) + 1:,} of {self._file}: {column.name} is {value}.")
                refused |= new
        self._rows += len(X)
        self.n_refused += int(refused.sum())
        return ~refused if refused.any() else None

    def notes(self) -> list[str]:
        """Notes on the columns with new values.

        Raises DataError for an encoder that refuses most of them, and for a column of which all values are new and some
        read like a known one, such as True and 'True'.
        """
        return list(dict.fromkeys(f"{column.description(self._file)}." for column in self._columns or () if column.new))


def _reads_like(known: Mapping[Any, None], value: object) -> bool:
    return label_name(value) in known


def _columns_of(model: AuditedModel, X: pd.DataFrame) -> Iterator[_Column]:
    """The columns of which it is known what values a model has learned."""
    if isinstance(model.preprocessing, TabularPreprocessing):
        for each in model.preprocessing.columns:
            if isinstance(each, CategoricalColumn) and each.name in X.columns:
                known: dict[Any, None] = dict.fromkeys(map(label_name, each.levels))
                yield _Column(each.name, known, partial(_reads_like, known), "")
        return
    estimator = getattr(model, "estimator", None)
    if estimator is None:
        return
    from auditor.loading.estimators import learned_levels

    with convert_parser_errors("The model's encoders cannot be read"):
        encoded = list(learned_levels(estimator, list(map(str, X.columns))))
    for encoder, name, levels in encoded:
        if name not in X.columns:
            continue
        known = dict.fromkeys(levels.tolist())
        own = getattr(encoder, "knows", None)
        refuses = getattr(encoder, "handle_unknown", "ignore") == "error"
        yield _Column(
            name,
            known,
            known.__contains__ if own is None else partial(own, name),
            type(encoder).__name__ if refuses else "",
        )
