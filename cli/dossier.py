"""``auditor dossier``: a rule pack's documentation, filled in as far as a recorded audit goes."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.errors import UsageError
from cli.guarded import RECORD, Reads, Writes

if TYPE_CHECKING:
    from auditor.finding.policy import Policy


def dossier(
    run: Annotated[
        Path, typer.Argument(help="A report.json, the folder that holds one, or history:NUMBER."), Reads(within=RECORD)
    ],
    policy: Annotated[str, typer.Option(help="Rule packs, by name or as TOML files: a,b.")],
    # One that was filled in is the work of whoever did.
    out: Annotated[Path, typer.Option(help="The Markdown file to write."), Writes(own=False)] = Path("dossier.md"),
    as_of: Annotated[str | None, typer.Option(help="Day on which controls are held to be in force; today.")] = None,
    tradeoff: Annotated[
        Path | None,
        typer.Option(help="The tradeoff.json of auditor tradeoff: evidence of a search for alternatives."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Write what a rule pack asks for, with every field that a recorded audit can fill, and the rest marked.

    The pack need not have been given to the scan. It is a skeleton, not legal advice.
    """
    from auditor.evidence.dossier import ATTESTATION_NEEDED, NOT_MEASURED, render_dossier
    from auditor.evidence.tradeoff_given import tradeoff_beside
    from auditor.files import write_beside
    from auditor.report.view import document_id
    from cli.history import report_of

    packs, day, report = _packs(policy), _day(as_of), report_of(run)
    weighed = None if tradeoff is None else tradeoff_beside(tradeoff, report)
    href = _href(run, out, document_id(report))
    written = render_dossier(report, packs, day, report_href=href, tradeoff=weighed)
    write_beside(out, written.encode())
    fields = written.count(f"\n| {ATTESTATION_NEEDED} (")
    typer.echo(f"dossier  {out}")
    typer.echo(f"open     {fields} fields {ATTESTATION_NEEDED}, {written.count(f'**{NOT_MEASURED}**')} {NOT_MEASURED}")
    typer.echo("This is a skeleton to fill in, not legal advice.")


def _packs(names: str) -> list[Policy]:
    from auditor.finding.policy import load_policies, pack_names

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    packs, _ = load_policies(wanted)
    if len(packs) < len(set(wanted)) or not packs:
        raise UsageError(
            f"--policy {names!r} must name rule packs, which have [[controls]]: {', '.join(pack_names())}, or a file "
            "of yours."
        )
    return packs


def _day(text: str | None) -> date:
    if text is None:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--as-of {text!r} is no date: write it like 2027-12-02.") from None


def _href(run: Path, out: Path, document: str) -> str | None:
    """The HTML of the same record beside it, as seen from the dossier."""
    page = (run if run.is_dir() else run.parent) / "report.html"
    try:
        same = document.encode() in page.read_bytes()
    except OSError:
        return None
    return Path(os.path.relpath(page, out.parent)).as_posix() if same else None
