"""Recount of a bundle's statistics from its rows and tables, with cross-checks between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from auditor.core.errors import AuditorError
from auditor.data.group_counts import GroupCounts
from auditor.evidence.manifest import LOG, REQUEST, RESULTS, ROWS, TABLES, Asked, Manifest
from auditor.evidence.verify.checks import Check, State, Unproven
from auditor.evidence.verify.cross_checks import contradictions, facts_of
from auditor.evidence.verify.enclosed_inputs import Inputs
from auditor.evidence.verify.membership_check import Members, members_of, unproven_alike
from auditor.evidence.verify.remeasure import Again, Kept, Remade, alike_otherwise
from auditor.evidence.verify.request_and_log import (
    Kinds,
    as_declared,
    as_given,
    as_logged,
    as_written,
    complete,
    why_inapplicable,
)
from auditor.judging.measurement import ProbeResult
from auditor.report.record.audit_report import FILES, INTAKE, AuditReport
from auditor.run.predictions import Answers

# A table of so many classes has more cells than a bundle should make anybody fill.
_MOST_CLASSES = 1_000
_MOST_TOLD = 20


@dataclass(frozen=True, kw_only=True)
class Counted:
    """The recount: ids of findings ``from_rows`` and ``from_tables``, and the ``unproven`` statements."""

    checks: tuple[Check, ...]
    from_rows: frozenset[str] = frozenset()
    from_tables: frozenset[str] = frozenset()
    unproven: tuple[Unproven, ...] = ()


def check_counts(
    entries: Mapping[str, bytes],
    manifest: Manifest,
    results_file: Asked,
    report: AuditReport,
    inputs: Inputs,
    remade: Remade,
) -> Counted:
    """Recount the tables from the rows and probe numbers from both, and cross-check all other numbers."""
    results, kinds = results_file.results, remade.make.kinds()
    members, unfit = members_of(entries, inputs)
    checks, unproven = complete(inputs, results, report, kinds, other_code=remade.other_code)
    checks += as_logged(entries.get(LOG, b""), report, results, other_code=remade.other_code)
    checks += unfit or members.fitting(manifest, {result.probe: result for result in results}, report)
    unproven += members.unproven()
    if not remade.other_code:
        checks += as_declared(results, report, kinds)
        checks += as_written(entries, results_file, inputs, members)
        checks += as_given(inputs, report)
    else:
        why = "other code measured: what it says beside its numbers, and how it spells them, is not held to it"
        unproven.append(Unproven(where=f"{LOG}: digests", why=why, needs="numbers"))
        moved = [r for r in results if r.probe in kinds and r.pillar != kinds[r.probe].pillar]
        why = "it has another pillar, and so another error budget, than in this version"
        checks += [Check(name="outcomes", state="not checked", detail=f"{r.probe}: {why}") for r in moved]
    if column := report.data.cluster or report.data.weight:
        why = f"the bundle does not hold the column {column!r}, which the numbers rest on"
        checks.append(Check(name="rows", state="not checked", detail=why))
        unproven += [each for result in results for each in unproven_of(result, None, report, remade, why)]
        return Counted(checks=tuple(checks), unproven=tuple(unproven))
    head, table = inputs.head, inputs.table
    if head is not None and head.features:
        # Groups that no row is in have a place among them too.
        unproven.append(
            Unproven(where=f"{TABLES}: rows.levels", why="which groups there could be is the signer's word")
        )
    checks += _storage_checks(manifest, report, inputs)
    checks += _agreeing(results_file, report, table, inputs.probe_options, kinds)
    kept = Kept.from_stored(head, inputs.answers, table, has_groups=bool(report.data.sensitive) or table is not None)
    found = _anew(results_file, inputs.probe_options, kept, members, report, remade)
    return Counted(
        checks=(*checks, *found.checks),
        from_rows=found.from_rows,
        from_tables=found.from_tables,
        unproven=(*unproven, *found.unproven),
    )


def _storage_checks(manifest: Manifest, report: AuditReport, inputs: Inputs) -> Iterator[Check]:
    head, table, answers = inputs.head, inputs.table, inputs.answers
    if head is None and report.refusal is None and report.data.n_rows:
        yield Check(name="rows", state="not checked", detail="the bundle holds no answers of the model by row")
    elif ROWS in manifest.files and answers is None and head is not None:
        yield Check(name="rows", state="not checked", detail="left out: what follows from them cannot be recomputed")
    if answers is not None and table is not None:
        yield _recounted(answers, table)
    if head is None and ROWS in manifest.files:
        yield Check(name=TABLES, state="wrong", detail="it does not say what the rows hold")
    if head is not None and head.kind == "classifier" and report.data.sensitive and table is None:
        yield Check(name=TABLES, state="wrong", detail="there were groups, and no table counts them")


def _agreeing(
    results_file: Asked,
    report: AuditReport,
    table: GroupCounts | None,
    options: Mapping[str, Mapping[str, Any]],
    kinds: Kinds,
) -> Iterator[Check]:
    facts = facts_of(results_file.results, report.data, table, options, kinds)
    wrong = contradictions(facts)
    yield from (Check(name="shared numbers", state="wrong", detail=detail) for detail in wrong[:_MOST_TOLD])
    told_twice = len(facts) - len({(fact.group, fact.what) for fact in facts})
    if told_twice and not wrong:
        detail = f"{told_twice:,} counts that several numbers state agree"
        yield Check(name="shared numbers", state="ok", detail=detail)


def _anew(
    results_file: Asked,
    options: Mapping[str, Mapping[str, Any]],
    kept_data: Kept,
    members: Members,
    report: AuditReport,
    remade: Remade,
) -> Counted:
    checks: list[Check] = []
    unproven: list[Unproven] = []
    ids: dict[str, set[str]] = {"rows": set(), "tables": set(), "scores": set()}
    for name, result in {result.probe: result for result in results_file.results}.items():
        try:
            again = members.remeasure(result, options.get(name, {}), kept_data, remade)
            again = again or remade.remeasure(result, options.get(name, {}), kept_data)
        except AuditorError as error:
            checks.append(Check(name=name, state="wrong", detail=f"its options in {REQUEST} are none: {error}"))
            continue
        why = "nothing in the bundle recounts these statistics: auditor reproduce asks the model"
        unproven += [*unproven_of(result, again, report, remade, why), *unproven_alike(again, kept_data)]
        if again is None:
            continue
        found = again.found
        if not result.measurements and found.measurements:
            # An audit may have run out of its limits; nobody's answers make a question inapplicable.
            state: State = "not checked" if result.not_run else "wrong"
            detail = f"the record has no number of it, and the {again.whence} give {len(found.measurements)}"
            checks.append(Check(name=name, state=state, detail=detail))
        if not result.measurements:
            continue
        checks += [
            Check(name=f"{name} from {again.whence}", state="wrong", detail=detail)
            for detail in again.wrong[:_MOST_TOLD]
        ]
        if remade.other_code and not remade.other_rule and again.only is None and alike_otherwise(result, found):
            why = "its rows with the same answer, which outcomes depend on, are not those that this version finds"
            checks.append(Check(name="outcomes", state="not checked", detail=f"{name}: {why}"))
        if not again.wrong and found.measurements:
            detail = f"{len(found.measurements):,} statistics counted anew from the {again.whence}"
            checks.append(Check(name=name, state="ok", detail=detail))
        ids[again.whence] |= {f.id for f in report.findings if f.probe == name and again.covers(f.metric, f.method)}
    return Counted(
        checks=tuple(checks),
        from_rows=frozenset(ids["rows"] | ids["scores"]),
        from_tables=frozenset(ids["tables"]),
        unproven=tuple(unproven),
    )


def unproven_of(
    result: ProbeResult, remeasurement: Again | None, report: AuditReport, remade: Remade, reason: str
) -> Iterator[Unproven]:
    """The unproven part of a probe's answer: all of it, or numbers by method and metric."""
    where = f"{RESULTS}: {result.probe}"
    for taken in ("duration_s", "cpu_s", "flops", "flops_by"):
        yield Unproven(where=f"{where}.{taken}", why="what a probe took is the signer's word")
    if result.probe in (INTAKE, FILES):
        yield Unproven(where=where, why="what the files were is the signer's word")
    elif not result.measurements:
        if not why_inapplicable(result, report, remade.make.kinds()):
            # What a model or its files lack is not in a bundle.
            yield Unproven(where=where, why="why there is no number is as it is stated", needs="numbers")
    elif remeasurement is None:
        kept = remade.make(result.probe, {}) is not None
        yield Unproven(where=where, why=reason, needs="rows" if kept else "numbers")
    else:
        methods: dict[str, list[str]] = {}
        for m in result.measurements:
            methods.setdefault(m.method, []).append(m.metric)
        for method, metrics in methods.items():
            left = [metric for metric in dict.fromkeys(metrics) if not remeasurement.covers(metric, method)]
            left = ["*"] if len(left) == len({*metrics}) else left
            yield from (Unproven(where=f"{where}[{method} {metric}]", why=reason, needs="rows") for metric in left)


def _recounted(answers: Answers, table: GroupCounts) -> Check:
    if len(table.classes) > _MOST_CLASSES:
        detail = f"it has more than {_MOST_CLASSES:,} classes, which are not counted anew"
        return Check(name="group table", state="not checked", detail=detail)
    anew = answers.recount()
    if anew is not None:
        mine, theirs = (
            {g: t.tolist() for g, t in zip(c.groups, c.table, strict=True)}
            for c in (anew.group_by(table.features), table)
        )
        wrong = next((g for g in {*mine, *theirs} if mine.get(g) != theirs.get(g)), None)
        if wrong is not None:
            detail = f"the rows of {', '.join(wrong)} do not come to what the table says"
            return Check(name="group table", state="wrong", detail=detail)
        return Check(name="group table", state="ok", detail=f"{len(table.groups)} groups counted anew from the rows")
    if not np.array_equal(answers.crossed(), table.table.sum(axis=0)):
        return Check(name="group table", state="wrong", detail="the rows do not come to the table's sums")
    return Check(
        name="group table",
        state="ok",
        detail=f"its sums over {len(table.groups)} groups are those of the rows, which do not say their group",
    )
