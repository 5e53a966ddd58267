"""The record of interim looks, computed from their measurements without the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from auditor.judging.budgets import Family
from auditor.judging.criterion import Criterion
from auditor.judging.judgement import Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, ProbeResult, define_metrics, select_definitions
from auditor.judging.training_looks import LookRecord, TrainingRecord
from auditor.report.drawing.figures import distinct
from auditor.report.record.audit_report import AuditReport, DataRecord, Environment, ModelRecord
from auditor.run.run_audit import assemble
from auditor.statistics.estimate import Exact
from auditor.training.interim.interim_look import Peek, courses
from auditor.training.interim.interim_state import Run, Spending

NAME = "training_audit"
Decided = tuple[tuple[Judgement, ...], Family]
_NOT_ENDED = "the training has not ended, and no closing look was taken"
_MOST_PLACES = 10


@dataclass(frozen=True, kw_only=True)
class Looks:
    """The results of a training's looks so far; as :class:`~auditor.judging.training_looks.TrainingRecord`.

    ``faults``: what went wrong, in words, "" where nothing did. ``costs``: what audits were kept to and took, in words.
    """

    run: Run
    unit: Literal["epoch", "step"]
    criteria: tuple[Criterion, ...]
    spending: Spending | None
    peeks: tuple[Peek, ...]
    left_out: tuple[float, ...] = ()
    resumed_after: tuple[int, ...] = ()
    spent: tuple[LookRecord, ...] = ()
    faults: str = ""
    costs: str = ""


@dataclass(frozen=True, kw_only=True)
class Last:
    """The look of a record: its results, and the epoch or step, None for the finished model's own.

    ``closing``: where it is the last one; None while the training goes on. ``judged``: whether it was.
    """

    results: tuple[ProbeResult, ...]
    place: float | None
    judged: bool
    closing: LookRecord | None = None


def judged_look(
    results: Sequence[ProbeResult], criteria: Sequence[Criterion], level: float, error_rate: float, *, is_judged: bool
) -> Decided:
    """A look judged by the criteria at its level; a look without judging at the run's ``error_rate``, by none."""
    findings, family = judge(
        list(results), criteria if is_judged else (), Family(error_rate=level if is_judged else error_rate)
    )
    return tuple(findings), family


def record_of_looks(
    looks: Looks,
    last: Last,
    judgement: Decided,
    *,
    model: ModelRecord,
    data: DataRecord,
    environment: Environment,
    duration_s: float,
) -> AuditReport:
    """The report of the last look, closing or not, with the course of all looks."""
    faults = "; ".join(said for said in ("" if last.closing else _NOT_ENDED, looks.faults) if said)
    own = of_the_looks(NAME, _alarms(looks, last.place), faults)
    report = assemble(
        [own, *last.results],
        looks.criteria if last.judged else (),
        model=model,
        data=data,
        environment=environment,
        duration_s=duration_s,
        judgements=([*judge([own], ())[0], *judgement[0]], judgement[1]),
    )
    closing = last.closing
    if closing is not None:
        failed = tuple(dict.fromkeys(f.metric for f in report.findings if f.outcome == "FAIL" and f.metric))
        closing = closing.model_copy(update={"failed": failed})
    training = TrainingRecord(
        run=looks.run.digest,
        unit=looks.unit,
        planned=None if looks.spending is None else looks.spending.n_peeks,
        looks=tuple(peek.record for peek in looks.peeks),
        left_out=looks.left_out,
        closing=closing,
        resumed_after=looks.resumed_after,
        spent=looks.spent,
    )
    drawn = distinct(courses(looks.peeks, looks.unit, looks.spending))
    return report.model_copy(update={"figures": (*drawn, *report.figures), "training": training})


ALARM_METRICS = define_metrics(
    """
    alarms: looks while the model learned at which a criterion was shown to be violated; [0, inf), ideal 0; each is one
      look at a model that is not finished, within the error rate that all looks share; Dunn, J. Am. Stat. Assoc. 56
      (1961)
    """
)


def of_the_looks(name: str, alarms: Measurement, faults: str) -> ProbeResult:
    """The result on the looks themselves, and the reason why they are no complete audit, or ""."""
    definitions = select_definitions(name, "", ALARM_METRICS, [alarms.metric])
    return ProbeResult(
        probe=name, pillar="intake", citation="", measurements=(alarms,), not_run=faults, definitions=definitions
    )


def _alarms(looks: Looks, place: float | None) -> Measurement:
    alarms = [p for p in looks.peeks if p.failures]
    earlier = [look for look in looks.spent if look.failed and look.look is not None]
    n, spending = len(looks.peeks), looks.spending
    words = [
        f"{n} looks" if n != 1 else "1 look",
        f"each judged at {spending.peek:.2g}" if spending is not None else "none judged: n_peeks not given",
    ]
    if spending is not None:
        rate = looks.run.error_rate
        words.append(f"the numbers below at {spending.closing:.2g}, of {rate:g} for the whole run")
    words.append(f"they are of {looks.unit} {place:g}" if place is not None else "they are of the final model")
    if alarms:
        words.append("alarms at " + ", ".join(f"{p.at:g}" for p in alarms[:_MOST_PLACES]))
    if earlier:
        words.append("before it was resumed alarms at " + ", ".join(f"{look.at:g}" for look in earlier[:_MOST_PLACES]))
    if looks.left_out:
        words.append(
            f"{len(looks.left_out)} were left out to keep audits {looks.costs}: "
            + ", ".join(f"{at:g}" for at in looks.left_out[:_MOST_PLACES])
            + (" ..." if len(looks.left_out) > _MOST_PLACES else "")
        )
    return Measurement(
        metric="alarms",
        estimate=Exact(known=float(len(alarms) + len(earlier))),
        n_samples=n,
        ideal=0.0,
        detail="; ".join(words),
    )
