"""A gated model: inputs that a detector classifies as synthetic do not reach it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from auditor.core.errors import DataError, ModelError
from auditor.core.files import Closed
from auditor.core.number_types import Count
from auditor.core.rows import BoolArray, FloatArray, Rows
from auditor.data.preprocessing import PairedRows
from auditor.models.audited_model import AuditedModel
from auditor.models.detector import Detector
from auditor.models.detector_card import TRACELESS, Answer, Verdict
from auditor.models.saved_models import bundle_of
from auditor.models.torch_model import TorchModel


class Gate(Closed):
    """The result for a blocked input: ``answer``, an index into the model's classes, with certainty.

    ``on_cannot_say``: whether an input of which the detector cannot say passes or is rejected too. ``on_no_trace``: the
    same of one that shows no known trace; None treats it like one of which the detector cannot say.
    """

    answer: Count
    on_cannot_say: Literal["pass", "reject"] = "pass"
    on_no_trace: Literal["pass", "reject"] | None = None

    @property
    def rejected_answers(self) -> tuple[Answer, ...]:
        """The answers of a detector that end at the gate."""
        choices: dict[Answer, str] = {
            "fake": "reject",
            "cannot say": self.on_cannot_say,
            TRACELESS: self.on_no_trace or self.on_cannot_say,
        }
        return tuple(answer for answer, choice in choices.items() if choice == "reject")


class GatedModel(AuditedModel):
    """A media classifier that predicts inputs accepted by its detector, and returns ``gate.answer`` for the rest.

    Its rows hold what either of the two reads of a file (``rows``), so that each gets what it would get alone; where
    both read alike they are the model's own rows, and ``preprocessing`` is the model's. Raises ModelError where the two
    do not take the same medium, where the model is itself a detector, and for an answer that is none of its classes.
    """

    def __init__(self, base: TorchModel, detector: Detector, gate: Gate) -> None:
        if isinstance(base, Detector):
            raise ModelError("A detector is not put behind a gate of its own kind: name the model that it protects.")
        if gate.answer >= base.n_outputs:
            raise ModelError(f"The gate's answer is class {gate.answer}, and the model has {base.n_outputs} classes.")
        rows = PairedRows.from_preprocessing(base.preprocessing, detector.preprocessing)
        super().__init__(
            self._answers,
            classes=base.classes,
            preprocessing=base.preprocessing if rows.has_same_input else None,
            threshold=base.threshold,
            batch_rows=min(base.batch_rows, detector.batch_rows),
            provenance=replace(
                base.provenance, notes=(*base.provenance.notes, describe_gate(gate, base.classes), *_code(detector))
            ),
        )
        self.base = base
        self.detector = detector
        self.gate = gate
        self.rows = rows

    def base_rows(self, X: Rows) -> npt.NDArray[Any]:
        """(n, ...) the input rows in the format of the model behind the gate."""
        return self.rows.split(_array(X))[0]

    def rejection_mask(self, X: Rows) -> BoolArray:
        """(n,) the blocked rows."""
        refused = self.gate.rejected_answers
        return np.asarray([verdict.answer in refused for verdict in self.verdicts(X)], bool)

    def verdicts(self, X: Rows) -> list[Verdict]:
        """(n,) the detector's verdict on each row."""
        return self.detector.verdicts(self.rows.split(_array(X))[1])

    def check_outputs(self) -> None:
        """Raise the errors of the inner model's own check."""
        self.base.check_outputs()

    @property
    def in_question(self) -> bool:
        """Whether the output kind of the model behind the gate is still undecided."""
        return self.base.in_question

    def saved_parts(self) -> tuple[AuditedModel, dict[str, Any]]:
        """The model behind the gate, and the gate with the whole bundle of its detector."""
        return self.base, {"gate": {**self.gate.model_dump(mode="json"), "detector": bundle_of(self.detector)}}

    def _answers(self, X: Rows) -> FloatArray:
        rejected = self.rejection_mask(X)
        out = np.zeros((len(rejected), self.n_outputs))
        out[rejected, self.gate.answer] = 1.0
        if not rejected.all():
            out[~rejected] = self.base.predict_part(self.base_rows(X)[~rejected])
        return out


def _code(detector: Detector) -> tuple[str, ...]:
    known = detector.provenance
    return (f"Its detector is {known.loaded_by}.",) if known.format == "callable" else ()


def _array(X: Rows) -> npt.NDArray[Any]:
    if not isinstance(X, np.ndarray):
        raise DataError("A model behind a gate takes pictures or sound as an array.")
    return X


def describe_gate(gate: Gate, classes: tuple[str, ...]) -> str:
    """The effect of the gate, in a sentence."""
    what = {"fake": "takes for synthetic", "cannot say": "cannot judge", TRACELESS: "finds no known trace in"}
    rejected = ", or ".join(what[answer] for answer in gate.rejected_answers)
    nothing = (
        " That is everything: say on_no_trace=pass to let anything through." if len(gate.rejected_answers) == 3 else ""
    )
    return f"What its detector {rejected} does not reach the model and is answered {classes[gate.answer]!r}.{nothing}"
