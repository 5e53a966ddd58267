"""Recount of a bundle's statistics from its rows and tables, with cross-checks between them.

What the record says of rows and classes is held to the bundle's data too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from auditor.core.errors import AuditorError, DataError
from auditor.data.group_counts import GroupCounts
from auditor.data.recounted_truth import GroupsDigest
from auditor.evidence.manifest import LOG, REQUEST, RESULTS, ROWS, TABLES, Asked, Manifest
from auditor.evidence.verify.canonical_form import as_given, as_logged, as_written
from auditor.evidence.verify.checks import Check, State, Unproven
from auditor.evidence.verify.cross_checks import contradictions, facts_of
from auditor.evidence.verify.json_difference import difference
from auditor.evidence.verify.membership_check import Members, members_of, unproven_alike
from auditor.evidence.verify.remeasure import Again, Kept, Remade, alike_otherwise
from auditor.evidence.verify.requested_probes import Kinds, as_declared, complete, why_inapplicable
from auditor.judging.measurement import ProbeResult
from auditor.report.record.audit_report import FILES, INTAKE, AuditReport
from auditor.report.record.group_sizes import sizes_in
from auditor.run.predictions import BLURRED_OVER, Answers, AnswersHead, CountsRecord, read_head, read_rows

# By name, what the record says and what is stored.
_Pairs = dict[str, tuple[object, object]]


def check_metadata(
    report: AuditReport, head: AnswersHead | None, table: GroupCounts | None, answers: Answers | None
) -> Iterator[Check]:
    """Differences of the record's model and data from the stored head, group table and rows."""
    pairs = {
        **_of_table(report, table, answers),
        **_of_head(report, head, table),
        **_of_rows(report, table, answers),
    }
    wrong = [where for name, (said, found) in pairs.items() if (where := difference(_plain(said), _plain(found), name))]
    yield from (Check(name="data", state="wrong", detail=f"the record's {where}") for where in wrong)
    if pairs and not wrong:
        yield Check(name="data", state="ok", detail=f"the record's {', '.join(pairs)} are those of what is stored")


def _of_table(report: AuditReport, table: GroupCounts | None, answers: Answers | None) -> _Pairs:
    """Classes, sensitive features and sizes of groups."""
    data, pairs = report.data, _Pairs()
    if table is not None:
        positive = None if table.positive is None else table.classes[table.positive]
        pairs["sensitive"] = data.sensitive, table.features
        pairs["positive"] = data.positive, positive
        pairs["classes"] = report.model.classes, table.classes
    sizes = sizes_in(table) if table is not None else _sizes(answers)
    if sizes is not None and data.groups is not None:
        pairs["groups"] = data.groups, sizes
    return pairs


def _of_head(report: AuditReport, head: AnswersHead | None, table: GroupCounts | None) -> _Pairs:
    """What the head of the rows says of all of them."""
    pairs = _Pairs()
    if head is None:
        return pairs
    if head.kind == "classifier":
        positive = None if head.positive is None else head.classes[head.positive]
        pairs["rows' classes"] = report.model.classes, head.classes
        pairs["rows' positive"] = report.data.positive, positive
    # Scores of rows that do not say their group are blurred, and no others.
    pairs["blurred"] = head.blurred, BLURRED_OVER if table and not head.features else 1
    if table is not None:
        pairs["rows of the table"] = head.n, table.n
    return pairs


def _of_rows(report: AuditReport, table: GroupCounts | None, answers: Answers | None) -> _Pairs:
    """Digests of the groups, and rows without a label."""
    data, pairs = report.data, _Pairs()
    if answers is not None and answers.groups and data.groups_sha256 is not None:
        pairs["groups_sha256"] = data.groups_sha256, _digests(answers)
    if data.missing is not None:
        unlabelled = _unlabelled(table, answers)
        # Where no row has a label, whether there was a column of them is for the record to say.
        if unlabelled is not None and (data.missing.labels is not None or unlabelled < (data.n_rows or 0)):
            pairs["rows without label"] = data.missing.labels, unlabelled
    return pairs


def _sizes(answers: Answers | None) -> Mapping[str, Mapping[str, int]] | None:
    return {name: Counter(own) for name, own in answers.groups.items()} if answers and answers.groups else None


def _unlabelled(table: GroupCounts | None, answers: Answers | None) -> int | None:
    if answers is not None:
        return int(np.isnan(answers.truth).sum())
    return None if table is None else int(table.table[:, -1].sum())


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _digests(answers: Answers) -> Mapping[str, str]:
    found = {}
    for name, levels in zip(answers.head.features, answers.head.levels, strict=True):
        place = {level: i for i, level in enumerate(levels)}
        digest = GroupsDigest()
        digest.add(np.asarray([place[level] for level in answers.groups[name]], np.int64), levels)
        found[name] = digest.hexdigest()
    return found


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
    entries: Mapping[str, bytes], manifest: Manifest, results_file: Asked, report: AuditReport, remade: Remade
) -> Counted:
    """Recount the tables from the rows and probe numbers from both, and cross-check all other numbers."""
    try:
        head, counts = read_head(entries.get(TABLES, b""))
        table = None if counts is None else counts.counts()
        answers = None if head is None or ROWS not in entries else read_rows(entries[ROWS], head, counts)
    except DataError as error:
        return Counted(checks=(Check(name=TABLES, state="wrong", detail=str(error)),))
    members, unfit = members_of(entries)
    kinds, request = remade.make.kinds(), entries.get(REQUEST, b"{}")
    checks, unproven = complete(request, results_file.results, report, kinds, other_code=remade.other_code)
    checks += unfit or members.fitting(manifest, {result.probe: result for result in results_file.results}, report)
    unproven += members.unproven()
    if not remade.other_code:
        checks += as_declared(results_file.results, report, kinds)
        checks += as_written(entries, results_file, head, counts, answers, members)
        checks += as_given(request, report)
        checks += as_logged(entries.get(LOG, b""), report, results_file.results)
    else:
        why = "other code measured: what it says beside its numbers, and how it spells them, is not held to it"
        unproven.append(Unproven(where=f"{LOG}: digests", why=why, needs="numbers"))
        moved = [r for r in results_file.results if r.probe in kinds and r.pillar != kinds[r.probe].pillar]
        why = "it has another pillar, and so another error budget, than in this version"
        checks += [Check(name="outcomes", state="not checked", detail=f"{r.probe}: {why}") for r in moved]
    checks += check_metadata(report, head, table, answers)
    if len({result.probe for result in results_file.results}) < len(results_file.results):
        checks.append(Check(name=RESULTS, state="wrong", detail="it holds the answer of one probe twice"))
    options = _options(request)
    if column := report.data.cluster or report.data.weight:
        why = f"the bundle does not hold the column {column!r}, which the numbers rest on"
        checks.append(Check(name="rows", state="not checked", detail=why))
        unproven += [each for result in results_file.results for each in unproven_of(result, None, report, remade, why)]
        return Counted(checks=tuple(checks), unproven=tuple(unproven))
    if head is not None and head.features:
        # Groups that no row is in have a place among them too.
        unproven.append(
            Unproven(where=f"{TABLES}: rows.levels", why="which groups there could be is the signer's word")
        )
    checks += _storage_checks(manifest, report, head, counts, answers, table)
    checks += _agreeing(results_file, report, table, options, kinds)
    kept = Kept.from_stored(head, answers, table, has_groups=bool(report.data.sensitive) or table is not None)
    found = _anew(results_file, options, kept, members, report, remade)
    return Counted(
        checks=(*checks, *found.checks),
        from_rows=found.from_rows,
        from_tables=found.from_tables,
        unproven=(*unproven, *found.unproven),
    )


def _storage_checks(
    manifest: Manifest,
    report: AuditReport,
    head: AnswersHead | None,
    counts: CountsRecord | None,
    answers: Answers | None,
    table: GroupCounts | None,
) -> Iterator[Check]:
    if head is None and report.refusal is None and report.data.n_rows:
        yield Check(name="rows", state="not checked", detail="the bundle holds no answers of the model by row")
    elif ROWS in manifest.files and answers is None and head is not None:
        yield Check(name="rows", state="not checked", detail="left out: what follows from them cannot be recomputed")
    if answers is not None and table is not None and counts is not None:
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


def _options(content: bytes) -> Mapping[str, Mapping[str, Any]]:
    try:
        found = json.loads(content)["probe_options"]
        return {str(k): dict(v) for k, v in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


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
