"""Lines of a report's summary: usefulness of the model, rows needed to PASS, exclusions from judged numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from auditor.judging.budgets import CONJUNCTION
from auditor.judging.criterion import CriterionRecord
from auditor.judging.judgement import HIDDEN
from auditor.judging.measurement import Outcome
from auditor.models.format_names import NO_MODEL
from auditor.report.record import finding_text, number_text
from auditor.report.record.audit_report import INTAKE, AuditReport, FamilyRecord, Finding, measurement_label
from auditor.report.record.finding_text import answers
from auditor.report.record.translations import ENGLISH, Catalogue
from auditor.statistics.attack_estimates import AtLeast, AtMost
from auditor.statistics.estimate import POWER, Estimate, Exact, Undefined, UpperBound

# What is asked of files that were made, and of no model.
_OF_FILES = "marked"
_PILLAR = "performance"
# What says it of a detector of synthetic media, where nobody asked for more.
_OF_DETECTORS = "synthetic"
# What a reader knows a model by, one number of each kind of model.
_KNOWN_BY = ("accuracy", "mean_absolute_error", "perplexity")
_OF_DECISIONS = ("balanced_accuracy", "adjusted_balanced_accuracy")


@dataclass(frozen=True)
class Worth:
    """``line``: the model's main number beside the base rate's; ``skill``: whether it shows skill.

    ``outcome``: the colour of it: PASS where skill is shown, INCONCLUSIVE where it is not, FAIL where less than chance
    is, NOT_JUDGED where nobody measured it.
    """

    outcome: Outcome
    line: str
    skill: str

    @property
    def sentence(self) -> str:
        """Line and skill in one sentence."""
        return f"{self.line} {self.skill}".strip()


def worth_of(report: AuditReport, say: Catalogue | None = None) -> Worth | None:
    """The performance statement of a report; None if it has no results on a model's answers."""
    if not _of_a_model(report):
        return None
    say = say or Catalogue.for_language(ENGLISH)
    overall = _overall(report)
    line = next((_line(f, say) for name in _KNOWN_BY for f in overall if f.metric == name and f.value is not None), "")
    compared = [f for f in overall if _against_chance(f)]
    if not compared:
        why = next((f.reason for f in overall if f.reason and f.value is None), "")
        why = why or say.say("worth.unasked")
        return Worth(Outcome.NOT_JUDGED, line, say.say("worth.unknown", why=why))
    outcome, skill = _skill(compared, say)
    return Worth(outcome, line, skill)


def _of_a_model(report: AuditReport) -> bool:
    """Whether a report measured a model's answers rather than files, or nothing."""
    if report.model.format == NO_MODEL or report.refusal is not None:
        return False
    if not any(f.pillar != INTAKE for f in report.findings):
        return False
    return not any(not f.other_kind and answers(report, f.probe, f.metric, _OF_FILES) for f in report.findings)


def _overall(report: AuditReport) -> list[Finding]:
    """The findings on performance over all rows, those of the performance pillar first."""
    overall = [
        f
        for f in report.findings
        if not f.group and (f.pillar == _PILLAR or answers(report, f.probe, f.metric, _OF_DETECTORS))
    ]
    return sorted(overall, key=lambda f: f.pillar != _PILLAR)


def _against_chance(finding: Finding) -> bool:
    """Whether a finding is a number with an interval beside that of guessing."""
    return finding.chance is not None and not finding.at and finding.value is not None and finding.interval is not None


def _above_chance(finding: Finding) -> bool:
    low = finding.interval[0] if finding.interval else None
    return low is not None and low >= (finding.chance or 0.0)


def _skill(findings: list[Finding], say: Catalogue) -> tuple[Outcome, str]:
    """Whether the findings show that the model does better than guessing, as an outcome and a sentence."""
    skilled = [f for f in findings if _above_chance(f)]
    first = (skilled or findings)[0]
    numbers = _numbers(first, say)
    of_decisions = [f for f in findings if f.metric in _OF_DECISIONS]
    if skilled and of_decisions and not any(f in skilled for f in of_decisions):
        decided = _numbers(of_decisions[0], say)
        return Outcome.INCONCLUSIVE, say.say("worth.scores_only", numbers=numbers, decided=decided)
    if skilled:
        return Outcome.PASS, say.say("worth.shown", numbers=numbers)
    outcome = Outcome.FAIL if first.outcome is Outcome.FAIL else Outcome.INCONCLUSIVE
    return outcome, say.say("worth.none", numbers=numbers)


def _numbers(finding: Finding, say: Catalogue) -> str:
    return say.say(
        "worth.numbers",
        metric=finding.metric,
        value=say.spelled(finding_text.value(finding)),
        interval=say.ends(finding.interval),
        chance=say.spelled(f"{finding.chance:g}"),
    )


def _line(finding: Finding, say: Catalogue) -> str:
    if finding.metric == _KNOWN_BY[0]:
        detail = f"; {finding.detail}" if finding.detail else ""
        interval = say.interval(finding.interval, "percent")
        return say.say("worth.right", share=say.percent(finding.value), interval=interval, detail=detail)
    name = (finding.metric or "").replace("_", " ")
    said = f"{name.capitalize()} {say.spelled(finding_text.value(finding))}, {say.ends(finding.interval)}"
    return f"{said}; {finding.detail}." if finding.detail else f"{said}."


_MOST_NAMED = 3
_OPEN = (Outcome.PASS, Outcome.INCONCLUSIVE)


@dataclass(frozen=True)
class RowsForAll:
    """``times``: multiple of the present rows, NaN if unknown; ``asked_by``: the finding that needs most.

    ``unknown``: open numbers of which it is not known, or that no number of rows would settle; ``taken``: those without
    a figure that PASS here, and are taken to do so again. ``never``: what no number of rows makes PASS. ``not_run``:
    findings that did not run, which rows do not mend either.
    """

    questions: int
    times: float
    asked_by: str
    unknown: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    not_run: int = 0

    def describe(self, n_rows: int | None) -> str:
        """The required number of rows in one or two sentences; ``n_rows``: rows of the file, None if none."""
        open_, goal = "", "For everything judged here to PASS together (exit 0)"
        if self.not_run:
            open_ = f"No rows lead to exit 0 while {self.not_run:,} did not run. "
        if self.never:
            open_ += f"No rows lead to exit 0 while {_listed(self.never)} must PASS: a search that finds nothing "
            open_ += "proves nothing. "
        if self.unknown:
            open_ += f"How many rows would do for exit 0 is not known: rows do not plan {_listed(self.unknown)}. "
        if math.isnan(self.times):
            return open_.strip()
        if open_:
            goal = "For all the others to PASS together"
        taken = f" It is taken that {_listed(self.taken)} PASS as they do here." if self.taken else ""
        if self.times <= 1.0:
            near = "" if open_ else ": what is open lies too near its bound"
            enough = "these rows are enough at the ideal values, four times in five"
            return f"{open_}{goal}, {enough}{near}.{taken}"
        of = "" if n_rows is None else f", {math.ceil(self.times * n_rows - 1e-6):,} in place of {n_rows:,}"
        cautious = (
            f" A cautious figure: each of {self.questions:,} questions has an equal part of the one time in five."
            if self.questions > 1
            else ""
        )
        return (
            f"{open_}{goal}, it takes, at the ideal values, about {self.times:.2g} times as many rows{of}, four "
            f"times in five; {self.asked_by} asks for most.{cautious}{taken}"
        )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def describe_rows_for_all(report: AuditReport) -> str:
    """The required number of rows, in words; "" if not applicable."""
    found = rows_for_all(report)
    return "" if found is None else found.describe(report.data.n_rows)


def rows_for_all(report: AuditReport) -> RowsForAll | None:
    """The required number of rows; None if something failed, which rows cannot change, or nothing is open.

    For every judged number ``growth`` at the level at which all of its budget may PASS together, with a part of the
    20 % that may miss which is the same for all; the largest, a union bound. What takes no sample takes no part.
    """
    asked = [f for f in report.findings if _takes_part(f)]
    if report.summary.fail or not any(f.outcome is Outcome.INCONCLUSIVE for f in asked):
        return None
    times = [(f, _times(f, _level(f, report.family), (1.0 - POWER) / len(asked))) for f in asked]
    known = [(t, measurement_label(f)) for f, t in times if math.isfinite(t)]
    unplanned = [(f, measurement_label(f)) for f, t in times if math.isnan(t)]
    never = tuple(name for f, name in unplanned if isinstance(f.estimate, AtMost | AtLeast))
    without = {o: tuple(name for f, name in unplanned if f.outcome is o and name not in never) for o in _OPEN}
    most, asked_by = max(known, default=(math.nan, ""))
    return RowsForAll(
        questions=len(asked),
        times=most,
        asked_by=asked_by,
        unknown=without[Outcome.INCONCLUSIVE],
        taken=without[Outcome.PASS],
        never=never,
        not_run=report.summary.not_run,
    )


def _takes_part(finding: Finding) -> bool:
    open_ = finding.outcome is Outcome.INCONCLUSIVE
    passed = finding.outcome is Outcome.PASS and finding.criterion is not None
    return (open_ or passed) and not isinstance(finding.estimate, Exact | UpperBound | None)


def _level(finding: Finding, family: FamilyRecord) -> float:
    """The level of a PASS where everything passes, which is what a model at the ideal comes to."""
    if family.rule == 1 and finding.confidence is not None:
        return 1.0 - finding.confidence if _two_sided(finding) else 0.5 * (1.0 - finding.confidence)
    budget = next((b for b in family.budgets if b.name == finding.budget), None)
    if budget is None or budget.questions < 2:
        return family.error_rate if budget is None else budget.rate
    return budget.rate * CONJUNCTION if family.multiplicity == "holm" else budget.rate / budget.questions


def _two_sided(finding: Finding) -> bool:
    return finding.criterion is not None and isinstance(finding.criterion.bound, tuple)


def _times(finding: Finding, level: float, miss: float) -> float:
    """How many times the rows of a finding let the ideal value PASS but for ``miss``; NaN where that is not known."""
    estimate, criterion = finding.estimate, finding.criterion
    if criterion is None:
        # Nothing is required of it, and it would be judged or shown with so many.
        return finding.n_required / finding.n_samples if finding.n_required and finding.n_samples else math.nan
    if estimate is None or finding.ideal is None:
        return math.nan
    # What may not be judged at this size, or says nothing of this model, is not mended by the size alone.
    says_little = (finding.vacuous or finding.weak) and finding.outcome is Outcome.INCONCLUSIVE
    barred = finding.p_pass is None or says_little
    if barred or isinstance(estimate, Undefined) or math.isnan(estimate.value):
        return math.nan
    sides = 2 if _two_sided(finding) else 1
    times = _growth(estimate, criterion, finding.ideal, tail=level / sides, miss=miss / sides)
    return times if math.isfinite(times) else math.nan


def _growth(estimate: Estimate, criterion: CriterionRecord, ideal: float, *, tail: float, miss: float) -> float:
    ends: Sequence[float] = criterion.bound if isinstance(criterion.bound, tuple) else (criterion.bound,)
    low, high = criterion.required
    nearest = min(ends, key=lambda end: abs(end - ideal))
    if not low <= ideal <= high or nearest == ideal:
        return math.nan
    return estimate.growth(bound=nearest, alpha=tail, ideal=ideal, miss=miss)


# What group_fairness calls the share of the rows that are in small groups; its detail names the groups.
SMALL_GROUP_SHARE = "small_group_share"
_NO_MATTER = 0.02


def groups_left_out(report: AuditReport) -> list[str]:
    """A sentence for each feature, or combination of features, with groups too small to be compared by themselves."""
    return [
        f"By {' x '.join(f.sensitive)}, "
        f"{f'{number_text.percent(f.value)} of the rows are in ' if f.value else ''}{f.detail}."
        for f in report.findings
        if f.metric == SMALL_GROUP_SHARE and f.detail
    ]


def uncompared_share(report: AuditReport) -> float:
    """The largest share of the rows in groups that no number compares; 0 if it is too small to say so in a headline."""
    shares = [f.value for f in report.findings if f.metric == SMALL_GROUP_SHARE and f.value is not None]
    largest = max(shares, default=0.0)
    return largest if largest > _NO_MATTER else 0.0


def hidden_gradients(report: AuditReport) -> list[str]:
    """Sentences on each way in which a model hides its gradient from an attack, with the affected numbers."""
    found: dict[str, list[str]] = {}
    for f in report.findings:
        if f.vacuous.startswith(HIDDEN) and f.metric is not None:
            found.setdefault(f.vacuous, []).append(f.metric)
    return [f"{', '.join(dict.fromkeys(metrics))}: {why}" for why, metrics in found.items()]
