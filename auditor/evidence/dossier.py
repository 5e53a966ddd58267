"""A dossier: what a rule pack asks for, control by control, filled in as far as the record goes.

The rest is an empty field for a named role, or said to be not measured: a skeleton to work from, not legal advice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from urllib.parse import quote

from auditor.finding.display import EARNED, RESERVED
from auditor.finding.policy import CERTAINTY, Control, EvidenceRule, Policy, RecordPart
from auditor.record import text
from auditor.record.acceptances import told as accepted_told
from auditor.record.audit_report import AuditReport, Finding
from auditor.record.control_record import CellRecord
from auditor.record.controls import Beside, fitting, with_policies
from auditor.report import view
from auditor.report.markdown import code_span, escaped
from auditor.report.shown_controls import ShownPolicy, policies_of
from auditor.report.view import Row
from auditor.statistics.rates import Proportion

MOST_ROWS = 100
_LONGEST = 4_000
ATTESTATION_NEEDED = "ATTESTATION NEEDED"
NOT_MEASURED = "NOT MEASURED"
NOT_FOR_THIS_KIND = "NOT FOR THIS KIND OF MODEL"
_NOT_KNOWN = "not known"
_TABLES = frozenset[RecordPart]({"selection rates", "scoring rates"})


def render_dossier(
    report: AuditReport,
    policies: Sequence[Policy],
    as_of: date,
    *,
    report_href: str | None = None,
    tradeoff: Beside | None = None,
) -> str:
    """The dossier of a record as Markdown: every control of every pack a section.

    ``report_href``: where the HTML of the same record lies, as seen from the dossier, so that findings are links; None
    names them only. ``tradeoff``: what a report of a trade-off shows. Everything that came from a model, data or pack
    is escaped.
    """
    held = with_policies(report, policies, as_of, tradeoff=tradeoff)
    rows = view.rows_of(report.findings)
    dossier = _Dossier(report, {row.finding.id: row for row in rows}, report_href)
    shown = policies_of(held, rows)
    lines = dossier.head(shown)
    for policy, own in zip(policies, shown, strict=True):
        lines += dossier.policy(policy, own)
    return "\n".join(lines).rstrip() + "\n"


class _Dossier:
    """One record, and where its findings are to be looked up."""

    def __init__(self, report: AuditReport, rows: Mapping[str, Row], href: str | None) -> None:
        self.report = report
        self.rows = rows
        self.href = href

    def head(self, shown: Sequence[ShownPolicy]) -> list[str]:
        report = self.report
        verdict = view.verdict_of(report)
        counts = view.counts_in_words(report)
        lines = [f"# Dossier: {escaped('; '.join(s.policy.title for s in shown))}", ""]
        lines += [
            "A skeleton, filled in from the record of one audit. **Not legal advice.** Fields marked "
            f"{ATTESTATION_NEEDED} are for the named role to fill in; what is marked {NOT_MEASURED} is not known. "
            "Nothing here says that a duty is met: that is for a qualified person to judge.",
            "",
        ]
        lines += [line for warning in view.warnings_of(report) for line in (f"> **Note well.** {_long(warning)}", "")]
        lines += _fields(
            {
                "Record (SHA-256)": view.document_id(report),
                "Audit of": report.model.path or "a model in memory",
                "Date of the audit": report.created,
                "Result": f"{verdict.headline}. {verdict.sentence} Exit code {report.exit_code}.",
                "Findings": counts,
                "Refused": None if report.refusal is None else report.refusal.reason,
            }
        )
        return lines

    def policy(self, policy: Policy, shown: ShownPolicy) -> list[str]:
        record = shown.policy
        lines = [f"## {escaped(record.title)}", ""]
        lines += [
            f"{_long(shown.origin)} {_long(shown.held_to)}",
            "",
        ]
        lines += [f"> **Note well.** {_long(record.old)}", ""] * bool(record.old)
        lines += [f"- {_long(note)}" for note in record.notes]
        lines += [""] * bool(record.notes)
        lines += _open(shown)
        printed: dict[RecordPart, str] = {}
        for control, held in zip(policy.controls, shown.controls, strict=True):
            lines += self._control(control, held.control.cells, in_force=held.control.in_force, printed=printed)
        return lines

    def _control(
        self, control: Control, cells: Sequence[CellRecord], *, in_force: bool, printed: dict[RecordPart, str]
    ) -> list[str]:
        lines = [f"### {escaped(control.id)}: {escaped(control.title)}", ""]
        dates = "".join(
            f", {word} {day.isoformat()}"
            for word, day in (("from", control.applies_from), ("until", control.applies_until))
            if day is not None
        )
        force = "" if in_force else f" **Not in force on the day of this dossier{dates}.**"
        lines += [f"Source: {_long(control.source)}; {CERTAINTY[control.certainty]}.{force}", ""]
        for part in control.record:
            if part in printed:
                lines += [f"{_PARTS[part].title}: under {escaped(printed[part])}.", ""]
                continue
            printed[part] = control.id
            lines += [f"**{_PARTS[part].title}**", "", *_PARTS[part].lines(self)]
        measured = cells[: len(control.evidence)]
        for rule, cell in zip(control.evidence, measured, strict=True):
            lines += self._evidence(rule, cell, tabulated=bool(_TABLES & set(control.record)))
        for cell in cells[len(control.evidence) :]:
            lines += [f"| {ATTESTATION_NEEDED} ({escaped(cell.role)}) | {_long(cell.what)} |", "| --- | --- |"]
            lines += [f"| Asked for by | {_long(cell.cited)} |"]
            lines += ["| Statement | |", "| Name and function | |", "| Date and signature | |", ""]
        return lines

    def _evidence(self, rule: EvidenceRule, cell: CellRecord, *, tabulated: bool) -> list[str]:
        """``tabulated``: numbers by group stand in tables of the control's own."""
        what, cited = _long(cell.what), f" ({_long(cell.cited)})"
        if cell.kind == "not measured":
            why = f" Why it was not: {_long(cell.reason)}" if cell.reason else ""
            return [f"**{NOT_MEASURED}**: {what}{cited}. How: {_long(cell.how)}.{why}", ""]
        if cell.kind == "not for this kind of model":
            return [f"{NOT_FOR_THIS_KIND}: {what}{cited}. {_long(cell.reason)}", ""]
        if cell.outcome is None:
            return [f"Evidence, {what}{cited}: {_long(cell.said)}", ""]
        came_out = f"**{cell.outcome.value.replace('_', ' ')}**"
        tally = ", ".join(f"{n} {outcome.replace('_', ' ')}" for outcome, n in cell.outcomes.items())
        own = [self.rows[f.id] for f in fitting(rule, self.report.findings, self.report.roles)]
        if tabulated:
            own = [row for row in own if not view.is_detail(row.finding)]
            if not own:
                return [f"Evidence, {what}{cited}, {came_out} ({tally}): in the tables above.", ""]
        own.sort(key=lambda row: (view.is_detail(row.finding), row.rank))
        lines = [f"Evidence, {what}{cited}, {came_out} ({tally}):", ""]
        lines += [_long(cell.said), ""] * bool(cell.said)
        lines += ["| Measured | Value | Interval | Must be | Rows | Outcome | Finding |"]
        lines += ["| --- | ---: | --- | --- | ---: | --- | --- |"]
        lines += [self._row(row) for row in own[:MOST_ROWS]]
        more = len(own) - MOST_ROWS
        return [*lines, *(["", f"and {more:,} more, in the full report."] if more > 0 else []), ""]

    def _row(self, row: Row) -> str:
        what = " ".join(code_span(part, cell=True) for part in (row.name, row.where) if part)
        # An explanation that was not checked in full is no plain PASS.
        reserved = row.finding.detail.startswith(f"{EARNED} {RESERVED}")
        said = row.finding.detail if reserved else "" if row.value else row.finding.reason
        why = f": {_long(said)}" if said else ""
        interval = f"{row.interval} at {row.confidence}" if row.confidence else row.interval
        outcome = row.outcome.value.replace("_", " ")
        return (
            f"| {what} | {row.value} | {interval} | {row.must_be} | {row.n} | {outcome}{why} "
            f"| {self.link(row.finding.id)} |"
        )

    def link(self, finding: str) -> str:
        """The finding's number in the report, as a link to it where the report is there."""
        anchor = self.rows[finding].anchor
        name = anchor.replace("-", " ")
        return name if self.href is None else f"[{name}](<{quote(self.href)}#{anchor}>)"


def _open(shown: ShownPolicy) -> list[str]:
    """What is left to do, by role, and what nobody has measured."""
    lines = [f"Of what it asks for: {shown.tally}", ""]
    roles: dict[str, list[str]] = {}
    for control in shown.controls:
        for cell in control.cells:
            if cell.cell.kind == "attestation needed":
                roles.setdefault(cell.cell.role, []).append(control.control.id)
    lines += [
        f"- {ATTESTATION_NEEDED} ({escaped(role)}): {_long('; '.join(dict.fromkeys(ids)))}"
        for role, ids in roles.items()
    ]
    lines += [
        f"- {NOT_MEASURED}: {escaped(control.control.id)}, {escaped(cell.cell.what)}"
        for control in shown.controls
        for cell in control.cells
        if cell.cell.kind == "not measured"
    ]
    return [*lines, ""]


def _long(sentence: str) -> str:
    return escaped(sentence, _LONGEST)


def _fields(fields: Mapping[str, str | None]) -> list[str]:
    """A table of names and values; what is None is left out, what is empty is not known."""
    lines = ["| | |", "| --- | --- |"]
    lines += [f"| {name} | {_long(value) or _NOT_KNOWN} |" for name, value in fields.items() if value is not None]
    return [*lines, ""]


# ---- what the record itself answers ----------------------------------------------------------------------------------


def _model(dossier: _Dossier) -> list[str]:
    model = dossier.report.model
    return _fields(
        {
            "File": model.path or "in memory",
            "SHA-256": model.sha256 or "",
            "Format": model.format,
            "Loaded by": model.loaded_by,
            "Size": None if model.size_bytes is None else f"{model.size_bytes:,} bytes",
            "Parameters": None if model.n_parameters is None else f"{model.n_parameters:,}",
            "Classes": ", ".join(model.classes) or None,
            "Notes": " ".join(model.notes) or None,
        }
    )


def _data(dossier: _Dossier) -> list[str]:
    data = dossier.report.data
    if data.path is None and data.n_rows is None:
        return [f"**{NOT_MEASURED}**: no evaluation data were given. How: add --data FILE.", ""]
    return _fields(
        {
            "Evaluation data": data.path or "in memory",
            "SHA-256": data.sha256 or "",
            "Rows": "" if data.n_rows is None else f"{data.n_rows:,}",
            "Target": data.target,
            "Favourable": data.positive,
            "Groups compared": ", ".join(data.sensitive) or "none was named",
            "Training data": data.train_path or "none were given",
            "SHA-256 of the training data": data.train_sha256,
            "Training rows": None if data.n_train_rows is None else f"{data.n_train_rows:,}",
            "Notes": " ".join(data.notes) or None,
        }
    )


def _environment(dossier: _Dossier) -> list[str]:
    report = dossier.report
    here = report.environment
    return _fields(
        {
            "Tool": f"auditor {report.tool.get('version', '')}, record schema {report.schema_version}",
            "Platform": f"{here.platform}, Python {here.python}, device {here.device}",
            "Packages": ", ".join(f"{name} {version}" for name, version in here.packages.items()),
            "Seed": str(here.seed),
            "Limits": ", ".join(f"{name} {limit}" for name, limit in here.limits.items()) or "none",
            "Sandbox": None if here.sandbox is None else here.sandbox.describe(),
            "Command": here.command,
            "Seconds": f"{report.duration_s:.1f}",
        }
    )


def _criteria(dossier: _Dossier) -> list[str]:
    report = dossier.report
    if not report.criteria:
        return ["No criterion was set: nothing could pass or fail.", ""]
    lines = ["| Metric | Must be | Applies to | Source | Set by | Set at |", "| --- | --- | --- | --- | --- | --- |"]
    for c in report.criteria:
        cells = (view.applies_to(c), c.source, c.set_by, c.set_at)
        lines.append(f"| {code_span(c.metric, cell=True)} | {c.describe()} | {' | '.join(map(escaped, cells))} |")
    return [*lines, ""]


def _promise(dossier: _Dossier) -> list[str]:
    return [_long(view.promise_of(dossier.report)), ""]


def _registration(dossier: _Dossier) -> list[str]:
    report = dossier.report
    if report.registration is None:
        return [
            "NOT REGISTERED: this run followed no registration, so nothing here shows that metrics and thresholds were "
            "set before results were seen. auditor register audit.toml makes one for the next run.",
            "",
        ]
    lines = [_long(report.registration.describe()), ""]
    if report.registration.deviations:
        lines += [*(f"- {_long(deviation)}" for deviation in report.registration.deviations), ""]
    return lines


def _decisions(dossier: _Dossier) -> list[str]:
    report = dossier.report
    if not report.decisions:
        return ["No decision about an earlier audit of this model is in the record.", ""]
    said = [*(decision.describe() for decision in report.decisions), *accepted_told(report)]
    return [*(f"- {_long(each)}" for each in said), ""]


# ---- impact tables ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Category:
    """One line: how many there are, how many were selected, and the ratio of its rate to the largest.

    ``ratio``: None where the category was left out of the ratios; its value is None where it is undefined.
    ``finding``: id of the rate's.
    """

    names: tuple[str, ...]
    n: int
    selected: int
    ratio: Finding | None
    note: str
    finding: str

    @property
    def rate(self) -> float | None:
        """selected / n; None where there is nobody."""
        return self.selected / self.n if self.n else None


@dataclass(frozen=True)
class ImpactTable:
    """The categories of one feature, or of an intersection; ``unknown`` rows belong to none, None where not counted."""

    features: tuple[str, ...]
    categories: tuple[Category, ...]
    unknown: int | None


def impact_tables(findings: Sequence[Finding], method: str) -> list[ImpactTable]:
    """The tables that the probe ``adverse_impact`` measured; ``method``: ``selection_rate`` or ``scoring_rate``."""
    own = [f for f in findings if f.probe == "adverse_impact" and f.method == method]
    unknown = {f.sensitive: int(f.value) for f in own if f.metric == "unknown_count" and f.value is not None}
    ratios = {tuple(f.group.items()): f for f in reversed(own) if f.metric == "impact_ratio"}
    tables: dict[tuple[str, ...], dict[tuple[str, ...], Category]] = {}
    for f in own:
        if f.metric != method or not f.group or not isinstance(f.estimate, Proportion):
            continue
        ratio, names = ratios.get(tuple(f.group.items())), tuple(f.group.values())
        note = f.detail if ratio is None else ratio.detail
        made = Category(names, f.estimate.n, f.estimate.successes, ratio, note, f.id)
        tables.setdefault(tuple(f.group), {}).setdefault(names, made)
    return [
        ImpactTable(features, tuple(categories.values()), unknown.get(features))
        for features, categories in tables.items()
    ]


def _impact(dossier: _Dossier, method: str, selected: str, rate: str) -> list[str]:
    tables = impact_tables(dossier.report.findings, method)
    if not tables:
        return [f"**{NOT_MEASURED}**: no table of {rate}s. How: --probes adverse_impact with --sensitive COLUMN.", ""]
    lines = []
    for table in tables:
        heads = [*map(escaped, table.features), "Number", selected, rate.capitalize()]
        heads += ["Impact ratio", "Interval", "Note", "Finding"]
        lines += [f"By {escaped(' x '.join(table.features))}:", ""]
        lines += ["| " + " | ".join(heads) + " |"]
        lines += ["|" + " --- |" * len(table.features) + " ---: | ---: | ---: | ---: | --- | --- | --- |"]
        for category in table.categories:
            ratio = category.ratio
            cells = [
                *map(escaped, category.names),
                text.count(category.n),
                text.count(category.selected),
                text.number(category.rate),
                "left out" if ratio is None else text.number(ratio.value),
                "" if ratio is None else f"{text.interval(ratio.interval)} at {text.confidence(ratio.confidence)}",
                _long(category.note),
                dossier.link(category.finding if ratio is None else ratio.id),
            ]
            lines.append("| " + " | ".join(cells) + " |")
        people = _NOT_KNOWN if table.unknown is None else text.count(table.unknown)
        lines += ["", f"Category not known, and in no line above: {people}.", ""]
    if len({len(table.features) for table in tables}) == 1 and len(tables[0].features) == 1:
        lines += [f"**{NOT_MEASURED}**: the intersection. How: name both columns with --sensitive.", ""]
    return lines


@dataclass(frozen=True)
class _Part:
    title: str
    lines: Callable[[_Dossier], list[str]]


_PARTS: dict[RecordPart, _Part] = {
    "model": _Part("The model", _model),
    "data": _Part("The data", _data),
    "environment": _Part("With what it was tested", _environment),
    "criteria": _Part("Criteria, and who set them", _criteria),
    "promise": _Part("How often these judgements may be wrong", _promise),
    "registration": _Part("Registration", _registration),
    "decisions": _Part("Decisions about earlier audits", _decisions),
    "selection rates": _Part(
        "Selection rates and impact ratios", lambda d: _impact(d, "selection_rate", "Selected", "selection rate")
    ),
    "scoring rates": _Part(
        "Scoring rates and impact ratios",
        lambda d: _impact(d, "scoring_rate", "Above the median", "scoring rate"),
    ),
}
