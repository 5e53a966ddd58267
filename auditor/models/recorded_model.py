"""Models known only by recorded answers: the answers are read, the model is never called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from auditor.core.errors import NO_SCORES, NotApplicableError
from auditor.core.rows import FloatArray, IntArray, Rows
from auditor.data.audit_data import AuditData
from auditor.data.audit_data_parts import LogSummary, Recorded
from auditor.models.audited_model import AuditedModel, Provenance
from auditor.models.regression_model import AuditedRegressor


def _not_asked(X: Rows) -> NoReturn:
    raise NotApplicableError(
        "Needs a model that can be asked about other rows than these: only its predictions are here. Scan the model."
    )


def _recorded(data: AuditData) -> Recorded:
    if data.recorded is None:
        _not_asked(data.X)
    return data.recorded


class _Unasked(AuditedModel):
    can_be_asked = False

    def __init__(self, *, provenance: Provenance | None = None) -> None:
        super().__init__(_not_asked, classes=(), provenance=provenance)

    def predict_proba(self, X: Rows) -> FloatArray:
        """Raise NotApplicableError."""
        _not_asked(X)


class RecordedWriter(_Unasked):
    """A language model known by its recorded texts."""

    kind = "language_model"
    what = "known by its texts alone"


class RecordedGenerator(_Unasked):
    """A generator of images, sound or video known by its recorded files."""

    kind = "other"
    what = "a generator known by its files alone"


class NoModel(_Unasked):
    """The place of a model where rows are audited before there is one; ``classes``: those of the labels."""

    kind = "other"
    rows_alone = True

    def __init__(self, *, classes: Sequence[object], features: Sequence[str], provenance: Provenance) -> None:
        super().__init__(provenance=provenance)
        self.classes, self.features = tuple(map(str, classes)), tuple(features)


class RecordedEvaluation(_Unasked):
    """A model of any kind known by the log of an evaluation that others ran: its scores are in ``data.recorded``."""

    kind = "other"
    what = "known by the log of its evaluation alone"

    def __init__(self, log: LogSummary, *, provenance: Provenance | None = None) -> None:
        super().__init__(provenance=provenance)
        self.log = log


class RecordedClassifier(AuditedModel):
    """A classifier known by its recorded answers on the rows (``data.recorded``).

    Decisions are the recorded ones, else the threshold's on the recorded scores. What was not recorded, and every
    question about other rows, raises NotApplicableError.
    """

    can_be_asked = False

    def __init__(
        self,
        *,
        classes: Sequence[object],
        features: Sequence[str],
        threshold: float = 0.5,
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__(_not_asked, classes=classes, features=features, threshold=threshold, provenance=provenance)

    def predict_proba(self, X: Rows) -> FloatArray:
        """Raise NotApplicableError."""
        _not_asked(X)

    def outputs(self, data: AuditData) -> FloatArray:
        """(n, n_classes) recorded scores; NotApplicableError if there are none."""
        scores = _recorded(data).scores
        if scores is None:
            raise NotApplicableError(NO_SCORES)
        return scores

    def decisions(self, data: AuditData) -> IntArray:
        """(n,) recorded decisions, or the threshold's on the recorded scores; NotApplicableError without either."""
        recorded = _recorded(data)
        if recorded.decisions is not None:
            return recorded.decisions
        if recorded.scores is None:
            raise NotApplicableError("Needs the model's decisions: add --predicted COLUMN or --score COLUMN.")
        return self.decide(recorded.scores, data.positive)


class RecordedRegressor(AuditedRegressor):
    """A regression model known by its recorded predictions on the rows (``data.recorded``)."""

    can_be_asked = False

    def __init__(self, *, features: Sequence[str], provenance: Provenance | None = None) -> None:
        super().__init__(_not_asked, features=features, provenance=provenance)

    def predict(self, X: Rows) -> FloatArray:
        """Raise NotApplicableError."""
        _not_asked(X)

    def predictions(self, data: AuditData) -> FloatArray:
        """(n,) recorded predictions; NotApplicableError where there are none."""
        numbers = _recorded(data).numbers
        if numbers is None:
            raise NotApplicableError("Needs the model's predictions: add --predicted COLUMN.")
        return numbers
