"""Post-processing of a model's scores as data: the closed schema in a bundle, and the model wrapper.

Nothing here is code of the bundle's own: a bundle states thresholds, chances and maps per group, and these apply them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from auditor.core.errors import DataError, ModelError
from auditor.core.files import Closed
from auditor.core.number_types import Share
from auditor.core.rows import FloatArray, IntArray, Rows
from auditor.data.audit_data import groups_in
from auditor.data.group_counts import MISSING
from auditor.data.preprocessing import (
    FEW_ROWS,
    AudioPreprocessing,
    ImagePreprocessing,
    TabularPreprocessing,
    group_cells,
    level_codes,
)
from auditor.data.row_keys import keys_of
from auditor.models.audited_model import AuditedModel, Provenance

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data.audit_data import AuditData


def row_draws(encoded: npt.NDArray[np.float32], seed: int, places: IntArray | None = None) -> FloatArray:
    """(n,) numbers in [0, 1), uniform over different rows: each a hash of its encoded row (n, width), ``seed`` in [0,
    2^64) and its position (n,), if given."""
    # -0.0 and 0.0 are one number, and shall be one hash.
    rows = encoded + np.float32(0.0)
    ends = [b""] * len(rows) if places is None else [int(p).to_bytes(8, "little", signed=True) for p in places]
    key = seed.to_bytes(8, "little")
    words = (
        hashlib.blake2b(row.tobytes() + end, digest_size=8, key=key).digest()
        for row, end in zip(rows, ends, strict=True)
    )
    # 53 bits are all that a float holds; more would round some draws up to 1.
    return np.fromiter((int.from_bytes(w, "little") >> 11 for w in words), np.float64, len(rows)) / 2**53


def contents_of(X: Rows, columns: Sequence[str] | None) -> npt.NDArray[np.float32]:
    """(n, 8) the bytes of a key of each row's values, for unencoded rows; for a table, of these columns."""
    rows = X if isinstance(X, np.ndarray) else (X if columns is None else X[list(columns)]).reset_index(drop=True)
    keys = keys_of(rows, None, None, None)
    return keys.astype("<u8").view(np.uint8).reshape(len(keys), 8).astype(np.float32)


MAX_GROUPS = 10_000
MAX_POINTS = 100_000


class Steps(Closed):
    """The favourable probability as a step function of the score: ``chances[k]`` above k thresholds.

    ``thresholds``: (t,) ascending. ``chances``: (t + 1,) in [0, 1]; one that is neither 0 nor 1 is a decision drawn at
    random. A single threshold t with chances 0 and 1 is the decision ``score > t``.
    """

    kind: Literal["steps"] = "steps"
    thresholds: Annotated[tuple[float, ...], Field(max_length=MAX_POINTS)]
    chances: Annotated[tuple[Share, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_chance_more_than_thresholds(self) -> Self:
        if len(self.chances) != len(self.thresholds) + 1:
            raise ValueError("there must be one chance more than thresholds")
        if any(a >= b for a, b in pairwise(self.thresholds)):
            raise ValueError("thresholds must ascend")
        return self

    def __call__(self, scores: FloatArray) -> FloatArray:
        """(n,) chances of scores (n,)."""
        found: FloatArray = np.asarray(self.chances)[np.searchsorted(self.thresholds, scores, side="left")]
        return found


class PlattScaling(Closed):
    """``sigmoid(slope log(score / (1 - score)) + intercept)``; slope 1 and intercept 0 do not change the score."""

    kind: Literal["platt"] = "platt"
    slope: Annotated[float, Field(ge=-1e6, le=1e6)]
    intercept: Annotated[float, Field(ge=-1e6, le=1e6)]

    def __call__(self, scores: FloatArray) -> FloatArray:
        """(n,) probabilities of scores (n,)."""
        z = self.slope * log_odds(scores) + self.intercept
        chances: FloatArray = 0.5 * (1.0 + np.tanh(0.5 * z))
        return chances


class IsotonicMap(Closed):
    """Linear between the points (score, value), the first and last value beyond them; both ascend."""

    kind: Literal["isotonic"] = "isotonic"
    scores: Annotated[tuple[Share, ...], Field(min_length=1, max_length=MAX_POINTS)]
    values: Annotated[tuple[Share, ...], Field(min_length=1, max_length=MAX_POINTS)]

    @model_validator(mode="after")
    def _both_ascend(self) -> Self:
        if len(self.scores) != len(self.values):
            raise ValueError("there must be as many values as scores")
        if any(a >= b for a, b in pairwise(self.scores)) or any(a > b for a, b in pairwise(self.values)):
            raise ValueError("scores and values must ascend")
        return self

    def __call__(self, scores: FloatArray) -> FloatArray:
        """(n,) probabilities of scores (n,)."""
        found: FloatArray = np.interp(scores, self.scores, self.values)
        return found


Rule = Annotated[Steps | PlattScaling | IsotonicMap, Field(discriminator="kind")]


class GroupRule(Closed):
    """The changes of one group's scores; ``group``: its value in each of the columns."""

    group: Annotated[tuple[str, ...], Field(min_length=1)]
    rule: Rule


class Postprocessing(Closed):
    """Score changes of a binary classifier, by group; the score is the probability of class ``positive``.

    ``columns``: those that the group is read from, at every prediction. ``otherwise``: the rule for a group that none
    of ``groups`` names. ``seed``: of the draws of a randomised decision. Rules are all steps, which decide, or all
    maps, which calibrate and leave the deciding to the model's threshold.
    """

    columns: Annotated[tuple[str, ...], Field(min_length=1, max_length=16)]
    positive: Literal[0, 1]
    groups: Annotated[tuple[GroupRule, ...], Field(min_length=1, max_length=MAX_GROUPS)]
    otherwise: Rule
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @model_validator(mode="after")
    def _of_one_kind_and_each_group_once(self) -> Self:
        names = [g.group for g in self.groups]
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("a column is named twice")
        if any(len(name) != len(self.columns) for name in names) or len(set(names)) != len(names):
            raise ValueError("each group must be named once, with one value per column")
        if len({isinstance(rule, Steps) for rule in self.rules}) > 1:
            raise ValueError("steps and calibration maps do not go together")
        return self

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The groups' rules and the rule for all others."""
        return (*(g.rule for g in self.groups), self.otherwise)

    @property
    def decides(self) -> bool:
        """Whether the rules determine the decision instead of a corrected probability."""
        return isinstance(self.otherwise, Steps)

    @property
    def randomised(self) -> bool:
        """Whether some score's decision is drawn at random."""
        return any(0.0 < chance < 1.0 for rule in self.rules if isinstance(rule, Steps) for chance in rule.chances)

    def describe(self) -> str:
        """The score changes, in one or two sentences."""
        how = "Its decisions are" if self.decides else "Its probabilities are calibrated"
        by = ("made by thresholds of each group's own" if self.decides else "for each group by itself") + (
            f" ({' x '.join(self.columns)}, {len(self.groups)} groups)"
        )
        said = f"{how} {by}; a group that is none of these is treated by the rule for all others."
        if self.decides:
            said += " Ranking and calibration are measured on the scores before these thresholds."
        if self.randomised:
            said += " Some decisions are drawn at random, by a hash of the row: the same row, the same answer."
        return said

    @cached_property
    def _place(self) -> dict[tuple[str, ...], int]:
        return {g.group: i for i, g in enumerate(self.groups)}

    def places(self, X: pd.DataFrame) -> IntArray:
        """(n,) index of each row's group in ``groups``, -1 if unnamed; DataError for a missing column."""
        import pandas as pd

        for column in self.columns:
            if column not in X.columns:
                raise DataError(
                    f"The model decides by group and needs the column {column!r}, which the data do not have."
                )
        few = group_cells(X, self.columns) if len(X) <= FEW_ROWS else None
        if few is not None:
            return np.asarray([self._place.get(group, -1) for group in few], np.int64)
        codes = np.zeros(len(X), np.int64)
        keys: list[tuple[str, ...]] = [()]
        for column in self.columns:
            own, names = level_codes(X[column])
            # What is missing has the code -1, and the last name.
            levels = [*names, MISSING]
            joint, found = pd.factorize(codes * len(levels) + np.where(own < 0, len(names), own))
            keys = [(*keys[each // len(levels)], levels[each % len(levels)]) for each in found.tolist()]
            codes = joint
        return np.asarray([self._place.get(key, -1) for key in keys], np.int64)[codes]

    def apply(self, scores: FloatArray, places: IntArray) -> FloatArray:
        """(n,) favourable probabilities from scores (n,) of rows with these group indices (n,)."""
        out = np.empty(len(scores))
        for i in (np.flatnonzero(np.bincount(places + 1)) - 1).tolist():
            rows = places == i
            out[rows] = (self.otherwise if i < 0 else self.groups[i].rule)(scores[rows])
        return out


def log_odds(scores: FloatArray) -> FloatArray:
    """``log(p / (1 - p))`` of probabilities, kept finite at 0 and 1."""
    inside = np.clip(scores, 1e-12, 1.0 - 1e-12)
    found: FloatArray = np.log(inside) - np.log1p(-inside)
    return found


class PostprocessedModel(AuditedModel):
    """A binary classifier with answers changed by group; every prediction needs the groups.

    Of a table they are its columns, of texts what :mod:`auditor.data.audit_data` puts beside each.

    Where the rules calibrate, the outputs are the calibrated probabilities, and ``threshold`` decides on them.

    Where the rules decide, rows are ranked by the scores before, and the outputs are the *chances* of either decision:
    0 or 1 but for scores whose decision is drawn at random. The draw is a hash of the row as the model takes it, its
    group and ``seed``: the same row always gets the same answer, over many rows decisions come as often as the chances
    say, and who repeats an application unchanged gains nothing. ``decisions`` are drawn so. A probe that decides on
    outputs of its own (of changed rows) takes the likelier decision.

    A row of a group that was not there when the rules were made is treated by ``otherwise``.
    ``features``: the columns that the model below takes, where it does not say so itself; None of texts.
    Raises ModelError for a model that :func:`why_not` refuses.
    """

    def __init__(
        self,
        base: AuditedModel,
        postprocessing: Postprocessing,
        *,
        features: Sequence[str] | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        if why := why_not(base):
            raise ModelError(why)
        own = base.features if base.features is not None else None if features is None else tuple(features)
        columns = postprocessing.columns
        super().__init__(
            self._answers,
            classes=base.classes,
            features=None if own is None else (*own, *(c for c in columns if c not in own)),
            preprocessing=base.preprocessing,
            threshold=0.5 if postprocessing.decides else base.threshold_of(postprocessing.positive),
            threshold_class=None if postprocessing.decides else postprocessing.positive,
            # The model below divides them again, as it likes.
            batch_rows=8 * base.batch_rows,
            provenance=provenance or base.provenance,
        )
        self._scores: WeakKeyDictionary[AuditData, FloatArray] = WeakKeyDictionary()
        self.base = base
        self.base_features = own
        self.postprocessing = postprocessing
        self.decides_by = columns
        # A column that the model below takes is read as that one takes it.
        self.group_columns = (*base.group_columns, *(c for c in columns if c not in (own or ())))

    def decide_rows(self, X: Rows, probabilities: FloatArray, positive: int | None) -> IntArray:
        """(n,) class indices, drawn by the row's hash where the rules decide."""
        if not self.postprocessing.decides:
            return self.decide(probabilities, positive)
        favourable = self.postprocessing.positive
        drawn = self._draws(X) < probabilities[:, favourable]
        return np.where(drawn, favourable, 1 - favourable).astype(np.int64)

    def scores(self, data: AuditData) -> FloatArray:
        """(n, 2) scores before the rules, computed once and shared by all probes."""
        if data not in self._scores:
            self._scores[data] = super().scores(data)
        return self._scores[data]

    def forget(self) -> None:
        """Discard cached scores too."""
        super().forget()
        self._scores.clear()

    def scores_of(self, X: Rows, probabilities: FloatArray) -> FloatArray:
        """(n, 2) scores of the base model where the rules decide: a chance of 0 or 1 ranks nobody."""
        if not self.postprocessing.decides:
            return probabilities
        return self.base.scores_of(below := self.base_rows(X), self.base.predict_part(below))

    def check_outputs(self) -> None:
        """Raise the errors of the base model's own check."""
        self.base.check_outputs()

    @property
    def in_question(self) -> bool:
        """Whether the output kind of the base model is still undecided."""
        return self.base.in_question

    def saved_parts(self) -> tuple[AuditedModel, dict[str, Any]]:
        """The base model, and additional data of the bundle."""
        return self.base, {"postprocessing": self.postprocessing.model_dump(mode="json")}

    def _answers(self, X: Rows) -> FloatArray:
        scores = self.base.predict_part(self.base_rows(X))[:, self.postprocessing.positive]
        chances = self.postprocessing.apply(scores, self._places(X))
        both = [1.0 - chances, chances]
        return np.column_stack(both if self.postprocessing.positive == 1 else both[::-1])

    def base_rows(self, X: Rows) -> Rows:
        """The rows in the base model's form: its own columns, in their order."""
        table = _table(X)
        if table is None or isinstance(self.base.preprocessing, TabularPreprocessing):
            return X
        if self.base_features is None:
            raise DataError("The model does not say which columns it takes: name them with --features.")
        absent = [name for name in self.base_features if name not in table.columns]
        if absent:
            raise DataError(f"The model needs the feature {absent[0]!r}, which the data do not have.")
        return table[list(self.base_features)]

    def _places(self, X: Rows) -> IntArray:
        table = _table(X)
        return self.postprocessing.places(
            groups_in(np.asarray(X), self.postprocessing.columns) if table is None else table
        )

    def _draws(self, X: Rows) -> FloatArray:
        """(n,) numbers in [0, 1), uniform over rows, each a hash of its row alone."""
        if not self.postprocessing.randomised:
            return np.full(len(X), 0.5)
        return row_draws(self._contents(X), self.postprocessing.seed, self._places(X))

    def _contents(self, X: Rows) -> npt.NDArray[np.float32]:
        """(n, width) what a row is known by: its encoding where the model below says it, else the bytes of its key."""
        below = self.base_rows(X)
        table = _table(below)
        if table is not None and isinstance(self.base.preprocessing, TabularPreprocessing):
            return self.base.preprocessing.encode(table)
        return contents_of(below, None)


def why_not(base: AuditedModel) -> str:
    """The reason why a model's answers cannot be changed by group, with alternatives; "" if they can."""
    if isinstance(base, PostprocessedModel):
        return (
            "This model is post-processed already, and a second rule would undo the first: give the model below it, "
            "which was post-processed, with the mitigation that you want in place of the first."
        )
    if base.kind != "classifier" or not base.can_be_asked:
        return "Post-processing by group is for a classifier that can be asked: give the model itself."
    if isinstance(base.preprocessing, ImagePreprocessing | AudioPreprocessing):
        return (
            "Post-processing reads the group of a row from the table's columns or beside its text, and pictures and "
            "sound have neither: use adversarial_debiasing, which needs no group at prediction."
        )
    if base.n_outputs != 2:
        return f"Post-processing is for two classes, and this model has {base.n_outputs}."
    return ""


def _table(X: Rows) -> pd.DataFrame | None:
    """The rows as a table, None of texts. Raises DataError for rows that are neither."""
    import pandas as pd

    if isinstance(X, pd.DataFrame):
        return X
    if X.dtype == object and X.ndim == 1:
        return None
    raise DataError("A model that is post-processed by group takes a table with named columns, or texts.")
