"""A twin of a classifier: the same classes and rows, and answers that somebody made, of which the truth is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from auditor.core.errors import NotApplicableError
from auditor.core.rows import FloatArray, IntArray, Rows
from auditor.data.audit_data import AuditData
from auditor.models.audited_model import AuditedModel


def _not_asked(X: Rows) -> NoReturn:
    raise NotApplicableError("Needs a model that can be asked, and a twin has no answers but on the rows at hand.")


class TwinModel(AuditedModel):
    """A twin of ``model`` on the ``rows``, with (n, n_classes) ``scores`` and (n,) ``decisions`` of its own,
    which follow from the scores where they are not given.

    The model itself is not asked. About all other rows it raises NotApplicableError, where no ``predict`` answers for
    them, (n, n_classes) of any rows.
    """

    def __init__(
        self,
        model: AuditedModel,
        rows: AuditData,
        scores: FloatArray,
        decisions: IntArray | None = None,
        predict: Callable[[Rows], FloatArray] | None = None,
    ) -> None:
        self.can_be_asked = predict is not None
        super().__init__(
            predict or _not_asked,
            classes=model.classes,
            features=model.features,
            threshold=model.threshold,
            threshold_class=getattr(model, "threshold_class", None),
            batch_rows=max(len(rows), 1),
        )
        self._outputs[rows] = scores
        self._decisions[rows] = self.decide(scores, rows.positive) if decisions is None else decisions
