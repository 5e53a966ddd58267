"""Subgroup discovery: search one half of the rows for disadvantaged slices, confirm them on the other half."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, islice
from math import comb, isnan
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.files import Closed
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.bins import BinRule, bin_values, more_than
from auditor.data.group_counts import MISSING
from auditor.data.table_columns import texts_of
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rates import Difference
from auditor.statistics.significance_tests import ConfirmedCount
from auditor.training.task_executor import Tasks, lent_executor

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel


Combination = tuple[int, ...]
# The best of one combination that are kept.
_KEPT = 50
# Rows times combinations: of fewer the search takes seconds, and a task as much as it saves.
LONG, _OF_A_TASK = 1_000_000_000, 250_000_000


@dataclass(frozen=True, eq=False)
class Searched:
    """The input of a slice search.

    ``codes``: of each column, (n,) into ``sizes`` levels, of which the last is no condition where ``rests`` says
    so. ``pattern`` (n,): which of the patterns of (of, bad) over the rates a row has, ``digits`` (n_patterns,
    n_rates): what each says of a rate, 0 not of it, 1 of it, 2 bad. ``depth``: conditions at most; ``min_rows``:
    inside and outside of a slice.
    """

    codes: Sequence[IntArray]
    sizes: tuple[int, ...]
    rests: tuple[bool, ...]
    pattern: IntArray
    digits: IntArray
    depth: int
    min_rows: int

    @property
    def n_combinations(self) -> int:
        """The number of combinations of one to ``depth`` columns."""
        return sum(comb(len(self.sizes), d) for d in range(1, self.depth + 1))

    def combinations(self) -> Iterator[Combination]:
        """The combinations in the order for ties between slices: those with fewer conditions first."""
        return chain.from_iterable(combinations(range(len(self.sizes)), d) for d in range(1, self.depth + 1))


@dataclass(frozen=True, eq=False)
class Found:
    """The best slices of each combination, (k,) each: pooled z, the number of the combination, the cell, the rate."""

    z: FloatArray
    combination: IntArray
    cell: IntArray
    rate: IntArray


def search(searched: Searched) -> Found:
    """All slices with a worse rate inside than outside; independent of the executor.

    Raises what an executor raises.
    """
    n, executor = searched.n_combinations, lent_executor()
    work = n * len(searched.pattern)
    if executor is None or work < LONG:
        return _search_range(searched, 0, n)
    parts = np.array_split(np.arange(n), min(n, -(-work // _OF_A_TASK)))
    ranges = [(int(part[0]), int(part[-1]) + 1) for part in parts]
    found = {i: _unpack_result(result) for i, result in executor.results(search_tasks(searched, ranges))}
    return _concatenate([found[i] for i in range(len(ranges))])


def _search_range(searched: Searched, start: int, stop: int) -> Found:
    n_kinds, min_rows = len(searched.digits), searched.min_rows
    of, bad = searched.digits > 0, searched.digits == 2
    totals = np.bincount(searched.pattern, minlength=n_kinds)
    all_of, all_bad = totals @ of, totals @ bad
    parts = []
    for number, combination in enumerate(islice(searched.combinations(), start, stop), start):
        shape = tuple(searched.sizes[c] for c in combination)
        cells = np.zeros(len(searched.pattern), np.int64)
        for c in combination:
            cells = cells * searched.sizes[c] + searched.codes[c]
        size = int(np.prod(shape))
        counts = np.bincount(cells * n_kinds + searched.pattern, minlength=size * n_kinds).reshape(size, n_kinds)
        z = _pooled_z(counts @ bad, counts @ of, all_bad, all_of, min_rows)
        allowed = np.ones(shape, bool)
        for axis, c in enumerate(combination):
            if searched.rests[c]:
                allowed[(slice(None),) * axis + (-1,)] = False
        z[~allowed.reshape(-1)] = -np.inf
        cell, rate = np.nonzero(z > 1.0)
        best = np.argsort(-z[cell, rate], kind="stable")[:_KEPT]
        cell, rate = cell[best], rate[best]
        parts.append(Found(z[cell, rate], np.full(len(cell), number), cell, rate))
    return _concatenate(parts)


def _concatenate(parts: Sequence[Found]) -> Found:
    def whole(select: Callable[[Found], IntArray]) -> IntArray:
        return np.concatenate([np.zeros(0, np.int64), *map(select, parts)]).astype(np.int64)

    z = np.concatenate([np.zeros(0), *(part.z for part in parts)])
    return Found(z, whole(lambda p: p.combination), whole(lambda p: p.cell), whole(lambda p: p.rate))


def _pooled_z(bad: IntArray, totals: IntArray, all_bad: IntArray, all_of: IntArray, min_rows: int) -> FloatArray:
    """(n_cells, n_rates) ``(p_in - p_out) / sqrt(p (1 - p) (1/n_in + 1/n_out))``; -inf where rows are too few."""
    outside = all_of - totals
    pooled = all_bad / np.maximum(all_of, 1)
    enough = (totals >= min_rows) & (outside >= min_rows) & (pooled > 0) & (pooled < 1)
    inside_n, outside_n = np.maximum(totals, 1), np.maximum(outside, 1)
    error = np.sqrt(pooled * (1.0 - pooled) * (1.0 / inside_n + 1.0 / outside_n))
    z = (bad / inside_n - (all_bad - bad) / outside_n) / np.where(error > 0, error, 1.0)
    return np.asarray(np.where(enough, z, -np.inf), np.float64)


# ---- as bytes ------------------------------------------------------------------------------------------------------


class _Shared(Closed):
    """What all tasks of one search have in common, beside the arrays."""

    sizes: tuple[int, ...]
    rests: tuple[bool, ...]
    depth: int
    min_rows: int


class _Range(Closed):
    """The combinations of one task, by their numbers."""

    start: int
    stop: int


def search_tasks(searched: Searched, ranges: Sequence[tuple[int, int]]) -> Tasks:
    """The search as tasks, of so many combinations each."""
    import torch

    from auditor.training.stack_tasks import pack_message

    small = np.uint8 if max(searched.sizes) <= 256 else np.int32
    shared = _Shared(sizes=searched.sizes, rests=searched.rests, depth=searched.depth, min_rows=searched.min_rows)
    arrays = {
        "codes": np.stack([codes.astype(small) for codes in searched.codes]),
        "pattern": searched.pattern,
        "digits": searched.digits,
    }
    each = tuple(pack_message(_Range(start=start, stop=stop)) for start, stop in ranges)
    return Tasks(
        "slices", pack_message(shared, **{name: torch.from_numpy(array) for name, array in arrays.items()}), each
    )


def done(common_bytes: bytes, task_bytes: bytes) -> bytes:
    """Count the combinations of one task.

    Raises UsageError for what is none.
    """
    import torch

    from auditor.training.stack_tasks import pack_message, unpack_message

    said, arrays = unpack_message(_Shared, common_bytes)
    part, _ = unpack_message(_Range, task_bytes)
    searched = Searched(
        codes=list(arrays["codes"].numpy()),
        sizes=said.sizes,
        rests=said.rests,
        pattern=arrays["pattern"].numpy(),
        digits=arrays["digits"].numpy(),
        depth=said.depth,
        min_rows=said.min_rows,
    )
    found = _search_range(searched, part.start, part.stop)
    return pack_message(part, **{name: torch.from_numpy(array) for name, array in vars(found).items()})


def _unpack_result(result: bytes) -> Found:
    from auditor.training.stack_tasks import unpack_message

    _, arrays = unpack_message(_Range, result)
    return Found(**{name: arrays[name].numpy() for name in ("z", "combination", "cell", "rate")})


MOST_COMBINATIONS = 100_000
_MOST_LOOKED_AT = 2_000
_SHARED = 0.5


@dataclass(frozen=True)
class Column:
    """A binned column, ``codes`` (n,) into ``levels``; with ``rest``, the last level is not a condition."""

    name: str
    codes: IntArray
    levels: tuple[str, ...]
    rest: bool = False
    numeric: bool = False
    sensitive: bool = False

    def condition(self, level: int) -> str:
        """``age in [18, 25)`` or ``sex = f``."""
        label = self.levels[level]
        return f"{self.name} in {label}" if self.numeric and label != MISSING else f"{self.name} = {label}"


@dataclass(frozen=True)
class Rate:
    """A rate that is worse when higher: ``of`` (n,), its rows, and ``bad`` (n,), the bad ones among them."""

    name: str
    of: BoolArray
    bad: BoolArray


@dataclass(frozen=True)
class Slice:
    """A conjunction of conditions, each a column and one of its levels, and the rate that was worse in it."""

    columns: tuple[int, ...]
    levels: tuple[int, ...]
    rate: int
    score: float


class SubgroupDiscovery(BaseProbe):
    """Confirmed slices of up to ``depth`` conditions with worse decisions or errors than all other rows.

    Rates, each worse when higher: ``error_rate = P(y_pred != y)``, ``rejection_rate = P(y_pred != favourable)``,
    ``false_positive_rate`` and ``false_negative_rate``; without labels the second only, without a favourable label the
    first only. The rows are halved as good as at random, by a hash of their contents, so that no seed gives another
    split (:meth:`~auditor.data.audit_data.AuditData.order`). The first half ranks every conjunction of numeric bins,
    category levels and sensitive features by the pooled z of its rate against the rows outside it; the ``top`` best
    that do not overlap by more than half are tried on the second half, where nothing has been chosen yet, by Fisher's
    exact test (one-sided hypergeometric tail), with Holm's correction over ``top``: ``confirmed_subgroups``,
    ``subgroup_gap`` and ``confirmed_sensitive_subgroups``.

    - ``confirmed_subgroups``: Its lower bound at alpha is Holm's count at alpha. What is not confirmed may still be
      there, so it can FAIL and never PASS.
    - ``confirmed_sensitive_subgroups``: Others of the same income and debts, say, who are of another group. A model
      that decides by income is worse for some incomes, and rightly so; this is what is left of that. As above it can
      FAIL and never PASS.

    margin: the gap above which a slice of a sensitive feature counts. bins: bins of equal share per numeric column.
    top: slices to confirm, fixed beforehand. min_rows: fewest rows of a rate that a slice needs in the search half.
    features: columns to search, all of them by default. Category levels beyond the 20 most frequent are searched as no
    condition of their own. Text, images and sound have no columns: there the sensitive features alone are searched.
    Raises ValueError for options out of range, NotApplicableError without a column to search or with more than 100,000
    combinations of columns.

    Sources: Chung et al., Slice Finder, ICDE 2019; Fisher (1935); Holm, Scand. J. Statist. 6 (1979).
    """

    name = "subgroup_discovery"
    pillar = "fairness"
    goal = "Is there a subgroup, named by nobody beforehand, for which the model is worse?"
    citation = "Chung et al., ICDE 2019; Fisher 1935; Holm 1979"
    methods = ("split_and_confirm",)
    needs = (Need.CLASSIFIER, Need.DATA)
    questions = (
        AuditQuestion(
            "subgroups",
            metrics=("confirmed_subgroups", "confirmed_sensitive_subgroups"),
            form="count",
            headline=("confirmed_subgroups",),
        ),
        AuditQuestion("subgroup", form="points"),
    )
    # Rows, and the gap in a slice of 3 % of them, found and confirmed with 80 % power.
    power: ClassVar[tuple[int, float]] = (50_000, 0.10)
    untrusted_options = allow_untrusted("depth", "bins", "top", "features")
    metrics = define_metrics(
        """
        confirmed_subgroups: how many of the top slices found in one half have a worse rate than all other rows in the
          other half, by Fisher's exact test and Holm's correction at 5 %; [0, inf), ideal 0; so many slices are treated
          worse than everybody else, and others may be; Chung et al., ICDE 2019
        subgroup_gap: rate of a confirmed slice less that of all other rows, on the second half, with bounds that hold
          for all top slices together; [-1, 1], ideal 0; at 0.2 the slice meets the bad decision or error 20 points more
          often than the others; Chung et al., ICDE 2019
        confirmed_sensitive_subgroups: how many of the top slices described by a sensitive feature are worse by more
          than margin than the other rows that meet their other conditions; [0, inf), ideal 0; so many slices are
          treated worse than others who are alike but for the group; Chung et al., ICDE 2019
        """
    )

    def __init__(
        self,
        *,
        depth: int = 2,
        bins: int = 4,
        top: int = 10,
        min_rows: int = 30,
        features: Sequence[str] | None = None,
        margin: float = 0.10,
    ) -> None:
        if depth not in (1, 2, 3):
            raise ValueError(f"depth is 1, 2 or 3, not {depth}")
        if not 2 <= bins <= 20 or not 1 <= top <= 100 or min_rows < 1:
            raise ValueError("bins lies in 2 to 20, top in 1 to 100, and min_rows is at least 1")
        if not 0.0 <= margin < 1.0:
            raise ValueError(f"margin lies in [0, 1), not {margin}")
        self.margin = margin
        self.depth = depth
        self.bins = bins
        self.top = top
        self.min_rows = min_rows
        self.features = None if features is None else tuple(features)

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on the evaluation rows, halved by their contents; ``rng`` is not used."""
        rows = data.evaluation
        columns = columns_of(rows, self.bins, self.features)
        if not columns:
            raise NotApplicableError(
                "Needs columns to search: a table of features, or a sensitive feature (add --sensitive COLUMN)."
            )
        n_combinations = sum(comb(len(columns), d) for d in range(1, self.depth + 1))
        if n_combinations > MOST_COMBINATIONS:
            raise NotApplicableError(
                f"{len(columns)} columns make {n_combinations:,} combinations of up to {self.depth}: name fewer with "
                "--set subgroup_discovery.features, or search to a smaller --set subgroup_discovery.depth."
            )
        rates = rates_of(model.decisions(rows), rows.y_true, rows.positive)
        if not rates:
            raise NotApplicableError(
                "Needs true labels (add --target COLUMN) or a favourable label (--positive LABEL)."
            )
        half = np.zeros(len(rows), bool)
        half[rows.order(self.name)[: len(rows) // 2]] = True
        found, named = self._search(columns, rates, half)
        measured = self._confirm(found, columns, rates, ~half)
        if any(column.sensitive for column in columns):
            measured.append(self._of_sensitive(named, columns, rates, ~half))
        return measured

    def _search(
        self, columns: Sequence[Column], rates: Sequence[Rate], half: BoolArray
    ) -> tuple[list[Slice], list[Slice]]:
        """The best ``top`` slices of the search half, most surprising first; and of those of sensitive features."""
        here, of = _restricted(columns, rates, half)
        ranked = rank_slices(here, of, self.depth, self.min_rows)
        named = [s for s in ranked if any(columns[c].sensitive for c in s.columns)]
        return self._best(ranked, here, of), self._best(named, here, of)

    def _best(self, ranked: Sequence[Slice], columns: Sequence[Column], rates: Sequence[Rate]) -> list[Slice]:
        chosen: list[Slice] = []
        masks: list[BoolArray] = []
        for candidate in ranked[:_MOST_LOOKED_AT]:
            if len(chosen) == self.top:
                break
            mask = _rows_of(candidate, columns) & rates[candidate.rate].of
            # A slice and its near copies are one discovery, and ten copies would use up the tests.
            if any(
                other.rate == candidate.rate and (mask & taken).sum() > _SHARED * (mask | taken).sum()
                for other, taken in zip(chosen, masks, strict=True)
            ):
                continue
            chosen.append(candidate)
            masks.append(mask)
        return chosen

    def _confirm(
        self, slices: Sequence[Slice], columns: Sequence[Column], rates: Sequence[Rate], half: BoolArray
    ) -> list[Measurement]:
        columns, rates = _restricted(columns, rates, half)
        counts = []
        for candidate in slices:
            of, bad = rates[candidate.rate].of, rates[candidate.rate].bad
            inside = _rows_of(candidate, columns)
            counts.append(
                (_count_both(bad, inside), _count_both(of, inside), _count_both(bad, ~inside), _count_both(of, ~inside))
            )
        # Candidates that the search did not find stand as p = 1: Holm is over ``top``, which was fixed beforehand.
        p_values = [greater_p(*c) for c in counts] + [1.0] * (self.top - len(counts))
        tested: AnyEstimate = ConfirmedCount(p_values=tuple(p_values))
        confirmed = ConfirmedCount(p_values=tuple(p_values)).confirmed(0.05)[: len(counts)]
        names = [_name(candidate, columns, rates) for candidate in slices]
        n_tested = len(columns[0].codes)
        if not slices:
            tested = Undefined(reason=f"no slice has {self.min_rows} rows in the search half and as many outside")
        detail = (
            f"searched {len(columns)} columns to depth {self.depth} for {', '.join(rate.name for rate in rates)} "
            f"on {len(half) - n_tested:,} rows, tested {len(slices)} slices on {n_tested:,} others"
        )
        missed = [f"{n} (p = {p:.2g})" for n, p, ok in zip(names, p_values, confirmed, strict=False) if not ok]
        if missed:
            detail += f"; not confirmed: {', '.join(missed[:3])}{' and others' if len(missed) > 3 else ''}"
        return [
            Measurement(
                metric="confirmed_subgroups",
                method="split_and_confirm",
                estimate=tested,
                n_samples=len(half),
                ideal=0.0,
                detail=detail,
            )
        ] + [
            Measurement(
                metric="subgroup_gap",
                method="split_and_confirm",
                estimate=Difference(successes=(c[0], c[2]), n=(c[1], c[3]), family=self.top),
                n_samples=len(half),
                ideal=0.0,
                at={"rate": rates[candidate.rate].name, "slice": _conditions(candidate, columns)},
                detail=(
                    f"{c[0] / c[1]:.3f} of the {c[1]:,} rows in the slice against {c[2] / c[3]:.3f} of the other "
                    f"{c[3]:,}; exact p = {p:.2g} before Holm's correction over {self.top}"
                ),
            )
            for candidate, c, p, ok in zip(slices, counts, p_values, confirmed, strict=False)
            if ok
        ]

    def _of_sensitive(
        self, slices: Sequence[Slice], columns: Sequence[Column], rates: Sequence[Rate], half: BoolArray
    ) -> Measurement:
        """Slices of sensitive features against rows that differ from theirs in those features alone."""
        columns, rates = _restricted(columns, rates, half)
        p_values, said = [], []
        for candidate in slices:
            of, bad = rates[candidate.rate].of, rates[candidate.rate].bad
            pairs = list(zip(candidate.columns, candidate.levels, strict=True))
            same = np.logical_and.reduce([of, *(columns[c].codes == v for c, v in pairs if not columns[c].sensitive)])
            inside = _rows_of(candidate, columns) & same
            others = same & ~inside
            gap = Difference(
                successes=(_count_both(bad, inside), _count_both(bad, others)),
                n=(int(np.count_nonzero(inside)), int(np.count_nonzero(others))),
            )
            p = 1.0 if isnan(gap.value) else gap.p_value(self.margin, "greater")
            p_values.append(p)
            said.append(f"{_name(candidate, columns, rates)}: {gap.value:+.3f} (p = {p:.2g})")
        tested: AnyEstimate = ConfirmedCount(p_values=(*p_values, *[1.0] * (self.top - len(slices))))
        if not slices:
            tested = Undefined(reason=f"no slice has {self.min_rows} rows in the search half and as many outside")
        best = [words for _, words in sorted(zip(p_values, said, strict=True))]
        return Measurement(
            metric="confirmed_sensitive_subgroups",
            method="split_and_confirm",
            estimate=tested,
            n_samples=len(half),
            ideal=0.0,
            detail=f"worse than others who differ in the sensitive feature alone, by more than {self.margin:g}: "
            + ("; ".join(best[:3]) or "none found")
            + f"; before Holm's correction over {self.top}",
        )


# ---- columns and rates ---------------------------------------------------------------------------------------------


def columns_of(rows: AuditData, bins: int, features: Sequence[str] | None = None) -> list[Column]:
    """Every searchable column, binned by its values alone: features first, then other sensitive features."""
    import pandas as pd

    X = rows.X if isinstance(rows.X, pd.DataFrame) else None
    table = rows.modality == "tabular"
    if X is None and table and isinstance(rows.X, np.ndarray) and rows.X.dtype.kind in "biuf":
        X = pd.DataFrame(rows.X, columns=[f"x{i}" for i in range(rows.X.shape[1])])
    series: dict[str, pd.Series[Any]] = {} if X is None else {str(c): X[c] for c in X.columns}
    if rows.sensitive_features is not None:
        for c in rows.sensitive_features.columns:
            series.setdefault(str(c), rows.sensitive_features[c])
    if features is not None:
        unknown = [f for f in features if f not in series]
        if unknown:
            raise NotApplicableError(f"There is no column {unknown[0]!r} to search: choose among {', '.join(series)}.")
        series = {f: series[f] for f in features}
    named = () if rows.sensitive_features is None else tuple(map(str, rows.sensitive_features.columns))
    columns = [replace(_column(c, values, bins), sensitive=c in named) for c, values in series.items()]
    return [c for c in columns if len(c.levels) - c.rest > 1]


def _column(name: str, values: pd.Series[Any], bins: int, most_levels: int = 20) -> Column:
    import pandas as pd

    numbers: FloatArray | None = None
    text = None
    if values.dtype.kind in "iuf":
        numbers = values.to_numpy(np.float64, na_value=np.nan)
    else:
        text = texts_of(values, MISSING)
        if len(text.names) > most_levels:
            # Sensitive features are text by the time they arrive here, an age too.
            parsed = pd.to_numeric(pd.Series(text.names, dtype="string"), errors="coerce")
            if (parsed.notna() | (np.asarray(text.names, object) == MISSING)).all():
                numbers = parsed.to_numpy(np.float64, na_value=np.nan)[text.codes]
    if numbers is not None and more_than(bins, numbers):
        codes, labels = bin_values(numbers, BinRule(name, quantiles=bins))
        if (codes < 0).any():
            labels, codes = [*labels, MISSING], np.where(codes < 0, len(labels), codes)
        return Column(name, codes, tuple(labels), numeric=True)
    text = texts_of(values, MISSING) if text is None else text
    kept = sorted(text.commonest(most_levels), key=lambda level: text.names[level])
    levels = tuple(text.names[level] for level in kept)
    place = np.full(len(text.names), len(levels), np.int64)
    place[kept] = np.arange(len(levels))
    found = place[text.codes]
    if len(levels) < len(text.names):
        return Column(name, found, (*levels, "(other)"), rest=True)
    return Column(name, found, levels)


def rates_of(y_pred: IntArray, y_true: IntArray | None, positive: int | None) -> list[Rate]:
    """The rates possible with these labels and favourable class, each with its defined rows."""
    rates = []
    labelled = np.zeros(len(y_pred), bool) if y_true is None else y_true >= 0
    if y_true is not None and labelled.any():
        rates.append(Rate("error_rate", labelled, labelled & (y_pred != y_true)))
    if positive is not None:
        rates.append(Rate("rejection_rate", np.ones(len(y_pred), bool), y_pred != positive))
        if y_true is not None and labelled.any():
            negatives, positives = labelled & (y_true != positive), y_true == positive
            rates.append(Rate("false_positive_rate", negatives, negatives & (y_pred == positive)))
            rates.append(Rate("false_negative_rate", positives, positives & (y_pred != positive)))
    return rates


def _restricted(columns: Sequence[Column], rates: Sequence[Rate], half: BoolArray) -> tuple[list[Column], list[Rate]]:
    return (
        [replace(column, codes=column.codes.compress(half)) for column in columns],
        [replace(rate, of=rate.of.compress(half), bad=rate.bad.compress(half)) for rate in rates],
    )


def _count_both(a: BoolArray, b: BoolArray) -> int:
    return int(np.count_nonzero(a & b))


def _rows_of(candidate: Slice, columns: Sequence[Column]) -> BoolArray:
    parts = [columns[c].codes == level for c, level in zip(candidate.columns, candidate.levels, strict=True)]
    return np.asarray(np.logical_and.reduce(parts), bool)


def _conditions(candidate: Slice, columns: Sequence[Column]) -> str:
    pairs = zip(candidate.columns, candidate.levels, strict=True)
    return " & ".join(columns[c].condition(level) for c, level in pairs)


def _name(candidate: Slice, columns: Sequence[Column], rates: Sequence[Rate]) -> str:
    return f"{rates[candidate.rate].name} where {_conditions(candidate, columns)}"


# ---- search and confirmation ---------------------------------------------------------------------------------------


def rank_slices(columns: Sequence[Column], rates: Sequence[Rate], depth: int, min_rows: int) -> list[Slice]:
    """Slices with a worse rate inside than outside, by descending pooled z; ``min_rows`` inside and outside.

    One ``bincount`` per combination of columns counts all rates at once: each row's pattern of (of, bad) over the rates
    is one small integer, computed beforehand.
    """
    patterns = np.zeros(len(columns[0].codes), np.int64)
    for rate in rates:
        patterns = patterns * 3 + rate.of + rate.bad
    kinds, pattern = np.unique(patterns, return_inverse=True)
    searched = Searched(
        codes=[column.codes for column in columns],
        sizes=tuple(len(column.levels) for column in columns),
        rests=tuple(column.rest for column in columns),
        pattern=pattern,
        digits=np.stack([kinds // 3**i % 3 for i in range(len(rates))][::-1], axis=1),
        depth=depth,
        min_rows=min_rows,
    )
    found, names = search(searched), list(searched.combinations())
    slices = []
    # Of equal slices the one of fewer conditions comes first, because it was enumerated first and the sort is stable.
    for i in np.argsort(-found.z, kind="stable"):
        combination = names[found.combination[i]]
        levels = np.unravel_index(found.cell[i], [searched.sizes[c] for c in combination])
        slices.append(Slice(combination, tuple(map(int, levels)), int(found.rate[i]), float(found.z[i])))
    return slices


def greater_p(bad_in: int, n_in: int, bad_out: int, n_out: int) -> float:
    """One-sided p of Fisher's exact test that the rate inside is no higher: ``P(K >= bad_in)`` given the margins."""
    from scipy.stats import hypergeom

    if not n_in or not n_out:
        return 1.0
    return min(float(hypergeom.sf(bad_in - 1, n_in + n_out, bad_in + bad_out, n_in)), 1.0)
