"""What was measured, what was required, and the judgement that follows from the two and nothing else."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args

from pydantic import ConfigDict

from auditor.display import MOST_HEATMAPS, MOST_SWARMS, MOST_TEXTS, ColouredText, GradeTable, Heatmap, Swarm
from auditor.errors import ConfigError
from auditor.statistics.estimate import Exact, Undefined
from auditor.statistics.families import Multiplicity, adjusted_levels
from auditor.statistics.kinds import AnyEstimate
from auditor.statistics.planning import minimum_detectable_effect, n_required
from auditor.statistics.upper_bound import UpperBound
from auditor.suggest import did_you_mean

Pillar = Literal["fairness", "language", "attribution", "privacy", "robustness", "deepfake", "intake"]
Direction = Literal["at_most", "at_least", "within"]
FigureKind = Literal["rates", "bars", "curve", "roc", "forest", "text", "heatmap", "table", "beeswarm"]
DEFAULT_PROFILE = "auditor-default-1"


class Outcome(StrEnum):
    """The six things a finding can say; the first three are judgements."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_RUN = "NOT_RUN"
    NOT_APPLICABLE = "NOT_APPLICABLE"
    NOT_JUDGED = "NOT_JUDGED"


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line or set of bars of a figure: ``y`` against ``x`` (numbers or labels), with intervals where there are any.

    ``criterion``: where the requirement lies on the value axis for this series alone; ``criterion_label`` says it in
    words.
    """

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)

    name: str
    x: tuple[str | float, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    criterion: float | None = None
    criterion_label: str = ""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing as data: ``kind`` says how to draw it, ``alt`` what it shows, in words, ``caption`` how to read it.

    ``series`` are drawn by the kinds ``rates``, ``bars``, ``curve``, ``roc`` and ``forest``; each other kind has a
    field of its own: ``text`` shows ``texts``, ``heatmap`` ``heatmaps``, ``table`` ``table``, ``beeswarm`` ``swarms``.
    Raises ValueError where there is more of them than a report shows.
    """

    id: str
    probe: str
    kind: FigureKind
    title: str
    series: tuple[Series, ...]
    alt: str
    x_label: str = ""
    y_label: str = ""
    criterion: float | None = None
    caption: str = ""
    texts: tuple[ColouredText, ...] = ()
    heatmaps: tuple[Heatmap, ...] = ()
    table: GradeTable | None = None
    swarms: tuple[Swarm, ...] = ()

    def __post_init__(self) -> None:
        for name, n, most in (
            ("texts", len(self.texts), MOST_TEXTS),
            ("heatmaps", len(self.heatmaps), MOST_HEATMAPS),
            ("swarms", len(self.swarms), MOST_SWARMS),
        ):
            if n > most:
                raise ValueError(f"a figure shows at most {most} {name}, not {n}")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number with its uncertainty, and where it was taken; it judges nothing.

    ``metric``: the field's name in snake_case. ``ideal``: the value of a model without fault, None where none is
    better.
    ``sensitive``: the features a headline compares groups of. ``group``: the group a per-group number belongs to.
    ``at``: the other coordinates, such as ``{"feature": "age"}`` or ``{"noise": 0.1}``. ``too_few``: why the number may
    be shown but not judged, or "".
    """

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)

    metric: str
    estimate: AnyEstimate
    n_samples: int
    method: str = ""
    ideal: float | None = None
    sensitive: tuple[str, ...] = ()
    group: Mapping[str, str] = field(default_factory=dict)
    at: Mapping[str, str | float] = field(default_factory=dict)
    detail: str = ""
    too_few: str = ""
    n_needed: int | None = None
    figure: Figure | None = None


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """What a measurement is held to: ``bound`` for ``at_most`` and ``at_least``, ``(low, high)`` for ``within``.

    ``needs``: the input without which its probe does not measure it. ``built_in``: of a profile of this tool, which
    covers more than any one scan.
    """

    metric: str
    direction: Direction
    bound: float | tuple[float, float]
    source: str
    set_by: str
    set_at: str
    probe: str | None = None
    method: str | None = None
    sensitive: tuple[str, ...] | None = None
    group: Mapping[str, str] | None = None
    needs: str = ""
    built_in: bool = False

    def applies_to(self, probe: str, measurement: Measurement) -> bool:
        """Whether this is about that measurement; a per-group number is judged only where its group is named."""
        return (
            self.metric == measurement.metric
            and self.probe in (None, probe)
            and self.method in (None, measurement.method)
            and (self.sensitive is None or tuple(sorted(self.sensitive)) == tuple(sorted(measurement.sensitive)))
            and (dict(self.group) == dict(measurement.group) if self.group is not None else not measurement.group)
        )

    def describe(self) -> str:
        """The requirement in words, such as ``at most 0.1``."""
        if isinstance(self.bound, tuple):
            return f"within [{self.bound[0]:g}, {self.bound[1]:g}]"
        return f"{self.direction.replace('_', ' ')} {self.bound:g}"


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What became of one probe: its measurements, or the reason why there are none."""

    probe: str
    pillar: Pillar
    citation: str
    measurements: tuple[Measurement, ...] = ()
    not_run: str = ""
    not_applicable: str = ""
    duration_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A measurement held against a criterion. ``interval`` is two one-sided bounds at the level that decided it."""

    id: str
    probe: str
    pillar: Pillar
    citation: str
    outcome: Outcome
    measurement: Measurement | None = None
    criterion: Criterion | None = None
    interval: tuple[float, float] | None = None
    confidence: float | None = None
    p_fail: float | None = None
    p_pass: float | None = None
    minimum_detectable_effect: float | None = None
    n_required: int | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Family:
    """The error rate a scan promises: at most ``error_rate`` for any false FAIL, and for any false PASS, over ``m``."""

    error_rate: float = 0.05
    multiplicity: Multiplicity = "bonferroni"
    m: int = 0


# ---- judging -------------------------------------------------------------------------------------------------------


def _tests(measurement: Measurement, criterion: Criterion) -> tuple[float, float]:
    """p-values of "beyond the bound" (FAIL) and "within the bound" (PASS); ``within`` halves the level on each side.

    What may not be judged takes its share of the error rate and never uses it: 1 and 1.
    """
    estimate = measurement.estimate
    if measurement.too_few or isinstance(estimate, Undefined):
        return 1.0, 1.0
    if isinstance(criterion.bound, tuple):
        low, high = criterion.bound
        beyond = min(estimate.p_value(high, "greater"), estimate.p_value(low, "less"))
        inside = max(estimate.p_value(high, "at_most"), estimate.p_value(low, "at_least"))
    elif criterion.direction == "at_most":
        beyond, inside = (estimate.p_value(criterion.bound, side) for side in ("greater", "at_most"))
    else:
        beyond, inside = (estimate.p_value(criterion.bound, side) for side in ("less", "at_least"))
    sides = 2.0 if isinstance(criterion.bound, tuple) else 1.0
    # A value that does not exist is within nothing, however wide the bound; that the groups that do have rows lie
    # beyond it may still be shown.
    return min(1.0, sides * beyond), 1.0 if math.isnan(estimate.value) else min(1.0, sides * inside)


def empty_requirement(estimate: AnyEstimate, criterion: Criterion) -> str:
    """Why no value that the estimate can take would fail the criterion, or none would meet it; "" for a real one."""
    low, high = estimate.limits
    floor, ceiling = _required(criterion)
    within = f"this number lies within [{_number(low)}, {_number(high)}] whatever the model does"
    if floor <= low and high <= ceiling:
        return f"The requirement ({criterion.describe()}) could never fail: {within}. Set a bound inside that range."
    if ceiling < low or high < floor:
        return f"The requirement ({criterion.describe()}) could never be met: {within}. Set a bound inside that range."
    return ""


def _required(criterion: Criterion) -> tuple[float, float]:
    if isinstance(criterion.bound, tuple):
        return criterion.bound
    return (-math.inf, criterion.bound) if criterion.direction == "at_most" else (criterion.bound, math.inf)


def _tail(criterion: Criterion, level: float) -> float:
    return level / 2.0 if isinstance(criterion.bound, tuple) else level


def _decide(interval: tuple[float, float], criterion: Criterion) -> Outcome:
    low, high = interval
    floor, ceiling = _required(criterion)
    if low > ceiling or high < floor:
        return Outcome.FAIL
    return Outcome.PASS if floor <= low and high <= ceiling else Outcome.INCONCLUSIVE


def _bounds_to_plan_for(criterion: Criterion, ideal: float) -> tuple[float, int]:
    """The bound nearest to the ideal value and the sign of "beyond" there."""
    if isinstance(criterion.bound, tuple):
        low, high = criterion.bound
        return (high, 1) if abs(high - ideal) <= abs(low - ideal) else (low, -1)
    return criterion.bound, 1 if criterion.direction == "at_most" else -1


def _number(x: float) -> str:
    # Prices and the like: three digits would be an exponent.
    return f"{float(f'{x:.3g}'):,.0f}" if 1e3 <= abs(x) < 1e9 else f"{x:.3g}"


def _judged(result: ProbeResult, measurement: Measurement, criterion: Criterion, fail: float, ok: float) -> Finding:
    p_fail, p_pass = _tests(measurement, criterion)
    estimate = measurement.estimate
    judgeable = not (measurement.too_few or isinstance(estimate, Undefined))
    at_fail, at_pass = estimate.bounds(_tail(criterion, fail)), estimate.bounds(_tail(criterion, ok))
    # Under Holm the two tests may stand at different levels; the stricter one shows neither, so its interval says so.
    outcome, level = Outcome.INCONCLUSIVE, min(fail, ok)
    if judgeable and _decide(at_fail, criterion) is Outcome.FAIL:
        outcome, level = Outcome.FAIL, fail
    elif judgeable and not math.isnan(estimate.value) and _decide(at_pass, criterion) is Outcome.PASS:
        outcome, level = Outcome.PASS, ok
    interval = at_fail if level == fail else at_pass
    effect, needed, reason = None, None, ""
    if isinstance(estimate, Undefined) and (estimate.failed or estimate.inapplicable):
        outcome, reason = Outcome.NOT_RUN if estimate.failed else Outcome.NOT_APPLICABLE, estimate.reason
    elif measurement.too_few:
        needed, reason = measurement.n_needed, measurement.too_few
    elif not math.isnan(estimate.value) and (empty := empty_requirement(estimate, criterion)):
        outcome, reason = Outcome.NOT_RUN, empty
    elif outcome is Outcome.INCONCLUSIVE:
        effect, needed, reason = _what_it_would_take(measurement, criterion, level, interval)
    else:
        where = "outside" if outcome is Outcome.FAIL else "inside"
        reason = (
            f"The whole interval [{_number(interval[0])}, {_number(interval[1])}] lies {where} what is required "
            f"({criterion.describe()})."
        )
    return Finding(
        id="",
        probe=result.probe,
        pillar=result.pillar,
        citation=result.citation,
        outcome=outcome,
        measurement=measurement,
        criterion=criterion,
        interval=interval,
        confidence=1.0 - 2.0 * _tail(criterion, level),
        p_fail=p_fail if judgeable else None,
        p_pass=p_pass if judgeable else None,
        minimum_detectable_effect=effect,
        n_required=needed,
        reason=reason,
    )


def _what_it_would_take(
    measurement: Measurement, criterion: Criterion, level: float, interval: tuple[float, float]
) -> tuple[float | None, int | None, str]:
    estimate = measurement.estimate
    if math.isnan(estimate.value):
        detail = getattr(estimate, "reason", "") or measurement.detail
        return None, None, f"Undefined for these data: {detail or 'a rate has no rows to be taken over (0/0)'}."
    ideal = measurement.ideal
    if ideal is None:
        return None, None, f"The interval holds the bound ({criterion.describe()})."
    spans = f"The interval [{_number(interval[0])}, {_number(interval[1])}] spans the bound ({criterion.describe()})."
    if _decide((ideal, ideal), criterion) is Outcome.FAIL:
        return None, None, f"{spans} The ideal value itself, {_number(ideal)}, does not meet this requirement."
    bound, sign = _bounds_to_plan_for(criterion, ideal)
    tail = _tail(criterion, level)
    effect = minimum_detectable_effect(estimate, bound=bound, alpha=tail, ideal=ideal, sign=sign)
    needed = n_required(
        estimate,
        bound=bound,
        alpha=tail,
        ideal=ideal,
        n=measurement.n_samples,
        sides=2 if isinstance(criterion.bound, tuple) else 1,
    )
    needed = measurement.n_needed if needed is None else needed
    unknown = math.isnan(effect)
    in_unit_range = ideal in (0.0, 1.0) and not estimate.unbounded
    beyond_reach = not math.isfinite(effect) or (in_unit_range and not 0.0 <= effect <= 1.0)
    reason = spans
    if not beyond_reach:
        word = "above" if sign > 0 else "below"
        reason += f" At this size only a value {word} {_number(effect)} would be found beyond it with 80 % power."
    elif not unknown:
        reason += " At this size no value would be found beyond it with 80 % power."
    elif needed is None:
        reason += f" {estimate.unplanned}"
    if needed is not None and needed > measurement.n_samples:
        reason += f" A model at the ideal value would need about {needed:,} rows like these to PASS."
    elif needed is not None:
        reason += " The size would do for a model at the ideal value: this one lies too near the bound to tell."
    return None if beyond_reach else effect, needed, reason


def _not_measured(result: ProbeResult, outcome: Outcome, reason: str) -> Finding:
    return Finding(
        id="", probe=result.probe, pillar=result.pillar, citation=result.citation, outcome=outcome, reason=reason
    )


def judge(
    results: Sequence[ProbeResult], criteria: Sequence[Criterion], family: Family | None = None
) -> tuple[list[Finding], Family]:
    """Hold every measurement against its criteria with one promise for the whole scan.

    Over the m judgements, the probability of any false FAIL is at most ``error_rate``, and so is that of any false PASS
    (``bonferroni``, ``holm``); m counts pairs of measurement and criterion and is fixed by which numbers exist, never
    by their values. Each judgement is two one-sided tests: FAIL where the value is shown to lie beyond the bound, PASS
    where it is shown to lie within it, else INCONCLUSIVE. The printed interval is built of the two one-sided bounds at
    the level that decided, so interval and outcome agree. Returns the findings and the family with its m.
    """
    family = family or Family()
    pairs = [
        (result, measurement, criterion)
        for result in results
        for measurement in result.measurements
        for criterion in criteria
        if criterion.applies_to(result.probe, measurement)
    ]
    sampled = [pair for pair in pairs if not _takes_no_share(pair[1].estimate, pair[2])]
    tests = [_tests(measurement, criterion) for _, measurement, criterion in sampled]
    fail = adjusted_levels([t[0] for t in tests], family.error_rate, family.multiplicity)
    ok = adjusted_levels([t[1] for t in tests], family.error_rate, family.multiplicity)
    levels = {(id(pair[1]), id(pair[2])): (fail[i], ok[i]) for i, pair in enumerate(sampled)}
    certain = (family.error_rate, family.error_rate)
    judged = {
        key: _judged(result, measurement, criterion, *levels.get(key, certain))
        for result, measurement, criterion in pairs
        for key in [(id(measurement), id(criterion))]
    }
    display_level = family.error_rate / max(len(sampled), 1) if family.multiplicity != "none" else family.error_rate
    findings: list[Finding] = []
    for result in results:
        if result.not_applicable:
            findings.append(_not_measured(result, Outcome.NOT_APPLICABLE, result.not_applicable))
        for measurement in result.measurements:
            own = [judged[key] for c in criteria if (key := (id(measurement), id(c))) in judged]
            findings.extend(own or [_unjudged(result, measurement, display_level)])
        if result.not_run:
            findings.append(_not_measured(result, Outcome.NOT_RUN, result.not_run))
        elif not result.not_applicable and not result.measurements:
            findings.append(_not_measured(result, Outcome.NOT_RUN, "The probe ended without a measurement."))
    ran = {result.probe for result in results if result.measurements}
    findings.extend(_never_measured(criteria, {id(criterion) for _, _, criterion in pairs}, ran))
    return _with_ids(findings), replace(family, m=len(sampled))


def _takes_no_share(estimate: AnyEstimate, criterion: Criterion) -> bool:
    """Whether it cannot be judged wrongly: known without sampling error, not applicable, or held to nothing."""
    if isinstance(estimate, Undefined):
        return estimate.inapplicable
    return isinstance(estimate, Exact | UpperBound) or bool(empty_requirement(estimate, criterion))


def _unjudged(result: ProbeResult, measurement: Measurement, level: float) -> Finding:
    estimate = measurement.estimate
    outcome, reason = Outcome.NOT_JUDGED, ""
    if isinstance(estimate, Undefined):
        # What could not be measured is said aloud, and a model that failed is no matter of rows.
        group = Outcome.NOT_JUDGED if measurement.group else Outcome.INCONCLUSIVE
        outcome = Outcome.NOT_RUN if estimate.failed else Outcome.NOT_APPLICABLE if estimate.inapplicable else group
        own_words = estimate.failed or estimate.inapplicable
        reason = estimate.reason if own_words else f"Undefined for these data: {estimate.reason}"
    elif math.isnan(estimate.value):
        # A faultless model's ratios of error rates are 0/0, and nobody asked about them.
        reason = "Undefined for these data: no rows (0/0)"
    return Finding(
        id="",
        probe=result.probe,
        pillar=result.pillar,
        citation=result.citation,
        outcome=outcome,
        measurement=measurement,
        interval=estimate.bounds(level),
        confidence=1.0 - 2.0 * level,
        reason=measurement.too_few or reason,
        n_required=measurement.n_needed,
    )


def _never_measured(criteria: Iterable[Criterion], used: set[int], ran: set[str]) -> list[Finding]:
    """A criterion somebody set and nobody measured is no pass; the built-in profile covers more than one scan can."""
    found = []
    for criterion in criteria:
        if id(criterion) in used:
            continue
        if not criterion.built_in:
            outcome = Outcome.NOT_RUN
            reason = f"No probe of this scan measured {criterion.metric!r}, which must be {criterion.describe()}."
        elif criterion.needs and criterion.probe in ran:
            outcome = Outcome.NOT_APPLICABLE
            reason = f"{criterion.metric} was not measured: it needs {criterion.needs}."
        else:
            continue
        found.append(
            Finding(
                id="",
                probe=criterion.probe or "criteria",
                pillar="intake",
                citation="",
                outcome=outcome,
                criterion=criterion,
                reason=reason,
            )
        )
    return found


def _with_ids(findings: Sequence[Finding]) -> list[Finding]:
    taken: set[str] = set()
    named: list[Finding] = []
    for finding in findings:
        m = finding.measurement
        parts = [finding.probe]
        if m is not None:
            parts += [m.method, m.metric, "+".join(m.sensitive)]
            parts += [f"{k}={v}" for k, v in m.group.items()] + [f"{k}={v}" for k, v in m.at.items()]
        elif finding.criterion is not None:
            parts += ["criterion", finding.criterion.metric]
        base = "/".join(p for p in parts if p)
        name, copy = base, 1
        while name in taken:
            copy += 1
            name = f"{base}#{copy}"
        taken.add(name)
        named.append(replace(finding, id=name))
    return named


# ---- criteria files ------------------------------------------------------------------------------------------------

_KEYS = (
    "metric", "direction", "bound", "source", "set_by", "set_at", "probe", "method", "sensitive", "group", "needs",
)  # fmt: skip


def parse_criterion(
    entry: object, where: str, defaults: Mapping[str, str] | None = None, *, built_in: bool = False
) -> Criterion:
    """A :class:`Criterion` from one ``[[criteria]]`` table; ``where`` names it in errors. Raises ConfigError."""
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: criteria must be [[criteria]] tables, not {entry!r}.")
    for key in entry:
        if key not in _KEYS:
            raise ConfigError(f"{where}: unknown key {key!r}{did_you_mean(key, _KEYS)}.")
    values: dict[str, object] = {"source": where, "set_by": "not stated", "set_at": "not stated"}
    values |= dict(defaults or {}) | dict(entry)
    metric, direction, bound = values.get("metric"), values.get("direction"), values.get("bound")
    if not isinstance(metric, str) or not metric:
        raise ConfigError(f'{where}: a criterion needs metric = "NAME".')
    if direction not in ("at_most", "at_least", "within"):
        raise ConfigError(f"{where}: direction must be one of {', '.join(get_args(Direction))}, not {direction!r}.")
    numbers = list(bound) if isinstance(bound, (list, tuple)) else [bound]
    if any(isinstance(b, bool) or not isinstance(b, (int, float)) or not math.isfinite(b) for b in numbers):
        raise ConfigError(f"{where}: bound must be a number, or [low, high] for within, not {bound!r}.")
    limits = [float(b) for b in numbers if isinstance(b, (int, float))]
    if (len(limits) == 2) != (direction == "within") or (len(limits) == 2 and not limits[0] < limits[1]):
        raise ConfigError(f"{where}: within takes bound = [low, high] with low < high; the others take one number.")
    sensitive, group = values.get("sensitive"), values.get("group")
    if group is not None and not isinstance(group, Mapping):
        raise ConfigError(f'{where}: group must be a table, such as group = {{sex = "female"}}, not {group!r}.')
    if not isinstance(sensitive, (str, list, tuple, type(None))):
        raise ConfigError(f"{where}: sensitive must be a name or a list of names, not {sensitive!r}.")
    return Criterion(
        metric=metric.replace("-", "_"),
        direction=direction,
        bound=(limits[0], limits[1]) if len(limits) == 2 else limits[0],
        source=str(values["source"]),
        set_by=str(values["set_by"]),
        set_at=str(values["set_at"]),
        probe=None if values.get("probe") is None else str(values["probe"]).replace("-", "_"),
        method=None if values.get("method") is None else str(values["method"]).replace("-", "_"),
        sensitive=(
            None
            if sensitive is None
            else tuple(str(s) for s in sensitive)
            if isinstance(sensitive, (list, tuple))
            else (str(sensitive),)
        ),
        group=None if group is None else {str(k): str(v) for k, v in group.items()},
        needs=str(values.get("needs", "")),
        built_in=built_in,
    )


def load_criteria(policy: str | Path = DEFAULT_PROFILE) -> list[Criterion]:
    """Criteria of a built-in profile by name, or of a TOML file with ``[[criteria]]`` tables. Raises ConfigError."""
    built_in = files("auditor") / "profiles" / f"{policy}.toml"
    try:
        if built_in.is_file():
            text, name = built_in.read_text(encoding="utf-8"), str(policy)
        else:
            text, name = Path(policy).read_text(encoding="utf-8"), Path(policy).name
        content = tomllib.loads(text)
    except FileNotFoundError:
        known = sorted(
            p.name.removesuffix(".toml") for p in (files("auditor") / "profiles").iterdir() if p.name.endswith(".toml")
        )
        raise ConfigError(
            f"There is no policy {str(policy)!r}: neither a file nor a built-in profile ({', '.join(known)})."
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"Policy {str(policy)!r} cannot be read as TOML: {error}.") from None
    entries = content.pop("criteria", None)
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"Policy {name!r} has no [[criteria]] table.")
    defaults = {k: str(v) for k, v in content.items() if k in ("set_by", "set_at")} | {"source": name}
    own = built_in.is_file()
    return [parse_criterion(e, f"{name}, criterion {i}", defaults, built_in=own) for i, e in enumerate(entries, 1)]
