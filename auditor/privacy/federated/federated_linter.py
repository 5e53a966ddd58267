"""Linter of federated runs for errors that break the guarantee: one small check each, on the run's record.

The checks of client sampling are here, those of updates in :mod:`auditor.privacy.federated.update_checks`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binom

from auditor.privacy import dp_claim_checks as claim
from auditor.privacy.dp_linter import LintResult, lint, run_checks
from auditor.privacy.dp_problem import CannotTell, Check, Fault, Found, check
from auditor.privacy.dp_step_checks import SAME
from auditor.privacy.federated import update_checks as update
from auditor.privacy.federated.federated_record import FederatedRun
from auditor.privacy.run_record import RunRecord

# Chance to accuse rounds that were drawn as is claimed.
LEVEL = 1e-4


@check("cohort", "phases")
def cohort_not_poisson(run: FederatedRun) -> Found:
    """Amplification by sampling accounted for clients not sampled by independent coins."""
    if not run.amplified or run.cohort == "poisson":
        return None
    if run.cohort == "other":
        return CannotTell(why="cohort is other: amplification is counted, and needs each client drawn by its own coin.")
    how = {
        "fixed_size": "a fixed number of clients is drawn",
        "all": "every client takes part",
        "shuffled": "everybody takes part once before anybody does twice",
        "available": "whoever is available takes part",
    }[str(run.cohort)]
    return Fault(
        what=f"Amplification by sampling is counted, and {how} in a round.",
        why="The accountants assume Poisson sampling: each client in each round by a coin of its own, thrown by nobody "
        "but chance. A cohort of fixed size can leak more than they count, and one by availability or by turns need "
        "not be random at all (Balle, Barthe and Gaboardi 2018; Kairouz et al. 2021).",
        mend="Draw each client with chance cohort_rate, or account every round with sample rate 1.",
    )


@check("cohort_secret", "claim_toward", "phases")
def cohort_not_secret(run: FederatedRun) -> Found:
    """Amplification claimed against an observer who sees the sampled clients."""
    if not run.amplified:
        return None
    if run.cohort_secret and run.claim_toward != "server":
        return None
    if run.cohort_secret:
        return CannotTell(
            why="The claim is made toward the server, which as a rule asks the clients of a round itself and so knows "
            "them: make sure that it does not, or account with sample rate 1."
        )
    return Fault(
        what="Amplification by sampling is counted, and those against whom the claim is made see who takes part.",
        why="Sampling hides a client only as long as nobody knows whether it was drawn. To whoever sees the cohort, a "
        "client in it is protected by the noise of that round alone.",
        mend="Keep the cohorts secret, or account every round with sample rate 1.",
    )


@check("cohort_rate", "phases")
def cohort_rate_too_low(run: FederatedRun) -> Found:
    """An accounted sampling probability smaller than that of the clients."""
    rates, actual = [phase.sample_rate for phase in run.phases or ()], run.cohort_rate or 0.0
    if min(rates) >= actual * (1.0 - SAME):
        return None
    if max(rates) >= actual * (1.0 - SAME):
        return CannotTell(
            why=f"The cohort rate of {actual:.4g} lies between those of the accounted phases, and nothing says in "
            "which of them it was used: lint each phase as a run of its own."
        )
    return Fault(
        what=f"A sample rate of {max(rates):.4g} is counted, and a client takes part with chance {actual:.4g}.",
        why="A client takes part in more rounds than are counted, so epsilon is larger than stated.",
        mend=f"Account every round with the chance that clients have, {actual:.4g}.",
    )


@check("cohort", "cohort_rate", "n_clients", "cohort_sizes")
def cohorts_not_as_claimed(run: FederatedRun) -> Found:
    """Cohort sizes inconsistent with Poisson sampling at the stated rate."""
    if run.cohort != "poisson" or not run.cohort_sizes:
        return None
    sizes, n, rate = run.cohort_sizes, run.n_clients or 1, run.cohort_rate or 1.0
    chance, how = min((too_alike(sizes, n, rate), "too alike"), (wrong_total(sizes, n, rate), "of another mean"))
    if 2.0 * chance > LEVEL:
        return None
    return Fault(
        what=f"The {len(sizes):,} cohorts, from {min(sizes):,} to {max(sizes):,} clients, are {how} to have been drawn "
        f"from {n:,} clients with chance {rate:.4g} each (p = {2.0 * chance:.1g}).",
        why="Poisson cohorts differ in size as a binomial number does. Cohorts of one size are drawn as fixed sets, "
        "whatever the record says, and another mean is another rate.",
        mend="Draw each client by its own coin; of Flower, fraction_train draws a fixed number.",
    )


def too_alike(sizes: Sequence[int], n: int, rate: float) -> float:
    """``P(range of T Binomial(n, rate) <= that of the sizes)``, exact.

    ``sum_a P(a <= X <= a + r)^T - P(a + 1 <= X <= a + r)^T``.
    """
    spread, rounds = max(sizes) - min(sizes), len(sizes)
    a = np.arange(n + 1)
    top, below, own = binom.cdf(a + spread, n, rate), binom.cdf(a - 1, n, rate), binom.cdf(a, n, rate)
    inside = np.clip(top - below, 0.0, 1.0) ** rounds - np.clip(top - own, 0.0, 1.0) ** rounds
    return float(min(inside.sum(), 1.0))


def wrong_total(sizes: Sequence[int], n: int, rate: float) -> float:
    """Two-sided p-value of the sum of the sizes, ``Binomial(T n, rate)``."""
    total, tries = sum(sizes), n * len(sizes)
    return float(min(2.0 * min(binom.cdf(total, tries, rate), binom.sf(total - 1, tries, rate)), 1.0))


@check("partial_cohorts")
def partial_cohorts(run: FederatedRun) -> Found:
    """Rounds with few answers that are treated as the clients' presence decides."""
    # Where cohorts are drawn by chance and in secret, that none was small enough to be left out tells something too.
    every_answer = run.answers_missing == 0 and len(run.cohort_sizes or ()) == run.rounds
    if run.partial_cohorts == "kept" or (run.partial_cohorts == "dropped" and every_answer and not run.amplified):
        return None
    what, why = {
        "dropped": (
            "A round with too few answers, or the last of an epoch, is left out.",
            "That a round was released tells how many took part, and the accounting assumes a noisy release of every "
            "round.",
        ),
        "redrawn": (
            "Where too few answer, other clients are asked instead.",
            "A client that answers then takes part more often than with the chance that is counted.",
        ),
        "noise_scaled": (
            "The noise is scaled to how many answered.",
            "A small cohort then gets less noise than is counted, and one client's update is as large as before.",
        ),
    }[str(run.partial_cohorts)]
    return Fault(
        what=what,
        why=why,
        mend="Release every round: the sum of what came, with the whole noise, divided by the expected cohort.",
    )


@check("rounds", "phases", "clipping")
def rounds_not_counted(run: FederatedRun) -> Found:
    """More rounds than the accountant counts, and nothing that limits how many of them a client is in."""
    if run.clipping == "row" and run.local_steps is None:
        return CannotTell(why="Every local private step spends, and local_steps is not recorded.")
    taken = (run.rounds or 0) * ((run.local_steps or 1) if run.clipping == "row" else 1)
    if taken <= run.accounted_rounds:
        return None
    per_round = f" of {run.local_steps} private steps each" if taken != run.rounds else ""
    if run.participation_limit is not None and not run.amplified and taken == run.rounds:
        if run.participation_limit <= run.accounted_rounds:
            return None
        per_round = f", of which a client may take part in {run.participation_limit:,}"
    return Fault(
        what=f"{run.rounds:,} rounds were made{per_round}, and {run.accounted_rounds:,} steps are accounted for.",
        why="Every noisy release that a client takes part in spends.",
        mend="Account all rounds, local private steps included; or limit how often a client takes part, account that "
        "many rounds with sample rate 1, and count participations.",
    )


@check("most_participations")
def participation_above_limit(run: FederatedRun) -> Found:
    """A client in more rounds than the limit, if there is one."""
    limit = run.participation_limit
    if limit is None or (run.most_participations or 0) <= limit:
        return None
    return Fault(
        what=f"A client took part in {run.most_participations:,} rounds, and the limit is {limit:,}.",
        why="A claim that counts on the limit does not hold for that client.",
        mend="Refuse a client that has used up its rounds, before its update is taken.",
    )


@check("delta", "unit", "n_clients")
def delta_too_large(run: FederatedRun) -> Found:
    """A delta of at least one over the number of protected units."""
    n, who = (run.n_clients, "clients") if run.unit == "client" else (run.n_rows, "rows")
    if n is None:
        return CannotTell(why="The claim is for rows, and n_rows is not recorded.")
    if (run.delta or 0.0) < 1.0 / n:
        return None
    return Fault(
        what=f"delta is {run.delta:g}, and one over the {n:,} {who} is {1.0 / n:.3g}.",
        why="At such a delta a mechanism may publish all that one of them holds and keep the claim.",
        mend=f"Choose delta well below that, such as n^-1.1 = {n**-1.1:.3g}, and account anew.",
    )


def lint_any(run: RunRecord | FederatedRun) -> LintResult:
    """Run every check that a record of either kind supports."""
    return run_checks(run, FEDERATED_CHECKS) if isinstance(run, FederatedRun) else lint(run)


def _of_rows(claimed: Check[RunRecord]) -> Check[FederatedRun]:
    """A check of the claim, which is the same of rows and of clients."""
    return Check(name=claimed.name, needs=claimed.needs, ask=lambda run: claimed.ask(run.as_of_rows()))


FEDERATED_CHECKS: tuple[Check[FederatedRun], ...] = (
    cohort_not_poisson,
    cohort_not_secret,
    cohort_rate_too_low,
    cohorts_not_as_claimed,
    partial_cohorts,
    rounds_not_counted,
    participation_above_limit,
    update.client_not_clipped,
    update.update_above_norm,
    update.clipping_norm_from_updates,
    update.weighted_by_rows,
    update.weights_not_uniform,
    update.divided_by_actual_cohort,
    update.coordinates_from_data,
    update.no_noise,
    update.noise_below_accounting,
    update.server_sees_updates,
    update.clipping_out_of_sight,
    update.unit_of_privacy,
    delta_too_large,
    _of_rows(claim.claim_below_accounting),
    _of_rows(claim.claim_by_approximation),
    _of_rows(claim.search_not_accounted),
    _of_rows(claim.data_dependent_preprocessing),
    _of_rows(claim.noise_seed_known),
)
