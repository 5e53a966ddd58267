"""What the change probe counts of two models' decisions, without asking anybody: for worlds by the hundred."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Outcome
from auditor.models.audited_model import AuditedModel
from auditor.report.comparing.side_by_side import Both, of_rate
from auditor.report.comparing.usefulness import Usefulness, usefulness
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.earlier_audits import key_of
from auditor.run.run_audit import run_audit
from auditor.statistics.changes import GapChange, PairedRates, RateChange
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.groups import WorstDifference
from auditor.statistics.rates import Proportion
from probes.fairness.change_since_reference import Change

Flags = npt.NDArray[np.bool_]


def paired_counts(
    y: npt.NDArray[np.int64],
    before: npt.NDArray[np.int64],
    after: npt.NDArray[np.int64],
    groups: Mapping[str, npt.NDArray[np.str_]],
) -> Both:
    """The findings of both audits of rows with these labels and decisions, 0 or 1, (n,) each."""
    decided = np.stack([before, after])
    base = max(int(y.sum()), int((1 - y).sum()))
    first, second = (
        _by_key(
            [
                _finding("performance", "base_rate", Proportion(successes=base, n=y.size), method="held_out_rows"),
                *_gaps(y, side, groups),
            ]
        )
        for side in decided
    )
    return Both(some_audit(), first, second, _by_key(list(_changes(y, decided, groups))))


def useful(both: Both, *, margin: float = 0.02) -> Usefulness:
    """The family as a comparison at 5 % judges it."""
    (accuracy,) = both.of_all("accuracy")
    return usefulness(
        both, some_audit(), headline=of_rate(accuracy, 0.0125), margin=margin, alpha=0.0125, error_rate=0.05
    )


@cache
def some_audit() -> AuditReport:
    """An audit of two classes, for what is said of the data."""
    model = AuditedModel.from_callable(lambda X: X["x"].to_numpy(float), classes=[0, 1])
    data = AuditData.from_arrays(pd.DataFrame({"x": [0.0, 1.0]}), [0, 1], classes=[0, 1])
    return run_audit(model, data, [Change(reference=model)], [])


def _by_key(findings: list[Finding]) -> dict:  # type: ignore[type-arg]
    return {key_of(f): f for f in findings}


def _finding(
    probe: str,
    metric: str,
    estimate: AnyEstimate,
    *,
    method: str = "paired",
    group: dict[str, str] | None = None,
    at: dict[str, str | float] | None = None,
    sensitive: tuple[str, ...] = (),
    ideal: float | None = None,
) -> Finding:
    return Finding.model_construct(
        id=metric, probe=probe, method=method, pillar="performance" if probe == "performance" else "fairness",
        metric=metric, group=group or {}, at=at or {}, sensitive=sensitive, ideal=ideal, value=estimate.value,
        n_samples=None, outcome=Outcome.NOT_JUDGED,
        criterion=None, vacuous="", chance=None, estimate=estimate,
    )  # fmt: skip


def _rate(event: npt.NDArray[np.bool_], where: Flags) -> RateChange:
    before, after = event[:, where]
    return RateChange(
        before=int(before.sum()), gained=int((after & ~before).sum()), lost=int((before & ~after).sum()), n=before.size
    )


def _changes(
    y: npt.NDArray[np.int64], decided: npt.NDArray[np.int64], groups: Mapping[str, npt.NDArray[np.str_]]
) -> Iterator[Finding]:
    every = np.ones(y.size, bool)
    right, chosen = decided == y, decided == 1
    yield _finding("change", "accuracy_change", _rate(right, every))
    for code in (0, 1):
        yield _finding("change", "recall_change", _rate(decided == code, y == code), at={"class": str(code)})
        yield _finding("change", "decision_share_change", _rate(decided == code, every), at={"decision": str(code)})
    rates = {
        "accuracy": (right, every), "selection_rate": (chosen, every), "true_positive_rate": (chosen, y == 1),
        "false_positive_rate": (chosen, y == 0),
    }  # fmt: skip
    gaps = {
        "demographic_parity_difference": ("selection_rate",), "accuracy_difference": ("accuracy",),
        "equal_opportunity_difference": ("true_positive_rate",),
        "false_positive_rate_difference": ("false_positive_rate",),
        "equalized_odds_difference": ("true_positive_rate", "false_positive_rate"),
    }  # fmt: skip
    for features, codes, names in _groupings(groups):
        table = {}
        for rate, (event, where) in rates.items():
            parts = [_rate(event, where & (codes == i)) for i in range(len(names))]
            for name, part in zip(names, parts, strict=True):
                yield _finding("change", f"{rate}_change", part, group=dict(zip(features, name, strict=True)))
            columns = {c: tuple(getattr(p, c) for p in parts) for c in ("before", "gained", "lost", "n")}
            table[rate] = PairedRates(rate=rate, **columns)
        for metric, of in gaps.items():
            change = GapChange(rates=tuple(table[rate] for rate in of))
            yield _finding("change", f"{metric}_change", change, sensitive=features)


def _gaps(
    y: npt.NDArray[np.int64], side: npt.NDArray[np.int64], groups: Mapping[str, npt.NDArray[np.str_]]
) -> Iterator[Finding]:
    """The gaps of one audit, of which a comparison takes the paired changes."""
    for change in _changes(y, np.stack([side, side]), groups):
        if isinstance(change.estimate, GapChange):
            tables = tuple(rate.table(after=True) for rate in change.estimate.rates)
            metric = str(change.metric).removesuffix("_change")
            yield _finding(
                "group_fairness",
                metric,
                WorstDifference(tables=tables),
                method="between_groups",
                sensitive=change.sensitive,
                ideal=0.0,
            )


def _groupings(
    groups: Mapping[str, npt.NDArray[np.str_]],
) -> Iterator[tuple[tuple[str, ...], npt.NDArray[np.int64], list[tuple[str, ...]]]]:
    columns = list(groups)
    for features in [*((c,) for c in columns), *(list(combinations(columns, len(columns))) if columns[1:] else [])]:
        keys = list(zip(*(groups[f].tolist() for f in features), strict=True))
        names = sorted(set(keys))
        place = {name: i for i, name in enumerate(names)}
        yield features, np.asarray([place[key] for key in keys]), names
