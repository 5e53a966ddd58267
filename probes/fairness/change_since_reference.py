"""Change from another model: differences in accuracy and in group gaps, on the same rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import LacksOptionError, NotApplicableError, UsageError
from auditor.core.rows import BoolArray, IntArray
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.changes import GapChange, PairedRates, RateChange
from auditor.statistics.detection import area_difference
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from probes.probe_inputs import load_reference

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

_MOST_CLASSES = 100


class Change(BaseProbe):
    """Changes between a reference model and this one, row by row on the same data.

    Of each row it is known what either model decided, so a change is known far better than the difference of two audits
    would tell. ``after - before``, each in [-1, 1]: ``accuracy_change``, ``recall_change``, ``roc_auc_change``,
    ``decision_share_change``, ``selection_rate_change``, ``true_positive_rate_change``, ``false_positive_rate_change``,
    ``demographic_parity_difference_change``, ``equal_opportunity_difference_change``,
    ``false_positive_rate_difference_change``, ``equalized_odds_difference_change`` and ``accuracy_difference_change``.

    - ``recall_change``: At most 100 classes. Their mean is the change of balanced accuracy.
    - ``roc_auc_change``: Two classes with scores; :class:`~auditor.statistics.detection.AreaDifference`.
    - ``decision_share_change``: Of at most 100 decisions, the commonest that either model makes; one that all rows get
      is the only one.

    Nothing is judged without a criterion of yours, such as ``accuracy_change`` at least -0.02.

    reference: the model before, a path or a model of the same classes. Raises NotApplicableError without one,
    UsageError where its classes differ.

    Source: McNemar, Psychometrika 12 (1947), for paired proportions; :mod:`auditor.statistics.changes` for the bounds.
    """

    name = "change"
    pillar = "fairness"
    goal = "What became of accuracy and of the gaps between groups since a reference model?"
    citation = "McNemar, Psychometrika 12 (1947)"
    methods = ("paired",)
    needs = (Need.CLASSIFIER, Need.DATA)
    questions = (AuditQuestion("change"),)
    # Labelled rows, of which 5 % change either way, and the change in accuracy found with 80 % power at 5 % of 1.
    power = (2_000, 0.02)
    untrusted_options = allow_untrusted(reads=("reference",))
    metrics = define_metrics(
        """
        accuracy_change: accuracy of this model less that of the reference, on the same labelled rows; [-1, 1], no
          ideal; at -0.02 two decisions in 100 more are wrong than before; McNemar, Psychometrika 12 (1947), for paired
          proportions
        recall_change: of a class, the share of its rows that is recognised, less what it was; [-1, 1], no ideal; at
          -0.02 two rows in 100 of the class are no longer recognised; McNemar, Psychometrika 12 (1947), for paired
          proportions
        roc_auc_change: P(a row of the favourable class scores above another) + P(tie) / 2, less what it was; [-1, 1],
          no ideal; at -0.02 two pairs in 100 more are ranked wrongly; DeLong et al., Biometrics 44 (1988)
        decision_share_change: share of all rows that get this decision, less what it was; [-1, 1], no ideal; at 0.02
          two rows in 100 more get it; McNemar, Psychometrika 12 (1947), for paired proportions
        selection_rate_change, true_positive_rate_change, false_positive_rate_change: of a group, that rate less what it
          was; [-1, 1], no ideal; at 0.02 two in 100 more of those rows are decided favourably; McNemar, Psychometrika
          12 (1947), for paired proportions
        demographic_parity_difference_change, equal_opportunity_difference_change,
          false_positive_rate_difference_change, equalized_odds_difference_change, accuracy_difference_change: the
          largest gap of that rate between two groups, less what it was; [-1, 1], no ideal; below 0 the gap has closed,
          above it has opened; McNemar, Psychometrika 12 (1947), for paired proportions, and fairlearn for the gaps
        """
    )

    def __init__(self, *, reference: str | AuditedModel | None = None) -> None:
        self.reference = reference

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements over the evaluation rows; draws nothing from ``rng``."""
        if self.reference is None:
            raise LacksOptionError("Needs a model to compare with: add --reference MODEL.")
        before, whose = load_reference(self.reference, model)
        if before.classes != model.classes:
            raise UsageError(
                f"The reference has the classes {', '.join(before.classes[:6])}, this model "
                f"{', '.join(model.classes[:6])}: compare models that answer the same question."
            )
        rows = data.evaluation
        decided = np.stack([of_reference(before, model, rows, "decisions"), model.decisions(rows)])
        detail = f"since {whose}"
        return [
            *_measurements(_Decisions(decided, rows), rows, detail),
            *_by_class(decided, rows, rows.classes or model.classes, detail),
            *_ranked(before, model, rows, detail),
        ]


class _Decisions:
    """What both models decided: ``correct`` and ``selected`` are (2, n), before and after; None where unknown."""

    def __init__(self, decided: IntArray, rows: AuditData) -> None:
        y = rows.y_true
        self.n = decided.shape[1]
        self.labelled: BoolArray = np.zeros(self.n, bool) if y is None else y >= 0
        self.correct: BoolArray = np.zeros((2, self.n), bool) if y is None else decided == y
        self.selected: BoolArray | None = None if rows.positive is None else decided == rows.positive
        self.favourable: BoolArray = np.zeros(self.n, bool) if y is None else y == rows.positive


def of_reference(before: AuditedModel, after: AuditedModel, rows: AuditData, method: str) -> Any:
    """The reference's decisions (n,) or scores; on rows of a gated model it gets only its own part."""
    from auditor.models.gated_model import GatedModel
    from auditor.models.postprocessing import PostprocessedModel

    if isinstance(after, PostprocessedModel) and before is after.base:
        return getattr(before, method)(replace(rows, X=after.base_rows(rows.X)))
    if not isinstance(after, GatedModel) or isinstance(before, GatedModel) or after.rows.has_same_input:
        return getattr(before, method)(rows)
    if before.preprocessing != after.base.preprocessing:
        raise UsageError(
            "The reference reads files in another way than the model behind the gate: compare it with that model."
        )
    return getattr(before, method)(replace(rows, X=after.base_rows(rows.X)))


def _by_class(decisions: IntArray, rows: AuditData, classes: Sequence[str], detail: str) -> Iterator[Measurement]:
    """What became of each class's recall and of each decision's share; ``decisions`` (2, n)."""
    every = np.ones(decisions.shape[1], bool)
    if rows.y_true is not None:
        for code in np.unique(rows.y_true[rows.y_true >= 0]).tolist()[:_MOST_CLASSES]:
            own = rows.y_true == code
            yield replace(_rate("recall_change", decisions == code, own, detail), at={"class": classes[code]})
    made = np.stack([np.bincount(side, minlength=len(classes)) for side in decisions]).max(axis=0)
    for code in sorted(np.argsort(-made, kind="stable")[:_MOST_CLASSES].tolist()):
        if made[code]:
            share = _rate("decision_share_change", decisions == code, every, detail)
            yield replace(share, at={"decision": classes[code]})


def _ranked(before: AuditedModel, after: AuditedModel, rows: AuditData, detail: str) -> Iterator[Measurement]:
    """What became of the area under the curve of two classes; nothing where either model has no scores."""
    y = rows.y_true
    if y is None or after.n_outputs != 2:
        return
    try:
        scores = [of_reference(before, after, rows, "scores"), after.scores(rows)]
    except NotApplicableError:
        return
    labelled, positive = y >= 0, after.n_outputs - 1 if rows.positive is None else rows.positive
    old, new = (side[labelled, positive] for side in scores)
    estimate = area_difference(first=new, second=old, positive=y[labelled] == positive)
    yield Measurement(
        metric="roc_auc_change", method="paired", estimate=estimate, n_samples=int(labelled.sum()), detail=detail
    )


def _measurements(both: _Decisions, rows: AuditData, detail: str) -> Iterator[Measurement]:
    if rows.y_true is not None:
        yield _rate("accuracy_change", both.correct, both.labelled, detail)
    groups = rows.sensitive_features
    if groups is None:
        return
    columns = [str(c) for c in groups.columns]
    for features in [(c,) for c in columns] + ([tuple(columns)] if len(columns) > 1 else []):
        keys = list(map(tuple, groups[list(features)].astype(str).itertuples(index=False)))
        names = sorted(set(keys))
        place = {name: i for i, name in enumerate(names)}
        codes = np.asarray([place[key] for key in keys], np.int64)
        yield from _gaps(both, codes, len(names), features, detail)
        for i, name in enumerate(names):
            group = dict(zip(features, name, strict=True))
            if rows.y_true is not None:
                yield _rate("accuracy_change", both.correct, both.labelled & (codes == i), detail, group)
            if both.selected is not None:
                yield _rate("selection_rate_change", both.selected, codes == i, detail, group)
                for rate, where in (("true", both.favourable), ("false", ~both.favourable)):
                    own = both.labelled & where & (codes == i)
                    if both.labelled.any():
                        # Of the group's rows, as group_fairness has it, whatever the rate is over.
                        of = int((both.labelled & (codes == i)).sum())
                        made = _rate(f"{rate}_positive_rate_change", both.selected, own, detail, group)
                        yield replace(made, n_samples=of)


def _rate(
    metric: str, event: BoolArray, where: BoolArray, detail: str, group: dict[str, str] | None = None
) -> Measurement:
    before, after = event[:, where]
    n = int(where.sum())
    estimate: AnyEstimate = RateChange(
        before=int(before.sum()), gained=int((after & ~before).sum()), lost=int((before & ~after).sum()), n=n
    )
    if n:
        detail = f"{before.mean():.3f} before, {after.mean():.3f} after; {detail}"
    return Measurement(
        metric=metric,
        method="paired",
        estimate=estimate if n else Undefined(reason="there are no rows to take the rate over"),
        n_samples=n,
        group=group or {},
        detail=detail,
    )


def _gaps(
    both: _Decisions, codes: IntArray, n_groups: int, features: tuple[str, ...], detail: str
) -> Iterator[Measurement]:
    tables: list[tuple[str, list[PairedRates], int]] = []
    labelled = int(both.labelled.sum())
    if both.selected is not None:
        every = np.ones(both.n, bool)
        selection = _paired_rates("selection_rate", both.selected, every, codes, n_groups)
        tables.append(("demographic_parity_difference_change", [selection], both.n))
        if both.labelled.any():
            tpr = _paired_rates("true_positive_rate", both.selected, both.labelled & both.favourable, codes, n_groups)
            fpr = _paired_rates("false_positive_rate", both.selected, both.labelled & ~both.favourable, codes, n_groups)
            tables.append(("equal_opportunity_difference_change", [tpr], labelled))
            tables.append(("false_positive_rate_difference_change", [fpr], labelled))
            tables.append(("equalized_odds_difference_change", [tpr, fpr], labelled))
    if both.labelled.any():
        accuracy = _paired_rates("accuracy", both.correct, both.labelled, codes, n_groups)
        tables.append(("accuracy_difference_change", [accuracy], labelled))
    for metric, rates, n in tables:
        yield Measurement(
            metric=metric,
            method="paired",
            estimate=_gap(rates, n_groups),
            n_samples=n,
            ideal=None,
            sensitive=features,
            detail=detail,
        )


def _gap(rates: list[PairedRates], n_groups: int) -> AnyEstimate:
    if n_groups < 2:
        return Undefined(reason="only one group is present, so there is nothing to compare it with")
    if any(not n for rate in rates for n in rate.n):
        return Undefined(reason="a group has no rows to take the rate over (0/0)")
    return GapChange(rates=tuple(rates))


def _paired_rates(name: str, event: BoolArray, where: BoolArray, codes: IntArray, n_groups: int) -> PairedRates:
    before, after = event

    def count(mask: BoolArray) -> tuple[int, ...]:
        return tuple(np.bincount(codes[mask & where], minlength=n_groups).tolist())

    return PairedRates(
        rate=name,
        before=count(before),
        gained=count(after & ~before),
        lost=count(before & ~after),
        n=count(np.ones_like(where)),
    )
