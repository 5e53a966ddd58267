"""The report in a few lines of Markdown, for a pull request or a chat."""

from __future__ import annotations

import re
from collections.abc import Sequence

from auditor.display import ColouredText, GradeTable
from auditor.finding import Outcome
from auditor.report import text, view
from auditor.report.record import AuditReport, FigureRecord
from auditor.report.view import Row

MOST = 10
_MOST_WORDS = 6
_LONGEST_NAME, _LONGEST_SENTENCE = 80, 400
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~&$]|:(?=//)|(?<=www)\.)")
_CALLS = re.compile(r"[@#]")


def render_markdown(report: AuditReport) -> str:
    """A short Markdown text: the verdict, all six counts, what failed, what could not be said, what did not run.

    Names stand in code spans and sentences are escaped, so that data can neither format, link, embed nor mention.
    """
    rows = view.rows_of(report.findings)
    verdict = view.verdict_of(report)
    lines = [f"## Audit of {_code(report.model.path or 'a model in memory')}", ""]
    lines += [f"**{_prose(verdict.headline)}.** {_prose(verdict.sentence)} Exit code {report.exit_code}.", ""]
    if report.refusal is not None:
        lines += [f"{_code(report.refusal.code)} {_prose(report.refusal.reason)}", ""]
    lines += [line for warning in view.warnings_of(report) for line in (f"> **Note well.** {_prose(warning)}", "")]
    lines += ["| " + " | ".join(o.value.replace("_", " ") for o in view.COUNTED) + " |"]
    lines += ["|" + " ---: |" * len(view.COUNTED)]
    lines += ["| " + " | ".join(text.count(report.summary.count(o)) for o in view.COUNTED) + " |", ""]
    lines += _failed([r for r in rows if r.outcome is Outcome.FAIL])
    lines += _open([r for r in rows if r.outcome is Outcome.INCONCLUSIVE])
    lines += _reasons("What did not run", [r for r in rows if r.outcome is Outcome.NOT_RUN])
    lines += _reasons("What was not applicable", [r for r in rows if r.outcome is Outcome.NOT_APPLICABLE])
    lines += [line for figure in report.figures for line in _explained(figure)]
    lines += [_prose(view.promise_of(report)), ""]
    data = f"{_code(report.data.path)}, " if report.data.path else ""
    n_rows = "" if report.data.n_rows is None else f"{view.plural(report.data.n_rows, 'row')}, "
    version = _code(report.tool.get("version", ""))
    lines += [f"{data}{n_rows}auditor {version}, record {_code(view.document_id(report)[:16])}. Not legal advice."]
    return "\n".join(lines) + "\n"


def _failed(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    lines = ["### What failed", "", "| Measured | Value | Interval | Must be |", "| --- | ---: | ---: | --- |"]
    lines += [f"| {_what(r)} | {r.value} | {_interval(r)} | {r.must_be} |" for r in rows[:MOST]]
    return [*lines, *_more(rows), ""]


def _open(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    lines = ["### What could not be said, and what it would take", ""]
    lines += ["| Measured | Value | Interval | Must be | Rows needed |", "| --- | ---: | ---: | --- | ---: |"]
    for r in rows[:MOST]:
        needed = "" if r.finding.n_required is None else f"{text.count(r.finding.n_required)} (has {r.n})"
        lines.append(f"| {_what(r)} | {r.value} | {_interval(r)} | {r.must_be} | {needed} |")
    return [*lines, *_more(rows), ""]


def _reasons(title: str, rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    lines = [f"- {_code(r.name)}: {_prose(r.finding.reason)}" for r in rows[:MOST]]
    return [f"### {title}", "", *lines, *_more(rows), ""]


def _explained(figure: FigureRecord) -> list[str]:
    """What a figure that explains says in words; figures of numbers are left to the full report."""
    match figure.kind:
        case "text":
            return [f"### {_prose(figure.title)}", "", *_words_of(figure.texts[:MOST], view.scale_of(figure.texts)), ""]
        case "table" if figure.table and figure.table.methods:
            return [f"### {_prose(figure.title)}", "", *_grades(figure.table), ""]
        case "heatmap" | "beeswarm":
            return [f"### {_prose(figure.title)}", "", _prose(figure.alt), ""]
        case _:
            return []


def _words_of(texts: Sequence[ColouredText], scale: float) -> list[str]:
    lines: list[str] = []
    for i, t in enumerate(texts, 1):
        known = [(w, v) for w, v in zip(t.words, t.values, strict=True) if view.strength(v, scale)]
        ranked = sorted(known, key=lambda pair: -abs(pair[1] or 0.0))[:_MOST_WORDS]
        said = ", ".join(f"{_code(word.strip())} {text.signed(value)}" for word, value in ranked)
        lines.append(f"- {_prose(t.title or f'text {i}')}: {said or 'no word matters'}")
    return lines


def _grades(table: GradeTable) -> list[str]:
    heads = [_code(name, cell=True) for name in table.grades]
    lines = ["| Method | Standing | " + " | ".join([*heads, "Why"]) + " |"]
    lines += ["| --- | --- |" + " ---: |" * len(heads) + " --- |"]
    for method in table.methods[:MOST]:
        cells = [_code(method.method, cell=True), view.STANDINGS[method.standing]]
        for own in method.grades:
            bounds = text.grade_interval(own)
            cells.append(_prose(text.grade(own)) + (f" ({bounds})" if bounds else ""))
        lines.append("| " + " | ".join([*cells, _prose(method.reason)]) + " |")
    return [*lines, *_more(table.methods)]


def _more(rows: Sequence[object]) -> list[str]:
    return ["", f"and {len(rows) - MOST:,} more, in the full report."] if len(rows) > MOST else []


def _what(row: Row) -> str:
    return " ".join(_code(part, cell=True) for part in (row.name, row.where) if part)


def _interval(row: Row) -> str:
    return f"{row.interval} at {row.confidence}" if row.confidence else row.interval


def _code(name: str, *, cell: bool = False) -> str:
    """A name in a code span whose fence is longer than any in it; a bare pipe would end a table's cell."""
    shown = text.shortened(text.visible(name), _LONGEST_NAME)
    shown = shown.replace("|", "\\|") if cell else shown
    if not shown.strip():
        return "(empty)"
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    pad = " " if shown.startswith(("`", " ")) or shown.endswith(("`", " ")) else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def _prose(sentence: str) -> str:
    """A sentence with all escaped that Markdown reads; an empty comment keeps @name and #1 from calling anyone."""
    shown = _SPECIAL.sub(r"\\\1", text.shortened(text.visible(sentence), _LONGEST_SENTENCE))
    return _CALLS.sub(lambda call: f"{call.group()}<!-- -->", shown)
