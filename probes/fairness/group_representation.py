"""Representation: the shares of groups among the training rows, the smallest group, and missing values by group."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import ConfigError, NotApplicableError
from auditor.core.rows import BoolArray, IntArray
from auditor.data.group_counts import MISSING
from auditor.data.preprocessing import label_name
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.planted.twin_costs import Forecast
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.estimate import POWER, Exact
from auditor.statistics.groups import LargestDisparity, WorstDifference
from auditor.statistics.rates import Proportion, RateTable, WeightedSum
from probes.probe_inputs import training_rows
from probes.twins import apart, no_plant, of_groups, two_groups

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.data.group_counts import CodedGroups
    from auditor.models.audited_model import AuditedModel

# What the tool's own profile allows of a gap between groups, and the level of one question.
_GAP, _LEVEL = 0.10, 0.05
_MOST_GROUPS = 100
_MOST_COLUMNS = 50
_SHARE = "share"
_ANY_COLUMN = "any column"
# Rounded shares of a table need not add up to 1 to the last digit.
_ROUNDING = 0.005


class Representation(BaseProbe):
    """The share of each group among the training rows, and how values are missing by group and by label.

    Of each sensitive feature, and of all of them together where they have at most 100 groups:

    - ``group_share``: With Clopper-Pearson bounds: the rows are a sample of those that will come.
    - ``smallest_group_rows``: The rows of the smallest group; the detail names it.
    - ``rows_needed``: For ``gap``: how many rows like these, in all, show with 80 % probability that selection rates
      (``demographic_parity_difference``) or error rates (``equalized_odds_difference``) of groups differ by at most
      0.10, if they do not differ, at 5 % for one question. Selection and error rates are taken to be what the share of
      the favourable label is, or, without one, one half, which takes most rows.
    - ``representation_shortfall``: With ``shares``: the largest amount by which a group's share is below the one that
      it should have. Bounds are of all groups together.

    Of each sensitive feature, and of the labels (``by: label``), ``missing_rate_difference``: over every column with
    missing values, and over rows with any missing value, the largest difference between two groups of the share of rows
    without a value, from exact tests of all pairs. Whoever fills such values in hides whom they were missing of.
    ``missing_rate``: of each group of a sensitive feature, the share of its rows with any missing value.

    shares: path of a table with one column for each sensitive feature, and ``share``; each row names a group, and the
    rows that name groups of the same features must add up to 1. A group that no row is of counts with a share of 0.

    Raises NotApplicableError where the training rows have neither groups nor labels.

    Sources: Clopper and Pearson, Biometrika 26 (1934); Mehrabi et al., ACM Comput. Surv. 54 (2021), for representation
    bias; Fernando et al., Int. J. Intell. Syst. 36 (2021), for missing values by group.
    """

    name = "representation"
    pillar = "fairness"
    goal = "Who is among the training rows, and of whom are values missing?"
    citation = "Mehrabi et al., ACM Comput. Surv. 2021; Fernando et al., Int. J. Intell. Syst. 2021"
    methods = ("counts",)
    needs = (Need.TRAIN,)
    questions = (
        AuditQuestion(
            "missing_values",
            metrics=("missing_rate*",),
            form="points",
            headline=("missing_rate_difference",),
        ),
        AuditQuestion(
            "represented", metrics=("representation_shortfall",), form="points", headline=("representation_shortfall",)
        ),
        AuditQuestion("group_sizes"),
    )
    exact = {
        "smallest_group_rows": "every row is counted",
        "rows_needed": "it is computed from counts, and says what other rows would show",
    }
    forecast = Forecast(twin=0.013, number=0.0, million=0.4, most_rows=50_000, training_rows=True)
    untrusted_options = allow_untrusted(reads=("shares",))
    metrics = define_metrics(
        """
        group_share: share of the training rows that are of a group; [0, 1], no ideal; at 0.05 one row in 20 is of it;
          Mehrabi et al., ACM Comput. Surv. 2021
        smallest_group_rows: training rows of the smallest group; [0, inf), no ideal; below some hundred no rate of the
          group is known well; Mehrabi et al., ACM Comput. Surv. 2021
        rows_needed: rows that show a gap of at most 0.10 between groups without one, in a test with 80 % power; [0,
          inf), no ideal; where it is more than there are, the question will be INCONCLUSIVE; Cohen, Statistical Power
          Analysis, 1988
        representation_shortfall: largest amount by which a group's share is below the one that it should have; [0, 1],
          ideal 0; at 0.03 a group of 30 % is 27 % of the rows; Mehrabi et al., ACM Comput. Surv. 2021
        missing_rate: share of a group's training rows with a missing value in any column; [0, 1], no ideal; at 0.1 a
          value is missing of one row in 10; Fernando et al., Int. J. Intell. Syst. 2021
        missing_rate_difference: largest difference between groups of the share of rows without a value, over all
          columns; [0, 1], ideal 0; at 0.1 a value is missing of 10 rows in 100 more in one group than in another;
          Fernando et al., Int. J. Intell. Syst. 2021
        """
    )

    def __init__(self, *, shares: str | None = None) -> None:
        self.shares = shares
        self._stated: Mapping[tuple[str, ...], dict[tuple[str, ...], float]] | None = None

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on the training rows; the model is not called."""
        rows = training_rows(data)
        features = [] if rows.sensitive_features is None else list(map(str, rows.sensitive_features.columns))
        # Training rows without a column of groups are of none.
        features = [name for name in features if set(rows.groups(name).titles) != {MISSING}]
        labels = None if rows.y_true is None or not (rows.y_true >= 0).any() else rows.y_true
        if not features and labels is None:
            raise NotApplicableError("Needs groups or labels of the training rows: add --sensitive or --target COLUMN.")
        found: list[Measurement] = []
        for names in [*((name,) for name in features), *([tuple(features)] if len(features) > 1 else [])]:
            groups = rows.groups(*names)
            if len(groups.titles) <= _MOST_GROUPS:
                found += _sizes(names, groups, labels, rows.positive)
        if self.shares is not None:
            # Twins of the rows are held to the same table.
            self._stated = self._stated or _stated(self.shares, features)
            found += [_shortfall(names, own, rows) for names, own in self._stated.items()]
        columns = _missing(rows)
        for name in features if columns else ():
            groups = rows.groups(name)
            found += _missing_of(name, groups, columns[_ANY_COLUMN])
            found.append(_missing_by((name,), groups.codes, groups.titles, columns))
        if labels is not None and columns:
            found.append(_missing_by((), np.where(labels < 0, len(rows.classes), labels), rows.classes, columns))
        if not found:
            raise NotApplicableError("Needs groups of the training files: add --sensitive.")
        return found

    def measure_planted(
        self, model: AuditedModel, data: AuditData, measured: Measurement, value: float, rng: np.random.Generator
    ) -> list[Measurement]:
        """The measurements of a twin of the training rows in which the true value of one of them is known."""
        rows = replace(training_rows(data), is_member=None)
        if measured.metric == "missing_rate_difference":
            return self.measure(model, _with_missing(rows, measured, value, rng), rng)
        if measured.metric == "representation_shortfall" and self._stated:
            twin = _with_shares(rows, measured, self._stated[measured.sensitive], value, rng)
            return self.measure(model, twin, rng)
        raise no_plant(measured)


def _sizes(
    names: tuple[str, ...], groups: CodedGroups, labels: IntArray | None, positive: int | None
) -> Iterator[Measurement]:
    n = len(groups.codes)
    for level, size in zip(groups.levels, groups.sizes.tolist(), strict=True):
        group = dict(zip(names, level, strict=True))
        share = Proportion(successes=size, n=n)
        yield Measurement(metric="group_share", method="counts", estimate=share, n_samples=size, group=group)
    least = int(np.argmin(groups.sizes))
    yield Measurement(
        metric="smallest_group_rows",
        method="counts",
        estimate=Exact(known=float(groups.sizes[least])),
        n_samples=n,
        sensitive=names,
        ideal_when_same="nothing",
        detail=f"{groups.titles[least]}, of {len(groups.titles)} groups",
    )
    if len(groups.titles) > 1:
        yield from _needed(names, groups, labels, positive)


def _needed(
    names: tuple[str, ...], groups: CodedGroups, labels: IntArray | None, positive: int | None
) -> Iterator[Measurement]:
    """The rows that gaps of groups of these sizes will take."""
    n, k = len(groups.codes), len(groups.titles)
    share = 0.5 if labels is None or positive is None else float((labels == positive).mean())
    tables = {"demographic_parity_difference": [groups.sizes]}
    if labels is not None and len(np.unique(labels[labels >= 0])) == 2:
        own = [np.bincount(groups.codes[labels == label], minlength=k) for label in np.unique(labels[labels >= 0])]
        tables["equalized_odds_difference"] = own
    for gap, sizes in tables.items():
        # Twins of these rows have groups of the same sizes.
        times = _growth(tuple((tuple(np.rint(share * own).astype(int).tolist()), tuple(own.tolist())) for own in sizes))
        if math.isfinite(times):
            yield Measurement(
                metric="rows_needed",
                method="counts",
                estimate=Exact(known=float(math.ceil(times * n))),
                n_samples=n,
                sensitive=names,
                ideal_when_same="nothing",
                at={"gap": gap},
                detail=f"here are {n:,}",
            )


@lru_cache(maxsize=256)
def _growth(rates: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]) -> float:
    """How many times these rows show a gap within the limit; of each rate, cases and rows by group."""
    estimate = WorstDifference(tables=tuple(RateTable(rate="rate", successes=s, n=m) for s, m in rates))
    return estimate.growth(bound=_GAP, alpha=_LEVEL, ideal=0.0, miss=1.0 - POWER)


def _stated(path: str, features: Sequence[str]) -> Mapping[tuple[str, ...], dict[tuple[str, ...], float]]:
    """The shares that groups should have, by features. Raises ConfigError for a table that does not state them."""
    from auditor.loading.rows.table_files import open_table

    file = open_table(path, "table of shares")
    named = [name for name in file.columns if name != _SHARE]
    file.require([_SHARE])
    if unknown := sorted(set(named) - set(features)):
        raise ConfigError(f"{file.path.name}: {unknown[0]!r} is no sensitive feature: add --sensitive {unknown[0]}.")
    found: dict[tuple[str, ...], dict[tuple[str, ...], float]] = {}
    for row in file.read(list(file.columns), {}).to_pandas().to_dict("records"):
        own = {name: label_name(row[name]) for name in features if name in named and not _is_hole(row[name])}
        share = row[_SHARE]
        if not own or not isinstance(share, (int, float)) or not 0.0 <= share <= 1.0:
            raise ConfigError(f"{file.path.name}: each row needs a group and a share from 0 to 1.")
        shares = found.setdefault(tuple(own), {})
        if tuple(own.values()) in shares:
            raise ConfigError(f"{file.path.name}: the group {' x '.join(own.values())!r} stands there twice.")
        shares[tuple(own.values())] = float(share)
    for names, shares in found.items():
        if abs(sum(shares.values()) - 1.0) > _ROUNDING * len(shares):
            total = f"{sum(shares.values()):.4g}"
            raise ConfigError(f"{file.path.name}: the shares of {' x '.join(names)} add up to {total}, and not to 1.")
    return found


def _is_hole(value: Any) -> bool:
    return value is None or value != value or value == ""


def _shortfall(names: tuple[str, ...], shares: Mapping[tuple[str, ...], float], rows: AuditData) -> Measurement:
    """Groups that the table does not name should have no rows, and so none is short of them."""
    groups, n = rows.groups(*names), len(rows)
    sizes = dict(zip(groups.levels, groups.sizes.tolist(), strict=True))
    total = sum(shares.values())
    parts = {
        level: WeightedSum(
            weights=(-1.0,),
            table=RateTable(rate="share", successes=(sizes.get(level, 0),), n=(n,)),
            constant=shares.get(level, 0.0) / total,
        )
        for level in [*shares, *(level for level in groups.levels if level not in shares)]
    }
    worst = max(parts, key=lambda level: parts[level].value)
    return Measurement(
        metric="representation_shortfall",
        method="counts",
        estimate=LargestDisparity(parts=tuple(parts.values())),
        n_samples=n,
        ideal=0.0,
        sensitive=names,
        ideal_when_same="nothing",
        detail=f"{' x '.join(worst)}: {sizes.get(worst, 0):,} of {n:,} rows, and should be {parts[worst].constant:.3g}",
    )


def _missing(rows: AuditData) -> dict[str, BoolArray]:
    """(n,) where a value is missing, of any column and of those with most missing values; nothing of media."""
    import pandas as pd

    if isinstance(rows.X, pd.DataFrame):
        holes = rows.X.isna()
    elif rows.modality == "text":
        holes = pd.DataFrame({"text": [not str(text).strip() for text in rows.X]})
    elif rows.modality == "tabular" and rows.X.dtype.kind == "f":
        holes = pd.DataFrame(np.isnan(rows.X)).rename(columns=str)
    else:
        return {_ANY_COLUMN: np.zeros(len(rows), bool)} if rows.modality == "tabular" else {}
    counts = holes.sum().sort_values(ascending=False, kind="stable")
    most = [name for name, n in counts.items() if n][:_MOST_COLUMNS]
    return {_ANY_COLUMN: holes.any(axis=1).to_numpy(), **{str(name): holes[name].to_numpy() for name in most}}


def _missing_of(name: str, groups: CodedGroups, holes: BoolArray) -> Iterator[Measurement]:
    counts = np.bincount(groups.codes[holes], minlength=len(groups.titles))
    if len(groups.titles) <= _MOST_GROUPS:
        for title, k, n in zip(groups.titles, counts.tolist(), groups.sizes.tolist(), strict=True):
            rate = Proportion(successes=k, n=n)
            yield Measurement(metric="missing_rate", method="counts", estimate=rate, n_samples=n, group={name: title})


def _missing_by(
    names: tuple[str, ...], codes: IntArray, titles: Sequence[str], columns: Mapping[str, BoolArray]
) -> Measurement:
    k = len(titles)
    sizes = np.bincount(codes, minlength=k)[:k]
    here = np.flatnonzero(sizes)
    counts = {name: np.bincount(codes[holes], minlength=k)[:k] for name, holes in columns.items()}
    gaps = {name: np.ptp(own[here] / sizes[here]) for name, own in counts.items()}
    worst = max(gaps, key=lambda name: gaps[name])
    rates = (counts[worst][here] / sizes[here]).tolist()
    shown = sorted(zip(rates, (titles[int(i)] for i in here), strict=True), reverse=True)
    return Measurement(
        metric="missing_rate_difference",
        method="counts",
        estimate=WorstDifference(
            tables=tuple(
                RateTable(rate=f"missing_{name}"[:200], successes=own[here].tolist(), n=sizes[here].tolist())
                for name, own in counts.items()
            )
        ),
        n_samples=int(sizes.sum()),
        ideal=0.0,
        sensitive=names,
        ideal_when_same="nothing",
        smallest=int(sizes[here].min()),
        at={} if names else {"by": "label"},
        too_few="" if here.size > 1 else "There is one group alone.",
        detail=f"{worst}: {shown[0][0]:.1%} of {shown[0][1]}, {shown[-1][0]:.1%} of {shown[-1][1]}",
    )


# ---- twins -----------------------------------------------------------------------------------------------------------


def _with_missing(rows: AuditData, measured: Measurement, value: float, rng: np.random.Generator) -> AuditData:
    """Rows with as many missing values in each column, of anybody, but for one column: there two groups differ."""
    import pandas as pd

    holes = {name: mask for name, mask in _missing(rows).items() if name != _ANY_COLUMN and mask.any()}
    if not holes:
        raise NotApplicableError("No value is missing, so that it is not known in which columns one could be.")
    if measured.sensitive:
        codes, (low, high) = rows.groups(*measured.sensitive).codes, two_groups(rows, measured, rng)
    else:
        assert rows.y_true is not None
        codes = np.where(rows.y_true < 0, len(rows.classes), rows.y_true)
        low, high = rng.choice(np.unique(codes), 2, replace=False).tolist()
    chosen = str(rng.choice(sorted(holes)))
    for name, mask in holes.items():
        rate = float(mask.mean())
        chance = of_groups(codes, low, high, apart(rate, value, ratio=False)) if name == chosen else rate
        holes[name] = rng.random(len(rows)) < chance
    if rows.modality == "text":
        return replace(rows, X=np.where(holes["text"], "", rows.X))
    frame = pd.DataFrame(rows.X, copy=False) if isinstance(rows.X, pd.DataFrame) else pd.DataFrame(rows.X.astype(float))
    for i, name in enumerate(map(str, frame.columns)):
        if name in holes:
            frame.isetitem(i, np.where(holes[name], np.nan, 1.0))
    return replace(rows, X=frame)


def _with_shares(
    rows: AuditData,
    measured: Measurement,
    stated: Mapping[tuple[str, ...], float],
    value: float,
    rng: np.random.Generator,
) -> AuditData:
    """As many rows of groups with the stated shares, one of them less ``value``, which the others have."""
    levels, shares = list(stated), np.asarray(list(stated.values())) / sum(stated.values())
    possible = np.flatnonzero(shares >= value)
    if not possible.size or len(levels) < 2:
        raise NotApplicableError(f"No group has a share of {value:.3g}, so that it could be short of so much.")
    short = int(rng.choice(possible))
    left = np.where(np.arange(shares.size) == short, 0.0, shares)
    shares = shares + value * left / left.sum()
    shares[short] -= value
    drawn = rng.choice(len(levels), len(rows), p=shares / shares.sum())
    assert rows.sensitive_features is not None
    columns = {
        name: np.asarray([level[i] for level in levels], object)[drawn] for i, name in enumerate(measured.sensitive)
    }
    return replace(rows, sensitive_features=rows.sensitive_features.assign(**columns))
