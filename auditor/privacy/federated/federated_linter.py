"""Linter of federated runs for errors that break the guarantee: one small check each, on the run's record."""

from __future__ import annotations

from collections.abc import Callable

from auditor.privacy import dp_claim_checks as claim
from auditor.privacy.dp_linter import Check, LintResult, lint, run_checks
from auditor.privacy.dp_problem import CannotTell, Problem
from auditor.privacy.federated import cohort_checks as cohort
from auditor.privacy.federated import update_checks as update
from auditor.privacy.federated.federated_record import FederatedRun
from auditor.privacy.run_record import RunRecord


def lint_any(run: RunRecord | FederatedRun) -> LintResult:
    """Run every check that a record of either kind supports."""
    return run_checks(run, FEDERATED_CHECKS) if isinstance(run, FederatedRun) else lint(run)


def _claim_check(
    name: str, needs: tuple[str, ...], ask: Callable[[RunRecord], Problem | CannotTell | None]
) -> Check[FederatedRun]:
    """A check of the claim, which is the same of rows and of clients."""
    return Check(name=name, needs=needs, ask=lambda run: ask(run.as_of_rows()))


FEDERATED_CHECKS: tuple[Check[FederatedRun], ...] = (
    Check(name="cohort_not_poisson", needs=("cohort", "phases"), ask=cohort.cohort_not_poisson),
    Check(name="cohort_not_secret", needs=("cohort_secret", "claim_toward", "phases"), ask=cohort.cohort_not_secret),
    Check(name="cohort_rate_too_low", needs=("cohort_rate", "phases"), ask=cohort.cohort_rate_too_low),
    Check(
        name="cohorts_not_as_claimed",
        needs=("cohort", "cohort_rate", "n_clients", "cohort_sizes"),
        ask=cohort.cohorts_not_as_claimed,
    ),
    Check(name="partial_cohorts", needs=("partial_cohorts",), ask=cohort.partial_cohorts),
    Check(name="rounds_not_counted", needs=("rounds", "phases", "clipping"), ask=cohort.rounds_not_counted),
    Check(name="participation_above_limit", needs=("most_participations",), ask=cohort.participation_above_limit),
    Check(name="client_not_clipped", needs=("clipping", "unit"), ask=update.client_not_clipped),
    Check(name="update_above_norm", needs=("largest_update", "clipping_norm"), ask=update.update_above_norm),
    Check(name="clipping_norm_from_updates", needs=("clipping_chosen",), ask=update.clipping_norm_from_updates),
    Check(name="weighted_by_rows", needs=("weighting",), ask=update.weighted_by_rows),
    Check(name="weights_not_uniform", needs=("weighting", "weight_ratio"), ask=update.weights_not_uniform),
    Check(name="divided_by_actual_cohort", needs=("divided_by",), ask=update.divided_by_actual_cohort),
    Check(name="coordinates_from_data", needs=("coordinates",), ask=update.coordinates_from_data),
    Check(name="no_noise", needs=("noise_multiplier",), ask=update.no_noise),
    Check(
        name="noise_below_accounting",
        needs=("noise_multiplier", "noise_at", "phases", "claim_toward", "sees_updates"),
        ask=update.noise_below_accounting,
    ),
    Check(
        name="server_sees_updates", needs=("claim_toward", "noise_at", "sees_updates"), ask=update.server_sees_updates
    ),
    Check(
        name="clipping_out_of_sight",
        needs=("sees_updates", "clipped_at", "clipping"),
        ask=update.clipping_out_of_sight,
    ),
    Check(name="unit_of_privacy", needs=("unit", "clipping"), ask=update.unit_of_privacy),
    Check(name="delta_too_large", needs=("delta", "unit", "n_clients"), ask=cohort.delta_too_large),
    _claim_check("claim_below_accounting", ("claimed_epsilon", "delta", "phases"), claim.claim_below_accounting),
    _claim_check("claim_by_approximation", ("accountant",), claim.claim_by_approximation),
    _claim_check("search_not_accounted", ("n_trials",), claim.search_not_accounted),
    _claim_check("data_dependent_preprocessing", ("preprocessing",), claim.data_dependent_preprocessing),
    _claim_check("noise_seed_known", ("noise_seed_known",), claim.noise_seed_known),
)
