"""An audit assembled anew from what its bundle encloses, and every place where its record is another.

A record follows from the answers, the request, the files that decided, the registration, the decisions, the rule packs
and the stored rows. What follows from none of them is wrong, or stands in the table of what a signer may state.
"""

from __future__ import annotations

import itertools
import math
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from auditor.core.errors import AuditorError
from auditor.data.recounted_truth import GroupsDigest
from auditor.evidence.history.earlier_looks import misspent
from auditor.evidence.manifest import REQUEST, RESULTS, Asked, canonical
from auditor.evidence.registration import ROLES, held_against, with_what_became
from auditor.evidence.signed_acceptances import decision_records
from auditor.evidence.verify.checks import Check, State, Unproven, difference
from auditor.evidence.verify.enclosed_inputs import Inputs
from auditor.evidence.verify.stated_fields import list_unproven, unexplained
from auditor.judging.budgets import Family
from auditor.judging.criterion import Criterion, criteria_in, parse_budgets, parse_criterion
from auditor.judging.figure_types import Figure
from auditor.judging.input_files import ObeyedFile, roles_of, shipped
from auditor.judging.judgement import Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import ProbeResult
from auditor.judging.policy import Policy, is_of_another, load_policies, pack_names, parse_policy
from auditor.report.drawing.figures import figures_as_before, figures_of
from auditor.report.record.audit_report import FILES, AuditReport
from auditor.report.record.configuration import ConfigurationFile, Labels, about_of
from auditor.report.record.contradictions import contradictions
from auditor.report.record.control_record import PolicyRecord
from auditor.report.record.controls import with_policies
from auditor.report.record.earlier_audits import DecisionRecord
from auditor.report.record.group_sizes import sizes_in
from auditor.report.record.translations import ENGLISH
from auditor.run import __version__
from auditor.run.predictions import BLURRED_OVER, Answers
from auditor.run.run_audit import assemble, files_result

Values = Mapping[str, object]
RULE_PACK = "rule pack "
CONFIGURATION, REGISTRATION, DECISIONS = "configuration", "registration", "decisions"
# Numbers are computed on another machine: what they are rounded to, and by how much they may differ before.
_DIGITS, _SLACK, _NOTHING = ".4g", 2e-6, 1e-12
_BLANK = canonical([[], [], None, []])
_Point = tuple[float | None, ...]
# What a finding says whatever the rules by which outcomes follow from what was measured.
_OF_NO_RULE = {
    "id", "probe", "method", "pillar", "metric", "group", "sensitive", "at", "value", "ideal", "chance", "n_samples",
    "criterion", "citation", "detail", "estimate",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Source:
    """What follows of the record from another part of the bundle: its values by dotted path.

    ``name``: of the check; ``fine``: what it says where all values agree; ``state``: of a check where one does not.
    ``known``: paths that are held to something else than a value.
    """

    name: str
    values: Values = field(default_factory=dict)
    fine: str = ""
    unproven: tuple[Unproven, ...] = ()
    checks: tuple[Check, ...] = ()
    known: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """The places that follow from it."""
        return (*self.values, *self.known)

    def compared(self, document: Mapping[str, Any]) -> list[Check]:
        """The checks of a document's values against these."""
        wrong = [
            Check(name=self.name or path.partition(".")[0], state="wrong", detail=where)
            for path, value in self.values.items()
            if (where := difference(_blank(value_at(document, path)), _blank(value), path))
        ]
        if self.fine and not wrong and not self.checks:
            return [Check(name=self.name, state="ok", detail=self.fine)]
        return [*wrong, *self.checks]


def value_at(document: Any, path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    for key in path.split("."):
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def _blank(value: object) -> object:
    """What says nothing is left out of a record, or is empty."""
    return None if value in ("", [], {}, ()) else value


def replay(
    report: AuditReport,
    asked: Asked,
    inputs: Inputs,
    *,
    trusted: Collection[str],
    other_code: bool,
) -> tuple[list[Check], list[Unproven]]:
    """Every place where the record is not what its audit comes to when it is assembled anew, and what stays open.

    ``trusted``: fingerprints of keys. ``other_code``: another version of the toolkit measured.
    """
    record = report.model_dump(mode="json")
    sources = sources_of(report, asked, inputs, trusted=trusted, other_code=other_code)
    checks = [check for source in sources for check in source.compared(record)]
    checks += _answers(report, asked, inputs, other_code=other_code)
    checks += [Check(name="looks", state="wrong", detail=detail) for detail in misspent(report)]
    open_ = [each for source in sources for each in source.unproven]
    paths = [path for source in sources for path in source.paths]
    open_ += list_unproven(record, paths)
    checks += [
        Check(name=path.partition(".")[0], state="wrong", detail=f"{path}: nothing in the bundle comes to it")
        for path in unexplained(record, paths, open_)
    ]
    return checks, open_


def sources_of(
    report: AuditReport, asked: Asked, inputs: Inputs, *, trusted: Collection[str], other_code: bool
) -> list[Source]:
    """What each part of a bundle says of its record; parameters as of :func:`replay`."""
    return [
        _judged(report, asked, other_code=other_code),
        _requested(report, inputs),
        *_planned(report, inputs),
        _configured(report, inputs),
        _registered(report, inputs, trusted),
        _decided(report, inputs, trusted),
        _measured(report, inputs),
        *_controlled(report, inputs),
    ]


# ---- by the answers --------------------------------------------------------------------------------------------------


def _judged(report: AuditReport, asked: Asked, *, other_code: bool) -> Source:
    """Every number, outcome, count and figure, by the statistics of the answers, judged again.

    What an earlier rule made of the numbers only an earlier auditor can tell; the numbers themselves are checked. The
    code that is installed here follows no other.
    """
    judgements, family = judge(asked.results, asked.criteria, asked.family)
    again = assemble(
        asked.results,
        asked.criteria,
        judgements=(judgements, family),
        model=report.model,
        data=report.data,
        environment=report.environment,
        refusal=report.refusal,
        allow_inconclusive=report.allow_inconclusive,
    )
    same_rule = report.family.rule == again.family.rule or not other_code
    parts = ["criteria", "definitions", "questions", *(["family", "summary", "exit_code"] if same_rule else [])]
    parts += [] if other_code else ["figures", "schema_version", "tool"]
    found = again.model_dump(mode="json", include=set(parts))
    checks = _finding_checks(report, again, fields=None if same_rule else _OF_NO_RULE, ordered=not other_code)
    if other_code and report.figures != again.figures:
        judgements = judgements if same_rule else _as_recorded(judgements, report)
        checks += _figure_checks(report, judgements, asked.results)
    if not same_rule:
        checks += [Check(name=name, state="wrong", detail=detail) for name, detail in contradictions(report)]
        detail = (
            f"outcomes and intervals follow rule {report.family.rule} of another version of auditor, and this one "
            f"applies rule {again.family.rule}: verify them with the version that made them "
            f"({report.tool.get('version')})"
        )
        checks.append(Check(name="outcomes", state="not checked", detail=detail))
    elif not any(check.state == "wrong" for check in checks):
        n = sum(f.value is not None for f in report.findings)
        detail = f"{n:,} numbers, their intervals, p-values and outcomes recomputed from their statistics"
        checks.append(Check(name="numbers", state="ok", detail=detail))
    return Source(
        name="",
        values={part: found.get(part) for part in parts},
        checks=tuple(checks),
        known=("findings", "figures", "family", "summary", "exit_code"),
    )


def _finding_checks(report: AuditReport, again: AuditReport, *, fields: set[str] | None, ordered: bool) -> list[Check]:
    """Where the record's findings are not those that were judged ``again``."""
    mine, theirs = ({f.id: f.model_dump(mode="json", include=fields) for f in r.findings} for r in (again, report))
    ids = [f.id for f in report.findings]
    twice = sorted({name for name in ids if ids.count(name) > 1}) if len(theirs) < len(ids) else []
    found = [(name, "is in the record more than once") for name in twice]
    found += [(name, "was measured, and is not in the record") for name in mine if name not in theirs]
    found += [(name, "is not among what was measured") for name in theirs if name not in mine]
    found += [(name, where) for name in theirs if name in mine and (where := difference(theirs[name], mine[name]))]
    if ordered and not found and [*theirs] != [*mine]:
        found = [("findings", "they stand in another order than they were judged in")]
    return [Check(name=name, state="wrong", detail=detail) for name, detail in found]


def _figure_checks(report: AuditReport, judgements: Sequence[Judgement], results: Sequence[ProbeResult]) -> list[Check]:
    """Whether figures that another version drew show a point, a bound or a picture that no redrawn one shows."""
    before = figures_as_before(judgements, results)
    said, drawn = ([f.model_dump(mode="json") for f in figures] for figures in (report.figures, before))
    if not difference(said, drawn):
        return []
    known = [*figures_of(judgements, results), *before]
    points = {key for figure in known for point in _points(figure) for key in _spellings(point)}
    pictures = {_BLANK, *map(_picture, known)}
    strange = [
        figure.id
        for figure in report.figures
        if _picture(figure) not in pictures or any(_spelled(point) not in points for point in _points(figure))
    ]
    if strange:
        return [Check(name="figures", state="wrong", detail=f"{strange[0]} shows a value that is in no finding")]
    detail = "another version laid them out; every value that they show is in a finding"
    return [Check(name="figures", state="not checked", detail=detail)]


def _points(figure: Figure) -> Iterator[_Point]:
    """Each value with the ends of its interval, whatever series it is in, and what is marked on the axes."""
    yield from ((figure.criterion,), (figure.marked,))
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
    return canonical([*figure.model_dump(mode="json", include={"texts", "heatmaps", "table", "swarms"}).values()])


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


# ---- by the request and the plan in force ----------------------------------------------------------------------------


def _requested(report: AuditReport, inputs: Inputs) -> Source:
    """What the options as given say of the record."""
    options = inputs.options
    values: dict[str, object] = {
        "environment.seed": options.get("seed", 0),
        "allow_inconclusive": bool(options.get("allow_inconclusive", False)),
        "roles": inputs.request.get(ROLES),
    }
    if report.refusal is None:
        values |= {"data.cluster": options.get("cluster"), "data.weight": options.get("weight")}
    for name, path in (("model", report.model.path), ("data", report.data.path)):
        given = options.get(name)
        # The record names a database otherwise than it was asked for.
        if None not in (path, given) and "://" not in str(given) and "predictions" not in options:
            values[f"{name}.path"] = given
    return Source(name=REQUEST, values=values)


def _planned(report: AuditReport, inputs: Inputs) -> Iterator[Source]:
    """What the plan in force says of the record, and what the files that decided say of the plan."""
    understood = inputs.understood
    if understood is None:
        why = "the settings in force are not in the request"
        yield Source(name=REQUEST, unproven=(Unproven(where="request.json: options.*", why=why, needs="request"),))
        return
    plan, settings, data = understood.plan, understood.plan.settings, report.data
    campaign = report.looks.campaign if report.looks is not None else None
    files = [ConfigurationFile(**f.model_dump(include=set(ConfigurationFile.model_fields))) for f in understood.files]
    values: dict[str, object] = {
        "criteria": [c.model_dump(mode="json") for c in plan.criteria],
        "family.multiplicity": plan.multiplicity,
        "environment.seed": plan.seed,
        "allow_inconclusive": settings.get("allow_inconclusive", False),
        "roles": settings.get(ROLES),
        "configuration.files": [file.model_dump(mode="json") for file in files],
        "looks.campaign.name": settings.get("campaign"),
        "looks.campaign.planned": settings.get("campaign_looks"),
        "family.error_rate" if campaign is None else "looks.campaign.error_rate": plan.error_rate,
    }
    if understood.command and report.environment.command is not None:
        values["environment.command"] = shlex.join(["auditor", *understood.command])
    if report.refusal is None and data.n_rows is not None:
        given = {name: settings[name] for name in ("target", "positive", "sensitive") if settings.get(name)}
        values |= {f"data.{name}": value for name, value in given.items()}
        values |= {f"data.{name}": settings.get(name) for name in ("cluster", "weight")}
    open_ = []
    for name, (digest, path, said) in {
        "model": ("model.sha256", report.model.path, report.model.sha256),
        "data": ("data.sha256", data.path, data.sha256),
        "train": ("data.train_sha256", data.train_path, data.train_sha256),
    }.items():
        if said is None or (in_plan := plan.files.get(name)) is None:
            continue
        if Path(path or "").suffix:
            values[digest] = in_plan
        elif said != in_plan:
            why = (
                "the plan has another digest of it, as of a folder: that both are of the same files is the signer's "
                "word"
            )
            where = f"request.json: understood.plan.files.{name}"
            open_.append(Unproven(where=where, why=why, needs="registration"))
    yield Source(name=REQUEST, values=values, unproven=tuple(open_), checks=tuple(_plan_checks(inputs)))


def _plan_checks(inputs: Inputs) -> Iterator[Check]:
    """Where the plan names other files than decided, options of probes are not in it, or a shipped file is another."""
    assert inputs.understood is not None
    plan, files = inputs.understood.plan, inputs.understood.files
    wrong = [
        difference(
            [[f.role, f.name, f.sha256] for f in plan.configuration],
            [[f.role, Path(f.path).name, f.sha256] for f in files],
            "understood.plan.configuration",
        )
    ]
    for probe, own in inputs.probe_options.items():
        said = plan.probes.get(probe)
        if said is not None and not own.keys() <= said.options.keys():
            wrong.append(f"options of {probe} were given, and are not in the plan")
    for file in inputs.obeyed:
        if file.origin == "shipped" and file.role in ("criteria", "rule pack"):
            own_file = shipped("profiles" if file.role == "criteria" else "policies", file.path, file.role)
            if own_file is None or own_file.sha256 != file.sha256:
                wrong.append(
                    f"{file.path} is said to come with the tool, and is not the one that comes with this version"
                )
        elif file.role == "rule pack":
            # One that cannot be read is named where its criteria are.
            with suppress(AuditorError, ValueError):
                if is_of_another(_policy_of(file)):
                    wrong.append(
                        f"{file.path} goes by the name of a rule pack that comes with the tool, and has another text"
                    )
    return (Check(name=REQUEST, state="wrong", detail=detail) for detail in wrong if detail)


def _answers(report: AuditReport, asked: Asked, inputs: Inputs, *, other_code: bool) -> list[Check]:
    """Whether the answers were judged by the criteria of the files and the error rate of the record, and say of files
    that could not be read what the record says."""
    rate, multiplicity = report.family.error_rate, report.family.multiplicity
    # Nothing else of a family is known before it is judged.
    before = asked.family if other_code else Family()
    family = replace(before, error_rate=rate, multiplicity=multiplicity)
    wrong = [(RESULTS, difference(asdict(asked.family), asdict(family), "family"))]
    if inputs.complete:
        try:
            said, found = ([c.model_dump(mode="json") for c in each] for each in (asked.criteria, _required(inputs)))
            wrong.append((CONFIGURATION, difference(said, found, "results.json: criteria")))
        except (AuditorError, ValueError, RecursionError) as error:
            wrong.append((CONFIGURATION, _unreadable(error)))
    if report.refusal is None:
        mine = [result.not_run for result in files_result(report.data)]
        wrong.append((FILES, difference([r.not_run for r in asked.results if r.probe == FILES], mine, "not_run")))
    return [Check(name=name, state="wrong", detail=detail) for name, detail in wrong if detail]


# ---- by the files that decided ---------------------------------------------------------------------------------------


def _unreadable(error: Exception) -> str:
    return f"a file that decided the audit cannot be read: {str(error)[:200]}".rstrip(".")


def _configured(report: AuditReport, inputs: Inputs) -> Source:
    """The identity, the words and the roles that the configuration files come to."""
    if not inputs.complete:
        why = "a file that decided it is left out" if inputs.understood is not None else "no configuration is enclosed"
        places = ("record.json: criteria.*", "record.json: about.*", "record.json: roles.*")
        open_ = [Unproven(where=place, why=why, needs="configuration") for place in places]
        open_ += [
            Unproven(
                where=f"request.json: understood.files.{file.path}",
                why=file.left_out or "it is not enclosed",
                needs="configuration",
            )
            for file in inputs.left_out
        ]
        return Source(name=CONFIGURATION, unproven=tuple(open_))
    try:
        content: dict[str, Any] = {}
        where = "the configuration"
        for file in inputs.of_role("configuration"):
            content, where = file.toml(file.path), file.path
        language = ENGLISH if report.about is None else report.about.language
        labels = Labels.from_table(_table(content, "labels"), where)
        about = about_of(content, labels, language, where, next(iter(inputs.of_role("catalogue")), None))
        roles = roles_of(_table(content, "roles"), where)
    except (AuditorError, ValueError, RecursionError) as error:
        return Source(name=CONFIGURATION, checks=(Check(name=CONFIGURATION, state="wrong", detail=_unreadable(error)),))
    n = len(inputs.obeyed)
    return Source(
        name=CONFIGURATION,
        values={
            name: None if made is None else made.model_dump(mode="json")
            for name, made in (("about", about), ("roles", roles))
        },
        fine=f"criteria, words and roles made again from {n} {'file' if n == 1 else 'files'}",
    )


def _required(inputs: Inputs) -> list[Criterion]:
    """The criteria that the files set, in reading order."""
    found: list[Criterion] = []
    for file in inputs.of_role("configuration"):
        content, name = file.toml(file.path), Path(file.path).name
        entries = content.get("criteria")
        if "criteria" in file.keys and isinstance(entries, list):
            budgets = parse_budgets(content.get("budgets", {}), name)
            found += [
                parse_criterion(entry, f"{name}, criterion {i}", {"source": name}, budgets=budgets)
                for i, entry in enumerate(entries, 1)
            ]
    for file in inputs.of_role("criteria", "rule pack"):
        found += criteria_in(file) if file.role == "criteria" else _policy_of(file).criteria
    return found


def _policy_of(file: ObeyedFile) -> Policy:
    return parse_policy(file.text, f"{file.path}.toml" if file.origin == "shipped" else Path(file.path).name)


def _table(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = content.get(name, {})
    return found if isinstance(found, dict) else {}


# ---- by the registration, the decisions, the rows and the rule packs -------------------------------------------------


def _registered(report: AuditReport, inputs: Inputs, trusted: Collection[str]) -> Source:
    """The registration's record, by what was registered and the plan in force."""
    said, opened, where = report.registration, inputs.registration, f"record.json: {REGISTRATION}"
    if said is None:
        return Source(name=REGISTRATION, values={REGISTRATION: None})
    if opened is None:
        why = "the registration is not enclosed"
        return Source(name=REGISTRATION, unproven=(Unproven(where=f"{where}.*", why=why, needs="registration"),))
    if inputs.understood is None:
        made, why = opened.registration, "the plan in force is not in the request"
        values = {
            "sha256": made.digest,
            "registered": made.registered,
            "by": made.by,
            "signed_with": opened.signed_with,
        }
        return Source(
            name=REGISTRATION,
            values={f"{REGISTRATION}.{name}": value for name, value in values.items()},
            unproven=(Unproven(where=f"{where}.*", why=why, needs="registration"),),
        )
    plan = inputs.understood.plan
    began, version = datetime.fromisoformat(inputs.understood.began), str(report.tool.get("version"))
    record = held_against(opened, plan, path=said.path, started=began, tool=version)
    record = with_what_became(
        record, report.findings, was_refused=report.refusal is not None, planned=list(plan.probes)
    )
    open_ = [
        Unproven(
            where=f"{where}.registered",
            why="a registration's day is its author's word where no timestamp tells it",
            needs="timestamp",
        )
    ]
    if said.signed_with not in trusted:
        open_.append(
            Unproven(where=f"{where}.by", why=f"it is signed {_whose(said.signed_with)}", needs="registration")
        )
    loose = [name for name, digest in plan.files.items() if digest is None]
    if loose:
        why = f"of {', '.join(loose)} no digest was held against the registered one"
        open_.append(Unproven(where=f"{where}.deviations", why=why, needs="registration"))
    n = len(said.deviations)
    return Source(
        name=REGISTRATION,
        values={
            f"{REGISTRATION}.{name}": value
            for name, value in record.model_dump(mode="json").items()
            # Where the history holds it is for the history to say.
            if name not in ("path", "entered", "cautions")
        },
        fine=f"digest, author, day, signature and {n} {'deviation' if n == 1 else 'deviations'} found anew",
        unproven=tuple(open_),
    )


def _whose(signed_with: str | None) -> str:
    return "by nobody" if signed_with is None else f"with the key {signed_with[:16]}, which you did not name"


def _decided(report: AuditReport, inputs: Inputs, trusted: Collection[str]) -> Source:
    """The decisions, by the enclosed entries of the history and the signatures in them."""
    enclosed, where = {entry.number: entry for entry in inputs.decisions.values()}, f"record.json: {DECISIONS}"
    said = {decision.entry: decision for decision in report.decisions}
    try:
        day = date.fromisoformat(report.created[:10])
        again = {record.entry: record for record in decision_records(enclosed, None, today=day)}
    except (AuditorError, ValueError) as error:
        wrong = Check(name=DECISIONS, state="wrong", detail=str(error).rstrip("."))
        return Source(name=DECISIONS, checks=(wrong,) if said or enclosed else (), known=(DECISIONS,))
    made = said | {entry: _as_far_as_known(record, said.get(entry)) for entry, record in again.items()}
    open_ = []
    for entry, decision in said.items():
        if entry not in enclosed:
            open_.append(Unproven(where=f"{where}.{entry}.*", why="its entry is not enclosed", needs="decisions"))
            continue
        why = "when it was entered, and that nothing was entered before, is for the history to say"
        open_.append(Unproven(where=f"{where}.{entry}.created", why=why, needs="history"))
        if decision.signed_with not in trusted:
            why = f"it is signed {_whose(decision.signed_with)}"
            open_.append(Unproven(where=f"{where}.{entry}.*", why=why, needs="decisions"))
    n = f"{len(again)} {'entry' if len(again) == 1 else 'entries'}"
    return Source(
        name=DECISIONS,
        values={DECISIONS: [made[entry].model_dump(mode="json") for entry in sorted(made)]},
        fine=f"{n} of the history read anew, signatures included" if again else "",
        unproven=tuple(open_),
    )


def _as_far_as_known(record: DecisionRecord, said: DecisionRecord | None) -> DecisionRecord:
    """The record of a decision; which findings an old one is about follows from its audit, which is not enclosed."""
    if said is None or record.decided or said.one_by_one:
        return record
    of_it = {each.finding for each in said.decided} <= set(record.findings)
    return record.model_copy(update={"decided": said.decided}) if of_it else record


def _measured(report: AuditReport, inputs: Inputs) -> Source:
    """Classes, groups and counts, by the table of groups and the rows."""
    head, table, answers, data = inputs.head, inputs.table, inputs.answers, report.data
    values: dict[str, object] = {}
    wrong = []
    if head is not None:
        values["data.n_rows"] = head.n
        if head.kind == "classifier":
            values |= _of_classes(head.classes, head.positive)
        # Scores of rows that do not say their group are blurred, and no others.
        wrong.append(difference(head.blurred, BLURRED_OVER if table and not head.features else 1, "rows.blurred"))
    if table is not None:
        of_table = {"data.n_rows": table.n, **_of_classes(table.classes, table.positive)}
        wrong += [difference(values[path], of_table[path], f"rows' {path}") for path in of_table.keys() & values.keys()]
        values |= of_table | {"data.sensitive": table.features}
    sizes = sizes_in(table) if table is not None else None
    if answers is not None and answers.groups:
        sizes = sizes or {name: Counter(own) for name, own in answers.groups.items()}
        if data.groups_sha256 is not None:
            values["data.groups_sha256"] = _digests(answers)
    if sizes is not None and data.groups is not None:
        values["data.groups"] = sizes
    unlabelled = None if table is None else int(table.table[:, -1].sum())
    if answers is not None:
        unlabelled = int(np.isnan(answers.truth).sum())
    if data.missing is not None and unlabelled is not None:
        # Where no row has a label, whether there was a column of them is for the record to say.
        if data.missing.labels is not None or unlabelled < (data.n_rows or 0):
            values["data.missing.labels"] = unlabelled
    return Source(
        name="data",
        values=values,
        fine=f"the record's {', '.join(values)} are those of what is stored" if values else "",
        checks=tuple(Check(name="data", state="wrong", detail=detail) for detail in wrong if detail),
    )


def _of_classes(classes: Sequence[str], positive: int | None) -> dict[str, object]:
    return {"model.classes": list(classes), "data.positive": None if positive is None else classes[positive]}


def _digests(answers: Answers) -> dict[str, str]:
    found = {}
    for name, levels in zip(answers.head.features, answers.head.levels, strict=True):
        place = {level: i for i, level in enumerate(levels)}
        digest = GroupsDigest()
        digest.add(np.asarray([place[level] for level in answers.groups[name]], np.int64), levels)
        found[name] = digest.hexdigest()
    return found


def _controlled(report: AuditReport, inputs: Inputs) -> Iterator[Source]:
    """The rule packs and the controls held to them, by the packs' texts; of before there were digests, nothing."""
    enclosed: dict[str, Policy] = {}
    for file in inputs.of_role("rule pack"):
        # One that cannot be read is named by the configuration.
        with suppress(AuditorError, ValueError):
            pack = _policy_of(file)
            enclosed[pack.sha256] = pack
    days, open_ = _days(report, inputs), []
    for policy in report.policies:
        if policy.sha256:
            yield Source(name=f"{RULE_PACK}{policy.name}", checks=tuple(_pack_checks(report, policy, enclosed, days)))
        else:
            why = "the record does not say which text it had"
            open_.append(Unproven(where=f"record.json: controls of {policy.name}.*", why=why, needs="packs"))
    if report.policies and not days:
        why = "on which day they were to be held to be in force is not in the request"
        open_.append(Unproven(where="record.json: policies.as_of", why=why, needs="packs"))
    named, digests = {policy.name for policy in report.policies}, {policy.sha256 for policy in report.policies}
    wrong = [
        (f"{RULE_PACK}{pack.name}", "it is enclosed, and the record does not name it")
        for digest, pack in enclosed.items()
        if digest not in digests
    ]
    ids = {finding.id for finding in report.findings}
    for control in report.controls:
        if control.policy not in named:
            wrong.append(("controls", f"{control.id} is of a rule pack that the record does not name"))
        if any(finding not in ids for cell in control.cells for finding in cell.findings):
            wrong.append(("controls", f"{control.id} rests on a finding that is not there"))
    yield Source(
        name="controls",
        checks=tuple(Check(name=name, state="wrong", detail=detail) for name, detail in wrong[:20]),
        unproven=tuple(open_),
        known=("policies", "controls"),
    )


def _pack_checks(
    report: AuditReport, policy: PolicyRecord, enclosed: Mapping[str, Policy], days: Collection[str]
) -> Iterator[Check]:
    """One rule pack held against the findings anew, by its text that is enclosed or else shipped with auditor."""
    name = f"{RULE_PACK}{policy.name}"
    own = enclosed.get(policy.sha256)
    if own is None and policy.name in pack_names():
        own = next((pack for pack in load_policies([policy.name])[0] if pack.sha256 == policy.sha256), None)
    if own is None:
        detail = "its text is neither enclosed nor of this auditor: SHA-256 " + policy.sha256[:16]
        yield Check(name=name, state="not checked", detail=detail)
        return
    again = with_policies(report, [own], date.fromisoformat(policy.as_of))
    found, said = (
        {"policy": a.model_dump(mode="json"), "controls": [c.model_dump(mode="json") for c in b]}
        for a, b in (
            (again.policies[0], again.controls),
            (policy, [c for c in report.controls if c.policy == policy.name]),
        )
    )
    where = difference(said, found)
    detail = where or f"SHA-256 of its text, and {len(again.controls)} controls held against the findings anew"
    # How cells follow from findings is of the code that drew them.
    other: State = "wrong" if report.tool.get("version") == __version__ else "not checked"
    yield Check(name=name, state=other if where else "ok", detail=detail)
    if days and policy.as_of not in days:
        detail = f"it is held to be in force on {policy.as_of}, which was not asked for"
        yield Check(name=name, state="wrong", detail=detail)


def _days(report: AuditReport, inputs: Inputs) -> set[str]:
    """The days on which packs may be held to be in force: the one asked for, else that of the audit."""
    if inputs.understood is None:
        return set()
    if (asked := inputs.understood.as_of) is not None:
        return {asked.isoformat()}
    try:
        made = date.fromisoformat(report.created[:10])
    except ValueError:
        return set()
    return {made.isoformat(), (made + timedelta(days=1)).isoformat()}
