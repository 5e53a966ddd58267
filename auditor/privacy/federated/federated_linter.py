"""Linter of federated runs for errors that break the guarantee; ``federated_checks.toml`` has what its checks say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import binom

from auditor.privacy.dp_linter import CHECKS, SAME, Check, Found, LintResult, lint, read_checks, run_checks
from auditor.privacy.federated.federated_record import FederatedRun
from auditor.privacy.released_noise import SLACK
from auditor.privacy.run_record import RunRecord

# Chance to accuse rounds that were drawn as is claimed.
LEVEL = 1e-4
# The sum of one update is that update, and of two each of the two clients knows the other's.
FEWEST = 3
# Bits of the modulus at most, by security and ring dimension, with ternary secrets against classical attacks:
# Albrecht et al., Homomorphic Encryption Security Standard (2018), table 1.
_RINGS = (1024, 2048, 4096, 8192, 16384, 32768)
_LARGEST_MODULUS = {
    128: dict(zip(_RINGS, (27, 54, 109, 218, 438, 881), strict=True)),
    192: dict(zip(_RINGS, (19, 37, 75, 152, 305, 611), strict=True)),
    256: dict(zip(_RINGS, (14, 29, 58, 118, 237, 476), strict=True)),
}
# Bits of n of Paillier's at least, which is to be factored: NIST SP 800-57, part 1, table 2.
_LEAST_FACTORED = {128: 3072, 192: 7680, 256: 15360}


def _client_not_clipped(run: FederatedRun) -> Found:
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
    }.get(str(run.clipping), ("", ""))  # whom clipped rows protect is the question of unit_of_privacy
    return bool(what) and {"what": what, "why": why}


def _update_above_norm(run: FederatedRun) -> Found:
    most, norm = run.largest_update or 0.0, (run.clipping_norm or 0.0) * (run.largest_weight or 1.0)
    return most > norm * (1.0 + SLACK) and {"norm": norm}


def _clipping_norm_from_updates(run: FederatedRun) -> Found:
    if run.clipping_chosen == "adaptive_private" and run.quantile_noise is None:
        return "The clipping norm follows a noisy count, and quantile_noise is not recorded."
    noisy = run.clipping_chosen == "adaptive_private" and (run.quantile_noise or 0.0) > 0.0
    return run.clipping_chosen != "fixed" and not noisy


def _weighted_by_rows(run: FederatedRun) -> Found:
    if run.weighting == "other" or (run.weighting == "rows_capped" and run.largest_weight is None):
        return (
            f"Updates are weighted ({run.weighting}), and largest_weight is not recorded: noise must be scaled to "
            "the most that a client can weigh."
        )
    return run.weighting not in ("uniform", "rows_capped")


def _divided_by_actual_cohort(run: FederatedRun) -> Found:
    if run.divided_by == "other":
        return "divided_by is other: what the noisy sum is divided by decides, and must not depend on who took part."
    by = {"actual_cohort": "how many clients answered", "sum_of_weights": "the weights of those that answered"}
    return run.divided_by in by and {"by": by[run.divided_by]}


def _coordinates_from_data(run: FederatedRun) -> Found:
    which = {"largest": "largest", "threshold": "above a threshold"}.get(str(run.coordinates))
    if run.coordinates in ("all", "fixed") and run.coordinates_sent is not None:
        return (
            f"coordinates is {run.coordinates}, and each update had {run.coordinates_sent:,} of {run.n_coordinates:,} "
            "coordinates that were not zero, not the same in all: so do the largest look, or rows that are zero "
            "elsewhere. Make sure which it is."
        )
    if which and run.coordinates_accounted:
        return (
            "Which coordinates are sent is said to be chosen privately, and no field says at what epsilon: make "
            "sure that the claim includes it."
        )
    return which is not None and {"which": which}


def _between_phases(quantity: str, actual: float) -> str:
    return (
        f"The {quantity} of {actual:.4g} lies between those of the accounted phases, and nothing says in which of them "
        "it was used: lint each phase as a run of its own."
    )


def _noise_below_accounting(run: FederatedRun) -> Found:
    found = against_one(run)
    if isinstance(found, str):
        return found
    noise, how = found
    noises = [phase.noise_multiplier for phase in run.phases or ()]
    if noise >= max(noises) * (1.0 - SAME):
        return False
    if noise >= min(noises) * (1.0 - SAME):
        return _between_phases("noise", noise)
    return {"noise": noise, "how": how, "counted": min(noises)}


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


def _cohort_not_poisson(run: FederatedRun) -> Found:
    if not run.amplified or run.cohort == "poisson":
        return False
    if run.cohort == "other":
        return "cohort is other: amplification is counted, and needs each client drawn by its own coin."
    how = {
        "fixed_size": "a fixed number of clients is drawn",
        "all": "every client takes part",
        "shuffled": "everybody takes part once before anybody does twice",
        "available": "whoever is available takes part",
    }
    return {"how": how[str(run.cohort)]}


def _cohort_not_secret(run: FederatedRun) -> Found:
    if run.amplified and run.cohort_secret and run.claim_toward == "server":
        return (
            "The claim is made toward the server, which as a rule asks the clients of a round itself and so knows "
            "them: make sure that it does not, or account with sample rate 1."
        )
    return run.amplified and not run.cohort_secret


def _cohort_rate_too_low(run: FederatedRun) -> Found:
    rates, actual = [phase.sample_rate for phase in run.phases or ()], run.cohort_rate or 0.0
    if min(rates) >= actual * (1.0 - SAME):
        return False
    if max(rates) >= actual * (1.0 - SAME):
        return _between_phases("cohort rate", actual)
    return {"counted": max(rates)}


def _cohorts_not_as_claimed(run: FederatedRun) -> Found:
    if run.cohort != "poisson" or not run.cohort_sizes:
        return False
    sizes, n, rate = run.cohort_sizes, run.n_clients or 1, run.cohort_rate or 1.0
    chance, how = min((too_alike(sizes, n, rate), "too alike"), (wrong_total(sizes, n, rate), "of another mean"))
    return 2.0 * chance <= LEVEL and {
        "rounds": len(sizes), "low": min(sizes), "high": max(sizes), "how": how, "p": 2.0 * chance,
    }  # fmt: skip


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


def _partial_cohorts(run: FederatedRun) -> Found:
    # Where cohorts are drawn by chance and in secret, that none was small enough to be left out tells something too.
    every_answer = run.answers_missing == 0 and len(run.cohort_sizes or ()) == run.rounds
    if run.partial_cohorts == "kept" or (run.partial_cohorts == "dropped" and every_answer and not run.amplified):
        return False
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
    return {"what": what, "why": why}


def _few_clients(run: FederatedRun) -> Found:
    sizes, expected = run.cohort_sizes, (run.cohort_rate or 0.0) * (run.n_clients or 0)
    usual = float(np.median(sizes)) if sizes else expected or run.minimum_clients
    if usual is None:
        return "Neither the sizes of the cohorts nor their rate and the number of clients are recorded."
    return run.sees_updates != "secure_aggregation" and usual < FEWEST and {"usual": usual}


def _sum_of_few(run: FederatedRun) -> Found:
    if run.sees_updates != "secure_aggregation":
        return False
    expected = (run.cohort_rate or 0.0) * (run.n_clients or 0) or None
    asked = min(run.cohort_sizes, default=None) if run.cohort_sizes else None
    stated = run.quorum if run.quorum is not None else run.minimum_clients
    fewest = next((n for n in (run.least_reports, asked, stated) if n is not None), None)
    known = [n for n in (fewest, expected) if n is not None]
    if not known:
        return "How many clients a sum is of is not recorded: state quorum, or record least_reports."
    return min(known) < FEWEST and {"fewest": min(known)}


def _quorum_not_kept(run: FederatedRun) -> Found:
    asked = min(run.cohort_sizes, default=None) if run.cohort_sizes else None
    for name, least, fewest in (
        ("quorum", run.quorum, run.least_reports),
        ("minimum_clients", run.minimum_clients, asked),
    ):
        if least is not None and fewest is not None and fewest < least:
            return {"what": f"{name} is {least:,}, and a round had {fewest:,} clients."}
    return (run.quorum or 1) > 1 and run.partial_cohorts == "kept" and {
        "what": f"quorum is {run.quorum:,}, and rounds with fewer answers are said to be kept."
    }  # fmt: skip


def _secure_aggregation(run: FederatedRun) -> Found:
    how, hidden = run.aggregation, run.sees_updates == "secure_aggregation"
    if how is None:
        return (
            hidden
            and run.claim_toward == "server"
            and "The claim rests on secure aggregation, and nobody states how it is done: record aggregation."
        )
    if not hidden:
        return {"what": f"Aggregation by {how.scheme} is stated, and sees_updates is {run.sees_updates}."}
    if how.key_holder == "server":
        return {"what": "The server holds the key, with which it can open every single update."}
    if how.key_holder != "shares":
        return False
    if how.key_threshold is None:
        return "The key is held in shares, and key_threshold is not recorded: how many of them open an update decides."
    few = run.least_reports or run.quorum
    if few is not None and how.key_threshold > few:
        return {"what": f"{how.key_threshold:,} shares open a sum, and a round of {few:,} clients was to be opened."}
    return how.key_threshold < 2 and {"what": "One share of the key alone opens a single update."}


def _encryption_parameters(run: FederatedRun) -> Found:
    how = run.aggregation
    if how is None or how.scheme == "masking":
        return False
    if how.scheme == "other":
        return "The scheme is other, so that no table says which parameters are enough."
    lattice = how.scheme != "paillier"
    if how.security_bits is None or how.modulus_bits is None or (lattice and how.ring_dimension is None):
        return f"The parameters of {how.scheme} are not all recorded: security_bits, modulus_bits and ring_dimension."
    if not lattice:
        least = _LEAST_FACTORED[how.security_bits]
        short = f"A modulus of {how.modulus_bits:,} bits is short of the {least:,} that {how.security_bits} bits need."
        return how.modulus_bits < least and {"what": short}
    most = _LARGEST_MODULUS[how.security_bits].get(how.ring_dimension or 0)
    if most is None:
        return f"The standard has no row for a ring dimension of {how.ring_dimension:,}: use one of {_RINGS}."
    long = (
        f"A modulus of {how.modulus_bits:,} bits at ring dimension {how.ring_dimension:,} is above the {most:,} of "
        f"{how.security_bits} bits of security."
    )
    return how.modulus_bits > most and {"what": long}


def _rounds_not_counted(run: FederatedRun) -> Found:
    if run.clipping == "row" and run.local_steps is None:
        return "Every local private step spends, and local_steps is not recorded."
    taken = (run.rounds or 0) * ((run.local_steps or 1) if run.clipping == "row" else 1)
    if taken <= run.accounted_rounds:
        return False
    per_round = f" of {run.local_steps} private steps each" if taken != run.rounds else ""
    if run.participation_limit is not None and not run.amplified and taken == run.rounds:
        if run.participation_limit <= run.accounted_rounds:
            return False
        per_round = f", of which a client may take part in {run.participation_limit:,}"
    return {"per_round": per_round, "accounted": run.accounted_rounds}


def _delta_too_large(run: FederatedRun) -> Found:
    n, who = (run.n_clients, "clients") if run.unit == "client" else (run.n_rows, "rows")
    if n is None:
        return "The claim is for rows, and n_rows is not recorded."
    return (run.delta or 0.0) >= 1.0 / n and {"n": n, "who": who, "share": 1.0 / n, "better": n**-1.1}


def lint_any(run: RunRecord | FederatedRun) -> LintResult:
    """Run every check that a record of either kind supports."""
    return run_checks(run, FEDERATED_CHECKS) if isinstance(run, FederatedRun) else lint(run)


def _of_rows(claimed: Check[RunRecord]) -> Check[FederatedRun]:
    return Check(**vars(claimed) | {"ask": lambda run: claimed.ask(run.as_of_rows())})


_FAULTS: dict[str, Callable[[FederatedRun], Found]] = {
    "cohort_not_poisson": _cohort_not_poisson,
    "cohort_not_secret": _cohort_not_secret,
    "cohort_rate_too_low": _cohort_rate_too_low,
    "cohorts_not_as_claimed": _cohorts_not_as_claimed,
    "partial_cohorts": _partial_cohorts,
    "few_clients": _few_clients,
    "sum_of_few": _sum_of_few,
    "quorum_not_kept": _quorum_not_kept,
    "rounds_not_counted": _rounds_not_counted,
    "participation_above_limit": lambda run: (
        run.participation_limit is not None and (run.most_participations or 0) > run.participation_limit
    ),
    "client_not_clipped": _client_not_clipped,
    "update_above_norm": _update_above_norm,
    "clipping_norm_from_updates": _clipping_norm_from_updates,
    "weighted_by_rows": _weighted_by_rows,
    "weights_not_uniform": lambda run: run.weighting == "uniform" and (run.weight_ratio or 1.0) > 1.0 + SAME,
    "divided_by_actual_cohort": _divided_by_actual_cohort,
    "coordinates_from_data": _coordinates_from_data,
    "no_noise": lambda run: run.noise_multiplier == 0.0,
    "noise_below_accounting": _noise_below_accounting,
    "server_sees_updates": lambda run: (
        run.claim_toward == "server"
        and run.noise_at != "client"
        and {"seen": "single updates" if run.sees_updates == "server" else "the sum"}
    ),
    "clipping_out_of_sight": lambda run: (
        (run.sees_updates, run.clipped_at) == ("secure_aggregation", "server") and run.clipping != "none"
    ),
    "secure_aggregation": _secure_aggregation,
    "encryption_parameters": _encryption_parameters,
    "unit_of_privacy": lambda run: (run.unit, run.clipping) == ("client", "row"),
    "delta_too_large": _delta_too_large,
}
# The claim is the same of rows and of clients.
_OF_CLAIM = (
    "claim_below_accounting",
    "claim_by_approximation",
    "search_not_accounted",
    "data_dependent_preprocessing",
    "noise_seed_known",
)

FEDERATED_CHECKS = (
    *read_checks("auditor.privacy.federated", "federated_checks.toml", _FAULTS),
    *(_of_rows(claimed) for claimed in CHECKS if claimed.name in _OF_CLAIM),
)
