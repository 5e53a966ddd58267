"""Definitions in the report's appendix: the metrics of its numbers, and the terms that it uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from auditor.judging.measurement import NO_IDEAL, Definition, Outcome, definition_of
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.finding_text import answers
from auditor.report.record.number_text import visible
from auditor.report.record.translations import Catalogue


@dataclass(frozen=True)
class Metric:
    """A metric as its probe defines it; ``definition`` is None where it does not."""

    name: str
    probe: str
    definition: Definition | None

    def is_of(self, probe: str, metric: str) -> bool:
        """Whether the definition applies to a probe's metric."""
        return self.definition.fits(probe, metric) if self.definition else (probe, metric) == (self.probe, self.name)


@dataclass(frozen=True)
class Term:
    """A term and its definition."""

    name: str
    meaning: str


@dataclass(frozen=True)
class Definitions:
    """The definitions of a report: its metrics in the order of its findings, and its terms."""

    metrics: tuple[Metric, ...]
    terms: tuple[Term, ...]
    say: Catalogue

    def label(self, name: str) -> str:
        """A word of the catalogue's section on traces."""
        return self.say.say(f"trace.{name}")

    def metric_text(self, metric: Metric) -> str:
        """A metric in a line: formula, range, ideal, reading and source, or a note that it has no definition."""
        return visible(f"{metric.name} ({metric.probe}): {self.meaning(metric)}")

    def meaning(self, metric: Metric) -> str:
        """The definition without the metric's name."""
        own = metric.definition
        if own is None:
            return self.label("undefined") + "."
        return f"{own.formula}. {self.span(own)} {self.reading_text(own)} {own.citation}."

    def span(self, definition: Definition) -> str:
        """The range of a metric and its ideal value, or a note that none exists."""
        ideal = self.label("no_ideal") if definition.ideal == NO_IDEAL else f"{self.label('ideal')} {definition.ideal}"
        return f"{self.label('range')} {definition.range}, {ideal}."

    def reading_text(self, definition: Definition) -> str:
        """The interpretation of a metric's value."""
        return f"{self.label('reading')}: {definition.reading}."


def definitions_of(report: AuditReport, say: Catalogue | None = None) -> Definitions:
    """The definitions of a record; ``say``: the wording, by default the record's."""
    words = report.catalogue(say)
    metrics: dict[tuple[str, str], Metric] = {}
    for f in report.findings:
        if f.metric is not None:
            own = definition_of(report.definitions, f.probe, f.metric)
            name = own.metric if own else f.metric
            metrics.setdefault((f.probe, name), Metric(name, f.probe, own))
    terms = [Term(words.say(f"term.{key}"), words.say(f"meaning.{key}")) for key, used in TERMS.items() if used(report)]
    return Definitions(tuple(metrics.values()), tuple(sorted(terms, key=lambda t: t.name.casefold())), words)


def definitions_of_judged(report: AuditReport, say: Catalogue | None = None) -> tuple[Definitions, int]:
    """The definitions without metrics that have no limit, and the number of those."""
    told = definitions_of(report, say)
    judged = {(f.probe, f.metric) for f in report.findings if f.metric and f.outcome is not Outcome.NOT_JUDGED}
    metrics = tuple(m for m in told.metrics if any(m.is_of(*each) for each in judged))
    return replace(told, metrics=metrics), len(told.metrics) - len(metrics)


def _has_finding(test: Callable[[Finding], object]) -> Callable[[AuditReport], bool]:
    return lambda report: any(test(f) for f in report.findings)


def _ended(outcome: Outcome) -> Callable[[AuditReport], bool]:
    return _has_finding(lambda f: f.outcome is outcome)


def _has_metric(*patterns: str) -> Callable[[AuditReport], bool]:
    return _has_finding(lambda f: f.metric is not None and any(fnmatchcase(f.metric, pattern) for pattern in patterns))


def _cell(kind: str) -> Callable[[AuditReport], bool]:
    return lambda report: any(cell.kind == kind for control in report.controls for cell in control.cells)


_OF_MEMBERS = ("few_members", "members", "texts_learned")
# A term, and whether a report uses it.
TERMS: Mapping[str, Callable[[AuditReport], object]] = {
    "interval": _has_finding(lambda f: f.interval),
    "level": _has_finding(lambda f: f.interval),
    "p_value": _has_finding(lambda f: f.p_fail is not None),
    "adjusted": _has_finding(lambda f: f.p_fail_adjusted is not None),
    "criterion": lambda report: report.criteria,
    "profile": lambda report: any(c.source.startswith("auditor-") for c in report.criteria),
    "registered": lambda report: report.criteria or report.registration,
    "budget": lambda report: report.family.budgets,
    "pass": _ended(Outcome.PASS),
    "fail": _ended(Outcome.FAIL),
    "inconclusive": _ended(Outcome.INCONCLUSIVE),
    "not_run": _ended(Outcome.NOT_RUN),
    "not_applicable": _ended(Outcome.NOT_APPLICABLE),
    "not_judged": _ended(Outcome.NOT_JUDGED),
    "equivalence": _ended(Outcome.PASS),
    "rows_needed": _has_finding(lambda f: f.n_required is not None),
    "chance": _has_finding(lambda f: f.chance is not None),
    "ideal": lambda report: report.definitions,
    "sensitive": lambda report: report.data.sensitive,
    "favourable": lambda report: report.data.positive is not None,
    "intersection": _has_finding(lambda f: len(f.sensitive) > 1),
    "impact_ratio": _has_metric("impact_ratio*"),
    "proxy": _has_metric("proxy_*", "*_proxy_*"),
    "member": lambda report: any(
        f.metric and answers(report, f.probe, f.metric, *_OF_MEMBERS) for f in report.findings
    ),
    "epsilon": _has_finding(lambda f: (f.metric or "").startswith("dp_epsilon") or "epsilon" in f.at),
    "attribution": _has_finding(lambda f: f.metric is not None and f.pillar == "attribution"),
    "certificate": _has_metric("certified_accuracy", "smoothed_certified_accuracy"),
    "padding": _has_finding(lambda f: f.padding),
    "rule_pack": lambda report: report.policies,
    "control": lambda report: report.controls,
    "attestation": _cell("attestation needed"),
    "bundle": lambda report: report.findings,
    "seed": lambda report: report.findings,
}
