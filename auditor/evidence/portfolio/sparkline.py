"""A word-sized plot of a model's failures over its audit dates."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from auditor.evidence.portfolio.audit_lines import Audit
from auditor.report.record.durations import known_day

MOST_DRAWN = 60
_MARGIN = 4.0
# A mark is told apart by its shape as well as by its colour.
_SHAPES = {
    "PASS": '<circle class="is-pass" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>',
    "FAIL": '<path class="is-fail" d="M{x:.1f} {y:.1f}m-3.2 -3.2h6.4v6.4h-6.4z"/>',
    "INCONCLUSIVE": '<path class="is-inconclusive" d="M{x:.1f} {y:.1f}m0 -3.8l3.8 3.8l-3.8 3.8l-3.8 -3.8z"/>',
    "REFUSED": '<path class="is-not-run" d="M{x:.1f} {y:.1f}m0 -3.8l3.6 6.6h-7.2z"/>',
}


def sparkline(audits: Sequence[Audit], width: int = 116, height: int = 26) -> Markup:
    """An SVG of the number of failed findings in each of the last audits, by date; with equivalent text.

    Empty where all of them are of one day: there is no course to draw.
    """
    drawn = audits[-MOST_DRAWN:]
    days = [known_day(audit.day) for audit in drawn]
    known = [day for day in days if day is not None]
    if len(set(known)) < 2:
        return Markup("")
    first, last = min(known), max(known)
    most = max(audit.fail for audit in drawn) or 1
    points = []
    for day, audit in zip(days, drawn, strict=True):
        across = ((day or first) - first) / (last - first)
        points.append(
            (
                _MARGIN + across * (width - 2 * _MARGIN),
                height - _MARGIN - audit.fail / most * (height - 2 * _MARGIN),
                audit.verdict,
            )
        )
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    marks = "".join(_SHAPES[verdict].format(x=x, y=y) for x, y, verdict in points)
    return Markup(
        '<svg class="spark" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{said}">'
        '<polyline points="{line}"/>{marks}</svg>'
    ).format(w=width, h=height, said=course(audits), line=line, marks=Markup(marks))


def course(audits: Sequence[Audit]) -> str:
    """The same in words: how many failed at first and last, and when."""
    drawn = audits[-MOST_DRAWN:]
    first, last = drawn[0], drawn[-1]
    if len(drawn) == 1:
        return f"{first.fail:,} failed on {first.day}"
    of = "audits" if len(drawn) == len(audits) else f"last of {len(audits):,} audits"
    return f"{first.fail:,} failed on {first.day}, {last.fail:,} on {last.day}, {len(drawn)} {of}"


def change(audits: Sequence[Audit]) -> str:
    """Shorter still: how many failed at first and last."""
    first, last = audits[-MOST_DRAWN:][0], audits[-1]
    return f"{last.fail:,} failed" if first is last else f"{first.fail:,} → {last.fail:,} failed"
