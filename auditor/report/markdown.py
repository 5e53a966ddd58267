"""The report in a few lines of Markdown, for a pull request or a chat."""

from __future__ import annotations

import re
from collections.abc import Sequence

from auditor.finding import Outcome
from auditor.report import text, view
from auditor.report.record import AuditReport
from auditor.report.view import Row

MOST = 10
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


def _more(rows: Sequence[Row]) -> list[str]:
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
