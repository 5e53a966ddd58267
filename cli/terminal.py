"""Terminal output of tables, reports and one number's provenance: plain text, colour only on a terminal."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from auditor.judging.measurement import Outcome
    from auditor.report.first_page import FirstPage
    from auditor.report.record.audit_report import AuditReport, Finding
    from auditor.report.record.configuration import Labels

_COLOURS = {
    "PASS": typer.colors.GREEN,
    "FAIL": typer.colors.RED,
    "INCONCLUSIVE": typer.colors.YELLOW,
    "NOT_RUN": typer.colors.MAGENTA,
    "NOT_APPLICABLE": typer.colors.BRIGHT_BLACK,
    "NOT_JUDGED": typer.colors.BLUE,
}
_QUESTION_COLUMNS = ("question", "groups", "found", "allowed", "verdict")
_MOST_NEXT = 2
_LONGEST_WORD = 16
# What a line begins with: a word or two before a gap, or one of those that fill their eight columns.
_LABEL = re.compile(r"(?:history|sandbox) |\w+(?: \w+)? {2,}")
_STYLE = re.compile(r"\x1b\[[\d;]*m")
_COLOURED = re.compile(r"((?:\x1b\[[\d;]*m)+)(.*?)(\x1b\[0m)", re.DOTALL)
_JUDGED = ("PASS", "FAIL", "INCONCLUSIVE")
# A probe that does not apply takes less, and a log is not about it.
_WORTH_A_LINE = 0.1
# Stages before the first probe, which take longer than most of those.
_LOADING = 2
_EXIT_WORDS = {
    0: "everything that was judged passed",
    1: "at least one finding FAILed",
    2: "wrong usage",
    3: "nothing failed, but something could not be said: this is not a pass",
    4: "the model or the data were refused",
}


def exit_words(code: int) -> str:
    """The meaning of an audit's exit code."""
    return _EXIT_WORDS[code]


def coloured(text: str, outcome: str) -> str:
    """Text in its outcome's colour, if the terminal uses colour."""
    looked_at = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return typer.style(text, fg=_COLOURS[outcome], bold=outcome in ("FAIL", "PASS")) if looked_at else text


def width() -> int:
    """Columns of the terminal; without limit in a pipe."""
    return min(shutil.get_terminal_size().columns, 110) if sys.stdout.isatty() else 1_000_000


def paragraph(text: str, indent: int) -> str:
    """Text wrapped to the terminal under an indent, beside its label if it begins with one."""
    pad = " " * indent
    plain = _STYLE.sub("", text)
    label = _LABEL.match(plain)
    beside = pad + " " * (label.end() if label else 0)
    wrapped = textwrap.fill(plain, width=width(), initial_indent=pad, subsequent_indent=beside, break_on_hyphens=False)
    # Colour has no width, and is put around the label or the lines that it was around.
    coloured_part = _COLOURED.match(text)
    if coloured_part is None:
        return wrapped
    begin, part, end = coloured_part.groups()
    if part.strip() == plain.strip():
        return f"{begin}{wrapped}{end}"
    return wrapped.replace(part.rstrip(), f"{begin}{part.rstrip()}{end}", 1)


def labelled(text: str) -> str:
    """A line that begins with a label of ten columns: wrapped to the terminal beside it, whole in a pipe."""
    if not sys.stdout.isatty():
        return text
    return textwrap.fill(text, width=width(), subsequent_indent=" " * 10, break_on_hyphens=False)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: one block a row on a terminal, tab-separated with a header in a pipe."""
    if not sys.stdout.isatty():
        typer.echo("\t".join(columns))
        for row in rows:
            typer.echo("\t".join(cell.replace("\t", " ") for cell in row))
        return
    longest = max(map(len, columns[1:]), default=0)
    for row in rows:
        typer.secho(row[0], bold=True)
        for name, cell in zip(columns[1:], row[1:], strict=True):
            label = f"  {name:<{longest}} "
            typer.echo(
                textwrap.fill(
                    cell or "-",
                    width=width(),
                    initial_indent=label,
                    subsequent_indent=" " * len(label),
                    break_on_hyphens=False,
                )
            )
        typer.echo()


def print_grid(columns: Sequence[str], rows: Sequence[Sequence[str]], outcomes: Sequence[str]) -> None:
    """A table with a line a row on a terminal, the last cell in the colour of the row's outcome; as a table in a
    pipe."""
    if not sys.stdout.isatty():
        print_table(columns, rows)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name, cells in zip(columns, zip(*rows, strict=True), strict=True):
        # No word is broken or cut that has room.
        longest = max(len(word) for cell in (name, *cells) for word in cell.split() or [""])
        table.add_column(name, overflow="fold", min_width=min(longest, _LONGEST_WORD))
    for row, outcome in zip(rows, outcomes, strict=True):
        table.add_row(*map(Text, row[:-1]), Text(row[-1], style=_COLOURS[outcome]))
    Console(width=width(), highlight=False).print(table)


@contextmanager
def stages(show: bool) -> Iterator[Stages]:
    """Progress on standard error."""
    shown = Stages(show)
    try:
        yield shown
    finally:
        shown.clear()


class Stages:
    """Progress on standard error: one line with the time left on a terminal, a line for each slow probe in a log."""

    def __init__(self, show: bool, total: int = 0) -> None:
        self.show = show
        self.total = total
        self.done = 0
        self._in_place = sys.stderr.isatty()
        self._began = self._stage_began = time.perf_counter()
        self._stage = ""

    def __call__(self, stage: str) -> None:
        """Says that a stage begins."""
        if not self.show:
            return
        self.done += 1
        if self._in_place:
            line = f"[{self.done}/{self.total}] {stage}{self._time_left()}" if self.total else stage
            sys.stderr.write(f"\r\033[K{line[: max(shutil.get_terminal_size().columns - 1, 20)]}")
            sys.stderr.flush()
        else:
            self._note()
        self._stage, self._stage_began = stage, time.perf_counter()

    def _time_left(self) -> str:
        """A guess from the stages that have ended, as if all took as long."""
        ended = self.done - 1
        if ended <= _LOADING or self.done > self.total:
            return ""
        seconds = (time.perf_counter() - self._began) / ended * (self.total - ended)
        return f", about {seconds:.0f} s left" if seconds < 90 else f", about {seconds / 60:.0f} min left"

    def clear(self) -> None:
        """Remove the line; in a log, note what the last probe took."""
        if not self.show:
            return
        if self._in_place:
            sys.stderr.write("\r\033[K")
        else:
            self.done += 1
            self._note()
        sys.stderr.flush()

    def _note(self) -> None:
        """A line on the stage that has ended, if it was a probe's."""
        seconds = time.perf_counter() - self._stage_began
        if self.total and self.done > _LOADING + 1 and self._stage and seconds >= _WORTH_A_LINE:
            sys.stderr.write(f"{self._stage}: {seconds:.1f} s\n")
        self._stage = ""


def print_report(report: AuditReport, paths: Sequence[str], *, verbose: bool = False, ends: bool = True) -> None:
    """Print the verdict, what to do next and where the report is, then the judged questions; all with ``verbose``.

    ``ends``: the exit code of the report is the command's.
    """
    from auditor.report.first_page import first_page
    from auditor.report.record.translations import ENGLISH, Catalogue

    page = first_page(report, Catalogue.for_language(ENGLISH))
    _print_verdict(report, page, paths)
    if ends:
        _print_exit(report)
    _print_refusal(report)
    _print_questions(page)
    _print_panels(page)
    _print_counts(report, page, verbose=verbose)
    _print_obeyed(report)
    _print_history(report)
    _print_worth(report)
    _print_shown(page, report)
    if not verbose:
        # Where nothing was judged, what was asked for is what is missing.
        if not any(f.outcome.value in _JUDGED for f in report.findings) and report.refusal is None:
            _print_findings(report)
        return
    _print_inputs(report)
    _print_findings(report)
    _print_rows_for_all(report)
    _print_controls(report)
    _print_unjudged(report)
    _print_promise(report)


def _print_verdict(report: AuditReport, page: FirstPage, paths: Sequence[str]) -> None:
    """The verdict and its effect in words, the next steps with their commands, and the files."""
    steps = [(action.sentence, action.command) for action in page.actions]
    print_verdict(page.outcome, [page.headline, page.effect], steps, paths)


def print_verdict(
    outcome: Outcome, sentences: Sequence[str], steps: Sequence[tuple[str, str]], paths: Sequence[str]
) -> None:
    """The outcome and what it means, the most pressing next ``steps`` with their commands ("" without), and files."""
    from auditor.report.record.number_text import visible

    label = f"{outcome.words:<6}  "
    indent = " " * len(label)
    first, *others = (visible(sentence) for sentence in sentences if sentence)
    typer.echo(paragraph(coloured(label, outcome.value) + first, 0))
    for sentence in others:
        typer.echo(paragraph(sentence, len(indent)))
    for sentence, command in steps[:_MOST_NEXT]:
        typer.echo(paragraph(f"{'Next':<{len(indent)}}{visible(sentence)}", 0))
        if command:
            # What is to be copied stays on one line.
            typer.echo(f"{indent}{visible(command)}")
    if paths:
        typer.echo(f"{'Report':<{len(indent)}}{'  '.join(sorted(paths, key=lambda path: not path.endswith('.html')))}")


def _print_questions(page: FirstPage) -> None:
    """The table of the first page: what was judged, and what could not be."""
    from auditor.report.record.number_text import visible

    rows = [
        tuple(
            visible(cell)
            for cell in (
                line.question,
                line.about,
                f"{line.found} ({line.interval})" if line.found and line.interval else line.found or line.interval,
                line.allowed,
                ", ".join(part for part in (line.verdict, line.small) if part),
            )
        )
        for line in page.lines
    ]
    if rows:
        typer.echo()
        print_grid(_QUESTION_COLUMNS, rows, [line.outcome.value for line in page.lines])


def _print_panels(page: FirstPage) -> None:
    """What rows without a model hold, a question a paragraph."""
    from auditor.report.record.number_text import visible
    from auditor.report.rows_page import bars_in_words

    if page.panels:
        typer.echo()
    for question, told in bars_in_words(page.panels):
        typer.echo(paragraph(f"{question} {visible(told)}", 0))


def _print_inputs(report: AuditReport) -> None:
    """The model and the files of rows, with notes on them, and a sandbox that was off."""
    from auditor.models.format_names import NO_MODEL
    from auditor.report.record.number_text import count, visible

    model, data = report.model, report.data
    typer.echo()
    if model.format != NO_MODEL:
        source = f"({visible(model.format)}, loaded by {visible(model.loaded_by)})"
        typer.echo(f"model   {visible(model.path or 'in memory')}  {source}")
    if data.path is not None:
        rows = "" if data.n_rows is None else f"  ({count(data.n_rows)} rows)"
        typer.echo(f"data    {visible(data.path)}{rows}")
    if data.train_path is not None:
        typer.echo(f"train   {visible(data.train_path)}  ({count(data.n_train_rows)} rows)")
    for note in (*model.notes, *data.notes):
        typer.echo(paragraph("note    " + visible(note), 0))


def _print_history(report: AuditReport) -> None:
    """A sandbox that was off, the registered plan, interim looks, and what was decided about findings."""
    from auditor.report.record.number_text import visible
    from auditor.report.record.severity_and_acceptance import acceptance_sentences

    confined = report.environment.sandbox
    if confined is not None and not confined.is_confined:
        typer.echo(paragraph("sandbox " + visible(confined.describe()), 0))

    if report.registration is not None:
        said = visible(report.registration.describe())
        typer.echo(paragraph("plan    " + (said if report.registration.followed else coloured(said, "FAIL")), 0))
        for deviation in report.registration.deviations:
            typer.echo(paragraph("- " + visible(deviation), 8))
    for looks in (each for each in (report.looks, report.training) if each is not None):
        typer.echo(paragraph("looks   " + visible(looks.describe()), 0))
    for said in (*(d.describe() for d in report.decisions if not d.one_by_one), *acceptance_sentences(report)):
        typer.echo(paragraph("history " + visible(said), 0))


def _print_counts(report: AuditReport, page: FirstPage, *, verbose: bool) -> None:
    """The six counts, and how much more there is."""
    from auditor.report.report_view import counts_of, for_other_kinds

    typer.echo()
    counted = "   ".join(coloured(f"{c.outcome.value} {c.n}", c.outcome.value) for c in counts_of(report))
    others = for_other_kinds(report)
    apart = "\n" if len(_STYLE.sub("", counted)) + 3 + len(others) > width() else "   "
    typer.echo(apart.join(filter(None, (counted, others))))
    notes = len(report.model.notes) + len(report.data.notes)
    about = "the rows" if report.rows_alone else "the model and the rows"
    parts = [
        *([f"{page.more_lines} more row{'s' * (page.more_lines > 1)} of the table"] if page.more_lines else []),
        *([f"{notes} note{'s' * (notes > 1)} on {about}"] if notes else []),
        "reasons, and the flags that would add what was not applicable",
    ]
    if not verbose and report.refusal is None:
        typer.echo(paragraph(f"More with --verbose: {'; '.join(parts)}.", 0))


def _print_worth(report: AuditReport) -> None:
    """The performance, and what was left out of the counts."""
    from auditor.report.record.number_text import visible
    from auditor.report.record.summary_lines import groups_left_out, hidden_gradients, worth_of
    from auditor.report.record.translations import ENGLISH, Catalogue

    worth = worth_of(report, report.catalogue(Catalogue.for_language(ENGLISH)))
    if worth is not None:
        typer.echo(paragraph(f"{coloured('performance', worth.outcome.value)}  {visible(worth.sentence)}", 0))
    for hidden in hidden_gradients(report):
        typer.echo(paragraph(coloured("attack  ", "INCONCLUSIVE") + visible(hidden), 0))
    for left_out in groups_left_out(report):
        typer.echo(paragraph("groups  " + visible(left_out), 0))


def _print_refusal(report: AuditReport) -> None:
    from auditor.report.record.number_text import visible

    if report.refusal is not None:
        typer.echo()
        typer.echo(coloured("REFUSED", "FAIL") + f" {visible(report.refusal.printed_code)}")
        typer.echo(paragraph(visible(report.refusal.reason), 2))


def _print_findings(report: AuditReport) -> None:
    """All findings that were judged or could not be, by outcome."""
    from auditor.judging.measurement import Outcome
    from auditor.report.record.configuration import About

    called = (report.about or About()).display_labels
    methods: dict[tuple[str, str | None], set[str]] = {}
    for finding in report.findings:
        methods.setdefault((finding.probe, finding.metric), set()).add(finding.method or "")
    for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.NOT_RUN, Outcome.NOT_APPLICABLE, Outcome.PASS):
        # What is for other kinds of model was counted above, and is no reproach.
        found = [f for f in report.findings if f.outcome is outcome and not f.other_kind]
        if found:
            typer.echo()
        if outcome is Outcome.NOT_APPLICABLE:
            _print_not_applicable(found, called)
            continue
        for finding in found:
            _print_finding(finding, called, with_method=len(methods[finding.probe, finding.metric]) > 1)


def _print_rows_for_all(report: AuditReport) -> None:
    """How many rows would settle everything that is open."""
    from auditor.report.record import summary_lines
    from auditor.report.record.number_text import visible

    if needed := summary_lines.describe_rows_for_all(report):
        typer.echo()
        typer.echo(paragraph("rows    " + visible(needed), 0))


def _print_exit(report: AuditReport) -> None:
    """The exit code and what it means."""
    from auditor.judging.judgement import waived_name

    names = () if isinstance(report.allow_inconclusive, bool) else report.allow_inconclusive
    of = f" of {', '.join(map(waived_name, names))}" if names else ""
    allowed = (
        f" (inconclusive findings{of} were allowed)" if report.allow_inconclusive and report.exit_code == 0 else ""
    )
    words = "the rows were refused" if report.refusal and report.rows_alone else _EXIT_WORDS[report.exit_code]
    if report.exit_code == 3 and not (report.summary.inconclusive or report.summary.not_run):
        padded = any(f.padding for f in report.findings)
        what = "of the rows themselves" if report.rows_alone else "of the model itself"
        what = "but requirements that could hardly be missed" if padded else what
        words = f"nothing {what} was judged: this is not a pass"
    typer.echo(f"exit {report.exit_code}: {words}{allowed}")


def _print_shown(page: FirstPage, report: AuditReport) -> None:
    """Which attacks a passing privacy check withstood, what planted controls say of the probes, and the strongest of
    what is shown without a bound."""
    from auditor.report.first_page_parts import seen_plants
    from auditor.report.record.number_text import visible

    if page.withstood:
        typer.echo(paragraph(coloured("attacks ", "NOT_JUDGED") + visible(page.withstood), 0))
    if controls := seen_plants(report, page.say):
        typer.echo(paragraph(coloured("controls ", "NOT_JUDGED") + visible(controls), 0))
    for shown in page.shown:
        typer.echo(paragraph(coloured("shown   ", "NOT_JUDGED") + visible(shown.sentence) + "; no limit is set", 0))


def _print_obeyed(report: AuditReport) -> None:
    """The files that decided the audit, but for what comes with the tool."""
    from auditor.report.record.number_text import visible
    from auditor.report.record.translations import ENGLISH, Catalogue

    for file in report.obeyed:
        if file.origin != "shipped":
            typer.echo(paragraph("config  " + visible(file.told_whole(Catalogue.for_language(ENGLISH))), 0))


def _number_label(finding: Finding, labels: Labels) -> str:
    """A number and where it was taken, such as ``selection_rate, sex: female``."""
    from auditor.report.record.finding_text import label

    return ", ".join(part for part in (finding.metric or "no measurement", label(finding, labels)) if part)


def _print_finding(finding: Finding, labels: Labels, *, with_method: bool) -> None:
    """``with_method``: one number was found by several methods, so each line says by which."""
    from auditor.judging.figure_types import EARNED, RESERVED
    from auditor.report.record.number_text import number, visible

    label = coloured(f"{finding.outcome.value:<14}", finding.outcome.value)
    if finding.metric is None:
        typer.echo(f"{label} {visible(finding.probe)}")
    else:
        interval = ""
        if finding.interval is not None and finding.value is not None:
            low, high = ("unbounded" if end is None else number(end) for end in finding.interval)
            interval = f" [{low}, {high}]"
        required = f", required {finding.criterion.describe()}" if finding.criterion else ""
        typer.echo(
            f"{label} {visible(_number_label(finding, labels))} = {number(finding.value)}{interval}{required}"
            f"  ({visible(finding.probe)}{', ' + visible(finding.method) if with_method and finding.method else ''})"
        )
    if finding.reason and finding.outcome.value != "PASS":
        typer.echo(paragraph(visible(finding.reason), 15))
    elif finding.tried:
        typer.echo(paragraph(visible(finding.tried), 15))
    # An explanation that was not checked in full is no plain PASS.
    if finding.detail and (finding.outcome.value == "FAIL" or finding.detail.startswith(f"{EARNED} {RESERVED}")):
        typer.echo(paragraph(visible(finding.detail), 15))


def _print_not_applicable(findings: Sequence[Finding], labels: Labels) -> None:
    """Probes that lack the same thing share a line."""
    from auditor.report.record.number_text import visible

    lacking: dict[str, dict[str, list[Finding]]] = {}
    for finding in findings:
        # A number that does not apply is not all that its probe measures.
        what = finding.probe if finding.metric is None else f"{_number_label(finding, labels)}  ({finding.probe}"
        lacking.setdefault(finding.reason, {}).setdefault(what, []).append(finding)
    listed = Counter(what for whats in lacking.values() for what in whats)
    for reason, whats in lacking.items():
        said = []
        for what, own in whats.items():
            # Several methods lack the same of the same number, and are named where others lack something else of it.
            methods = [f.method for f in own if f.method] if listed[what] > 1 else []
            said.append(", ".join([what, *dict.fromkeys(methods)]) + (")" if own[0].metric is not None else ""))
        label = coloured(f"{findings[0].outcome.value:<14}", findings[0].outcome.value)
        typer.echo(f"{label} {visible(', '.join(said))}")
        typer.echo(paragraph(visible(reason), 15))


def _print_controls(report: AuditReport) -> None:
    """How many cells of each rule pack are what, and which controls rest on something that did not pass."""
    from auditor.report.record.number_text import visible

    if not report.policies:
        return

    from auditor.report.html import policies_of
    from auditor.report.report_view import rows_of

    for shown in policies_of(report, rows_of(report.findings)):
        policy, controls = shown.policy, [own.control for own in shown.controls]
        typer.echo()
        typer.echo(f"policy  {visible(policy.title)}, as of {policy.as_of}")
        typer.echo(paragraph(visible(shown.tally), 8))
        if policy.old:
            typer.echo(paragraph(visible(policy.old), 8))
        typer.echo(paragraph(visible(f"{shown.held_to} Not legal advice."), 8))
        if shown.not_in_force:
            typer.echo(paragraph(shown.not_in_force, 8))
        for outcome in ("FAIL", "INCONCLUSIVE", "NOT_RUN"):
            touched = [c.id for c in controls if any(cell.outcomes.get(outcome) for cell in c.cells)]
            if touched:
                typer.echo(paragraph(f"{coloured(f'{outcome:<14}', outcome)} in {visible('; '.join(touched))}", 8))


def _print_unjudged(report: AuditReport) -> None:
    """What was measured between groups, where no requirement was about any of it: a screen without numbers says less
    than is known."""
    from auditor.report.record.configuration import About
    from auditor.report.record.number_text import visible

    found = [f for f in report.findings if f.outcome.value == "NOT_JUDGED" and f.sensitive and f.value is not None]
    if report.family.m or not found:
        return
    called = (report.about or About()).display_labels
    typer.echo()
    for finding in found:
        _print_finding(finding.model_copy(update={"reason": "", "detail": ""}), called, with_method=False)
    reasons = dict.fromkeys(finding.reason for finding in found if finding.reason)
    for reason in ("No requirement is about these numbers: [[criteria]] in audit.toml or --policy FILE.", *reasons):
        typer.echo(paragraph(visible(reason), 15))


def _print_promise(report: AuditReport) -> None:
    from auditor.report.report_view import promise_of

    if report.family.m:
        typer.echo()
        typer.echo(paragraph(promise_of(report), 0))


def print_trace(report: AuditReport, name: str) -> None:
    """The outcome of a finding, and its trace as the report shows it. Raises UsageError where there is none of the
    name."""
    from auditor.report.record.glossary import definitions_of
    from auditor.report.record.number_text import visible
    from auditor.report.record.provenance_of_number import finding_named, trace_of

    found = finding_named(report, name)
    outcome = coloured(found.outcome.words, found.outcome.value)
    typer.echo(paragraph(f"{outcome}  {visible(found.reason or found.detail)}".rstrip(), 0))
    for part in trace_of(report, found).parts:
        line = f"{part.label}: {visible(part.said)}"
        # What is to be copied stays on one line.
        typer.echo(line if part.code else paragraph(line, 0))
    if found.metric is not None:
        definitions = definitions_of(report)
        own = next(m for m in definitions.metrics if m.is_of(found.probe, found.metric))
        typer.echo(paragraph(f"{definitions.label('definition')}: {definitions.metric_text(own)}", 0))
