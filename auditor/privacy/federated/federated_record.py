"""The record of a federated run for the linter, read from JSON or TOML.

A field that is left out was not recorded; the checks that need it say so. Nothing is assumed in its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from auditor.core.errors import DataError
from auditor.core.files import Closed
from auditor.core.number_types import Count, NonNegative, Positive, PositiveCount
from auditor.privacy.accounting import Accountant
from auditor.privacy.run_record import (
    RUN_FORMAT,
    RecordedPhase,
    RunRecord,
    parse_as,
    parse_run,
    read_plain,
)
from auditor.report.record.energy import EnergyRecord

FEDERATED_FORMAT = "auditor-federated-run/1"


class Aggregation(Closed):
    """A statement of how single updates are hidden from the server: nothing here is measured.

    ``scheme``: ``masking`` that cancels in the sum, or homomorphic encryption. ``key_holder``: who can open updates:
    each of the ``clients``, any ``key_threshold`` of the holders of ``shares``, a ``third_party``, or the ``server``.
    ``ring_dimension``, ``modulus_bits`` (of ``paillier``: of n), ``security_bits``: parameters of the encryption, with
    ternary secrets. ``stated_by``: who answers for the statement.
    """

    scheme: Literal["masking", "ckks", "bfv", "bgv", "paillier", "other"]
    key_holder: Literal["clients", "shares", "third_party", "server"]
    key_threshold: PositiveCount | None = None
    ring_dimension: PositiveCount | None = None
    modulus_bits: PositiveCount | None = None
    security_bits: Literal[128, 192, 256] | None = None
    stated_by: Annotated[str, Field(min_length=1, max_length=200)]


class FederatedRun(Closed):
    """One run of federated training, with the recorded facts.

    A round is one noisy sum of clients' updates.

    ``unit``: whom the claim protects, a client with all its rows or a single row. ``claim_toward``: against whom it is
    made: who sees only the released models, the other clients, or the server too. ``phases``: what the accountant
    counted, a step being a round (of local DP-SGD, ``clipping`` ``row``, a local step).

    ``n_clients``, ``n_rows``: clients there are, rows of all of them. ``cohort``: how those of a round are drawn:
    ``poisson`` each by itself with chance ``cohort_rate``, ``fixed_size`` so many of all, ``all`` every one,
    ``shuffled`` everybody once before anybody twice, ``available`` who reports. ``cohort_secret``: nobody against whom
    the claim is made learns who took part. ``partial_cohorts``: what a round does to which fewer answer than were
    asked, the last of an epoch too: the sum of those few with the whole noise (``kept``), no release (``dropped``),
    others asked instead (``redrawn``), or noise for so few (``noise_scaled``). ``dropped`` is no fault of a run without
    amplification in which every round was released and nobody was missing.
    ``participation_limit``: rounds that a client may take part in. ``minimum_clients``: fewest that are asked in a
    round; ``quorum``: fewest answers with which a round is released.

    ``weighting``: of a client's update in the sum: ``uniform``, by its ``rows``, by its rows up to a bound
    (``rows_capped``), or ``other``; ``largest_weight``: the most it can be, where noise is scaled by it.
    ``divided_by``: what the noisy sum is divided by.
    ``coordinates``: those of an update that are sent: ``all``, ``fixed`` or ``random`` ones, or by the data the
    ``largest`` or those above a ``threshold``; ``coordinates_accounted``: their choice is private and in the claim.
    ``local_steps``: of a client in a round.

    ``clipping``: ``per_client`` each whole update to ``clipping_norm``, ``per_layer`` each part to it, ``row`` the
    rows' gradients in local DP-SGD, ``after_sum`` or ``none``; ``clipped_at``: where. ``clipping_chosen``: ``fixed``
    beforehand, ``adaptive`` from the updates as they are, ``adaptive_private`` from a noisy count of those clipped, of
    standard deviation ``quantile_noise``.

    ``noise_at``: ``server``, or each ``client`` adds its own. ``noise_multiplier``: standard deviation that was added,
    by the server to the sum or by each client to its update, over the clipping norm. ``least_reports``: the fewest
    clients in a released sum. ``sees_updates``: who sees the update of a single client: the ``server``,
    nobody but the ``secure_aggregation`` that releases sums, or ``nobody``, as in a simulation by one party.
    ``aggregation``: how that is done, as somebody states it.

    What was seen of the rounds: ``rounds``, ``cohort_sizes`` asked in each, ``most_participations`` of one client,
    ``answers_missing``: clients asked that did not answer, ``largest_update``: norm of an update as it entered the sum,
    ``weight_ratio``: largest over smallest weight in a round, ``coordinates_sent`` of ``n_coordinates``: that were not
    zero in every single update, and others in each. The rest as of
    :class:`~auditor.privacy.run_record.RunRecord`.
    """

    format: Literal["auditor-federated-run/1"] = "auditor-federated-run/1"
    claimed_epsilon: Positive | None = None
    delta: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    unit: Literal["client", "row"] | None = None
    claim_toward: Literal["released_model", "clients", "server"] | None = None
    accountant: Accountant | None = None
    phases: Annotated[tuple[RecordedPhase, ...], Field(min_length=1)] | None = None
    n_clients: PositiveCount | None = None
    n_rows: PositiveCount | None = None
    cohort: Literal["poisson", "fixed_size", "all", "shuffled", "available", "other"] | None = None
    cohort_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    cohort_secret: bool | None = None
    partial_cohorts: Literal["kept", "dropped", "redrawn", "noise_scaled"] | None = None
    participation_limit: PositiveCount | None = None
    minimum_clients: PositiveCount | None = None
    quorum: PositiveCount | None = None
    weighting: Literal["uniform", "rows", "rows_capped", "other"] | None = None
    largest_weight: Positive | None = None
    divided_by: Literal["expected_cohort", "actual_cohort", "sum_of_weights", "nothing", "other"] | None = None
    coordinates: Literal["all", "fixed", "random", "largest", "threshold"] | None = None
    coordinates_accounted: bool | None = None
    local_steps: PositiveCount | None = None
    clipping: Literal["per_client", "per_layer", "row", "after_sum", "none"] | None = None
    clipping_norm: Positive | None = None
    clipped_at: Literal["client", "server"] | None = None
    clipping_chosen: Literal["fixed", "adaptive", "adaptive_private"] | None = None
    quantile_noise: NonNegative | None = None
    noise_at: Literal["server", "client"] | None = None
    noise_multiplier: NonNegative | None = None
    least_reports: PositiveCount | None = None
    sees_updates: Literal["server", "secure_aggregation", "nobody"] | None = None
    aggregation: Aggregation | None = None
    rounds: Count | None = None
    cohort_sizes: tuple[Count, ...] | None = None
    most_participations: Count | None = None
    answers_missing: Count | None = None
    largest_update: NonNegative | None = None
    weight_ratio: Annotated[float, Field(ge=1.0)] | None = None
    coordinates_sent: PositiveCount | None = None
    n_coordinates: PositiveCount | None = None
    energy: EnergyRecord | None = None
    preprocessing: Literal["none", "public", "training_rows", "private_mechanism"] | None = None
    n_trials: PositiveCount | None = None
    trials_accounted: bool | None = None
    noise_seed_known: bool | None = None

    @property
    def amplified(self) -> bool:
        """Whether the accounting counts on clients being drawn by chance."""
        return any(phase.sample_rate < 1.0 for phase in self.phases or ())

    @property
    def accounted_rounds(self) -> int:
        """Rounds that the accountant counts."""
        return sum(phase.steps for phase in self.phases or ())

    def as_of_rows(self) -> RunRecord:
        """The fields for a central run's checks, with clients as rows if the claim is for clients."""
        same = "claimed_epsilon delta accountant phases preprocessing n_trials trials_accounted noise_seed_known"
        return RunRecord(**{name: getattr(self, name) for name in same.split()})


def parse_federated(raw: object, name: str) -> FederatedRun:
    """The record of plain data. Raises DataError naming the field that is wrong and the nearest known one."""
    return parse_as(FederatedRun, FEDERATED_FORMAT, raw, name)


def read_any_run(path: str | Path) -> RunRecord | FederatedRun:
    """The record in a JSON or TOML file, of rows or of clients, by its format.

    Raises DataError.
    """
    raw, name = read_plain(path), Path(path).name
    form = raw.get("format") if isinstance(raw, dict) else None
    if form == FEDERATED_FORMAT:
        return parse_federated(raw, name)
    if form == RUN_FORMAT:
        return parse_run(raw, name)
    raise DataError(
        f'{name!r} is no record of a private run: it must be an object with "format": "{RUN_FORMAT}" or, for federated '
        f'training, "{FEDERATED_FORMAT}".'
    )
