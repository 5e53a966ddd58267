"""``auditor explain`` in the sandboxed process: reasons, recourse and neighbours of single rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import ModelError, UsageError
from auditor.core.rows import BoolArray, Rows
from auditor.judging.row_explanations import (
    MOST_REASONS,
    Change,
    Effect,
    ExplainedRow,
    Faithfulness,
    Neighbour,
    ReasonCode,
    Recourse,
    RecourseSearch,
    SensitiveNote,
    Value,
)
from auditor.loading.job_specs import ExplainSpec
from probes.attribution.attribution_task import pose
from probes.attribution.attribution_units import feature_names
from probes.fairness.proxies import Association, screen
from probes.fairwashing import RealRows
from probes.probe_inputs import as_frame
from probes.reasons.feature_actions import Scaled, actions, held_columns, indicators, nearest, parse_monotone
from probes.reasons.reason_tests import (
    LEVEL,
    N_DRAWS,
    Drawn,
    Masked,
    decided_by_what_is_shown,
    draw_attributions,
    grade,
    masked_table,
    masked_units,
)
from probes.reasons.recourse import Flip, apply_changes, search
from probes.robustness.table_noise import numeric_names

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# Fewer say too little of what is typical, so that all rows are asked in their place.
FEWEST_TYPICAL = 20
MOST_TYPICAL = 200
# Of the draws, how many a feature must speak for the decision in to be called a reason for it.
SURE = 0.95
# Of all that speaks for it, what a single reason must be.
LEAST_SHARE = 0.01
N_NEIGHBOURS = 5
# Of a favourable decision that is no draw.
_CERTAIN = 1.0 - 1e-9
_LONGEST = 80


@dataclass(frozen=True, eq=False)
class _Table:
    """What all rows' explanations share: the data, which rows are decided favourably, and how far rows lie apart.

    ``by_chance``: whether decisions are drawn where the favourable probability lies between 0 and 1.
    """

    model: AuditedModel
    data: AuditData
    positive: int
    favourable: BoolArray
    by_chance: bool
    real: RealRows | str
    scaled: Scaled | None
    fixed: frozenset[str]
    proxies: tuple[Association, ...]
    spec: ExplainSpec

    @property
    def tabular(self) -> bool:
        return self.data.modality == "tabular"

    def wished(self, X: Rows) -> BoolArray:
        """(m,) whether rows are decided favourably, and not by the luck of a draw."""
        probabilities = self.model.predict_proba(X)
        decided = self.model.decide_rows(X, probabilities, self.positive) == self.positive
        return np.asarray(
            decided & (probabilities[:, self.positive] >= _CERTAIN) if self.by_chance else decided, np.bool_
        )


def explain(
    spec: ExplainSpec,
    model: AuditedModel,
    data: AuditData,
    rng: np.random.Generator,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[ExplainedRow]:
    """Explain each of the requested rows, in order; ``spec`` counts them from 1.

    Raises UsageError for a row, a column or an answer that there is none of, ModelError for a model that decides
    nothing.
    """
    table = _prepared(spec, model, data, rng, progress)
    for number in spec.rows:
        progress(f"row {number:,}")
        yield _explained(table, number - 1, rng)


def _prepared(
    spec: ExplainSpec,
    model: AuditedModel,
    data: AuditData,
    rng: np.random.Generator,
    progress: Callable[[str], None],
) -> _Table:
    if model.kind != "classifier" or model.n_outputs < 2:
        raise ModelError(
            "There is no decision to give reasons for: this explains a choice between two or more classes."
        )
    if data.modality not in ("tabular", "text"):
        raise UsageError(
            "Reasons are given for rows of a table and for texts; of pictures auditor scan --probes "
            "feature_attribution shows where they lie."
        )
    if data.positive is None:
        raise UsageError(f"Say which answer is the favourable one: --positive {model.classes[-1]}.")
    for number in spec.rows:
        if not 1 <= number <= len(data):
            raise UsageError(f"There is no row {number:,}: the data have rows 1 to {len(data):,}, without the header.")
    monotone = parse_monotone(spec.monotone)
    fixed: frozenset[str] = frozenset()
    scaled = None
    proxies: tuple[Association, ...] = ()
    decided = model.decisions(data)
    favourable = np.asarray(decided == data.positive, np.bool_)
    by_chance = bool((decided != model.decide(model.outputs(data), data.positive, data.X)).any())
    real: RealRows | str = ""
    if data.modality == "tabular":
        fixed = held_columns(model, data, spec.immutable, monotone)
        frame = as_frame(data.X, model.features)
        scaled = Scaled.from_frame(frame, frozenset(map(str, numeric_names(model, frame))))
        if data.sensitive_features is not None:
            proxies = screen(frame, data.sensitive_features, rng).proxies
        progress("real rows against mixed ones")
        real = decided_by_what_is_shown(model, data, data.positive, rng)
    elif spec.immutable or monotone:
        raise UsageError("--immutable and --monotone are about the columns of a table, and these rows are texts.")
    return _Table(model, data, data.positive, favourable, by_chance, real, scaled, fixed, proxies, spec)


def _explained(table: _Table, row: int, rng: np.random.Generator) -> ExplainedRow:
    own = table.data.take(slice(row, row + 1))
    probability = float(table.model.predict_proba(own.X)[0, table.positive])
    favourable = bool(table.favourable[row])
    sign = 1.0 if favourable else -1.0
    typical, words = _typical(table, row, rng)
    half = len(typical) // 2
    found = draw_attributions(
        table.model, own, typical.take(slice(0, half)) if table.tabular else own, table.positive, sign, rng,
        table.spec.draws or N_DRAWS[own.modality],
    )  # fmt: skip
    sure = _sure(found)
    chosen = [int(j) for j in found.order if sure[j]][: table.spec.n_reasons]
    ask, present = _masked_row(table, own, typical.take(slice(half, len(typical))), rng)
    verdict = _graded(table, ask, present, chosen, sign, rng)
    recourse = _recourse(table, row) if not favourable else RecourseSearch(none="the decision is favourable")
    same, other = _neighbours(table, row)
    return ExplainedRow(
        kind="feature" if table.tabular else "word",
        row=row + 1,
        decision=table.model.classes[int(table.model.decisions(table.data)[row])],
        favourable=favourable,
        probability=probability,
        method=found.method,
        n_draws=len(found.values),
        compared_with=words,
        explained=found.explained,
        reasons=() if verdict.refused else tuple(_reason(table, own, found, j) for j in chosen[:MOST_REASONS]),
        left_out=max(0, int(sure.sum()) - len(chosen)),
        faithfulness=verdict,
        sensitive=_sensitive(table, own, found, chosen, verdict, sign),
        recourse=recourse,
        same=same,
        other=other,
        notes=_notes(table),
    )


def _typical(table: _Table, row: int, rng: np.random.Generator) -> tuple[AuditData, str]:
    """Rows that say what is typical, in an order drawn: those decided otherwise, of which reasons speak; in words.

    The Official Interpretation of Regulation B, 12 CFR 1002.9(b)(2), compares with applicants who were approved, or
    with all of them.
    """
    if not table.tabular:
        return table.data.take(slice(row, row + 1)), "the text without its words"
    others = np.flatnonzero(table.favourable != table.favourable[row])
    favoured = "unfavourable" if table.favourable[row] else "favourable"
    words = f"{len(others):,} rows with a{'n' if favoured[0] == 'u' else ''} {favoured} decision"
    if len(others) < FEWEST_TYPICAL:
        few, others = len(others), np.flatnonzero(np.arange(len(table.data)) != row)
        words = f"all {len(others):,} other rows, since {few:,} are decided otherwise"
    if len(others) < FEWEST_TYPICAL:
        raise UsageError(
            f"{len(others) + 1:,} rows are too few to say what is typical: give at least {FEWEST_TYPICAL + 1}, such as "
            "those the model was tested on."
        )
    return table.data.take(rng.permutation(others)[:MOST_TYPICAL].astype(np.int64)), words


def _sure(draws: Drawn) -> BoolArray:
    """(d,) whether each feature speaks for the decision in nearly all draws, and with some weight."""
    for_it = float(np.maximum(draws.mean, 0.0).sum())
    often = (draws.values > 0.0).mean(axis=0) >= SURE
    return np.asarray(often & (draws.mean > max(LEAST_SHARE * for_it, 1e-300)), np.bool_)


def _masked_row(
    table: _Table, row: AuditData, typical: AuditData, rng: np.random.Generator
) -> tuple[Masked, BoolArray]:
    """How the row is asked about without some of its features, and which it has."""
    if table.tabular:
        names = as_frame(row.X, table.model.features).columns
        return masked_table(table.model, row, typical, table.positive), np.ones(len(names), np.bool_)
    units = pose(table.model, row, row, np.full(1, table.positive, np.int64), rng=rng).units
    return masked_units(units), units.present[0]


def _graded(
    table: _Table, ask: Masked, present: BoolArray, feature_indices: list[int], sign: float, rng: np.random.Generator
) -> Faithfulness:
    real = table.real
    if not feature_indices:
        return Faithfulness(
            refused=f"no feature speaks for the decision in {SURE:.0%} of the draws, so none is a reason for it",
            level=LEVEL,
        )
    verdict = grade(ask, _places(table, feature_indices), present, sign, rng, level=LEVEL)
    if isinstance(real, RealRows) and real.is_hidden:
        why = (
            "the model is not the same on real rows as on the mixed ones that every explanation asks about: "
            f"{real.describe()}"
        )
        return verdict.model_copy(update={"refused": "; ".join(filter(None, [why, verdict.refused]))})
    return verdict


def _places(table: _Table, feature_indices: list[int]) -> list[int]:
    """Places of the explained features among the columns of the table as the model is asked about it."""
    if not table.tabular:
        return feature_indices
    columns = [str(c) for c in as_frame(table.data.X, table.model.features).columns]
    names = feature_names(table.model, table.data)
    return [columns.index(names[j]) for j in feature_indices]


def _reason(table: _Table, row: AuditData, draws: Drawn, j: int) -> ReasonCode:
    low, high = draws.ends
    name = draws.names[j]
    value = _value(_cell(table, row, name)) if table.tabular else None
    rank = int(np.flatnonzero(draws.order == j)[0])
    return ReasonCode(
        feature=name[:_LONGEST] if not table.tabular else name,
        value=value,
        contribution=float(draws.mean[j]),
        low=float(low[j]),
        high=float(high[j]),
        at_rank=draws.times_at(rank, j),
        sensitive=name in _sensitive_names(table),
    )


def _cell(table: _Table, row: AuditData, name: str) -> Any:
    frame = as_frame(row.X, table.model.features)
    return frame[next(c for c in frame.columns if str(c) == name)].iloc[0]


def _value(cell: Any) -> Value:
    """A cell as JSON has it."""
    import pandas as pd

    if pd.isna(cell):
        return None
    plain = cell.item() if isinstance(cell, np.generic) else cell
    if isinstance(plain, float) and not np.isfinite(plain):
        return str(plain)
    if isinstance(plain, bool | int | float):
        return int(plain) if isinstance(plain, float) and plain.is_integer() and abs(plain) < 1e15 else plain
    return str(plain)[:_LONGEST]


def _sensitive_names(table: _Table) -> tuple[str, ...]:
    groups = table.data.sensitive_features
    return () if groups is None or not table.tabular else tuple(map(str, groups.columns))


def _sensitive(
    table: _Table, row: AuditData, draws: Drawn, feature_indices: list[int], verdict: Faithfulness, sign: float
) -> tuple[SensitiveNote, ...]:
    """What every sensitive feature that the model takes does, reason or not, and reasons that stand in for one."""
    shown = set() if verdict.refused else {draws.names[j] for j in feature_indices}
    notes = [
        SensitiveNote(feature=proxy.sensitive, effect="proxy", proxy=proxy.feature, strength=proxy.strength)
        for proxy in table.proxies
        if proxy.feature in shown and proxy.feature != proxy.sensitive
    ]
    for name in _sensitive_names(table):
        if name not in draws.names:
            continue
        j = draws.names.index(name)
        share = float(np.abs(draws.mean[j]) / max(float(np.abs(draws.mean).sum()), 1e-300))
        # Contributions are towards the decision, which of an unfavourable one is down.
        values = sign * draws.values[:, j]
        effect: Effect = "unclear"
        if verdict.refused:
            effect, share = "unknown", 0.0
        elif share < LEAST_SHARE:
            effect = "little"
        elif (values > 0.0).mean() >= SURE:
            effect = "raised"
        elif (values < 0.0).mean() >= SURE:
            effect = "lowered"
        value, is_reason = _value(_cell(table, row, name)), name in shown
        notes.append(SensitiveNote(feature=name, effect=effect, value=value, share=share, is_reason=is_reason))
    return tuple(notes)


def _recourse(table: _Table, row: int) -> RecourseSearch:
    if not table.tabular:
        return RecourseSearch(none="of a text it is not searched for")
    monotone = parse_monotone(table.spec.monotone)
    data, model = table.data, table.model
    able = actions(model, data, row, table.fixed, monotone)
    columns = [str(c) for c in as_frame(data.X, model.features).columns]
    fixed = tuple(name for name in columns if name not in {action.column for action in able})
    if not able:
        return RecourseSearch(fixed=fixed, none="every feature is fixed, or has nothing else to become")
    assert table.scaled is not None
    others, _ = nearest(table.scaled, row, table.favourable, N_DRAWS["text"])
    found = search(
        data.X, row, able, table.wished, others=others, features=model.features, budget=table.spec.budget,
        n_found=table.spec.n_recourses,
    )  # fmt: skip
    one = as_frame(data.X, model.features).iloc[[row]]
    proven = []
    for flip in found.flips:
        answers = apply_changes(one, data.X, able, flip)
        # Asked again, by itself: what a search found in a batch is only shown where it holds alone.
        if not bool(table.wished(answers)[0]):
            continue
        proven.append(_recourse_of(able, flip, float(model.predict_proba(answers)[0, table.positive])))
    return RecourseSearch(
        found=tuple(proven),
        asked=found.asked + len(found.flips),
        exact=found.exact,
        searched=found.size,
        fixed=fixed,
    )


def _recourse_of(able: Any, flip: Flip, probability: float) -> Recourse:
    changes = [
        Change(feature=able[place].column, now=_value(able[place].own), then=_value(value))
        for place, value in zip(flip.places, flip.values, strict=True)
    ]
    return Recourse(changes=tuple(changes), distance=flip.distance, probability=probability)


def _neighbours(table: _Table, row: int) -> tuple[tuple[Neighbour, ...], tuple[Neighbour, ...]]:
    """The nearest rows with the same decision and with the other, by number."""
    if table.scaled is None:
        return (), ()
    sides = []
    for among in (table.favourable == table.favourable[row], table.favourable != table.favourable[row]):
        places, away = nearest(table.scaled, row, among, N_NEIGHBOURS)
        sides.append(tuple(Neighbour(row=int(i) + 1, distance=float(d)) for i, d in zip(places, away, strict=True)))
    return sides[0], sides[1]


def _notes(table: _Table) -> tuple[str, ...]:
    notes = []
    if table.by_chance:
        notes.append(
            "decisions of this model are drawn by a hash of the row where the favourable probability lies between 0 "
            "and 1: reasons are of that probability, and recourse is shown where it is 1"
        )
    if isinstance(table.real, RealRows):
        notes.append(table.real.describe())
    elif table.real:
        notes.append(f"whether the model is the same on real rows as on mixed ones was not checked: {table.real}")
    if not table.tabular:
        notes.append("whether the model is the same on texts without words as on whole ones was not checked")
    if table.tabular:
        frame = as_frame(table.data.X, table.model.features)
        held = indicators(frame, [c for c in frame.columns if str(c) not in table.fixed])
        if held:
            notes.append(
                f"{', '.join(map(str, held))} are indicators of one category, none of which can change by itself: give "
                "the category as one column to see recourse by it"
            )
    return tuple(notes)
