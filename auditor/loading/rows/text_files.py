"""The text column of a text file, and notes about it for the reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from auditor.core.errors import DataError
from auditor.loading.job_specs import DataSpec
from auditor.loading.rows.table_files import TableFile
from auditor.loading.rows.text_lines import TEXT

if TYPE_CHECKING:
    from auditor.models.audited_model import AuditedModel


def text_column(columns: Sequence[str]) -> str | None:
    """The text column: by its name, or the only column."""
    return TEXT if TEXT in columns else columns[0] if len(columns) == 1 else None


def of_texts(spec: DataSpec, file: TableFile, model: AuditedModel) -> DataSpec:
    """The data options with the text column filled in, if the file or the model is text-only.

    Raises DataError for lines of text where the model takes a table.
    """
    if file.kind == "txt":
        if model.features is not None or model.n_columns is not None:
            raise DataError(
                f"{file.path.name} holds texts, one a line, and this model takes the columns of a table: give it a "
                ".csv, .parquet or .jsonl.",
                code="AUD-DATA-FORMAT",
            )
        return replace(spec, text=TEXT)
    reads = model.kind == "language_model" or getattr(model, "token_name", None) is not None
    said = (spec.text, spec.image, spec.features, spec.recorded)
    if not reads or any(what is not None for what in said):
        return spec
    return replace(spec, text=text_column(file.columns))


def on_texts(file: TableFile, frame: pd.DataFrame, spec: DataSpec) -> list[str]:
    """Notes on a file's texts."""
    if spec.text is None:
        return []
    none = int(frame[spec.text].isna().sum())
    notes = (
        [f"{none:,} of {len(frame):,} rows of {file.path.name} have no text and count as empty ones."] if none else []
    )
    if file.kind == "txt" and file.looks_wrapped():
        notes.append(
            f"{file.path.name} looks like prose that was wrapped, and every line is a text: give texts of several "
            f'lines as .jsonl, one {{"{TEXT}": "..."}} a line.'
        )
    return notes
