"""Refusal of new models with one decision for everybody if the old model had several, despite closed gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from auditor.core.errors import ModelError

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

_AT_ONCE = 4096


def refuse_one_class(new: AuditedModel, old: AuditedModel, data: AuditData, *, instead: str) -> None:
    """Raise ModelError if ``new`` decides one class for all rows of ``data`` and ``old`` does not.

    instead: what the user can do about it, as an imperative such as ``lower weight``.
    """
    only = only_class(new, data)
    if only is None or only_class(old, data) is not None:
        return
    raise ModelError(
        f"The new model decides {new.classes[only]!r} for all {len(data):,} training rows, and the old one does not: a "
        f"model that answers everybody alike is of no use, so none is made; {instead}."
    )


def only_class(model: AuditedModel, data: AuditData) -> int | None:
    """The class that the model decides for every row of ``data``; None if there are two, or no rows."""
    seen: set[int] = set()
    for start in range(0, len(data), _AT_ONCE):
        part = data.take(slice(start, start + _AT_ONCE))
        decided = model.decide_rows(part.X, model.predict_proba(part.X), part.positive)
        seen |= set(np.unique(decided).tolist())
        # Most models are known by their first rows, and a large network is asked about no more of them.
        if len(seen) > 1:
            return None
    return seen.pop() if seen else None
