"""The judgement of a measurement against a criterion, its consequences, and the detection of a meaningless PASS.

The rates of coarser groups are averages of those of the finer ones that make them up, so they lie between them: a
largest difference, or smallest ratio, over the intersection of features bounds that of every feature among them; and
one over several rates bounds that over some of them (equalized odds, equal opportunity). Where the wider claim is shown
the narrower one is true too, and where the narrower one is shown to be violated so is the wider; claims that follow
from true claims are true, so no false one is added (closed testing: Marcus, Peritz and Gabriel, Biometrika 63, 1976).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from auditor.judging.criterion import Criterion
from auditor.judging.measurement import Alike, Answer, Measurement, Outcome, Pillar, Twins
from auditor.statistics.groups import WorstDifference, WorstRatio
from auditor.statistics.rates import RateTable


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A measurement judged against a criterion.

    ``interval``: two one-sided bounds, the one that FAIL rests on at the level of FAIL, the other at that of PASS.
    ``p_fail_adjusted``, ``p_pass_adjusted``: p-values times what the level was divided by, to be held against the
    error rate of the ``budget``. ``alone``: what it would be if nothing else were judged in its budget, where that is
    more than INCONCLUSIVE; ``said_alone`` in words. ``padding``: why the requirement could hardly be missed, or "".
    ``vacuous``: why a PASS of it would say nothing of this model, or "". ``doubtful``: why nothing is judged of its
    rows, or "". ``powerless``: why no value could FAIL, and how many rows it takes, or "". ``other_kind``:
    whether it is not applicable since it asks about another kind of model or rows. ``follows``: whether its outcome is
    the consequence of another's. ``planted``: its planted controls; ``blind``: why, by these, it is neither PASS nor
    FAIL, or "".
    """

    id: str
    probe: str
    pillar: Pillar
    citation: str
    outcome: Outcome
    measurement: Measurement | None = None
    criterion: Criterion | None = None
    interval: tuple[float, float] | None = None
    confidence: float | None = None
    p_fail: float | None = None
    p_pass: float | None = None
    minimum_detectable_effect: float | None = None
    n_required: int | None = None
    reason: str = ""
    vacuous: str = ""
    doubtful: str = ""
    powerless: str = ""
    budget: str = ""
    p_fail_adjusted: float | None = None
    p_pass_adjusted: float | None = None
    alone: Outcome | None = None
    said_alone: str = ""
    padding: str = ""
    other_kind: bool = False
    follows: bool = False
    planted: Twins | None = None
    blind: str = ""

    @property
    def chance(self) -> float | None:
        """The value of a model without skill, for a number that measures skill."""
        return None if self.measurement is None else self.measurement.chance

    @property
    def metric(self) -> str | None:
        """The metric of the measurement, None without one."""
        return None if self.measurement is None else self.measurement.metric


class Waivable(Protocol):
    """What of a judgement, or of its record, decides whether it can be waived."""

    @property
    def pillar(self) -> str: ...
    @property
    def probe(self) -> str: ...
    @property
    def outcome(self) -> Outcome: ...
    @property
    def alone(self) -> Outcome | None: ...
    @property
    def vacuous(self) -> str: ...
    @property
    def doubtful(self) -> str: ...
    @property
    def powerless(self) -> str: ...
    @property
    def blind(self) -> str: ...


# Pillars or probes whose inconclusive findings change no exit code, each as ``NAME`` or ``NAME=WHO: WHY``.
Waivers = bool | tuple[str, ...]


def is_waived(finding: Waivable, waivers: Waivers) -> bool:
    """Whether a finding is INCONCLUSIVE, and its pillar or probe is one of those that were waived.

    None that would PASS of a model which says the same to everybody, nor one whose rows are copies: that is no lack of
    rows; nor one that would FAIL if nothing else were asked, nor one that has so few rows that nothing could FAIL; nor
    one whose probe did not see what was planted, or alarmed without a fault.
    Records of before waivers had names say True of all.
    """
    if finding.outcome is not Outcome.INCONCLUSIVE or finding.alone is Outcome.FAIL:
        return False
    of = {finding.pillar, finding.probe}
    waived = waivers if isinstance(waivers, bool) else not of.isdisjoint(map(waived_name, waivers))
    return waived and not (finding.vacuous or finding.doubtful or finding.powerless or finding.blind)


def waived_name(waiver: str) -> str:
    """The pillar or probe of ``NAME=WHO: WHY``."""
    return waiver.partition("=")[0].strip()


def apply_implications(judgements: Sequence[Judgement]) -> list[Judgement]:
    """The judgements in order, with logical consequences of others; intervals are tightened accordingly."""
    said = list(judgements)
    gaps = [
        (i, j)
        for i, j in enumerate(judgements)
        if j.measurement and isinstance(j.measurement.estimate, WorstDifference | WorstRatio)
    ]
    for i, one in gaps:
        if one.outcome is not Outcome.INCONCLUSIVE or one.measurement is None or one.measurement.too_few:
            continue
        for _, other in gaps:
            # What another budget allows itself is no proof in a stricter one.
            if other.budget != one.budget:
                continue
            if other.outcome is Outcome.PASS and _bounds(other, one):
                said[i] = _follows(one, other, "It can be no further from the ideal than")
                break
            if other.outcome is Outcome.FAIL and _bounds(one, other):
                said[i] = _follows(one, other, "It can be no nearer to the ideal than")
                break
    return said


def _bounds(wider: Judgement, narrower: Judgement) -> bool:
    """Whether the wider number, within its bound, puts the narrower one within its own."""
    a, b, first, second = wider.measurement, narrower.measurement, wider.criterion, narrower.criterion
    if a is None or b is None or first is None or second is None or a is b:
        return False
    if (
        type(a.estimate) is not type(b.estimate)
        or wider.probe != narrower.probe
        or a.at != b.at
        or a.method != b.method
    ):
        return False
    if first.direction != second.direction or isinstance(first.bound, tuple) or isinstance(second.bound, tuple):
        return False
    tighter = first.bound <= second.bound if first.direction == "at_most" else first.bound >= second.bound
    if not tighter or not isinstance(a.estimate, WorstDifference | WorstRatio):
        return False
    # Small groups that are one together may be of different coarse ones.
    finer = set(b.sensitive) < set(a.sensitive) and not a.smallest
    return isinstance(b.estimate, WorstDifference | WorstRatio) and all(
        any(_covers(fine, coarse, finer=finer) for fine in a.estimate.tables) for coarse in b.estimate.tables
    )


def _covers(fine: RateTable, coarse: RateTable, *, finer: bool) -> bool:
    """Whether the coarse table is the fine one, or of groups that the groups of the fine one make up."""
    if fine == coarse:
        return True
    # Of the same rows: where small groups were left out of either there is nothing to conclude.
    return (
        finer
        and fine.rate == coarse.rate
        and all(sum(getattr(fine, of)) == sum(getattr(coarse, of)) for of in ("n", "successes"))
    )


def _follows(one: Judgement, other: Judgement, phrase: str) -> Judgement:
    """``one`` with the outcome of ``other``, and with the end of its interval that follows from it."""
    (low, high), (least, most) = one.interval or (0.0, 0.0), other.interval or (0.0, 0.0)
    passes, at_most = other.outcome is Outcome.PASS, one.criterion is not None and one.criterion.direction == "at_most"
    # What bounds a difference from above on a PASS bounds it from below on a FAIL, and a ratio the other way round.
    interval = (low, min(high, most)) if passes == at_most else (max(low, least), high)
    return replace(
        one,
        outcome=other.outcome,
        interval=interval,
        p_fail_adjusted=one.p_fail_adjusted if passes else other.p_fail_adjusted,
        p_pass_adjusted=other.p_pass_adjusted if passes else one.p_pass_adjusted,
        minimum_detectable_effect=None,
        n_required=None,
        alone=None,
        said_alone="",
        powerless="",
        follows=True,
        reason=f"{phrase} {other.metric} by {' x '.join(other.measurement.sensitive if other.measurement else ())}, "
        f"which is a {other.outcome.value}.",
    )


HIDDEN = "The gradient is hidden"
SAME_FOR_ALL = "The model answers the same for all"

# The coordinate of skill that is about the sentences which a probe's method compares; of sense, about none of them.
SENTENCES = "sentences"
SENSE: Literal["sense"] = "sense"

Shown = tuple[Measurement, tuple[float, float]]


def no_skill(results: Iterable[Shown], answer: Answer = "scores", method: str = "") -> str:
    """A sentence that no skill is shown; "" if some is, or if none was measured and ``answer`` is not sense.

    ``results``: measurements with the intervals that are printed of them. Skill is shown by a number with a
    :attr:`~auditor.judging.measurement.Measurement.chance` whose interval lies above it. Groups do not count: a model
    may have skill in one alone. Of ``"decisions"``, where a number is about their own skill that of scores is none:
    scores may rank rows well beside decisions that are drawn, or that a threshold makes the same for nearly everybody.
    Skill in the sentences that a ``method`` compares (``at`` ``sentences``) is that of its numbers, and of no others:
    who knows some texts by heart may know nothing of these. ``"sense"`` takes skill of scores and
    sense beside it (``at`` ``sentences`` is ``sense``), both of them measured: who knows in which order words stand may
    know nothing of what they say, and nobody knows of a model that was not asked.
    """
    skills = [(m, limits) for m, limits in results if m.chance is not None and not m.group]
    asked = [(m, limits) for m, limits in skills if method and m.at.get(SENTENCES) == method]
    if asked and all(math.isnan(m.estimate.value) for m, _ in asked):
        return f"no sentence of {method} has an order that the model could know"
    known = [
        (m, limits) for m, limits in asked or skills
        if (asked or SENTENCES not in m.at) and not math.isnan(m.estimate.value)
    ]  # fmt: skip
    own = [(m, limits) for m, limits in known if m.skill_of == answer] if answer == "decisions" else []
    why = _unshown(own or known, f" of the sentences of {method}" if asked else "")
    if why or answer != SENSE:
        return why
    of_sense = [(m, limits) for m, limits in skills if m.at.get(SENTENCES) == SENSE]
    missing = [what for what, found in (("word order", known), ("sense", of_sense)) if not found]
    if missing:
        was = f"{' and '.join(missing)} {'were' if len(missing) > 1 else 'was'}"
        return f"{was} not measured, which the probe performance does of a model that tells likelihoods"
    return _unshown(of_sense)


def _unshown(skills: Iterable[Shown], qualifier: str = "") -> str:
    """Of which numbers none lies above chance, in words; "" where one does, or where there are none."""
    unshown = []
    for measured, (low, high) in skills:
        if measured.chance is None:
            continue
        if low >= measured.chance:
            return ""
        unshown.append(
            f"{measured.metric}{qualifier} is {measured.estimate.value:.3g} [{low:.3g}, {high:.3g}], not shown to be "
            f"above "
            f"{measured.chance:g}, which is chance"
        )
    return "; ".join(unshown)


def why_empty(measurement: Measurement, constant_answers: Sequence[Alike], unskilled: Mapping[Answer, str]) -> str:
    """The reason why a PASS of a number would be meaningless, in a sentence; "" if it is meaningful.

    ``constant_answers``: the rows that the model answers alike; ``unskilled``: what :func:`no_skill` says of either
    answer. What an attack left over says nothing where the model hides its gradient. A number that rests on answers
    (:attr:`~auditor.judging.measurement.Measurement.rests_on`) says nothing

    - where those answers are the same for all rows;
    - where the decisions for a group that it compares are all alike, and not simply right. The selection rate, true and
      false positive rate of such a group are all 0, or all 1, whoever its rows are: that they lie near those of others
      says nothing of how its rows are treated. A group of one class that is decided so is decided rightly, and its
      selection rate says what it seems to; its other error rates are undefined. Groups smaller than the smallest that
      it compares are none of its own;
    - where skill was measured and none is shown. Where it was not measured, as without labels, nothing follows, but for
      what rests on sense: that takes both word order and sense, measured and shown.
    """
    if measurement.masked:
        return f"{HIDDEN}: {measurement.masked}. What the attack did not find says nothing; what it found is there."
    answer = measurement.rests_on
    if answer is None:
        return ""
    features = set(measurement.sensitive) | set(measurement.group)
    for rows in constant_answers:
        compares = set(rows.group) == features and rows.n >= measurement.smallest
        if rows.group and compares and answer == "decisions":
            return (
                f"The model answers all {rows.n:,} rows of {_group_text(rows.group)} alike, whoever they are: a number "
                f"that "
                "compares this group cannot show that its rows are treated as others are."
            )
        # Scores that are all the same decide all rows the same.
        if not rows.group and rows.answer in (answer, "scores"):
            return (
                f"{SAME_FOR_ALL} {rows.n:,} rows: it cannot show what is asked here, since any "
                "model that tells no rows apart meets it."
            )
    if why := unskilled.get(answer):
        return (
            f"The model shows no skill ({why}): it cannot show what is asked here, since a model that knows "
            "nothing of its rows meets it by that alone."
        )
    return ""


def _group_text(group: Mapping[str, str]) -> str:
    return ", ".join(f"{feature} = {level}" for feature, level in group.items())
