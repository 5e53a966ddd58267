"""What follows of the membership scores that a bundle keeps, and where that is not what is said."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from auditor.errors import DataError
from auditor.evidence.manifest import MEMBERSHIP, REQUEST, RESULTS, TABLES, Manifest
from auditor.finding.measurement import ProbeResult
from auditor.record.audit_report import AuditReport
from auditor.run.alike import alike_answers
from auditor.run.answers import StoredModel
from auditor.run.audit import attempt
from auditor.run.memberships import (
    MembershipHead,
    MembershipScores,
    ScoresProbe,
    read_membership,
    read_membership_head,
)
from auditor.run.probe import make_probe
from auditor.verifying.checks import Check, Unproven
from auditor.verifying.remeasured import Again, Kept, Remade


@dataclass(frozen=True)
class Members:
    """The membership scores of a bundle, and what is said of them; ``own_losses``: no losses were given beside answers.

    ``head`` without ``scores``: they were left out.
    """

    head: MembershipHead | None = None
    scores: MembershipScores | None = None
    own_losses: bool = True

    @classmethod
    def of(cls, entries: Mapping[str, bytes]) -> Members:
        """Those of a bundle. Raises DataError where they are none."""
        head = read_membership_head(entries.get(TABLES, b""))
        scores = None if head is None or MEMBERSHIP not in entries else read_membership(entries[MEMBERSHIP], head)
        return cls(head, scores, not _losses_given(entries.get(REQUEST, b"{}")))

    def fitting(self, manifest: Manifest, results: Mapping[str, ProbeResult], report: AuditReport) -> Iterator[Check]:
        """Where they are not the ones that the bundle should have."""
        if (self.head is None) == (MEMBERSHIP in manifest.files):
            detail = "tables.json does not say what it holds" if self.head is None else "tables.json says what it holds"
            yield Check(name=MEMBERSHIP, state="wrong", detail=f"{detail}, and the manifest does not fit that")
        if self.head is not None and self.head.probe not in results:
            yield Check(name=MEMBERSHIP, state="wrong", detail="it is of a probe that did not answer")
        if self.scores is not None:
            numbers = self.scores.number[self.scores.is_member]
            if numbers.size and int(numbers[-1]) > (report.data.n_train_rows or 0):
                yield Check(name=MEMBERSHIP, state="wrong", detail="it has a member that is no row of --train")

    def unproven(self) -> Iterator[Unproven]:
        """What nothing in a bundle proves of them."""
        if self.head is not None:
            why = "which attacks were made, what they know and why others were not made, is the signer's word"
            yield Unproven(where=f"{TABLES}: membership.*", why=why)
        if self.scores is not None:
            why = "that model and attacks gave these scores, only the model can tell: auditor reproduce"
            yield Unproven(where=f"{MEMBERSHIP}: *", why=why)

    def again(self, said: ProbeResult, options: Mapping[str, Any], kept: Kept, remade: Remade) -> Again | None:
        """What their probe measures anew of them; None for every other, and without them.

        Raises ConfigError for options that are none.
        """
        scores, kind = self.scores, remade.make.kinds().get(said.probe)
        if scores is None or kind is None or scores.head.probe != said.probe:
            return None
        probe: Any = make_probe(kind, options)
        if not isinstance(probe, ScoresProbe):
            return None
        answers = kept.answers if kept.whole else None
        stand_in: Any = None if answers is None else StoredModel(answers)
        alike = None if answers is None else partial(alike_answers, stand_in, answers.data())
        found = attempt(probe, partial(probe.measure_scores, scores), alike=alike)
        if alike is None:
            found = replace(found, alike=said.alike)
        wrong = probe.contradictions(scores, kept.answers, own_losses=self.own_losses)
        return Again(found=found, whence="scores", wrong=(*wrong, *remade.wrong(said, found, drawn=True)))


def unproven_alike(again: Again | None, kept: Kept) -> Iterator[Unproven]:
    """What scores of members do not say of a probe, where no answers do."""
    if again is not None and again.whence == "scores" and not (kept.answers is not None and kept.whole):
        why = "which rows are answered alike, the answers alone show"
        yield Unproven(where=f"{RESULTS}: {again.found.probe}.alike", why=why, needs="rows")


def _losses_given(request: bytes) -> bool:
    try:
        return bool(dict(json.loads(request)["options"]).get("loss"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def members_of(entries: Mapping[str, bytes]) -> tuple[Members, list[Check]]:
    """The membership scores of a bundle, or what is wrong with them."""
    try:
        return Members.of(entries), []
    except DataError as error:
        return Members(), [Check(name=MEMBERSHIP, state="wrong", detail=str(error))]
