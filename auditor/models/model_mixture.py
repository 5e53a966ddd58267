"""A mixture of models: decision by one model drawn by its weight, or by the weighted majority."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from auditor.core.errors import ModelError
from auditor.core.files import Closed
from auditor.core.number_types import Share
from auditor.core.rows import FloatArray, IntArray, Rows
from auditor.models.audited_model import AuditedModel, Provenance
from auditor.models.row_hash_random import contents_of, row_draws


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
