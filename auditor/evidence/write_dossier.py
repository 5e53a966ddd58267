"""A dossier: the documentation that a rule pack requires, control by control, filled in from the record.

The rest is an empty field for a named role, somebody's signed word, or said to be not measured: a skeleton to work
from, not legal advice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from auditor.evidence.dossier_files import Attestation, Attestations
from auditor.evidence.dossier_parts import NOT_MEASURED, PARTS, Place, fields
from auditor.judging.figure_types import EARNED, RESERVED
from auditor.judging.measurement import Outcome
from auditor.judging.policy import CERTAINTY, Control, EvidenceRule, Policy, RecordPart
from auditor.report import report_view
from auditor.report.document import (
    Block,
    Bullets,
    Heading,
    Line,
    Paragraph,
    Span,
    Table,
    code,
    external_text,
    own_text,
    paragraph,
    strong,
    titled,
)
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.control_record import CellRecord
from auditor.report.record.controls import Beside, fitting, with_policies
from auditor.report.report_view import Row
from auditor.report.rule_pack_view import ShownPolicy, policies_of

MOST_ROWS = 100
ATTESTATION_NEEDED = "ATTESTATION NEEDED"
ATTESTED = "ATTESTED"
NOT_FOR_THIS_KIND = "NOT FOR THIS KIND OF MODEL"
_TABLES = frozenset[RecordPart]({"selection rates", "scoring rates"})


@dataclass(frozen=True)
class Dossier:
    """A dossier ready for rendering: ``open`` fields wait for an attestation, ``attested`` ones have one."""

    title: str
    digest: str
    created: str
    version: str
    blocks: tuple[Block, ...]
    open: int
    attested: int
    not_measured: int


def dossier_of(
    report: AuditReport,
    policies: Sequence[Policy],
    as_of: date,
    *,
    report_href: str | None = None,
    attestations: Attestations | None = None,
    tradeoff: Beside | None = None,
) -> Dossier:
    """The dossier of a record: every control of every pack a section.

    ``report_href``: where the HTML of the same record lies, as seen from the dossier, so that findings are links; None
    names them only. ``tradeoff``: what a report of a trade-off shows.
    """
    held = with_policies(report, policies, as_of, tradeoff=tradeoff)
    rows = report_view.rows_of(report.findings)
    writer = _Writer(report, {row.finding.id: row for row in rows}, report_href, attestations)
    shown = policies_of(held, rows)
    blocks = writer.head(shown)
    for policy, its in zip(policies, shown, strict=True):
        blocks += writer.policy(policy, its)
    cells = [cell.kind for control in held.controls for cell in control.cells]
    attested = len(attestations.entries) if attestations is not None else 0
    return Dossier(
        title=f"Dossier: {'; '.join(its.policy.title for its in shown)}",
        digest=report_view.document_id(report),
        created=report.created,
        version=report.tool.get("version", ""),
        blocks=tuple(blocks),
        open=cells.count("attestation needed") - attested,
        attested=attested,
        not_measured=sum(_lacks_a_measurement(block) for block in blocks),
    )


def _lacks_a_measurement(block: Block) -> bool:
    return isinstance(block, Paragraph) and bool(block.line) and block.line[0] == strong(NOT_MEASURED, "not-run")


class _Writer:
    """One record, where its findings are to be looked up, and what somebody said beside it."""

    def __init__(
        self, report: AuditReport, rows: Mapping[str, Row], href: str | None, attestations: Attestations | None
    ) -> None:
        self.report = report
        self.rows = rows
        self.href = href
        self.attestations = attestations
        self.words = {} if attestations is None else {(a.policy, a.control, a.cell): a for a in attestations.entries}

    def head(self, policies: Sequence[ShownPolicy]) -> list[Block]:
        report = self.report
        verdict = report_view.verdict_of(report)
        counts = report_view.counts_in_words(report)
        blocks: list[Block] = [
            Heading(1, (own_text("Dossier: "), titled("; ".join(its.policy.title for its in policies)))),
            paragraph(
                own_text("A skeleton, filled in from the record of one audit. "),
                strong("Not legal advice."),
                own_text(
                    f" Fields marked {ATTESTATION_NEEDED} are for the named role to fill in; what is marked "
                    f"{NOT_MEASURED} is not known. Nothing here says that a duty is met: that is for a qualified "
                    "person to judge."
                ),
            ),
            *(
                Paragraph((strong("Note well."), own_text(" "), external_text(warning)), note=True)
                for warning in report_view.warnings_of(report)
            ),
            fields(
                {
                    "Record (SHA-256)": report_view.document_id(report),
                    "Audit of": report.model.path or report.model.display_name,
                    "Date of the audit": report.created,
                    "Result": f"{verdict.headline}. {verdict.sentence} Exit code {report.exit_code}.",
                    "Findings": counts,
                    "Refused": None if report.refusal is None else report.refusal.reason,
                    **self._attested_in(),
                }
            ),
        ]
        return blocks

    def _attested_in(self) -> dict[str, str | None]:
        given = self.attestations
        if given is None:
            return {}
        return {
            "Attestations": f"{number_text.plural(len(given.entries), 'statement')}, {given.signed}",
            "Attestations (SHA-256)": given.sha256,
        }

    def policy(self, policy: Policy, policy_view: ShownPolicy) -> list[Block]:
        record = policy_view.policy
        blocks: list[Block] = [
            Heading(2, (titled(record.title),)),
            paragraph(external_text(policy_view.origin), own_text(" "), external_text(policy_view.held_to)),
        ]
        if record.old:
            blocks.append(Paragraph((strong("Note well."), own_text(" "), external_text(record.old)), note=True))
        if record.notes:
            blocks.append(Bullets(tuple((external_text(note),) for note in record.notes)))
        blocks += self._open(policy, policy_view)
        printed: dict[RecordPart, str] = {}
        for control, held in zip(policy.controls, policy_view.controls, strict=True):
            blocks += self._control(
                policy, control, held.control.cells, in_force=held.control.in_force, printed=printed
            )
        return blocks

    def _open(self, policy: Policy, policy_view: ShownPolicy) -> list[Block]:
        """What is left to do, by role, and what nobody has measured."""
        given = sum(name == policy.name for name, _, _ in self.words)
        tally = [own_text("Of what it asks for: "), own_text(policy_view.tally)]
        if given:
            tally.append(own_text(f" Of the attestations needed, {given} {'is' if given == 1 else 'are'} given here."))
        roles: dict[str, list[str]] = {}
        lacking: list[Line] = []
        for control in policy_view.controls:
            for i, cell in enumerate(control.cells):
                key = (policy.name, control.control.id, i)
                if cell.cell.kind == "attestation needed" and key not in self.words:
                    roles.setdefault(cell.cell.role, []).append(control.control.id)
                if cell.cell.kind == "not measured":
                    lacking.append(
                        (
                            own_text(f"{NOT_MEASURED}: "),
                            titled(control.control.id),
                            own_text(", "),
                            titled(cell.cell.what),
                        )
                    )
        items: list[Line] = [
            (
                own_text(f"{ATTESTATION_NEEDED} ("),
                titled(role),
                own_text("): "),
                external_text("; ".join(dict.fromkeys(ids))),
            )
            for role, ids in roles.items()
        ]
        left = (*items, *lacking)
        return [paragraph(*tally), *([Bullets(left)] if left else [])]

    def _control(
        self,
        policy: Policy,
        control: Control,
        cells: Sequence[CellRecord],
        *,
        in_force: bool,
        printed: dict[RecordPart, str],
    ) -> list[Block]:
        dates = "".join(
            f", {word} {day.isoformat()}"
            for word, day in (("from", control.applies_from), ("until", control.applies_until))
            if day is not None
        )
        force = () if in_force else (own_text(" "), strong(f"Not in force on the day of this dossier{dates}."))
        blocks: list[Block] = [
            Heading(3, (titled(control.id), own_text(": "), titled(control.title))),
            paragraph(
                own_text("Source: "),
                external_text(control.source),
                own_text(f", {_dated(control)}."),
                *force,
            ),
        ]
        place = Place(self.report, self.link)
        for part in control.record:
            if part in printed:
                blocks.append(paragraph(own_text(f"{PARTS[part].title}: under "), titled(printed[part]), own_text(".")))
                continue
            printed[part] = control.id
            blocks += [paragraph(strong(PARTS[part].title)), *PARTS[part].blocks(place)]
        measured = len(control.evidence)
        for rule, cell in zip(control.evidence, cells[:measured], strict=True):
            blocks += self._evidence(rule, cell, _cited(cell, control), tabulated=bool(_TABLES & set(control.record)))
        for i, cell in enumerate(cells[measured:], measured):
            blocks.append(self._word(cell, _cited(cell, control), self.words.get((policy.name, control.id, i))))
        return blocks

    def _word(self, cell: CellRecord, cited: Line, attestation: Attestation | None) -> Table:
        """Somebody's word, or a field for it."""
        if attestation is None:
            needed = (own_text(ATTESTATION_NEEDED, "inconclusive"), own_text(" ("), titled(cell.role), own_text(")"))
            names = ("Statement", "Name and function", "Date and signature")
            return Table(
                (needed, (external_text(cell.what), *cited)),
                tuple(((own_text(name),), ()) for name in names),
                "ll",
                "field",
            )
        signed = "" if self.attestations is None else self.attestations.signed
        head = (
            own_text(ATTESTED, "not-judged"),
            own_text(" by "),
            titled(attestation.by),
            own_text(" ("),
            titled(attestation.role),
            own_text(f") on {attestation.on.isoformat()}, {signed}"),
        )
        rows: list[tuple[Line, ...]] = [((own_text("Statement"),), (external_text(attestation.text),))]
        if attestation.document is not None:
            rows.append(
                (
                    (own_text("Document"),),
                    (external_text(attestation.document), own_text(f", SHA-256 {attestation.document_sha256}")),
                )
            )
        return Table((head, (external_text(cell.what), *cited)), tuple(rows), "ll", "field")

    def _evidence(self, rule: EvidenceRule, cell: CellRecord, cited: Line, *, tabulated: bool) -> list[Block]:
        """``tabulated``: numbers by group stand in tables of the control's own."""
        what = (external_text(cell.what), *cited)
        if cell.kind == "not measured":
            why = (own_text(" Why it was not: "), external_text(cell.reason)) if cell.reason else ()
            lacks = (
                strong(NOT_MEASURED, "not-run"),
                own_text(": "),
                *what,
                own_text(". How: "),
                external_text(cell.how),
            )
            return [paragraph(*lacks, own_text("."), *why)]
        if cell.kind == "not for this kind of model":
            return [
                paragraph(
                    own_text(NOT_FOR_THIS_KIND, "not-applicable"),
                    own_text(": "),
                    *what,
                    own_text(". "),
                    external_text(cell.reason),
                )
            ]
        if cell.outcome is None:
            return [paragraph(own_text("Evidence, "), *what, own_text(": "), external_text(cell.said))]
        passed = cell.outcome is Outcome.PASS
        came_out = (own_text(", "), strong(cell.outcome.words, "not-judged" if passed else cell.outcome.slug))
        came_out += (own_text(", which does not show that this is met"),) * passed
        ended = ", ".join(f"{n} {Outcome(outcome).words}" for outcome, n in cell.outcomes.items())
        tally = own_text(f" ({ended})")
        found = [self.rows[f.id] for f in fitting(rule, self.report.findings, self.report.roles)]
        if tabulated:
            found = [row for row in found if not report_view.is_detail(row.finding)]
            if not found:
                return [paragraph(own_text("Evidence, "), *what, *came_out, tally, own_text(": in the tables above."))]
        found.sort(key=lambda row: (report_view.is_detail(row.finding), row.rank))
        heads = ("Measured", "Value", "Interval", "Must be", "Rows", "Outcome", "Finding")
        blocks: list[Block] = [paragraph(own_text("Evidence, "), *what, *came_out, tally, own_text(":"))]
        if cell.said:
            blocks.append(paragraph(external_text(cell.said)))
        rows = tuple(map(self._row, found[:MOST_ROWS]))
        blocks.append(Table(tuple((own_text(head),) for head in heads), rows, "lrllrll"))
        more = len(found) - MOST_ROWS
        return [*blocks, *([paragraph(own_text(f"and {more:,} more, in the full report."))] if more > 0 else [])]

    def _row(self, row: Row) -> tuple[Line, ...]:
        what = [code(part) for part in (row.name, row.where) if part]
        # An explanation that was not checked in full is no plain PASS.
        reserved = row.finding.detail.startswith(f"{EARNED} {RESERVED}")
        why = row.finding.detail if reserved else "" if row.value else row.finding.reason
        interval = f"{row.interval} at {row.confidence}" if row.confidence else row.interval
        outcome = own_text(row.outcome.words, row.outcome.slug)
        return (
            (what[0], *(piece for other in what[1:] for piece in (own_text(" "), other))) if what else (),
            (own_text(row.value),),
            (own_text(interval),),
            (own_text(row.must_be),),
            (own_text(row.n),),
            (outcome, own_text(": "), external_text(why)) if why else (outcome,),
            (self.link(row.finding.id),),
        )

    def link(self, finding: str) -> Span:
        """The finding's number in the report, as a link to it where the report is there."""
        anchor = self.rows[finding].anchor
        return Span(anchor.replace("-", " "), "own", href=None if self.href is None else (self.href, anchor))


def _dated(control: Control) -> str:
    """On which day it was looked up, or noted from memory, and how surely it is known."""
    how = "noted" if control.certainty == "memory" else "looked up"
    return f"{how} on {control.checked_on.isoformat()}, {CERTAINTY[control.certainty]}"


def _cited(cell: CellRecord, control: Control) -> Line:
    """Who asks for one cell, and how surely that is known, where it is otherwise than of the control."""
    if (cell.source, cell.certainty) in ((control.source, CERTAINTY[control.certainty]), ("", "")):
        return ()
    return (own_text(" ("), external_text(cell.cited), own_text(")"))
