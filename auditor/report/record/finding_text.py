"""The text of a finding: its value, groups, place and level, and the question that it answers."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

from pydantic import TypeAdapter

from auditor.judging.measurement import AuditQuestion, Form
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.configuration import Labels
from auditor.report.record.translations import Catalogue

BY = "by {feature}"


def value(finding: Finding) -> str:
    """The value of a finding: an integer if exact count, ``undefined`` at 0/0, empty if missing."""
    if finding.metric is None or finding.n_samples is None:
        return ""
    exact = finding.estimate is not None and finding.estimate.kind == "exact"
    if exact and finding.value is not None and finding.value.is_integer() and abs(finding.value) < 1e15:
        return number_text.count(int(finding.value))
    return number_text.number(finding.value)


def label(finding: Finding, labels: Labels | None = None, by_phrase: str = BY) -> str:
    """The location of a number without its metric: ``by sex × race``, ``sex = female``, ``noise = 0.1``.

    ``labels``: what columns and values are called where people read of them, such as ``sex: female``. ``by_phrase``:
    how it is said that groups of a ``{feature}`` are compared.
    """
    return ", ".join(part for part in (place(finding, labels, by_phrase), level(finding, labels)) if part)


def place(finding: Finding, labels: Labels | None = None, by_phrase: str = BY) -> str:
    """The groups of a number, each with its feature; "" for all rows."""
    column = labels.column if labels else str
    parts = [by_phrase.format(feature=" × ".join(map(column, finding.sensitive)))] if finding.sensitive else []
    parts += [labels.group(k, v) if labels else f"{k} = {v}" for k, v in finding.group.items()]
    return ", ".join(parts)


def level(finding: Finding, labels: Labels | None = None) -> str:
    """The level of a number: ``noise = 0.1``, ``feature = income``; "" if there is none."""
    parts = []
    for name, at in finding.at.items():
        own = labels.column(str(at)) if labels and name == "feature" else str(at)
        parts.append(f"{name} = {f'{at:g}' if isinstance(at, float) else own}")
    return ", ".join(parts)


Questions = dict[str, tuple[AuditQuestion, ...]]


@cache
def earlier_questions() -> Questions:
    """The questions of the probes that there were before a record had ``questions``."""
    text = (files("auditor.report.record") / "earlier_questions.toml").read_text(encoding="utf-8")
    return TypeAdapter(Questions).validate_python(tomllib.loads(text))


def questions_of(report: AuditReport, probe: str) -> tuple[AuditQuestion, ...]:
    """A probe's questions; of one that the record has none of, those that it had before records held them."""
    return report.questions.get(probe) or earlier_questions().get(probe, ())


def answers(report: AuditReport, probe: str, metric: str | None, *ids: str) -> bool:
    """Whether a probe's number answers one of these questions."""
    question = question_of(report, probe, metric)
    return question is not None and question.id in ids


def question_of(report: AuditReport, probe: str, metric: str | None) -> AuditQuestion | None:
    """The question that a probe's number answers; by default its widest; None for a probe that declares none."""
    own = questions_of(report, probe)
    if metric is not None:
        return next((q for q in own if q.fits(metric)), None)
    return next((q for q in own if "*" in q.metrics), own[0] if own else None)


def form_of(report: AuditReport, probe: str, metric: str | None) -> Form:
    """The number format of a probe's metric."""
    question = question_of(report, probe, metric)
    return question.form if question else "number"


def question_text(
    report: AuditReport, probe: str, metric: str | None, say: Catalogue, *, section: str = "question"
) -> str:
    """The question that a probe's number answers, in words; the probe's own name where there are none.

    ``section``: of the catalogue; "subject" has the field's term for it.
    """
    question = question_of(report, probe, metric)
    key = f"{section}.{question.id}" if question else ""
    return say.say(key) if say.has(key) else probe.replace("_", " ")
