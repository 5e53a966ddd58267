"""Rule packs for rendering: each cell with its state, outcome, evidence and required attestor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from auditor.judging.figure_types import EARNED, RESERVED
from auditor.judging.measurement import Outcome
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.control_record import CELL_KINDS, CellKind, CellRecord, ControlRecord, PolicyRecord
from auditor.report.report_view import ORDER, Row

MOST_LINKS = 6
_SLUGS: Mapping[CellKind, str] = {
    "attestation needed": "inconclusive",
    "not measured": "not-run",
    "not for this kind of model": "not-applicable",
}


@dataclass(frozen=True)
class ShownCell:
    """One cell of a control: ``state`` in words, including its outcome; ``slug``: its colour, and the findings that it
    links to. ``reserved``: the reservation of an explanation that passed with one.
    """

    cell: CellRecord
    state: str
    slug: str
    reserved: str
    outcomes: tuple[tuple[Outcome, int], ...]
    rows: tuple[Row, ...]
    left_out: int

    @property
    def tally(self) -> str:
        """Numbers of its findings by outcome."""
        return ", ".join(f"{number_text.count(n)} {outcome.words}" for outcome, n in self.outcomes)


@dataclass(frozen=True)
class ShownControl:
    """A control with its cells as displayed."""

    control: ControlRecord
    cells: tuple[ShownCell, ...]

    @property
    def cited(self) -> str:
        """The source text of the control, and the date of its review."""
        dated = next((f", {cell.cell.dated}" for cell in self.cells if not self.cited_apart(cell)), "")
        return f"{self.control.source}{dated}"

    def cited_apart(self, cell: ShownCell) -> str:
        """The source of a cell, if it differs from that of the whole control; else ""."""
        own = cell.cell
        same = (own.source, own.certainty) in (("", ""), (self.control.source, self.control.certainty))
        return "" if same else own.cited


@dataclass(frozen=True)
class ShownPolicy:
    """A rule pack with its controls, and its cell counts; ``held_to``: the source of the limits."""

    policy: PolicyRecord
    anchor: str
    controls: tuple[ShownControl, ...]
    counts: tuple[tuple[CellKind, int], ...]
    held_to: str

    @property
    def not_in_force(self) -> str:
        """The number of controls not in force on the day, in a sentence; "" if all are."""
        idle = [shown for shown in self.controls if not shown.control.in_force]
        are = "is" if len(idle) == 1 else "are"
        return f"{len(idle)} of {len(self.controls)} controls {are} not in force on that day." if idle else ""

    @property
    def tally(self) -> str:
        """Numbers of cells by state, of evidence by outcome, and of controls without evidence."""
        evidence = [cell for control in self.controls for cell in control.cells if cell.cell.kind == "evidence"]
        ended = [cell.cell.outcome for cell in evidence]
        how = ", ".join(f"{ended.count(o)} {o.words}" for o in ORDER if o in ended)
        parts = [f"{n} {kind}" + (f" ({how})" if kind == "evidence" and how else "") for kind, n in self.counts]
        without = sum(all(cell.cell.kind != "evidence" for cell in control.cells) for control in self.controls)
        controls = number_text.plural(len(self.controls), "control")
        return f"{', '.join(parts)}. {without} of {controls} without any evidence."

    @property
    def origin(self) -> str:
        """The source of the pack, the date and certainty of its review, and its version."""
        p = self.policy
        said = f"{p.source}. Looked up on {p.checked_on}, {p.certainty}; as of {p.as_of}"
        said += f", applies from {p.applies_from}" * bool(p.applies_from)
        said += f", until {p.applies_until}" * bool(p.applies_until)
        version = f" Version {p.version}," if p.version else " Its text has"
        return f"{said}." + (f"{version} SHA-256 {p.sha256[:16]}." if p.sha256 else "")


def policies_of(report: AuditReport, rows: Sequence[Row]) -> list[ShownPolicy]:
    """The rule packs, each cell with its supporting findings, most severe first."""
    held_to = _held_to(report)
    by_id = {row.finding.id: row for row in rows}
    shown = []
    for i, policy in enumerate(report.policies, 1):
        controls = tuple(
            ShownControl(control, tuple(_shown_cell(cell, by_id) for cell in control.cells))
            for control in report.controls
            if control.policy == policy.name
        )
        kinds = [cell.cell.kind for control in controls for cell in control.cells]
        counts = tuple((kind, kinds.count(kind)) for kind in CELL_KINDS)
        own = "It sets bounds of its own." if policy.sets_pass_mark else "It sets no pass mark."
        shown.append(ShownPolicy(policy, f"policy-{i}", controls, counts, f"{own} {held_to}"))
    return shown


def _held_to(report: AuditReport) -> str:
    """Whose bounds decided the outcomes, which a rule pack without any leaves to others, and what columns hold."""
    sources = dict.fromkeys(f"{c.source}, set by {c.set_by}" for c in report.criteria)
    roles = report.roles
    columns = (
        ", ".join(f"{role.replace('_', ' ')} is the column {name}" for role, name in roles.columns.items())
        if roles
        else ""
    )
    said = f" Of the columns it is said: {columns}." if columns else ""
    if not sources:
        return f"No criterion was set, so nothing here could pass or fail.{said}"
    return f"Outcomes are those of the criteria of {'; '.join(sources)}.{said}"


def _shown_cell(cell: CellRecord, by_id: Mapping[str, Row]) -> ShownCell:
    rows = sorted((by_id[name] for name in cell.findings if name in by_id), key=lambda row: ORDER.index(row.outcome))
    outcomes = tuple((o, cell.outcomes[o.value]) for o in ORDER if cell.outcomes.get(o.value))
    came_out = cell.outcome
    state = cell.kind if came_out is None else f"{cell.kind}: {came_out.words}"
    reserved = ""
    if came_out is Outcome.PASS:
        # That numbers lie within their limits is no opinion on whether a text of law is met.
        reserved = next((r.finding.detail for r in rows if r.finding.detail.startswith(f"{EARNED} {RESERVED}")), "")
        n, came_out = number_text.plural(sum(cell.outcomes.values()), "measurement"), None
        state = f"{n}{', with reservations' * bool(reserved)}; does not show that this is met"
    slug = _SLUGS.get(cell.kind) or ("not-judged" if came_out is None else came_out.slug)
    return ShownCell(cell, state, slug, reserved, outcomes, tuple(rows[:MOST_LINKS]), max(0, len(rows) - MOST_LINKS))
