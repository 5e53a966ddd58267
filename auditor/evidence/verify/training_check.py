"""Verification of a training with interim audits: its record, recomputed from its looks."""

from __future__ import annotations

import json
import re

from pydantic import ValidationError

from auditor.core.errors import DataError
from auditor.evidence.training_evidence import LOOKS, LooksRecord, training_evidence
from auditor.evidence.verify.checks import Check, Unproven
from auditor.evidence.verify.verify_derived import Again, Said
from auditor.report.record.audit_report import AuditReport
from auditor.run.while_training.training_record import judged_look, record_of_looks
from auditor.training.interim.interim_state import criteria_digest, plan_in_words, wrong_levels

_EVERY = re.compile(r"one every (epoch|[0-9]{1,12}), ")
# What of the record the looks do not say.
_STATED = ("created", "tool", "model", "data", "environment", "energy", "duration_s")


def training_again(evidence: Said) -> Again:
    """Every look judged again at its level, the alarms, the courses, and the closing look's findings."""
    try:
        report = AuditReport.model_validate_json(json.dumps(dict(evidence.record)))
        looks = LooksRecord.model_validate_json(evidence.entries[LOOKS])
        told, last = looks.to_looks()
    except (KeyError, ValidationError) as error:
        raise DataError(f"the record or its looks cannot be read: {type(error).__name__}") from None
    level = looks.closing.error_rate
    decided = judged_look(looks.results, looks.criteria, level, looks.run.error_rate, is_judged=looks.judged)
    again = record_of_looks(
        told,
        last,
        decided,
        model=report.model,
        data=report.data,
        environment=report.environment,
        duration_s=report.duration_s,
    )
    again = again.model_copy(update={"created": report.created, "tool": report.tool, "energy": report.energy})
    made = training_evidence(again, looks)
    return Again(
        record={**made.record, "exit_code": made.exit_code},
        request=made.request,
        about=made.about,
        used={LOOKS},
        checks=tuple(_of_plan(looks, report)),
        unproven=(
            Unproven(
                where=f"{LOOKS}: results.*, looks.results.*",
                why="its numbers are as they are stated: what they were computed from is not in the bundle",
                needs="rows",
            ),
            Unproven(
                where=f"{LOOKS}: run.rows, run.probes, looks.weights, left_out, resumed_after, spent, faults, costs",
                why="what was asked of which rows and weights, and what was left out, is the signer's word",
            ),
            Unproven(
                where=f"record.json: {', '.join(_STATED)}", why="what was trained, when and where is the signer's word"
            ),
        ),
        made=f"{len(looks.looks):,} looks and the closing one judged anew from their statistics, each at its level",
    )


def _of_plan(looks: LooksRecord, report: AuditReport) -> list[Check]:
    """Whether the looks are those of the plan, and the run is known by what they have in common."""
    run, wrong = looks.run, wrong_levels((*looks.looks, *looks.spent, looks.closing), looks.spending)
    every = _EVERY.search(run.plan)
    reached = len(looks.looks) + len(looks.left_out)
    numbers = [look.look for look in looks.looks]
    if not wrong and (numbers != sorted(set(numbers)) or (numbers and not 1 <= numbers[0] <= numbers[-1] <= reached)):
        wrong = f"{reached:,} looks were reached, and those that were taken have other numbers"
    if run.criteria != criteria_digest(looks.criteria):
        wrong = wrong or "its criteria are not those that the run is known by"
    if every is None or run.plan != plan_in_words(looks.n_peeks, every.group(1), looks.closing_share):
        wrong = wrong or "its plan is not the one that the run is known by"
    if looks.closing.judged is not looks.judged or run.seed != report.environment.seed:
        wrong = wrong or "the closing look, or the seed, is not that of the run"
    if wrong:
        return [Check(name=LOOKS, state="wrong", detail=wrong)]
    return [Check(name="plan", state="ok", detail="every look has the error rate that the plan gives it")]
