"""A report pillar by pillar: what was judged, what nobody bounded, what did not apply, and the figures and sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from auditor.finding.measurement import Outcome
from auditor.record.audit_report import INTAKE, AuditReport
from auditor.report.view import PILLARS, Drawn, Row, drawn_of, is_detail

_QUIET = (Outcome.NOT_JUDGED, Outcome.NOT_APPLICABLE)


@dataclass(frozen=True)
class Source:
    """A probe that ran, its methods, and the paper it follows."""

    probe: str
    methods: str
    citation: str


@dataclass(frozen=True)
class PillarView:
    """One pillar: what was judged or lost, what nobody bounded, what did not apply, and the numbers behind."""

    name: str
    rows: tuple[Row, ...]
    unbounded: tuple[Row, ...]
    absent: tuple[Row, ...]
    numbers: tuple[Row, ...]
    figures: tuple[Drawn, ...]
    sources: tuple[Source, ...]


def pillars_of(report: AuditReport, rows: Sequence[Row]) -> list[PillarView]:
    """The pillars that have anything to say, the file's own checks last; other kinds of model are none of it."""
    pillar_of_probe = {f.probe: f.pillar for f in report.findings}
    drawn = [(pillar_of_probe.get(f.probe, INTAKE), drawn_of(i, f)) for i, f in enumerate(report.figures, 1)]
    views: list[PillarView] = []
    for name in PILLARS:
        own = [r for r in rows if r.finding.pillar == name and not r.finding.other_kind]
        figures = tuple(d for pillar, d in drawn if pillar == name)
        if not own and not figures:
            continue
        whole = sorted((r for r in own if not is_detail(r.finding)), key=lambda r: r.rank)
        views.append(
            PillarView(
                name=name,
                rows=tuple(r for r in whole if r.outcome not in _QUIET),
                unbounded=tuple(r for r in whole if r.outcome is Outcome.NOT_JUDGED),
                absent=tuple(r for r in whole if r.outcome is Outcome.NOT_APPLICABLE),
                numbers=tuple(r for r in own if is_detail(r.finding)),
                figures=figures,
                sources=sources_of(own),
            )
        )
    return views


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
