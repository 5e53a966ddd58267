"""Results of ``auditor verify`` on one screen: passed checks, failed checks, and next steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.terminal import coloured, exit_words, paragraph

if TYPE_CHECKING:
    from auditor.evidence.verify.checks import Check, Needs, Unproven, Verified

_STATES = {"ok": "PASS", "wrong": "FAIL", "not checked": "INCONCLUSIVE"}
_FIRST = ("wrong", "not checked", "ok")
_WORDS = {"ok": "ok", "wrong": "WRONG", "not checked": "NOT CHECKED"}
# What a reader asks for first; all else that is ok is named in one paragraph.
_TOLD = ("signature", "timestamp", "document id", "registration", "looks", "report", "dossier")
_MOST_PLACES, _MOST_REASONS = 5, 16
_FEW_PROBES = 4
_DIGEST = "digest "
_OF_SIGNER = " is the signer's word"
_NEXT: dict[Needs, str] = {
    "signature": "add --key FILE, the public key that its signer gave you; if nobody signed: scan --bundle --sign KEY",
    "rows": "auditor reproduce, with the model and the rows; or ask for a bundle of --include-rows, without --stream",
    "numbers": "auditor reproduce, with the model and the rows",
    "outcomes": "verify it with the version of auditor that made it, or ask for an audit by this version",
    "registration": "add --key FILE, the public key of who signed the plan; if there is none: auditor register",
    "decisions": "add --key FILE, the public key of who decided; if nobody did: auditor signoff",
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
        typer.echo(
            paragraph(
                f"audit   {visible(report.created)}: {visible(report.model.path or report.model.display_name)} on "
                f"{visible(report.data.path or 'no data')} ({count(report.data.n_rows)} rows); its own result: exit "
                f"{report.exit_code}, {exit_words(report.exit_code)}",
                0,
            )
        )
    typer.echo()
    _print_checks(verification.checks, everything)
    if report is not None:
        numbers = [f.id for f in report.findings if f.value is not None]
        rows, tables = (sum(i in ids for i in numbers) for ids in (verification.from_rows, verification.from_tables))
        typer.echo(
            paragraph(
                f"Of {len(numbers):,} numbers, {rows:,} were counted anew from answers and scores row by row, "
                f"{tables:,} from the tables of groups, and {len(numbers) - rows - tables:,} recomputed from the "
                "statistics that the bundle states of them: for those, auditor reproduce asks the model itself.",
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
