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
    Document,
    Heading,
    Line,
    Paragraph,
    Span,
    Table,
    bullets,
    code,
    external_text,
    joined,
    line,
    own_text,
    paragraph,
    strong,
    table,
    titled,
)
from auditor.report.html import ShownPolicy, policies_of
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.control_record import CellRecord
from auditor.report.record.controls import Beside, fitting, with_policies
from auditor.report.report_view import Row

MOST_ROWS = 100
ATTESTATION_NEEDED = "ATTESTATION NEEDED"
ATTESTED = "ATTESTED"
NOT_FOR_THIS_KIND = "NOT FOR THIS KIND OF MODEL"
_TABLES = frozenset[RecordPart]({"selection rates", "scoring rates"})


@dataclass(frozen=True)
class Dossier(Document):
    """A dossier ready for rendering: ``open`` fields wait for an attestation, ``attested`` ones have one."""

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
            Heading(1, line("Dossier: ", titled("; ".join(its.policy.title for its in policies)))),
            paragraph(
                "A skeleton, filled in from the record of one audit. ",
                strong("Not legal advice."),
                f" Fields marked {ATTESTATION_NEEDED} are for the named role to fill in; what is marked "
                f"{NOT_MEASURED} is not known. Nothing here says that a duty is met: that is for a qualified "
                "person to judge.",
            ),
            *map(_warning, report_view.warnings_of(report)),
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
            Heading(2, line(titled(record.title))),
            paragraph(external_text(policy_view.origin), " ", external_text(policy_view.held_to)),
        ]
        if record.old:
            blocks.append(_warning(record.old))
        if record.notes:
            blocks.append(bullets(map(external_text, record.notes)))
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
        tally = f"Of what it asks for: {policy_view.tally}"
        if given:
            tally += f" Of the attestations needed, {given} {'is' if given == 1 else 'are'} given here."
        roles: dict[str, list[str]] = {}
        lacking: list[Line] = []
        for control in policy_view.controls:
            for i, cell in enumerate(control.cells):
                key = (policy.name, control.control.id, i)
                if cell.cell.kind == "attestation needed" and key not in self.words:
                    roles.setdefault(cell.cell.role, []).append(control.control.id)
                if cell.cell.kind == "not measured":
                    lacking.append(line(f"{NOT_MEASURED}: ", titled(control.control.id), ", ", titled(cell.cell.what)))
        left = [
            line(f"{ATTESTATION_NEEDED} (", titled(role), "): ", external_text("; ".join(dict.fromkeys(ids))))
            for role, ids in roles.items()
        ]
        left += lacking
        return [paragraph(tally), *([bullets(left)] if left else [])]

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
        force = () if in_force else (" ", strong(f"Not in force on the day of this dossier{dates}."))
        blocks: list[Block] = [
            Heading(3, line(titled(control.id), ": ", titled(control.title))),
            paragraph("Source: ", external_text(control.source), f", {_dated(control)}.", *force),
        ]
        place = Place(self.report, self.link)
        for part in control.record:
            if part in printed:
                blocks.append(paragraph(f"{PARTS[part].title}: under ", titled(printed[part]), "."))
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
        asked = (external_text(cell.what), *cited)
        if attestation is None:
            needed = line(own_text(ATTESTATION_NEEDED, "inconclusive"), " (", titled(cell.role), ")")
            names = ("Statement", "Name and function", "Date and signature")
            return table((needed, asked), [(name, "") for name in names], "ll", "field")
        signed = "" if self.attestations is None else self.attestations.signed
        who, when = titled(attestation.by), f") on {attestation.on.isoformat()}, {signed}"
        head = line(own_text(ATTESTED, "not-judged"), " by ", who, " (", titled(attestation.role), when)
        rows: list[tuple[str, Line]] = [("Statement", line(external_text(attestation.text)))]
        if attestation.document is not None:
            document = line(external_text(attestation.document), f", SHA-256 {attestation.document_sha256}")
            rows.append(("Document", document))
        return table((head, asked), rows, "ll", "field")

    def _evidence(self, rule: EvidenceRule, cell: CellRecord, cited: Line, *, tabulated: bool) -> list[Block]:
        """``tabulated``: numbers by group stand in tables of the control's own."""
        what = (external_text(cell.what), *cited)
        if cell.kind == "not measured":
            why = (" Why it was not: ", external_text(cell.reason)) if cell.reason else ()
            how = external_text(cell.how)
            return [paragraph(strong(NOT_MEASURED, "not-run"), ": ", *what, ". How: ", how, ".", *why)]
        if cell.kind == "not for this kind of model":
            kind = own_text(NOT_FOR_THIS_KIND, "not-applicable")
            return [paragraph(kind, ": ", *what, ". ", external_text(cell.reason))]
        if cell.outcome is None:
            return [paragraph("Evidence, ", *what, ": ", external_text(cell.said))]
        passed = cell.outcome is Outcome.PASS
        ended = ", ".join(f"{n} {Outcome(outcome).words}" for outcome, n in cell.outcomes.items())
        told = line(
            "Evidence, ", *what, ", ", strong(cell.outcome.words, "not-judged" if passed else cell.outcome.slug)
        )
        told += line(", which does not show that this is met" * passed, f" ({ended})")
        found = [self.rows[f.id] for f in fitting(rule, self.report.findings, self.report.roles)]
        if tabulated:
            found = [row for row in found if not report_view.is_detail(row.finding)]
            if not found:
                return [paragraph(*told, ": in the tables above.")]
        found.sort(key=lambda row: (report_view.is_detail(row.finding), row.rank))
        heads = ("Measured", "Value", "Interval", "Must be", "Rows", "Outcome", "Finding")
        blocks: list[Block] = [paragraph(*told, ":")]
        if cell.said:
            blocks.append(paragraph(external_text(cell.said)))
        blocks.append(table(heads, map(self._row, found[:MOST_ROWS]), "lrllrll"))
        more = len(found) - MOST_ROWS
        return [*blocks, *([paragraph(f"and {more:,} more, in the full report.")] if more > 0 else [])]

    def _row(self, row: Row) -> Sequence[str | Span | Line]:
        what = [line(code(part)) for part in (row.name, row.where) if part]
        # An explanation that was not checked in full is no plain PASS.
        reserved = row.finding.detail.startswith(f"{EARNED} {RESERVED}")
        why = row.finding.detail if reserved else "" if row.value else row.finding.reason
        interval = f"{row.interval} at {row.confidence}" if row.confidence else row.interval
        outcome = own_text(row.outcome.words, row.outcome.slug)
        said = line(outcome, ": ", external_text(why)) if why else outcome
        return joined(what, " "), row.value, interval, row.must_be, row.n, said, self.link(row.finding.id)

    def link(self, finding: str) -> Span:
        """The finding's number in the report, as a link to it where the report is there."""
        anchor = self.rows[finding].anchor
        return Span(anchor.replace("-", " "), "own", href=None if self.href is None else (self.href, anchor))


def _warning(words: str) -> Paragraph:
    return paragraph(strong("Note well."), " ", external_text(words), note=True)


def _dated(control: Control) -> str:
    """On which day it was looked up, or noted from memory, and how surely it is known."""
    how = "noted" if control.certainty == "memory" else "looked up"
    return f"{how} on {control.checked_on.isoformat()}, {CERTAINTY[control.certainty]}"


def _cited(cell: CellRecord, control: Control) -> Line:
    """Who asks for one cell, and how surely that is known, where it is otherwise than of the control."""
    if (cell.source, cell.certainty) in ((control.source, CERTAINTY[control.certainty]), ("", "")):
        return ()
    return line(" (", external_text(cell.cited), ")")
