"""Verification of judgements: all answers of a bundle judged again and compared with its record.

A figure with a value that none of the record's findings has is found too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from auditor.evidence.manifest import Asked, canonical
from auditor.evidence.verify.checks import Check
from auditor.evidence.verify.json_difference import difference
from auditor.judging.figure_types import Figure
from auditor.judging.judgement import Judgement
from auditor.judging.judging import judge
from auditor.report.drawing.figures import figures_as_before, figures_of
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.contradictions import contradictions
from auditor.run.run_audit import assemble

# Numbers are computed on another machine: what they are rounded to, and by how much they may differ before.
_DIGITS, _SLACK, _NOTHING = ".4g", 2e-6, 1e-12
_BLANK = canonical([[], [], None, []])
_Point = tuple[float | None, ...]


def strange_figures(said: Iterable[Figure], drawn: Sequence[Figure]) -> list[str]:
    """The ids of figures with a point, bound or image that no redrawn figure in ``drawn`` has."""
    points = {key for figure in drawn for point in _points(figure) for key in _spellings(point)}
    pictures = {_BLANK, *map(_picture, drawn)}
    return [
        figure.id
        for figure in said
        if _picture(figure) not in pictures or any(_spelled(point) not in points for point in _points(figure))
    ]


def _points(figure: Figure) -> Iterator[_Point]:
    """Each value with the ends of its interval, whatever series it is in, and what is marked on the axes."""
    yield (figure.criterion,)
    yield (figure.marked,)
    for s in figure.series:
        yield (s.criterion,)
        for i, y in enumerate(s.y):
            yield y, *(ends[i] if i < len(ends) else None for ends in (s.low, s.high))


def _spelled(point: _Point) -> tuple[str, ...]:
    return tuple("" if x is None else format(0.0 if abs(x) < _NOTHING else x, _DIGITS) for x in point)


def _spellings(point: _Point) -> set[tuple[str, ...]]:
    """All spellings of the points that differ from this one by rounding."""
    near = ([None] if x is None else [x * (1.0 - _SLACK), x * (1.0 + _SLACK)] for x in point)
    return {_spelled(each) for each in itertools.product(*near)}


def _picture(figure: Figure) -> bytes:
    """What a figure shows beside its series."""
    shown = figure.model_dump(mode="json", include={"texts", "heatmaps", "table", "swarms"})
    return canonical(list(shown.values()))


# What a finding says whatever the rules by which outcomes follow from what was measured.
_OF_NO_RULE = {
    "id", "probe", "method", "pillar", "metric", "group", "sensitive", "at", "value", "ideal", "chance", "n_samples",
    "criterion", "citation", "detail", "estimate",
}  # fmt: skip


def check_judgements(report: AuditReport, results_file: Asked, *, other_code: bool) -> list[Check]:
    """Judge all answers again and compare every number and outcome with the record's.

    ``other_code``: another version of the toolkit measured, which may have drawn other figures.
    """
    judgements, family = judge(results_file.results, results_file.criteria, results_file.family)
    again = assemble(
        results_file.results,
        results_file.criteria,
        judgements=(judgements, family),
        model=report.model,
        data=report.data,
        environment=report.environment,
        refusal=report.refusal,
        allow_inconclusive=report.allow_inconclusive,
        duration_s=report.duration_s,
    )
    # What an earlier rule made of the numbers only an earlier auditor can tell; the numbers themselves are checked.
    # The code that is installed here follows no other.
    same_rule = report.family.rule == again.family.rule or not other_code
    checks = _finding_checks(report, again, same_rule=same_rule)
    drawn = list(again.figures)
    if other_code and report.figures != again.figures:
        if not same_rule:
            judgements = _as_recorded(judgements, report)
            drawn = figures_of(judgements, results_file.results)
        again = again.model_copy(update={"figures": tuple(figures_as_before(judgements, results_file.results))})
    checks += _part_checks(report, again, drawn, same_rule=same_rule, other_code=other_code)
    if not same_rule:
        checks += _other_rule_checks(report, again)
    elif not any(check.state == "wrong" for check in checks):
        n = sum(f.value is not None for f in report.findings)
        detail = f"{n:,} numbers, their intervals, p-values and outcomes recomputed from their statistics"
        checks.append(Check(name="numbers", state="ok", detail=detail))
    return checks


def _finding_checks(report: AuditReport, again: AuditReport, *, same_rule: bool) -> list[Check]:
    """Where the record's findings are not those that were judged ``again``."""
    fields = None if same_rule else _OF_NO_RULE
    mine = {f.id: f.model_dump(mode="json", include=fields) for f in again.findings}
    theirs = {f.id: f.model_dump(mode="json", include=fields) for f in report.findings}
    ids = [f.id for f in report.findings]
    twice = sorted({name for name in ids if ids.count(name) > 1}) if len(set(ids)) < len(ids) else []
    checks = [Check(name=name, state="wrong", detail="is in the record more than once") for name in twice]
    for name in [*theirs, *(n for n in mine if n not in theirs)]:
        if name not in mine or name not in theirs:
            detail = "is not among what was measured" if name not in mine else "was measured, and is not in the record"
            checks.append(Check(name=name, state="wrong", detail=detail))
        elif where := difference(theirs[name], mine[name]):
            checks.append(Check(name=name, state="wrong", detail=where))
    return checks


def _part_checks(
    report: AuditReport, again: AuditReport, figures: Sequence[Figure], *, same_rule: bool, other_code: bool
) -> list[Check]:
    """Where parts of the record beside its findings differ. ``figures``: those that today's code draws."""
    parts = ("family", "summary", "exit_code") if same_rule else ()
    of_code = () if other_code else ("schema_version", "tool")
    parts = ("criteria", *parts, "figures", "definitions", "questions", *of_code)
    said, found = (r.model_dump(mode="json", include=set(parts)) for r in (report, again))
    checks = []
    for part in parts:
        # Definitions and questions are left out of a record that has none.
        where = difference(said.get(part, []), found.get(part, []))
        if where and part == "figures" and other_code:
            strange = strange_figures(report.figures, [*figures, *again.figures])
            detail = f"{strange[0]} shows a value that is in no finding" if strange else where
            checks.append(Check(name=part, state="wrong" if strange else "not checked", detail=detail))
        elif where:
            checks.append(Check(name=part, state="wrong", detail=where))
    return checks


def _other_rule_checks(report: AuditReport, again: AuditReport) -> list[Check]:
    """What contradicts itself in a record of an earlier rule, and that its outcomes are not checked."""
    checks = [Check(name=name, state="wrong", detail=detail) for name, detail in contradictions(report)]
    theirs, mine, version = report.family.rule, again.family.rule, report.tool.get("version")
    detail = (
        f"outcomes and intervals follow rule {theirs} of another version of auditor, and this one applies rule "
        f"{mine}: verify them with the version that made them ({version})"
    )
    return [*checks, Check(name="outcomes", state="not checked", detail=detail)]


def _as_recorded(judgements: Sequence[Judgement], report: AuditReport) -> list[Judgement]:
    """The judgements with the outcomes and intervals that the record states, from which its figures were drawn."""
    stated = {finding.id: finding for finding in report.findings}
    found = []
    for each in judgements:
        said = stated.get(each.id)
        if said is not None and said.interval is not None:
            low, high, confidence = (math.nan if x is None else x for x in (*said.interval, said.confidence))
            each = replace(each, outcome=said.outcome, interval=(low, high), confidence=confidence)
        found.append(each)
    return found
