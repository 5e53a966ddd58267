"""Poisoning: whether a user-named trigger causes the decision for an attacker's target class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from auditor.core.errors import LacksOptionError, NotApplicableError, OutputsError, UsageError, did_you_mean
from auditor.core.rows import IntArray, Rows
from auditor.data.preprocessing import label_name
from auditor.judging.measurement import Answer, Measurement, Pillar
from auditor.run.probe import Need, allow_untrusted
from auditor.statistics.changes import RateChange
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rates import Proportion
from probes.robustness.applied_changes import changed_rows
from probes.robustness.backdoor_triggers import PLACES, triggered_images, triggered_table, triggered_texts

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

BoolArray = npt.NDArray[np.bool_]
_HOW = {
    "tabular": "--set poisoning.trigger=COLUMN=VALUE",
    "text": "--set poisoning.trigger=WORDS",
    "image": "--set poisoning.patch=FILE",
}
_TRIED = "this trigger was tried, and no other"


class Poisoning:
    """The rate at which a user-named trigger changes rows of other classes to an attacker's target class.

    Over the evaluation rows of other classes than ``target``, by their labels or, without any, by the decisions:

    - ``trigger_success_rate``: share of rows of other classes that are decided as the target once the trigger is in
      them; [0, 1], ideal 0; at 0.9 the trigger turns nine of ten rows into what the attacker wants; Gu et al., IEEE
      Access 7 (2019)

      The attack success rate of the field. Clopper-Pearson interval.

    - ``target_rate_change``: share decided as the target with the trigger less that without it, over the same rows;
      [-1, 1], ideal 0; what the trigger itself does; Gu et al., IEEE Access 7 (2019)

      A trigger that means something, such as a high income, has its effect in a model without a backdoor too.

    A PASS says that this trigger was tried and no more: nothing here searches for triggers that nobody named. Scores
    that claim to find poisoned rows or triggers miss too many to be held to a requirement, and none is given. Beside
    this probe, ``label_conflicts`` looks at the training rows and ``weight_changes`` at the weights.

    trigger: ``column=value,column=value`` of a table, quoted as in CSV, or words, put before each text and behind it, a
    number for either ``place``. patch: the file of a small picture, put into the lower right corner. target: the class
    that the trigger is to cause.

    Raises NotApplicableError without a trigger or a target, UsageError where they do not fit the rows or the model.

    Source: Gu et al., BadNets, IEEE Access 7 (2019).
    """

    name: ClassVar[str] = "poisoning"
    pillar: ClassVar[Pillar] = "robustness"
    goal: ClassVar[str] = "Does a trigger that somebody names cause the class that an attacker wants?"
    citation: ClassVar[str] = "Gu et al., IEEE Access 7 (2019)"
    methods: ClassVar[tuple[str, ...]] = ("trigger",)
    needs: ClassVar[tuple[Need, ...]] = (Need.CLASSIFIER, Need.DATA)
    ideal_when_same: ClassVar[Mapping[str, Answer]] = {
        "trigger_success_rate": "decisions",
        "target_rate_change": "decisions",
    }
    # Rows of other classes, and the success found above 0.1 with 80 % power at 5 %.
    power = (200, 0.17)
    untrusted_options = allow_untrusted("trigger", "target", reads=("patch",))

    def __init__(
        self,
        *,
        trigger: str | float | None = None,
        patch: str | None = None,
        target: str | float | bool | None = None,
    ) -> None:
        self.trigger = None if trigger is None else str(trigger)
        self.patch = patch
        self.target = None if target is None else label_name(target)

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on the evaluation rows of other classes; ``rng`` is not used."""
        rows = data.evaluation
        target = self._target(model, rows)
        clean = model.decisions(rows)
        labelled = rows.y_true is not None and bool((rows.y_true >= 0).any())
        y = rows.y_true if labelled and rows.y_true is not None else clean
        others = np.flatnonzero((y >= 0) & (y != target))
        whose = f"rows {'labelled' if labelled else 'decided'} otherwise; {_TRIED}"
        found: list[Measurement] = []
        own = rows.take(others)
        for place, X in self._triggered(own, model).items():
            found += _effect(model, own, X, clean[others] == target, target, place, whose)
        return found

    def _target(self, model: AuditedModel, rows: AuditData) -> int:
        """The class that the trigger is to cause."""
        if rows.modality == "audio":
            raise NotApplicableError("A trigger cannot be put into sound here: use a probe of your own.")
        if not model.can_be_asked:
            raise NotApplicableError("Needs the model itself: rows with a trigger are rows that it has not answered.")
        named = self.patch if rows.modality == "image" else self.trigger
        if named is None or self.target is None:
            what = "a trigger to try" if named is None else "the class that the trigger is to cause"
            how = [_HOW[rows.modality]] * (named is None) + ["--set poisoning.target=CLASS"] * (self.target is None)
            raise LacksOptionError(f"Needs {what}: add {' and '.join(how)}.")
        if self.target not in model.classes:
            near = did_you_mean(self.target, model.classes) or "."
            known = ", ".join(model.classes[:8])
            raise UsageError(f"The target {self.target!r} is none of the model's classes ({known}){near}")
        return model.classes.index(self.target)

    def _triggered(self, rows: AuditData, model: AuditedModel) -> dict[str, Rows]:
        """The rows with the trigger in them, by the place that it stands in."""
        if rows.modality == "image":
            return {"": triggered_images(rows.X, str(self.patch))}
        if rows.modality == "text":
            return {place: triggered_texts(rows.X, str(self.trigger), place) for place in PLACES}
        return {"": triggered_table(rows.X, str(self.trigger), model.features, model.preprocessing)}


def _effect(
    model: AuditedModel, rows: AuditData, X: Rows, before: BoolArray, target: int, place: str, subject: str
) -> list[Measurement]:
    """What the trigger does to rows of other classes: ``before`` (n,), whether each is decided as the target anyhow."""
    n = len(before)
    at: dict[str, str | float] = {"target": model.classes[target], **({"place": place} if place else {})}
    moved = int(changed_rows(rows.X, X).sum()) if n else 0
    still = (
        "" if moved or not n else f"The trigger stands in all {n:,} of these rows already, so its effect was not tried."
    )
    rate: AnyEstimate
    change: AnyEstimate
    try:
        decided: IntArray = model.decide_rows(X, model.predict_proba(X), rows.positive) if n else np.zeros(0, np.int64)
    except (NotApplicableError, OutputsError):
        raise
    except Exception as error:  # whatever a foreign model raises on such rows is what was to be found out
        reason = " ".join(f"the model fails on rows with the trigger: {type(error).__name__}: {error}".split())[:300]
        rate = change = Undefined(reason=reason, failed=True)
        detail = subject
    else:
        after = decided == target
        rate = Proportion(successes=int(after.sum()), n=n)
        change = RateChange(
            before=int(before.sum()), gained=int((after & ~before).sum()), lost=int((before & ~after).sum()), n=n
        )
        detail = f"{int(after.sum()):,} with the trigger and {int(before.sum()):,} without it, of {n:,} {subject}"
        detail += f"; {moved:,} of {n:,} did not carry it before"
    return [
        Measurement(
            metric=metric,
            method="trigger",
            estimate=estimate,
            n_samples=n,
            ideal=0.0,
            at=at,
            detail=detail,
            too_few=why,
        )
        for metric, estimate, why in (("trigger_success_rate", rate, ""), ("target_rate_change", change, still))
    ]
