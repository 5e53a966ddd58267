"""Whether parts of a bundle are spelled as they are written, and a request was understood as it was given."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from auditor.evidence.enclosed import Understood
from auditor.evidence.manifest import ASKED, REQUEST, RESULTS, ROWS, TABLES, UNDERSTOOD, Asked, canonical, in_order
from auditor.finding.budgets import Family
from auditor.record.audit_report import AuditReport
from auditor.run.answers import Answers, AnswersHead, CountsRecord, tables_json
from auditor.run.options import ScanOptions
from auditor.verifying.checks import Check

# What is asked for by another name in the plan, or is made of several.
_MADE = ("roles",)


def as_written(
    entries: Mapping[str, bytes],
    asked: Asked,
    head: AnswersHead | None,
    counts: CountsRecord | None,
    answers: Answers | None,
) -> Iterator[Check]:
    """Whether answers, tables, rows and request are spelled as the code that is installed here writes them.

    What is left out, since it says nothing, would else be a change that nobody sees.
    """
    expected = {
        RESULTS: in_order(ASKED.dump_python(asked, mode="json")),
        TABLES: canonical(tables_json(head, counts)),
    }
    if answers is not None:
        expected[ROWS] = answers.rows_to_csv()
    yield from (
        Check(name=name, state="wrong", detail="it is not written as what it says would be")
        for name, content in expected.items()
        if entries.get(name) != content
    )
    if asked.family != Family(error_rate=asked.family.error_rate, multiplicity=asked.family.multiplicity):
        yield Check(name=RESULTS, state="wrong", detail="its promise about errors is one that was judged already")


def as_given(content: bytes, report: AuditReport) -> Iterator[Check]:
    """Whether a request is spelled as it is written, and was understood as it was given."""
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
    unasked = ScanOptions().said()
    strange = sorted(set(options) - set(unasked))
    if strange:
        yield Check(name=REQUEST, state="wrong", detail=f"there is no option {strange[0][:80]!r}")
    if plan is None:
        return
    settings: dict[str, Any] = {**plan.plan.settings, "seed": plan.plan.seed}
    settings |= {"error_rate": plan.plan.error_rate, "multiplicity": plan.plan.multiplicity}
    for name, value in settings.items():
        if name in unasked and name not in _MADE and canonical(options.get(name, unasked[name])) != canonical(value):
            detail = f"it was understood otherwise than given: {name.replace('_', '-')}"
            yield Check(name=REQUEST, state="wrong", detail=detail)
    for name, path in (("model", report.model.path), ("data", report.data.path)):
        given = options.get(name)
        # The record names a database otherwise than it was asked for.
        if path is not None and given != path and "://" not in str(given or path) and "predictions" not in options:
            detail = f"the record names another {name} than was asked for"
            yield Check(name=REQUEST, state="wrong", detail=detail)
