"""Detection of a meaningless PASS: a model that answers every row alike has the ideal value of every gap."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from auditor.judging.measurement import Alike, Answer, Measurement

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
