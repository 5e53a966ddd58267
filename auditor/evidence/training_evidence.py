"""Evidence of a training with interim audits: every look with its measurements, and the plan."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from auditor.core.errors import UsageError
from auditor.core.files import Closed, fields_in
from auditor.core.number_types import PositiveCount
from auditor.evidence.derived_evidence import Derived
from auditor.evidence.manifest import in_order
from auditor.judging.criterion import Criterion
from auditor.judging.measurement import ProbeResult
from auditor.judging.training_looks import LookRecord
from auditor.report.record.audit_report import AuditReport
from auditor.run.while_training.training_record import Last, Looks, judged_look
from auditor.training.interim.interim_look import Peek
from auditor.training.interim.interim_state import Run, SavedLook, Spending

LOOKS = "looks.json"
_MOST = 100_000


class LooksRecord(Closed):
    """A training's looks as plain data: :class:`~auditor.run.while_training.training_record.Looks`, and the last."""

    run: Run
    unit: Literal["epoch", "step"]
    n_peeks: PositiveCount | None
    closing_share: float
    criteria: tuple[Criterion, ...]
    looks: Annotated[tuple[SavedLook, ...], Field(max_length=_MOST)]
    left_out: Annotated[tuple[float, ...], Field(max_length=_MOST)]
    resumed_after: tuple[int, ...]
    spent: Annotated[tuple[LookRecord, ...], Field(max_length=_MOST)]
    faults: str
    costs: str
    results: tuple[ProbeResult, ...]
    place: float | None
    judged: bool
    closing: LookRecord

    @classmethod
    def from_looks(cls, looks: Looks, last: Last, closing_share: float) -> LooksRecord:
        """The record of these looks; UsageError if no closing look was taken."""
        if last.closing is None:
            raise UsageError("The training has not ended: call finish() first, which takes the closing look.")
        peeks = tuple(SavedLook.model_validate(peek, from_attributes=True) for peek in looks.peeks)
        told = {"n_peeks": looks.spending and looks.spending.n_peeks, "closing_share": closing_share, "looks": peeks}
        return cls(**fields_in(cls, looks) | fields_in(cls, last) | told)

    @property
    def spending(self) -> Spending | None:
        """The plan. Raises ValueError where its numbers are none."""
        if self.n_peeks is None:
            return None
        return Spending(n_peeks=self.n_peeks, error_rate=self.run.error_rate, closing_share=self.closing_share)

    def to_looks(self) -> tuple[Looks, Last]:
        """The looks, each judged again."""
        looks = Looks(**fields_in(Looks, self), peeks=tuple(map(self._peek, self.looks)))
        return looks, Last(**fields_in(Last, self))

    def _peek(self, look: SavedLook) -> Peek:
        findings, family = judged_look(
            look.results, self.criteria, look.error_rate, self.run.error_rate, is_judged=look.judged
        )
        return Peek(findings=findings, family=family, **{name: getattr(look, name) for name in SavedLook.model_fields})


def training_evidence(report: AuditReport, looks: LooksRecord) -> Derived:
    """The record of the training, and the looks it is based on."""
    return Derived(
        kind="training",
        record=report.model_dump(mode="json"),
        exit_code=report.exit_code,
        request={"run": looks.run.model_dump(mode="json")},
        parts={LOOKS: in_order(looks.model_dump(mode="json"))},
        about={"model": report.model.subject_sha256, "data": report.data.sha256},
    )
