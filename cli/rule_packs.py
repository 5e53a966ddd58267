"""``auditor policy`` and ``auditor policy dossier``: rule packs, and their documentation from a recorded audit."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auditor.core.errors import UsageError, did_you_mean
from cli.flags import OF_A_FOLDER, AsJson, Tracebacks, Writes
from cli.terminal import paragraph, print_table

if TYPE_CHECKING:
    from auditor.evidence.dossier_files import Attestations
    from auditor.judging.policy import Control, Policy
    from auditor.report.record.controls import CrossedFinding

_LISTED = ("name", "title", "source", "version", "checked on", "age", "certainty", "controls", "pass mark")
_MOST_BYTES = 4 << 20


def policies(
    name: Annotated[
        str | None, typer.Argument(help="Rule pack to show: a name, or a TOML file.", show_default=False)
    ] = None,
    check: Annotated[Path | None, typer.Option(help="Your own rule pack: report all errors in it.")] = None,
    crosswalk: Annotated[
        Path | None,
        typer.Option(
            help="A report.json, its folder or an audit.zip: numbers that are evidence for controls of any pack."
        ),
    ] = None,
    json_: AsJson = False,
    debug: Tracebacks = False,
) -> int:
    """List the rule packs, show one, check your own, or apply all of them to a record.

    Exit codes: 0; 1 if --check found an error.
    """
    if sum(each is not None for each in (name, check, crosswalk)) > 1:
        raise UsageError("Give the name of a pack, --check or --crosswalk: one of them at a time.")
    today = datetime.now(UTC).date()
    if check is not None:
        return _check(check, as_json=json_)
    if crosswalk is not None:
        _crosswalk(crosswalk, today, as_json=json_)
    elif name is not None:
        _show(_load_pack(name), today, as_json=json_)
    else:
        _list(_shipped(), today, as_json=json_)
    return 0


def _shipped() -> list[Policy]:
    from auditor.judging.policy import load_policies, pack_names

    return load_policies(pack_names())[0]


def _load_pack(name: str) -> Policy:
    from auditor.judging.policy import load_policies, pack_names

    packs, _ = load_policies([name])
    if not packs:
        raise UsageError(f"{name!r} holds criteria and no controls; rule packs are {', '.join(pack_names())}.")
    return packs[0]


# ---- the list, and one of it -----------------------------------------------------------------------------------------


def _facts(pack: Policy, today: date) -> dict[str, Any]:
    from auditor.judging.policy import CERTAINTY
    from auditor.report.record.control_record import OLD_AFTER

    age = (today - pack.checked_on).days
    return {
        "name": pack.name,
        "title": pack.title,
        "source": pack.source,
        "version": pack.version,
        "sha256": pack.sha256,
        "checked_on": pack.checked_on.isoformat(),
        "age_days": age,
        "old": age > OLD_AFTER,
        "certainty": CERTAINTY[pack.certainty],
        "applies_from": None if pack.applies_from is None else pack.applies_from.isoformat(),
        "applies_until": None if pack.applies_until is None else pack.applies_until.isoformat(),
        "controls": len(pack.controls),
        "sets_pass_mark": bool(pack.criteria),
    }


def _list(packs: Sequence[Policy], today: date, *, as_json: bool) -> None:
    told = [_facts(pack, today) for pack in packs]
    if as_json:
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    rows = [
        [
            fact["name"],
            fact["title"],
            fact["source"],
            fact["version"],
            fact["checked_on"],
            _age(fact),
            fact["certainty"],
            str(fact["controls"]),
            "sets one" if fact["sets_pass_mark"] else "sets none",
        ]
        for fact in told
    ]
    print_table(_LISTED, rows)


def _age(fact: Mapping[str, Any]) -> str:
    days = fact["age_days"]
    said = f"{days} day{'' if days == 1 else 's'}"
    return f"{said}: look its sources up again" if fact["old"] else said


def _show(pack: Policy, today: date, *, as_json: bool) -> None:
    from auditor.report.record.number_text import plural, visible

    fact = _facts(pack, today)
    if as_json:
        whole = fact | {"notes": list(pack.notes), "controls": [_control(c, today) for c in pack.controls]}
        typer.echo(json.dumps(whole, indent=2, ensure_ascii=False))
        return
    typer.secho(visible(pack.title), bold=True)
    typer.echo(paragraph(visible(pack.source), 0))
    version = f"version {visible(pack.version)}, " if pack.version else ""
    mark = "sets a pass mark" if fact["sets_pass_mark"] else "sets no pass mark"
    typer.echo(f"{version}SHA-256 {pack.sha256[:16]}, {mark}, {plural(fact['controls'], 'control')}")
    typer.echo(f"looked up on {fact['checked_on']} ({_age(fact)}), {fact['certainty']}")
    for note in pack.notes:
        typer.echo(paragraph(f"- {visible(note)}", 2))
    for control in pack.controls:
        typer.echo()
        force = "" if control.applies(today) else " (not in force today)"
        typer.secho(f"{visible(control.id)}: {visible(control.title)}{force}", bold=True)
        typer.echo(paragraph(f"{visible(control.source)}; {_control(control, today)['certainty']}", 2))
        for rule in control.evidence:
            asked = visible(rule.probe or rule.shown_by) + (f", {visible(rule.metric)}" if rule.metric != "*" else "")
            typer.echo(paragraph(f"measured: {visible(rule.what)} ({asked})", 2))
        for word in control.attestation:
            typer.echo(paragraph(f"said by the {visible(word.role)}: {visible(word.what)}", 2))


def _control(control: Control, today: date) -> dict[str, Any]:
    from auditor.judging.policy import CERTAINTY

    return {
        "id": control.id,
        "title": control.title,
        "source": control.source,
        "certainty": CERTAINTY[control.certainty],
        "checked_on": control.checked_on.isoformat(),
        "in_force": control.applies(today),
        "evidence": [asdict(rule) for rule in control.evidence],
        "attestation": [asdict(rule) for rule in control.attestation],
        "record": list(control.record),
    }


# ---- one's own, checked ----------------------------------------------------------------------------------------------


def _check(path: Path, *, as_json: bool) -> int:
    from auditor.judging.rule_pack_check import faults_of
    from auditor.report.record.number_text import visible

    try:
        content = path.read_bytes() if path.is_file() else None
    except OSError as error:
        raise UsageError(f"The rule pack {str(path)!r} cannot be read: {error.strerror}.") from None
    if content is None or len(content) > _MOST_BYTES:
        raise UsageError(f"--check {str(path)!r} is no rule pack: name a TOML file with [[controls]].")
    try:
        faults = faults_of(content.decode(), path.name, known_metrics())
    except UnicodeDecodeError:
        faults = [f"{path.name}: it is no text in UTF-8."]
    if as_json:
        typer.echo(json.dumps({"file": str(path), "faults": faults}, indent=2, ensure_ascii=False))
        return 1 if faults else 0
    for fault in faults:
        typer.echo(visible(fault))
    if not faults:
        typer.echo(f"{path}: nothing is wrong with it; every rule is one that a probe can answer.")
    return 1 if faults else 0


def known_metrics() -> dict[str, list[str]]:
    """The metrics of every probe, as patterns; empty if unknown.

    A probe of another distribution is not imported to be asked.
    """
    from auditor.report.record.audit_report import INTAKE
    from auditor.run.plugins import known_probes
    from auditor.run.probe import declared_metrics
    from probes import PROBES

    found: dict[str, list[str]] = {name: [] for name in (INTAKE, *known_probes(PROBES))}
    for name, kind in PROBES.items():
        found[name] = [each.metric for each in declared_metrics(kind)]
    return found


# ---- a record across all packs ---------------------------------------------------------------------------------------


def _crosswalk(run: Path, today: date, *, as_json: bool) -> None:
    from auditor.report.record.controls import crosswalk
    from auditor.report.record.number_text import visible
    from cli.history import report_of

    crossed = crosswalk(report_of(run), _shipped(), today)
    if as_json:
        rows = [
            {"finding": c.finding.id, "probe": c.finding.probe, "metric": c.finding.metric,
             "outcome": c.finding.outcome.value, "controls": [asdict(s) for s in c.serves]}
            for c in crossed
        ]  # fmt: skip
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    alike: dict[tuple[str, ...], list[CrossedFinding]] = {}
    for each in crossed:
        f = each.finding
        features = " x ".join(f.sensitive or tuple(f.group))
        alike.setdefault((f.probe, f.metric or "", features, _controls_text(each)), []).append(each)
    table = []
    for (probe, metric, features, served), found in alike.items():
        outcomes = [each.finding.outcome.words for each in found]
        tally = ", ".join(f"{outcomes.count(name)} {name}" for name in dict.fromkeys(outcomes))
        asked = visible(served) if served else "no pack asks for it"
        table.append([f"{visible(metric)} of {visible(probe)}", visible(features), tally, asked])
    print_table(("measured", "by", "outcomes", "serves"), table)


def _controls_text(crossed: CrossedFinding) -> str:
    """The controls, by pack; those that are not in force today say so."""
    packs: dict[str, list[str]] = {}
    for one in crossed.serves:
        packs.setdefault(one.policy, []).append(one.control + ("" if one.in_force else " (not in force)"))
    return "; ".join(f"{pack}: {', '.join(controls)}" for pack, controls in packs.items())


# The ending of each format's file.
FORMATS = {"markdown": ".md", "html": ".html", "pdf": ".pdf"}


def dossier(
    run: Annotated[
        Path, typer.Argument(help="A report.json, its folder, an audit.zip or history:NUMBER."), OF_A_FOLDER
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
    auditor evidence verify --dossier is written beside it.
    """
    from auditor.core.files import write_beside
    from auditor.core.writable_paths import claim
    from auditor.evidence.dossier_files import DossierManifest, places_beside, signature_of, tradeoff_beside
    from auditor.evidence.dossier_parts import NOT_MEASURED
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
    from auditor.evidence.dossier_files import read_attestations

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
    from auditor.report.record.number_text import day_of

    return datetime.now(UTC).date() if text is None else day_of(text, "--as-of")


def _href(run: Path, out: Path, document: str) -> str | None:
    """The HTML of the same record beside it, as seen from the dossier."""
    page = (run if run.is_dir() else run.parent) / "report.html"
    try:
        same = document.encode() in page.read_bytes()
    except OSError:
        return None
    return Path(os.path.relpath(page, out.parent)).as_posix() if same else None
