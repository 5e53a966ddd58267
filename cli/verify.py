"""``auditor keygen`` and ``auditor verify``: independent verification of a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auditor.core.errors import UsageError
from auditor.report.record.number_text import visible
from cli.output_guard import Writes
from cli.verify_output import print_verified

if TYPE_CHECKING:
    from auditor.evidence.verify.checks import Needs, Verified
    from auditor.evidence.verify.remeasure import OfDecisions
    from auditor.run.probe import Probe

# Their numbers follow from a model's answers, its decisions and the groups: nothing else is asked of the model.
FROM_ANSWERS = ("performance", "group_fairness", "adverse_impact", "score_fairness", "regression_fairness")
# Which groups they are of is for the scores to say.
_OF_SCORES = {"adverse_impact": ("standardized_mean_difference",)}
# By which endings files of models are known at sight.
_OF_MODELS = (
    ".pt", ".pth", ".pt2", ".ckpt", ".safetensors", ".onnx", ".gguf", ".joblib", ".pkl", ".pickle", ".skops",
    ".h5", ".keras", ".tflite", ".ubj", ".cbm", ".pmml",
)  # fmt: skip


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
    model = _model_near(out)
    if model is not None:
        typer.echo(
            f"This key lies near a model, {visible(model.name)!r}: whoever is sent that folder is sent the key. Keep "
            "it elsewhere, such as in ~/.config/auditor, and name it there with --sign.",
            err=True,
        )


def _model_near(key: Path) -> Path | None:
    """A model file in the folder of a key, or in one above it as far as the working folder."""
    own, here = key.absolute().parent, Path.cwd()
    folders = [own, *(above for above in own.parents if above.is_relative_to(here))]
    files = (file for folder in folders for file in sorted(folder.iterdir()) if file.is_file())
    return next((file for file in files if file.suffix.lower() in _OF_MODELS), None)


def verify(
    bundle: Annotated[Path, typer.Argument(help="An evidence bundle, such as audit.zip.")],
    key: Annotated[list[Path] | None, typer.Option(help="Public key of whom you trust; repeat for more.")] = None,
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Exit 0 where only the signer is not known.")
    ] = False,
    tsa_root: Annotated[
        list[Path] | None, typer.Option(help="Root certificate (PEM) of a time-stamping authority that you trust.")
    ] = None,
    tsa_policy: Annotated[str | None, typer.Option(help="Policy (OID) that its timestamp must be under.")] = None,
    db: Annotated[
        str | None, typer.Option(help="The history it was entered into: check what the record says of its looks.")
    ] = None,
    dossier: Annotated[
        Path | None, typer.Option(help="The manifest of a dossier: check that it is whole, and of this record.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="A rendering, such as report.pdf: check that it is of this record.")
    ] = None,
    lang: Annotated[str | None, typer.Option(help="Words of --report, where its own: a catalogue FILE.toml.")] = None,
    require: Annotated[
        str | None,
        typer.Option(help="What must be there and proven, and no more: rows,registration,timestamp,signature, ..."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every check, and every place that is not proven.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> int:
    """Check an evidence bundle without model, data or torch, and recompute all of its record.

    Exit codes: 0 everything agrees and is proven, or what --require names; 1 something disagrees; 3 nothing disagrees,
    and something is not proven, which is named; 4 it is no bundle.
    """
    from auditor.evidence.signing import load_public_key
    from auditor.evidence.timestamp import authorities_of
    from auditor.evidence.verify.checks import required_of
    from auditor.evidence.verify.dispatch import verify_evidence

    required = required_of(require)
    trusted = [load_public_key(path) for path in key or ()]
    authorities = authorities_of(tsa_root or (), tsa_policy)
    _of_an_audit(bundle, {"--db": db, "--dossier": dossier, "--report": report})
    found = verify_evidence(bundle, stored_probe, trusted=trusted, authorities=authorities)
    if db is not None:
        found = _by_history(found, db)
    if dossier is not None:
        from auditor.evidence.dossier_manifest import read_manifest, signer_of
        from auditor.evidence.verify.rebuild_dossier import check_text
        from auditor.evidence.verify.verify_dossier import check_dossier

        said = read_manifest(dossier)
        text = check_text(dossier.parent, said, found.report, signer_of(dossier))
        found = found.and_checked([*check_dossier(dossier, found.report, trusted), text])
    if report is not None:
        found = _with_rendering(found, report, lang)
    code = found.exit_code(required, allow_unsigned=allow_unsigned)
    if json_:
        typer.echo(json.dumps(_as_json(found, required, code), indent=2, ensure_ascii=False))
    else:
        print_verified(bundle, found, required, code, everything=all_)
    return code


def _of_an_audit(bundle: Path, flag_values: Mapping[str, object]) -> None:
    """Raises UsageError for flags that ask about an audit, where the bundle is the evidence of something else."""
    from auditor.evidence.deterministic_zip import read_archive
    from auditor.evidence.verify.dispatch import kind_of

    named = [flag for flag, value in flag_values.items() if value is not None]
    kind = kind_of(read_archive(bundle), bundle.name) if named else "audit"
    if kind != "audit":
        raise UsageError(
            f"{named[0]} is about an audit, and {str(bundle)!r} is the evidence of a {kind.replace('_', ' ')}: leave "
            "it out, or take one of the audits enclosed."
        )


class _Stored:
    """The probes there are; those of which a bundle holds all that they measure are made anew."""

    def __call__(self, name: str, options: Mapping[str, Any]) -> Probe | None:
        """A probe whose numbers follow from stored answers, with the options it had; None for all others.

        Raises ConfigError for options that are none.
        """
        from auditor.run.probe import make_probe
        from probes import PROBES

        return make_probe(PROBES[name], dict(options)) if name in FROM_ANSWERS else None

    def of_decisions(self, name: str) -> OfDecisions:
        """What of such a probe follows from decisions and groups, whatever the scores."""
        from auditor.evidence.verify.remeasure import OfDecisions
        from auditor.run.probe import from_decisions
        from probes import PROBES

        return OfDecisions(from_decisions(PROBES[name]), _OF_SCORES.get(name, ()))

    def kinds(self) -> Mapping[str, type[Probe]]:
        """All probes by name."""
        from probes import PROBES

        return PROBES


stored_probe = _Stored()


def _with_rendering(verification: Verified, path: Path, lang: str | None) -> Verified:
    """What was found, and whether a rendering is of the bundle's record."""
    from auditor.evidence.verify.bundle_parts import OWN_CODE
    from auditor.evidence.verify.verify_rendering import tied
    from cli.report_formats import TOLD, catalogue_of, render

    same_code = any(check.name == "code" and check.detail.startswith(OWN_CODE) for check in verification.checks)
    check = tied(path, verification.report, render, say=catalogue_of(lang, TOLD), same_code=same_code)
    verification = verification.and_checked([check])
    return verification.settled("report") if check.state == "ok" else verification


def _as_json(verification: Verified, required: Sequence[Needs], code: int) -> dict[str, object]:
    return {
        "exit_code": code,
        "proven": list(verification.proven),
        "required": list(required),
        "lacking": list(verification.lacks(required)),
        "unproven": [{"where": each.where, "why": each.why, "needs": each.needs} for each in verification.unproven],
        "checks": [{"name": c.name, "state": c.state, "detail": c.detail} for c in verification.checks],
        "from_rows": sorted(verification.from_rows),
        "from_tables": sorted(verification.from_tables),
    }


def _by_history(verification: Verified, db: str) -> Verified:
    """With what a history says of the bundle's record: that it holds it, and that its looks are counted right."""
    from auditor.evidence.history.check_history import wrong_in_history
    from auditor.evidence.verify.checks import Check
    from cli.history import open_ledger

    if verification.report is None:
        return verification
    ledger = open_ledger(db)
    try:
        entries = list(ledger.entries())
    finally:
        ledger.close()
    wrong = wrong_in_history(entries, verification.report)
    known = {(e.number, e.created, e.decision().by) for e in entries if e.kind == "decision"} if not wrong else set()
    wrong = wrong or [
        f"entry {said.entry} of this history is not the decision that the record names"
        for said in verification.report.decisions
        if (said.entry, said.created, said.by) not in known
    ]
    if wrong:
        return verification.and_checked(Check(name="looks", state="wrong", detail=detail) for detail in wrong)
    if verification.report.looks is None:
        detail = "it is entered there, and says nothing of its looks"
        return verification.and_checked([Check(name="looks", state="not checked", detail=detail)])
    detail = "it is entered there, and its looks are what was entered before it"
    return verification.and_checked([Check(name="looks", state="ok", detail=detail)]).settled("history")
