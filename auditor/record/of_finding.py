"""What a finding says of itself in every table: its value, whom it is about, and at what it was taken."""

from __future__ import annotations

from auditor.record import text
from auditor.record.audit_report import Finding
from auditor.record.labels import Labels

BY = "by {feature}"


def value(finding: Finding) -> str:
    """The value of a finding: whole where it is an exact count, ``undefined`` at 0/0, empty where there is none."""
    if finding.metric is None or finding.n_samples is None:
        return ""
    exact = finding.estimate is not None and finding.estimate.kind == "exact"
    if exact and finding.value is not None and finding.value.is_integer() and abs(finding.value) < 1e15:
        return text.count(int(finding.value))
    return text.number(finding.value)


def label(finding: Finding, called: Labels | None = None, by: str = BY) -> str:
    """Where a number was taken, without its metric: ``by sex × race``, ``sex = female``, ``noise = 0.1``.

    ``called``: what columns and values are called where people read of them, such as ``sex: female``. ``by``: how it is
    said that groups of a ``{feature}`` are compared.
    """
    return ", ".join(part for part in (place(finding, called, by), level(finding, called)) if part)


def place(finding: Finding, called: Labels | None = None, by: str = BY) -> str:
    """Whom a number is about, each group with its feature; "" for all rows."""
    column = called.column if called else str
    parts = [by.format(feature=" × ".join(map(column, finding.sensitive)))] if finding.sensitive else []
    parts += [called.group(k, v) if called else f"{k} = {v}" for k, v in finding.group.items()]
    return ", ".join(parts)


def level(finding: Finding, called: Labels | None = None) -> str:
    """At what a number was taken: ``noise = 0.1``, ``feature = income``; "" where there is nothing of the kind."""
    parts = []
    for name, at in finding.at.items():
        own = called.column(str(at)) if called and name == "feature" else str(at)
        parts.append(f"{name} = {f'{at:g}' if isinstance(at, float) else own}")
    return ", ".join(parts)
