"""``auditor dossier``: the documentation of a rule pack, filled in from a recorded audit."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.core.errors import UsageError, did_you_mean
from cli.flags import Tracebacks
from cli.output_guard import RECORD, Reads, Writes

if TYPE_CHECKING:
    from auditor.evidence.attestations import Attestations
    from auditor.judging.policy import Policy

# The ending of each format's file.
FORMATS = {"markdown": ".md", "html": ".html", "pdf": ".pdf"}


def dossier(
    run: Annotated[
        Path, typer.Argument(help="A report.json, its folder, an audit.zip or history:NUMBER."), Reads(within=RECORD)
    ],
    policy: Annotated[str, typer.Option(help="Rule packs, by name or as TOML files: a,b.")],
    # One that was filled in is the work of whoever did.
    out: Annotated[Path, typer.Option(help="The file to write."), Writes(itself=True, own=False)] = Path("dossier.md"),
    format_: Annotated[
        str | None,
        typer.Option("--format", help="Formats to write: markdown,html,pdf; by default from the extension of --out."),
    ] = None,
    as_of: Annotated[str | None, typer.Option(help="Day whose controls are in force.")] = None,
    attestations: Annotated[
        Path | None, typer.Option(help="TOML file with [[attestation]] tables: statements of named roles.")
    ] = None,
    tradeoff: Annotated[
        Path | None,
        typer.Option(help="The tradeoff.json of auditor tradeoff: evidence of a search for alternatives."),
    ] = None,
    sign: Annotated[Path | None, typer.Option(help="Private key to sign the dossier with.")] = None,
    debug: Tracebacks = False,
) -> None:
    """Write the documentation that a rule pack requires, filled in from a recorded audit, with open fields marked.

    The scan need not have used the pack. The result is a draft, not legal advice. A manifest for
    auditor verify --dossier is written beside it.
    """
    from auditor.core.files import write_beside
    from auditor.core.writable_paths import claim
    from auditor.evidence.dossier_manifest import DossierManifest, places_beside, signature_of
    from auditor.evidence.dossier_parts import NOT_MEASURED
    from auditor.evidence.external_tradeoff import tradeoff_beside
    from auditor.evidence.manifest import FileEntry
    from auditor.evidence.signing import fingerprint, load_private_key
    from auditor.evidence.write_dossier import ATTESTATION_NEEDED, dossier_of
    from auditor.report.document_files import render_document
    from auditor.report.record.number_text import plural
    from auditor.report.report_view import document_id
    from auditor.run import __version__
    from cli.history import report_of

    places = _places(out, format_)
    manifest_at, signature_at = places_beside(out)
    for name, place in places.items():
        claim(place, "--out" if place == out else f"--format {name}", replaceable=False)
    claim(manifest_at, "the manifest")
    key = None if sign is None else load_private_key(sign)
    if key is not None:
        claim(signature_at, "--sign")
    packs, day, report = _packs(policy), _day(as_of), report_of(run)
    given = _attestations(attestations, packs, None if key is None else fingerprint(key.public_key()))
    weighed = None if tradeoff is None else tradeoff_beside(tradeoff, report)
    href = _href(run, out, document_id(report))
    found = dossier_of(report, packs, day, report_href=href, attestations=given, tradeoff=weighed)
    made = {place: render_document(found, place.name) for place in places.values()}
    manifest = DossierManifest(
        record=document_id(report),
        packs={pack.name: pack.sha256 for pack in packs},
        files={place.name: FileEntry.from_content(content) for place, content in made.items()},
        attestations={} if given is None or attestations is None else {attestations.name: given.sha256},
        documents={} if given is None else {a.document: a.document_sha256 for a in given.entries if a.document},
        tradeoff=None if tradeoff is None else FileEntry.from_content(tradeoff.read_bytes()).sha256,
        auditor=__version__,
        as_of=day.isoformat(),
        report_href=href,
    )
    written = {**made, manifest_at: manifest.to_bytes()}
    if key is not None:
        written[signature_at] = signature_of(manifest_at.name, manifest, report, key)
    for place, content in written.items():
        write_beside(place, content)
    for place in written:
        typer.echo(f"{'dossier ' if place in made else 'evidence'} {place}")
    typer.echo(f"open     {plural(found.open, 'field')} {ATTESTATION_NEEDED}, {found.not_measured} {NOT_MEASURED}")
    if given is not None:
        typer.echo(f"attested {plural(found.attested, 'field')}, {given.signed}")
    typer.echo("This is a skeleton to fill in, not legal advice.")


def _places(out: Path, formats: str | None) -> Mapping[str, Path]:
    """Where each format is written: what --format names, beside --out, else what its ending says."""
    if formats is None:
        name = next((name for name, suffix in FORMATS.items() if out.suffix.lower() == suffix), "markdown")
        return {name: out}
    places = {}
    for name in dict.fromkeys(part.strip() for part in formats.split(",")):
        if name not in FORMATS:
            near = did_you_mean(name, FORMATS) or "."
            raise UsageError(f"A dossier has no format {name!r}{near} Known: {', '.join(FORMATS)}.")
        places[name] = out.with_suffix(FORMATS[name])
    # A single format goes where it was said, unless the ending is another's.
    if len(places) == 1 and out.suffix.lower() not in FORMATS.values():
        return {name: out for name in places}
    return places


def _attestations(path: Path | None, packs: Sequence[Policy], signed_with: str | None) -> Attestations | None:
    if path is None:
        return None
    from auditor.evidence.attestations import read_attestations

    return read_attestations(path, packs, datetime.now(UTC).date(), signed_with=signed_with)


def _packs(names: str) -> list[Policy]:
    from auditor.judging.policy import load_policies, pack_names

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    packs, _ = load_policies(wanted)
    if len(packs) < len(set(wanted)) or not packs:
        raise UsageError(
            f"--policy {names!r} must name rule packs, which have [[controls]]: {', '.join(pack_names())}, or a file "
            "of yours."
        )
    return packs


def _day(text: str | None) -> date:
    from auditor.report.record.durations import day_of

    return datetime.now(UTC).date() if text is None else day_of(text, "--as-of")


def _href(run: Path, out: Path, document: str) -> str | None:
    """The HTML of the same record beside it, as seen from the dossier."""
    page = (run if run.is_dir() else run.parent) / "report.html"
    try:
        same = document.encode() in page.read_bytes()
    except OSError:
        return None
    return Path(os.path.relpath(page, out.parent)).as_posix() if same else None
