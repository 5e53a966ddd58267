"""Deepfake detection as a gate: inputs classified as synthetic do not reach the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from auditor.core.errors import ModelError, UsageError
from auditor.run.mitigation import BaseMitigation, Mitigated, Training
from mitigations.selection_guide import instead

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.detector import Detector
    from auditor.models.torch_model import TorchModel

Choice = Literal["pass", "reject"]


class DeepfakeDetection(BaseMitigation):
    """The model behind a gate: an input with verdict ``fake`` is rejected and gets one fixed answer.

    An input of which the detector cannot say passes, or is rejected too (``on_cannot_say``); one that shows no known
    trace is treated like it, or as ``on_no_trace`` says. The detector's own error
    rates are the gate's: over inputs like its calibration files it rejects at most ``card.error_rate`` of the real
    ones, and nothing is promised for generators that it does not know. It learns from no rows.

    detector: a bundle of ``auditor detect train``, or of ``detect calibrate`` for any other classifier, or a
    :class:`auditor.models.detector.Detector`. predict: the function of yours, ``package.module:function``, that the
    detector is a card of; whoever loads the new model names it again. answer: the class given to what is rejected; None
    takes the unfavourable one of two classes.

    Raises ModelError for a model that is no torch model of the detector's medium; UsageError for an answer that is none
    of its classes, or where None leaves open which it is.

    Source: Chow, IEEE Transactions on Information Theory 16 (1970), for the reject option; Vovk, Gammerman and Shafer,
    2005, for the rate at which real inputs are rejected.
    """

    name = "deepfake_detection"
    pillar = "deepfake"
    goal = "Keep synthetic images and recordings away from a model that was made for real ones"
    citation = "Chow, IEEE Transactions on Information Theory 16 (1970)"
    methods = ("gate",)
    stage = "post-processing"
    needs = "a bundle of images or sound; a detector of that medium (detector=FILE)"
    learns = False

    def __init__(
        self,
        *,
        detector: str | Detector | None = None,
        predict: str | None = None,
        answer: str | None = None,
        on_cannot_say: Choice = "pass",
        on_no_trace: Choice | None = None,
    ) -> None:
        if detector is None:
            raise ValueError("name the detector: detector=FILE, as auditor detect train or detect calibrate writes it")
        for name, choice in (("on_cannot_say", on_cannot_say), ("on_no_trace", on_no_trace or on_cannot_say)):
            if choice not in get_args(Choice):
                raise ValueError(f"{name} must be pass or reject, not {choice!r}")
        self.detector = detector
        self.predict = predict
        self.answer = answer
        self.on_cannot_say = on_cannot_say
        self.on_no_trace = on_no_trace

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """The old model behind the gate; of ``data`` only the favourable class is read, and nothing is drawn."""
        from auditor.models.gated_model import Gate, GatedModel, describe_gate

        base = _gateable(model)
        detector = self._loaded(training.device)
        gate = Gate(
            answer=self._answer(base, data.positive), on_cannot_say=self.on_cannot_say, on_no_trace=self.on_no_trace
        )
        new = GatedModel(base, detector, gate)
        card = detector.card
        notes = [
            f"{describe_gate(gate, base.classes)} Of real inputs like the detector's calibration files at most "
            f"{card.error_rate:.0%} are rejected as synthetic"
            + ("; what else it rejects comes on top." if len(gate.rejected_answers) > 1 else "."),
            "Nothing is promised for generators that the detector does not know: audit it by itself (auditor scan).",
        ]
        if card.unproven:
            notes.insert(0, f"Its rejections are not earned: {card.unproven}")
        if not new.rows.has_same_input:
            notes.append("Its rows hold what the model and the detector read of each file, one beside the other.")
        elif len(data.X):
            notes += self.describe_gate_counts(new, data)
        return Mitigated(model=new, notes=tuple(notes))

    def describe_gate_counts(self, model: AuditedModel, data: AuditData) -> tuple[str, ...]:
        """The numbers of rows rejected, undecided and accepted by the new model's gate, in a sentence."""
        from auditor.models.detector_card import TRACELESS
        from auditor.models.gated_model import GatedModel

        if not isinstance(model, GatedModel) or not len(data.X):
            return ()
        answers = [verdict.answer for verdict in model.verdicts(data.X)]
        n, unsure, clear = len(answers), answers.count("cannot say"), answers.count(TRACELESS)
        unsure_are, clear_are = (
            "rejected them too" if answer in model.gate.rejected_answers else "let them pass"
            for answer in ("cannot say", TRACELESS)
        )
        return (
            f"Of {n:,} rows the gate rejected {answers.count('fake'):,} as synthetic, could not judge {unsure:,} "
            f"({unsure_are}), and found no known trace in {clear:,} ({clear_are}).",
        )

    def _loaded(self, device: str) -> Detector:
        if not isinstance(self.detector, str):
            return self.detector
        from auditor.detection.examine_file import loaded_detector
        from auditor.loading.job_specs import ModelSpec

        return loaded_detector(ModelSpec(path=self.detector, device=device, predict=self.predict))

    def _answer(self, model: TorchModel, positive: int | None) -> int:
        if self.answer is not None:
            if self.answer not in model.classes:
                raise UsageError(
                    f"The answer {self.answer!r} is none of the model's classes ({', '.join(model.classes[:8])})."
                )
            return model.classes.index(self.answer)
        if positive is None or model.n_outputs != 2:
            raise UsageError(
                "Which answer a rejected input gets is not clear: say answer=CLASS, or name the favourable one of two "
                "classes with --positive."
            )
        return 1 - positive


def _gateable(model: AuditedModel) -> TorchModel:
    from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing
    from auditor.models.torch_model import TorchModel

    of_media = isinstance(model.preprocessing, ImagePreprocessing | AudioPreprocessing)
    if not (isinstance(model, TorchModel) and of_media):
        raise ModelError(
            "Only a torch classifier of images or sound can be put behind a gate (save it as a bundle with its "
            f"preprocessing): {instead(model)}."
        )
    return model
