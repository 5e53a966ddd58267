"""``auditor keygen`` and ``auditor verify``: what a stranger does with a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.guarded import Writes
from cli.output import coloured, paragraph

if TYPE_CHECKING:
    from auditor.run.probe import Probe
    from auditor.verifying.checks import Check, Verified

# Their numbers follow from a model's answers, its decisions and the groups: nothing else is asked of the model.
FROM_ANSWERS = ("group_fairness", "adverse_impact", "score_fairness", "regression_fairness")
_STATES = {"ok": "PASS", "wrong": "FAIL", "not checked": "INCONCLUSIVE"}
_WORDS = {"ok": "ok", "wrong": "WRONG", "not checked": "NOT CHECKED"}


def keygen(
    out: Annotated[
        Path, typer.Argument(help="Where to write the private key; the public one gets .pub."), Writes(lost="key")
    ] = Path("auditor.key"),
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Make an Ed25519 key to sign bundles and decisions with."""
    from auditor.evidence.signing import make_key

    mark = make_key(out)
    typer.echo(f"private  {out}  (mode 0600: keep it to yourself)")
    typer.echo(f"public   {out}.pub  (give it to whoever shall check your signatures)")
    typer.echo(f"sha256   {mark}")


def verify(
    bundle: Annotated[Path, typer.Argument(help="An evidence bundle, such as audit.zip.")],
    key: Annotated[list[Path] | None, typer.Option(help="Public key of whom you trust; repeat for more.")] = None,
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Exit 0 where only the signer is not known.")
    ] = False,
    db: Annotated[
        str | None, typer.Option(help="The history it was entered into: check what the record says of its looks.")
    ] = None,
    dossier: Annotated[
        Path | None, typer.Option(help="The manifest of a dossier: check that it is whole, and of this record.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> int:
    """Check an evidence bundle without model, data or torch, and recompute every number in it.

    Exit codes: 0 everything agrees, 1 something does not, 3 something could not be checked, such as who signed it; 4 it
    is no bundle.
    """
    from auditor.evidence.signing import load_public_key
    from auditor.verifying.kinds import verify_evidence

    trusted = [load_public_key(path) for path in key or ()]
    found = verify_evidence(bundle, stored_probe, trusted=trusted)
    if db is not None:
        found = replace(found, checks=(*found.checks, *_by_history(found, db)))
    if dossier is not None:
        from auditor.evidence.dossier_manifest import read_manifest, signer_of
        from auditor.verifying.dossier import check_dossier
        from auditor.verifying.dossier_text import check_text

        said = read_manifest(dossier)
        text = check_text(dossier.parent, said, found.report, signer_of(dossier))
        found = replace(found, checks=(*found.checks, *check_dossier(dossier, found.report, trusted), text))
    if json_:
        typer.echo(json.dumps(_as_json(found), indent=2, ensure_ascii=False))
    else:
        _print_verified(bundle, found, looks_checked=db is not None)
    unsettled = [c for c in found.checks if c.state == "not checked"]
    if allow_unsigned:
        unsettled = [c for c in unsettled if c.name not in ("signature", "dossier, signature")]
    code = 1 if found.wrong else 3 if unsettled else 0
    if not json_:
        words = {
            0: "everything in the bundle agrees",
            1: "the bundle does not agree with itself: do not rely on it",
            3: "nothing disagrees, but not everything could be checked",
        }
        typer.echo(f"exit {code}: {words[code]}")
    return code


def stored_probe(name: str, options: Mapping[str, Any]) -> Probe | None:
    """A probe whose numbers follow from stored answers, with the options it had; None for all others.

    Raises ConfigError for options that are none.
    """
    from auditor.run.probe import make_probe
    from probes import PROBES

    return make_probe(PROBES[name], dict(options)) if name in FROM_ANSWERS else None


def _as_json(found: Verified) -> dict[str, object]:
    return {
        "checks": [{"name": c.name, "state": c.state, "detail": c.detail} for c in found.checks],
        "from_rows": sorted(found.from_rows),
        "from_tables": sorted(found.from_tables),
    }


def _by_history(found: Verified, db: str) -> list[Check]:
    """What a history says of the bundle's record: that it holds it, and that its looks are counted right."""
    from auditor.evidence.history.looks import wrong_in_history
    from auditor.verifying.checks import Check
    from cli.history import open_ledger

    if found.report is None:
        return []
    ledger = open_ledger(db)
    try:
        wrong = wrong_in_history(list(ledger.entries()), found.report)
    finally:
        ledger.close()
    if wrong:
        return [Check(name="looks", state="wrong", detail=detail) for detail in wrong]
    if found.report.looks is None:
        return [Check(name="looks", state="not checked", detail="it is entered there, and says nothing of its looks")]
    return [Check(name="looks", state="ok", detail="it is entered there, and its looks are what was entered before it")]


def _print_verified(path: Path, found: Verified, *, looks_checked: bool) -> None:
    from auditor.record.text import count, visible
    from auditor.verifying.told import RULE_PACK

    typer.echo(f"bundle  {visible(str(path))}")
    report = found.report
    if report is not None:
        typer.echo(
            f"audit   {visible(report.created)}: {visible(report.model.path or 'a model in memory')} on "
            f"{visible(report.data.path or 'no data')} ({count(report.data.n_rows)} rows), exit {report.exit_code}"
        )
    typer.echo()
    for check in found.checks:
        label = coloured(f"{_WORDS[check.state]:<12}", _STATES[check.state])
        typer.echo(paragraph(f"{label} {visible(check.name)}: {visible(check.detail)}", 0))
    if report is not None:
        numbers = [f.id for f in report.findings if f.value is not None]
        rows, tables = (sum(i in ids for i in numbers) for ids in (found.from_rows, found.from_tables))
        typer.echo()
        typer.echo(
            paragraph(
                f"Of {len(numbers):,} numbers, {rows:,} were counted anew from the model's answers row by row, "
                f"{tables:,} from the tables of groups, and {len(numbers) - rows - tables:,} recomputed from the "
                "statistics that the bundle states of them: for those, auditor reproduce asks the model itself.",
                0,
            )
        )
        packs = {check.name for check in found.checks if check.name.startswith(RULE_PACK) and check.state == "ok"}
        own = {f"{RULE_PACK}{policy.name}" for policy in report.policies} - packs
        told = [name for name in ("decisions", "registration") if getattr(report, name, None)] + ["controls"] * bool(
            own
        )
        if told:
            typer.echo(paragraph(f"The record's {', '.join(told)} are as it states them; nothing recomputes them.", 0))
        if report.looks is not None and not looks_checked:
            typer.echo(paragraph("What it says of its looks is for the history to say: --db WHERE checks it.", 0))
