"""The combined verdict of all membership inference attacks.

The strongest decides, and what was not tried stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from auditor.judging.measurement import Measurement
from auditor.run.membership_scores import MembershipHead
from auditor.statistics.largest_of import AttackPart, StrongestAttack
from auditor.statistics.rank_estimates import AreaUnderCurve, TruePositiveRateAt
from probes.privacy.membership.attack_metrics import Attack

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
_WHOLE = ("attack_auc", "true_positive_rate_at_fpr")
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
    """For AUC and each TPR at a low FPR, one number for all ``attacks``; ``parts``: theirs, by method."""
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
        if isinstance(m.estimate, AreaUnderCurve | TruePositiveRateAt) and m.estimate.value >= 0.0
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
        "Nothing was found, and no attack was tried that knows how the model was trained: the shadow models are of a "
        "surrogate. A bundle of auditor.save brings architecture and recipe."
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
