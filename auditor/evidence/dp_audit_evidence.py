"""Evidence of an audit of a claimed epsilon: canaries with their coins and scores, and the observed noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field

from auditor.core.files import Closed
from auditor.core.number_types import Count
from auditor.evidence.derived_evidence import Derived
from auditor.privacy.accounting import Phase
from auditor.privacy.dp_audit_scores import AuditResult, CanaryScores, audit_claim, multi_run
from auditor.privacy.gaussian_audit import IfGaussian, if_gaussian
from auditor.privacy.released_noise import ReleasedNoise, Sensitivity, Unit
from auditor.privacy.run_record import RunRecord

CANARIES = "canaries.json"
EXIT_CODES = {"consistent": 0, "contradicted": 1, "not_supported": 3, "cannot_tell": 3}
_MOST = 10_000_000
Numbers = Annotated[tuple[float, ...], Field(max_length=_MOST)]


class _Stored(Closed):
    # A run without noise divides by it.
    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="strings")


class NoiseRecord(_Stored):
    """:class:`~auditor.privacy.released_noise.ReleasedNoise` of one run."""

    sizes: Numbers
    squares: Annotated[tuple[Numbers, ...], Field(max_length=_MOST)]
    totals: Numbers
    squared_sum: float
    multipliers: Numbers
    watched: Annotated[tuple[Numbers, ...], Field(max_length=_MOST)]
    changed: Count

    @classmethod
    def from_noise(cls, noise: ReleasedNoise) -> NoiseRecord:
        """The noise that the audit observed, as plain numbers."""
        return cls(
            sizes=tuple(noise.sizes.tolist()),
            squares=tuple(map(tuple, noise.squares.tolist())),
            totals=tuple(noise.totals.tolist()),
            squared_sum=float(noise.squared_sum),
            multipliers=tuple(noise.multipliers.tolist()),
            watched=tuple(map(tuple, noise.watched.tolist())),
            changed=noise.changed,
        )

    def to_noise(self) -> ReleasedNoise:
        """The noise in the form that the audit observed."""
        return ReleasedNoise(
            sizes=np.array(self.sizes, float),
            squares=np.array(self.squares, float).reshape(len(self.squares), -1),
            totals=np.array(self.totals, float),
            squared_sum=self.squared_sum,
            multipliers=np.array(self.multipliers, float),
            watched=np.array(self.watched, float).reshape(len(self.watched), -1),
            changed=self.changed,
        )


class SensitivityRecord(_Stored):
    """:class:`~auditor.privacy.released_noise.Sensitivity`."""

    largest: float
    n_rows: int
    batch_rows: int
    why_not: str
    unit: Unit


class CanaryRecord(_Stored):
    """:class:`~auditor.privacy.dp_audit_scores.CanaryScores` of all runs together."""

    included: Annotated[tuple[bool, ...], Field(max_length=_MOST)]
    scores: Numbers
    kind: Annotated[str, Field(max_length=200)]
    steps: int | None
    sample_rate: float | None
    noise: tuple[NoiseRecord, ...]
    sensitivity: SensitivityRecord | None
    unclipped: Count
    clipping_seen: Count
    unit: Unit
    # Records of earlier versions have none.
    runs: tuple[RunRecord, ...] = ()

    @classmethod
    def from_scores(cls, canaries: CanaryScores) -> CanaryRecord:
        """The data of an attack, as plain numbers."""
        moved = canaries.sensitivity
        plain = {
            "included": tuple(canaries.included.tolist()),
            "scores": tuple(canaries.scores.tolist()),
            "noise": tuple(map(NoiseRecord.from_noise, canaries.noise)),
            "sensitivity": None if moved is None else SensitivityRecord(**vars(moved)),
        }
        return cls(**vars(canaries) | plain)

    def to_scores(self) -> CanaryScores:
        """The data in the form that the attack used.

        Raises UsageError where they are none.
        """
        arrays = {
            "included": np.array(self.included, bool),
            "scores": np.array(self.scores, float),
            "noise": tuple(noise.to_noise() for noise in self.noise),
            "sensitivity": None if self.sensitivity is None else Sensitivity(**self.sensitivity.model_dump()),
        }
        return CanaryScores(**vars(self) | arrays)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim and its test against canaries; as in :func:`~auditor.privacy.dp_audit_scores.audit_claim`.

    ``one_each``: the canaries are of as many runs, one in each. ``seed``: of how ties are broken and power is
    simulated.
    """

    claimed_epsilon: float
    delta: float
    confidence: float = 0.95
    guesses: tuple[int, ...] | None = None
    accounting: tuple[Phase, ...] | None = None
    one_each: bool = False
    seed: int = 0


def held_against(canaries: CanaryScores, claim: Claim) -> tuple[AuditResult, IfGaussian | None]:
    """The claim tested against the canaries: a deterministic function of both.

    Raises UsageError for what is none.
    """
    if claim.one_each:
        result = multi_run(
            canaries,
            claimed_epsilon=claim.claimed_epsilon,
            delta=claim.delta,
            confidence=claim.confidence,
            accounting=claim.accounting,
        )
        return result, None
    rng = np.random.default_rng(claim.seed)
    result = audit_claim(
        canaries,
        claimed_epsilon=claim.claimed_epsilon,
        delta=claim.delta,
        rng=rng,
        confidence=claim.confidence,
        guesses=claim.guesses,
        accounting=claim.accounting,
    )
    return result, if_gaussian(canaries, delta=claim.delta, rng=rng, alpha=1.0 - claim.confidence)


def audit_content(result: AuditResult, gaussian: IfGaussian | None) -> dict[str, Any]:
    """The JSON content of an audit."""
    guesses = [dict(vars(guess)) | {"accuracy_interval": list(guess.accuracy_interval)} for guess in result.guesses]
    power = [{"noise_factor": factor, "chance": chance} for factor, chance in result.power]
    plain = {k: v for k, v in vars(result).items() if k not in ("guesses", "power", "noise", "sensitivity")}
    # JSON has no infinity, which is what an accountant says of a run without noise.
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in plain.items()}
    noise = None
    if result.noise is not None:
        tests = [dict(vars(test)) for test in result.noise.tests]
        ratio = result.noise.ratio if math.isfinite(result.noise.ratio) else None
        noise = dict(vars(result.noise)) | {"ratio": ratio, "tests": tests, "refuted": list(result.noise.refuted)}
    moved = None
    if result.sensitivity is not None:
        largest = result.sensitivity.largest
        moved = dict(vars(result.sensitivity)) | {"largest": largest if math.isfinite(largest) else None}
        moved |= {"exceeds": result.sensitivity.exceeds}
    normal = None if gaussian is None else dict(vars(gaussian)) | {"epsilon": gaussian.epsilon}
    return plain | {"guesses": guesses, "power": power, "noise": noise, "sensitivity": moved, "gaussian": normal}


def dp_audit_evidence(
    result: AuditResult, gaussian: IfGaussian | None, canaries: CanaryScores, claim: Claim, request: Mapping[str, Any]
) -> Derived:
    """The audit, the claim, and the canaries; ``request``: other options, such as the training function."""
    phases = claim.accounting
    return Derived(
        kind="dp_audit",
        record=audit_content(result, gaussian),
        exit_code=EXIT_CODES[result.verdict],
        request={
            **vars(claim),
            "guesses": None if claim.guesses is None else list(claim.guesses),
            "accounting": None if phases is None else [dict(vars(phase)) for phase in phases],
            "asked": dict(request),
        },
        parts={CANARIES: CanaryRecord.from_scores(canaries).model_dump_json().encode()},
    )
