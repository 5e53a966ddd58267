"""A trade-off report enclosed with a record, as evidence of a search for less discriminatory alternatives."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from auditor.core.errors import DataError, UsageError
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.controls import Beside

_MOST_BYTES = 32 << 20
_SHOWN = "less discriminatory alternative"
_MOST_NAMED = 5


class _Model(BaseModel):
    sha256: str | None = None


class _Point(BaseModel):
    name: Annotated[str, Field(max_length=1_000)]
    verdict: Annotated[str, Field(max_length=200)]


class _Given(BaseModel):
    """What is read of ``tradeoff.json``; the rest of it is for its own page."""

    tradeoff_version: str
    made_by: Annotated[str, Field(max_length=1_000)]
    model: _Model
    data: _Model
    metric: Annotated[str, Field(max_length=200)]
    disparity: Annotated[str, Field(max_length=200)]
    tolerance: float
    points: tuple[_Point, ...]


def tradeoff_beside(path: Path, report: AuditReport) -> Beside:
    """The evidence in the ``tradeoff.json`` of ``auditor tradeoff`` about the model of a record.

    It is evidence of a search where it is of the same model, by SHA-256, and at least one other model was made; the
    file is named by its own digest. Raises UsageError where there is no such file, DataError where it is no trade-off.
    """
    content = _read_file(path)
    try:
        found = _Given.model_validate_json(content)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the file"
        raise DataError(
            f"{path.name!r} is no trade-off ({where}: {error.errors()[0]['msg']}): give the tradeoff.json that auditor "
            "tradeoff writes."
        ) from None
    if report.model.sha256 is None or found.model.sha256 != report.model.sha256:
        return Beside(reason=f"The trade-off in {path.name!r} is of another model than this record.")
    # The first is the present model; what could not be made was not weighed.
    tried = [p for p in found.points[1:] if p.verdict != "not made"]
    if not tried:
        return Beside(reason=f"The trade-off in {path.name!r} holds no other model.")
    shown = [p.name for p in tried if p.verdict == _SHOWN]
    named = ", ".join(shown[:_MOST_NAMED]) + (f" and {len(shown) - _MOST_NAMED} more" if shown[_MOST_NAMED:] else "")
    outcome = (
        f"{len(shown)} of them shown to be less discriminatory alternatives, and not the model in use: {named}"
        if shown
        else "none of them shown to be a less discriminatory alternative, which is not to say that there is none"
    )
    rows = "" if found.data.sha256 == report.data.sha256 else " Its rows are others than those of this record."
    digest = hashlib.sha256(content).hexdigest()
    many = f"{len(tried)} other {'model' if len(tried) == 1 else 'models'}"
    return Beside(
        said=f"{many} tried by {found.made_by}, by {found.metric} and {found.disparity}, at a loss of at most "
        f"{found.tolerance:g}: {outcome}.{rows} SHA-256 {digest[:16]}."
    )


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"There is no trade-off at {str(path)!r}: auditor tradeoff writes tradeoff.json.") from None
    except OSError as error:
        raise UsageError(f"The trade-off {str(path)!r} cannot be read: {error.strerror}.") from None
    if len(content) > _MOST_BYTES:
        raise DataError(f"{path.name!r} is too large to be a trade-off.")
    return content
