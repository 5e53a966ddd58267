"""Planted controls: what a verdict loses where its probe did not see what was planted, or alarmed where nothing was.

They can only make a verdict weaker: a PASS or a FAIL becomes INCONCLUSIVE, and nothing becomes anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from auditor.judging.judgement import Judgement
from auditor.judging.measurement import Outcome, Twins
from auditor.statistics.intervals import clopper_pearson

# Twins of a probe, dealt out to its judged numbers in turn: at least so many of each kind, and so many of each number.
FEWEST_PLANTED, FEWEST_CLEAN = 8, 3
PLANTED_OF_EACH, CLEAN_OF_EACH = 2, 1
# The share of plants that a probe must be shown to see, and of clean twins that it may be shown to alarm at, each by an
# exact bound that is wrong with this probability. A probe that sees 99 in 100 misses more than one of 8 once in 370.
LEAST_SEEN, MOST_ALARMED, WRONG = 0.5, 0.05, 0.05


def least_share(found: int, n: int) -> float:
    """The exact lower bound of a share."""
    return float(clopper_pearson(np.asarray([found]), n=np.asarray([n]), alpha=WRONG)[0][0]) if n else 0.0


def together(twins: Sequence[Twins]) -> Twins:
    """The twins of several numbers, counted together."""
    return Twins(
        seen=sum(t.seen for t in twins),
        planted=sum(t.planted for t in twins),
        alarmed=sum(t.alarmed for t in twins),
        clean=sum(t.clean for t in twins),
    )


def why_unseen(own: Twins, of_probe: Twins) -> str:
    """Why a PASS says nothing, in a sentence: what was planted was not seen; "" where it was, or nothing was."""
    if not of_probe.planted:
        return ""
    least = least_share(of_probe.seen, of_probe.planted)
    if least < LEAST_SEEN:
        return (
            f"The probe saw {of_probe.seen} of {of_probe.planted} faults that were planted in these rows, which shows "
            f"no more than that it sees {least:.0%} of them, and {LEAST_SEEN:.0%} are required: that it found nothing "
            "says nothing."
        )
    if own.planted >= PLANTED_OF_EACH and not own.seen:
        return (
            f"The probe saw none of {own.planted} faults that were planted for this number ({own.value:.3g}): that it "
            "found nothing says nothing."
        )
    return ""


def why_alarmed(own: Twins, of_probe: Twins) -> str:
    """Why a FAIL says nothing, in a sentence: twins without a fault FAIL too; "" where they do not."""
    least = least_share(of_probe.alarmed, of_probe.clean)
    if least > MOST_ALARMED or (own.clean and own.alarmed == own.clean):
        found = of_probe if least > MOST_ALARMED else own
        return (
            f"The probe also FAILed {found.alarmed} of {found.clean} twins of the model that have no fault: that it "
            "found one says nothing."
        )
    return ""


def describe(twins: Twins) -> str:
    """What became of a number's twins, in a sentence."""
    if twins.value is None or not twins.planted:
        return f"No planted control: {twins.why or 'there is none'}."
    where = f" in {twins.rows:,} of the rows" if twins.rows else ""
    return (
        f"Planted at {twins.value:.3g}{where}: seen {twins.seen} of {twins.planted}; "
        f"clean: {twins.alarmed} of {twins.clean} alarmed."
    )


def held_to_plants(findings: Sequence[Judgement]) -> list[Judgement]:
    """The findings; a PASS of a probe that did not see what was planted, and a FAIL of one that alarms without a fault,
    is INCONCLUSIVE and says why."""
    of_probes = {
        probe: together([f.planted for f in findings if f.probe == probe and f.planted is not None])
        for probe in {f.probe for f in findings}
    }
    weak = {
        i: why
        for i, finding in enumerate(findings)
        if finding.planted is not None and (why := _why_weak(finding, finding.planted, of_probes[finding.probe]))
    }
    # What follows from a number that is left open is open too; which number of the probe it was does not matter here.
    left_open = {(findings[i].probe, findings[i].outcome) for i in weak}
    held = []
    for i, finding in enumerate(findings):
        why = weak.get(i, "")
        if finding.follows and (finding.probe, finding.outcome) in left_open:
            why = why or "It follows from another number of the probe, and planted controls leave such a one open."
        if why:
            finding = replace(finding, outcome=Outcome.INCONCLUSIVE, reason=why, blind=why, alone=None, said_alone="")
        if finding.planted is not None:
            finding = replace(finding, reason=f"{finding.reason} {describe(finding.planted)}".strip())
        held.append(finding)
    return held


def _why_weak(finding: Judgement, own: Twins, of_probe: Twins) -> str:
    if finding.outcome is Outcome.PASS:
        return why_unseen(own, of_probe)
    return why_alarmed(own, of_probe) if finding.outcome is Outcome.FAIL else ""
