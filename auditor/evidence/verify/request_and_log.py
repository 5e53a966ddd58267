"""Verification of a bundle's other parts: request, answers, tables and log are what an audit of this record writes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from auditor.evidence.evidence_bundle import recorded_event, result_event
from auditor.evidence.manifest import (
    ASKED,
    MEMBERSHIP,
    REQUEST,
    RESULTS,
    ROWS,
    TABLES,
    Asked,
    canonical,
    events,
    in_order,
)
from auditor.evidence.verify.checks import Check, Unproven, difference
from auditor.evidence.verify.enclosed_inputs import Inputs
from auditor.evidence.verify.remeasure import Members
from auditor.judging.measurement import ProbeResult, select_definitions
from auditor.models.format_names import NO_MODEL
from auditor.report.record.audit_report import FILES, INTAKE, AuditReport
from auditor.run.predictions import tables_json
from auditor.run.probe import (
    FILE_QUESTIONS,
    SERVER_QUESTIONS,
    Probe,
    blank_result,
    declared_metrics,
    looks_at_rows,
    missing_needs,
    not_applicable,
)
from auditor.run.scan import asked_with, chosen_probes
from auditor.run.scan_options import ScanOptions, flags

Kinds = Mapping[str, type[Probe]]
_DIGEST = re.compile("[0-9a-f]{64}")
# What is asked for by another name in the plan, or is made of several.
_MADE = ("roles",)
# What becomes of the files themselves is said whatever was asked.
_UNASKED = (INTAKE, FILES)


def as_written(entries: Mapping[str, bytes], results_file: Asked, inputs: Inputs, members: Members) -> Iterator[Check]:
    """Whether answers, tables, rows and request are spelled as the code that is installed here writes them.

    What is left out, since it says nothing, would else be a change that nobody sees.
    """
    expected = {
        RESULTS: in_order(ASKED.dump_python(results_file, mode="json")),
        TABLES: canonical(tables_json(inputs.head, inputs.counts, members.head)),
    }
    if inputs.answers is not None:
        expected[ROWS] = inputs.answers.rows_to_csv()
    if members.scores is not None:
        expected[MEMBERSHIP] = members.scores.rows_to_csv()
    if inputs.request:
        understood = {} if inputs.understood is None else {"understood": inputs.understood.model_dump(mode="json")}
        expected[REQUEST] = canonical({**inputs.request, **understood})
    yield from (
        Check(name=name, state="wrong", detail="it is not written as what it says would be")
        for name, content in expected.items()
        if entries.get(name) != content
    )


def as_given(inputs: Inputs, report: AuditReport) -> Iterator[Check]:
    """Whether a request has no option that there is none of, and was understood as given."""
    options, unasked = inputs.options, ScanOptions().json_values()
    yield from (
        Check(name=REQUEST, state="wrong", detail=f"there is no option {name[:80]!r}")
        for name in sorted({*options} - {*unasked})[:1]
    )
    if inputs.understood is None:
        return
    plan = inputs.understood.plan
    # Of a campaign the level of its look is asked for, by which it is run again.
    settings: dict[str, Any] = {**plan.settings, "seed": plan.seed, "error_rate": report.family.error_rate,
                                "multiplicity": plan.multiplicity}  # fmt: skip
    for name, value in settings.items():
        known = name in unasked and name not in _MADE and not flags()[name].of_one_run
        if known and canonical(options.get(name, unasked[name])) != canonical(value):
            detail = f"it was understood otherwise than given: {name.replace('_', '-')}"
            yield Check(name=REQUEST, state="wrong", detail=detail)


def as_logged(content: bytes, report: AuditReport, results: Sequence[ProbeResult], *, other_code: bool) -> list[Check]:
    """Whether the log says of the run's start, of each probe's result and of the record what an audit logs of them.

    ``other_code``: which events another version logs, and what it says in them, is its own; what is there is checked.
    """
    said = events(content)
    made = [("recorded", recorded_event(report, results)), ("judged", report.summary.model_dump(by_alias=True))]
    made.append(
        (
            "started",
            {"seed": report.environment.seed, "tool": f"{report.tool.get('name')} {report.tool.get('version')}"},
        )
    )
    expected: dict[object, dict[str, Any]] = dict(made)
    by_probe = {result.probe: dict(result_event(result)) for result in results}
    wrong = []
    for event in said:
        name, probe = event.get("event"), event.get("probe")
        found = by_probe.get(str(probe)) if probe is not None and not other_code else expected.get(name)
        if probe is not None and found is None and not other_code:
            wrong.append(f"no {str(probe)[:80]!r} is among the answers")
        elif found is not None:
            told = found.keys() & event.keys()
            wrong.append(difference({k: event[k] for k in told}, {k: found[k] for k in told}, str(name)[:40]))
    if not other_code:
        wrong += _other_lines(said, expected["recorded"])
    checks = [Check(name="log", state="wrong", detail=detail) for detail in wrong if detail]
    if not any(event.get("event") == "recorded" for event in said):
        checks.append(Check(name="log", state="not checked", detail="it does not say what was recorded"))
    return checks


def _other_lines(said: Sequence[Mapping[str, object]], recorded: Mapping[str, object]) -> Iterator[str]:
    """Where a log does not begin and end as a run's log does, or leaves out what its last lines say."""
    names = [event.get("event") for event in said]
    if names[:1] != ["started"] or names[-2:] != ["code", "recorded"] or names.count("recorded") > 1:
        yield "it does not begin and end as a run's log does"
        return
    yield from (f"it does not say of what was recorded the {key}" for key in recorded if key not in said[-1])
    digests = said[-2].get("digests")
    known = isinstance(digests, dict) and all(_DIGEST.fullmatch(str(d)) or d == "not found" for d in digests.values())
    if not known:
        yield "it does not say by a digest which code measured"


# ---- probes ----------------------------------------------------------------------------------------------------------


def asked_for(inputs: Inputs, kinds: Kinds, *, other_code: bool) -> tuple[list[str] | None, list[Check]]:
    """The names of a request's probes, unordered, and contradictions in the request.

    None where it does not say: it names none, and how it was understood is not there. ``other_code``: the probes that
    there are may be others than there were.
    """
    options = inputs.options
    planned = None if inputs.understood is None else [*inputs.understood.plan.probes]
    own, named = _of_code(inputs), [*map(str, options.get("probes") or ())]
    if not named and (planned is None or other_code):
        return planned, []
    chosen = chosen_probes(named, kinds, of_log=options.get("log") is not None)
    # Earlier versions asked for them only where they were named.
    always = asked_with(chosen, kinds, labels=options.get("target") is not None)
    chosen = [*(name for name in always if not other_code or name in (planned or ())), *chosen]
    chosen = [*dict.fromkeys([*chosen, *own])]
    if planned is not None and {*planned} != {*chosen}:
        other = sorted({*planned} ^ {*chosen})[0]
        return chosen, [Check(name=REQUEST, state="wrong", detail=f"it was understood otherwise than given: {other}")]
    return chosen, []


def _of_code(inputs: Inputs) -> list[str]:
    """The probes of a request that are code of the user's."""
    return [str(target).partition(":")[2] for target in inputs.options.get("probe") or ()]


def complete(
    inputs: Inputs, results: Sequence[ProbeResult], report: AuditReport, kinds: Kinds, *, other_code: bool
) -> tuple[list[Check], list[Unproven]]:
    """Check that every requested probe answered or has a reason, and that no other probe answered."""
    names, checks = asked_for(inputs, kinds, other_code=other_code)
    there = [result.probe for result in results]
    wrong = [(name, "it answered twice") for name in sorted({*there}) if there.count(name) > 1]
    wrong += [
        (result.probe, "it has neither a number nor a reason")
        for result in results
        if not (result.measurements or result.not_run or result.not_applicable)
    ]
    own, why = _of_code(inputs), "whether code of the user's measured it is not said as it was asked for"
    by_other = [r.probe for r in results if inputs.options and r.by_code != (r.probe in own)]
    wrong += [] if other_code else [(name, why) for name in by_other]
    open_ = []
    if names is None and report.refusal is None:
        why = "the request names no probes, and how it was understood is not there"
        open_.append(Unproven(where=f"{RESULTS}: results", why=why, needs="request"))
    elif names is not None and report.refusal is None:
        lacking = [name for name in names if name not in there]
        wrong += [(name, "the request asks for it, and it has neither a number nor a reason") for name in lacking]
        more = sorted({*there} - {*names, *_UNASKED, *(asked_with((), kinds, labels=True) if other_code else ())})
        wrong += [(name, "it answered, and the request does not ask for it") for name in more]
    checks += [Check(name=name, state="wrong", detail=detail) for name, detail in wrong]
    if not checks and names is not None and report.refusal is None:
        detail = f"{len(names)} probes were asked, and each answered or says why not"
        checks.append(Check(name="probes asked", state="ok", detail=detail))
    if other_code:
        # Earlier versions did not say it; a PASS depends on it.
        checks += [Check(name="outcomes", state="not checked", detail=f"{name}: {why}") for name in by_other]
    return checks, open_


def as_declared(results: Sequence[ProbeResult], report: AuditReport, kinds: Kinds) -> Iterator[Check]:
    """Differences between an answer and the installed code about the probe, its metrics or its rows."""
    for result in results:
        kind = kinds.get(result.probe)
        if result.probe in _UNASKED and result.questions not in (FILE_QUESTIONS, SERVER_QUESTIONS):
            yield Check(name=result.probe, state="wrong", detail="its questions are not those of the tool")
        if kind is None:
            continue
        metrics = [m.metric for m in result.measurements]
        declared = {
            "pillar": kind.pillar,
            "citation": kind.citation,
            "definitions": select_definitions(kind.name, kind.citation, declared_metrics(kind), metrics),
            "questions": blank_result(kind).questions,
        }
        wrong = [name for name, value in declared.items() if getattr(result, name) != value]
        # Of what it lacks a probe says so before anybody looks at rows.
        said = result.copies if looks_at_rows(kind) else None
        must_say = looks_at_rows(kind) and (result.measurements or said is not None)
        if (said if said is not None and said.copies else None) != (report.data.copies if must_say else None):
            wrong.append("copies of rows")
        for name in wrong:
            yield Check(name=result.probe, state="wrong", detail=f"its {name} are not those of the probe")


def why_inapplicable(result: ProbeResult, report: AuditReport, kinds: Kinds) -> bool:
    """Whether the probe's inapplicability follows from the model's kind and the available rows."""
    kind = kinds.get(result.probe)
    data, classes = report.data, report.model.classes
    if kind is None or not result.not_applicable or not classes:
        return False
    labels = data.missing is not None and data.missing.labels is not None
    alone = report.model.format == NO_MODEL
    model: Any = SimpleNamespace(kind="other" if alone else "classifier", can_be_asked=False, rows_alone=alone)
    rows: Any = SimpleNamespace(
        recorded=None,
        y_true=() if labels else None,
        target_values=None,
        modality="tabular",
        sensitive_features=data.sensitive or None,
        members=() if data.n_train_rows is not None else None,
    )
    missing = missing_needs(kind, model, rows)
    return bool(missing) and str(not_applicable(missing, model)) == result.not_applicable
