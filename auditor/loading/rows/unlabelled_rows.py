"""Unlabelled rows in the format of other rows: a table with the same columns, or a folder of media."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from auditor.core.errors import DataError, UsageError
from auditor.core.rows import Rows
from auditor.loading.job_specs import DataSpec
from auditor.loading.rows.load_rows import load_one
from auditor.loading.rows.table_files import open_table, text_column

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel


def read_unlabelled(path: str, model: AuditedModel, like: AuditData, column: str | None = None) -> Rows:
    """The rows of a file, or the media of a folder and all folders in it, as the model takes them.

    ``like``: rows of the same kind. ``column``: that of the texts, where a table has several. Raises UsageError where
    there is no such column, DataError for what cannot be used.
    """
    where = Path(path)
    media = like.modality in ("image", "audio")
    if media != where.is_dir():
        wanted = "a folder of files" if media else "a table"
        raise DataError(f"{where.name!r} must be {wanted}, as the rows are.", code="AUD-DATA-FORMAT")
    if media:
        from auditor.loading.rows.folders import files_in
        from auditor.loading.rows.media_files import read_files

        return read_files(where, files_in(where), model).X
    text, features = None, None
    if like.modality == "text":
        columns = open_table(path).columns
        text = column or text_column(columns)
        if text is None:
            raise UsageError(
                f"{where.name} has the columns {', '.join(columns[:8])}: say which of them holds the texts, with "
                "--text COLUMN or --set out_of_distribution.column=COLUMN."
            )
    elif isinstance(like.X, pd.DataFrame):
        features = tuple(map(str, like.X.columns))
    spec = DataSpec(path=path, features=features, text=text, copies_are_real=True)
    X = load_one(spec, path, model, model.classes).X
    return X.to_numpy() if isinstance(X, pd.DataFrame) and not isinstance(like.X, pd.DataFrame) else X
