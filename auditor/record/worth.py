"""What the model is worth at all, in one line: its performance against whoever answers without looking."""

from __future__ import annotations

from dataclasses import dataclass

from auditor.finding.measurement import Outcome
from auditor.record import text
from auditor.record.audit_report import INTAKE, AuditReport, Finding

_PILLAR = "performance"
# What a reader knows a model by, one number of each kind of model.
_KNOWN_BY = ("accuracy", "mean_absolute_error", "perplexity")


_OF_DECISIONS = ("balanced_accuracy", "adjusted_balanced_accuracy")


@dataclass(frozen=True)
class Worth:
    """``line``: the number that a model is known by, beside that of the base rate; ``skill``: whether it shows any.

    ``outcome``: the colour of it: PASS where skill is shown, INCONCLUSIVE where it is not, FAIL where less than chance
    is, NOT_JUDGED where nobody measured it.
    """

    outcome: Outcome
    line: str
    skill: str

    @property
    def sentence(self) -> str:
        """Both."""
        return f"{self.line} {self.skill}".strip()


def worth_of(report: AuditReport) -> Worth | None:
    """What a report says of performance; None where it says nothing of any model's answers."""
    if report.refusal is not None or not any(f.pillar != INTAKE for f in report.findings):
        return None
    overall = [f for f in report.findings if f.pillar == _PILLAR and not f.group]
    line = next((_line(f) for name in _KNOWN_BY for f in overall if f.metric == name and f.value is not None), "")
    shown = [f for f in overall if f.chance is not None and f.value is not None and f.interval is not None]
    if not shown:
        why = next((f.reason for f in overall if f.reason and f.value is None), "")
        why = why or "Nothing measured it: the probe performance does."
        return Worth(Outcome.NOT_JUDGED, line, f"Whether the model has any skill is not known. {why}")
    skilled = [f for f in shown if f.interval and f.interval[0] is not None and f.interval[0] >= (f.chance or 0.0)]
    first = (skilled or shown)[0]
    numbers = f"{first.metric} {text.value(first)}, {text.interval(first.interval)}; chance is {first.chance:g}"
    of_decisions = [f for f in shown if f.metric in _OF_DECISIONS]
    if skilled and of_decisions and not any(f in skilled for f in of_decisions):
        other = of_decisions[0]
        decided = f"{other.metric} {text.value(other)}, {text.interval(other.interval)}; chance is {other.chance:g}"
        said = f"Its scores show skill ({numbers}), its decisions none ({decided}): they pass no gap."
        return Worth(Outcome.INCONCLUSIVE, line, said)
    if skilled:
        return Worth(Outcome.PASS, line, f"It shows skill ({numbers}).")
    outcome = Outcome.FAIL if first.outcome is Outcome.FAIL else Outcome.INCONCLUSIVE
    return Worth(outcome, line, f"It shows no skill ({numbers}), and a model without skill passes no gap.")


def _line(finding: Finding) -> str:
    name = (finding.metric or "").replace("_", " ")
    said = f"{name.capitalize()} {text.value(finding)}, {text.interval(finding.interval)}"
    return f"{said}; {finding.detail}." if finding.detail else f"{said}."
