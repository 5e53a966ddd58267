"""The report in a few lines of Markdown, for a pull request or a chat."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from auditor.judging.figure_types import ColouredText, Figure, GradeTable
from auditor.judging.measurement import Outcome
from auditor.report import report_view
from auditor.report.drawing.figure_data import scale_of, strength
from auditor.report.first_page import FirstPage, first_page
from auditor.report.record import number_text, summary_lines
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.provenance_of_number import short_name
from auditor.report.record.summary_lines import worth_of
from auditor.report.record.translations import ENGLISH, Catalogue
from auditor.report.remediation import Remediation, remediation_of
from auditor.report.report_view import Row
from auditor.report.rule_pack_view import ShownCell, ShownPolicy, policies_of
from auditor.report.scope_page import Scope, scope_of

MOST = 10
_MOST_WORDS = 6
_LONGEST_NAME, _LONGEST_SENTENCE = 80, 400
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~&$]|:(?=//)|(?<=www)\.)")
_CALLS = re.compile(r"[@#]")


def render_markdown(report: AuditReport, say: Catalogue | None = None) -> str:
    """A short Markdown text: the verdict, all six counts, failures, undecided questions, and checks not run.

    ``say``: other words than the record's own. Names stand in code spans and sentences are escaped, so that data can
    neither format, link, embed nor mention.
    """
    page = first_page(report, say)
    say = page.say
    rows = report_view.shown_rows(report, say)
    lines = _verdict(report, page) + _warnings(report, say) + _deviations(report, say) + _counts(report, page)
    lines += _question_lines(page)
    lines += _scope(scope_of(report, say)) + _remedies(remediation_of(report, say), say) + _translation(page)
    lines += _outcomes(report, rows, say)
    lines += [line for figure in report.figures for line in _explained(figure, say)]
    lines += _controls(policies_of(report, rows), say)
    lines += _promise(report, rows, say) + _provenance(report, page)
    return "\n".join(lines) + "\n"


def _verdict(report: AuditReport, page: FirstPage) -> list[str]:
    """The title, the verdict, what the performance is, and why a file was refused."""
    say = page.say
    lines = [f"## {say.say('page.title', model=code_span(report.model.path or report.model.display_name))}", ""]
    lines += [escaped(" · ".join(page.subtitle)), ""] if page.subtitle else []
    ended = escaped(say.say("counted.exit", code=report.exit_code))
    lines += [f"**{escaped(page.headline)}.** {escaped(page.effect)} {ended}.", ""]
    worth = worth_of(report, say)
    lines += [f"**{escaped(say.say('worth.title'))}** {escaped(worth.sentence)}", ""] if worth is not None else []
    if report.refusal is not None:
        lines += [f"{code_span(report.refusal.printed_code)} {escaped(report.refusal.reason)}", ""]
    return lines


def _warnings(report: AuditReport, say: Catalogue) -> list[str]:
    noted = escaped(say.say("rest.note_well"))
    warnings = [escaped(warning, 2 * _LONGEST_SENTENCE) for warning in report_view.warnings_of(report, say)]
    return [line for warning in warnings for line in (f"> **{noted}** {warning}", "")]


def _deviations(report: AuditReport, say: Catalogue) -> list[str]:
    """How the audit differs from its registered plan."""
    if report.registration is None or not report.registration.deviations:
        return []
    deviations = [f"- {escaped(deviation)}" for deviation in report.registration.deviations]
    return [f"### {escaped(say.say('rest.deviations'))}", "", *deviations, ""]


def _counts(report: AuditReport, page: FirstPage) -> list[str]:
    """The six counts, and the probes for other kinds of model beside them."""
    say = page.say
    counts = report_view.counts_of(report, say)
    lines = ["| " + " | ".join(c.outcome.words for c in counts) + " |"]
    lines += ["|" + " ---: |" * len(counts)]
    lines += ["| " + " | ".join(say.count(c.n) for c in counts) + " |", ""]
    elsewhere = report_view.for_other_kinds(report, say)
    lines += [f"{escaped(elsewhere)}.", ""] if elsewhere else []
    noted = escaped(say.say("rest.note_well"))
    return lines + ([f"> **{noted}** {escaped(page.own_words)}", ""] if page.own_words else [])


def _translation(page: FirstPage) -> list[str]:
    """Notes on which words are translated and which are the record's own."""
    recorded = page.say.say("limit.recorded") if page.language != ENGLISH else ""
    return [line for note in (page.retold, recorded) if note for line in (f"_{escaped(note)}_", "")]


def _outcomes(report: AuditReport, rows: Sequence[Row], say: Catalogue) -> list[str]:
    """Tables of findings by outcome, with what was tried and how many rows would settle what is open."""
    lines = _judged_lines([r for r in rows if r.outcome in (Outcome.FAIL, Outcome.PASS)], say)
    lines += _open([r for r in rows if r.outcome is Outcome.INCONCLUSIVE], say)
    attempts = dict.fromkeys(r.finding.tried for r in rows if r.finding.tried and r.finding.criterion)
    lines += [line for attempt in attempts for line in (escaped(attempt, 2 * _LONGEST_SENTENCE), "")]
    needed = summary_lines.describe_rows_for_all(report)
    lines += [escaped(needed, 2 * _LONGEST_SENTENCE), ""] if needed else []
    lines += _reasons(say.say("rest.stopped"), [r for r in rows if r.outcome is Outcome.NOT_RUN], say)
    absent = [r for r in rows if r.outcome is Outcome.NOT_APPLICABLE and not r.finding.other_kind]
    return lines + _reasons(say.say("rest.not_applicable"), absent, say)


def _promise(report: AuditReport, rows: Sequence[Row], say: Catalogue) -> list[str]:
    """The error rates that hold, the plan that was followed, and how to look up the gravest finding."""
    lines = [escaped(report_view.promise_of(report, say), 2 * _LONGEST_SENTENCE), ""]
    if report.registration is not None and report.registration.followed:
        lines += [escaped(report.registration.describe()), ""]
    worst = min((r for r in rows if r.finding.criterion), key=lambda r: r.rank, default=None)
    if worst is not None:
        command = f"auditor report report.json --finding {shlex.quote(short_name(report, worst.finding))}"
        lines += [f"{escaped(say.say('trace.look_up'))} {code_span(command, limit=_LONGEST_SENTENCE)}", ""]
    return lines


def _provenance(report: AuditReport, page: FirstPage) -> list[str]:
    """The data, the version and the id of the record, and the limits of what it says."""
    say = page.say
    data = f"{code_span(report.data.path)}, " if report.data.path else ""
    n_rows = "" if report.data.n_rows is None else f"{say.count_text('rest.training_rows', report.data.n_rows)}, "
    version = code_span(report.tool.get("version", ""))
    record = say.say("rest.record", id=code_span(report_view.document_id(report)))
    lines = [f"{data}{n_rows}auditor {version}, {record}. {escaped(say.say('limit.no_advice'))}"]
    lines += [escaped(say.say("rest.dates"), _LONGEST_SENTENCE)]
    return lines + (["", f"_{escaped(page.fallback)}_"] if page.fallback else [])


def _controls(policies: Sequence[ShownPolicy], say: Catalogue) -> list[str]:
    lines: list[str] = []
    for shown in policies:
        lines += [f"### {escaped(shown.policy.title)}", ""]
        lines += [f"{escaped(shown.origin, 2 * _LONGEST_SENTENCE)} {escaped(shown.tally)} {escaped(shown.held_to)}", ""]
        if shown.not_in_force:
            lines += [shown.not_in_force, ""]
        heads = ("packs_control", "packs_asks", "packs_there", "source")
        lines += [_headed(say, *(f"rest.{name}" for name in heads)), "| --- | --- | --- | --- |"]
        for control in shown.controls:
            for cell in control.cells:
                force = "" if control.control.in_force else f" ({escaped(say.say('rest.not_in_force'))})"
                lines.append(
                    f"| {escaped(control.control.id)}{force} | {escaped(cell.cell.what)} | {_there_is(cell, say)} "
                    f"| {escaped(cell.cell.cited)} |"
                )
        lines.append("")
    return lines


def _there_is(cell: ShownCell, say: Catalogue) -> str:
    own = cell.cell
    match own.kind:
        case "evidence":
            came_out = "" if own.outcome is None else f"**{own.outcome.words}**, "
            tally = f" ({cell.tally})" if cell.outcomes else ""
            more = f" {escaped(say.say('rest.more', n=cell.left_out))}" if cell.left_out else ""
            names = ["; ".join(_measured_text(row) for row in cell.rows) + more] if cell.rows else []
            said = [*names, *map(escaped, (*own.tried, *([own.said] if own.said else [])))]
            return f"{came_out}evidence{tally}: {'. '.join(said)}"
        case "attestation needed":
            return f"**ATTESTATION NEEDED** from {escaped(own.role)}"
        case "not measured":
            return f"**NOT MEASURED**: {escaped(own.reason)} {escaped(own.how)}".replace("**:  ", "**: ")
    return f"NOT FOR THIS KIND OF MODEL: {escaped(own.reason)}"


def _question_lines(page: FirstPage) -> list[str]:
    """The questions, what is shown without a bound, and what to do next, as on the first page of the others."""
    say, lines, question = page.say, list[str](), ""
    if page.lines:
        head = (f"page.{name}" for name in ("question", "about", "found", "outcome"))
        lines += ["| " + " | ".join(escaped(say.say(name)) for name in head) + " |", "| --- | --- | --- | --- |"]
    for line in page.lines:
        question = line.question or question
        found = f"**{escaped(line.found)}** {escaped(line.interval)}".strip()
        verdict = f"**{escaped(line.verdict)}** {escaped(line.small)}".strip()
        lines.append(f"| {escaped(question)} | {escaped(line.about)} | {found} | {verdict} |")
    if page.more_lines:
        lines += ["", escaped(say.say("page.more", n=say.count(page.more_lines)))]
    if page.shown:
        lines += ["", f"### {escaped(say.say('page.shown'))}", ""]
        lines += [f"- {escaped(told.sentence)}" for told in page.shown]
    if page.actions:
        lines += ["", f"### {escaped(say.say('page.next'))}", ""]
        for action in page.actions:
            command = f" {code_span(action.command, limit=_LONGEST_SENTENCE)}" if action.command else ""
            lines.append(f"- {escaped(action.sentence)}{command}")
    return [*lines, ""] if lines else []


def _scope(scope: Scope) -> list[str]:
    """Whose, what, for which system and on which rows, a paragraph each; what nobody stated is named by its key."""
    lines = [f"### {escaped(scope.title)}", ""]
    for section in scope.sections:
        known = "; ".join(f"{line.label}: {line.value}" for line in section.lines if line.value)
        lines += [f"**{escaped(section.title)}.** {escaped(known)}", ""] if known else []
    absent = [
        code_span(line.key) for section in scope.sections for line in section.lines if line.key and not line.value
    ]
    lines += [f"{escaped(scope.absent)}: {', '.join(absent)}.", ""] if absent else []
    lines += [f"- {escaped(group.group)}: {escaped(group.said)}" for own in scope.groups for group in own.lines]
    lines += [f"- {escaped(own.feature)}: {escaped(own.more)}" for own in scope.groups if own.more]
    return [*lines, "", *(line for note in scope.notes for line in (escaped(note), ""))]


def _remedies(table: Remediation, say: Catalogue) -> list[str]:
    """Of each finding its id, how grave it is, and by whom it is mended or accepted, where somebody said so."""
    lines = [f"### {escaped(table.title)}", ""]
    if not table.lines:
        return [*lines, escaped(table.nothing), ""]
    for line in table.lines[:MOST]:
        owned = ", ".join(part for part in (line.owner, line.due) if part)
        said = "; ".join(part for part in (line.severity, owned, line.said if line.status != "open" else "") if part)
        lines.append(f"- {code_span(line.id)}: {escaped(said)}")
    return [*lines, *_more_line(table.lines, say), ""]


def _judged_lines(rows: Sequence[Row], say: Catalogue) -> list[str]:
    """What is shown to lie beyond its bound, and what within."""
    if not rows:
        return []
    lines = [f"### {escaped(say.say('rest.judged'))}", ""]
    heads = ("outcome", "open_measured", "value", "interval", "must_be", "rows")
    lines += [_headed(say, *(f"rest.{name}" for name in heads)), "| --- | --- | ---: | ---: | --- | ---: |"]
    for r in sorted(rows, key=lambda r: r.rank)[:MOST]:
        lines.append(
            f"| {r.outcome.value} | {_metric_cell(r)} | {r.value} | {_interval(r, say)} | {r.must_be} | {r.n} |"
        )
    return [*lines, *_more_line(rows, say), ""]


def _open(rows: Sequence[Row], say: Catalogue) -> list[str]:
    if not rows:
        return []
    lines = [f"### {escaped(say.say('rest.open'))}", ""]
    heads = ("open_measured", "value", "interval", "must_be", "needs")
    lines += [_headed(say, *(f"rest.{name}" for name in heads)), "| --- | ---: | ---: | --- | ---: |"]
    for r in rows[:MOST]:
        needed = (
            ""
            if r.finding.n_required is None
            else f"{say.count(r.finding.n_required)} ({escaped(say.say('rest.has', n=r.n))})"
        )
        lines.append(f"| {_metric_cell(r)} | {r.value} | {_interval(r, say)} | {r.must_be} | {needed} |")
    return [*lines, *_more_line(rows, say), ""]


def _reasons(title: str, rows: Sequence[Row], say: Catalogue) -> list[str]:
    if not rows:
        return []
    lacking: dict[str, list[str]] = {}
    for r in rows:
        lacking.setdefault(r.finding.reason, []).append(_metric_cell(r))
    lines = [
        f"- {', '.join(names[:MOST])}{' …' if len(names) > MOST else ''}: {escaped(reason)}"
        for reason, names in lacking.items()
    ]
    return [f"### {escaped(title)}", "", *lines[:MOST], *_more_line(lines, say), ""]


def _explained(figure: Figure, say: Catalogue) -> list[str]:
    """What a figure that explains says in words; figures of numbers are left to the full report."""
    match figure.kind:
        case "text":
            return [
                f"### {escaped(figure.title)}",
                "",
                *_words_of(figure.texts[:MOST], scale_of(figure.texts), say),
                "",
            ]
        case "table" if figure.table and figure.table.methods:
            return [f"### {escaped(figure.title)}", "", *_grades(figure.table, say), ""]
        case "heatmap" | "beeswarm":
            return [f"### {escaped(figure.title)}", "", escaped(figure.alt), ""]
        case _:
            return []


def _words_of(texts: Sequence[ColouredText], scale: float, say: Catalogue) -> list[str]:
    lines: list[str] = []
    for i, t in enumerate(texts, 1):
        known = [(w, v) for w, v in zip(t.words, t.values, strict=True) if strength(v, scale)]
        ranked = sorted(known, key=lambda pair: -abs(pair[1] or 0.0))[:_MOST_WORDS]
        said = ", ".join(
            f"{code_span(word.strip())} {say.spelled(number_text.signed(value))}" for word, value in ranked
        )
        lines.append(
            f"- {escaped(t.title or say.say('column.untitled', n=i))}: {said or escaped(say.say('column.no_word'))}"
        )
    return lines


def _grades(table: GradeTable, say: Catalogue) -> list[str]:
    heads = [code_span(name, cell=True) for name in table.grades]
    names = [escaped(say.say(f"column.{name}")) for name in ("method", "standing", "why")]
    lines = ["| " + " | ".join([*names[:2], *heads, names[2]]) + " |"]
    lines += ["| --- | --- |" + " ---: |" * len(heads) + " --- |"]
    for method in table.methods[:MOST]:
        cells = [code_span(method.method, cell=True), escaped(say.say(f"standing.{method.standing}"))]
        for own in method.grades:
            bounds = say.ends((own.low, own.high)) if number_text.grade_interval(own) else ""
            cells.append(escaped(say.grade(own)) + (f" ({bounds})" if bounds else ""))
        lines.append("| " + " | ".join([*cells, escaped(method.reason)]) + " |")
    return [*lines, *_more_line(table.methods, say)]


def _headed(say: Catalogue, *keys: str) -> str:
    return f"| {' | '.join(escaped(say.say(key)) for key in keys)} |"


def _more_line(rows: Sequence[object], say: Catalogue) -> list[str]:
    return ["", escaped(say.say("rest.more_in_full", n=say.count(len(rows) - MOST)))] if len(rows) > MOST else []


def _metric_cell(row: Row) -> str:
    """Metric, place, and where rows would else look alike the method."""
    named = " ".join(code_span(part, cell=True) for part in (row.name, row.where) if part)
    return named + (f" ({code_span(row.by, cell=True)})" if row.by else "")


def _measured_text(row: Row) -> str:
    """What was measured, with its value and interval."""
    interval = f" ({row.interval})" if row.interval else ""
    return _metric_cell(row) + (f" {row.value}{interval}" if row.value else "")


def _interval(row: Row, say: Catalogue) -> str:
    return f"{row.interval} {say.say('form.level', level=row.confidence)}" if row.confidence else row.interval


def code_span(name: str, *, cell: bool = False, limit: int = _LONGEST_NAME) -> str:
    """A name in a code span with a fence longer than any in it; a bare pipe would end a table cell."""
    shown = number_text.shortened(number_text.visible(name), limit)
    shown = shown.replace("|", "\\|") if cell else shown
    if not shown.strip():
        return "(empty)"
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    pad = " " if shown.startswith(("`", " ")) or shown.endswith(("`", " ")) else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def escaped(sentence: str, limit: int = _LONGEST_SENTENCE) -> str:
    """A sentence with Markdown escaped; an empty comment prevents @name and #1 from becoming links."""
    shown = _SPECIAL.sub(r"\\\1", number_text.shortened(number_text.visible(sentence), limit))
    return _CALLS.sub(lambda call: f"{call.group()}<!-- -->", shown)
