"""Verification of canonical spelling of bundle parts, and of the interpretation of the request."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from auditor.evidence.evidence_bundle import Understood
from auditor.evidence.manifest import (
    ASKED,
    MEMBERSHIP,
    REQUEST,
    RESULTS,
    ROWS,
    TABLES,
    UNDERSTOOD,
    Asked,
    canonical,
    events,
    in_order,
)
from auditor.evidence.verify.checks import Check
from auditor.evidence.verify.json_difference import difference
from auditor.evidence.verify.membership_check import Members
from auditor.judging.budgets import Family
from auditor.judging.measurement import ProbeResult
from auditor.report.record.audit_report import AuditReport
from auditor.run.predictions import Answers, AnswersHead, CountsRecord, tables_json
from auditor.run.scan_options import ScanOptions, flags

# What the last line of a log says.
RECORDED = ("exit_code", "created", "seed", "model", "data", "summary", "answers")
_DIGEST = re.compile("[0-9a-f]{64}")
# What is asked for by another name in the plan, or is made of several.
_MADE = ("roles",)


def as_written(
    entries: Mapping[str, bytes],
    results_file: Asked,
    head: AnswersHead | None,
    counts: CountsRecord | None,
    answers: Answers | None,
    members: Members,
) -> Iterator[Check]:
    """Whether answers, tables, rows and request are spelled as the code that is installed here writes them.

    What is left out, since it says nothing, would else be a change that nobody sees.
    """
    expected = {
        RESULTS: in_order(ASKED.dump_python(results_file, mode="json")),
        TABLES: canonical(tables_json(head, counts, members.head)),
    }
    if answers is not None:
        expected[ROWS] = answers.rows_to_csv()
    if members.scores is not None:
        expected[MEMBERSHIP] = members.scores.rows_to_csv()
    yield from (
        Check(name=name, state="wrong", detail="it is not written as what it says would be")
        for name, content in expected.items()
        if entries.get(name) != content
    )
    if results_file.family != Family(
        error_rate=results_file.family.error_rate, multiplicity=results_file.family.multiplicity
    ):
        yield Check(name=RESULTS, state="wrong", detail="its promise about errors is one that was judged already")


def as_logged(content: bytes, report: AuditReport, results: Sequence[ProbeResult]) -> Iterator[Check]:
    """Check that a log contains the events that the installed code writes: the start of the run, the measuring code,
    the result of each probe, and finally the record."""
    said = events(content)
    names = [event.get("event") for event in said]
    if names[:1] != ["started"] or names[-2:] != ["code", "recorded"]:
        yield Check(name="log lines", state="wrong", detail="it does not begin and end as a run's log does")
        return
    missing = [key for key in RECORDED if key not in said[-1]]
    if missing:
        yield Check(name="log lines", state="wrong", detail=f"it does not say of what was recorded the {missing[0]}")
    digests = said[-2].get("digests")
    known = isinstance(digests, dict) and all(_DIGEST.fullmatch(str(d)) or d == "not found" for d in digests.values())
    if not known:
        yield Check(name="log lines", state="wrong", detail="it does not say by a digest which code measured")
    by_probe = {result.probe: result for result in results}
    summary = report.summary.model_dump(by_alias=True)
    for event in said[1:-2]:
        result = by_probe.get(str(event.get("probe")))
        if "probe" in event and result is None:
            yield Check(name="log lines", state="wrong", detail=f"no {str(event['probe'])[:80]!r} is among the answers")
        if result is not None and (where := _result_difference(event, result)):
            yield Check(name="log lines", state="wrong", detail=f"{result.probe}: {where}")
        if event.get("event") == "judged" and difference({k: event.get(k) for k in summary}, summary):
            yield Check(name="log lines", state="wrong", detail="it counts other outcomes")


def _result_difference(event: Mapping[str, object], result: ProbeResult) -> str:
    """Where a line of the log differs from the result of the probe that it names; empty where it does not."""
    became = "not run" if result.not_run else "not applicable" if result.not_applicable else "answered"
    expected = {"event": became, "measurements": len(result.measurements), "seconds": round(result.duration_s, 3)}
    logged = [key for key in expected if key in event]
    return difference({key: event[key] for key in logged}, {key: expected[key] for key in logged})


def as_given(content: bytes, report: AuditReport) -> Iterator[Check]:
    """Check that a request has canonical spelling, and was interpreted as given."""
    try:
        said = json.loads(content)
        options, understood = dict(said.get("options", {})), said.get(UNDERSTOOD)
        plan = None if understood is None else Understood.model_validate(understood)
        if plan is not None:
            said = said | {UNDERSTOOD: plan.model_dump(mode="json")}
        spelled = canonical(said) == content
    except (ValueError, TypeError, AttributeError, RecursionError):
        return  # said by whoever reads it
    if not spelled:
        yield Check(name=REQUEST, state="wrong", detail="it is not written as what it says would be")
    unasked = ScanOptions().json_values()
    strange = sorted(set(options) - set(unasked))
    if strange:
        yield Check(name=REQUEST, state="wrong", detail=f"there is no option {strange[0][:80]!r}")
    if plan is None:
        return
    settings: dict[str, Any] = {**plan.plan.settings, "seed": plan.plan.seed}
    # Of a campaign the level of its look is asked for, by which it is run again.
    settings |= {"error_rate": report.family.error_rate, "multiplicity": plan.plan.multiplicity}
    for name, value in settings.items():
        known = name in unasked and name not in _MADE and not flags()[name].of_one_run
        if known and canonical(options.get(name, unasked[name])) != canonical(value):
            detail = f"it was understood otherwise than given: {name.replace('_', '-')}"
            yield Check(name=REQUEST, state="wrong", detail=detail)
    for name, path in (("model", report.model.path), ("data", report.data.path)):
        given = options.get(name)
        # The record names a database otherwise than it was asked for.
        if (
            None not in (path, given)
            and given != path
            and "://" not in str(given or path)
            and "predictions" not in options
        ):
            detail = f"the record names another {name} than was asked for"
            yield Check(name=REQUEST, state="wrong", detail=detail)
