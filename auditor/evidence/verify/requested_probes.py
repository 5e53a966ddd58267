"""Verification of probes: those requested against those answered, and their declared properties."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from auditor.evidence.manifest import REQUEST, RESULTS
from auditor.evidence.verify.checks import Check, Unproven
from auditor.judging.measurement import Copies, ProbeResult, select_definitions
from auditor.report.record.audit_report import FILES, INTAKE, AuditReport
from auditor.run.probe import (
    FILE_QUESTIONS,
    Need,
    Probe,
    blank_result,
    declared_metrics,
    looks_at_rows,
    missing_needs,
    not_applicable,
)
from auditor.run.scan import always_asked

Kinds = Mapping[str, type[Probe]]
# What becomes of the files themselves is said whatever was asked.
_UNASKED = (INTAKE, FILES)


def asked_for(request: bytes, kinds: Kinds, *, other_code: bool) -> tuple[list[str] | None, list[Check]]:
    """The names of a request's probes, unordered, and contradictions in the request.

    None where it does not say: it names none, and how it was understood is not there. ``other_code``: the probes that
    there are may be others than there were.
    """
    try:
        said = json.loads(request)
        options = dict(said.get("options", {}))
        planned = said.get("understood", {}).get("plan", {}).get("probes")
        own = [str(target).partition(":")[2] for target in options.get("probe", ())]
        named = [str(name).replace("-", "_") for name in options.get("probes", ())]
        planned = None if planned is None else [_name(each) for each in planned]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None, [Check(name=REQUEST, state="wrong", detail="it does not say which probes it asks")]
    if not named and (planned is None or other_code):
        return planned, []
    chosen = named or list(kinds)
    languages = any(Need.LANGUAGE_MODEL in kinds[name].needs for name in chosen if name in kinds)
    if options.get("target") is not None or languages:
        # Earlier versions asked for them only where they were named.
        chosen = [*(name for name in always_asked(kinds) if not other_code or name in (planned or ())), *chosen]
    chosen = [*dict.fromkeys([*chosen, *own])]
    if planned is not None and {*planned} != {*chosen}:
        other = sorted({*planned} ^ {*chosen})[0]
        return chosen, [Check(name=REQUEST, state="wrong", detail=f"it was understood otherwise than given: {other}")]
    return chosen, []


def _name(planned: Any) -> str:
    return str(planned["name"] if isinstance(planned, dict) else planned)


def complete(
    request: bytes, results: Sequence[ProbeResult], report: AuditReport, kinds: Kinds, *, other_code: bool
) -> tuple[list[Check], list[Unproven]]:
    """Check that every requested probe answered or has a reason, and that no other probe answered."""
    names, checks = asked_for(request, kinds, other_code=other_code)
    for result in results:
        if not (result.measurements or result.not_run or result.not_applicable):
            checks.append(Check(name=result.probe, state="wrong", detail="it has neither a number nor a reason"))
    if report.refusal is not None:
        return checks, []
    if names is None:
        why = "the request names no probes, and how it was understood is not there"
        return checks, [Unproven(where=f"{RESULTS}: results", why=why, needs="request")]
    there = {result.probe for result in results}
    for name in names:
        if name not in there:
            detail = "the request asks for it, and it has neither a number nor a reason"
            checks.append(Check(name=name, state="wrong", detail=detail))
    checks += [
        Check(name=name, state="wrong", detail="it answered, and the request does not ask for it")
        for name in sorted(there - {*names, *_UNASKED, *(always_asked(kinds) if other_code else ())})
    ]
    if not checks:
        detail = f"{len(names)} probes were asked, and each answered or says why not"
        checks.append(Check(name="probes asked", state="ok", detail=detail))
    return checks, []


def as_declared(results: Sequence[ProbeResult], report: AuditReport, kinds: Kinds) -> Iterator[Check]:
    """Differences between an answer and the installed code about the probe, its metrics or its rows."""
    for result in results:
        kind = kinds.get(result.probe)
        if result.probe in _UNASKED and result.questions != FILE_QUESTIONS:
            yield Check(name=result.probe, state="wrong", detail="its questions are not those of the tool")
        if kind is None:
            continue
        metrics = [m.metric for m in result.measurements]
        said = {
            "pillar": (result.pillar, kind.pillar),
            "citation": (result.citation, kind.citation),
            "definitions": (
                result.definitions, select_definitions(kind.name, kind.citation, declared_metrics(kind), metrics)
            ),
            "questions": (result.questions, blank_result(kind).questions),
            "copies of rows": (_copied(result, kind), report.data.copies if _must_say(result, kind) else None),
        }  # fmt: skip
        yield from (
            Check(name=result.probe, state="wrong", detail=f"its {what} are not those of the probe")
            for what, (one, other) in said.items()
            if one != other
        )


def _copied(result: ProbeResult, kind: type[Probe]) -> Copies | None:
    """The copies that it found: of what it lacks it says so before anybody looks at rows."""
    return result.copies if looks_at_rows(kind) and result.copies is not None and result.copies.copies else None


def _must_say(result: ProbeResult, kind: type[Probe]) -> bool:
    return looks_at_rows(kind) and (bool(result.measurements) or result.copies is not None)


def why_inapplicable(result: ProbeResult, report: AuditReport, kinds: Kinds) -> bool:
    """Whether the probe's inapplicability follows from the model's kind and the available rows."""
    kind = kinds.get(result.probe)
    if kind is None or not result.not_applicable:
        return False
    data, classes = report.data, report.model.classes
    labels = data.missing is not None and data.missing.labels is not None
    model: Any = SimpleNamespace(kind="classifier" if classes else "other", can_be_asked=False)
    rows: Any = SimpleNamespace(
        recorded=None,
        y_true=() if labels else None,
        target_values=None,
        modality="tabular",
        sensitive_features=data.sensitive or None,
        members=() if data.n_train_rows is not None else None,
    )
    if not classes:
        return False
    missing = missing_needs(kind, model, rows)
    return bool(missing) and str(not_applicable(missing, model)) == result.not_applicable
