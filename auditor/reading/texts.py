"""Where the texts stand in a file that is of texts, and what a reader should know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from auditor.errors import DataError
from auditor.intake.specs import DataSpec
from auditor.reading.lines import TEXT
from auditor.reading.tables import TableFile

if TYPE_CHECKING:
    from auditor.model.audited_model import AuditedModel


def text_column(columns: Sequence[str]) -> str | None:
    """The column of the texts: the one called so, or the only one there is."""
    return TEXT if TEXT in columns else columns[0] if len(columns) == 1 else None


def of_texts(spec: DataSpec, file: TableFile, model: AuditedModel) -> DataSpec:
    """What is asked of a file, with the column of its texts where the file or the model is of texts alone.

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
    """What a reader should know of a file's texts."""
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
