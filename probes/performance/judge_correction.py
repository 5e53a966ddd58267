"""Accuracy by a model that graded the answers, corrected for its errors on samples that a person labelled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.errors import ConfigError
from auditor.core.rows import BoolArray, IntArray
from auditor.judging.measurement import Measurement
from auditor.statistics.error_corrected_rates import Corrected, WorstCorrectedDifference
from auditor.statistics.rates import MOST_GROUPS
from probes.language.calibration import Counted, Errors, count_errors

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData

RATE, GAP = "corrected_accuracy", "corrected_accuracy_difference"
OPEN, WRONG, RIGHT = -1, 0, 1


@dataclass(frozen=True, eq=False)
class Verdicts:
    """A model's verdicts on samples, (n,): RIGHT, WRONG, or OPEN where there is none; and a person's on some of them.

    ``truth``: (n,) likewise, OPEN where no person labelled the sample. ``source``: of the person's labels, in words.
    """

    given: IntArray
    truth: IntArray
    source: str

    @classmethod
    def from_labels(cls, given: IntArray, ids: Sequence[str], labels: Mapping[str, bool], source: str) -> Verdicts:
        """Verdicts and labels by sample id. Raises ConfigError for a label of a sample that there is not."""
        known = set(ids)
        if absent := [key for key in labels if key not in known]:
            first = f"the first is {absent[0][:40]!r}"
            raise ConfigError(f"The calibration labels {len(absent):,} samples that the log does not have: {first}.")
        truth = np.asarray([labels.get(name, OPEN) for name in ids], np.int64)
        return cls(given, truth, source)

    def errors(self, groups: Sequence[str] | None = None) -> Errors:
        """The model's errors on the samples that a person labelled; ``groups``: (n,) of all samples."""
        both = np.flatnonzero((self.truth != OPEN) & (self.given != OPEN))
        own = None if groups is None else [groups[i] for i in both.tolist()]
        return count_errors(self.given[both] == RIGHT, self.truth[both] == RIGHT, own, f"{len(both):,} samples "
                            f"that a person labelled ({self.source}), taken for a random part of all")  # fmt: skip

    def corrected(self, errors: Counted, part: BoolArray) -> Corrected:
        """The share of a part of the samples that is right, whatever those without a verdict are."""
        own = self.given[part]
        return Corrected(
            successes=int((own == RIGHT).sum()),
            n=len(own),
            found=errors.found,
            positives=errors.positives,
            spared=(errors.spared,),
            negatives=(errors.negatives,),
            unlabelled=int((own == OPEN).sum()),
        )


def corrected_measurements(verdicts: Verdicts, rows: AuditData, method: str) -> Iterator[Measurement]:
    """The corrected share of all samples, of each group, and the largest difference between groups of a feature."""
    errors = verdicts.errors()
    words = f"graded right {int((verdicts.given == RIGHT).sum()):,} of {len(rows):,}; {errors.every.words}"
    yield Measurement(
        metric=RATE,
        method=method,
        estimate=verdicts.corrected(errors.every, np.ones(len(rows), bool)),
        n_samples=len(rows),
        ideal=1.0,
        detail=f"{words}: {errors.source}",
        weak=errors.agreement_warning,
    )
    for feature in [] if rows.sensitive_features is None else map(str, rows.sensitive_features.columns):
        groups = rows.groups(feature)
        names = [level for (level,) in groups.levels]
        by_group = verdicts.errors([names[code] if code >= 0 else "" for code in groups.codes])
        lacking = by_group.lacking(names)
        parts = [
            verdicts.corrected(by_group.every if lacking else by_group.by_group[name], np.asarray(groups.codes == code))
            for code, name in enumerate(names)
        ]
        for name, part in zip(names, parts, strict=True):
            yield Measurement(
                metric=RATE, method=method, estimate=part, n_samples=part.n, ideal=1.0, group={feature: name}, part=True
            )
        if 2 <= len(parts) <= MOST_GROUPS:
            yield Measurement(
                metric=GAP,
                method=method,
                estimate=WorstCorrectedDifference(parts=tuple(parts)),
                n_samples=len(rows),
                ideal=0.0,
                sensitive=(feature,),
                detail=f"each group by its own errors: {by_group.source}",
                too_few=lacking,
                weak=errors.agreement_warning,
            )
