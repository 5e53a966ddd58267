"""Results of all membership inference attacks: the combined verdict, contradictions of scores, and exposed rows.

The strongest decides, and what was not tried stands beside it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.judging.measurement import Measurement
from auditor.run.membership_scores import MembershipHead, MembershipScores
from auditor.run.predictions import Answers
from auditor.statistics.attack_estimates import AttackPart, StrongestAttack
from auditor.statistics.estimate import Exact, Undefined
from auditor.statistics.groups import WorstDifference
from auditor.statistics.rank_estimates import (
    AreaUnderCurve,
    TruePositiveRateAt,
    area_under_curve,
    true_positive_rate_at,
)
from auditor.statistics.rates import MOST_GROUPS, Proportion, RateTable
from probes.privacy.membership import attack_scores
from probes.privacy.membership.attack_metrics import FALSE_POSITIVE_RATES, FEWEST_JUDGED, Attack, Sides, rate_at

CHEAP = ("loss_threshold", "loss_threshold_per_class", "quantile_regression")
WITH_SHADOWS = (
    "lira_online",
    "lira_online_fixed_variance",
    "lira_offline",
    "lira_offline_fixed_variance",
    "rmia",
    "rmia_offline",
    "bavaria",
    "bavaria_offline",
    "difficulty_calibration",
)
# Those that ask no model but the audited one.
ALONE = (*CHEAP, "label_only")
# In the order of the members found at 1 % false positives in benchmarks/membership_attacks.py, on five tables.
MOST_FOR_RMIA = 16
_BY_FEW = (
    "bavaria", "rmia", "bavaria_offline", "rmia_offline", "difficulty_calibration", "lira_online_fixed_variance",
    "lira_offline_fixed_variance", "lira_offline", "lira_online",
)  # fmt: skip
_BY_MANY = (
    "bavaria", "lira_online", "bavaria_offline", "lira_online_fixed_variance", "rmia_offline", "rmia",
    "difficulty_calibration", "lira_offline", "lira_offline_fixed_variance",
)  # fmt: skip
# Of those with shadow models, the ones whose finding nothing says something, however few models there are.
STRONG = ("bavaria", "rmia")
MOST_LEFT_OUT = 0.05
_WHOLE = ("attack_auc", "true_positive_rate_at_fpr", "true_positive_rate_at_no_false_positive")
_NOT_ASKED = "not asked for"


def strongest_first(n_shadows: int) -> tuple[str, ...]:
    """All attacks, the strongest in benchmarks with so many shadow models first; independent of the results."""
    by_shadows = _BY_FEW if n_shadows <= MOST_FOR_RMIA else _BY_MANY
    return (*by_shadows, "quantile_regression", "label_only", "loss_threshold_per_class", "loss_threshold")


def shares(n_shadows: int) -> dict[str, float]:
    """Each attack's share of the whole level, independent of the requested ones.

    Half is for those with shadow models, half of what is left to each in the order of their strength; half in equal
    parts for those without.
    """
    known = [name for name in strongest_first(n_shadows) if name in WITH_SHADOWS]
    halves = {name: 0.5 ** (i + 2) for i, name in enumerate(known)}
    return halves | dict.fromkeys(ALONE, 0.5 / len(ALONE))


def wholes(
    attacks: Sequence[Attack],
    parts: Mapping[str, Sequence[Measurement]],
    head: MembershipHead,
) -> list[Measurement]:
    """For AUC, each TPR at a low FPR and that at none, one number for all ``attacks``; ``parts``: theirs, by method."""
    n_shadows = head.n_shadows
    made = {a.method: a.why_not for a in attacks} | head.not_made
    untried = {name: why for name in (*ALONE, *_BY_FEW) if (why := made.get(name, _NOT_ASKED))}
    said = {attack.method: attack.detail for attack in attacks}
    weak, tried = _weak(attacks, head, untried), _attempts_text(attacks, n_shadows, untried)
    columns = zip(*([m for m in parts[a.method] if m.metric in _WHOLE] for a in attacks), strict=True)
    return [replace(_whole(own, shares(n_shadows), said, head.detail), weak=weak, tried=tried) for own in columns]


def as_part(measurement: Measurement) -> Measurement:
    """A number of one attack, as a part of the whole if there is one of its metric."""
    return replace(measurement, part=measurement.metric in _WHOLE and not measurement.group)


def _whole(
    measurements: Sequence[Measurement], share: Mapping[str, float], notes: Mapping[str, str], detail: str
) -> Measurement:
    """One number of the same number of each attack: of those that may be judged, else of those that may be shown."""
    first = measurements[0]
    known = [
        m
        for m in measurements
        if isinstance(m.estimate, AreaUnderCurve | Proportion | TruePositiveRateAt) and m.estimate.value >= 0.0
    ]
    fit = [m for m in known if not m.too_few] or known
    whole = replace(first, method="", part=False, figure=None, n_samples=max(m.n_samples for m in measurements))
    if not fit:
        # What more rows would mend is said rather than what they would not.
        least = min(measurements, key=lambda m: (m.n_needed is None, getattr(m.estimate, "inapplicable", False)))
        return replace(whole, estimate=least.estimate, too_few=least.too_few, n_needed=least.n_needed, detail=detail)
    estimate = StrongestAttack(
        attacks=tuple(AttackPart(name=m.method, share=share[m.method], estimate=m.estimate) for m in fit)
    )
    return replace(
        whole,
        estimate=estimate,
        too_few=fit[0].too_few,
        n_needed=fit[0].n_needed,
        detail=f"{detail}; most was found by {estimate.strongest}: {notes[estimate.strongest]}",
    )


def _weak(attacks: Sequence[Attack], head: MembershipHead, untried: Mapping[str, str]) -> str:
    """Why finding nothing would say little; "" where a strong attack knew other models like this one, and its rows."""
    if head.share_left_out > MOST_LEFT_OUT:
        return (
            f"Nothing was found, and {head.share_left_out:.0%} of the rows of --train took no part, since they stand "
            "there more than once: whoever was learned several times is exposed the most. Give each row once."
        )
    by_shadows = [a for a in attacks if a.method in WITH_SHADOWS and not a.why_not]
    if not by_shadows or not head.n_shadows:
        why = next((untried[name] for name in _BY_FEW if untried.get(name, _NOT_ASKED) != _NOT_ASKED), "")
        why = why or "shadow models were not asked for"
        return f"Nothing was found, and only attacks that know no other model were tried: {why.rstrip('.')}."
    if head.known:
        strong = STRONG if head.n_shadows <= MOST_FOR_RMIA else (*STRONG, "lira_online", "lira_online_fixed_variance")
        if not any(a.method in strong for a in by_shadows):
            return (
                f"Nothing was found, and no attack was tried that finds much with {head.n_shadows} shadow models: "
                f"{' or '.join(strong)}."
            )
        return head.unlike
    return (
        "Nothing was found, and no stronger attack could be tried: how the model was trained is not known, and the "
        "shadow models are of a surrogate. Audit the fitted estimator's own file, or a bundle of auditor.save; or let "
        "a person accept it by name: --allow-inconclusive 'membership_inference=NAME: REASON'."
    )


def _attempts_text(attacks: Sequence[Attack], n_shadows: int, untried: Mapping[str, str]) -> str:
    """Which attacks were tried, and which were not and why not, in two sentences."""
    done = [a.method for a in attacks if not a.why_not]
    alone, by_shadows = ([n for n in done if (n in WITH_SHADOWS) == with_] for with_ in (False, True))
    words = ", ".join(alone)
    if by_shadows:
        words = "; ".join(filter(None, (words, f"{', '.join(by_shadows)} with {n_shadows} shadow models")))
    said = [f"Tried: {words or 'nothing'}."]
    reasons: dict[str, list[str]] = {}
    for name, why in untried.items():
        reasons.setdefault(why.rstrip("."), []).append(name)
    if reasons:
        each = (f"{', '.join(names)} ({why})" for why, names in reasons.items())
        said.append(f"Not tried: {'; '.join(each)}.")
    return " ".join(said)


# Numbers are computed on another machine, perhaps with another version of a library.
_RELATIVE, _ABSOLUTE = 1e-6, 1e-9
_GLOBAL, _PER_CLASS = "loss_threshold", "loss_threshold_per_class"


def contradictions(scores: MembershipScores, answers: Answers | None, *, own_losses: bool) -> list[str]:
    """Contradictions between scores, in words.

    ``answers``: the model's, row by row, on all evaluation rows, of which the non-members are some.

    ``own_losses``: whether losses are those of these answers, and were not given beside them.
    """
    return [
        *_ranks(scores),
        *([] if answers is None else _of_rows(scores, answers, own_losses=own_losses)),
        *(["nobody says which decisions are right"] if own_losses and scores.right is None else []),
    ]


def _ranks(scores: MembershipScores) -> Iterator[str]:
    """The scores by class are ranks of the losses."""
    if _GLOBAL not in scores.scores or _PER_CLASS not in scores.scores:
        return
    again = attack_scores.per_class_scores(-scores.scores[_GLOBAL], scores.labels)
    if not np.allclose(again, scores.scores[_PER_CLASS], rtol=_RELATIVE, atol=_ABSOLUTE):
        yield f"the scores of {_PER_CLASS} are not the ranks of those of {_GLOBAL}"


def _of_rows(scores: MembershipScores, answers: Answers, *, own_losses: bool) -> Iterator[str]:
    place = scores.number[~scores.is_member] - 1
    if place.size and int(place.max()) >= len(answers):
        yield f"row {int(place.max()) + 1:,} of --data is none of {len(answers):,}"
        return
    labels = scores.labels[~scores.is_member]
    if not np.array_equal(answers.truth[place], labels):
        yield f"row {_first(answers.truth[place] != labels, place):,} of --data has another true class in rows.csv"
        return
    for feature in answers.groups:
        if feature not in scores.groups:
            yield f"the groups of {feature!r} are missing"
            continue
        own = np.asarray(scores.groups[feature], object)[~scores.is_member]
        differs = own != np.asarray(answers.groups[feature], object)[place]
        if differs.any():
            yield f"row {_first(differs, place):,} of --data is in another group of {feature!r} in rows.csv"
    head = answers.head
    if not own_losses or head.blurred > 1 or head.scores != len(head.classes) or not place.size:
        return
    given = answers.scores[place]
    if scores.right is not None:
        differs = (given.argmax(axis=1) == labels) != scores.right[~scores.is_member]
        if differs.any():
            yield f"whether row {_first(differs, place):,} of --data is decided right is otherwise in rows.csv"
    if _GLOBAL in scores.scores:
        own = scores.scores[_GLOBAL][~scores.is_member]
        due = attack_scores.global_scores(attack_scores.cross_entropy(given, labels))
        differs = ~np.isclose(own, due, rtol=_RELATIVE, atol=_ABSOLUTE)
        if differs.any():
            yield f"the loss of row {_first(differs, place):,} of --data is not that of its answer in rows.csv"


def _first(differs: BoolArray, place: IntArray) -> int:
    return int(place[differs][0]) + 1


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


_WORST_GROUP = "worst_group_true_positive_rate_at_fpr"
# Of as many a model that leaks nothing passes a limit of 2.7 % at 0.1 % with 95 % probability.
_FEWEST_OF_GROUP, _MOST_PARTS = 400, 64


def worst_groups(attacks: Sequence[Attack], pool: Sides, head: MembershipHead) -> Iterator[Measurement]:
    """For each sensitive feature, the largest true positive rate at 0.1 % of any group by any attack.

    The threshold is one for all groups. Groups with fewer than 400 members are one group together; if that has fewer
    still, it is left out, and named.
    """
    rate, share = FALSE_POSITIVE_RATES[-1], shares(head.n_shadows)
    made = [a for a in attacks if a.non_members(pool).size * rate >= 1.0 - 1e-9]
    for feature, names in _known_groups(pool):
        sides, left_out = _groups_of_members(names, pool, _MOST_PARTS // max(len(made), 1))
        parts = tuple(
            AttackPart(
                name=f"{attack.method}, {name}",
                share=share[attack.method] / len(sides),
                estimate=true_positive_rate_at(
                    positives=attack.members(pool, own),
                    negatives=attack.non_members(pool),
                    false_positive_rate=rate,
                ),
            )
            for attack in made
            for name, own in sides.items()
        )
        few, needed = "", None
        if len(sides) < 2 or not made:
            few = (
                f"It takes two groups of {_FEWEST_OF_GROUP} members, and {FEWEST_JUDGED:,} non-members, to compare the "
                "members that are recognised."
            )
            second = Counter(names[pool.is_member].tolist()).most_common(2)[1:]
            n_others = int((~pool.is_member).sum())
            if second and n_others:
                times = max(_FEWEST_OF_GROUP / second[0][1], FEWEST_JUDGED / n_others, 1.0)
                needed = math.ceil(times * pool.n_rows)
        estimate = Undefined(reason=few, inapplicable=needed is None) if few else StrongestAttack(attacks=parts)
        yield Measurement(
            metric=_WORST_GROUP,
            estimate=estimate,
            n_samples=pool.n_rows,
            ideal=rate,
            sensitive=(feature,),
            at={"false_positive_rate": rate},
            detail="; ".join(
                filter(
                    None,
                    (
                        f"most was found by {estimate.strongest}" if isinstance(estimate, StrongestAttack) else "",
                        f"left out, with fewer than {_FEWEST_OF_GROUP} members: {', '.join(left_out)}"
                        if left_out
                        else "",
                    ),
                )
            ),
            too_few=few,
            n_needed=needed,
        )


def _groups_of_members(
    names: npt.NDArray[np.object_], pool: Sides, most: int
) -> tuple[dict[str, BoolArray], list[str]]:
    """The rows (n,) of each group that is large enough, the smaller ones as one; and the names of what is left out."""
    counts = Counter(names[pool.is_member].tolist())
    large = [name for name, n in counts.most_common(most - 1) if n >= _FEWEST_OF_GROUP]
    small = [name for name in sorted(counts) if name not in large]
    sides = {name: np.asarray(names == name) for name in large}
    if sum(counts[name] for name in small) < _FEWEST_OF_GROUP:
        return sides, small
    return sides | {", ".join(small): np.isin(names, small)}, []


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
