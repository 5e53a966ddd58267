"""New decisions in a history: findings with the accepted value, signers in their order, and their signatures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from auditor.core.errors import DataError, UsageError, did_you_mean
from auditor.evidence.history.entries import Covered, Decision, Entry, same_person
from auditor.judging.measurement import Outcome
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.earlier_audits import STEPS, DecidedFinding, Step, key_of
from auditor.report.record.number_text import number
from auditor.report.record.provenance_of_number import off_paper

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def signed(decision: Decision, key: Ed25519PrivateKey) -> Decision:
    """The decision with the key's signature, its public half and fingerprint."""
    from cryptography.hazmat.primitives import serialization

    from auditor.evidence.signing import fingerprint

    public = key.public_key()
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return decision.model_copy(
        update={
            "key": fingerprint(public),
            "public_key": raw.hex(),
            "signature": key.sign(decision.signed_bytes()).hex(),
        }
    )


def signer(decision: Decision) -> str | None:
    """Fingerprint of the key that signed a decision; None if unsigned.

    Whose key that is, is for the reader to know. Raises DataError where the signature does not fit, MissingExtraError
    where it cannot be checked.
    """
    if decision.signature is None:
        return None
    from auditor.evidence.signing import fingerprint, fits, public_key_of

    try:
        public = public_key_of(bytes.fromhex(decision.public_key or ""))
        good = fingerprint(public) == decision.key and fits(
            public, bytes.fromhex(decision.signature), decision.signed_bytes()
        )
    except ValueError:
        good = False
    if not good:
        raise DataError(f"The signature under {decision.by!r}'s decision does not fit: one of the two was changed.")
    return decision.key


_ACCEPTABLE = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.NOT_RUN, Outcome.NOT_JUDGED)


def decided_findings(report: AuditReport, texts: Sequence[str], *, accept: bool) -> tuple[DecidedFinding, ...]:
    """The findings of an audit named by ``--finding ID=VALUE``.

    Raises UsageError for what is not there, or not to be accepted.
    """
    found = tuple(_decide_finding(report, text, accept=accept) for text in texts)
    for i, each in enumerate(found):
        if any(each.asks == other.asks for other in found[:i]):
            raise UsageError(f"--finding names {each.finding!r} twice: keep one.")
    return found


def _decide_finding(report: AuditReport, text: str, *, accept: bool) -> DecidedFinding:
    finding, said = _resolve_finding(report, text)
    if not accept:
        if said is not None:
            raise UsageError(f"A rejection has no value: --finding {finding.id!r}, without the number.")
        return DecidedFinding(finding=finding.id, asks=key_of(finding))
    if finding.outcome not in _ACCEPTABLE:
        raise UsageError(f"{finding.id!r} is {finding.outcome.value}: there is nothing to accept.")
    if finding.value is None:
        if said is not None:
            raise UsageError(f"{finding.id!r} has no number: accept it without a value, --finding {finding.id!r}.")
        return DecidedFinding(finding=finding.id, asks=key_of(finding), outcome=finding.outcome)
    if said is None:
        raise UsageError(
            f"Up to which value is {finding.id!r} accepted? It is {number(finding.value)} now: "
            f"--finding {finding.id}=VALUE."
        )
    low, high = _range(finding, said)
    item = DecidedFinding(
        finding=finding.id, asks=key_of(finding), value=said, low=low, high=high, outcome=finding.outcome
    )
    if not item.covers(finding.value):
        raise UsageError(
            f"{finding.id!r} is {number(finding.value)}, which an acceptance {item.limit} does not cover: accept what "
            "was found, or leave it out."
        )
    return item


def _range(finding: Finding, value: float) -> tuple[float | None, float | None]:
    """The numbers that are accepted: what is required, or the ideal, and from there on to the value."""
    if finding.criterion is not None:
        low, high = finding.criterion.required
        if low <= value <= high and value not in (low, high):
            raise UsageError(
                f"{value:g} meets what is required of {finding.id!r} ({finding.criterion.describe()}): nothing would "
                "be accepted."
            )
    elif finding.ideal is not None:
        low = high = finding.ideal
    else:
        raise UsageError(f"{finding.id!r} has neither a bound nor an ideal, so no value is worse than another.")
    ends = min(low, value), max(high, value)
    return None if ends[0] == -math.inf else ends[0], None if ends[1] == math.inf else ends[1]


def _resolve_finding(report: AuditReport, text: str) -> tuple[Finding, float | None]:
    """The finding that a text names, by its id or by its metric where that is of one alone, and the value after it."""
    known = {f.id: f for f in report.findings}
    whole = off_paper(text, list(known))
    if whole in known:
        return known[whole], None
    name, equals, last = text.rpartition("=")
    value = _float(last) if equals else None
    name = off_paper(name if value is not None else text, list(known))
    if name in known:
        return known[name], value
    own = [f for f in report.findings if f.metric == name and f.outcome in _ACCEPTABLE]
    if len(own) == 1:
        return own[0], value
    if own:
        some = ", ".join(f.id for f in own[:4])
        raise UsageError(f"--finding {name!r} is {len(own)} findings: name one by its id, such as {some}.")
    near = did_you_mean(name, [*known, *(f.metric or "" for f in report.findings)]) or "."
    raise UsageError(f"That audit has no finding {name!r}{near} Its report and its report.json have their ids.")


def _float(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def step_named(text: str | None) -> Step | None:
    """The step of ``--as``. Raises UsageError for one that is none."""
    for step in STEPS:
        if text == step:
            return step
    if text is None:
        return None
    near = did_you_mean(text, STEPS) or "."
    raise UsageError(f"--as {text!r} is no step{near} In their order: {', '.join(STEPS)}.")


def signed_before(
    entries: Sequence[Entry], audit: int, step: Step, *, signer: str, key: str | None
) -> tuple[list[Decision], list[Covered]]:
    """The decision that a signer of this step signs after: the last acceptance of an unfinished approval.

    ``key``: the fingerprint of the signer's, where there is one. Raises UsageError where the step before is missing,
    this one was signed already, or the same person or key signed before.
    """
    chains = _sign_off_chains(entries, audit)
    chain = next((c for c in reversed(chains) if all(d.decision == "accept" for _, d in c)), [])
    needed, done = STEPS[: STEPS.index(step)], tuple(d.step for _, d in chain)
    if step in done:
        raise UsageError(f"Audit {audit} was {step} by {chain[done.index(step)][1].by} already.")
    missing = [name for name in needed if name not in done]
    if missing:
        raise UsageError(
            f"Audit {audit} cannot be {step} yet: it was not {missing[0]}. In their order: {', '.join(STEPS)}."
        )
    for _, decision in chain:
        if same_person(decision.by, signer):
            raise UsageError(
                f"{signer.strip()} has {decision.step} it: it is for somebody else to say that it is {step}."
            )
        if key is not None and key == decision.key:
            raise UsageError(f"This is the key that it was {decision.step} with: another signs that it is {step}.")
    return [d for _, d in chain], [Covered(entry=e.number, hash=e.hash) for e, _ in chain]


def _sign_off_chains(entries: Sequence[Entry], audit: int) -> list[list[tuple[Entry, Decision]]]:
    """The decisions on an audit that have a step, each chain with the first that its later ones cover."""
    chains: list[list[tuple[Entry, Decision]]] = []
    for entry in entries:
        if entry.kind != "decision" or (decision := entry.decision()).audit != audit or decision.step is None:
            continue
        if not decision.covers:
            chains.append([(entry, decision)])
            continue
        own = next((c for c in chains if c[0][0].number == decision.covers[0].entry), None)
        if own is not None:
            own.append((entry, decision))
    return chains
