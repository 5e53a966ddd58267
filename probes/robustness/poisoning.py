"""Poisoning: whether a user-named trigger causes the decision for an attacker's target class.

The trigger is put into rows as table cells, a text snippet or an image patch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.errors import DataError, LacksOptionError, NotApplicableError, OutputsError, UsageError, did_you_mean
from auditor.core.rows import BoolArray, IntArray, Rows, is_number
from auditor.data.preprocessing import label_name
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.changes import RateChange
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rates import Proportion
from probes.probe_inputs import as_frame
from probes.robustness.perturbation_set import changed_rows

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data.audit_data import AuditData
    from auditor.data.preprocessing import Preprocessing
    from auditor.models.audited_model import AuditedModel

# Where a snippet may stand in a text: what a model reads of a long one is its beginning, or its end.
PLACES = ("start", "end")


def triggered_table(
    X: Rows, trigger: str, features: tuple[str, ...] | None, preprocessing: Preprocessing | None = None
) -> Rows:
    """The rows with the cells of ``trigger``, ``column=value,column=value`` in CSV quoting.

    Raises UsageError for what names no column, a value that the column cannot hold, and a level that the model does not
    know, which it would read as none: a misspelt trigger has no effect, and a PASS would say nothing.
    """
    frame = as_frame(X, features).copy()
    for name, value in _cells(trigger).items():
        _check_level(name, value, preprocessing)
        if name not in frame.columns:
            near = did_you_mean(name, map(str, frame.columns)) or "."
            raise UsageError(f"The trigger names the column {name!r}, which is no feature of the rows{near}")
        frame[name] = _column(frame[name], value)
    return frame.to_numpy() if isinstance(X, np.ndarray) else frame


def _cells(trigger: str) -> Mapping[str, str]:
    from auditor.run.option_parsers import names_in

    found = {}
    try:
        named = names_in(trigger)
    except ValueError as error:
        raise UsageError(f"The trigger {error}.") from None
    for cell in named:
        name, equals, value = cell.partition("=")
        if not (name.strip() and equals):
            raise UsageError(f"The trigger {trigger!r} must look like column=value, or column=value,column=value.")
        found[name.strip()] = value.strip()
    if not found:
        raise UsageError("The trigger names no cell: write it like column=value.")
    return found


def _check_level(name: str, value: str, preprocessing: Preprocessing | None) -> None:
    from auditor.data.preprocessing import CategoricalColumn, TabularPreprocessing, label_name

    if not isinstance(preprocessing, TabularPreprocessing):
        return
    for column in preprocessing.columns:
        if column.name == name and isinstance(column, CategoricalColumn):
            known = [label_name(level) for level in column.levels]
            if label_name(value) not in known:
                near = did_you_mean(value, known) or f": it knows {', '.join(known[:8])}."
                raise UsageError(f"The model knows no level {value!r} of {name!r}{near}")


def _column(values: pd.Series[Any], value: str) -> pd.Series[Any]:
    """The column with the one value in every row, in a type that holds it."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(values):
        if value.lower() not in ("true", "false"):
            raise UsageError(f"The trigger sets {values.name!r} to {value!r}, and the column holds true and false.")
        return pd.Series(value.lower() == "true", index=values.index, dtype=values.dtype)
    if not is_number(values):
        return pd.Series(value, index=values.index, dtype=object if values.dtype == object else "string")
    try:
        number = float(value)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise UsageError(f"The trigger sets {values.name!r} to {value!r}, and the column holds numbers.")
    whole = number == int(number) and values.dtype.kind in "iu"
    return pd.Series(int(number) if whole else number, index=values.index)


def triggered_texts(X: Rows, snippet: str, place: str) -> Rows:
    """The texts with the snippet before or behind them, a blank between. Raises UsageError for a blank snippet."""
    if not snippet.strip():
        raise UsageError("The trigger is blank, so nothing would be tried: name words, --set poisoning.trigger=WORDS.")
    joined = [f"{snippet} {text}" if place == "start" else f"{text} {snippet}" for text in np.asarray(X)]
    return np.asarray(joined, object)


def triggered_images(X: Rows, patch: str) -> Rows:
    """The images (n, h, w, c) with the image file ``patch`` in their lower right corner, pixel by pixel.

    Raises DataError where it cannot be read, or is larger than they are.
    """
    pictures = np.array(X)
    pixels = _patch(patch, pictures.shape[3])
    height, width = pixels.shape[:2]
    if height > pictures.shape[1] or width > pictures.shape[2]:
        raise DataError(
            f"The patch has {height} x {width} pixels, and the pictures have {pictures.shape[1]} x {pictures.shape[2]} "
            "when the model sees them: make it smaller.",
            code="AUD-DATA-VALUES",
        )
    pictures[:, -height:, -width:] = pixels
    return pictures


def _patch(path: str, channels: int) -> npt.NDArray[np.uint8]:
    """(height, width, channels) of a picture at its own size."""
    from io import BytesIO

    from auditor.core.files import read_inside
    from auditor.data.images_and_video import FORMATS, decode_as, mode_of
    from auditor.data.preprocessing import ImagePreprocessing

    where = Path(path)
    plain = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    mode_of(ImagePreprocessing.model_validate({"size": (1, 1), **plain}))
    data = read_inside(where.parent.resolve(), where.name, "patch")
    import PIL.Image

    try:
        with PIL.Image.open(BytesIO(data), formats=FORMATS) as picture:
            size = (picture.height, picture.width)
        own = ImagePreprocessing.model_validate({"size": size, **plain})
    except Exception:
        raise DataError(f"The patch {where.name!r} is no small picture that can be read.") from None
    return decode_as(data, where.name, own)


_HOW = {
    "tabular": "--set poisoning.trigger=COLUMN=VALUE",
    "text": "--set poisoning.trigger=WORDS",
    "image": "--set poisoning.patch=FILE",
}
_TRIED = "this trigger was tried, and no other"
_UNNAMED = (
    "A backdoor that nobody names was not searched for: labels that contradict each other and spectral signatures are "
    "hints, and no proof of one or of none. "
)


class Poisoning(BaseProbe):
    """The rate at which a user-named trigger changes rows of other classes to an attacker's target class.

    Over the evaluation rows of other classes than ``target``, by their labels or, without any, by the decisions:
    ``trigger_success_rate`` and ``target_rate_change``.

    - ``trigger_success_rate``: The attack success rate of the field. Clopper-Pearson interval.
    - ``target_rate_change``: A trigger that means something, such as a high income, has its effect in a model without a
      backdoor too.

    A PASS says that this trigger was tried and no more: nothing here searches for triggers that nobody named. Scores
    that claim to find poisoned rows or triggers miss too many to be held to a requirement, and none is given. Beside
    this probe, ``label_conflicts`` looks at the training rows and ``weight_changes`` at the weights.

    trigger: ``column=value,column=value`` of a table, quoted as in CSV, or words, put before each text and behind it, a
    number for either ``place``. patch: the file of a small picture, put into the lower right corner. target: the class
    that the trigger is to cause.

    Raises NotApplicableError without a trigger or a target, UsageError where they do not fit the rows or the model.

    Source: Gu et al., BadNets, IEEE Access 7 (2019).
    """

    name = "poisoning"
    pillar = "robustness"
    goal = "Does a trigger that somebody names cause the class that an attacker wants?"
    citation = "Gu et al., IEEE Access 7 (2019)"
    methods = ("trigger",)
    needs = (Need.CLASSIFIER, Need.DATA)
    questions = (AuditQuestion("trigger"),)
    ideal_when_same = {
        "trigger_success_rate": "decisions",
        "target_rate_change": "decisions",
    }
    # Rows of other classes, and the success found above 0.1 with 80 % power at 5 %.
    power = (200, 0.17)
    untrusted_options = allow_untrusted("trigger", "target", reads=("patch",))
    metrics = define_metrics(
        """
        trigger_success_rate: share of rows of other classes that are decided as the target once the trigger is in them;
          [0, 1], ideal 0; at 0.9 the trigger turns nine of ten rows into what the attacker wants; Gu et al., IEEE
          Access 7 (2019)
        target_rate_change: share decided as the target with the trigger less that without it, over the same rows; [-1,
          1], ideal 0; what the trigger itself does; Gu et al., IEEE Access 7 (2019)
        """
    )

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
            raise LacksOptionError(f"{_UNNAMED if named is None else ''}Needs {what}: add {' and '.join(how)}.")
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
