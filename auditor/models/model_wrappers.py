"""Models around other models: debiased inputs, and a mixture of models.

The closed schema of what is subtracted, which a folder carries as data, and the model around which it is put.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from auditor.core.errors import DataError, ModelError
from auditor.core.files import Closed
from auditor.core.number_types import Share
from auditor.core.rows import FloatArray, IntArray, Rows
from auditor.data.preprocessing import group_names
from auditor.models.audited_model import AuditedModel, Provenance
from auditor.models.postprocessing import contents_of, row_draws

if TYPE_CHECKING:
    import pandas as pd

_MOST = 10_000
Names = Annotated[tuple[str, ...], Field(min_length=1, max_length=_MOST)]


class Removal(Closed):
    """``x - (s - means) weights`` of the columns ``numbers`` (d), with s the indicators (k) of the groups' ``levels``.

    ``columns``: the sensitive features, each with its levels. ``held``: the value that the model is given in place of a
    sensitive feature that it takes. Nothing is subtracted for a feature whose group is missing or no level.
    """

    columns: Names
    levels: Annotated[tuple[Names, ...], Field(min_length=1, max_length=64)]
    means: Annotated[tuple[float, ...], Field(max_length=_MOST)]
    numbers: Names
    weights: Annotated[tuple[tuple[float, ...], ...], Field(max_length=_MOST)]
    held: dict[str, bool | int | float | str] = {}

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        k = sum(map(len, self.levels))
        if len(self.columns) != len(self.levels) or len(self.means) != k or len(self.weights) != k:
            raise ValueError("there must be one mean and one row of weights for every group")
        if any(len(row) != len(self.numbers) for row in self.weights):
            raise ValueError("there must be one weight for every column")
        if set(self.numbers) & set(self.columns) or not set(self.held) <= set(self.columns):
            raise ValueError("a column is both sensitive and not")
        return self

    def apply(self, table: pd.DataFrame, features: Sequence[str]) -> pd.DataFrame:
        """The features of the rows, (n, features), after the removal; DataError for an absent one."""
        absent = [name for name in (*features, *self.columns) if name not in table.columns]
        if absent:
            raise DataError(f"The model needs the column {absent[0]!r}, which the data do not have.")
        minus = (self._indicators(table) - np.asarray(self.means)) @ np.asarray(self.weights)
        changed = {name: table[name].to_numpy(np.float64) - minus[:, j] for j, name in enumerate(self.numbers)}
        return table[list(features)].assign(**changed, **self.held)

    def _indicators(self, table: pd.DataFrame) -> FloatArray:
        """(n, k) of the groups; where none of a feature's levels is meant, the means, so that nothing is subtracted."""
        parts, start = [], 0
        for column, levels in zip(self.columns, self.levels, strict=True):
            named = group_names(table[column])
            own = np.column_stack([named == level for level in levels]).astype(np.float64)
            own[~own.any(axis=1)] = self.means[start : start + len(levels)]
            parts.append(own)
            start += len(levels)
        return np.concatenate(parts, axis=1)


class PreparedModel(AuditedModel):
    """A table classifier with group information subtracted from its input rows; it needs the groups.

    ``features``: the columns that the model below takes, where it does not say so itself. Raises ModelError where
    nobody does.
    """

    def __init__(
        self,
        base: AuditedModel,
        removal: Removal,
        *,
        features: Sequence[str] | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        own = base.features if features is None else tuple(features)
        if own is None or base.kind != "classifier" or not set(removal.numbers) | set(removal.held) <= set(own):
            raise ModelError("The columns of which something is subtracted are none that the model takes.")
        super().__init__(
            self._answers,
            classes=base.classes,
            features=(*own, *(c for c in removal.columns if c not in own)),
            threshold=base.threshold,
            threshold_class=base.threshold_class,
            batch_rows=base.batch_rows,
            provenance=provenance or base.provenance,
        )
        self.base = base
        self.base_features = own
        self.removal = removal
        self.said = base.said
        self.decides_by = removal.columns
        # A column that the model below takes is read as that one takes it.
        self.group_columns = (*base.group_columns, *(c for c in removal.columns if c not in own))

    def threshold_of(self, positive: int) -> float:
        """The threshold of the base model."""
        return self.base.threshold_of(positive)

    def decide(self, probabilities: FloatArray, positive: int | None, X: Rows | None = None) -> IntArray:
        """(n,) class indices, decided by the base model on its input rows."""
        return self.base.decide(probabilities, positive, None if X is None else self._below(X))

    def _answers(self, X: Rows) -> Any:
        return self.base.predict_part(self._below(X))

    def _below(self, X: Rows) -> Rows:
        """The rows as the model below takes them."""
        if isinstance(X, np.ndarray):
            raise DataError("A model that is freed of the group takes a table with named columns.")
        return self.removal.apply(X, self.base_features)


class Mixture(Closed):
    """A mixture of m models: ``weights`` (m) and ``always``, which sum to at most 1.

    ``always``: the weight of deciding for class ``positive`` whoever it is; what is left is that of deciding against.
    ``seed``: of the draws of the rule that draws a model for each decision; None where the majority decides.
    """

    weights: Annotated[tuple[Share, ...], Field(min_length=1, max_length=10_000)]
    always: Share = 0.0
    positive: Literal[0, 1]
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None

    @model_validator(mode="after")
    def _no_more_than_all(self) -> Self:
        if math.fsum((*self.weights, self.always)) > 1.0 + 1e-6:
            raise ValueError("the weights sum to more than 1")
        return self

    def describe(self) -> str:
        """The decision procedure, in a sentence."""
        how = (
            "by the majority of their weights"
            if self.seed is None
            else "by one of them, drawn by a hash of the row: the same row, the same answer"
        )
        return f"A mixture of {len(self.weights)} models: decisions are made {how}."


class MixtureModel(AuditedModel):
    """Binary classifiers of the same rows, mixed; its probabilities are the chances of either decision.

    Source: Agarwal, Beygelzimer, Dudik, Langford and Wallach, ICML 2018. Raises ModelError for models that do not
    answer one question.
    """

    def __init__(
        self, members: Sequence[AuditedModel], mixture: Mixture, *, provenance: Provenance | None = None
    ) -> None:
        first = members[0] if members else None
        alike = first is not None and all(
            m.classes == first.classes and m.features == first.features and m.kind == "classifier" for m in members
        )
        if first is None or not alike or len(members) != len(mixture.weights) or first.n_outputs != 2:
            raise ModelError("The models of a mixture must be as many as its weights, of the same rows and classes.")
        super().__init__(
            self._answers,
            classes=first.classes,
            features=first.features,
            batch_rows=first.batch_rows,
            provenance=provenance,
        )
        self.members = tuple(members)
        self.mixture = mixture
        self.said = first.said
        self.group_columns = first.group_columns

    def decide_rows(self, X: Rows, probabilities: FloatArray, positive: int | None) -> IntArray:
        """(n,) class indices, drawn by the row's hash where the rule draws."""
        if self.mixture.seed is None:
            return self.decide(probabilities, positive)
        chosen = self.mixture.positive
        drawn = row_draws(contents_of(X, self.features), self.mixture.seed) < probabilities[:, chosen]
        return np.where(drawn, chosen, 1 - chosen).astype(np.int64)

    def _answers(self, X: Rows) -> FloatArray:
        chosen = self.mixture.positive
        chances = np.full(len(X), self.mixture.always)
        for member, weight in zip(self.members, self.mixture.weights, strict=True):
            chances += weight * (member.decide(member.predict_part(X), chosen, X) == chosen)
        chances = np.minimum(chances, 1.0)
        both = [1.0 - chances, chances]
        return np.column_stack(both if chosen == 1 else both[::-1])
