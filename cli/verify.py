"""``auditor evidence keygen`` and ``auditor evidence verify``: independent verification of a bundle.

The results stand on one screen: passed checks, failed checks, and next steps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auditor.core.errors import UsageError
from auditor.core.writable_paths import claim
from auditor.report.record.number_text import visible
from cli.flags import AsJson, Tracebacks, Writes
from cli.terminal import coloured, exit_words, paragraph

if TYPE_CHECKING:
    from auditor.evidence.verify.checks import Check, Needs, Unproven, Verified
    from auditor.evidence.verify.remeasure import OfDecisions
    from auditor.run.probe import Probe

_STATES = {"ok": "PASS", "wrong": "FAIL", "not checked": "INCONCLUSIVE"}
_FIRST = ("wrong", "not checked", "ok")
_WORDS = {"ok": "ok", "wrong": "WRONG", "not checked": "NOT CHECKED"}
# What a reader asks for first; all else that is ok is named in one paragraph.
_TOLD = ("signature", "timestamp", "document id", "registration", "looks", "report", "dossier")
_MOST_PLACES, _MOST_REASONS = 5, 16
_FEW_PROBES = 4
_DIGEST = "digest "
# By which check a thing is proven, where it is called otherwise.
_SHOWN_BY: dict[Needs, str] = {
    "rows": "group table",
    "outcomes": "numbers",
    "request": "probes asked",
    "history": "looks",
}
_OF_SIGNER = " is the signer's word"
_NEXT: dict[Needs, str] = {
    "signature": "add --key FILE, the public key that its signer gave you; if nobody signed: scan --bundle --sign KEY",
    "rows": "auditor evidence reproduce with the model and the rows; or ask for one of --include-rows without --stream",
    "numbers": "auditor evidence reproduce, with the model and the rows",
    "outcomes": "verify it with the version of auditor that made it, or ask for an audit by this version",
    "registration": "add --key FILE, the public key of who signed the plan; if none: auditor evidence register",
    "decisions": "add --key FILE, the public key of who decided; if nobody did: auditor history sign-off",
    "packs": "ask for a bundle that encloses its rule packs, of scan --policy",
    "configuration": "ask for a bundle that encloses the files it obeyed; one that names a password is left out of it",
    "request": "ask for a bundle that encloses its request, as this version writes it",
    "timestamp": "add --tsa-root FILE, the root of an authority that you trust; if there is none: scan --timestamp URL",
    "history": "add --db WHERE, the history that it was entered into",
    "report": "add --report FILE, the rendering, or --dossier FILE",
}


def print_verified(
    path: Path, verification: Verified, required: Sequence[Needs], code: int, *, everything: bool
) -> None:
    """Print the results and the exit code; ``everything``: every check, place and reason."""
    from auditor.report.record.number_text import count, visible

    typer.echo(paragraph(_verdict(verification, required, code), 0))
    typer.echo(f"bundle  {visible(str(path))}")
    report = verification.report
    if report is not None:
        of_rows = "" if report.data.n_rows is None else f" ({count(report.data.n_rows)} rows)"
        typer.echo(
            paragraph(
                f"audit   {visible(report.created)}: {visible(report.model.path or report.model.display_name)} on "
                f"{visible(report.data.path or 'no data')}{of_rows}; its own result: exit "
                f"{report.exit_code}, {exit_words(report.exit_code)}",
                0,
            )
        )
    typer.echo()
    if code == 0 and not everything:
        _print_proven(verification)
        typer.echo(paragraph(f"exit 0: {_in_words(verification, required, code)}", 0))
        return
    _print_checks(verification.checks, everything)
    if report is not None:
        numbers = [f.id for f in report.findings if f.value is not None]
        rows, tables = (sum(i in ids for i in numbers) for ids in (verification.from_rows, verification.from_tables))
        typer.echo(
            paragraph(
                f"Of {len(numbers):,} numbers, {rows:,} were counted anew from answers and scores row by row, "
                f"{tables:,} from the tables of groups, and {len(numbers) - rows - tables:,} recomputed from the "
                "statistics that the bundle states of them: for those, auditor evidence reproduce asks the "
                "model itself.",
                0,
            )
        )
    said = frozenset() if everything else frozenset((c.name, c.detail) for c in verification.checks)
    if verification.unproven and not everything:
        typer.echo()
    _print_open(verification.open, said, everything)
    _print_stated(verification.plain_statements, everything)
    typer.echo(paragraph(f"exit {code}: {_in_words(verification, required, code)}", 0))


def _verdict(verification: Verified, required: Sequence[Needs], code: int) -> str:
    """The first line: what holds."""
    wrong, n = sum(c.state == "wrong" for c in verification.checks), len(verification.checks)
    if code == 1:
        return (
            coloured(f"WRONG: {wrong:,} of {n:,} checks {'does' if wrong == 1 else 'do'} not agree.", "FAIL")
            + " Do not rely on this bundle."
        )
    proven = f"Proven: {', '.join(verification.proven) or 'nothing'}."
    lacks, left = verification.lacks(required), ", ".join(dict.fromkeys(str(each.needs) for each in verification.open))
    if lacks:
        head = coloured(f"NOT PROVEN, and required: {', '.join(lacks)}.", "INCONCLUSIVE")
        return f"{head} Nothing disagrees in {n:,} checks. {proven}"
    if required:
        head = coloured(f"PROVEN AS REQUIRED: {', '.join(required)}.", "PASS")
        return f"{head} Nothing disagrees in {n:,} checks.{f' Not proven, nor required: {left}.' if left else ''}"
    head = coloured(f"NOTHING DISAGREES in {n:,} checks.", "INCONCLUSIVE" if left else "PASS")
    return f"{head} {proven}{f' Not proven: {left}.' if left else ''}"


def _in_words(verification: Verified, required: Sequence[Needs], code: int) -> str:
    if code == 1:
        return "the bundle does not agree with itself: do not rely on it; ask its sender for it as it was written"
    if not required:
        return {
            0: "everything in the bundle agrees, and what it rests on is proven",
            3: "nothing disagrees, and what is named NOT PROVEN is not: --require says what must be",
        }[code]
    lacks = verification.lacks(required)
    if not lacks:
        return f"proven as required: {', '.join(required)}"
    return f"not proven, and required: {', '.join(lacks)}. " + " ".join(f"{each}: {_NEXT[each]}." for each in lacks)


def _print_proven(verification: Verified) -> None:
    """One line for each thing that is proven, and one for all that no signature proves."""
    from auditor.evidence.verify.replay import RULE_PACK
    from auditor.report.record.number_text import visible

    fine = {check.name: check.detail for check in verification.checks if check.state == "ok"}
    packs = [name.removeprefix(RULE_PACK) for name in fine if name.startswith(RULE_PACK)]
    fine["packs"] = f"{', '.join(packs)}: their texts, and every control held against the findings anew"
    shown = [(str(need), fine.get(_SHOWN_BY.get(need, need), "")) for need in verification.proven]
    shown += [(name, fine[name]) for name in ("record", "document id") if name in fine]
    for name, detail in shown:
        typer.echo(paragraph(f"{coloured('proven', 'PASS')}       {name}: {visible(detail)}", 0))
    n = len(_by_reason(verification.plain_statements))
    typer.echo(
        paragraph(
            "Never proven by a signature: whatever it says of itself, such as names, the machine, and that this model "
            f"gave these answers ({n} statements; --verbose lists them).",
            0,
        )
    )


def _print_checks(checks: Sequence[Check], everything: bool) -> None:
    from auditor.report.record.number_text import visible

    told = [c for c in checks if everything or c.state != "ok" or _is_told(c)]
    for check in told if everything else sorted(told, key=lambda c: _FIRST.index(c.state)):
        label = coloured(f"{_WORDS[check.state]:<12}", _STATES[check.state])
        typer.echo(paragraph(f"{label} {visible(check.name)}: {visible(check.detail)}", 0))
    rest = [c for c in checks if c not in told]
    if rest:
        files = sum(c.detail.startswith(_DIGEST) for c in rest)
        names = [f"the digests of {files:,} files"] if files else []
        names += [visible(c.name) for c in rest if not c.detail.startswith(_DIGEST)]
        label = coloured(f"{_WORDS['ok']:<12}", _STATES["ok"])
        typer.echo(paragraph(f"{label} {len(rest):,} more: {', '.join(names)}", 0))


def _is_told(check: Check) -> bool:
    return check.name.startswith(_TOLD) and not check.detail.startswith(_DIGEST)


def _print_open(unproven: Sequence[Unproven], known_reasons: frozenset[tuple[str, str]], everything: bool) -> None:
    """What is not proven: what would prove the same in one group, and what to do next."""
    from auditor.report.record.number_text import visible

    grouped: dict[Needs | None, list[Unproven]] = {}
    for each in unproven:
        grouped.setdefault(each.needs, []).append(each)
    for needs, members in grouped.items():
        title = f"NOT PROVEN ({needs})"
        step = _NEXT[needs] if needs is not None else ""
        if everything:
            typer.echo()
            typer.echo(paragraph(f"{title}: {step}", 0))
            _print_reasons(members)
            continue
        reasons = _by_reason(m for m in members if (m.where, m.why) not in known_reasons)
        whys = [f"{visible(_claim(why))}{visible(_of_probes(places))}" for why, places in reasons.items()]
        typer.echo(paragraph(f"{title}{': ' if whys else ''}{'; '.join(whys)}. Next: {step}.", 0))


def _claim(reason: str) -> str:
    """A reason without the command that it ends with, which the next step names."""
    return reason.partition(": auditor ")[0].partition(": --")[0]


def _of_probes(places: Sequence[str]) -> str:
    """Of statistics, the probes that they are of; other places are fields, which only ``--all`` names."""
    fields = [field for part, _, field in (place.partition(": ") for place in places) if part == "results.json"]
    names = list(dict.fromkeys(field.partition("[")[0].partition(".")[0] for field in fields))
    more = f" and {len(names) - _FEW_PROBES:,} more" if len(names) > _FEW_PROBES else ""
    return f" ({', '.join(names[:_FEW_PROBES])}{more})" if names else ""


def _print_reasons(members: Iterable[Unproven]) -> None:
    from auditor.report.record.number_text import visible

    reasons = _by_reason(members)
    for why, places in list(reasons.items())[:_MOST_REASONS]:
        typer.echo(paragraph(f"{visible(_places(places))}: {visible(why)}", 2))
    if len(reasons) > _MOST_REASONS:
        typer.echo(f"  and {len(reasons) - _MOST_REASONS:,} more reasons; --json names all.")


def _print_stated(unproven: Sequence[Unproven], everything: bool) -> None:
    """Plain statements: with every place, or in one paragraph."""
    from auditor.report.record.number_text import visible

    if not unproven:
        return
    if everything:
        typer.echo("\nON THE SIGNER'S WORD")
        _print_reasons(unproven)
        return
    whys = dict.fromkeys(visible(_claim(why)).replace(_OF_SIGNER, "").rstrip(",") for why in _by_reason(unproven))
    typer.echo(paragraph(f"ON THE SIGNER'S WORD (--all says of what): {'; '.join(whys)}", 0))


def _by_reason(unproven: Iterable[Unproven]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for each in unproven:
        reasons.setdefault(each.why, []).append(each.where)
    return reasons


def _places(places: Sequence[str]) -> str:
    """Places by the part that they are in, of each as many as can be read."""
    parts: dict[str, list[str]] = {}
    for place in places:
        part, mark, field = place.partition(": ")
        parts.setdefault(part, []).extend([field] if mark else [])
    said = []
    for part, fields in parts.items():
        more = f" and {len(fields) - _MOST_PLACES:,} more" if len(fields) > _MOST_PLACES else ""
        said.append(f"{part} {', '.join(fields[:_MOST_PLACES])}{more}".rstrip())
    return "; ".join(said)


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
        Path | None,
        typer.Argument(
            help="Where to write the private key, by default in ~/.local/state/auditor; the public key gets the suffix "
            ".pub."
        ),
        Writes(lost="key"),
    ] = None,
    debug: Tracebacks = False,
) -> None:
    """Make an Ed25519 key to sign bundles and decisions with."""
    from auditor.evidence.signing import make_key

    if out is None:
        # Where nobody looks for files to send, and no code of a model may read.
        out = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "auditor" / "auditor.key"
        out.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        claim(out, "the key", irreplaceable_kind="key")
    mark = make_key(out)
    typer.echo(f"private  {out}  (mode 0600: keep it to yourself)")
    typer.echo(f"public   {out}.pub  (give it to whoever shall check your signatures)")
    typer.echo(f"sha256   {mark}")
    model = _model_near(out)
    if model is not None:
        typer.echo(
            f"This key lies near a model, {visible(model.name)!r}: whoever is sent that folder is sent the key. Keep "
            "it elsewhere, such as in ~/.local/state/auditor, where keygen without a path writes it, and name it there "
            "with --sign.",
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
    key: Annotated[list[Path] | None, typer.Option(help="Trusted public key; repeat for more.")] = None,
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Exit 0 if only the signer is unknown.")
    ] = False,
    tsa_root: Annotated[
        list[Path] | None, typer.Option(help="Root certificate (PEM) of a time-stamping authority that you trust.")
    ] = None,
    tsa_policy: Annotated[str | None, typer.Option(help="Required policy (OID) of the timestamp.")] = None,
    db: Annotated[
        str | None, typer.Option(help="History of the audit: check the record's count of earlier audits.")
    ] = None,
    dossier: Annotated[
        Path | None,
        typer.Option(help="Manifest of a dossier: check that the dossier is unchanged and belongs to this record."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Report in any format, such as report.pdf: check that it belongs to this record."),
    ] = None,
    lang: Annotated[
        str | None, typer.Option(help="Catalogue of --report, if it has its own wording: FILE.toml.")
    ] = None,
    require: Annotated[
        str | None,
        typer.Option(help="Parts that must be present and proven: rows,registration,timestamp,signature, ..."),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", "--verbose", help="Print every check, and every place that is not proven.")
    ] = False,
    json_: AsJson = False,
    debug: Tracebacks = False,
) -> int:
    """Check an evidence bundle without model, data or torch, and recompute all of its record.

    Exit codes: 0 everything is consistent and proven, or the parts that --require lists; 1 something is inconsistent;
    3 everything is consistent, but something is not proven, which is listed; 4 the file is not a bundle.
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
        from auditor.evidence.dossier_files import read_manifest, signer_of
        from auditor.evidence.verify.verify_dossier import check_dossier, check_text

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
    from auditor.evidence.container import read_archive
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
    from auditor.report.record.report_formats import TOLD, render
    from cli.report_outputs import catalogue_of

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
