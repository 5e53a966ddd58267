"""``auditor compare``, and the end of ``auditor mitigate``: two audits side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import typer

from auditor.core.files import write_beside
from auditor.core.writable_paths import claim
from auditor.evidence.comparison_evidence import comparison_evidence
from auditor.evidence.container import is_bundle
from auditor.evidence.derived_evidence import EnclosedAudit
from auditor.judging.measurement import Outcome
from auditor.report.comparing.compare_audits import MARGIN, Comparison, compare
from auditor.report.comparing.comparison_report import (
    STANDINGS,
    headline,
    in_order,
    interval_names,
    plainly,
    promise,
    render_comparison_html,
    render_comparison_json,
    render_comparison_markdown,
    row_name,
)
from auditor.report.comparing.side_by_side import SHOWN, Row
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport
from cli.history import report_of
from cli.signed_outputs import Sealed
from cli.terminal import exit_words, paragraph, print_grid, print_table, print_verdict

_MOST_DETAILS = 20
_OUTCOMES = {0: Outcome.PASS, 1: Outcome.FAIL, 3: Outcome.INCONCLUSIVE}
_EXIT_WORDS = {
    0: "unchanged, or shown to be better and as useful",
    1: "something fails that did not, or is worse, or the model is of less use",
    3: "neither is shown: this is not a pass",
}
_TRY_ANOTHER = ("Try another mitigation, or other options of this one", "auditor mitigate list")
_COLUMNS = ("verdict", "number", "before", "after", "difference", "interval", "how")


def compare_reports(
    before: Path,
    after: Path,
    out: Path | None,
    *,
    error_rate: float,
    margin: float = MARGIN,
    db: str | None = None,
    evidence: Sealed | None = None,
    verbose: bool = False,
) -> int:
    """Compare two recorded audits; return the exit code."""
    if out is not None:
        claim_comparison(out)
    earlier, later = report_of(before, db), report_of(after, db)
    comparison = compare(earlier, later, error_rate=error_rate, margin=margin)
    written = [] if out is None else write_comparison(comparison, out)
    if evidence is not None:
        evidence.write(comparison_evidence(comparison, _enclosed_audit(before, earlier), _enclosed_audit(after, later)))
        written.append(str(evidence.bundle))
    print_comparison(comparison, written, verbose=verbose)
    if evidence is not None:
        evidence.raise_if_undated()
    return comparison.exit_code


def _enclosed_audit(path: Path, report: AuditReport) -> EnclosedAudit:
    """The audit as it was given: with its evidence, where that is what was named."""
    return EnclosedAudit(report=report, bundle=path.read_bytes() if is_bundle(path) else None)


def print_comparison(comparison: Comparison, paths: Sequence[str], *, verbose: bool) -> None:
    """Print the verdict, what is fixed and what it cost, what to do next and the files, then what changed; all numbers
    with ``verbose``. Of a mitigation the verdict is the new model's."""
    from auditor.report.first_page import first_page
    from auditor.report.record.translations import ENGLISH, Catalogue

    page = first_page(comparison.after, Catalogue.for_language(ENGLISH))
    steps = [(action.sentence, action.command) for action in page.actions[:1]]
    # What newly fails is named with what is fixed.
    reasons = comparison.usefulness.reasons if comparison.usefulness.standing == "failed" else ()
    verdict = " ".join(("No success.", *reasons)) if comparison.exit_code == 1 else comparison.conclusion
    said = [plainly(comparison, words) for words in (verdict, comparison.fixed)]
    if comparison.made_by:
        # The present model's repair is what was just done.
        steps = [_TRY_ANOTHER if "auditor mitigate" in command else (step, command) for step, command in steps]
        print_verdict(page.outcome, [page.headline, *said], steps, paths)
        code = comparison.after.exit_code
        typer.echo(paragraph(f"exit {code}, of the new model: {exit_words(code)}", 0))
    else:
        print_verdict(_OUTCOMES[comparison.exit_code], said, steps, paths)
        typer.echo(paragraph(f"exit {comparison.exit_code}: {_EXIT_WORDS[comparison.exit_code]}", 0))
    _print_changes(comparison)
    warnings = [f"warning  {remark}" for remark in comparison.remarks]
    for words in filter(None, (comparison.trade, *warnings)):
        typer.echo(paragraph(number_text.visible(plainly(comparison, words)), 0))
    if verbose:
        _print_numbers(comparison)


def _print_changes(comparison: Comparison) -> None:
    """What is shown to have changed, as a table, and how much else there is."""
    changed = [row for row in in_order(comparison.all) if row.verdict in SHOWN]
    if changed:
        typer.echo()
        cells = [(row_name(row, comparison.after), *_cells(row)[2:6], row.verdict) for row in changed]
        tones = ["PASS" if row.verdict == "better" else "FAIL" for row in changed]
        print_grid(("number", *_COLUMNS[2:6], "verdict"), cells, tones)
    typer.echo()
    typer.echo(paragraph(f"{headline(comparison)} More in the report, and with --verbose.", 0))


def _print_numbers(comparison: Comparison) -> None:
    """Every judged number, those that are apart without being judged, and what the verdicts promise."""
    judged, family = interval_names(comparison)
    typer.echo(f"\nusefulness  {STANDINGS[comparison.usefulness.standing]}")
    if comparison.usefulness.rows:
        typer.echo(f"\nusefulness, with the {family} of each difference")
        print_table(_COLUMNS, [_cells(row) for row in comparison.usefulness.rows])
    typer.echo(f"\njudged, with the {judged} of each difference")
    print_table(_COLUMNS, [_cells(row) for row in in_order(comparison.rows)])
    apart = [
        row for row in comparison.others if row.interval is not None and not row.interval[0] <= 0.0 <= row.interval[1]
    ]
    if apart:
        typer.echo(
            f"\nNot judged, and apart by more than their own 95 % intervals, {len(apart)} of {len(comparison.others)}:"
        )
        print_table(_COLUMNS, [_cells(row) for row in apart[:_MOST_DETAILS]])
    typer.echo()
    typer.echo(paragraph(promise(comparison), 0))


def _cells(row: Row) -> Sequence[str]:
    return (
        row.verdict,
        row.name,
        number_text.number(_finite_or_none(row.before.value)),
        number_text.number(_finite_or_none(row.after.value)),
        number_text.number(_finite_or_none(row.difference)),
        ""
        if row.interval is None
        else number_text.interval((_finite_or_none(row.interval[0]), _finite_or_none(row.interval[1]))),
        row.difference_method,
    )


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def claim_comparison(out: Path, flag: str = "--out") -> None:
    """Declare, before any work, the output path of :func:`write_comparison`."""
    for suffix in ("json", "html", "md"):
        claim(out / f"comparison.{suffix}", f"{flag}/comparison.{suffix}")


def write_comparison(comparison: Comparison, out: Path) -> list[str]:
    """Write the comparison as JSON, HTML and Markdown; return the paths."""
    written = []
    for name, content in (
        ("comparison.json", render_comparison_json(comparison)),
        ("comparison.html", render_comparison_html(comparison)),
        ("comparison.md", render_comparison_markdown(comparison)),
    ):
        write_beside(out / name, content.encode())
        written.append(str(out / name))
    return written
