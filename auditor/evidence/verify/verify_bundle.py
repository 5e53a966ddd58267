"""Checks an evidence bundle without the model: container, digests, chain, signature, and the audit assembled anew.

Its statistics are recounted from its rows and tables, with cross-checks between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from auditor.core.errors import AuditorError, DataError
from auditor.data.group_counts import GroupCounts
from auditor.evidence.container import read_archive, unpack
from auditor.evidence.evidence_bundle import statements_of
from auditor.evidence.manifest import (
    ASKED,
    LOG,
    MANIFEST,
    RECORD,
    REDACTABLE,
    REQUEST,
    RESULTS,
    ROWS,
    TABLES,
    Asked,
    Manifest,
)
from auditor.evidence.signing import fingerprint
from auditor.evidence.timestamp import Authorities
from auditor.evidence.verify.bundle_parts import (
    OTHER_CODE,
    code,
    container,
    digests,
    log_chain,
    read_part,
    read_record,
    signature,
    spelled,
    unknown_parts,
)
from auditor.evidence.verify.checks import NOT_COMPUTED, Check, Needs, State, Unproven, Verified, difference, left_open
from auditor.evidence.verify.dates import check_timestamp, dated, in_order
from auditor.evidence.verify.enclosed_inputs import Inputs, read_inputs, unnamed_parts
from auditor.evidence.verify.remeasure import (
    Again,
    Kept,
    Members,
    Remade,
    Remake,
    alike_otherwise,
    counted_otherwise,
    members_of,
    unproven_alike,
)
from auditor.evidence.verify.replant import check_planted
from auditor.evidence.verify.replay import RULE_PACK, Replay
from auditor.evidence.verify.request_and_log import (
    Kinds,
    as_declared,
    as_given,
    as_logged,
    as_written,
    complete,
    why_inapplicable,
)
from auditor.judging.measurement import Measurement, Pillar, ProbeResult
from auditor.report.record.audit_report import FILES, INTAKE, AuditReport, DataRecord
from auditor.run.predictions import Answers
from auditor.statistics.changes import RateChange
from auditor.statistics.differential_fairness import DifferentialFairness
from auditor.statistics.distribution_distances import BenefitInequality, CalibrationError, WorstDistance, WorstGap
from auditor.statistics.groups import (
    RatioToLargest,
    SmallestRate,
    WorstDifference,
    WorstOddsRatio,
    WorstRatio,
)
from auditor.statistics.means import StandardizedDifference, WorstMeanDifference
from auditor.statistics.rank_estimates import AreaUnderCurve
from auditor.statistics.rates import Odds, Proportion, RateTable, WeightedSum

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_MOST_BYTES = 32 << 20


def verify_bundle(
    path: Path,
    make_probe: Remake,
    *,
    trusted: Sequence[Ed25519PublicKey] = (),
    authorities: Authorities | None = None,
) -> Verified:
    """Every check that the bundle allows.

    ``make_probe``: the probes there are, and those whose numbers follow from answers, decisions and groups alone.
    ``trusted``: keys of whom the reader expects the signature. ``authorities``: whose clocks the reader trusts, and
    expects a timestamp of. Raises UsageError where there is
    no file, DataError where it is no bundle at all; everything else is a check that came out wrong.
    """
    return verify_bytes(read_archive(path), path.name, make_probe, trusted=trusted, authorities=authorities)


def verify_bytes(
    data: bytes,
    file_name: str,
    make_probe: Remake,
    *,
    trusted: Sequence[Ed25519PublicKey] = (),
    authorities: Authorities | None = None,
) -> Verified:
    """The same of a bundle's bytes; ``file_name``: in messages."""
    entries = unpack(data, file_name)
    for name, content in entries.items():
        if name not in REDACTABLE and len(content) > _MOST_BYTES:
            raise DataError(f"{file_name!r}: the part {name[:60]!r} is larger than any audit makes it.")
    if MANIFEST not in entries:
        raise DataError(f"{file_name!r} has no {MANIFEST}: it is no evidence bundle, or that part was taken out.")
    checks = [container(data, entries)]
    try:
        manifest = Manifest.from_bytes(entries[MANIFEST])
    except DataError as error:
        return Verified(checks=(*checks, Check(name="manifest", state="wrong", detail=str(error))), report=None)
    if manifest.kind != "audit":
        checks.append(
            Check(name="manifest", state="wrong", detail=f"it says {manifest.kind}, and an audit was expected")
        )
    checks += [*digests(entries, manifest), *unknown_parts(entries)]
    whose = code(entries)
    checks += [log_chain(entries, manifest), whose]
    report, said = read_part(RECORD, entries, read_record)
    asked, more = read_part(RESULTS, entries, lambda content: ASKED.validate_json(content))
    checks += said + more
    checks.append(signature(entries, () if report is None else statements_of(manifest, report), trusted))
    when = check_timestamp(entries, report, authorities)
    checks += [] if when.check is None else [when.check]
    if report is None or asked is None:
        return Verified(checks=tuple(checks), report=report)
    other_code = whose.detail.startswith(OTHER_CODE)
    inputs, unreadable = read_inputs(entries)
    checks += [*unreadable, *unnamed_parts(entries, report, inputs), spelled(entries, report)]
    found = Counted(checks=())
    try:
        names = frozenset(map(fingerprint, trusted))
        replay = Replay(report, asked, inputs, trusted=names, other_code=other_code)
        more, undated = in_order(entries, report, inputs)
        if not any(check.name in (TABLES, ROWS) for check in unreadable):
            remade = Remade(make_probe, other_code, report.family.other_rule)
            found = check_counts(entries, manifest, asked, report, inputs, remade)
    except NOT_COMPUTED as error:
        detail = f"its numbers cannot be recomputed: {type(error).__name__}"
        return Verified(checks=(*checks, Check(name="numbers", state="wrong", detail=detail)), report=report)
    checks += [*replay.checks, *more, *found.checks]
    open_ = [*replay.unproven, *undated, *left_open(checks), *found.unproven]
    verified = Verified(
        checks=tuple(checks),
        report=report,
        from_rows=found.from_rows,
        from_tables=found.from_tables,
        there=_present_proofs(checks, report, inputs),
        unproven=tuple(dict.fromkeys(open_)),
    )
    return verified if when.at is None else dated(verified, when.at, entries)


def _present_proofs(checks: Sequence[Check], report: AuditReport, inputs: Inputs) -> frozenset[Needs]:
    """What the bundle holds of what proves."""
    fine = {check.name for check in checks if check.state == "ok"}
    held: dict[Needs, bool] = {
        "signature": "signature" in fine,
        "rows": "group table" in fine,
        "numbers": any(finding.value is not None for finding in report.findings),
        "outcomes": bool(report.findings),
        "registration": report.registration is not None and inputs.registration is not None,
        "decisions": bool(report.decisions) and bool(inputs.decisions),
        "packs": bool(report.policies) and any(name.startswith(RULE_PACK) for name in fine),
        "configuration": inputs.understood is not None,
        "request": inputs.understood is not None,
    }
    return frozenset(name for name, there in held.items() if there)


# ---- the recount -----------------------------------------------------------------------------------------------------

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
    n_train = report.data.n_train_rows or 0
    checks, unproven = check_planted(results_file, options, kept_data, remade, report.environment.seed, n_train)
    ids: dict[str, set[str]] = {"rows": set(), "tables": set(), "scores": set()}
    for name, result in {result.probe: result for result in results_file.results}.items():
        try:
            again = members.remeasure(result, options.get(name, {}), kept_data, remade)
            again = again or remade.remeasure(result, options.get(name, {}), kept_data)
        except AuditorError as error:
            checks.append(Check(name=name, state="wrong", detail=f"its options in {REQUEST} are none: {error}"))
            continue
        why = "nothing in the bundle recounts these statistics: auditor evidence reproduce asks the model"
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
        if remade.other_code and not remade.other_rule:
            moved = ["rows with the same answer"] * (again.only is None and alike_otherwise(result, found))
            moved += ["numbers of rows"] * counted_otherwise(result, found)
            why = "which outcomes depend on, are not those that this version finds"
            checks += [Check(name="outcomes", state="not checked", detail=f"{name}: its {w}, {why}") for w in moved]
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


Group = tuple[tuple[str, str], ...]
# Each rate as k of n: what k counts, what n counts, and what the rest of n is, in the group's rows.
_RATES: Mapping[str, tuple[str, str, str]] = {
    "selection_rate": ("rows decided favourably", "rows", "rows decided otherwise"),
    "favourable outcome": ("rows decided favourably", "rows", "rows decided otherwise"),
    "other outcome": ("rows decided otherwise", "rows", "rows decided favourably"),
    "true_positive_rate": ("true positives", "favourable labels", "false negatives"),
    "false_negative_rate": ("false negatives", "favourable labels", "true positives"),
    "false_positive_rate": ("false positives", "other labels", "true negatives"),
    "true_negative_rate": ("true negatives", "other labels", "false positives"),
    "accuracy": ("right decisions", "labelled rows", "wrong decisions"),
    "precision": ("true positives", "labelled rows decided favourably", "false positives"),
    "false_negatives_among_errors": ("false negatives", "wrong decisions", "false positives"),
    "scoring_rate": ("rows scored above the median", "rows", "rows scored no higher than the median"),
}
CALIBRATION = "calibration"
# Of more than two classes, whether a decision is right, and whether it is right to call it favourable or not, differ.
_OF_ALL_CLASSES = ("right decisions", "wrong decisions")
ONE_OF_MANY = ", as favourable or not"
_TABLED = (WorstDifference, WorstRatio, WorstOddsRatio, WorstMeanDifference, DifferentialFairness)


class Fact(NamedTuple):
    """``what`` is counted in a ``group`` of rows (all rows if empty): ``value``, according to ``source``."""

    group: Group
    what: str
    value: object
    source: str


def contradictions(facts: Iterable[Fact]) -> list[str]:
    """Differences between two facts on one quantity, in words; each quantity once."""
    first: dict[tuple[Group, str], Fact] = {}
    found: dict[tuple[Group, str], str] = {}
    for fact in facts:
        other = first.setdefault((fact.group, fact.what), fact)
        if other.value is not fact.value and difference(other.value, fact.value):
            where = ", ".join(f"{k} = {v}" for k, v in fact.group) or "all rows"
            found.setdefault(
                (fact.group, fact.what),
                f"{fact.what} of {where}: {_short(other.value)} by {other.source}, "
                f"{_short(fact.value)} by {fact.source}",
            )
    return list(found.values())


def facts_of(
    results: Iterable[ProbeResult],
    data: DataRecord,
    table: GroupCounts | None,
    options: Mapping[str, Mapping[str, object]],
    kinds: Kinds,
) -> list[Fact]:
    """All facts of a bundle: in its record's data, in its group table, and in every probe's answer.

    ``options``: of each probe, as they were asked for. ``kinds``: the classes of the probes.
    """
    found = [*_of_data(data), *(_of_table(table) if table is not None else ())]
    n_classes = 2 if table is None else len(table.classes)
    for result in results:
        if getattr(kinds.get(result.probe), "over_all_rows", False):
            bins = f" in {options.get(result.probe, {}).get('bins', 10)} bins"
            found += (_specific_fact(fact, result.pillar, bins, n_classes) for fact in _of_result(result))
    return found


def _specific_fact(fact: Fact, pillar: Pillar, bins: str, n_classes: int) -> Fact:
    """The fact by a name that is that of no other quantity: of bins, and of classes where there are more than two."""
    what = fact.what + (bins if fact.what == CALIBRATION else "")
    if n_classes > 2 and pillar == "fairness" and what in _OF_ALL_CLASSES and "micro" not in fact.source:
        what += ONE_OF_MANY
    if n_classes > 2 and pillar == "performance" and fact.what in (CALIBRATION, "roc_auc"):
        what += ", of the likeliest class"
    return fact._replace(what=what)


def group_of(group: Mapping[str, str]) -> Group:
    """A group of rows, independent of the order of its features."""
    return tuple(sorted((str(k), str(v)) for k, v in group.items()))


def _of_data(data: DataRecord) -> Iterator[Fact]:
    source = "the record's data"
    if data.n_rows is not None:
        yield Fact((), "rows", data.n_rows, source)
        if data.missing is not None and data.missing.labels is not None:
            yield Fact((), "labelled rows", data.n_rows - data.missing.labels, source)
    for feature, sizes in (data.groups or {}).items():
        yield Fact((), "rows", sum(sizes.values()), f"{source}, groups of {feature}")
        for level, n in sizes.items():
            yield Fact(((feature, level),), "rows", n, source)


def _of_table(table: GroupCounts) -> Iterator[Fact]:
    source = "the table of groups"
    wanted = [(), *((name,) for name in table.features)]
    if len(table.features) > 1:
        wanted.append(table.features)
    for features in wanted:
        counts = table.group_by(features)
        for group, size, cells in zip(counts.groups, counts.sizes(), counts.table, strict=True):
            of = group_of(dict(zip(features, group, strict=True)))
            labelled = cells[:-1]
            yield Fact(of, "rows", int(size), source)
            yield Fact(of, "labelled rows", int(labelled.sum()), source)
            yield Fact(of, "right decisions", int(labelled.trace()), source)
            yield Fact(of, "wrong decisions", int(labelled.sum() - labelled.trace()), source)
        if table.positive is None:
            continue
        rows = zip(counts.groups, counts.selected(), counts.sizes(), counts.binary(), strict=True)
        for group, selected, size, ((tn, fp), (fn, tp)) in rows:
            of = group_of(dict(zip(features, group, strict=True)))
            said = {
                "rows decided favourably": selected, "rows decided otherwise": size - selected,
                "true positives": tp, "false negatives": fn, "favourable labels": tp + fn,
                "false positives": fp, "true negatives": tn, "other labels": fp + tn,
                "labelled rows decided favourably": tp + fp,
                f"right decisions{ONE_OF_MANY}": tn + tp, f"wrong decisions{ONE_OF_MANY}": fn + fp,
            }  # fmt: skip
            yield from (Fact(of, what, int(value), source) for what, value in said.items())


def _of_result(result: ProbeResult) -> Iterator[Fact]:
    levels: dict[frozenset[str], list[Group]] = {}
    for m in result.measurements:
        if m.group:
            known = levels.setdefault(frozenset(m.group), [])
            if (own := group_of(m.group)) not in known:
                known.append(own)
    for m in result.measurements:
        averaged = str(m.at.get("average", ""))
        source = f"{result.probe} ({' '.join(filter(None, (m.method, m.metric, averaged)))})"
        # Of each class against the others, events are those of the class.
        scope = f", of the class {m.at['class']}" if "class" in m.at else ""
        groups = levels.get(frozenset(m.sensitive), []) if m.sensitive else []
        yield from _measurement_facts(m, group_of(m.group), groups, scope, source)


def _measurement_facts(
    m: Measurement, own_group: Group, groups: Sequence[Group], scope: str, source: str
) -> Iterator[Fact]:
    e = m.estimate
    if isinstance(e, Proportion):
        yield from _rate(m.metric, own_group, e.successes, e.n, scope, source)
    elif isinstance(e, Odds):
        yield Fact(own_group, "false negatives" + scope, e.successes, source)
        yield Fact(own_group, "false positives" + scope, e.failures, source)
    elif isinstance(e, RateChange):
        yield Fact(own_group, "labelled rows", e.n, source)
        yield Fact(own_group, "rows of the commonest class", e.before, source)
        yield Fact(own_group, "right decisions", e.before + e.gained - e.lost, source)
    elif isinstance(e, BenefitInequality):
        yield Fact(own_group, "false negatives", e.below, source)
        yield Fact(own_group, "false positives", e.above, source)
        yield Fact(own_group, "labelled rows", e.below + e.equal + e.above, source)
    elif isinstance(e, WeightedSum) and e.table.rate == "recall":
        yield Fact(own_group, "labelled rows", sum(e.table.n), source)
        yield Fact(own_group, "right decisions", sum(e.table.successes), source)
    elif isinstance(e, AreaUnderCurve) and m.metric == "roc_auc":
        yield from _curve(e, own_group, source)
    elif isinstance(e, CalibrationError):
        yield Fact(own_group, CALIBRATION, e.model_dump(mode="json"), source)
        yield Fact(own_group, "labelled rows", sum(e.n), source)
    elif isinstance(e, StandardizedDifference):
        yield Fact(own_group, "rows", e.n_first, source)
    elif isinstance(e, WorstGap) and len(e.parts) == len(groups):
        for group, part in zip(groups, e.parts, strict=True):
            if isinstance(part, AreaUnderCurve):
                yield from _curve(part, group, source)
            elif isinstance(part, CalibrationError):
                yield Fact(group, CALIBRATION, part.model_dump(mode="json"), source)
    elif isinstance(e, WorstDistance) and len(e.n) == len(groups):
        yield from (Fact(group, "rows", n, source) for group, n in zip(groups, e.n, strict=True))
    elif isinstance(e, (*_TABLED, SmallestRate)):
        for table in (e.table,) if isinstance(e, SmallestRate) else e.tables:
            # A table that leaves groups out does not say which.
            yield from _tabled(table, groups if len(groups) == len(table.n) else (), scope, source)
    elif isinstance(e, RatioToLargest):
        # The probe's categories stand in the order of their names, as those of its headline do.
        if e.index < len(e.table.n):
            yield from _tabled(RateTable(rate=e.table.rate, successes=(e.table.successes[e.index],),
                                         n=(e.table.n[e.index],)), [own_group], scope, source)  # fmt: skip
    if m.group and m.metric in _RATES and m.metric != "scoring_rate" and not scope and not isinstance(e, Proportion):
        yield Fact(own_group, f"estimate of {m.metric}", e.model_dump(mode="json"), source)


def _tabled(table: RateTable, groups: Sequence[Group], scope: str, source: str) -> Iterator[Fact]:
    for group, k, n in zip(groups, table.successes, table.n, strict=False):
        yield from _rate(table.rate, group, k, n, scope, source)


def _rate(rate: str, group: Group, k: int, n: int, scope: str, source: str) -> Iterator[Fact]:
    if rate == "base_rate":
        yield Fact(group, "rows of the commonest class", k, source)
        yield Fact(group, "labelled rows", n, source)
        return
    name, at, threshold = rate.partition(" rate at ")
    if at:
        # A score's rates, if another threshold decided: events of that threshold, among the same rows.
        name, scope = f"{name.replace(' ', '_')}_rate", f", if a score of {threshold} decided"
    name = name if at else rate
    if name not in _RATES:
        return
    event, of, rest = _RATES[name]
    yield Fact(group, event + scope, k, source)
    yield Fact(group, of if at or of in ("rows", "labelled rows") else of + scope, n, source)
    yield Fact(group, rest + scope, n - k, source)


def _curve(e: AreaUnderCurve, group: Group, source: str) -> Iterator[Fact]:
    yield Fact(group, "roc_auc", e.model_dump(mode="json"), source)
    yield Fact(group, "favourable labels", e.n_positive, source)
    yield Fact(group, "other labels", e.n_negative, source)


def _short(value: object) -> str:
    if isinstance(value, dict):
        shown = value.get("centre", value.get("n", value))
        return f"{shown:.6g}" if isinstance(shown, float) else str(shown)[:60]
    return f"{value:,}" if isinstance(value, int) else str(value)[:60]
