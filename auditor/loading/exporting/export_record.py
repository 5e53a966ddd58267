"""The record of an export: the file, its model, and the equality of their decisions."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from auditor.core.files import Closed

_PACKAGES = ("responsible-auditor", "numpy", "torch", "onnx", "onnxruntime", "scikit-learn", "skops")


class FileRecord(Closed):
    """A file or folder with its name as given, and its digest."""

    path: str
    sha256: str


class ExportRecord(Closed):
    """``NAME.export.json``: the export and the data of its check.

    ``data``, ``rows``, ``differing_decisions``, ``largest_probability_difference``: None where it was not checked.
    ``versions``: of Python and of the packages that wrote and asked it.
    """

    format: Literal["auditor-export/1"] = "auditor-export/1"
    source: FileRecord
    artifact: FileRecord
    to: Literal["onnx", "torch", "sklearn"]
    classes: tuple[str, ...]
    positive: str | None
    data: FileRecord | None
    rows: int | None
    differing_decisions: int | None
    largest_probability_difference: float | None
    versions: dict[str, str]


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that an export needs."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
