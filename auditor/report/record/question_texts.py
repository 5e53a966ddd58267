"""The question that each number answers, in everyday language, and how to interpret the number."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

from pydantic import TypeAdapter

from auditor.judging.measurement import AuditQuestion, Form
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.translations import Catalogue

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


def question_text(report: AuditReport, probe: str, metric: str | None, say: Catalogue) -> str:
    """The question that a probe's number answers, in words; the probe's own name where there are none."""
    question = question_of(report, probe, metric)
    key = f"question.{question.id}" if question else ""
    return say.say(key) if say.has(key) else probe.replace("_", " ")
