"""The report as one self-contained HTML page, with all its numbers in one table; complete without script."""

from __future__ import annotations

import base64
import hashlib
import re
from calendar import month_name
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.resources import files
from types import SimpleNamespace

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from auditor.judging.figure_types import EARNED, RESERVED
from auditor.judging.measurement import Outcome
from auditor.report import report_view
from auditor.report.first_page import first_page
from auditor.report.record import finding_text, number_text, summary_lines
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.configuration import About
from auditor.report.record.control_record import CELL_KINDS, CellKind, CellRecord, ControlRecord, PolicyRecord
from auditor.report.record.finding_text import question_text
from auditor.report.record.glossary import definitions_of
from auditor.report.record.provenance_of_number import traces_of
from auditor.report.record.summary_lines import worth_of
from auditor.report.record.translations import ENGLISH, Catalogue
from auditor.report.remediation import remediation_of
from auditor.report.report_figures import front_and_rest, pillars_of, sources_of
from auditor.report.report_view import ORDER, PILLARS, Row
from auditor.report.scope_page import scope_of

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
    def duties(self) -> list[tuple[str, list[str]]]:
        """The controls in force that wait for somebody's statement, by role."""
        found: dict[str, list[str]] = {}
        for shown in self.controls:
            for role in dict.fromkeys(c.cell.role for c in shown.cells if c.cell.kind == "attestation needed"):
                if shown.control.in_force:
                    found.setdefault(role, []).append(shown.control.id)
        return sorted(found.items())

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


def idle_words(control: ControlRecord, day: str, say: Catalogue) -> str:
    """That a control is not in force on a day, and since when it will be."""
    if control.applies_from and control.applies_from > day:
        return say.say("rest.packs_idle_until", day=day, start=control.applies_from)
    return say.say("rest.packs_idle", day=day)


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


_FOLDED = (Outcome.NOT_JUDGED, Outcome.NOT_APPLICABLE)
_LONGEST = 80


@dataclass(frozen=True)
class Choice:
    """One choice of a filter: ``key`` as in the rows, and its display name."""

    key: str
    word: str


@dataclass(frozen=True)
class Entry:
    """A finding with its own row: its question, its groups, and its filter keys."""

    row: Row
    question: str
    keys: str


@dataclass(frozen=True)
class Number:
    """A number without a limit; ``level``: its level, ``by``: the method if relevant."""

    row: Row
    level: str
    by: str


@dataclass(frozen=True)
class Line:
    """All numbers of one question about one group."""

    about: str
    numbers: tuple[Number, ...]
    keys: str


@dataclass(frozen=True)
class Fold:
    """A question, the remark on all of its numbers, and its lines by group."""

    question: str
    about: str
    lines: tuple[Line, ...]

    @property
    def n(self) -> int:
        """The number of its numbers."""
        return sum(len(line.numbers) for line in self.lines)


@dataclass(frozen=True)
class Filter:
    """A row filter: its display name, and its choices."""

    name: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Appendix:
    """The table: ``entries`` judged or failed, ``folds`` all else; other kinds of model separately."""

    entries: tuple[Entry, ...]
    folds: tuple[Fold, ...]
    elsewhere: tuple[Row, ...]
    filters: tuple[Filter, ...]

    @property
    def n(self) -> int:
        """The number of findings in the table."""
        return len(self.entries) + sum(fold.n for fold in self.folds)


def appendix_of(report: AuditReport, rows: Sequence[Row], say: Catalogue) -> Appendix:
    """The table of a report's rows, in the wording of a catalogue; pillars in order, worst first."""
    keys = _Keys(report, report.about or About(), say)
    place = {name: i for i, name in enumerate(PILLARS)}
    ordered = sorted(rows, key=lambda r: place.get(r.finding.pillar, len(place)))
    told = [r for r in ordered if not r.finding.other_kind]
    own = sorted((r for r in told if r.outcome not in _FOLDED), key=lambda r: r.rank)
    entries = tuple(Entry(r, keys.question(r.finding), keys.keys_of(r.finding)) for r in own)
    absent = _absent([r for r in told if r.outcome is Outcome.NOT_APPLICABLE], keys)
    folds = _folds([r for r in told if r.outcome is Outcome.NOT_JUDGED], keys)
    return Appendix(
        entries=entries,
        folds=(*absent, *folds),
        elsewhere=tuple(r for r in ordered if r.finding.other_kind),
        filters=keys.filters(told),
    )


def _absent(rows: Sequence[Row], keys: _Keys) -> tuple[Fold, ...]:
    """What lacked an input, in one fold, a line a question."""
    asked: dict[str, list[Row]] = {}
    for row in rows:
        asked.setdefault(keys.question(row.finding), []).append(row)
    lines = tuple(_line(question, own, keys) for question, own in asked.items())
    say = keys.say
    return (Fold(say.say("rest.to_absent"), say.count_text("rest.lacking", len(rows)), lines),) if rows else ()


def _folds(rows: Iterable[Row], keys: _Keys) -> tuple[Fold, ...]:
    asked: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        f = row.finding
        about = finding_text.place(f, keys.about.display_labels, keys.say.open("page.by")) or keys.say.say(
            "page.everybody"
        )
        asked.setdefault((keys.question(f), f.pillar), {}).setdefault(about, []).append(row)
    return tuple(
        Fold(
            question,
            f"{keys.say.pillar(pillar).capitalize()}, "
            f"{keys.say.count_text('rest.unbounded', sum(map(len, lines.values())))}",
            tuple(_line(about, own, keys) for about, own in lines.items()),
        )
        for (question, pillar), lines in asked.items()
    )


def _line(about: str, rows: Sequence[Row], keys: _Keys) -> Line:
    lacking = rows[0].outcome is Outcome.NOT_APPLICABLE
    levels = [row.where if lacking else finding_text.level(row.finding, keys.about.display_labels) for row in rows]
    alike = Counter((row.name, level) for row, level in zip(rows, levels, strict=True))
    numbers = tuple(
        Number(row, level, row.by if alike[row.name, level] > 1 else "")
        for row, level in zip(rows, levels, strict=True)
    )
    together = dict.fromkeys(key for row in rows for key in keys.keys_of(row.finding).split())
    return Line(about, numbers, " ".join(together))


@dataclass
class _Keys:
    """Short keys of features and groups, which may be called anything, in the order in which they come."""

    report: AuditReport
    about: About
    say: Catalogue
    features: dict[str, str] = field(default_factory=dict)
    groups: dict[tuple[str, str], str] = field(default_factory=dict)

    def question(self, f: Finding) -> str:
        """What a finding answers."""
        return question_text(self.report, f.probe, f.metric, self.say)

    def keys_of(self, f: Finding) -> str:
        """The keys of a finding."""
        named = [*f.sensitive, *f.group, *([str(f.at["feature"])] if "feature" in f.at else [])]
        own = [f.outcome.slug, f"p-{f.pillar}"]
        own += [self.features.setdefault(name, f"f{len(self.features)}") for name in named]
        own += [self.groups.setdefault(level, f"g{len(self.groups)}") for level in f.group.items()]
        return " ".join(own)

    def filters(self, rows: Sequence[Row]) -> tuple[Filter, ...]:
        """What the rows can be chosen by, once all of them have their keys."""
        called = self.about.display_labels
        outcomes, pillars = {r.outcome for r in rows}, {str(r.finding.pillar) for r in rows}
        by = (
            ("outcome", [(o.slug, o.words) for o in ORDER if o in outcomes]),
            ("pillar", [(f"p-{name}", self.say.pillar(name).capitalize()) for name in PILLARS if name in pillars]),
            ("feature", [(key, called.column(name)) for name, key in self.features.items()]),
            ("group", [(key, called.group(c, v)) for (c, v), key in self.groups.items()]),
        )
        return tuple(
            Filter(name, tuple(Choice(key, number_text.shortened(word, _LONGEST)) for key, word in choices))
            for name, choices in by
            if choices
        )


MOST_IN_SUMMARY = 12
# What every report is made of; the other templates are read and compiled where a report has something for them.
OF_EVERY_PAGE = tuple(f"{name}.html.j2" for name in (
    "report", "macros", "first_page", "scope", "remediation", "definitions",
))  # fmt: skip
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")


def render_html(report: AuditReport, say: Catalogue | None = None) -> str:
    """The whole report as one HTML document, ready to be written as UTF-8; ``say``: other words than the record's own.

    Everything that came from the model, the data or a probe is escaped and shown with its control characters visible.
    Styles and script are inline and allowed by their digest alone; nothing is fetched from anywhere.
    """
    digest = report_view.document_id(report)
    style = Markup(resource("report.css") + _PAGE_FOOTER.format(digest=digest[:16]))
    script = Markup(resource("report.js"))
    page = first_page(report, say)
    rows = report_view.shown_rows(report, page.say)
    traces = {row.anchor: trace for row, trace in zip(rows, traces_of(report, page.say), strict=True)}
    words, limit_words = (SimpleNamespace(**page.say.section(name)) for name in ("rest", "limit"))
    # What is missing is counted on the first page, before the phrases below it are said.
    for name in ("column", "counted", "standing"):
        page.say.section(name)
    table = appendix_of(report, rows, page.say)
    pillars = pillars_of(report, page.say)
    held = [f.criterion for f in report.findings if f.criterion is not None]
    by_outcome = {o: [r for r in rows if r.outcome is o] for o in Outcome}
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            title=title_of(report),
            policy=content_policy(style, script, pictures=any(f.heatmaps for f in report.figures)),
            style=style,
            script=script,
            digest=digest,
            created=moment(report.created, page.say),
            scope=scope_of(report, page.say),
            remediation=remediation_of(report, page.say),
            page=page,
            traces=traces,
            definitions=definitions_of(report, page.say),
            say=page.say,
            words=words,
            limit_words=limit_words,
            table=table,
            sources=[s for s in sources_of(rows) if s.citation],
            worth=worth_of(report, page.say),
            warnings=report_view.warnings_of(report, page.say),
            rows_for_all=summary_lines.describe_rows_for_all(report),
            promise=report_view.promise_of(report, page.say),
            counts=report_view.counts_of(report, page.say),
            for_other_kinds=report_view.for_other_kinds(report, page.say),
            outcomes=Outcome,
            by_outcome=by_outcome,
            most=MOST_IN_SUMMARY,
            pillars=pillars,
            policies=policies_of(report, rows),
            idle=idle_words,
            used=[c for c in report.criteria if c in held],
            unused=[c for c in report.criteria if c not in held],
            limits=report_view.limits_of(page.say),
            applies_to=report_view.applies_to,
            pictures=[report_view.drawn_as(i, figure, page.say) for i, figure in front_and_rest(report, page.say)[0]],
            svg=figure_svg,
        )
    )


# Printed pages come apart: each carries the document's id.
_PAGE_FOOTER = '\n@page {{ @bottom-left {{ content: "auditor report {digest}"; font: 7.5pt sans-serif; }} }}\n'


def figure_svg(figure_view: report_view.Drawn, say: Catalogue) -> Markup:
    """A figure as markup, with the tool's own words in a catalogue's language."""
    # A page without figures needs no matplotlib.
    from auditor.report.drawing.svg import draw_svg

    return Markup(draw_svg(figure_view.figure, dom_id=figure_view.dom_id, words=say.section("drawn")))


def content_policy(style: str, script: str, *, pictures: bool) -> str:
    """The content security policy of a page with only this style and script."""
    # Pictures are in the page itself, redrawn from the record's pixels; only a page that has some may show any.
    source = "data:" if pictures else "'none'"
    return (
        f"default-src 'none'; img-src {source}; base-uri 'none'; form-action 'none'; "
        f"style-src '{_source_digest(style)}'; script-src '{_source_digest(script)}'"
    )


def _source_digest(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def resource(name: str) -> str:
    """A file of the templates' folder."""
    return (files("auditor.report") / "templates" / name).read_text(encoding="utf-8")


def title_of(report: AuditReport) -> str:
    """The title of every rendering: the audited file's name without its folders."""
    return f"Audit of {report.subject}"


def moment(created: str, say: Catalogue | None = None) -> str:
    """The day and time of a record in words, or its own text where that is no date."""
    say = say or Catalogue.for_language(ENGLISH)
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        # The record holds text here; what is no date is still shown as it stands.
        return created
    return say.say(
        "date.moment",
        day=moment.day,
        month=say.say(f"date.{month_name[moment.month].lower()}"),
        year=moment.strftime("%Y"),
        time=f"{moment:%H:%M} {moment.tzname() or ''}",
    )


def _finalize(value: object) -> object:
    if isinstance(value, Markup):
        return value
    return number_text.visible(value) if isinstance(value, str) else value


def _breakable(name: str) -> Markup:
    """A long_snake_case_name that may break after its underscores."""
    return Markup("_<wbr>").join(number_text.visible(name).split("_"))


def _prose(sentence: str) -> Markup:
    """A sentence whose command line flags are set as code."""
    shown, out, last = number_text.visible(sentence), Markup(), 0
    for match in _FLAG.finditer(shown):
        out += escape(shown[last : match.start()]) + Markup('<code class="flag">{}</code>').format(match.group())
        last = match.end()
    return out + escape(shown[last:])


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


@cache
def environment() -> Environment:
    """The template environment of all pages: escaping, and strict about missing values."""
    made = Environment(
        loader=PackageLoader("auditor.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    made.filters |= {
        "breakable": _breakable,
        "prose": _prose,
        "shortened": number_text.shortened,
        "bounds": number_text.grade_interval,
        "count": number_text.count,
        "interval": number_text.interval,
        "moment": moment,
        "number": number_text.number,
        "percent": number_text.percent,
        "zip": zip,
        "megabytes": _megabytes,
    }
    made.globals["plural"] = number_text.plural
    return made
