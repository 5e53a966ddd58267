"""The largest of several numbers for one question, such as the success of the strongest attack."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from auditor.core.rows import FloatArray
from auditor.statistics.estimate import EachBound
from auditor.statistics.rank_estimates import AreaUnderCurve, TruePositiveRateAt

AttackEstimate = Annotated[AreaUnderCurve | TruePositiveRateAt, Field(discriminator="kind")]


class AttackPart(BaseModel):
    """The result of one attack; ``share``: of the level of the whole question, for its own lower bound."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    share: Annotated[float, Field(gt=0.0, le=1.0)]
    estimate: AttackEstimate


class StrongestAttack(EachBound):
    """The success of the strongest of several attacks on the same rows, in [0, 1]: ``max_a theta_a``.

    Lower bound at alpha: ``max_a L_a(share_a * alpha)``. It exceeds ``max_a theta_a`` only where some ``L_a`` exceeds
    its own ``theta_a``, which has a probability of at most ``sum_a share_a alpha <= alpha``, however the attacks depend
    on each other. Upper bound: ``max_a U_a(alpha)``, which is at least that of the attack that truly is the strongest,
    so it misses with a probability of at most alpha (an intersection-union test, Berger 1982). A share belongs to the
    attack whatever else was tried, so one more attack moves neither another's lower bound nor the upper bound down.

    The other way to have one verdict, to pick the strongest attack on half of the rows and to confirm it on the other
    half, needs a success farther from the bound: ``sqrt(2) z(alpha)`` standard errors of all rows against
    ``z(alpha / 4)`` of an attack with a quarter of the level, 2.33 and 2.24 at 0.05, 3.29 and 2.81 at 0.01. And its
    PASS would be that of the attack that was picked, which need not be the strongest.
    """

    kind_limits = (0.0, 1.0)
    interval_test = "the tests that the attacks' own bounds invert, each with its share of the level"

    kind: Literal["strongest_attack"] = "strongest_attack"
    attacks: Annotated[tuple[AttackPart, ...], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _one_level(self) -> Self:
        if math.fsum(attack.share for attack in self.attacks) > 1.0 + 1e-9:
            raise ValueError("the attacks' shares come to more than the whole level")
        if len({attack.estimate.kind for attack in self.attacks}) > 1:
            raise ValueError("numbers of different kinds have no largest")
        return self

    @property
    def value(self) -> float:
        values = [attack.estimate.value for attack in self.attacks]
        return math.nan if any(map(math.isnan, values)) else max(values)

    @property
    def strongest(self) -> str:
        """The attack that came to most."""
        return max(self.attacks, key=lambda attack: attack.estimate.value).name

    def lower(self, alpha: float) -> float:
        return max(attack.estimate.lower(attack.share * alpha) for attack in self.attacks)

    def upper(self, alpha: float) -> float:
        return max(attack.estimate.upper(alpha) for attack in self.attacks)

    def many_bounds(self, alphas: FloatArray) -> FloatArray:
        lows = np.max([attack.estimate.many_bounds(attack.share * alphas)[:, 0] for attack in self.attacks], axis=0)
        highs = np.max([attack.estimate.many_bounds(alphas)[:, 1] for attack in self.attacks], axis=0)
        return np.stack([lows, highs], axis=1)

    @property
    def comparisons(self) -> int:
        return len(self.attacks)

    def standard_error_at(self, ideal: float) -> float:
        return max(attack.estimate.standard_error_at(ideal) for attack in self.attacks)

    def critical_value(self, alpha: float) -> float:
        return max(attack.estimate.critical_value(alpha) for attack in self.attacks)

    def detectable(self, *, bound: float, alpha: float, ideal: float, sign: int) -> float:
        """The nearest value beyond the bound that is detectable by one attack."""
        found = [
            attack.estimate.detectable(
                bound=bound, alpha=alpha * (attack.share if sign > 0 else 1.0), ideal=ideal, sign=sign
            )
            for attack in self.attacks
        ]
        return min(found) if sign > 0 else max(found)

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """The multiple of rows at which every attack is within the bound, as the whole requires."""
        return max(
            attack.estimate.growth(bound=bound, alpha=alpha, ideal=ideal, miss=miss / len(self.attacks))
            for attack in self.attacks
        )
