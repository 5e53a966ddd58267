"""``auditor gate``: recorded audits as a pipeline step, with a baseline and signed acceptances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import typer

from auditor.core.errors import UsageError
from auditor.judging.measurement import Outcome
from auditor.report.comparing.compare_audits import compare
from auditor.report.record.audit_report import AuditReport, ExitCode, Finding
from auditor.report.record.earlier_audits import Key, key_of, key_text
from auditor.report.record.number_text import number, visible
from auditor.report.record.severity_and_acceptance import Acceptance, acceptances_of
from cli.history import decisions_in, open_ledger, report_of
from cli.recorded_audits import consistent
from cli.terminal import paragraph, print_report

_GRAVEST_FIRST = (ExitCode.REFUSED, ExitCode.FAILED, ExitCode.INCONCLUSIVE, ExitCode.PASSED)


@dataclass(frozen=True)
class Tolerance:
    """What a gate lets pass although it did not: what the baseline had too, and what somebody accepted.

    ``keys``: fingerprints of the keys whose acceptances count; None if none is asked for. ``db``: the history that has
    the acceptances.
    """

    baseline: AuditReport | None = None
    keys: frozenset[str] | None = None
    db: str | None = None

    @classmethod
    def from_flags(cls, baseline: Path | None, accepted: Sequence[Path], db: str | None) -> Tolerance:
        """The tolerance that ``--baseline``, ``--accepted`` and ``--db`` ask for. Raises UsageError."""
        from auditor.evidence.signing import fingerprint, load_public_key

        if db is not None and not accepted:
            raise UsageError("--db names the history with the acceptances: add --accepted FILE.pub, the signer's key.")
        keys = frozenset(fingerprint(load_public_key(path)) for path in accepted) if accepted else None
        return cls(None if baseline is None else report_of(baseline, db), keys, db)


@dataclass
class _Gated:
    """The verdict on a report, and the reasons for what it lets pass or holds against it, in sentences."""

    code: ExitCode
    reasons: list[str] = field(default_factory=list)


def gate_reports(
    paths: Sequence[Path],
    *,
    waivers: tuple[str, ...],
    tolerance: Tolerance | None = None,
    verbose: bool = False,
) -> int:
    """Print recorded audits and return the worst exit code of their findings.

    Raises DataError where a record contradicts itself, as where its findings do not come to the exit code that it
    states, and UsageError where what is waived is not there.
    """
    from auditor.run.scan import check_waivers

    reports = [consistent(path) for path in paths]
    check_waivers(waivers, {f.probe for report in reports for f in report.findings})
    verdicts = []
    for i, (path, report) in enumerate(zip(paths, reports, strict=True)):
        if len(paths) > 1:
            typer.echo(f"{'' if i == 0 else chr(10)}gate    {path}")
        own = _Gated(_verdict(report, waivers))
        update = {"exit_code": int(own.code), "allow_inconclusive": waivers or False}
        tolerated = tolerance is not None and report.refusal is None
        print_report(report.model_copy(update=update), [], verbose=verbose, ends=not tolerated)
        if tolerance is not None and tolerated:
            own = _tolerant(report, tolerance, waivers)
            typer.echo()
            for reason in own.reasons:
                typer.echo(paragraph(visible(reason), 0))
            typer.echo(paragraph(f"gate exit {int(own.code)}: {_GATE_WORDS[own.code]}", 0))
        verdicts.append(own.code)
    return int(next(code for code in _GRAVEST_FIRST if code in verdicts))


_GATE_WORDS = {
    ExitCode.PASSED: "nothing fails that did not before or is not accepted, and nothing got worse",
    ExitCode.FAILED: "something fails anew or got worse",
    ExitCode.INCONCLUSIVE: "something that was settled is open now, or was left out",
}
# What a finding may be where the baseline had it: no graver than it was.
_NO_GRAVER = {
    Outcome.FAIL: (Outcome.FAIL,),
    Outcome.INCONCLUSIVE: (Outcome.FAIL, Outcome.INCONCLUSIVE),
    Outcome.NOT_RUN: (Outcome.NOT_RUN,),
}


def _tolerant(report: AuditReport, tolerance: Tolerance, waivers: tuple[str, ...]) -> _Gated:
    """The verdict on what neither the baseline had nor somebody accepted, and on what got worse since."""
    comparison = None if tolerance.baseline is None else compare(tolerance.baseline, report, same_rows=False)
    worse = (
        set()
        if comparison is None
        else {(row.probe, row.method, row.metric, row.of) for row in comparison.all if row.verdict == "worse"}
    )
    was = {} if tolerance.baseline is None else {_criterion_key(f): f.outcome for f in tolerance.baseline.findings}
    accepted = _accepted_by(report, tolerance)
    gated, kept, grown = _Gated(ExitCode.PASSED), [], False
    for f in report.findings:
        acceptance = accepted.get(key_of(f))
        if f.outcome not in _NO_GRAVER:
            if key_of(f) in worse and f.criterion is not None:
                gated.reasons.append(f"worse, and within its limit: {key_text(key_of(f))}, {number(f.value)} now")
            kept.append(f)
        elif acceptance is not None and acceptance.status_for(f) == "accepted":
            gated.reasons.append(f"accepted: {acceptance.describe(f)}")
            kept.append(_as_passed(f))
        elif key_of(f) in worse:
            gated.reasons.append(f"got worse: {key_text(key_of(f))}, {number(f.value)} now")
            grown = True
        elif (before := was.get(_criterion_key(f))) in _NO_GRAVER[f.outcome]:
            known = "as in the baseline" if before is f.outcome else f"was {before.value} in the baseline"
            gated.reasons.append(f"{known}: {f.outcome.value} {key_text(key_of(f))}")
            kept.append(_as_passed(f))
        else:
            if acceptance is not None:
                gated.reasons.append(acceptance.describe(f))
            gated.reasons.append(f"new: {f.outcome.value} {key_text(key_of(f))}")
            kept.append(f)
    gated.code = _verdict(report.model_copy(update={"findings": tuple(kept)}), waivers)
    if comparison is not None and comparison.usefulness.standing == "failed":
        gated.reasons.append(f"got worse: {' '.join(comparison.usefulness.reasons)}")
        grown = True
    if comparison is not None and comparison.dropped:
        gated.reasons.append(f"left out: the baseline was judged by {', '.join(comparison.dropped)}")
        gated.code = max(gated.code, ExitCode.INCONCLUSIVE, key=_GRAVEST_FIRST[::-1].index)
    if grown:
        gated.code = ExitCode.FAILED
    return gated


def _as_passed(f: Finding) -> Finding:
    """The finding, for a verdict that it is not to decide."""
    return f.model_copy(update={"outcome": Outcome.PASS, "alone": None, "vacuous": "", "doubtful": ""})


def _accepted_by(report: AuditReport, tolerance: Tolerance) -> Mapping[Key, Acceptance]:
    """The acceptances on this model that are signed with the keys alone; their signatures are checked."""
    if tolerance.keys is None:
        return {}
    ledger = open_ledger(tolerance.db)
    try:
        found = acceptances_of(decisions_in(ledger, report))
    finally:
        ledger.close()
    return {
        key: each for key, each in found.items() if all(signer.signed_with in tolerance.keys for signer in each.signers)
    }


def _criterion_key(f: Finding) -> tuple[object, ...]:
    return key_of(f), None if f.criterion is None else (f.criterion.direction, f.criterion.bound)


def _verdict(report: AuditReport, waivers: tuple[str, ...]) -> ExitCode:
    """What the findings come to; outcomes of a rule that this version does not know are no pass."""
    verdict = report.verdict(allow_inconclusive=waivers or False)
    return ExitCode.INCONCLUSIVE if verdict is ExitCode.PASSED and report.family.other_rule else verdict
