"""The content of a report as one document, from the first page to the limits, for Markdown and paper."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from auditor.judging.criterion import CriterionRecord
from auditor.judging.figure_types import Figure, GradedMethod, GradeTable
from auditor.judging.measurement import Outcome
from auditor.report import report_view
from auditor.report.document import (
    Beside,
    Block,
    Heading,
    Line,
    PageBreak,
    Picture,
    Span,
    bullets,
    code,
    external_text,
    joined,
    line,
    paragraph,
    small,
    strong,
    table,
)
from auditor.report.drawing.figure_data import scale_of, strength
from auditor.report.first_page import FirstPage, first_page
from auditor.report.html import ShownCell, ShownControl, idle_words, policies_of
from auditor.report.record import number_text, summary_lines
from auditor.report.record.audit_report import INTAKE, AuditReport
from auditor.report.record.finding_text import question_text
from auditor.report.record.glossary import definitions_of, definitions_of_judged
from auditor.report.record.provenance_of_number import short_name
from auditor.report.record.summary_lines import worth_of
from auditor.report.record.translations import ENGLISH, Catalogue
from auditor.report.remediation import remediation_of
from auditor.report.report_figures import front_and_rest, pillars_of, sources_of
from auditor.report.report_view import Row
from auditor.report.rows_page import bars_in_words
from auditor.report.scope_page import scope_of

# A record of thousands of findings is read by a program; on paper the gravest are told, and the rest is counted.
MOST_TOLD, MOST_FOLDED, MOST_REMEDIES, MOST_TEXTS = 250, 600, 40, 10
# Of these, on the page that is signed.
MOST_ON_PAPER = 8
_MOST_WORDS = 6
_LONGEST_WHY = 2000  # a finding stays on one page
_LONGEST_DETAIL = 250
_JUDGED = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.NOT_RUN, Outcome.PASS)
_BLANK = Span("", "blank")


def report_document(report: AuditReport, say: Catalogue | None = None) -> tuple[Block, ...]:
    """The report as a document; ``say``: other words than the record's own.

    What is behind the last page break is an appendix: a rendering in brief leaves it out.
    """
    # What is missing is counted anew, so that a record drawn twice is the same.
    page = first_page(report, None if say is None else replace(say, missing=set()))
    writer = _Writer(report, page, report_view.shown_rows(report, page.say))
    # Which phrases lack a translation is known once every other one was said.
    rest = tuple(writer.rest())
    return (*writer.front(), *rest)


@dataclass(frozen=True)
class _Writer:
    report: AuditReport
    page: FirstPage
    rows: Sequence[Row]
    notes: list[str] = field(default_factory=list)

    def say(self, key: str, **words: object) -> str:
        """A phrase of the page's language."""
        return self.page.say.say(key, **words)

    def heads(self, section: str, *names: str) -> list[str]:
        """The words above columns."""
        return [self.say(f"{section}.{name}") for name in names]

    def heading(self, key: str, level: int = 2) -> Heading:
        """A heading in the catalogue's words."""
        return Heading(2 if level == 2 else 3, line(self.say(key)))

    def facts(self, title: str, rows: Iterable[tuple[str, str, str]]) -> tuple[Block, ...]:
        """Names and values below a heading; what is not stated is a line to fill in, with its key."""
        cells = [(name, value or Span(key, "blank")) for name, value, key in rows]
        return Heading(3, line(title)), table(self.heads("rest", "name", "value"), cells, "ll", "facts")

    def mark(self, *words: str) -> str:
        """The numbers of notes, which are said once below the tables."""
        known = [word for word in words if word]
        self.notes.extend(word for word in dict.fromkeys(known) if word not in self.notes)
        return f" ({', '.join(str(self.notes.index(word) + 1) for word in known)})" if known else ""

    # ---- the first page ----------------------------------------------------------------------------------------------

    def front(self) -> Iterator[Block]:
        """The verdict, the questions, what to do next, and what changes how it is read."""
        page, report, say = self.page, self.report, self.say
        about = [page.organisation, page.document, report_view.document_id(report)[:16]]
        yield paragraph(small(" · ".join(filter(None, about))))
        yield Heading(1, line(page.title))
        yield paragraph(small(" · ".join(page.subtitle)))
        slug, ended = page.outcome.slug, say("counted.exit", code=report.exit_code)
        yield paragraph(strong(f"{page.headline}.", slug), f" {page.effect} {ended}.", tone=slug)
        if report.refusal is not None:
            yield paragraph(code(report.refusal.printed_code), external_text(f" {report.refusal.reason}"))
        worth = worth_of(report, page.say)
        if worth is not None:
            # No limit is set here: skill is no tick.
            held = worth.outcome is Outcome.PASS
            tone = (Outcome.NOT_JUDGED if held else worth.outcome).slug
            skill = () if held and worth.line else (" ", strong(worth.skill, tone))
            yield paragraph(strong(say("worth.title")), f" {worth.line}", *skill, tone=tone)
        yield from self.questions()
        if report.refusal is None:
            yield from self.next_steps()
        for warning in report_view.warnings_of(report, page.say):
            yield paragraph(strong(say("rest.note_well")), f" {warning}", note=True)
        counts = report_view.counts_of(report, page.say)
        heads = [strong(c.outcome.words, c.outcome.slug) for c in counts]
        numbers = [strong(page.say.count(c.n), c.outcome.slug) for c in counts]
        yield table(heads, [numbers, [small(c.meaning) for c in counts]], "r" * len(counts))
        elsewhere = report_view.for_other_kinds(report, page.say)
        yield paragraph(small(" · ".join([*filter(None, [elsewhere]), *page.last])))
        if page.own_words:
            yield paragraph(strong(say("rest.note_well")), external_text(f" {page.own_words}"), note=True)
        recorded = say("limit.recorded") if page.language != ENGLISH else ""
        yield from (paragraph(small(note)) for note in (page.retold, recorded, page.fallback) if note)

    def questions(self) -> Iterator[Block]:
        """What was judged or lost, by question."""
        page = self.page
        rows = [
            (
                line(strong(own.name), small(f" {own.question}" if own.question else "")),
                own.about,
                (strong(own.found), small(f" {own.interval}")),
                (Span("", "axis", own.outcome.slug, axis=own.axis), small(own.allowed)),
                (strong(own.verdict, own.outcome.slug), small(f" {own.small}")),
            )
            for own in page.lines
        ]
        if rows:
            yield table(self.heads("page", "question", "about", "found", "axis", "outcome"), rows, "lllll")
        more = f"{self.say('page.more', n=page.say.count(page.more_lines))}." if page.more_lines else ""
        yield paragraph(small(f"{more} {page.sure} {page.withstood}".strip()))

    def next_steps(self) -> Iterator[Block]:
        """What is notable without a limit, and what to do next."""
        page, say = self.page, self.say
        for question, told in bars_in_words(page.panels):
            yield paragraph(strong(question), external_text(f" {told}"))
        if not page.panels:
            yield self.heading("page.shown")
            shown = [told.sentence for told in page.shown]
            yield bullets(shown) if shown else paragraph(page.nothing_shown)
        yield self.heading("page.next")
        due = (small(f" {say('next.due')} "), _BLANK)
        steps = [
            line(a.sentence + " " * bool(a.command), *_command(a.command), small(f" {a.by} "), _BLANK, *due)
            for a in page.actions
        ]
        yield bullets(steps, numbered=True) if steps else paragraph(say("page.nothing_next"))
        if page.must_show:
            yield paragraph(page.must_show)

    # ---- scope, and what is to be done -------------------------------------------------------------------------------

    def rest(self) -> Iterator[Block]:
        """All that stands below the first page."""
        yield PageBreak()
        yield from self.scope()
        yield from self.control()
        yield PageBreak()
        yield from self.remedies(slice(0, MOST_ON_PAPER))
        yield from self.duties()
        if self.report.registration is not None and self.report.registration.deviations:
            yield self.heading("paper.deviations")
            yield bullets(map(external_text, self.report.registration.deviations))
        yield self.heading("paper.promise")
        yield paragraph(report_view.promise_of(self.report, self.page.say))
        people = [*self.heads("page", "prepared", "reviewed", "approved"), self.say("paper.risk_accepted")]
        heads = self.heads("paper", "signed", "name", "signature", "date")
        yield table(heads, [(who, _BLANK, _BLANK, _BLANK) for who in people], "llll", "field")
        yield paragraph(small(f"{self.say('page.signature')} {self.say('paper.appendix')}"))
        yield PageBreak(appendix=True)
        if len(remediation_of(self.report, self.page.say).lines) > MOST_ON_PAPER:
            yield from self.remedies(slice(MOST_ON_PAPER, MOST_REMEDIES))
        yield from self.missing()
        yield from self.pictures()
        yield from self.numbers()
        yield from self.packs()
        yield PageBreak(columns=2)
        yield from self.folded()
        yield from self.definitions()
        yield from self.criteria()
        yield from self.provenance()
        yield self.heading("paper.limits")
        yield bullets(report_view.limits_of(self.page.say))

    def scope(self) -> Iterator[Block]:
        """Whose, what, for which system and on which rows; and whom these stand for."""
        scope = scope_of(self.report, self.page.say)
        yield Heading(2, line(scope.title))
        yield paragraph(small(scope.lead))
        yield Beside(
            tuple(self.facts(part.title, ((x.label, x.value, x.key) for x in part.lines)) for part in scope.sections)
        )
        rows = [(x.group, x.n, x.said) for own in scope.groups for x in own.lines]
        rows += [(own.feature, "", own.more) for own in scope.groups if own.more]
        yield Heading(3, line(scope.groups_title))
        if rows:
            yield table(scope.heads, rows, "lrl")
        yield from (paragraph(small(note)) for note in scope.notes)

    def control(self) -> Iterator[Block]:
        """The record that this is drawn from, the plan that it kept to, and the next review."""
        report, plan, say = self.report, self.report.registration, self.say
        version, schema = report.tool.get("version", ""), report.schema_version
        id_ = report_view.document_id(report)
        told = (
            ("paper.control_document", f"{id_}, SHA-256 (report.json)"),
            ("rest.control_tool", say("rest.control_made", version=version, schema=schema)),
            ("paper.control_dates", say("rest.dates")),
            ("paper.control_groups", ", ".join(report.data.sensitive) or say("rest.no_groups")),
            ("paper.control_plan", say("rest.plan_none") if plan is None else plan.describe()),
            ("paper.control_review", ""),
        )
        yield from self.facts(say("paper.control"), ((say(key), value, "") for key, value in told))
        yield paragraph(strong(say("limit.no_advice")), f" {say('limit.states')}")

    def remedies(self, which: slice) -> Iterator[Block]:
        """What is to be done about some of the findings, by whom and until when."""
        own = remediation_of(self.report, self.page.say)
        yield Heading(2, line(own.title))
        if not own.lines:
            yield paragraph(own.nothing)
            return
        rows = [
            (
                line(
                    strong(x.name, x.outcome.slug),
                    f" {x.about} ",
                    small(_number(x.found, x.interval, x.allowed)),
                )
                + line(" ", code(x.id)),
                x.severity,
                x.owner or _BLANK,
                x.due or _BLANK,
                x.said,
            )
            for x in own.lines[which]
        ]
        yield table(own.heads, rows, "lllll", brief=10)
        left_out = len(own.lines) - which.stop
        if left_out > 0:
            yield paragraph(small(self.say("remedy.more", n=self.page.say.count(left_out))))
        if which.start:
            return
        yield paragraph(small(own.rule))
        if own.retest:
            yield paragraph(small(f"{own.retest_title}: "), *_command(own.retest))

    def duties(self) -> Iterator[Block]:
        """What the rule packs leave to people, by role."""
        for shown in policies_of(self.report, self.rows):
            if shown.duties:
                roles = [f"{role} ({self.page.say.count(len(ids))}): {', '.join(ids)}" for role, ids in shown.duties]
                lead = self.say("rest.packs_duties", title=shown.policy.title)
                yield paragraph(strong(f"{lead} "), external_text(f"{'; '.join(roles)}."))

    def missing(self) -> Iterator[Block]:
        """What did not run, and what lacked an input."""
        refused = self.report.refusal is not None
        for outcome, name, nothing in (
            (Outcome.NOT_RUN, "not_run", "refused" if refused else "all_ran"),
            (Outcome.NOT_APPLICABLE, "not_measured", "none_lacked"),
        ):
            rows = [r for r in self.rows if r.outcome is outcome and not r.finding.other_kind]
            lacking: dict[str, list[Line]] = {}
            for row in rows:
                lacking.setdefault(row.finding.reason, []).append(_measured(row))
            yield Heading(3, line(f"{self.say(f'paper.{name}')} ({self.page.say.count(len(rows))})"))
            items = [(*joined(names, ", "), external_text(f": {reason}")) for reason, names in lacking.items()]
            yield bullets(items) if items else paragraph(self.say(f"paper.{nothing}"))

    # ---- figures and numbers -----------------------------------------------------------------------------------------

    def pictures(self) -> Iterator[Block]:
        """The figures: of all that was judged, then by pillar."""
        say = self.page.say
        drawn = [
            (self.say("picture.heading"), report_view.drawn_as(i, f, say))
            for i, f in front_and_rest(self.report, say)[0]
        ]
        drawn += [(pillar_title(p.name, say), d) for p in pillars_of(self.report, say) for d in p.figures]
        for heading, own in drawn:
            yield Picture(heading, own, tuple(self.explained(own.figure)))

    def explained(self, figure: Figure) -> Iterator[Block]:
        """What a figure that explains says in words; figures of numbers are left to the numbers."""
        say, scale = self.page.say, scale_of(figure.texts)
        items = []
        for i, own in enumerate(figure.texts[:MOST_TEXTS], 1):
            known = [(w, v) for w, v in zip(own.words, own.values, strict=True) if strength(v, scale)]
            ranked = sorted(known, key=lambda pair: -abs(pair[1] or 0.0))[:_MOST_WORDS]
            values = [line(code(w.strip()), f" {say.spelled(number_text.signed(v))}") for w, v in ranked]
            if all(value is None for value in own.values):
                values = [line(code(word.strip())) for word in own.words]
            named = external_text(f"{own.title or self.say('column.untitled', n=i)}: ")
            items.append((named, *(joined(values, ", ") or line(self.say("column.no_word")))))
        if items:
            yield bullets(items)
        elif figure.table is not None and figure.table.methods:
            # A row per method, since its many columns are wider than a page.
            rows = [
                (
                    code(m.method),
                    self.say(f"standing.{m.standing}"),
                    _graded(figure.table, m, say),
                    external_text(m.reason),
                )
                for m in figure.table.methods
            ]
            yield table(self.heads("column", "method", "standing", "grades", "why"), rows, "llll", brief=10)
        elif figure.kind in ("heatmap", "beeswarm"):
            yield paragraph(external_text(figure.alt))

    def numbers(self) -> Iterator[Block]:
        """What was judged or lost, each with its reason."""
        told = sorted((r for r in self.rows if r.outcome in _JUDGED), key=lambda r: r.rank)
        yield self.heading("paper.numbers")
        if told:
            names = ("outcome", "what", "value", "interval", "must_be", "rows", "needs", "why")
            yield table(
                self.heads("paper", *names), map(self.finding_row, told[:MOST_TOLD]), "llrrlrrl", "findings", brief=20
            )
        yield from self.only_in_record(told[MOST_TOLD:])
        if any(r.outcome is Outcome.INCONCLUSIVE for r in told):
            yield paragraph(small(f"{self.say('rest.alone')} {summary_lines.describe_rows_for_all(self.report)}"))
        worst = next((r for r in told if r.finding.criterion), None)
        if worst is not None:
            name = shlex.quote(short_name(self.report, worst.finding))
            command = f"auditor report report.json --finding {name}"
            yield paragraph(f"{self.say('trace.look_up')} ", *_command(command))

    def finding_row(self, row: Row) -> Sequence[str | Span | Line]:
        """A finding as a row; its last cell stands below it on paper."""
        f, long = row.finding, len(row.finding.detail) > _LONGEST_DETAIL
        why = [f.reason.removesuffix(f.tried).strip(), f.detail if f.detail != f.reason and not long else ""]
        level = self.say("form.level", level=row.confidence) if row.confidence and row.interval else ""
        notes = self.mark(f.tried if f.reason.endswith(f.tried) else "", f.detail if long else "")
        reason = " ".join(part if part.endswith((".", "!", "?")) else f"{part}." for part in why if part)
        return (
            strong(row.outcome.words, row.outcome.slug),
            _measured(row),
            row.value if f.metric is not None else "",
            f"{row.interval} {level}".strip(),
            row.must_be,
            row.n,
            "" if f.n_required is None else self.page.say.count(f.n_required),
            line(code(f.id), external_text(f" {reason}", _LONGEST_WHY), small(notes)),
        )

    def only_in_record(self, rows: Sequence[Row]) -> Iterator[Block]:
        """How many findings of which outcome stand only in the record."""
        say, n_of = self.page.say, {o: sum(r.outcome is o for r in rows) for o in report_view.ORDER}
        if rows:
            tally = ", ".join(f"{say.count(n)} {o.words}" for o, n in n_of.items() if n)
            yield paragraph(small(self.say("paper.only_in_record", tally=tally)))

    def folded(self) -> Iterator[Block]:
        """The numbers that nobody bounded, by question: ids that begin alike are told by what they end on."""
        say = self.page.say
        own = [r for r in self.rows if r.outcome is Outcome.NOT_JUDGED]
        own.sort(key=lambda r: report_view.is_detail(r.finding))
        kept = {r.anchor for r in own[:MOST_FOLDED]}
        asked: dict[str, dict[str, list[Sequence[str | Span | Line]]]] = {}
        for row in (r for r in self.rows if r.anchor in kept):
            f, (stem, rest) = row.finding, stem_of(row.finding.id)
            lines = asked.setdefault(question_text(self.report, f.probe, f.metric, say), {}).setdefault(stem, [])
            lines.append((external_text(rest), line(row.value, small(self.mark(f.reason))), row.interval))
        if own:
            yield Heading(3, line(say.count_text("paper.folded", len(own))))
            yield paragraph(small(self.say("paper.folded_how")))
        for question, stems in asked.items():
            head: list[str | Span] = [strong(question), *self.heads("paper", "value", "interval")]
            yield table(head, [row for stem, own in stems.items() for row in ((code(stem), "", ""), *own)], "lrr")
        yield from self.only_in_record(own[MOST_FOLDED:])
        if self.notes:
            yield self.heading("paper.notes", 3)
            yield bullets((external_text(note, _LONGEST_WHY) for note in self.notes), numbered=True)
        elsewhere = dict.fromkeys(r.name for r in self.rows if r.finding.other_kind)
        if elsewhere:
            yield paragraph(small(self.say("paper.elsewhere", probes=", ".join(elsewhere))))

    # ---- rule packs, and what everything rests on --------------------------------------------------------------------

    def packs(self) -> Iterator[Block]:
        """What each rule pack asks for, and what there is of it."""
        policies = policies_of(self.report, self.rows)
        if policies:
            yield self.heading("paper.packs")
            yield paragraph(self.say("rest.packs_lead"))
        for shown in policies:
            p = shown.policy
            yield Heading(3, line(external_text(p.title)))
            about = (shown.origin, shown.tally, shown.held_to, shown.not_in_force, p.old)
            yield paragraph(external_text(" ".join(filter(None, about))))
            if p.notes:
                yield bullets(map(external_text, p.notes))
            cells = [
                self.cell(own, cell, p.as_of, first=not i) for own in shown.controls for i, cell in enumerate(own.cells)
            ]
            heads = self.heads("rest", "packs_control", "packs_force", "packs_asks", "packs_there")
            yield table(heads, cells, "llll")

    def cell(self, control: ShownControl, cell: ShownCell, as_of: str, *, first: bool) -> Sequence[Line]:
        """What a control asks for, and what there is of it; what the whole control rests on is said once."""
        c, own, cited = control.control, cell.cell, control.cited_apart(cell)
        rests = external_text(f" {c.title} ({control.cited}, {c.certainty})" if first else "")
        force = self.say("rest.packs_in_force") if c.in_force else idle_words(c, as_of, self.page.say)
        there: list[str | Span] = [strong(f"{cell.state[0].upper()}{cell.state[1:]}", cell.slug)]
        match own.kind:
            case "evidence":
                there += [f" ({cell.tally}): " if cell.outcomes else ": "]
                there += joined([_measured(row, value=True) for row in cell.rows], ", ")
                there += [f" {self.say('rest.more', n=cell.left_out)}" if cell.left_out else ""]
                there += [external_text(f" {words}") for words in (cell.reserved, own.said, *own.tried) if words]
            case "attestation needed":
                there += [f" {self.say('rest.packs_from', role=own.role)}"]
            case _:
                there += [external_text(": " + " ".join(filter(None, (own.reason, own.how))))]
        asks = line(external_text(own.what), external_text(f" ({cited})" if cited else ""))
        return line(strong(c.id), rests), line(force if first else ""), asks, line(*there)

    def definitions(self) -> Iterator[Block]:
        """The papers of the probes that ran, what each metric means, and the terms that are used.

        Of what nobody set a bound for only formula, range and ideal: how to read it is a look-up away.
        """
        say = self.page.say
        sources = [s for s in sources_of(self.rows) if s.citation]
        if sources:
            yield self.heading("paper.methods")
            yield bullets(
                line(code(s.probe), external_text(f" ({s.methods})" * bool(s.methods) + f": {s.citation}"))
                for s in sources
            )
        known, (judged, n_others) = definitions_of(self.report, say), definitions_of_judged(self.report, say)
        by_probe: dict[str, list[Line]] = {}
        for metric in known.metrics:
            own = metric.definition
            in_short = own is not None and metric not in judged.metrics
            said = f"{own.formula}. {known.span(own)}" if own is not None and in_short else known.meaning(metric)
            by_probe.setdefault(metric.probe, []).append(line(code(metric.name), external_text(f" {said}")))
        if by_probe or known.terms:
            yield self.heading("paper.definitions")
        for probe, lines in by_probe.items():
            yield Heading(3, line(external_text(probe)))
            yield bullets(lines)
        if n_others:
            yield paragraph(small(say.count_text("paper.defined", n_others)))
        if known.terms:
            yield Heading(3, line(known.label("terms")))
            yield bullets(line(strong(term.name), f" {term.meaning}") for term in known.terms)

    def criteria(self) -> Iterator[Block]:
        """Criteria by whoever set them, when and from which source: those that held something here, then the others."""
        say = self.page.say
        yield self.heading("paper.criteria")
        if not self.report.criteria:
            yield paragraph(self.say("paper.no_criterion"))
        used = [f.criterion for f in self.report.findings if f.criterion is not None]
        by_source: dict[tuple[str, str, str], list[CriterionRecord]] = {}
        for c in self.report.criteria:
            by_source.setdefault((c.source, c.set_by, c.set_at), []).append(c)
        for (source, set_by, set_at), own in by_source.items():
            yield paragraph(small(self.say("paper.set_by", source=source, who=set_by, day=set_at)))
            rows = [
                (code(c.metric), say.required(c), external_text(report_view.applies_to(c, say)))
                for c in own
                if c in used
            ]
            if rows:
                yield table(self.heads("paper", "metric", "must_be", "applies"), rows, "lll")
            idle = [f"{c.metric} {say.required(c)}" + f" ({c.probe})" * bool(c.probe) for c in own if c not in used]
            if idle:
                yield paragraph(small(self.say("paper.idle", criteria="; ".join(idle))))

    def provenance(self) -> Iterator[Block]:
        """How the model and the data were read, and where the audit ran."""
        m, data, e, count = self.report.model, self.report.data, self.report.environment, self.page.say.count
        word = self.page.say.section("rest")
        yield self.heading("paper.provenance")
        model = {
            "file": m.path or word["in_memory"],
            "format": m.format,
            "loaded_by": m.loaded_by,
            "model_digest": m.sha256 or word["not_known"],
            "parameters": "" if m.n_parameters is None else count(m.n_parameters),
            "dtype": m.dtype,
            "size": "" if m.size_bytes is None else self.say("rest.bytes", n=count(m.size_bytes)),
            "classes": ", ".join(m.classes),
        }
        rows = {
            "data": data.path or word["none_given" if data.n_rows is None else "in_memory"],
            "n_rows": "" if data.n_rows is None else count(data.n_rows),
            "data_digest": data.sha256,
            "target": data.target,
            "favourable": data.positive,
            "training": data.train_path,
            "training_digest": data.train_sha256,
        }
        here = {
            "command": e.command,
            "platform": self.say("rest.ran_on", platform=e.platform, python=e.python, device=e.device, seed=e.seed),
            "limits_set": ", ".join(f"{k} {v}" for k, v in e.limits.items()) or word["none"],
            "sandbox": "" if e.sandbox is None else e.sandbox.describe(),
            "history": "" if self.report.looks is None else f"{word['entered_after']} {self.report.looks.head}",
            "packages": ", ".join(f"{k} {v}" for k, v in e.packages.items()) or word["not_recorded"],
            "duration": f"{self.page.say.spelled(f'{self.report.duration_s:.1f}')} s",
        }
        obeyed = [file.told_whole(self.page.say) for file in self.report.obeyed]
        for name, own, notes in (
            ("model_loaded", model, m.notes),
            ("data_read", rows, data.notes),
            ("environment", here, obeyed),
        )[self.report.rows_alone :]:
            named = {"model_digest": "SHA-256", "data_digest": "SHA-256"}
            named["training_digest"] = word["training_digest"].format(digest="SHA-256")
            known = ((named.get(key) or word[key], value, "") for key, value in own.items() if value)
            yield from self.facts(word[name], known)
            if notes:
                yield bullets(map(external_text, notes))


def pillar_title(name: str, say: Catalogue) -> str:
    """A pillar as a heading."""
    return say.say("rest.the_file") if name == INTAKE else say.pillar(name).capitalize()


def stem_of(name: str) -> tuple[str, str]:
    """An id's probe and method, and its remaining part."""
    parts = name.split("/")
    n = 2 if len(parts) > 2 else len(parts) - 1
    return "/".join(parts[:n]) + "/" * (n > 0), "/".join(parts[n:])


def _command(words: str) -> Line:
    return (Span(words, "command"),) if words else ()


def _number(found: str, interval: str, allowed: str) -> str:
    """A value with its interval and its limit."""
    return found + f" ({interval})" * bool(interval) + f", {allowed}" * bool(allowed)


def _measured(row: Row, *, value: bool = False) -> Line:
    """Metric, place, and where rows would else look alike the method; ``value``: with its value and interval."""
    where = (" ", code(row.where)) if row.where else ()
    by = (" (", code(row.by), ")") if row.by else ()
    return line(code(row.name), *where, *by, f" {_number(row.value, row.interval, '')}" if value and row.value else "")


def _graded(graded: GradeTable, method: GradedMethod, say: Catalogue) -> str:
    """Each grade with its interval, then those that were not measured together."""
    absent: dict[str, list[str]] = {}
    known = []
    for name, own in zip((name.replace("_", " ") for name in graded.grades), method.grades, strict=True):
        if own.value is None:
            absent.setdefault(say.grade(own), []).append(name)
        else:
            bounds = say.ends((own.low, own.high)) if number_text.grade_interval(own) else ""
            known.append(f"{name} {_number(say.grade(own), bounds, '')}")
    return "; ".join([*known, *(f"{why}: {', '.join(names)}" for why, names in absent.items())])
