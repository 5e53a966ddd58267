"""Recourse: the nearest changes of a row that flip its decision, found and confirmed by model queries.

Fewest features first, then the least distance: Wachter, Mittelstadt and Russell (2018) count in median absolute
deviations, and Ustun, Spangher and Liu (FAT* 2019) ask for changes that a person can make. Where all combinations are
more than may be asked, a coarser grid is, and what is found is brought nearer; where that finds nothing, other rows
that are decided favourably say where to look (Brughmans, Leyman and Martens, NICE, 2023).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.rows import BoolArray, IntArray, Rows
from probes.probe_inputs import as_frame
from probes.reasons.feature_actions import Action
from probes.robustness.table_noise import as_taken

if TYPE_CHECKING:
    import pandas as pd

# Rows to whether each has the wished for decision.
Wished = Callable[[Rows], BoolArray]

BUDGET = 20_000
MOST_CHANGED = 3
N_FOUND = 3
_ROWS_AT_ONCE = 4096
_BETWEEN = 64
_ROUNDS = 4
_N_STARTS = 20


@dataclass(frozen=True, eq=False)
class Flip:
    """A change that flips the decision: the actions' indices, their new values, and the distance."""

    places: tuple[int, ...]
    values: tuple[Any, ...]
    distance: float


@dataclass(frozen=True, eq=False)
class Searched:
    """Found changes, nearest first; ``asked`` rows; ``exact``: all of at most ``size`` changes were queried."""

    flips: tuple[Flip, ...]
    asked: int
    exact: bool
    size: int


@dataclass(eq=False)
class _Asking:
    """A row as the model takes it, with changes, and how many times it was asked."""

    row: pd.DataFrame
    like: Rows
    actions: Sequence[Action]
    wished: Wished
    budget: int
    asked: int = 0

    @property
    def queries_left(self) -> int:
        return self.budget - self.asked

    def flips(self, places: tuple[int, ...], values: Sequence[npt.NDArray[Any]]) -> BoolArray:
        """(m,) whether the row with these values (m,) of these actions is decided as wished."""
        m = len(values[0])
        out = np.zeros(m, np.bool_)
        for start in range(0, m, _ROWS_AT_ONCE):
            part = [v[start : start + _ROWS_AT_ONCE] for v in values]
            out[start : start + len(part[0])] = self.wished(self.rows(places, part))
        self.asked += m
        return out

    def rows(self, places: tuple[int, ...], values: Sequence[npt.NDArray[Any]]) -> Rows:
        """The row so many times, with these values."""
        frame = self.row.iloc[np.zeros(len(values[0]), np.int64)].reset_index(drop=True)
        for place, new in zip(places, values, strict=True):
            name = self.actions[place].column
            key = next(c for c in frame.columns if str(c) == name)
            frame[key] = typed(new, frame[key])
        return as_taken(frame, self.like)


def typed(values: npt.NDArray[Any], like: pd.Series[Any]) -> pd.Series[Any]:
    """Values in the type of a column; an error for values outside an integer type, which actions never propose."""
    import pandas as pd

    column = pd.Series(list(values), index=like.index, name=like.name)
    return column.astype(like.dtype)


def apply_changes(row: pd.DataFrame, like: Rows, actions: Sequence[Action], flip: Flip) -> Rows:
    """The row with the changes applied."""
    asking = _Asking(row, like, actions, lambda _: np.zeros(1, np.bool_), 0)
    return asking.rows(flip.places, [_array([value]) for value in flip.values])


def search(
    X: Rows,
    row: int,
    actions: Sequence[Action],
    wished: Wished,
    *,
    others: IntArray,
    features: tuple[str, ...] | None = None,
    budget: int = BUDGET,
    most_changed: int = MOST_CHANGED,
    n_found: int = N_FOUND,
) -> Searched:
    """The nearest changes of a row that are decided as wished, of different features each.

    X: all rows; ``others``: positions of rows that are decided as wished, the nearest first. Of k = 1, 2, ... features
    up to ``most_changed`` every combination is asked about, with every value that each may take, as long as the budget
    of questions lasts; a set of features of which a part suffices is left out. Then values are thinned out, and the
    numbers of what flips are brought back towards the row's own as far as it still does.
    """
    frame = as_frame(X, features)
    asking = _Asking(frame.iloc[[row]], X, actions, wished, budget)
    found: list[Flip] = []
    exact, size = True, 0
    for k in range(1, min(most_changed, len(actions)) + 1):
        if len(found) >= n_found:
            break
        new, whole = _of_size(asking, k, found)
        if new is None:
            exact = False
            break
        exact, size = exact and whole, k
        found += new
    if not found:
        found = list(_from_others(asking, frame, others))
    ranked = sorted(found, key=lambda flip: (len(flip.places), flip.distance, flip.places))
    return Searched(tuple(ranked[:n_found]), asking.asked, exact, size)


def _of_size(oracle: _Asking, k: int, flips: Sequence[Flip]) -> tuple[list[Flip] | None, bool]:
    """The nearest flip of each set of k actions that no smaller flip lies within, and whether all values were asked.

    None where the questions that are left do not do for a single value of each.
    """
    enough = [set(flip.places) for flip in flips]
    sets = [
        places
        for places in itertools.combinations(range(len(oracle.actions)), k)
        if not any(e <= set(places) for e in enough)
    ]
    if not sets:
        return [], True
    grids: Sequence[Action] = oracle.actions
    # Half is kept for the larger sets and for bringing nearer what is found.
    most = max(oracle.queries_left // 2, 0)
    total = _questions(sets, grids)
    if total > most:
        widest = max(len(action.values) for action in grids)
        fits = next((n for n in range(widest, 0, -1) if _questions(sets, [a.thinned(n) for a in grids]) <= most), 0)
        if not fits:
            return None, False
        grids = [action.thinned(fits) for action in grids]
    on_grid = [_nearest_on(oracle, places, [grids[i] for i in places]) for places in sets]
    new = [_nearer(oracle, flip) for flip in on_grid if flip is not None]
    return new, all(grids[i].whole for places in sets for i in places)


def _questions(sets: Sequence[tuple[int, ...]], grids: Sequence[Action]) -> int:
    sizes = [len(action.values) for action in grids]
    return int(sum(np.prod([sizes[i] for i in places], dtype=np.int64) for places in sets))


def _array(values: Sequence[Any]) -> npt.NDArray[Any]:
    out = np.empty(len(values), object)
    out[:] = values
    return out


def _nearest_on(oracle: _Asking, places: tuple[int, ...], grids: Sequence[Action]) -> Flip | None:
    """Of all combinations of these actions' values, the one of the least distance that flips."""
    index = np.indices([len(action.values) for action in grids]).reshape(len(grids), -1)
    costs = np.sum([action.costs[i] for action, i in zip(grids, index, strict=True)], axis=0)
    order = np.argsort(costs, kind="stable")
    values = [_array(action.values)[i[order]] for action, i in zip(grids, index, strict=True)]
    hits = np.flatnonzero(oracle.flips(places, values))
    if not hits.size:
        return None
    first = int(hits[0])
    return Flip(places, tuple(v[first] for v in values), float(costs[order[first]]))


def _nearer(oracle: _Asking, flip: Flip) -> Flip:
    """Its numbers brought towards the row's own, one after the other, as far as it still flips."""
    best = flip
    for _ in range(_ROUNDS):
        before = best.distance
        for at, place in enumerate(best.places):
            action = oracle.actions[place]
            if not action.step or oracle.queries_left < 1:
                continue
            # The last of them is the value itself, which is known to flip it.
            tried = action.refine(best.values[at], min(_BETWEEN, oracle.queries_left)).values[:-1]
            if not tried:
                continue
            columns = [_array([value] * len(tried)) for value in best.values]
            columns[at] = _array(tried)
            hits = np.flatnonzero(oracle.flips(best.places, columns))
            if hits.size:
                value = tried[int(hits[0])]
                values = (*best.values[:at], value, *best.values[at + 1 :])
                best = Flip(best.places, values, _distance(oracle.actions, best.places, values))
        if best.distance >= before:
            break
    return best


def _distance(actions: Sequence[Action], places: Sequence[int], values: Sequence[Any]) -> float:
    return float(sum(_cost(actions[i], value) for i, value in zip(places, values, strict=True)))


def _cost(action: Action, value: Any) -> float:
    return abs(float(value) - float(action.own)) / action.unit if action.step else 1.0


def _from_others(oracle: _Asking, frame: pd.DataFrame, others: IntArray) -> Iterator[Flip]:
    """Flips that a row as wished suggests: all that may change becomes as its own is, then what need not goes back."""
    seen: set[tuple[int, ...]] = set()
    for other in others[:_N_STARTS]:
        if oracle.queries_left < len(oracle.actions) ** 2 or len(seen) >= N_FOUND:
            return
        places, values = [], []
        for i, action in enumerate(oracle.actions):
            value = _towards(action, frame[_key(frame, action.column)].iloc[int(other)])
            if value is not None:
                places.append(i)
                values.append(value)
        if not places or not oracle.flips(tuple(places), [_array([v]) for v in values])[0]:
            continue
        flip = _nearer(oracle, _without_idle(oracle, tuple(places), tuple(values)))
        if flip.places not in seen:
            seen.add(flip.places)
            yield flip


def _key(frame: pd.DataFrame, name: str) -> Any:
    return next(c for c in frame.columns if str(c) == name)


def _towards(action: Action, value: Any) -> Any:
    """The other row's value where the action allows it; of a number the nearest that it does; None where it is none."""
    if not action.step:
        return next((v for v in action.values if v == value), None)
    number = float(value) if value is not None and np.isfinite(float(value)) else np.nan
    if not np.isfinite(number):
        return None
    near = float(action.rounded(np.asarray([number]))[0])
    return None if near == float(action.own) else near


def _without_idle(oracle: _Asking, places: tuple[int, ...], values: tuple[Any, ...]) -> Flip:
    """The changes less those without which the decision is flipped all the same, the dearest tried first."""
    kept = dict(zip(places, values, strict=True))
    going = True
    while going and len(kept) > 1 and oracle.queries_left >= len(kept):
        going = False
        for place in sorted(kept, key=lambda i: -_cost(oracle.actions[i], kept[i])):
            rest = {i: v for i, v in kept.items() if i != place}
            if rest and oracle.flips(tuple(rest), [_array([v]) for v in rest.values()])[0]:
                kept, going = rest, True
                break
    return Flip(tuple(kept), tuple(kept.values()), _distance(oracle.actions, tuple(kept), tuple(kept.values())))
