"""``auditor explain``: reasons for decisions on single rows, and changes that would alter them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import typer

from auditor.core.errors import UsageError
from auditor.core.writable_paths import claim
from auditor.judging.row_explanations import MOST_REASONS, MOST_RECOURSES, ExplainedRow
from auditor.loading.job_specs import ExplainSpec, Job, Limits
from auditor.report.reasons_page import (
    Explanation,
    Section,
    Wording,
    reading,
    reasons_figure,
    render_explanation,
    sections,
    title,
)
from auditor.report.record.configuration import About
from auditor.run import __version__
from auditor.run.option_parsers import names_in
from auditor.run.scan import data_spec, model_spec, rows_at_hand
from auditor.run.scan_options import Configured, ScanOptions

_FILES = ("explanation.html", "explanation.json")
_TARGET = "probes.reasons.explain_rows:explain"
_MOST_ROWS = 1_000
_LONGEST_BAR = 40


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The rows, counted from 1 or by a column's value, and the options of their explanation."""

    rows: tuple[int, ...]
    where: tuple[tuple[str, str], ...]
    immutable: tuple[str, ...]
    monotone: tuple[str, ...]
    n_reasons: int
    n_recourses: int
    budget: int
    draws: int | None

    @classmethod
    def from_flags(
        cls,
        rows: list[int],
        where: list[str],
        immutable: str | None,
        monotone: str | None,
        *,
        reasons: int,
        recourses: int,
        budget: int,
        draws: int | None,
    ) -> Asked:
        """The request from command line values.

        Raises UsageError for a number out of range, or what is no list of names.
        """
        for flag, value, least, most in (
            ("--reasons", reasons, 1, MOST_REASONS),
            ("--recourses", recourses, 1, MOST_RECOURSES),
            ("--budget", budget, 1, 10_000_000),
            ("--draws", 2 if draws is None else draws, 2, 10_000),
        ):
            if not least <= value <= most:
                raise UsageError(f"{flag} {value} must be from {least:,} to {most:,}.")
        # How many there are is known, and said, once the file is read.
        if not rows and not where:
            raise UsageError("Name the row to explain: --row 17, or --where COLUMN=VALUE, such as --where id=103281.")
        for row in rows:
            if row < 1:
                raise UsageError(f"--row {row} must be at least 1: rows count from 1.")
        if (n_rows := len(set(rows)) + len(where)) > _MOST_ROWS:
            raise UsageError(f"{n_rows:,} rows are more than the {_MOST_ROWS:,} that one call explains.")
        return cls(
            rows=tuple(dict.fromkeys(rows)),
            where=tuple(dict.fromkeys(map(_condition, where))),
            immutable=_names(immutable, "--immutable"),
            monotone=_names(monotone, "--monotone"),
            n_reasons=reasons,
            n_recourses=recourses,
            budget=budget,
            draws=draws,
        )


def _condition(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not (column.strip() and equals):
        raise UsageError(f"--where {text!r} must look like COLUMN=VALUE, such as application_id=103281.")
    return column.strip(), value.strip()


def _names(text: str | None, flag: str) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(names_in(text or "")))
    except ValueError as error:
        raise UsageError(f"{flag}: {error}.") from None


def explain_rows(config: Configured, request: Asked, out: Path | None, *, as_json: bool, debug: bool) -> int:
    """Explain the rows and write the results; return the exit code."""
    from auditor.run.parent_process import explain, last_lines
    from cli.report_outputs import command_line
    from cli.terminal import stages

    options = config.options
    _check(options)
    if out is not None:
        for name in (*_FILES, *(f"row-{row}.png" for row in request.rows)):
            claim(out / name, f"--out/{name}")
    with rows_at_hand(config) as (own, _):
        job = _job(own, request)
        with stages(not as_json) as shown:
            shown.total = 2 * (len(request.rows) + len(request.where)) + 3
            found = explain(job, on_stage=shown)
    if debug and found.log.strip():
        typer.echo(last_lines(found.log), err=True)
    if found.model is None or found.data is None:
        raise RuntimeError("rows were explained of a model or of data that nobody named")
    code = 0 if all(row.settled for row in found.rows) else 3
    explanation = Explanation(
        tool=f"auditor {__version__}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command_line(),
        seed=options.seed,
        model=found.model.model_copy(update={"path": options.model or found.model.path}),
        data=found.data.model_copy(update={"path": options.data}),
        target=options.target,
        labels=dict(config.labels.words),
        about=config.about or About(),
        rows=tuple(found.rows),
        exit_code=code,
    )
    if as_json:
        sys.stdout.write(explanation.model_dump_json(indent=2) + "\n")
    else:
        _print(explanation)
    if out is not None:
        for path in _write(explanation, out):
            typer.echo(f"report  {path}", err=as_json)
    return code


def _check(options: ScanOptions) -> None:
    if options.model is None and options.predict is None:
        raise UsageError("Name a model: auditor explain MODEL, or --predict package.module:function.")
    if options.data is None:
        raise UsageError("Name the rows with --data FILE: the one to explain, and others that say what is typical.")
    if options.predictions is not None:
        raise UsageError("--predictions holds answers and no model, and why they are so only a model can be asked.")


def _job(config: Configured, request: Asked) -> Job:
    options = config.options
    return Job(
        model=model_spec(options),
        # What the model was trained on changes nothing of why a row was decided so, and rows are counted in one file.
        data=data_spec(replace(options, train=None), config.labels),
        probes=(),
        seed=options.seed,
        limits=Limits(memory_bytes=options.max_memory, seconds=options.max_seconds),
        with_intake=False,
        explain=ExplainSpec(target=_TARGET, **vars(request)),
        allow_unsandboxed=options.allow_unsandboxed,
    )


def _write(explanation: Explanation, out: Path) -> list[Path]:
    from auditor.core.files import write_beside
    from auditor.report.drawing.svg import draw_png

    words = Wording.of_explanation(explanation)
    pages = {
        "explanation.html": render_explanation(explanation).encode(),
        "explanation.json": explanation.model_dump_json(indent=2).encode(),
    }
    for row in explanation.rows:
        if (figure := reasons_figure(row, words)) is not None:
            pages[f"row-{row.row}.png"] = draw_png(figure)
    for name, page in pages.items():
        write_beside(out / name, page)
    return [out / name for name in pages]


def _print(explanation: Explanation) -> None:
    from auditor.report.record.number_text import visible
    from cli.terminal import coloured, paragraph

    words = Wording.of_explanation(explanation)
    for row in explanation.rows:
        typer.echo(paragraph(visible(title(row, words)), 0))
        for part in sections(row, words):
            typer.echo(f"  {part.heading}")
            for i, (line, bar) in enumerate(zip(part.lines, _bars(part), strict=True), 1):
                shown = visible(f"{i}. {line}" if bar else line)
                typer.echo(paragraph(coloured(shown, "FAIL") if part.loud else shown, 4))
                if bar:
                    typer.echo(f"       {bar}")
        typer.echo("")
    typer.echo(paragraph(reading(words.say), 0))
    typer.echo(_ending(explanation.rows))


def _bars(part: Section) -> list[str]:
    """A bar for each line that has one, of at most ``_LONGEST_BAR`` characters."""
    bars = ["#" * max(1, round(_LONGEST_BAR * share)) for share in part.shares]
    return bars + [""] * (len(part.lines) - len(bars))


def _ending(rows: tuple[ExplainedRow, ...]) -> str:
    refused = sum(bool(row.faithfulness.refused) for row in rows)
    without = sum(not row.settled and not row.faithfulness.refused for row in rows)
    said = [f"{refused:,} of {len(rows):,} rows: reasons refused"] if refused else []
    said += [f"{without:,} of {len(rows):,} rows: no recourse found"] if without else []
    return "; ".join(said) + " (exit 3)" if said else f"{len(rows):,} of {len(rows):,} rows explained"
