"""Exposed rows and groups: discoveries of an attack with a controlled false discovery rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from auditor.core.rows import BoolArray, FloatArray
from auditor.judging.measurement import Measurement
from auditor.statistics.estimate import Exact, Undefined
from auditor.statistics.groups import WorstDifference
from auditor.statistics.rank_estimates import area_under_curve
from auditor.statistics.rates import MOST_GROUPS, RateTable
from probes.privacy.membership.attack_metrics import FALSE_POSITIVE_RATES, Attack, Sides, rate_at

FALSE_DISCOVERY_RATE = 0.05
MOST_EXPOSED = 10
EXACT = {
    "discovered_members": "It counts the rows at hand; of them at most the stated share is expected to be by chance.",
    "discovered_share": "It is a share of the rows at hand; at most the stated share of them is expected by chance.",
}
_ONE_SIDED = (
    "Rows that were not discovered may be exposed all the same: the number shows that somebody is hit, and never that "
    "nobody is."
)


def conformal_p_values(scores: FloatArray, others: FloatArray) -> FloatArray:
    """``(1 + #{non-members with a score >= s}) / (n + 1)`` (m,) of scores (m,), by the scores (n,) of non-members.

    For a row whose score is exchangeable with those of the non-members, that is one whose membership leaves no trace,
    it is no smaller than uniform, stochastically. Source: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random
    World (2005).
    """
    as_high = others.size - np.searchsorted(np.sort(others), scores, "left")
    return np.asarray((1.0 + as_high) / (others.size + 1.0), np.float64)


def discoveries(p_values: FloatArray, rate: float = FALSE_DISCOVERY_RATE) -> BoolArray:
    """(m,) the hypotheses that Benjamini and Hochberg's procedure rejects at a false discovery rate of ``rate``.

    Those with a p-value of at most ``rate * k / m``, for the largest k of whom there are k. Conformal p-values that
    share their non-members depend on each other positively (PRDS), so the rate is kept exactly, at every size, however
    many scores are tied. Sources: Benjamini and Hochberg, JRSS B 57 (1995); Bates, Candès, Lei, Romano and Sesia, Ann.
    Statist. 51 (2023).
    """
    if not p_values.size:
        return np.zeros(0, bool)
    order = np.sort(p_values)
    # A p-value is a fraction of whole numbers, and must not be missed by a rounding of its limit.
    limits = rate * np.arange(1, order.size + 1) / order.size * (1.0 + 1e-12)
    below = np.flatnonzero(order <= limits)
    return np.asarray(p_values <= (order[below[-1]] if below.size else 0.0), bool)


def discovered(attack: Attack, pool: Sides) -> Iterator[Measurement]:
    """Exposed members at a false discovery rate of 5 %, and their share; also within each group."""
    member = np.flatnonzero(pool.is_member & attack.scored)
    others = attack.non_members(pool)
    if attack.why_not or not member.size or not others.size:
        return
    p = conformal_p_values(attack.scores[member], others)
    hit = discoveries(p)
    fewest = int(np.ceil(member.size / (FALSE_DISCOVERY_RATE * (others.size + 1.0)) - 1e-9))
    detail = (
        f"Benjamini-Hochberg at {FALSE_DISCOVERY_RATE:.0%} of {member.size:,} p-values, each the share of "
        f"{others.size:,} non-members that score as high: of the rows named, at most {FALSE_DISCOVERY_RATE:.0%} are "
        f"expected to be so by chance; fewer than {fewest:,} rows above every non-member cannot be told from chance"
    )
    if hit.any():
        first = member[hit][np.argsort(p[hit], kind="stable")][:MOST_EXPOSED]
        named = ", ".join(f"{int(pool.number[i]):,}" for i in first)
        detail += f"; rows of --train, counted from 1 after the header, the surest first: {named}"
        detail += " and others" if int(hit.sum()) > MOST_EXPOSED else ""
    yield from _counts(attack, int(hit.sum()), member.size, {}, pool.n_rows, detail)
    for feature, names in _known_groups(pool):
        for name in sorted(set(names)):
            own = names[member] == name
            said = "which rows are discovered is decided among all members together"
            rows = int((names == name).sum())
            yield from _counts(attack, int(hit[own].sum()), int(own.sum()), {feature: name}, rows, said)


def _counts(
    attack: Attack, n_found: int, members: int, group: dict[str, str], rows: int, detail: str
) -> Iterator[Measurement]:
    share = Exact(known=n_found / members) if members else Undefined(reason="no member of the group is measured")
    for metric, estimate in (("discovered_members", Exact(known=float(n_found))), ("discovered_share", share)):
        yield Measurement(
            metric=metric,
            method=attack.method,
            estimate=estimate,
            n_samples=rows,
            ideal=0.0,
            group=group,
            at={"false_discovery_rate": FALSE_DISCOVERY_RATE},
            detail=detail,
            too_few=_ONE_SIDED,
        )


def _known_groups(pool: Sides) -> Iterator[tuple[str, npt.NDArray[np.object_]]]:
    """Each sensitive feature whose groups are known of members and non-members, and the group of each row (n,)."""
    for feature, groups in pool.groups.items():
        names = np.asarray(groups, object)
        if len(set(names[pool.is_member])) == 1 and len(set(names[~pool.is_member])) > 1:
            continue  # the training file does not have the column: its rows are of one unknown group
        yield feature, names


def by_group(attack: Attack, pool: Sides) -> Iterator[Measurement]:
    """AUC and true positive rate at 1 % of each group of each sensitive feature, and the rate's largest difference.

    The AUC is of the group's own non-members. The threshold of the rate is one for all, as an attacker's is who does
    not know the group, so it is taken from all non-members; the difference is of the rates at the threshold of these
    non-members, of whom the members are independent.
    """
    if attack.why_not:
        return
    rate, all_others = FALSE_POSITIVE_RATES[0], attack.non_members(pool)
    for feature, names in _known_groups(pool):
        sides = []
        for name in sorted(set(names)):
            members, others = (side(pool, names == name) for side in (attack.members, attack.non_members))
            group, rows = {feature: name}, int((names == name).sum())
            yield Measurement(
                metric="attack_auc",
                method=attack.method,
                estimate=area_under_curve(positives=members, negatives=others),
                n_samples=rows,
                ideal=0.5,
                group=group,
                detail=f"{members.size:,} members and {others.size:,} non-members of the group",
            )
            said = f"{members.size:,} members of the group, {all_others.size:,} non-members of all groups"
            yield replace(rate_at(attack, members, all_others, rate, said), n_samples=rows, group=group, n_needed=None)
            sides.append(members)
        if all_others.size * rate >= 1.0 - 1e-9 and 2 <= len(sides) <= MOST_GROUPS:
            yield _difference(attack, feature, sides, all_others, pool, rate)


def _difference(
    attack: Attack, feature: str, members: list[FloatArray], others: FloatArray, pool: Sides, rate: float
) -> Measurement:
    threshold = np.sort(others)[::-1][int(others.size * rate + 1e-9)]
    table = RateTable(
        rate="true_positive_rate",
        successes=tuple(int((own > threshold).sum()) for own in members),
        n=tuple(own.size for own in members),
    )
    return Measurement(
        metric="true_positive_rate_at_fpr_difference",
        method=attack.method,
        estimate=WorstDifference(tables=(table,)),
        n_samples=pool.n_rows,
        ideal=0.0,
        sensitive=(feature,),
        at={"false_positive_rate": rate},
        detail=(
            f"the threshold is the one that {rate:g} of the {others.size:,} non-members exceed, and the interval is "
            "that of the rates there"
        ),
    )


def most_exposed(attack: Attack, pool: Sides) -> str:
    """The members with the highest scores, by row number in the training file, never by content; or ""."""
    others = np.sort(attack.non_members(pool))
    place = np.flatnonzero(pool.is_member & attack.scored)
    if attack.why_not or not place.size or not others.size:
        return ""
    top = place[np.argsort(-attack.scores[place], kind="stable")][:MOST_EXPOSED]
    above = others.size - np.searchsorted(others, attack.scores[top], "left")
    named = ", ".join(f"{int(pool.number[i]):,} ({int(k):,})" for i, k in zip(top, above, strict=True))
    return (
        "the most exposed rows of --train, counted from 1 after the header, each with the number of the "
        f"{others.size:,} non-members that score as high: {named}"
    )
