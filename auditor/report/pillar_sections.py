"""The report's figures by pillar, and the papers behind the probes that ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from auditor.judging.measurement import Outcome
from auditor.report.record.audit_report import INTAKE, AuditReport
from auditor.report.record.translations import Catalogue
from auditor.report.report_figures import front_and_rest
from auditor.report.report_view import PILLARS, Drawn, Row, drawn_as


@dataclass(frozen=True)
class Source:
    """A probe that ran, its methods, and its paper."""

    probe: str
    methods: str
    citation: str


@dataclass(frozen=True)
class PillarView:
    """One pillar and its figures, without those that come before all pillars."""

    name: str
    figures: tuple[Drawn, ...]


def pillars_of(report: AuditReport, say: Catalogue) -> list[PillarView]:
    """The pillars that have figures, the file's own checks last."""
    pillar_of_probe = {f.probe: f.pillar for f in report.findings}
    drawn = [(pillar_of_probe.get(f.probe, INTAKE), drawn_as(i, f, say)) for i, f in front_and_rest(report, say)[1]]
    views = [PillarView(name, tuple(d for pillar, d in drawn if pillar == name)) for name in PILLARS]
    return [view for view in views if view.figures]


def sources_of(rows: Sequence[Row]) -> tuple[Source, ...]:
    """The papers of the probes that ran."""
    ran = [r.finding for r in rows if r.outcome not in (Outcome.NOT_APPLICABLE, Outcome.NOT_RUN)]
    return tuple(
        Source(
            probe=probe,
            methods=", ".join(dict.fromkeys(f.method for f in own if f.method)),
            citation=next((f.citation for f in own if f.citation), ""),
        )
        for probe in dict.fromkeys(f.probe for f in ran)
        for own in [[f for f in ran if f.probe == probe]]
    )
