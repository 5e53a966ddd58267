"""Usefulness of the model in one line: its performance compared with answers that ignore the input."""

from __future__ import annotations

from dataclasses import dataclass

from auditor.judging.measurement import Outcome
from auditor.report.record import finding_text
from auditor.report.record.audit_report import INTAKE, AuditReport, Finding
from auditor.report.record.question_texts import answers
from auditor.report.record.translations import ENGLISH, Catalogue

# What is asked of files that were made, and of no model.
_OF_FILES = "marked"
_PILLAR = "performance"
# What says it of a detector of synthetic media, where nobody asked for more.
_OF_DETECTORS = "synthetic"
# What a reader knows a model by, one number of each kind of model.
_KNOWN_BY = ("accuracy", "mean_absolute_error", "perplexity")
_OF_DECISIONS = ("balanced_accuracy", "adjusted_balanced_accuracy")


@dataclass(frozen=True)
class Worth:
    """``line``: the model's main number beside the base rate's; ``skill``: whether it shows skill.

    ``outcome``: the colour of it: PASS where skill is shown, INCONCLUSIVE where it is not, FAIL where less than chance
    is, NOT_JUDGED where nobody measured it.
    """

    outcome: Outcome
    line: str
    skill: str

    @property
    def sentence(self) -> str:
        """Line and skill in one sentence."""
        return f"{self.line} {self.skill}".strip()


def worth_of(report: AuditReport, say: Catalogue | None = None) -> Worth | None:
    """The performance statement of a report; None if it has no results on a model's answers."""
    if not _of_a_model(report):
        return None
    say = say or Catalogue.for_language(ENGLISH)
    overall = _overall(report)
    line = next((_line(f, say) for name in _KNOWN_BY for f in overall if f.metric == name and f.value is not None), "")
    compared = [f for f in overall if _against_chance(f)]
    if not compared:
        why = next((f.reason for f in overall if f.reason and f.value is None), "")
        why = why or say.say("worth.unasked")
        return Worth(Outcome.NOT_JUDGED, line, say.say("worth.unknown", why=why))
    outcome, skill = _skill(compared, say)
    return Worth(outcome, line, skill)


def _of_a_model(report: AuditReport) -> bool:
    """Whether a report measured a model's answers rather than files, or nothing."""
    if report.refusal is not None or not any(f.pillar != INTAKE for f in report.findings):
        return False
    return not any(not f.other_kind and answers(report, f.probe, f.metric, _OF_FILES) for f in report.findings)


def _overall(report: AuditReport) -> list[Finding]:
    """The findings on performance over all rows, those of the performance pillar first."""
    overall = [
        f
        for f in report.findings
        if not f.group and (f.pillar == _PILLAR or answers(report, f.probe, f.metric, _OF_DETECTORS))
    ]
    return sorted(overall, key=lambda f: f.pillar != _PILLAR)


def _against_chance(finding: Finding) -> bool:
    """Whether a finding is a number with an interval beside that of guessing."""
    return finding.chance is not None and not finding.at and finding.value is not None and finding.interval is not None


def _above_chance(finding: Finding) -> bool:
    low = finding.interval[0] if finding.interval else None
    return low is not None and low >= (finding.chance or 0.0)


def _skill(findings: list[Finding], say: Catalogue) -> tuple[Outcome, str]:
    """Whether the findings show that the model does better than guessing, as an outcome and a sentence."""
    skilled = [f for f in findings if _above_chance(f)]
    first = (skilled or findings)[0]
    numbers = _numbers(first, say)
    of_decisions = [f for f in findings if f.metric in _OF_DECISIONS]
    if skilled and of_decisions and not any(f in skilled for f in of_decisions):
        decided = _numbers(of_decisions[0], say)
        return Outcome.INCONCLUSIVE, say.say("worth.scores_only", numbers=numbers, decided=decided)
    if skilled:
        return Outcome.PASS, say.say("worth.shown", numbers=numbers)
    outcome = Outcome.FAIL if first.outcome is Outcome.FAIL else Outcome.INCONCLUSIVE
    return outcome, say.say("worth.none", numbers=numbers)


def _numbers(finding: Finding, say: Catalogue) -> str:
    return say.say(
        "worth.numbers",
        metric=finding.metric,
        value=say.spelled(finding_text.value(finding)),
        interval=say.ends(finding.interval),
        chance=say.spelled(f"{finding.chance:g}"),
    )


def _line(finding: Finding, say: Catalogue) -> str:
    name = (finding.metric or "").replace("_", " ")
    said = f"{name.capitalize()} {say.spelled(finding_text.value(finding))}, {say.ends(finding.interval)}"
    return f"{said}; {finding.detail}." if finding.detail else f"{said}."
