"""Verification of membership results, recomputed from the membership scores in a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from auditor.core.errors import DataError
from auditor.evidence.manifest import MEMBERSHIP, RESULTS, TABLES, Manifest
from auditor.evidence.verify.checks import Check, Unproven
from auditor.evidence.verify.enclosed_inputs import Inputs
from auditor.evidence.verify.remeasure import Again, Kept, Remade
from auditor.judging.measurement import ProbeResult
from auditor.report.record.audit_report import AuditReport
from auditor.run.constant_answers import alike_answers
from auditor.run.membership_scores import (
    MembershipHead,
    MembershipScores,
    ScoresProbe,
    read_membership,
    read_membership_head,
)
from auditor.run.predictions import StoredModel
from auditor.run.probe import make_probe
from auditor.run.run_audit import attempt


@dataclass(frozen=True)
class Members:
    """The membership scores of a bundle, with metadata; ``own_losses``: no losses were given beside answers.

    ``head`` without ``scores``: they were left out.
    """

    head: MembershipHead | None = None
    scores: MembershipScores | None = None
    own_losses: bool = True

    @classmethod
    def from_entries(cls, entries: Mapping[str, bytes], inputs: Inputs) -> Members:
        """The membership scores of a bundle.

        Raises DataError where they are none.
        """
        head = read_membership_head(entries.get(TABLES, b""))
        scores = None if head is None or MEMBERSHIP not in entries else read_membership(entries[MEMBERSHIP], head)
        return cls(head, scores, not inputs.options.get("loss"))

    def fitting(self, manifest: Manifest, results: Mapping[str, ProbeResult], report: AuditReport) -> Iterator[Check]:
        """Differences from the scores that the bundle should have."""
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
        """Statements on the scores that nothing in the bundle proves."""
        if self.head is not None:
            why = "which attacks were made, what they know and why others were not made, is the signer's word"
            yield Unproven(where=f"{TABLES}: membership.*", why=why)
        if self.scores is not None:
            why = "that model and attacks gave these scores, only the model can tell: auditor reproduce"
            yield Unproven(where=f"{MEMBERSHIP}: *", why=why)

    def remeasure(
        self, stored_result: ProbeResult, options: Mapping[str, Any], kept_data: Kept, remade: Remade
    ) -> Again | None:
        """The probe's results remeasured from the scores; None for other probes, and without scores.

        Raises ConfigError for options that are none.
        """
        scores, kind = self.scores, remade.make.kinds().get(stored_result.probe)
        if scores is None or kind is None or scores.head.probe != stored_result.probe:
            return None
        probe: Any = make_probe(kind, options)
        if not isinstance(probe, ScoresProbe):
            return None
        answers = kept_data.answers if kept_data.whole else None
        stand_in: Any = None if answers is None else StoredModel(answers)
        alike = None if answers is None else partial(alike_answers, stand_in, answers.data())
        found = attempt(probe, partial(probe.measure_scores, scores), find_constant_answers=alike)
        if alike is None:
            found = replace(found, alike=stored_result.alike)
        wrong = probe.contradictions(scores, kept_data.answers, own_losses=self.own_losses)
        return Again(
            found=found, whence="scores", wrong=(*wrong, *remade.wrong(stored_result, found, with_figures=True))
        )


def unproven_alike(remeasurement: Again | None, kept_data: Kept) -> Iterator[Unproven]:
    """Statements on a probe not covered by membership scores if there are no answers."""
    if (
        remeasurement is not None
        and remeasurement.whence == "scores"
        and not (kept_data.answers is not None and kept_data.whole)
    ):
        why = "which rows are answered alike, the answers alone show"
        yield Unproven(where=f"{RESULTS}: {remeasurement.found.probe}.alike", why=why, needs="rows")


def members_of(entries: Mapping[str, bytes], inputs: Inputs) -> tuple[Members, list[Check]]:
    """The membership scores of a bundle, or their errors."""
    try:
        return Members.from_entries(entries, inputs), []
    except DataError as error:
        return Members(), [Check(name=MEMBERSHIP, state="wrong", detail=str(error))]
