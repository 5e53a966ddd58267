"""The text of a finding in tables: its value, its groups, and the place and level of its measurement."""

from __future__ import annotations

from auditor.report.record import number_text
from auditor.report.record.audit_report import Finding
from auditor.report.record.display_labels import Labels

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
