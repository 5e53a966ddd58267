"""Checks of sending, clipping, weighting, noise and visibility of federated updates: one error each."""

from __future__ import annotations

import math

from auditor.privacy.dp_problem import CannotTell, Fault, Found, check
from auditor.privacy.dp_step_checks import SAME
from auditor.privacy.federated.federated_record import FederatedRun
from auditor.privacy.sensitivity import SLACK

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
        mend="Set the noise to what `auditor dp-budget --epsilon` says.",
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
