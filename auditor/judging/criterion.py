"""A requirement on a number, with its source and date; criteria as written in files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from auditor.core.errors import ConfigError, did_you_mean
from auditor.core.files import LEFT_OUT, UNSAID, Closed
from auditor.judging.input_files import ObeyedFile, read_obeyed, shipped
from auditor.judging.measurement import Measurement
from auditor.judging.profiles import DEFAULT_PROFILE

Direction = Literal["at_most", "at_least", "within"]
# Of what needs no sample of rows, or is about an explanation's own arithmetic.
NO_BUDGET = "none"
# The largest error rate of one budget, and the least, below which nothing could be shown and all would be left open.
MOST_RATE, LEAST_RATE = 0.2, 1e-4
# Who set a bound, or when, where nobody says.
NOT_STATED = "not stated"
_BUDGET = r"[\w .-]{0,60}"


def required_range(direction: Direction, bound: float | tuple[float, float]) -> tuple[float, float]:
    """The values that meet a requirement: from, to."""
    if isinstance(bound, tuple):
        return bound
    return (-math.inf, bound) if direction == "at_most" else (bound, math.inf)


class CriterionRecord(Closed):
    """A requirement: a number, its source, its author and its date.

    ``at``: the coordinates that it is about, such as ``{"epsilon": 0.1}``, None for all. ``budget``: the error budget
    that it is judged in, "" for the pillar of the probe that measures it; ``rate``: that budget's error rate at
    ``--error-rate 0.05``, None for just that. ``weight``: its share of the budget beside those of others; ``primary``:
    whether it is one of those that nine tenths of the budget are for.
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
    group: dict[str, str] | None = None
    at: Annotated[dict[str, str | float] | None, UNSAID] = None
    budget: Annotated[str, LEFT_OUT] = ""
    rate: Annotated[float | None, UNSAID] = None
    weight: Annotated[float, Field(exclude_if=lambda weight: weight == 1.0)] = 1.0
    primary: Annotated[bool, LEFT_OUT] = False

    @property
    def required(self) -> tuple[float, float]:
        """The required range: from, to."""
        return required_range(self.direction, self.bound)

    @property
    def place(self) -> str:
        """The location of the requirement, such as ``at epsilon 0.1``; "" for anywhere."""
        named = (f"{k} {v if isinstance(v, str) else f'{v:g}'}" for k, v in (self.at or {}).items())
        return f"at {', '.join(named)}" if self.at else ""

    def describe(self) -> str:
        """The requirement in words, such as ``at most 0.1``."""
        if isinstance(self.bound, tuple):
            return f"within [{self.bound[0]:g}, {self.bound[1]:g}]"
        return f"{self.direction.replace('_', ' ')} {self.bound:g}"


class Criterion(CriterionRecord):
    """A requirement: ``bound`` for ``at_most`` and ``at_least``, ``(low, high)`` for ``within``.

    ``needs``: the input without which its probe does not measure it. ``built_in``: of a profile of this tool, which
    covers more than any one scan. ``if_rows_suffice``: whether it is held to nothing that has too few rows for a model
    at the ideal to PASS with 95 % probability, as far as that can be planned. None is part of the record.
    """

    needs: str = ""
    built_in: bool = False
    if_rows_suffice: Annotated[bool, LEFT_OUT] = False

    @property
    def record(self) -> CriterionRecord:
        """The criterion's record for a report."""
        return CriterionRecord.model_validate(self.model_dump(exclude={"needs", "built_in", "if_rows_suffice"}))

    def applies_to(self, probe: str, measurement: Measurement) -> bool:
        """Whether this is about that measurement.

        A per-group number is judged only where its group is named, a part of a whole only where its method is.
        """
        return (
            self.metric == measurement.metric
            and self.probe in (None, probe)
            and self.method in ((measurement.method,) if measurement.part else (None, measurement.method))
            and (self.sensitive is None or tuple(sorted(self.sensitive)) == tuple(sorted(measurement.sensitive)))
            and (self.group == dict(measurement.group) if self.group is not None else not measurement.group)
            and all(_same_place(measurement.at.get(name), place) for name, place in (self.at or {}).items())
            and not (self.if_rows_suffice and measurement.too_few)
        )


_KEYS = (
    "metric", "direction", "bound", "source", "set_by", "set_at", "probe", "method", "sensitive", "group", "at",
    "needs", "budget", "weight", "primary", "if_rows_suffice",
)  # fmt: skip


def _same_place(measured_value: str | float | None, criterion_value: str | float) -> bool:
    """Whether a coordinate is the one that was named: numbers agree as they are printed, 8 / 255 with 0.0314."""
    if isinstance(measured_value, (int, float)) and isinstance(criterion_value, (int, float)):
        return measured_value == criterion_value or f"{measured_value:.3g}" == f"{criterion_value:.3g}"
    return measured_value == criterion_value


def parse_criterion(
    entry: object,
    where: str,
    defaults: Mapping[str, str] | None = None,
    *,
    built_in: bool = False,
    budgets: Mapping[str, float] | None = None,
) -> Criterion:
    """A :class:`Criterion` from one ``[[criteria]]`` table; ``where`` names it in errors. Raises ConfigError.

    ``budgets``: error rates by the name of a budget, where the file states any.
    """
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: criteria must be [[criteria]] tables, not {entry!r}.")
    for key in entry:
        if key not in _KEYS:
            raise ConfigError(f"{where}: unknown key {key!r}{did_you_mean(key, _KEYS)}.")
    values: dict[str, object] = {"source": where, "set_by": NOT_STATED, "set_at": NOT_STATED}
    values |= dict(defaults or {}) | dict(entry)
    metric = values.get("metric")
    if not isinstance(metric, str) or not metric:
        raise ConfigError(f'{where}: a criterion needs metric = "NAME".')
    direction = _direction(values.get("direction"), where)
    bound = _bound(values.get("bound"), direction, where)
    group = _group(values.get("group"), where)
    at = _coordinates(values.get("at"), where)
    return Criterion(
        metric=metric.replace("-", "_"),
        direction=direction,
        bound=bound,
        source=str(values["source"]),
        set_by=str(values["set_by"]),
        set_at=str(values["set_at"]),
        probe=_identifier(values.get("probe")),
        method=_identifier(values.get("method")),
        sensitive=_sensitive(values.get("sensitive"), where),
        group=group,
        at=at,
        **_share(entry, where, budgets or {}, built_in=built_in),
        needs=str(values.get("needs", "")),
        built_in=built_in,
        if_rows_suffice=_flag(values, "if_rows_suffice", where),
    )


def _direction(value: object, where: str) -> Direction:
    if value not in ("at_most", "at_least", "within"):
        raise ConfigError(f"{where}: direction must be one of {', '.join(get_args(Direction))}, not {value!r}.")
    return value


def _bound(value: object, direction: Direction, where: str) -> float | tuple[float, float]:
    """One number, or low and high of ``within``."""
    two_sided = isinstance(value, (list, tuple))
    numbers = list(value) if isinstance(value, (list, tuple)) else [value]
    if any(isinstance(b, bool) or not isinstance(b, (int, float)) or not math.isfinite(b) for b in numbers):
        raise ConfigError(f"{where}: bound must be a number, or [low, high] for within, not {value!r}.")
    limits = [float(b) for b in numbers if isinstance(b, (int, float))]
    if two_sided != (direction == "within") or (two_sided and (len(limits) != 2 or not limits[0] < limits[1])):
        raise ConfigError(f"{where}: within takes bound = [low, high] with low < high; the others take one number.")
    return (limits[0], limits[1]) if len(limits) == 2 else limits[0]


def _group(value: object, where: str) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ConfigError(f'{where}: group must be a table, such as group = {{sex = "female"}}, not {value!r}.')
    return {str(k): str(v) for k, v in value.items()}


def _sensitive(value: object, where: str) -> tuple[str, ...] | None:
    """The sensitive features that a criterion is about, None for any."""
    if value is None:
        return None
    if not isinstance(value, (str, list, tuple)):
        raise ConfigError(f"{where}: sensitive must be a name or a list of names, not {value!r}.")
    return (value,) if isinstance(value, str) else tuple(str(s) for s in value)


def _identifier(value: object) -> str | None:
    """A name of a probe or a method as it is written in Python."""
    return None if value is None else str(value).replace("-", "_")


def _coordinates(value: object, where: str) -> dict[str, str | float] | None:
    """Where among a measurement's coordinates a criterion applies, None for anywhere."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"{where}: at must be a table, such as at = {{epsilon = 0.1}}, not {value!r}.")
    for name, place in value.items():
        number = isinstance(place, (int, float)) and not isinstance(place, bool) and math.isfinite(place)
        if not number and not isinstance(place, str):
            raise ConfigError(f"{where}: at names a number or a word for {name!r}, not {place!r}.")
    return {str(k): v if isinstance(v, str) else float(v) for k, v in value.items()}


def _share(entry: Mapping[str, object], where: str, budgets: Mapping[str, float], *, built_in: bool) -> dict[str, Any]:
    """The budget of an entry, its rate, and what it has of it."""
    budget, weight, primary = entry.get("budget", ""), entry.get("weight", 1.0), _flag(entry, "primary", where)
    if not isinstance(budget, str) or not re.fullmatch(_BUDGET, budget):
        raise ConfigError(f"{where}: budget must be the name of an error budget, not {budget!r}.")
    if budget == NO_BUDGET and not built_in:
        raise ConfigError(f"{where}: what is judged from samples has a budget: give budget another name than {budget}.")
    if budget and budgets and budget not in budgets:
        near = did_you_mean(budget, list(budgets)) or "."
        raise ConfigError(f"{where}: [budgets] states no error rate for {budget!r}{near}")
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 1e-3 <= weight <= 1e3:
        raise ConfigError(f"{where}: weight must be a number from 0.001 to 1,000, not {weight!r}.")
    return {"budget": budget, "rate": budgets.get(budget), "weight": float(weight), "primary": primary}


def _flag(entry: Mapping[str, object], key: str, where: str) -> bool:
    value = entry.get(key, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: {key} must be true or false, not {value!r}.")
    return value


def parse_budgets(table: object, where: str) -> dict[str, float]:
    """Error rates by budget from a file's ``[budgets]``. Raises ConfigError."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: budgets is a [budgets] table, such as fairness = 0.05 on a line below it.")
    for name, rate in table.items():
        if not re.fullmatch(_BUDGET, name):
            raise ConfigError(f"{where}: a budget's name is of letters and digits, not {name!r}.")
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not LEAST_RATE <= rate <= MOST_RATE:
            raise ConfigError(
                f"{where}: {name!r} must be an error rate from {LEAST_RATE:g} to {MOST_RATE:g}, not {rate!r}."
            )
    return {str(name): float(rate) for name, rate in table.items()}


def load_criteria(policy: str | Path = DEFAULT_PROFILE) -> list[Criterion]:
    """Criteria of a built-in profile by name, or of a TOML file with ``[[criteria]]`` tables. Raises ConfigError."""
    return criteria_in(shipped("profiles", str(policy), "criteria") or read_policy(policy))


def read_policy(policy: str | Path) -> ObeyedFile:
    """The file of criteria or of a rule pack. Raises ConfigError."""
    try:
        return read_obeyed(policy, "criteria")
    except FileNotFoundError:
        raise ConfigError(
            f"There is no policy {str(policy)!r}: neither a file nor a built-in profile ({', '.join(profile_names())})."
        ) from None
    except OSError as error:
        raise ConfigError(f"Policy {str(policy)!r} cannot be read: {error.strerror}.") from None


def criteria_in(file: ObeyedFile) -> list[Criterion]:
    """The criteria that a file's ``[[criteria]]`` tables state. Raises ConfigError."""
    return list(_shipped_criteria(file)) if file.origin == "shipped" else _parse_policy(file)


@lru_cache(maxsize=8)
def _shipped_criteria(file: ObeyedFile) -> tuple[Criterion, ...]:
    """What comes with the tool is asked for by every audit and every judgement of it."""
    return tuple(_parse_policy(file))


def _parse_policy(file: ObeyedFile) -> list[Criterion]:
    own = file.origin == "shipped"
    name = file.path if own else Path(file.path).name
    content = file.toml(f"Policy {file.path!r}")
    entries = content.pop("criteria", None)
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"Policy {name!r} has no [[criteria]] table.")
    defaults = {k: str(v) for k, v in content.items() if k in ("set_by", "set_at")} | {"source": name}
    budgets = parse_budgets(content.get("budgets", {}), name)
    return [
        parse_criterion(e, f"{name}, criterion {i}", defaults, built_in=own, budgets=budgets)
        for i, e in enumerate(entries, 1)
    ]


def profile_names() -> list[str]:
    """Names of the built-in profiles, which contain criteria but no controls."""
    return toml_names("profiles")


def toml_names(folder: str) -> list[str]:
    """Names, without their ending, of the TOML files in a folder of this package's data."""
    names = [file.name for file in (files("auditor.judging") / folder).iterdir()]
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))
