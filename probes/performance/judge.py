"""Judge: by what else than the answer a model that grades answers is moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import ConfigError, NotApplicableError, OtherKindError, did_you_mean
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.groups import WorstDifference
from auditor.statistics.means import PairedDifference, WorstPairedDifference, paired_difference
from auditor.statistics.rates import Proportion, RateTable, WeightedSum
from auditor.statistics.values import bounded_mean
from probes.fairness.group_limits import crowd

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

METHOD = "verdicts"
# Lengths are counted in words or tokens, of which one changes nothing that could be seen.
_PER = 100.0
_RATES = (("sensitivity", 1), ("specificity", 0))


class Judge(BaseProbe):
    """By what else than the answer a judge is moved: the place it stands at, its length, its author, whom it is about.

    The audited model is the judge, its decisions are its verdicts on texts or pairs (``--predictions FILE --predicted
    COLUMN``), and the label is a person's verdict (``--target COLUMN``). Rows with the same ``item`` are the same text
    or pair, judged again. A verdict is on the item and not on the place: of a pair it names the text. Of each item one
    row is drawn for what is compared between items, so that rows are independent.

    - ``position_bias``, over items that were judged at two places:
      :class:`~auditor.statistics.means.WorstPairedDifference`. A verdict that changes by chance alone moves it to no
      side. ``position_flip_rate`` counts such changes too.
    - ``retest_disagreement``, over items that were judged twice at one place.
    - ``length_slope``: of rows with the same label one of the longer half is paired with one of the shorter half, by
      chance, and the mean difference of the scores, or of the verdicts where there are none, is divided by that of the
      lengths (:class:`~auditor.statistics.values.BoundedMean`), given the lengths at hand.
    - ``sensitivity_difference``, ``specificity_difference``: between the groups of ``--sensitive``
      (:class:`~auditor.statistics.groups.WorstDifference`).
    - ``self_preference``: at equal label (:class:`~auditor.statistics.rates.WeightedSum`).

    item, position, length, author: columns of what was judged, where it stood, how long it is, and who wrote it.
    own: the author that is the judge itself.

    Source: Zheng et al., Judging LLM-as-a-Judge, NeurIPS 2023 (arXiv:2306.05685); Panickssery et al., NeurIPS 2024
    (arXiv:2404.13076), for self-preference.
    """

    name = "judge"
    pillar = "performance"
    goal = "Is the judge moved by anything but the answer?"
    citation = "Zheng et al., Judging LLM-as-a-Judge, NeurIPS 2023"
    methods = (METHOD,)
    needs = (Need.CLASSIFIER, Need.DATA)
    questions = (
        AuditQuestion("judge", metrics=("length_slope",), form="number"),
        AuditQuestion("judge", form="points", headline=("position_bias", "sensitivity_difference")),
    )
    ideal_when_same = {
        name: "decisions"
        for name in (
            *("position_bias", "position_flip_rate", "retest_disagreement", "length_slope", "self_preference"),
            *("sensitivity", "specificity", "sensitivity_difference", "specificity_difference"),
        )
    }
    untrusted_options = allow_untrusted("item", "position", "length", "author", "own")
    metrics = define_metrics(
        """
        position_bias: the largest difference between two places in the share of the same items with the favourable
          verdict; [0, 1], ideal 0; at 0.2 the place alone makes the verdict in one item of five
        position_flip_rate: share of items with another verdict at another place; [0, 1], ideal 0; at 0.2 one verdict in
          five is another one; it holds what retest_disagreement holds
        retest_disagreement: share of items with another verdict at the same place, asked again; [0, 1], ideal 0; at 0.1
          one verdict in ten is chance
        length_slope: by how much the score rises with 100 more units of length at the same label; (-inf, inf), ideal 0;
          at 0.1 a text of 300 words more gets 0.3 more
        sensitivity: share of items that a person found favourable and the judge too; [0, 1], ideal 1; at 0.9 the judge
          misses one in ten
        specificity: share of items that a person found not favourable and neither did the judge; [0, 1], ideal 1; at
          0.9 one in ten is a false alarm
        sensitivity_difference, specificity_difference: the largest difference of it between two groups; [0, 1], ideal
          0; at 0.1 the judge misses ten in 100 more of one group than of another; Hardt et al., NeurIPS 2016
        self_preference: by how much more often its own texts get the favourable verdict than others' at the same label;
          [-1, 1], ideal 0; at 0.1 ten of its own texts in 100 more; Panickssery et al., NeurIPS 2024
        """
    )

    def __init__(
        self,
        *,
        item: str | None = None,
        position: str | None = None,
        length: str | None = None,
        author: str | None = None,
        own: str | None = None,
    ) -> None:
        self.item, self.position, self.length, self.author, self.own = item, position, length, author, own

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements of the verdicts; ``rng`` draws the row of each item and the pairs of lengths."""
        if (self.item, self.length, self.author) == (None, None, None):
            raise OtherKindError(
                "Needs verdicts of a judge: --set judge.item=COLUMN (with judge.position=COLUMN), judge.length=COLUMN "
                "or judge.author=COLUMN with judge.own=NAME."
            )
        if (self.author is None) != (self.own is None):
            raise ConfigError("judge.author and judge.own are given together: the column, and the judge's name in it.")
        rows = self._rows(model, data, rng)
        found = [*self._repeats(rows), *_rates(rows, data)]
        if self.length is not None:
            lengths = _numbers(_column(data, self.length), self.length)[rows.order]
            found.append(_slope(rows, lengths, rng))
        if self.author is not None:
            authors = _column(data, self.author).astype(str)[rows.order]
            found.append(_self_preference(rows, np.asarray(authors == str(self.own)), str(self.own)))
        return found

    def _rows(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> _Rows:
        # By chance, so that of an item's rows the first is a random one.
        order = rng.permutation(len(data))
        decided = model.decisions(data)[order]
        last = len(model.classes) - 1 if len(model.classes) == 2 else None
        favourable = data.positive if data.positive is not None else last
        if favourable is None:
            raise NotApplicableError("Needs to know which verdict is favourable: add --positive VERDICT.")
        labels = np.full(len(data), -1) if data.y_true is None else data.y_true[order]
        items = np.arange(len(data)) if self.item is None else _codes(_column(data, self.item))[order]
        places = np.full(len(data), "") if self.position is None else _places(data, self.position)[order]
        return _Rows(
            order=order,
            items=items,
            places=places,
            decided=decided,
            verdicts=np.asarray(decided == favourable),
            scores=_scores(model, data, favourable, decided, order),
            truth=np.where(labels < 0, -1, labels == favourable),
        )

    def _repeats(self, rows: _Rows) -> Iterator[Measurement]:
        """What becomes of the same item at another place, and asked again."""
        if self.item is None:
            return
        kept = rows.repeats()
        if self.position is not None:
            yield _measurement("position_bias", _bias(rows), len(rows.order))
            flips = [len({rows.decided[i] for i in own}) > 1 for own in rows.by_place() if len(own) > 1]
            n, none = len(flips), Undefined(reason="no item was judged at two places")
            yield _measurement("position_flip_rate", Proportion(successes=sum(flips), n=n) if n else none, n)
        if kept:
            differ = sum(rows.decided[a] != rows.decided[b] for a, b in kept)
            yield _measurement("retest_disagreement", Proportion(successes=int(differ), n=len(kept)), len(kept))


@dataclass(frozen=True, eq=False)
class _Rows:
    """Verdicts in the ``order`` drawn, (n,) each: ``truth`` is 1, 0, or -1 where no person said anything."""

    order: IntArray
    items: IntArray
    places: Any
    decided: IntArray
    verdicts: BoolArray
    scores: FloatArray
    truth: IntArray

    @property
    def first(self) -> IntArray:
        """One row of each item."""
        return np.sort(np.unique(self.items, return_index=True)[1])

    def by_place(self) -> list[list[int]]:
        """Of each item one row at each of its places."""
        held: dict[int, dict[str, int]] = {}
        for i, (item, place) in enumerate(zip(self.items.tolist(), self.places.tolist(), strict=True)):
            held.setdefault(item, {}).setdefault(place, i)
        return [list(own.values()) for own in held.values()]

    def repeats(self) -> list[tuple[int, int]]:
        """Of each item that has them two rows at one place."""
        seen: dict[tuple[int, str], int] = {}
        pairs: dict[int, tuple[int, int]] = {}
        for i, key in enumerate(zip(self.items.tolist(), self.places.tolist(), strict=True)):
            if key in seen:
                pairs.setdefault(key[0], (seen[key], i))
            seen.setdefault(key, i)
        return list(pairs.values())


def _measurement(metric: str, estimate: AnyEstimate, n: int, detail: str = "", **more: Any) -> Measurement:
    ideal = 1.0 if metric in dict(_RATES) else 0.0
    return Measurement(metric=metric, method=METHOD, estimate=estimate, n_samples=n, ideal=ideal, detail=detail, **more)


def _column(data: AuditData, name: str) -> Any:
    """(n,) the values of a column of the rows. Raises ConfigError for one that is not there."""
    import pandas as pd

    tables = [t for t in (data.X, data.sensitive_features) if isinstance(t, pd.DataFrame)]
    for table in tables:
        if name in table.columns:
            return table[name].to_numpy(object)
    near = did_you_mean(name, [str(c) for table in tables for c in table.columns])
    raise ConfigError(
        f"The rows have no column {name!r}{near or '.'} A column that names each row once was left out: --features "
        "keeps it."
    )


def _places(data: AuditData, name: str) -> Any:
    """(n,) where each text stood. Raises ConfigError where that is not known of all."""
    import pandas as pd

    values = _column(data, name)
    if empty := int(pd.isna(values).sum()):
        raise ConfigError(
            f"The column {name!r} is empty in {empty:,} rows: say where each text stood, or leave these rows out."
        )
    return values.astype(str)


def _codes(values: Any) -> IntArray:
    import pandas as pd

    codes, _ = pd.factorize(values, use_na_sentinel=True)
    # What has no name is no repeat of anything.
    return np.where(codes < 0, len(codes) + np.arange(len(codes)), codes)


def _numbers(values: Any, name: str) -> FloatArray:
    import pandas as pd

    numbers = pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").to_numpy(np.float64)
    if len(numbers) and not np.isfinite(numbers).any():
        raise ConfigError(f"The column {name!r} holds no numbers, and a length is one.")
    return np.asarray(numbers, np.float64)


def _scores(model: AuditedModel, data: AuditData, favourable: int, decided: IntArray, order: IntArray) -> FloatArray:
    """(n,) the probability of the favourable verdict, or the verdict where there is none."""
    try:
        return np.asarray(model.outputs(data)[order, favourable], np.float64)
    except NotApplicableError:
        return np.asarray(decided == favourable, np.float64)


def _bias(rows: _Rows) -> AnyEstimate:
    groups = [own for own in rows.by_place() if len(own) > 1]
    found: dict[tuple[str, str], list[float]] = {}
    for own in groups:
        for a, b in combinations(sorted(own, key=lambda i: str(rows.places[i])), 2):
            key = str(rows.places[a]), str(rows.places[b])
            found.setdefault(key, []).append(float(rows.verdicts[a]) - float(rows.verdicts[b]))
    pairs: Sequence[PairedDifference] = [
        paired_difference(first=a, second=b, differences=d) for (a, b), d in sorted(found.items()) if len(d) > 1
    ]
    if not pairs:
        return Undefined(reason="fewer than two items were judged at two places")
    # Two places that each stand beside a third may still differ from each other.
    lost = len(pairs) < comb(len(set(rows.places.tolist())), 2)
    return WorstPairedDifference(pairs=tuple(pairs), uncompared=lost)


def _rates(rows: _Rows, data: AuditData) -> Iterator[Measurement]:
    """Sensitivity and specificity, of all items and by group; nothing without a person's labels."""
    if data.y_true is None:
        return
    first = rows.first
    right = rows.verdicts[first] == (rows.truth[first] == 1)
    features = [] if data.sensitive_features is None else [str(name) for name in data.sensitive_features.columns]
    for metric, value in _RATES:
        own = rows.truth[first] == value
        detail = f"one row of each of {len(first):,} items"
        yield _measurement(metric, Proportion(successes=int(right[own].sum()), n=int(own.sum())), len(first), detail)
        for feature in features:
            groups = data.groups(feature)
            if crowded := crowd(f"{metric}_difference", METHOD, (feature,), len(groups.levels), len(first)):
                yield crowded
                continue
            codes = groups.codes[rows.order][first]
            parts = [own & (codes == code) for code in range(len(groups.levels))]
            k, n = [int(right[part].sum()) for part in parts], [int(part.sum()) for part in parts]
            estimate: AnyEstimate = Undefined(reason="only one group is present: there is nothing to compare it with")
            if len(parts) > 1:
                estimate = WorstDifference(tables=(RateTable(rate=metric, successes=tuple(k), n=tuple(n)),))
            yield _measurement(f"{metric}_difference", estimate, len(first), detail, sensitive=(feature,))
            for code, (level,) in enumerate(groups.levels):
                rate = Proportion(successes=k[code], n=n[code])
                yield _measurement(metric, rate, int((codes == code).sum()), group={feature: level}, part=True)


def _slope(rows: _Rows, lengths: FloatArray, rng: np.random.Generator) -> Measurement:
    """The rise of the score with length at the same label, from pairs of a longer and a shorter text."""
    first = rows.first
    first = first[np.isfinite(lengths[first])]
    gaps, rises = [], []
    for value in (0, 1):
        own = first[rows.truth[first] == value]
        # A stable sort of rows in a random order: of equal lengths chance says which half they are in.
        own = own[np.argsort(lengths[own], kind="stable")]
        half = len(own) // 2
        short, long = rng.permutation(own[:half]), rng.permutation(own[len(own) - half :])
        gaps.append(lengths[long] - lengths[short])
        rises.append(rows.scores[long] - rows.scores[short])
    gap, rise = np.concatenate(gaps), np.concatenate(rises)
    if not gap.size or not gap.mean() > 0.0:
        reason = "there are no two items with the same label and another length"
        return _measurement("length_slope", Undefined(reason=reason), len(first))
    by = _PER / float(gap.mean())
    estimate = bounded_mean(rise * by, low=-by, high=by)
    return _measurement(
        "length_slope",
        estimate,
        len(first),
        f"{gap.size:,} pairs with the same label, {gap.mean():.4g} apart in length",
    )


def _self_preference(rows: _Rows, own: BoolArray, name: str) -> Measurement:
    first = rows.first
    mine, truth, verdicts = own[first], rows.truth[first], rows.verdicts[first]
    weights, k, n = [], [], []
    for value in (0, 1):
        parts = [(truth == value) & side for side in (mine, ~mine)]
        share = parts[0].sum() / max(int((mine & (truth >= 0)).sum()), 1)
        if not share:
            continue
        for part, sign in zip(parts, (1.0, -1.0), strict=True):
            weights.append(sign * float(share))
            k.append(int(verdicts[part].sum()))
            n.append(int(part.sum()))
    if not n or not all(n):
        reason = f"there are no labelled texts of {name!r}, or none of others with the same labels"
        return _measurement("self_preference", Undefined(reason=reason), len(first))
    table = RateTable(rate="favourable_verdict", successes=tuple(k), n=tuple(n))
    detail = f"{int(mine.sum()):,} texts of {len(first):,} are by {name}"
    return _measurement("self_preference", WeightedSum(weights=tuple(weights), table=table), len(first), detail)
