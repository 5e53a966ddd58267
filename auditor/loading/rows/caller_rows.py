"""Rows that a caller holds in Python: pandas, polars, Arrow, NumPy, torch and lists, and back into the same form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from auditor.core.errors import DataError, UsageError, did_you_mean, first_line
from auditor.core.rows import Rows
from auditor.data.audit_data import AuditData, check_order
from auditor.loading.job_specs import DataSpec
from auditor.loading.rows.load_rows import load_data, overlap_note
from auditor.models.audited_model import AuditedModel

# The name of a column in the file that labels, texts and groups without a name of their own are checked in.
_LABEL, _TEXT, _GROUP = "y", "text", "sensitive_feature"


@dataclass(frozen=True, eq=False)
class CallerRows:
    """The rows as this toolkit holds them, and ``as_given``: rows of this kind in the form that the caller uses."""

    rows: Rows
    as_given: Callable[[Rows], Any]
    given: Any

    def as_pandas(self) -> Self | None:
        """The same table as pandas holds it; None of what is none of another library."""
        return type(self).from_object(self.given.to_pandas()) if hasattr(self.given, "to_pandas") else None

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of a table's columns; none of anything else."""
        return tuple(self.rows.columns) if isinstance(self.rows, pd.DataFrame) else ()

    def select(self, names: Sequence[str]) -> CallerRows:
        """A table with these of its columns alone, in this order."""
        if tuple(names) == self.columns:
            return self
        own = dict(zip(self.columns, getattr(self.given, "columns", ()), strict=True))
        if not isinstance(self.given, pd.DataFrame):
            return CallerRows.from_object(self.given.select(list(names)))
        return CallerRows.from_object(self.given[[own[name] for name in names]])

    @classmethod
    def from_object(cls, X: Any) -> Self:
        """The rows of a table, an array or a sequence of texts. Raises UsageError for anything else."""
        library = type(X).__module__.partition(".")[0]
        if hasattr(X, "toarray"):
            raise UsageError("The rows are a sparse matrix: pass X.toarray().")
        if library == "torch":
            X = X.detach().cpu().numpy()
        if isinstance(X, pd.DataFrame):
            return cls._of_frame(X)
        if library == "polars" and hasattr(X, "to_pandas") and hasattr(X, "columns"):
            return cls._of_table(X, lambda table: type(X)(table).cast(dict(X.schema)), X.equals)
        if library == "pyarrow" and hasattr(X, "schema"):
            own = type(X)
            return cls._of_table(
                X, lambda table: own.from_pandas(table, schema=X.schema, preserve_index=False), X.equals
            )
        return cls._of_array(X)

    @classmethod
    def _of_frame(cls, X: pd.DataFrame) -> Self:
        names = [str(name) for name in X.columns]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"The rows have two columns named {twice!r}: rename one.", code="AUD-DATA-COLUMN")
        kinds = dict(zip(names, X.dtypes, strict=True))

        def as_given(rows: Rows) -> Any:
            assert isinstance(rows, pd.DataFrame)
            if list(rows.columns) == names and all(a == b for a, b in zip(rows.dtypes, X.dtypes, strict=True)):
                return rows.set_axis(X.columns, axis=1).copy()
            own = {name: _as_type(rows[name], kind) for name, kind in kinds.items()}
            return pd.DataFrame(own, index=rows.index).set_axis(X.columns, axis=1)

        return cls(X.set_axis(names, axis=1).reset_index(drop=True), as_given, X)

    @classmethod
    def _of_table(cls, X: Any, back: Callable[[pd.DataFrame], Any], equals: Callable[[Any], bool]) -> Self:
        """A table of another library. Raises DataError where pandas cannot hold its values as they are."""
        held = cls._of_frame(X.to_pandas())
        try:
            same = equals(back(held.as_given(held.rows)))
        except Exception:  # each library has exceptions of its own for a value that it cannot take back
            same = False
        if not same:
            raise DataError(
                "The rows hold values that a table of pandas cannot hold as they are: pass X.to_pandas().",
                code="AUD-DATA-VALUES",
            )
        return cls(held.rows, lambda rows: back(held.as_given(rows)), X)

    @classmethod
    def _of_array(cls, X: Any) -> Self:
        if isinstance(X, str | bytes | Mapping) or not hasattr(X, "__len__"):
            raise UsageError(
                "Rows are a table of pandas, polars or Arrow, an array, a list of texts, a path or auditor.AuditData, "
                f"and this is a {type(X).__name__}."
            )
        values = X.to_numpy() if isinstance(X, pd.Series) else np.asarray(X)
        if values.ndim == 1 and values.dtype.kind in "OUT":
            back = type(X) if isinstance(X, list | tuple | pd.Series) else np.asarray
            return cls(values.astype(object), back, X)
        if values.ndim != 2:
            return cls(values, lambda rows: rows, X)
        frame = pd.DataFrame(values, columns=[f"x{i}" for i in range(values.shape[1])])
        # A number that a probe has moved is no whole one any more.
        kind = values.dtype if values.dtype.kind not in "iub" else None
        return cls(frame, lambda rows: np.array(rows, kind), frame)


def _as_type(values: pd.Series[Any], kind: Any) -> pd.Series[Any]:
    """A column in the type that the caller's has, but where a probe has put in what that type cannot hold."""
    if values.dtype == kind or getattr(kind, "kind", "O") in "iub":
        return values
    try:
        return values.astype(kind)
    except (TypeError, ValueError):
        return values


def data_in_memory(
    rows: CallerRows,
    features: Sequence[str],
    y: Any,
    groups: pd.DataFrame | None,
    model: AuditedModel,
    spec: DataSpec,
    folder: Path,
) -> AuditData:
    """Audit data of rows, labels and groups in memory, checked as those of a file are.

    ``features``: the columns of a table that the model takes; the others may be named by ``spec``, whose paths are not
    used. ``groups``: as :func:`group_columns` returns them. ``folder``: for the file that is checked. Raises what
    :func:`auditor.loading.rows.load_rows.load_data` raises.
    """
    tabular = isinstance(rows.rows, pd.DataFrame)
    table = rows.rows.copy(deep=False) if isinstance(rows.rows, pd.DataFrame) else pd.DataFrame({_TEXT: rows.rows})
    X = table[list(features)] if tabular else rows.rows
    check_order(rows.given, {"y": y, "sensitive_features": groups})
    roles = {} if groups is None else {str(name): groups[name].reset_index(drop=True) for name in groups.columns}
    target = spec.target
    if y is not None:
        target = next(name for name in (_name_of(y), _LABEL, f"{_LABEL}_true") if name and name not in roles)
        roles[target] = pd.Series(y.tolist() if hasattr(y, "tolist") else list(y))
    for name, values in roles.items():
        if len(values) != len(table):
            raise DataError(
                f"There are {len(table):,} rows, and {len(values):,} values of {name!r}.", code="AUD-DATA-COLUMN"
            )
    # A feature and a group of one name may be spelled otherwise, as 0 and "male": the file has room for both.
    renamed = {name: f"{name} (feature)" for name in features if name in roles}
    table = table.rename(columns=renamed).assign(**roles)
    checked = replace(
        spec,
        path=written(table, folder / "rows.parquet"),
        target=target,
        sensitive=() if groups is None else tuple(map(str, groups.columns)),
        features=tuple(renamed.get(name, name) for name in features) if tabular else None,
        text=None if tabular else _TEXT,
    )
    # Labels and groups are read as those of any file; the rows stay what they are.
    return replace(load_data(checked, _answerless(model)), X=X)


def with_training_rows(data: AuditData, members: AuditData) -> AuditData:
    """These rows, and those that the model was trained on."""
    joined = data.with_members(members)
    return replace(joined, notes=(*joined.notes, *overlap_note(data, members)))


def _answerless(model: AuditedModel) -> AuditedModel:
    """A stand-in with the model's classes, since the file's columns are read in types that are not the caller's."""

    def unasked(X: Rows) -> Any:
        raise AssertionError("reading rows asks no model")

    stand_in = AuditedModel(unasked, classes=model.classes)
    stand_in.kind = model.kind
    return stand_in


def _name_of(values: Any) -> str | None:
    name = getattr(values, "name", None)
    return name if isinstance(name, str) and name else None


def group_columns(given: Any, rows: CallerRows) -> pd.DataFrame | None:
    """The columns of groups by name: of a column, a table or a mapping of columns, or of names of the rows' columns.

    Raises UsageError for a column that the rows do not have.
    """
    names = [given] if isinstance(given, str) else given
    of_names = isinstance(names, list | tuple) and bool(names) and all(isinstance(name, str) for name in names)
    if of_names and isinstance(rows.rows, pd.DataFrame) and (isinstance(given, str) or len(names) != len(rows.rows)):
        for name in names:
            if name not in rows.columns:
                raise UsageError(f"The rows have no column {name!r}{did_you_mean(name, rows.columns) or '.'}")
        return rows.rows[list(names)]
    if hasattr(given, "to_pandas"):
        given = given.to_pandas()
    if given is None or isinstance(given, pd.DataFrame):
        return given
    if isinstance(given, Mapping):
        return pd.DataFrame({name: _plain(values) for name, values in given.items()})
    values = np.asarray(given)
    if values.ndim == 2:
        return pd.DataFrame(values, columns=[f"{_GROUP}_{i}" for i in range(values.shape[1])])
    return pd.Series(given).rename(_name_of(given) or _GROUP).to_frame()


def _plain(values: Any) -> pd.Series[Any]:
    return values.reset_index(drop=True) if isinstance(values, pd.Series) else pd.Series(list(values))


def written(table: pd.DataFrame, path: Path) -> str:
    """A table as a file. Raises DataError where a file cannot hold it."""
    # The index is no column of the rows; names of columns are text in a file.
    try:
        table.rename(columns=str).to_parquet(path, index=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"The DataFrame holds what a table in a file cannot: {first_line(error)}.", code="AUD-DATA-FORMAT"
        ) from None
    return str(path)
