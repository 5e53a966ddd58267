"""Linter of federated runs for errors that break the guarantee: checks of client sampling and of updates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import binom

from auditor.privacy import dp_linter as claim
from auditor.privacy.dp_checks import SAME, CannotTell, Check, Fault, Found, check
from auditor.privacy.dp_linter import LintResult, lint, run_checks
from auditor.privacy.federated.federated_record import FederatedRun
from auditor.privacy.released_noise import SLACK
from auditor.privacy.run_record import RunRecord

# ---- what one client can do to the sum -------------------------------------------------------------------------------


@check("clipping", "unit")
def client_not_clipped(run: FederatedRun) -> Found:
    """No bound on the contribution of a whole client, or of one of its rows, to the sum."""
    if run.clipping == "per_client" or (run.clipping == "row" and run.unit == "row"):
        return None
    if run.clipping == "row":
        return None  # whom that protects is the question of unit_of_privacy
    what, why = {
        "none": ("Updates are not clipped.", "Nothing bounds what one client adds, so no noise is enough."),
        "after_sum": (
            "The sum is clipped, and no single update.",
            "One client can still replace the whole of the sum: its length is bounded, one client's part is not.",
        ),
        "per_layer": (
            "Each layer of an update is clipped to the whole norm.",
            "An update of L layers then has norm up to sqrt(L) clipping norms, and the noise is scaled to one.",
        ),
    }[str(run.clipping)]
    return Fault(
        what=what,
        why=why,
        mend="Scale each client's whole update to clipping_norm at most, before anything is summed.",
    )


@check("largest_update", "clipping_norm")
def update_above_norm(run: FederatedRun) -> Found:
    """An update that entered the sum longer than the clipping norm."""
    most, norm = run.largest_update or 0.0, (run.clipping_norm or 0.0) * (run.largest_weight or 1.0)
    if most <= norm * (1.0 + SLACK):
        return None
    return Fault(
        what=f"An update of norm {most:.4g} entered the sum, and the clipping norm is {norm:.4g}.",
        why="Noise is scaled, and epsilon counted, for the clipping norm.",
        mend="Clip after all that changes an update: weights, momentum, compression, adaptive norms.",
    )


@check("clipping_chosen")
def clipping_norm_from_updates(run: FederatedRun) -> Found:
    """A clipping norm that follows the clients' updates without a separate privacy budget."""
    if run.clipping_chosen == "fixed":
        return None
    if run.clipping_chosen == "adaptive_private":
        if run.quantile_noise is None:
            return CannotTell(why="The clipping norm follows a noisy count, and quantile_noise is not recorded.")
        if run.quantile_noise > 0.0:
            return None
    return Fault(
        what="The clipping norm follows the clients' updates, without noise.",
        why="The norm is released with each round and tells how long the updates were; it is a second query that no "
        "budget covers.",
        mend="Fix the norm beforehand, or follow a noisy count of clipped updates and account both together (Andrew, "
        "Thakkar, McMahan and Ramaswamy 2021).",
    )


@check("weighting")
def weighted_by_rows(run: FederatedRun) -> Found:
    """Weights by client size: one client's part of the sum depends on its data."""
    if run.weighting == "uniform":
        return None
    if run.weighting == "rows_capped" and run.largest_weight is not None:
        return None
    if run.weighting in ("rows_capped", "other"):
        return CannotTell(
            why=f"Updates are weighted ({run.weighting}), and largest_weight is not recorded: noise must be scaled to "
            "the most that a client can weigh."
        )
    return Fault(
        what="Updates are weighted by how many rows their client has.",
        why="A large client adds more than the clipping norm that noise is scaled to, and the weights of all others "
        "change when it leaves: sensitivity depends on the data, and so do the weights that are released with it.",
        mend="Weigh every client alike, or by min(rows / bound, 1) with noise for weight 1 and a constant divisor "
        "(McMahan, Ramage, Talwar and Zhang 2018). Flower's FedAvg weighs by num-examples: send 1.",
    )


@check("weighting", "weight_ratio")
def weights_not_uniform(run: FederatedRun) -> Found:
    """Weights observed to differ although stated to be equal."""
    ratio = run.weight_ratio or 1.0
    if run.weighting != "uniform" or ratio <= 1.0 + SAME:
        return None
    return Fault(
        what=f"Weights are said to be alike, and in one round one was {ratio:.3g} times another.",
        why="What weighs more is more than the noise was scaled to.",
        mend="Send the same weight for every client.",
    )


@check("divided_by")
def divided_by_actual_cohort(run: FederatedRun) -> Found:
    """A noisy sum divided by the actual number of received updates."""
    if run.divided_by == "other":
        return CannotTell(
            why="divided_by is other: what the noisy sum is divided by decides, and must not depend on who took part."
        )
    if run.divided_by not in ("actual_cohort", "sum_of_weights"):
        return None
    by = "how many clients answered" if run.divided_by == "actual_cohort" else "the weights of those that answered"
    return Fault(
        what=f"The sum is divided by {by}.",
        why="When one client leaves, every other's share changes: the released mean moves by up to two clipping norms "
        "over the cohort, and noise is scaled to one. Divided before the noise is added, a small cohort gets less.",
        mend="Divide by the expected cohort, cohort_rate times the clients, which is the same whoever answers.",
    )


@check("coordinates")
def coordinates_from_data(run: FederatedRun) -> Found:
    """Selective SGD: which coordinates are sent depends on the data."""
    if run.coordinates not in ("largest", "threshold"):
        return None
    if run.coordinates_accounted:
        return CannotTell(
            why="Which coordinates are sent is said to be chosen privately, and no field says at what epsilon: make "
            "sure that the claim includes it."
        )
    which = "largest" if run.coordinates == "largest" else "above a threshold"
    return Fault(
        what=f"Of their updates clients send the coordinates that are {which}.",
        why="Which coordinates are sent is chosen by the data in the clear, so it tells of them whatever noise the "
        "values get (Shokri and Shmatikov 2015 pay for that choice by the sparse vector technique).",
        mend="Send all coordinates, fixed or random ones; or choose them by a private mechanism and account it.",
    )


# ---- noise, and who sees what ----------------------------------------------------------------------------------------


@check("noise_multiplier")
def no_noise(run: FederatedRun) -> Found:
    """Noise that is switched off."""
    if run.noise_multiplier != 0.0:
        return None
    return Fault(
        what="The noise multiplier is 0.",
        why="Without noise the released models determine who took part: no epsilon is finite.",
        mend="Set the noise to what `auditor dp budget --epsilon` says.",
    )


@check("noise_multiplier", "noise_at", "phases", "claim_toward", "sees_updates")
def noise_below_accounting(run: FederatedRun) -> Found:
    """Less noise against one client than accounted."""
    found = against_one(run)
    if isinstance(found, str):
        return CannotTell(why=found)
    noise, how = found
    noises = [phase.noise_multiplier for phase in run.phases or ()]
    if noise >= max(noises) * (1.0 - SAME):
        return None
    if noise >= min(noises) * (1.0 - SAME):
        return CannotTell(
            why=f"The noise of {noise:.4g} lies between those of the accounted phases, and nothing says in which of "
            "them it was used: lint each phase as a run of its own."
        )
    return Fault(
        what=f"Noise of multiplier {noise:.4g} stands against one client{how}, and {min(noises):.4g} is accounted for.",
        why="The rounds leak more than is counted.",
        mend="Account with the noise that there is, or add what is accounted for.",
    )


def against_one(run: FederatedRun) -> tuple[float, str] | str:
    """The noise multiplier against one client's update as seen, and its reductions; or the reason if unknown.

    Noise of the clients: ``z sqrt(k)`` of k in a sum, of which a client knows its own, ``z`` for a server that sees
    single updates. Over the largest weight. With a noisy count of clipped updates
    ``(z^-2 + (2 s)^-2)^(-1/2)`` (Andrew et al. 2021, theorem 1).
    """
    noise, how = run.noise_multiplier or 0.0, ""
    if run.noise_at == "client" and not (run.claim_toward == "server" and run.sees_updates == "server"):
        if run.least_reports is None:
            return "Clients add the noise, and least_reports is not recorded: a sum of fewer updates has less of it."
        others = run.least_reports - (run.claim_toward == "clients")
        noise, how = noise * math.sqrt(others), f" in a sum of {run.least_reports:,}"
    elif run.noise_at == "client":
        how = " whose update the server sees"
    if run.weighting == "rows_capped" and run.largest_weight is not None:
        noise, how = noise / run.largest_weight, how + f" of weight {run.largest_weight:g}"
    if run.clipping_chosen == "adaptive_private" and run.quantile_noise and noise > 0.0:
        noise = (noise**-2 + (2.0 * run.quantile_noise) ** -2) ** -0.5
        how += ", the count of clipped updates included"
    return noise, how


@check("claim_toward", "noise_at", "sees_updates")
def server_sees_updates(run: FederatedRun) -> Found:
    """A claim against the server, which sees updates, or sums, before the noise."""
    if run.claim_toward != "server" or run.noise_at == "client":
        return None
    seen = "single updates" if run.sees_updates == "server" else "the sum"
    return Fault(
        what=f"The claim is made toward the server, which sees {seen} before noise is added.",
        why="Central noise protects against those who see the released model only. Secure aggregation hides single "
        "updates, and not from a server that adds the noise itself what their sum is.",
        mend="Claim it toward those who see the released model; or let clients add noise, so much that a sum of the "
        "fewest that answer has what is accounted for, under secure aggregation.",
    )


@check("sees_updates", "clipped_at", "clipping")
def clipping_out_of_sight(run: FederatedRun) -> Found:
    """A server responsible for clipping updates that it cannot see."""
    if run.sees_updates != "secure_aggregation" or run.clipped_at != "server" or run.clipping == "none":
        return None
    return Fault(
        what="The server clips single updates, and under secure aggregation it sees only their sum.",
        why="Either single updates are seen after all, or nobody clips them.",
        mend="Clip at the clients, before their updates are masked.",
    )


@check("unit", "clipping")
def unit_of_privacy(run: FederatedRun) -> Found:
    """A claim for clients of a mechanism that protects single rows."""
    if run.unit != "client" or run.clipping != "row":
        return None
    return Fault(
        what="The claim is for whole clients, and rows' gradients are what is clipped and noised.",
        why="Local DP-SGD bounds what one row does. A client has many, and its epsilon is up to as many times larger.",
        mend="State the claim for rows, or clip each client's whole update and add noise for that.",
    )


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
    client_not_clipped,
    update_above_norm,
    clipping_norm_from_updates,
    weighted_by_rows,
    weights_not_uniform,
    divided_by_actual_cohort,
    coordinates_from_data,
    no_noise,
    noise_below_accounting,
    server_sees_updates,
    clipping_out_of_sight,
    unit_of_privacy,
    delta_too_large,
    _of_rows(claim.claim_below_accounting),
    _of_rows(claim.claim_by_approximation),
    _of_rows(claim.search_not_accounted),
    _of_rows(claim.data_dependent_preprocessing),
    _of_rows(claim.noise_seed_known),
)
