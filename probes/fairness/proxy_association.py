"""Proxy association: prediction of sensitive groups from features, scores and the model's representation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.bins import BinRule, bin_values, counted_starts, more_than
from auditor.data.group_counts import Levels
from auditor.data.score_counts import Asked
from auditor.data.table_columns import texts_of
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.models.torch_context import without_gradients
from auditor.run.probe import BaseProbe, Need, Streamed, allow_untrusted
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rank_estimates import (
    AreaUnderCurve,
    Placements,
    Ranked,
    area_of_counts,
    area_of_placements,
    area_of_ranks,
    placements,
)

if TYPE_CHECKING:
    import pandas as pd
    from torch.nn import Linear

    from auditor.data.audit_data import AuditData
    from auditor.data.group_counts import CodedGroups, GroupCounts
    from auditor.models.audited_model import AuditedModel
    from auditor.models.torch_model import TorchModel

FEWEST_ROWS = 20
N_BINS = 10
MOST_LEVELS = 50
MOST_TRAINING_ROWS = 20_000
_BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class Source:
    """What is to predict the groups: ``matrix`` (k, d) of the rows that are asked for, for a logistic regression, or
    ``codes`` (n,) of one feature."""

    name: str
    what: str
    matrix: FloatArray | None = None
    codes: IntArray | None = None


class ProxyAssociation(BaseProbe):
    """Predictability of each sensitive feature from other features, the model's score and its representation.

    The halves are made by a hash of the rows' contents; of single features that are counted as rows stream by, by a
    draw from the counts, which seed it. ``at`` names the source:

    - ``from: features``: logistic regression on all features together, the sensitive ones left out
    - ``from: feature``, with ``feature``: that feature alone, by the groups' shares in its levels or tenths
    - ``from: score``: logistic regression on the class probabilities
    - ``from: representation``: logistic regression on what enters the last linear layer of a torch model

    The predictor is fixed before the measured rows are seen, so the interval is DeLong's of independent rows; of
    several groups it comes from the rows' influence on the mean, the same rows standing in every group's curve. A high
    value says that the model could use the group without being given it, not that it does.

    single_features: whether to measure every feature alone. Groups of fewer than 20 rows in either half take no part;
    the detail names them. At most 20,000 rows train a predictor.

    Sources: DeLong et al., Biometrics 44 (1988); Hand and Till, Mach. Learn. 45 (2001), one against the rest; for the
    reading as proxies, Datta et al., CCS 2017.
    """

    name = "proxy_association"
    pillar = "fairness"
    goal = "How well do the features, the score and the representation predict each sensitive feature?"
    citation = "Datta et al., CCS 2017; DeLong et al., Biometrics 1988"
    methods = ("held_out_auc",)
    needs = (Need.CLASSES, Need.DATA, Need.SENSITIVE)
    questions = (AuditQuestion("proxies", form="pairs", headline=("proxy_auc",)),)
    # Rows, and the true AUC, found above 0.55 with 80 % power at 5 % between two equal groups.
    power: ClassVar[tuple[int, float]] = (1_000, 0.65)
    untrusted_options = allow_untrusted("single_features")
    metrics = define_metrics(
        """
        proxy_auc: area under the ROC curve of a predictor of the group that learned from half of the rows, on the other
          half, of several groups the mean of each against the rest; [0, 1], ideal 0.5; at 0.8 the source tells the
          group rightly in 8 of 10 pairs, and at 0.5 it says nothing of it; Datta et al., CCS 2017
        """
    )

    def __init__(self, *, single_features: bool = True) -> None:
        self.single_features = single_features

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on the evaluation rows, halved once for all sources by their contents."""
        rows = data.evaluation
        if rows.sensitive_features is None:
            raise NotApplicableError("Needs a sensitive feature: add --sensitive COLUMN.")
        if model.rows_alone and not other_columns(rows):
            raise NotApplicableError("Needs a table with a column that is no label and no sensitive feature.")
        return self._of_rows(model, rows, self.single_features, None)

    def _of_rows(
        self, model: AuditedModel, rows: AuditData, single: bool, counts: GroupCounts | None
    ) -> list[Measurement]:
        """``counts``: of all rows, where those at hand are a sample of them."""
        train = np.zeros(len(rows), bool)
        train[rows.order(self.name)[: len(rows) // 2]] = True
        splits = [Split.from_groups(name, rows.groups(name), train, counts) for name in _sensitive(rows)]
        wanted = ~train
        for split in splits:
            wanted[split.learned] = True
        places = np.cumsum(wanted) - 1
        # One source after the other, since each is as large as the rows.
        each = [
            [_measure_source(split, source, places) for split in splits]
            for source in self._sources(model, rows, train, np.flatnonzero(wanted), single)
        ]
        return [m for by_source in zip(*each, strict=True) for m in by_source]

    @property
    def stream_needs(self) -> Asked:
        """The feature statistics that streamed rows must provide, and some of the rows."""
        return Asked(levels=True, rows=True)

    def measure_streamed(self, streamed: Streamed) -> list[Measurement]:
        """The measurements of single features, from the joint counts of their levels and groups; those of all other
        sources as in memory, from the kept rows (all rows if there are few).

        Of a single feature the halves are others than in memory: each row of a level and a group goes to either by a
        fair coin, which is a binomial draw from their number. Of a number of more than 16,384 values the tenths
        end between levels of fewer significant bits.
        """
        levels = streamed.features
        if levels is None or not levels.sensitive:
            raise NotApplicableError("Needs a sensitive feature: add --sensitive COLUMN.")
        found, n = [], streamed.counts.n
        for column in levels.sensitive:
            for name in levels.features if self.single_features else ():
                found.append(_of_levels(column, name, levels.levels_for(name, column), n))
        return found + self._of_sample(streamed, levels.sensitive, bool(levels.features))

    def _of_sample(self, streamed: Streamed, sensitive: Sequence[str], features: bool) -> list[Measurement]:
        model, sample, n = streamed.model, streamed.sample, streamed.counts.n
        if model is None or sample is None:
            raise ValueError("rows stream by with the model that answers them")
        if isinstance(sample, Undefined):
            hidden = _before_outputs(model) is not None
            sources = [*["features"] * features, "score", *["representation"] * hidden]
            return [_no_sample(column, source, sample, n) for column in sensitive for source in sources]
        of = f"; of {len(sample):,} of the {n:,} rows, drawn by their contents" if len(sample) < n else ""
        measured = self._of_rows(model, sample, single=False, counts=streamed.counts)
        return [replace(m, detail=m.detail + of) for m in measured]

    def _sources(
        self, model: AuditedModel, rows: AuditData, train: BoolArray, row_indices: IntArray, single: bool
    ) -> Iterator[Source]:
        yield from _of_features(rows, train, row_indices, single)
        if model.rows_alone:
            return
        # The logarithm keeps the small probabilities of a confident model apart; the last class follows from the rest.
        scores = np.log(np.clip(model.outputs(rows)[row_indices], 1e-12, None))
        yield Source("score", "the model's score", matrix=(scores - scores[:, -1:])[:, :-1])
        hidden = representation(model, rows, row_indices)
        if hidden is not None:
            yield Source("representation", "the input of the last linear layer", matrix=hidden)


def _of_features(rows: AuditData, train: BoolArray, row_indices: IntArray, single: bool) -> Iterator[Source]:
    columns = other_columns(rows)
    if not columns:
        return
    yield Source("features", f"{len(columns)} features together", matrix=encode(columns, train, row_indices))
    for name, values in columns.items() if single else ():
        yield Source("feature", name, codes=binned(name, values, train))


def _sensitive(rows: AuditData) -> list[str]:
    return [] if rows.sensitive_features is None else [str(c) for c in rows.sensitive_features.columns]


def other_columns(rows: AuditData) -> dict[str, pd.Series[Any]]:
    """Columns of a table that are no sensitive feature, none of them copied."""
    import pandas as pd

    if isinstance(rows.X, np.ndarray):
        if rows.modality != "tabular" or rows.X.dtype.kind not in "biuf":
            return {}
        return {f"x{i}": pd.Series(column) for i, column in enumerate(rows.X.T)}
    sensitive = _sensitive(rows)
    return {str(c): rows.X[c] for c in rows.X.columns if str(c) not in sensitive}


@dataclass(frozen=True, eq=False)
class Split:
    """A sensitive feature's groups with enough rows in both halves, ``kept``: a predictor of them learns from some rows
    and is measured on others.

    ``absent``: groups that no row at hand is of. ``label`` (n,) a row's group among those kept, where it is of one;
    ``train``, ``test`` (n,): of one, and in that half; ``learned``: the rows that train a logistic regression;
    ``tested`` (m,) and ``test_label`` (m,): those of ``test``.
    """

    sensitive: str
    names: Sequence[str]
    absent: Sequence[str]
    kept: IntArray
    label: IntArray
    train: BoolArray
    learned: IntArray
    tested: IntArray
    test_label: IntArray

    @classmethod
    def from_groups(cls, sensitive: str, groups: CodedGroups, train: BoolArray, counts: GroupCounts | None) -> Split:
        """The split of groups by a half of the rows, which ``counts`` may be of more of."""
        codes, k = groups.codes, len(groups.titles)
        sizes = np.minimum(np.bincount(codes[train], minlength=k), np.bincount(codes[~train], minlength=k))
        kept = np.flatnonzero(sizes >= FEWEST_ROWS)
        here = np.isin(np.arange(k), kept)[codes]
        label = np.searchsorted(kept, np.arange(k))[codes]
        learning, tested = train & here, np.flatnonzero(~train & here)
        learned = np.flatnonzero(learning)[:MOST_TRAINING_ROWS]
        everywhere = () if counts is None else (name for (name,) in counts.group_by([sensitive]).groups)
        absent = sorted({*everywhere} - {*groups.titles})
        return cls(sensitive, groups.titles, absent, kept, label, learning, learned, tested, label[tested])

    @property
    def small(self) -> list[str]:
        """The groups that take no part."""
        return sorted([*self.absent, *(name for i, name in enumerate(self.names) if i not in self.kept)])


def _measure_source(split: Split, source: Source, places: IntArray) -> Measurement:
    """What one source tells of the groups; ``places`` (n,): where a row that was asked for stands in its matrix."""
    names, kept, small = split.names, split.kept, split.small
    at: dict[str, str | float] = {"from": source.name}
    if source.name == "feature":
        at["feature"] = source.what
    estimate: AnyEstimate = Undefined(
        reason=f"fewer than two groups of {split.sensitive} have {FEWEST_ROWS} rows in either half of the data"
    )
    parts = [f"predicted from {source.what}"]
    if kept.size > 1:
        scores, at_level = predicted(source, split, places)
        estimate, each = macro_auc(scores, split.test_label, at_level)
        if kept.size > 2:
            order = np.argsort(-np.asarray(each))[:3]
            parts.append("best told apart: " + ", ".join(f"{names[kept[i]]} {each[i]:.3f}" for i in order))
    if small:
        parts.append(f"too few rows to take part: {', '.join(small[:5])}{' and others' if len(small) > 5 else ''}")
    return Measurement(
        metric="proxy_auc",
        method="held_out_auc",
        estimate=estimate,
        n_samples=len(split.label),
        ideal=0.5,
        sensitive=(split.sensitive,),
        # Of the features it says what they are, whatever the model makes of them.
        ideal_when_same="nothing" if source.name in ("features", "feature") else "scores",
        at=at,
        detail="; ".join(parts),
    )


def _no_sample(sensitive: str, source: str, why_not: Undefined, n: int) -> Measurement:
    return Measurement(
        metric="proxy_auc",
        method="held_out_auc",
        estimate=why_not,
        n_samples=n,
        ideal=0.5,
        sensitive=(sensitive,),
        ideal_when_same="nothing" if source == "features" else "scores",
        at={"from": source},
    )


def _of_levels(sensitive: str, feature: str, levels: Levels | None, n: int) -> Measurement:
    from auditor.data.row_keys import generator_of

    estimate: AnyEstimate = Undefined(
        reason=f"{feature} has too many levels, or too close ones, to be told apart as rows stream by"
    )
    parts = [f"predicted from {feature}"]
    if levels is not None:
        rng = generator_of(levels.counts.ravel().astype(np.uint64), f"{sensitive}\0{feature}")
        halves = _halved(levels.counts, rng)
        kept = np.flatnonzero(halves.sum(axis=0).min(axis=1) >= FEWEST_ROWS)
        small = [name for i, name in enumerate(levels.groups) if i not in kept]
        estimate = Undefined(
            reason=f"fewer than two groups of {sensitive} have {FEWEST_ROWS} rows in either half of the data"
        )
        if kept.size > 1:
            table = _gathered(levels, halves)[:, kept]
            estimate, each = auc_of_counts(_shares(table[:, :, 0]), table[:, :, 1])
            if kept.size > 2:
                order = np.argsort(-np.asarray(each))[:3]
                parts.append("best told apart: " + ", ".join(f"{levels.groups[kept[i]]} {each[i]:.3f}" for i in order))
        if small:
            parts.append(f"too few rows to take part: {', '.join(small[:5])}{' and others' if len(small) > 5 else ''}")
    return Measurement(
        metric="proxy_auc",
        method="held_out_auc",
        estimate=estimate,
        n_samples=n,
        ideal=0.5,
        sensitive=(sensitive,),
        ideal_when_same="nothing",
        at={"from": "feature", "feature": feature},
        detail="; ".join(parts),
    )


def _halved(counts: IntArray, rng: np.random.Generator) -> IntArray:
    """(l, g, 2) the counts of two halves: rows of which nothing but their cell is known are as good as in any order."""
    first = rng.binomial(counts, 0.5)
    return np.stack([first, counts - first], axis=2)


def _gathered(levels: Levels, counts: IntArray) -> IntArray:
    """(bins, g, 2) the counts of tenths of a number, or of the most frequent levels of the first half and the rest."""
    missing = levels.names[-1] == math.inf
    if levels.numbers and len(levels.names) - missing > N_BINS:
        n = counts.sum(axis=(1, 2))[: len(counts) - missing]
        starts = counted_starts(n, N_BINS)
        place = np.append(np.searchsorted(starts, np.arange(n.size), "right") - 1, [starts.size] * missing)
    else:
        order = np.argsort(-counts[:, :, 0].sum(axis=1), kind="stable")
        place = np.empty(len(counts), np.int64)
        place[order] = np.minimum(np.arange(len(counts)), MOST_LEVELS)
    out = np.zeros((int(place.max()) + 1, *counts.shape[1:]), np.int64)
    np.add.at(out, place.astype(np.int64), counts)
    return out


# ---- prediction ----------------------------------------------------------------------------------------------------


def predicted(source: Source, split: Split, places: IntArray) -> tuple[FloatArray, IntArray | None]:
    """(m, n_groups) scores of the groups, from rows of ``train`` only, and which of them each row of ``test`` has.

    None for the second where each row has its own.
    """
    if source.codes is not None:
        n_levels, n_groups = int(source.codes.max()) + 1, split.kept.size
        own = (source.codes * n_groups + split.label).compress(split.train)
        counts = np.bincount(own, minlength=n_levels * n_groups).reshape(n_levels, n_groups)
        return _shares(counts), source.codes[split.tested]
    if source.matrix is None:
        raise ValueError("a source has a matrix or codes")
    learned = split.learned
    return _logistic(source.matrix, split.label[learned], places[learned], places[split.tested]), None


def _shares(counts: IntArray) -> FloatArray:
    """(levels, groups) the groups' shares in each level, drawn towards those of all by one row."""
    n = counts.astype(np.float64)
    overall = n.sum(axis=0) / n.sum()
    return np.asarray((n + overall) / (n.sum(axis=1, keepdims=True) + 1.0), np.float64)


def _logistic(matrix: FloatArray, label: IntArray, train: IntArray, test: IntArray) -> FloatArray:
    from sklearn.linear_model import LogisticRegression

    known = matrix[train].astype(np.float64, copy=False)
    centre, spread = known.mean(axis=0), known.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    fitted = LogisticRegression(max_iter=1000, C=1.0).fit((known - centre) / spread, label)
    found = np.empty((test.size, len(fitted.classes_)))
    # In blocks, since there may be as many numbers as rows times units of a layer.
    for block in range(0, test.size, _BLOCK_ROWS):
        part = matrix[test[block : block + _BLOCK_ROWS]].astype(np.float64, copy=False)
        part -= centre
        part /= spread
        found[block : block + _BLOCK_ROWS] = fitted.predict_proba(part)
    return found


def encode(columns: Mapping[str, pd.Series[Any]] | pd.DataFrame, train: BoolArray, row_indices: IntArray) -> FloatArray:
    """(k, d) numbers of the rows ``row_indices``: numeric columns with the training median for missing values and an
    indicator of these, and 0/1 indicators of the 20 most frequent training levels of every other column."""
    parts: list[FloatArray] = []
    for _, values in columns.items():
        if values.dtype.kind in "biuf":
            numbers = values.to_numpy(np.float64, na_value=np.nan)
            missing = ~np.isfinite(numbers)
            known = numbers[train & ~missing]
            parts.append(
                np.where(missing[row_indices], np.median(known) if known.size else 0.0, numbers[row_indices])[:, None]
            )
            if missing.any():
                parts.append(missing[row_indices, None].astype(np.float64))
        else:
            text = texts_of(values, "")
            codes = text.codes[row_indices]
            parts += [(codes == level).astype(np.float64)[:, None] for level in text.commonest(20, train)]
    return np.concatenate(parts, axis=1) if parts else np.empty((row_indices.size, 0))


def binned(name: str, values: pd.Series[Any], train: BoolArray) -> IntArray:
    """(n,) codes of a feature: tenths of a number, the most frequent levels of anything else, one for all the rest."""
    numbers = values.to_numpy(np.float64, na_value=np.nan) if values.dtype.kind in "iuf" else np.empty(0)
    if more_than(N_BINS, numbers):
        codes, labels = bin_values(numbers, BinRule(name, quantiles=N_BINS))
        return np.where(codes < 0, len(labels), codes).astype(np.int64)
    text = texts_of(values, "")
    levels = text.commonest(MOST_LEVELS, train)
    place = np.full(len(text.names), len(levels), np.int64)
    place[levels] = np.arange(len(levels))
    return place[text.codes]


def macro_auc(
    scores: FloatArray, label: IntArray, score_index: IntArray | None = None
) -> tuple[AnyEstimate, list[float]]:
    """Mean over groups of the AUC of each against the rest, and each group's; scores (m, k), label (n,).

    ``score_index``: (n,) which of the scores each row has; None where m is n and each has its own.

    Of two groups it is the one curve with its DeLong interval. Of more, row r moves the mean by
    ``psi_r = sum_g (over_rg - A_g) / (k share_g)`` as a member of g and likewise as one of the rest, so the standard
    error is ``sd(psi) / sqrt(n)``, never below that of k independent curves, since a perfect separation has no spread.
    It is bounded and planned for as the curve of the smallest group against the rest is.
    """
    k = scores.shape[1]
    if k == 2:
        ranked = Ranked.from_values(scores[:, 1])
        ranks = ranked.ranks if score_index is None else ranked.ranks[score_index]
        whole = area_of_ranks(positives=ranks[label == 1], negatives=ranks[label == 0], n_ranks=ranked.different.size)
        return whole, [whole.value, whole.value]
    each: list[float] = []
    variance = 0.0
    # Of each row, or of all that have one of the scores and are of one group.
    influence = np.zeros(len(label) if score_index is None else (len(scores), k))
    counts = (
        None if score_index is None else np.bincount(score_index * k + label, minlength=len(scores) * k).reshape(-1, k)
    )
    for g in range(k):
        # Positions: brackets take four times as long over a mask.
        own, rest = np.flatnonzero(label == g), np.flatnonzero(label != g)
        ranked = Ranked.from_values(scores[:, g])
        if score_index is None or counts is None:
            positives, negatives = ranked.ranks[own], ranked.ranks[rest]
            over, under = placements(positives=positives, negatives=negatives, n_ranks=ranked.different.size)
        else:
            # Rows of one score and one group move the mean alike: where scores are few, they are counted once.
            above = ranked.shares_below(counts.sum(axis=1) - counts[:, g])
            below = 1.0 - ranked.shares_below(counts[:, g])
            over, under = Placements(above, score_index[own]), Placements(below, score_index[rest])
        alone = area_of_placements(over, under)
        auc = alone.centre
        each.append(auc)
        variance += alone.standard_error**2
        share = own.size / len(label)
        if score_index is None:
            influence[own] += (over.shares - auc) / (k * share)
            influence[rest] += (under.shares - auc) / (k * (1.0 - share))
        else:
            others = np.arange(k) != g
            influence[:, g] += (above - auc) / (k * share)
            influence[:, others] += ((below - auc) / (k * (1.0 - share)))[:, None]
    each_row = influence if score_index is None else influence[score_index, label]
    # Cubes take long.
    cubed = (influence - each_row.mean()) ** 3
    smallest = int(np.bincount(label, minlength=k).min())
    return (
        AreaUnderCurve(
            # A mean of numbers at a limit may be a rounding error beyond it.
            centre=min(float(np.mean(each)), 1.0),
            standard_error=max(float(each_row.std(ddof=1) / math.sqrt(len(label))), math.sqrt(variance) / k),
            n_positive=smallest,
            n_negative=len(label) - smallest,
            third_cumulant=float(
                (cubed if score_index is None else cubed[score_index, label]).mean() / len(label) ** 2
            ),
        ),
        each,
    )


def auc_of_counts(scores: FloatArray, counts: IntArray) -> tuple[AnyEstimate, list[float]]:
    """:func:`macro_auc` of rows given as counts (levels, k), each with the scores of its level."""
    k, n = counts.shape[1], int(counts.sum())
    tied = np.zeros(len(scores), bool)

    def ranked(g: int) -> tuple[IntArray, IntArray, IntArray]:
        """Which rank each level has, and the group's rows and all others by rank."""
        rank = np.unique(scores[:, g], return_inverse=True)[1]
        own = np.bincount(rank, weights=counts[:, g]).astype(np.int64)
        return rank, own, np.bincount(rank, weights=counts.sum(axis=1)).astype(np.int64) - own

    if k == 2:
        _, own, others = ranked(1)
        whole = area_of_counts(positives=own, negatives=others, blurred=tied[: own.size])
        return whole, [whole.value, whole.value]
    each: list[float] = []
    variance, influence = 0.0, np.zeros((len(scores), k))
    for g in range(k):
        rank, own, others = ranked(g)
        alone = area_of_counts(positives=own, negatives=others, blurred=tied[: own.size])
        assert isinstance(alone, AreaUnderCurve)  # every group has rows enough
        m, rest = int(own.sum()), int(others.sum())
        above = (2 * np.cumsum(others) - others)[rank] / (2.0 * rest)
        below = 1.0 - (2 * np.cumsum(own) - own)[rank] / (2.0 * m)
        each.append(alone.centre)
        variance += alone.standard_error**2
        influence += ((below - alone.centre) * n / (k * rest))[:, None]
        influence[:, g] += (above - alone.centre) * n / (k * m) - (below - alone.centre) * n / (k * rest)
    mean = float((counts * influence).sum()) / n
    spread = math.sqrt(float((counts * (influence - mean) ** 2).sum()) / (n - 1) / n)
    smallest = int(counts.sum(axis=0).min())
    estimate = AreaUnderCurve(
        centre=min(float(np.mean(each)), 1.0),
        standard_error=max(spread, math.sqrt(variance) / k),
        n_positive=smallest,
        n_negative=n - smallest,
        third_cumulant=float((counts * (influence - mean) ** 3).sum()) / n / n**2,
    )
    return estimate, each


# ---- the model's representation ------------------------------------------------------------------------------------


def representation(model: AuditedModel, rows: AuditData, row_indices: IntArray) -> FloatArray | None:
    """(k, d) the input of the last linear layer of a torch model for the rows ``row_indices``, or None if there is no
    such layer.

    The layer is the last ``nn.Linear`` of the module, and must make the outputs itself: as many as the classes, or one.
    """
    import torch

    from auditor.core.rows import take_rows

    found = _before_outputs(model)
    if found is None:
        return None
    model, layer = found
    inputs = model.inputs_of(rows.X if row_indices.size == len(rows) else take_rows(rows.X, row_indices))
    hidden: FloatArray | None = None
    filled = 0

    def see(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal hidden, filled
        # numpy has no bfloat16.
        part = inputs[0].detach().to("cpu", torch.promote_types(inputs[0].dtype, torch.float32)).numpy()
        if hidden is None:
            hidden = np.empty((row_indices.size, *part.shape[1:]), part.dtype)
        if part.ndim == 2 and filled + len(part) <= len(hidden):
            hidden[filled : filled + len(part)] = part
        filled += len(part)

    handle = layer.register_forward_pre_hook(see)
    try:
        with without_gradients(), model.evaluating():
            for start in range(0, row_indices.size, model.batch_rows):
                model.logits(inputs(start, min(model.batch_rows, row_indices.size - start)))
    finally:
        handle.remove()
    return hidden if hidden is not None and hidden.ndim == 2 and filled == row_indices.size else None


def _before_outputs(model: AuditedModel) -> tuple[TorchModel, Linear] | None:
    from torch import nn

    from auditor.models.torch_model import TorchModel

    if not isinstance(model, TorchModel):
        return None
    layers = [m for m in model.module.modules() if isinstance(m, nn.Linear)]
    if len(layers) < 2 or layers[-1].out_features not in (1, model.n_outputs):
        return None
    return model, layers[-1]
