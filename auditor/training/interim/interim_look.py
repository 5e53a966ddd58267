"""One interim look at a model during training."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from auditor.judging.budgets import Family
from auditor.judging.judgement import Judgement
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.judging.training_looks import LookRecord

# Ways of measuring that say nothing beyond the metric's own name.
_PLAIN = ("", "between_groups")
_OTHERS = re.compile(r"[^A-Za-z0-9_\-. ]")


@dataclass(frozen=True, kw_only=True)
class Peek:
    """The result of a look: ``at`` counts epochs or steps, ``error_rate`` is the level of its judgements.

    ``look``: its number in the plan, those that were left out counted; 0 of the closing one.
    ``judged``: whether it was held to the criteria; what lies beyond the plan, or was spent before, is not.
    ``weights``: a digest of the network's parameters and buffers, "" of what is no network. ``faults``: what went wrong
    in taking it, where anything did; the probes it concerns are NOT_RUN. ``family``: as it was judged.
    """

    at: float
    results: tuple[ProbeResult, ...]
    findings: tuple[Judgement, ...]
    error_rate: float
    seconds: float
    look: int = 0
    judged: bool = True
    weights: str = ""
    faults: tuple[str, ...] = ()
    family: Family = field(default_factory=Family)

    @property
    def failures(self) -> tuple[Judgement, ...]:
        """Judgements significantly beyond their limits."""
        return tuple(f for f in self.findings if f.outcome is Outcome.FAIL)

    @property
    def record(self) -> LookRecord:
        """The look's record for a report."""
        failed = tuple(dict.fromkeys(f.measurement.metric for f in self.failures if f.measurement))
        return LookRecord(
            look=self.look, at=self.at, error_rate=self.error_rate, judged=self.judged, weights=self.weights,
            failed=failed,
        )  # fmt: skip

    @property
    def settled(self) -> bool:
        """Whether something was judged, and every requested probe ran."""
        outcomes = {f.outcome for f in self.findings}
        return bool(outcomes & {Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE}) and Outcome.NOT_RUN not in outcomes

    @property
    def has_passed(self) -> bool:
        """Whether something was judged and all of it passed; undecided numbers and probes not run are no pass."""
        judged = [f.outcome for f in self.findings if f.outcome not in (Outcome.NOT_JUDGED, Outcome.NOT_APPLICABLE)]
        return bool(judged) and all(outcome is Outcome.PASS for outcome in judged)


def metric_name(probe: str, measurement: Measurement) -> str:
    """``audit/<probe>/<metric>``, then method, features, group and place, where there are any, such as ``sex.f``.

    Of letters, digits and ``_-. /`` only, which is what trackers take; whatever else a name holds is ``_``.
    """
    parts = ["audit", probe, measurement.metric]
    if measurement.method not in _PLAIN:
        parts.append(measurement.method)
    if measurement.sensitive:
        parts.append("-".join(measurement.sensitive))
    parts += ["-".join(f"{k}.{v}" for k, v in sorted(where.items())) for where in (measurement.group, measurement.at)]
    return "/".join(_OTHERS.sub("_", part) for part in parts if part)


def logged(results: Sequence[ProbeResult], findings: Sequence[Judgement]) -> dict[str, float]:
    """Every finite number by its name, its interval as ``/low`` and ``/high``, and the count of each outcome."""
    numbers = {
        metric_name(result.probe, m): float(m.estimate.value)
        for result in results
        for m in result.measurements
        if math.isfinite(m.estimate.value)
    }
    for finding in findings:
        if finding.measurement is not None and finding.interval is not None:
            name = metric_name(finding.probe, finding.measurement)
            ends = zip(("low", "high"), finding.interval, strict=True)
            numbers |= {f"{name}/{end}": float(value) for end, value in ends if math.isfinite(value)}
    counts = {
        f"audit/outcomes/{outcome.value.lower()}": float(sum(f.outcome is outcome for f in findings))
        for outcome in Outcome
    }
    return numbers | counts
